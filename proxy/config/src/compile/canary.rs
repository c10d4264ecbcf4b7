//! How the first worker of a new generation is compared with those of before.

use crate::fault::Code;
use crate::model::{CanaryHold, MaxDelta, Share};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;

/// Compiles `deploy.canary_hold` and `deploy.canary_max_delta`.
pub(super) fn canary(
    hold: Option<raw::Time>,
    max_delta: Option<raw::CanaryDelta>,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<CanaryHold> {
    let time = hold.map(|time| time.0).filter(|time| !time.is_zero());
    if time.is_none() && max_delta.is_some() {
        let problem = "without `canary_hold` nothing is compared";
        report.fault(spot.key("canary_max_delta").key_span(), Code::Conflict, problem).hint("add canary_hold: 30s");
    }
    let max_delta = compile_delta(max_delta.unwrap_or_default(), spot.key("canary_max_delta"), report);
    time.map(|time| CanaryHold { time, max_delta })
}

fn compile_delta(raw: raw::CanaryDelta, spot: Spot<'_>, report: &mut Report) -> MaxDelta {
    let raw::CanaryDelta { errors, p95 } = raw;
    let default = MaxDelta::default();
    let delta = MaxDelta { errors: choice(errors, default.errors), p95: choice(p95, default.p95) };
    if delta.errors.is_some_and(|errors| errors >= WHOLE) {
        let problem = "no share of requests is higher than another one by that";
        report.fault(spot.key("errors").span(), Code::BadValue, problem).hint("write 1%, or off");
    }
    if delta.errors.is_none() && delta.p95.is_none() {
        let problem = "with both of them off nothing is compared";
        report.fault(spot.span(), Code::Conflict, problem).hint("remove canary_hold and canary_max_delta");
    }
    delta
}

fn choice(raw: Option<raw::DeltaChoice>, default: Option<Share>) -> Option<Share> {
    match raw {
        None => default,
        Some(raw::DeltaChoice::Word(raw::DeltaWord::Off)) => None,
        Some(raw::DeltaChoice::Delta(delta)) => Some(Share(delta.0)),
    }
}

/// All of them.
const WHOLE: Share = Share(1_000);
