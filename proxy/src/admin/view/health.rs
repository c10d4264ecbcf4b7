//! Health of endpoints, as it goes over the wire.

use serde::{Deserialize, Serialize};

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
