//! When a worker counts as hung, and what becomes of it then.

use std::time::Duration;

/// For the workers of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hang {
    /// Requests are under way and nothing comes back for so long: the worker is in doubt.
    pub suspect_after: Duration,
    /// How long a worker may not have said that it lives; `None` expects nothing. Workers learn of it at their start.
    pub watchdog: Option<Duration>,
    /// Questions without an answer that make it hung; at least 1.
    pub tries: u32,
    /// How long the answer to one may take.
    pub try_timeout: Duration,
    /// What it is asked for, with GET.
    pub path: String,
    /// Share of the workers in doubt at which none is killed, if there are two of them. Unit: percent, 1 to 100.
    pub guard: u8,
    /// From one kill to the next.
    pub kill_interval: Duration,
    /// argv of what is run about a worker before it is killed. May hold `{pid}`, `{slot}`, `{generation}` and `{pool}`.
    pub on_hang: Option<Vec<String>>,
    /// A worker whose places are all taken has no thread to answer with: nothing follows from its silence.
    pub spares_full: bool,
}

impl Hang {
    /// What a worker is asked for where nobody says.
    pub const PATH: &str = "/";

    /// Once it has answered, a worker is not doubted again for so long.
    #[must_use]
    pub fn trust(&self) -> Duration {
        self.suspect_after.saturating_mul(3)
    }
}

impl Default for Hang {
    /// As in a file that says nothing.
    fn default() -> Self {
        Self {
            suspect_after: Duration::from_secs(10),
            watchdog: None,
            tries: 3,
            try_timeout: Duration::from_secs(5),
            path: Self::PATH.to_owned(),
            guard: 50,
            kill_interval: Duration::from_secs(30),
            on_hang: None,
            spares_full: false,
        }
    }
}
