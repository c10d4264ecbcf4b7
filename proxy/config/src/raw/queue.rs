//! The queue of an upstream.

use schemars::JsonSchema;
use serde::Deserialize;

use super::PositiveTime;

/// What becomes of requests that no endpoint can take at once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum QueueChoice {
    /// A word.
    Word(QueueWord),
    /// They wait, within these bounds.
    Queue(Queue),
}

/// No queue.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum QueueWord {
    /// They are refused.
    Off,
}

/// Where requests wait that no endpoint can take at once.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Queue {
    /// Most requests that wait; more are refused. Default: twice the requests that all endpoints take at a time, 64 at
    /// least and 4096 at most; 4096 where that number is not known. Unit: requests.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) size: Option<usize>,
    /// Longest wait for an endpoint that is full. Default: 5s. Unit: duration.
    #[schemars(extend("default" = "5s"))]
    pub(crate) wait: Option<PositiveTime>,
    /// Longest wait while workers are starting and none is ready. Default: 10s. Unit: duration.
    #[schemars(extend("default" = "10s"))]
    pub(crate) hold: Option<PositiveTime>,
    /// Who comes first: `fifo` is the oldest, always; `adaptive` too, but while the queue is overloaded it is the newest,
    /// whose client still waits, and whoever has waited for more than twice the `target` is refused. Overloaded is a
    /// queue in which even the shortest wait of 100 ms was above the target. Default: adaptive.
    #[schemars(extend("default" = "adaptive"))]
    pub(crate) order: Option<QueueOrder>,
    /// The wait above which the queue is overloaded when it lasts. Default: a quarter of the median time that an endpoint
    /// spends on a request, where fewer than four are served at a time the time in which one ends, at least 5ms. Unit:
    /// duration.
    pub(crate) target: Option<PositiveTime>,
}

/// Who comes first.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum QueueOrder {
    /// The oldest; under overload the newest.
    Adaptive,
    /// The oldest.
    Fifo,
}
