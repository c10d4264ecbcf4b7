//! How long we keep idle connections to endpoints, beside how long these keep them: whoever closes first must be us, or
//! a request meets the close on its way.

use std::time::Duration;

use crate::fault::Code;
use crate::model::UpstreamTimeouts;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::format_duration;

/// Longest time without anything else known.
const MOST: Duration = Duration::from_secs(50);
/// Below the keep-alive of the shortest-lived app servers (5 s), for workers of which nothing is known.
const UNKNOWN_WORKER: Duration = Duration::from_secs(4);
/// What a request may need on its way to the endpoint, with room to spare.
const MARGIN: Duration = Duration::from_secs(1);

/// `timeouts.idle` where the file does not say; zero keeps none.
pub(super) fn idle_default(has_workers: bool, keep_alive: Option<Duration>) -> Duration {
    match keep_alive {
        Some(keep_alive) => keep_alive.saturating_sub(MARGIN).min(MOST),
        None if has_workers => UNKNOWN_WORKER,
        None => MOST,
    }
}

/// A time of the file wins, but it is said when it loses requests.
pub(super) fn check_idle(
    keep_alive: Option<Duration>,
    timeouts: Option<&UpstreamTimeouts>,
    upstream: Spot<'_>,
    report: &mut Report,
) {
    let (Some(keep_alive), Some(timeouts)) = (keep_alive, timeouts) else { return };
    let spot = upstream.key("timeouts").key("idle");
    if !upstream.key("timeouts").has("idle") || timeouts.idle + MARGIN <= keep_alive {
        return;
    }
    let theirs = format_duration(keep_alive);
    let problem = format!("these workers close idle connections after {theirs}: requests that meet the close are lost");
    let hint = match keep_alive.checked_sub(MARGIN).filter(|time| !time.is_zero()) {
        Some(most) => format!("remove it, or write {} at the most", format_duration(most.min(MOST))),
        None => "remove it".to_owned(),
    };
    report.warning(spot.span(), Code::Suspicious, problem).hint(hint);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_close_at_least_a_second_before_the_worker() {
        let seconds = Duration::from_secs;
        for (has_workers, keep_alive, expected) in [
            (false, None, seconds(50)),
            (true, None, seconds(4)),
            (true, Some(seconds(75)), seconds(50)),
            (true, Some(seconds(51)), seconds(50)),
            (true, Some(seconds(20)), seconds(19)),
            (true, Some(Duration::from_millis(1_500)), Duration::from_millis(500)),
            (true, Some(seconds(1)), Duration::ZERO),
            (true, Some(Duration::ZERO), Duration::ZERO),
        ] {
            assert_eq!(idle_default(has_workers, keep_alive), expected, "{keep_alive:?}");
        }
    }
}
