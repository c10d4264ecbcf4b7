//! When a worker may get requests.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{PositiveTime, Time};

/// When a worker may get requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Ready {
    /// A word.
    Word(ReadyWord),
    /// One condition with its value, or several.
    When(Box<ReadyWhen>),
}

/// When a worker may get requests.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReadyWord {
    /// Once its address accepts a connection.
    Connect,
    /// Once it says so on its notification socket.
    Notify,
}

/// When a worker may get requests. One of `http`, `log`, `delay` and `all_of`. Whatever it is, the worker's address has to
/// accept a connection, too.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadyWhen {
    /// Path that is asked with GET, a try taking 2s at the most; a status below 500 means ready. Default: none.
    #[schemars(length(min = 1))]
    pub(crate) http: Option<String>,
    /// A regular expression that a line of the worker's output matches, on either stream, as the line stands in our log.
    /// Default: none.
    #[schemars(length(min = 1))]
    pub(crate) log: Option<String>,
    /// Time since the command began to run. Default: none. Unit: time.
    pub(crate) delay: Option<Time>,
    /// Several of these conditions, in any order: `[notify, { http: /healthz }]`. Default: none.
    #[schemars(length(min = 1))]
    pub(crate) all_of: Option<Vec<Ready>>,
    /// How often `connect` and `http` are asked again once the worker is ready: one that fails gets no requests until it
    /// passes again, and is asked every second meanwhile. It is never ended for that. Default: never. Unit: duration.
    pub(crate) interval: Option<PositiveTime>,
}
