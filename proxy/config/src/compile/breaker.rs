//! When nobody is sent to an upstream for a while.

use std::time::Duration;

use crate::fault::Code;
use crate::model::Breaker;
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::format_duration;

/// Compiles `breaker`.
pub(super) fn breaker(raw: raw::Breaker, spot: Spot<'_>, report: &mut Report) -> Breaker {
    let raw::Breaker { statuses, failures, share, window, min_requests, cool_down, max_cool_down, probes, successes } =
        raw;
    let cool_down = cool_down.map_or(Duration::from_secs(5), |time| time.0);
    let longest = max_cool_down.map_or(cool_down, |time| time.0);
    if longest < cool_down {
        let problem = format!("the longest time is shorter than the first: {}", format_duration(cool_down));
        let finding = report.fault(spot.key("max_cool_down").span(), Code::Conflict, problem);
        finding.hint("raise max_cool_down, or lower cool_down");
    }
    Breaker {
        statuses: statuses.unwrap_or_else(|| vec![502, 503, 504]),
        failures: failures.unwrap_or(5),
        share: share.map_or(50, |share| share.0),
        window: window.map_or(Duration::from_secs(10), |time| time.0),
        min_requests: min_requests.unwrap_or(20),
        cool_down,
        max_cool_down: longest.max(cool_down),
        probes: probes.unwrap_or(1),
        successes: successes.unwrap_or(3),
    }
}
