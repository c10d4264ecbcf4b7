//! When nobody is sent to an upstream for a while.

use std::time::Duration;

/// When nobody is sent to an upstream for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Statuses of answers that are failures, besides those without an answer.
    pub statuses: Vec<u16>,
    /// Failures in a row that open it; 0 is never by these.
    pub failures: u32,
    /// Share of failures within `window` that opens it, in percent.
    pub share: u8,
    /// Time within which the share is taken.
    pub window: Duration,
    /// Fewest requests within `window`.
    pub min_requests: u32,
    /// How long it stays open, the first time.
    pub cool_down: Duration,
    /// The longest time, at least `cool_down`.
    pub max_cool_down: Duration,
    /// Requests under way at a time while it is half-open, at least 1.
    pub probes: u32,
    /// Successes that close it, at least 1.
    pub successes: u32,
}
