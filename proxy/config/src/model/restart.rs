//! When workers that end unasked are started again.

use std::time::Duration;

/// For the workers of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// Time in service after which failures of a slot are forgotten.
    pub stable_after: Duration,
    /// Longest wait before a start.
    pub max_delay: Duration,
    /// Failures within the window that make a crash loop, if twice the number of workers is not more; at least 1.
    pub failures: u32,
    /// Span over which failures are counted.
    pub window: Duration,
    /// Exit codes after which a worker is not started again, lowest first.
    pub no_restart_codes: Vec<u8>,
}

impl Default for Restart {
    /// As in a file that says nothing.
    fn default() -> Self {
        Self {
            stable_after: Duration::from_secs(30),
            max_delay: Duration::from_secs(30),
            failures: 5,
            window: Duration::from_secs(60),
            no_restart_codes: Vec::new(),
        }
    }
}
