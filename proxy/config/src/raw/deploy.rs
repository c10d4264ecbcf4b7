//! How a new generation of workers takes over, as it is written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::{CanaryDelta, Percent, Time};

/// How a new generation of workers takes over: after a change of what they are started with. One new worker comes first
/// and must stay ready for `min_ready`. What fails before an old worker has left changes nothing.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deploy {
    /// When old workers begin to leave: `rolling`, slot by slot, each once its new worker has stayed ready; `green`, none
    /// before the whole new set has, which takes twice the processes; or `auto`, what memory allows: green if it has room for
    /// twice the workers, else rolling with as many beyond `count` as fit, `surge` at the most, else each old worker leaves
    /// before its successor starts, and requests wait; rolling with `surge` where memory cannot be read. Default: auto, but rolling
    /// where `surge` or `max_unavailable` is given.
    pub(crate) strategy: Option<DeployStrategy>,
    /// Processes that a rolling deploy may run beyond `count`, those that still leave included: a number, or a share of
    /// `count`, rounded up. Default: 25%. Unit: workers.
    #[schemars(extend("default" = "25%"))]
    pub(crate) surge: Option<Surge>,
    /// Workers that a rolling deploy may take out of service before their successors are ready: a number, or a share of
    /// `count`, rounded down. Default: 0. Unit: workers.
    #[schemars(extend("default" = 0))]
    pub(crate) max_unavailable: Option<Unavailable>,
    /// How long a new worker must stay ready before the old one leaves. Default: 2s. Unit: duration.
    #[schemars(extend("default" = "2s"))]
    pub(crate) min_ready: Option<Time>,
    /// What follows when a new worker fails after old ones have left: `freeze`, new workers that serve go on, nothing more
    /// is replaced, and workers that end are started anew from the old specification; or `rollback`, old workers take all
    /// slots back. Default: freeze.
    #[schemars(extend("default" = "freeze"))]
    pub(crate) on_failure: Option<OnFailure>,
    /// How long the first new worker, once it has stayed ready, goes on taking requests before anything follows: it is then
    /// compared with the old workers over that time, and where it is worse by more than `canary_max_delta` the deploy is given
    /// up, whatever `on_failure` says, and the old workers serve on. Where too few requests came to compare, the deploy goes on
    /// and says so; it does not wait for more. 0 compares nothing. Default: 0. Unit: duration.
    #[schemars(extend("default" = 0))]
    pub(crate) canary_hold: Option<Time>,
    /// What the first new worker may be worse by than the old ones over `canary_hold`. Default: 1% for errors, 50% for p95.
    pub(crate) canary_max_delta: Option<CanaryDelta>,
}

/// When old workers begin to leave.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeployStrategy {
    /// Slot by slot.
    Rolling,
    /// All together, once the whole new set has stayed ready.
    Green,
    /// As memory allows.
    Auto,
}

/// What SIGHUP does about workers.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnHup {
    /// The site file is read again.
    Reload,
    /// And workers are deployed.
    Deploy,
}

/// Processes beyond the count.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Surge {
    /// A number, 1 to 1000.
    Count(#[schemars(range(min = 1, max = 1000))] u32),
    /// A share of the count, rounded up.
    Share(Percent),
}

/// Workers that may be missing.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Unavailable {
    /// A number, 0 to 1000.
    Count(#[schemars(range(min = 0, max = 1000))] u32),
    /// A share of the count, rounded down.
    Share(Percent),
}

/// What becomes of a deploy that fails after old workers have left.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnFailure {
    /// Everything stays as it is.
    Freeze,
    /// Old workers take all slots back.
    Rollback,
}
