//! How the first new worker is compared with those of before, as it is written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

use super::Delta;

/// What the first new worker may be worse by than the old ones.
#[derive(Debug, Default, DeriveDeserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CanaryDelta {
    /// How much higher its share of failed requests may be than theirs: with 1%, 1.5% where the old workers have 0.5% is fine.
    /// Failed are answers with a status of 500 or more, requests without an answer or with one that broke off, and
    /// those still without one at the end after 5s (or half of `canary_hold` where that is less); that another worker
    /// answered a failed request in the end does not matter. Less than three failed requests are no verdict. Or `off`.
    /// Default: 1%. Unit: percentage points.
    #[schemars(extend("default" = "1%"))]
    pub(crate) errors: Option<DeltaChoice>,
    /// How much longer the time may be within which 95 of 100 answers begin: with 50%, 30ms where the old workers need 20ms
    /// are fine. A difference of 5ms or less is no verdict, and neither are fewer than 100 requests on either side. Or `off`.
    /// Default: 50%. Unit: share of the old workers' time.
    #[schemars(extend("default" = "50%"))]
    pub(crate) p95: Option<DeltaChoice>,
}

/// How much worse it may be.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum DeltaChoice {
    /// A word.
    Word(DeltaWord),
    /// So much.
    Delta(Delta),
}

/// It is not compared.
#[derive(Debug, Clone, Copy, DeriveDeserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeltaWord {
    /// However it is.
    Off,
}
