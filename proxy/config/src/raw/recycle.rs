//! When workers are replaced although nothing is wrong with them, as it is written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{PositiveSize, PositiveTime, Text};

/// When workers that serve are replaced by new ones, to bound what leaks cost. One at a time, with at least 5s from one to the
/// next: the new one is ready before the old one drains, so no request is lost. Where memory has no room for both, the old
/// one goes first if another worker serves, else it stays, and the log says so. A worker that reaches a limit again within 60s
/// is not replaced before these have passed: the log says once that the limit is too low.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recycle {
    /// Requests that a worker gets, WebSockets among them; it is replaced then. Counted here, so for any program. Default:
    /// no limit.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(crate) max_requests: Option<u64>,
    /// By how much the limits of workers differ, so that they do not leave together: each draws up to this share more
    /// requests, and a life that is up to half of it longer or shorter. Default: 20%. Unit: percent, 0% to 100%.
    #[schemars(extend("default" = "20%"))]
    pub(crate) jitter: Option<Text>,
    /// Time from ready to replaced. Default: no limit. Unit: duration.
    pub(crate) max_lifetime: Option<PositiveTime>,
    /// Resident memory of a worker with everything it started; more in two samples in a row, 10s apart, and it is replaced.
    /// Default: no limit. Unit: size.
    pub(crate) max_rss: Option<PositiveSize>,
    /// Resident memory at which a worker is killed, with its requests, as soon as its replacement has started. One at a
    /// time, and the last one that serves only once another one starts. Default: no limit. Unit: size.
    pub(crate) hard_rss: Option<PositiveSize>,
}
