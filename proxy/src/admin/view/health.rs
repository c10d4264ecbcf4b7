//! Health of endpoints, as it goes over the wire.

use serde::{Deserialize, Serialize};

/// A circuit breaker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// `closed`, `half_open` or `open`.
    pub state: String,
    /// Since when, see [`time`](super::time); `None` is since it exists.
    pub since: Option<String>,
    /// Seconds until requests are let through again, rounded up.
    pub seconds_left: Option<u64>,
    /// Why it opened last, in words.
    pub reason: Option<String>,
    /// How often it opened.
    pub trips: u64,
}

/// How an endpoint's checks go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// Whether it is taken for well.
    pub passing: bool,
    /// Since when, see [`time`](super::time).
    pub since: String,
    /// Why not, while it is not.
    pub reason: Option<String>,
    /// The last result: `passed`, or why it did not.
    pub last: String,
    /// When that was.
    pub last_at: String,
    /// How long it took.
    pub last_ms: u64,
}

/// Why an endpoint is out of service for a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ejected {
    /// When it began, see [`time`](super::time).
    pub since: String,
    /// When it ends, unless the pool needs the endpoint before.
    pub until: String,
    /// Seconds left, rounded up.
    pub seconds_left: u64,
    /// How often lately, this time included.
    pub times: u32,
    /// Why, in words.
    pub reason: String,
}
