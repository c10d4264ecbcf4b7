//! How a new generation of workers takes over.

use std::time::Duration;

use super::canary::canary;
use crate::fault::Code;
use crate::model::{DeployPolicy, DeployStrategy, OnFailure, OnHup, Portion};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;

/// Compiles `workers.deploy` and `workers.on_hup`; who watches files wants to see a change at once.
pub(super) fn deploy(
    raw: Option<raw::Deploy>,
    on_hup: Option<raw::OnHup>,
    is_watched: bool,
    spot: Spot<'_>,
    report: &mut Report,
) -> DeployPolicy {
    let usual = DeployPolicy::default();
    let min_ready = if is_watched { Duration::ZERO } else { usual.min_ready };
    let default = DeployPolicy { on_hup: on_hup.map_or(OnHup::Reload, OnHup::from), min_ready, ..usual };
    let Some(raw) = raw else { return default };
    let raw::Deploy { strategy, surge, max_unavailable, min_ready, on_failure, canary_hold, canary_max_delta } = raw;
    if let Some(raw::DeployStrategy::Green) = strategy {
        for (name, is_given) in [("surge", surge.is_some()), ("max_unavailable", max_unavailable.is_some())] {
            if is_given {
                let problem =
                    format!("`{name}` says nothing about a green deploy, which starts the whole new set first");
                report.fault(spot.key(name).key_span(), Code::Conflict, problem).hint("write strategy: rolling");
            }
        }
    }
    // Who says how many at a time wants a few at a time.
    let is_stepwise = surge.is_some() || max_unavailable.is_some();
    let usual = if is_stepwise { DeployStrategy::Rolling } else { default.strategy };
    DeployPolicy {
        strategy: strategy.map_or(usual, DeployStrategy::from),
        surge: surge.map_or(default.surge, Portion::from),
        max_unavailable: max_unavailable.map_or(default.max_unavailable, Portion::from),
        min_ready: min_ready.map_or(default.min_ready, |time| time.0),
        on_failure: on_failure.map_or(default.on_failure, OnFailure::from),
        on_hup: default.on_hup,
        canary: canary(canary_hold, canary_max_delta, spot, report),
    }
}

impl From<raw::OnHup> for OnHup {
    fn from(raw: raw::OnHup) -> Self {
        match raw {
            raw::OnHup::Reload => Self::Reload,
            raw::OnHup::Deploy => Self::Deploy,
        }
    }
}

impl From<raw::DeployStrategy> for DeployStrategy {
    fn from(raw: raw::DeployStrategy) -> Self {
        match raw {
            raw::DeployStrategy::Rolling => Self::Rolling,
            raw::DeployStrategy::Green => Self::Green,
            raw::DeployStrategy::Auto => Self::Auto,
        }
    }
}

impl From<raw::Surge> for Portion {
    fn from(raw: raw::Surge) -> Self {
        match raw {
            raw::Surge::Count(count) => Self::Count(count),
            raw::Surge::Share(share) => Self::Share(share.0),
        }
    }
}

impl From<raw::Unavailable> for Portion {
    fn from(raw: raw::Unavailable) -> Self {
        match raw {
            raw::Unavailable::Count(count) => Self::Count(count),
            raw::Unavailable::Share(share) => Self::Share(share.0),
        }
    }
}

impl From<raw::OnFailure> for OnFailure {
    fn from(raw: raw::OnFailure) -> Self {
        match raw {
            raw::OnFailure::Freeze => Self::Freeze,
            raw::OnFailure::Rollback => Self::Rollback,
        }
    }
}
