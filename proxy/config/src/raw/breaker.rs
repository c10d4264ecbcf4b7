//! When nobody is sent to an upstream for a while, as it is written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{Percent, PositiveTime};

/// When nobody is sent to an upstream for a while: after too many failures, whichever endpoints had them. Requests that wait for
/// an endpoint are refused as well.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Breaker {
    /// Statuses of answers that are failures, 400 to 599, whatever `ejection` makes of them. With 500 among them one
    /// broken route closes all others. Default: 502, 503 and 504.
    #[schemars(inner(range(min = 400, max = 599)))]
    pub(crate) statuses: Option<Vec<u16>>,
    /// Failures in a row that open it; 0 is never by these. Default: 5. Unit: failures.
    #[schemars(range(min = 0, max = 100_000), extend("default" = 5))]
    pub(crate) failures: Option<u32>,
    /// Share of failures within `window` that opens it. Default: 50%. Unit: share.
    #[schemars(extend("default" = "50%"))]
    pub(crate) share: Option<Percent>,
    /// Time within which the share is taken. Default: 10s. Unit: duration.
    #[schemars(extend("default" = "10s"))]
    pub(crate) window: Option<PositiveTime>,
    /// Fewest requests within `window` for their share to count. Default: 20. Unit: requests.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 20))]
    pub(crate) min_requests: Option<u32>,
    /// How long it stays open. Default: 5s. Unit: duration.
    #[schemars(extend("default" = "5s"))]
    pub(crate) cool_down: Option<PositiveTime>,
    /// Until it has been closed, each further time is twice as long, up to this. Default: that of `cool_down`, so none is longer.
    /// Unit: duration.
    pub(crate) max_cool_down: Option<PositiveTime>,
    /// Requests that may be under way at a time after the cool-down, to see. Default: 1. Unit: requests.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 1))]
    pub(crate) probes: Option<u32>,
    /// So many of them must go well for it to close; one that fails opens it again. Default: 3. Unit: requests.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 3))]
    pub(crate) successes: Option<u32>,
}
