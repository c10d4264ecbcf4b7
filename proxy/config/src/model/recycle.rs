//! When workers are replaced although nothing is wrong with them.

use std::time::Duration;

/// Limits of each worker of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recycle {
    /// Requests it gets.
    pub max_requests: Option<u64>,
    /// By how much the limits of workers differ. Unit: percent, at most 100.
    pub jitter: u8,
    /// From ready on.
    pub max_lifetime: Option<Duration>,
    /// Resident memory of its process tree that has it replaced. Unit: bytes.
    pub max_rss: Option<u64>,
    /// Resident memory of its process tree that has it killed, above `max_rss`. Unit: bytes.
    pub hard_rss: Option<u64>,
}

impl Recycle {
    /// A worker that reaches a limit again within this time is left alone until it has passed.
    pub const SHORTEST_LIFE: Duration = Duration::from_secs(60);
    /// Where the file does not say. Unit: percent.
    pub const JITTER: u8 = 20;
}

impl Default for Recycle {
    /// As in a file that says nothing: no limit.
    fn default() -> Self {
        Self { max_requests: None, jitter: Self::JITTER, max_lifetime: None, max_rss: None, hard_rss: None }
    }
}
