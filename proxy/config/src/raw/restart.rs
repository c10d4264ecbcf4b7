//! When workers that end unasked are started again, as it is written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::PositiveTime;

/// When a worker that ended unasked is started again: at once if it had been in service for `stable_after`, else after 0.1s,
/// which doubles with each further failure of its slot. A pool whose workers fail too often is in a crash loop: one start at a
/// time, and waits of up to 60s (or `max_delay`, if that is longer), until one has been stable.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restart {
    /// Time in service after which the failures of a slot are forgotten. Default: 30s. Unit: duration.
    #[schemars(extend("default" = "30s"))]
    pub(crate) stable_after: Option<PositiveTime>,
    /// Longest wait before a start. Default: 30s. Unit: duration.
    #[schemars(extend("default" = "30s"))]
    pub(crate) max_delay: Option<PositiveTime>,
    /// Failures within the `window` that make a crash loop, if twice the number of workers is not more. Default: 5. Unit:
    /// failures.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 5))]
    pub(crate) failures: Option<u32>,
    /// Span over which failures are counted. Default: 60s. Unit: duration.
    #[schemars(extend("default" = "60s"))]
    pub(crate) window: Option<PositiveTime>,
    /// Exit codes after which a worker is not started again: its slot stays empty, for all to see, until it is restarted, or
    /// a new version comes. A new version whose first worker ends in this way fails as with any other code. Default: none.
    #[schemars(length(max = 256), inner(range(min = 0, max = 255)), extend("default" = []))]
    pub(crate) no_restart_codes: Option<Vec<u8>>,
}
