//! When endpoints that fail are left alone for a time, as it is written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{Factor, Percent, PositiveTime};

/// Whether endpoints that fail requests are taken out of service for a time.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Ejection {
    /// A word.
    Word(EjectionWord),
    /// When, and for how long.
    Rule(EjectionRule),
}

/// No endpoint is taken out.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EjectionWord {
    /// Whatever it does.
    Off,
}

/// When endpoints that fail are taken out of service, and for how long. The last one in service always stays.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EjectionRule {
    /// Failures within `fail_timeout` that take an endpoint out: no connection, no TLS, a deadline that passed, a
    /// connection that broke, an answer that is none, and `statuses`. 0 is never by their number. For a while after it came
    /// back one is enough. Default: 3. Unit: failures.
    #[schemars(range(min = 0, max = 1000), extend("default" = 3))]
    pub(crate) max_fails: Option<u32>,
    /// Time within which failures count together, and for which the endpoint is out; each further time it is out for so
    /// much longer, and each such time that it then serves takes one step back. Default: 10s. Unit: duration.
    #[schemars(extend("default" = "10s"))]
    pub(crate) fail_timeout: Option<PositiveTime>,
    /// Longest time out, never less than `fail_timeout`. Default: 5m. Unit: duration.
    #[schemars(extend("default" = "5m"))]
    pub(crate) max_time: Option<PositiveTime>,
    /// Statuses of answers that count as failures. Default: none.
    #[schemars(inner(range(min = 100, max = 599)), extend("default" = []))]
    pub(crate) statuses: Option<Vec<u16>>,
    /// Most of the endpoints that may be out at a time, rounded down; never all of them. Default: 50%. Unit: share.
    #[schemars(extend("default" = "50%"))]
    pub(crate) max_ejected: Option<Percent>,
    /// Take out those that answer well less often than the others, too. Default: absent, not.
    pub(crate) success_rate: Option<SuccessRate>,
}

/// What tells an endpoint that fails more than the others: its share of good answers is below the mean by so many standard
/// deviations.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SuccessRate {
    /// How often shares are compared; each time those of this while. Default: 10s. Unit: duration.
    #[schemars(extend("default" = "10s"))]
    pub(crate) interval: Option<PositiveTime>,
    /// Fewest endpoints with enough requests to be compared. Default: 5. Unit: endpoints.
    #[schemars(range(min = 2, max = 1000), extend("default" = 5))]
    pub(crate) min_endpoints: Option<u32>,
    /// Fewest requests within the interval for an endpoint to be compared. Default: 100. Unit: requests.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 100))]
    pub(crate) min_requests: Option<u32>,
    /// Standard deviations below the mean. Default: 1.9. Unit: factor, 0.1 to 10.
    #[schemars(extend("default" = 1.9))]
    pub(crate) deviations: Option<Factor>,
}
