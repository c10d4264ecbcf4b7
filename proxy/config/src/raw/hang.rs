//! When a worker counts as hung, as it is written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{Percent, PositiveTime, Text};

/// Whether workers that hang are found and replaced.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum HangChoice {
    /// A word.
    Word(HangWord),
    /// When, and what becomes of them.
    Hang(Hang),
}

/// Workers that hang stay.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HangWord {
    /// Whatever they do.
    Off,
}

/// When a worker hangs, and what becomes of it. A worker is in doubt when requests are under way with it and it has sent
/// nothing for `suspect_after`, or when it does not accept a connection. It is then asked on a connection of its own: any
/// HTTP answer clears it, so a slow request or a long poll costs nobody anything, and it is not doubted again for three times
/// `suspect_after`. From the first question without an answer on it gets no requests; after the last one another worker is
/// started, it gets SIGABRT (Python writes its stacks to the log then), and after 2s its process group is killed. WebSockets
/// alone raise no doubt. One that does not say in time that it lives is in doubt too (`watchdog`). A worker that serves each request with a thread (`gunicorn` with sync workers or threads, `puma`, or
/// `cap: 1`) is not doubted while all its places are taken: it has no thread to answer with.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hang {
    /// Time without a byte of an answer, while requests are under way, that raises a doubt. Default: 10s. Unit: duration.
    #[schemars(extend("default" = "10s"))]
    pub(crate) suspect_after: Option<PositiveTime>,
    /// How long a worker may not have said that it lives, as with systemd's `WatchdogSec`: it finds `WATCHDOG_USEC`,
    /// `WATCHDOG_PID` and `NOTIFY_SOCKET` in its environment, whatever makes it ready, and sends `WATCHDOG=1` (sd_notify) at least
    /// every half of that time. Without it from the moment on at which it is ready, or with `WATCHDOG=trigger`, it is in doubt:
    /// asked like any other, and cleared by an answer. `WATCHDOG_USEC=...` sets another time for the worker that says it, 0 none.
    /// A change replaces the workers. Default: none, nothing is expected. Unit: duration.
    pub(crate) watchdog: Option<PositiveTime>,
    /// Questions without an answer after which it is hung. Default: 3. Unit: questions.
    #[schemars(range(min = 1, max = 100), extend("default" = 3))]
    pub(crate) tries: Option<u32>,
    /// Time that the answer to a question may take, a connection that is refused tried again meanwhile. Default: 5s. Unit:
    /// duration.
    #[schemars(extend("default" = "5s"))]
    pub(crate) try_timeout: Option<PositiveTime>,
    /// Path that is asked for with GET; any status will do. Default: that of `ready: { http: ... }`, else /.
    #[schemars(length(min = 1))]
    pub(crate) path: Option<String>,
    /// Share of the workers that do not answer at which it is not they who are to blame, if there are at least two: none is
    /// killed, all get requests again, and the log says once what they may have in common. Default: 50%. Unit: share.
    #[schemars(extend("default" = "50%"))]
    pub(crate) guard: Option<Percent>,
    /// Time from one kill to the next. Default: 30s. Unit: duration.
    #[schemars(extend("default" = "30s"))]
    pub(crate) kill_interval: Option<PositiveTime>,
    /// Program and arguments of a command that is run about a worker before it is killed, such as a profiler's dump: as the
    /// worker's account, in its folder and environment, with `{pid}`, `{slot}`, `{generation}` and `{pool}` replaced and
    /// `WORKER_PID` set. It has 10s. What it prints stands in the log and in the event. Default: none.
    #[schemars(length(min = 1))]
    pub(crate) on_hang: Option<Vec<Text>>,
}
