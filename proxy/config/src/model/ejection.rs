//! When endpoints that fail are taken out of service for a time.

use std::time::Duration;

/// When endpoints that fail are taken out of service, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Ejection {
    /// Failures within `fail_timeout` that take an endpoint out; 0 is never by their number.
    pub max_fails: u32,
    /// Time within which failures count together, and that the endpoint is out; each further time so much longer.
    pub fail_timeout: Duration,
    /// Longest time out, at least `fail_timeout`.
    pub max_time: Duration,
    /// Statuses of answers that count as failures.
    pub statuses: Vec<u16>,
    /// Most of the endpoints that may be out at a time, in percent.
    pub max_ejected: u8,
    /// Whether endpoints are compared with each other.
    pub success_rate: Option<SuccessRate>,
}

/// What tells an endpoint that fails more than the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuccessRate {
    /// How often shares are compared.
    pub interval: Duration,
    /// Fewest endpoints to be compared.
    pub min_endpoints: u32,
    /// Fewest requests of each within the interval.
    pub min_requests: u32,
    /// Standard deviations below the mean.
    pub deviations: f64,
}

impl Default for Ejection {
    /// That of an upstream without a word about it.
    fn default() -> Self {
        Self {
            max_fails: 3,
            fail_timeout: Duration::from_secs(10),
            max_time: Duration::from_secs(300),
            statuses: Vec::new(),
            max_ejected: 50,
            success_rate: None,
        }
    }
}
