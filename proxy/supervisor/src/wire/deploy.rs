//! JSON forms of [`model::DeployPolicy`] and [`model::PreStart`].

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_config::model;

use super::milliseconds;

/// What runs once before the workers of a generation.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PreStart {
    command: Vec<String>,
    timeout_ms: u64,
}

impl From<model::PreStart> for PreStart {
    fn from(hook: model::PreStart) -> Self {
        Self { command: hook.command, timeout_ms: milliseconds(hook.timeout) }
    }
}

impl From<PreStart> for model::PreStart {
    fn from(hook: PreStart) -> Self {
        Self { command: hook.command, timeout: Duration::from_millis(hook.timeout_ms) }
    }
}

/// How a new generation takes over. What is left out is as in a site file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Policy {
    strategy: Strategy,
    surge: Portion,
    max_unavailable: Portion,
    min_ready_ms: u64,
    on_failure: OnFailure,
    deploys_on_hup: bool,
    canary: Option<Canary>,
}

/// A comparison of the first new worker; differences in thousandths.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Canary {
    hold_ms: u64,
    max_errors: Option<u16>,
    max_p95: Option<u16>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Strategy {
    Rolling,
    Green,
    Auto,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Portion {
    Count(u32),
    Share(u8),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnFailure {
    Freeze,
    Rollback,
}

impl Default for Policy {
    fn default() -> Self {
        model::DeployPolicy::default().into()
    }
}

impl From<model::DeployPolicy> for Policy {
    fn from(policy: model::DeployPolicy) -> Self {
        let model::DeployPolicy { strategy, surge, max_unavailable, min_ready, on_failure, on_hup, canary } = policy;
        Self {
            strategy: match strategy {
                model::DeployStrategy::Rolling => Strategy::Rolling,
                model::DeployStrategy::Green => Strategy::Green,
                model::DeployStrategy::Auto => Strategy::Auto,
            },
            surge: surge.into(),
            max_unavailable: max_unavailable.into(),
            min_ready_ms: milliseconds(min_ready),
            on_failure: match on_failure {
                model::OnFailure::Freeze => OnFailure::Freeze,
                model::OnFailure::Rollback => OnFailure::Rollback,
            },
            deploys_on_hup: on_hup == model::OnHup::Deploy,
            canary: canary.map(Into::into),
        }
    }
}

impl From<Policy> for model::DeployPolicy {
    fn from(policy: Policy) -> Self {
        Self {
            strategy: match policy.strategy {
                Strategy::Rolling => model::DeployStrategy::Rolling,
                Strategy::Green => model::DeployStrategy::Green,
                Strategy::Auto => model::DeployStrategy::Auto,
            },
            surge: policy.surge.into(),
            max_unavailable: policy.max_unavailable.into(),
            min_ready: Duration::from_millis(policy.min_ready_ms),
            on_failure: match policy.on_failure {
                OnFailure::Freeze => model::OnFailure::Freeze,
                OnFailure::Rollback => model::OnFailure::Rollback,
            },
            on_hup: if policy.deploys_on_hup { model::OnHup::Deploy } else { model::OnHup::Reload },
            canary: policy.canary.map(Into::into),
        }
    }
}

impl From<model::CanaryHold> for Canary {
    fn from(hold: model::CanaryHold) -> Self {
        let model::CanaryHold { time, max_delta: model::MaxDelta { errors, p95 } } = hold;
        let thousandths = |share: Option<model::Share>| share.map(|share| share.0);
        Self { hold_ms: milliseconds(time), max_errors: thousandths(errors), max_p95: thousandths(p95) }
    }
}

impl From<Canary> for model::CanaryHold {
    fn from(canary: Canary) -> Self {
        let max_delta =
            model::MaxDelta { errors: canary.max_errors.map(model::Share), p95: canary.max_p95.map(model::Share) };
        Self { time: Duration::from_millis(canary.hold_ms), max_delta }
    }
}

impl From<model::Portion> for Portion {
    fn from(portion: model::Portion) -> Self {
        match portion {
            model::Portion::Count(count) => Self::Count(count),
            model::Portion::Share(share) => Self::Share(share),
        }
    }
}

impl From<Portion> for model::Portion {
    fn from(portion: Portion) -> Self {
        match portion {
            Portion::Count(count) => Self::Count(count),
            Portion::Share(share) => Self::Share(share),
        }
    }
}
