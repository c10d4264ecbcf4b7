//! When a pool without an endpoint will have one again, as far as whoever starts its workers can tell.

use std::time::{Duration, Instant};

/// The next worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// When it starts, or has started.
    pub next_start: Instant,
    /// How long workers take from start to ready; zero where none ever was.
    pub boot: Duration,
}

impl Outlook {
    /// How long from now until it is ready.
    pub(super) fn ready_in(&self, now: Instant) -> Duration {
        (self.next_start + self.boot).saturating_duration_since(now)
    }

    /// Whether it starts before a request that waits from now on has waited for `hold`.
    pub(super) fn starts_within(&self, hold: Duration, now: Instant) -> bool {
        self.next_start.saturating_duration_since(now) < hold
    }
}
