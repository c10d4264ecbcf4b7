//! When endpoints that fail are left alone for a time.

use std::time::Duration;

use crate::fault::Code;
use crate::model::{Ejection, StaticServer, SuccessRate};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::format_duration;

/// Compiles `ejection`; `None` is off.
pub(super) fn ejection(
    raw: Option<raw::Ejection>,
    servers: &[StaticServer],
    upstream: Spot<'_>,
    report: &mut Report,
) -> Option<Ejection> {
    match raw {
        Some(raw::Ejection::Word(raw::EjectionWord::Off)) => {
            check_servers(servers, upstream, report);
            None
        }
        Some(raw::Ejection::Rule(raw)) => Some(rule(raw, upstream.key("ejection"), report)),
        None => Some(Ejection::default()),
    }
}

fn rule(raw: raw::EjectionRule, spot: Spot<'_>, report: &mut Report) -> Ejection {
    let raw::EjectionRule { max_fails, fail_timeout, max_time, statuses, max_ejected, success_rate } = raw;
    let default = Ejection::default();
    let fail_timeout = fail_timeout.map_or(default.fail_timeout, |time| time.0);
    let limit = max_time.map(|time| time.0);
    if limit.is_some_and(|limit| limit < fail_timeout) {
        let problem = format!("the longest time out is shorter than the first: {}", format_duration(fail_timeout));
        report
            .fault(spot.key("max_time").span(), Code::Conflict, problem)
            .hint("raise max_time, or lower fail_timeout");
    }
    Ejection {
        max_fails: max_fails.unwrap_or(default.max_fails),
        fail_timeout,
        max_time: limit.unwrap_or(default.max_time).max(fail_timeout),
        statuses: statuses.unwrap_or_default(),
        max_ejected: max_ejected.map_or(default.max_ejected, |share| share.0),
        success_rate: success_rate.map(self::success_rate),
    }
}

fn success_rate(raw: raw::SuccessRate) -> SuccessRate {
    let raw::SuccessRate { interval, min_endpoints, min_requests, deviations } = raw;
    SuccessRate {
        interval: interval.map_or(Duration::from_secs(10), |time| time.0),
        min_endpoints: min_endpoints.unwrap_or(5),
        min_requests: min_requests.unwrap_or(100),
        deviations: deviations.map_or(1.9, |factor| factor.0),
    }
}

/// What a server says of its failures means nothing where nobody is taken out.
fn check_servers(servers: &[StaticServer], upstream: Spot<'_>, report: &mut Report) {
    for server in (0..servers.len()).map(|index| upstream.key("servers").item(index)) {
        for key in ["max_fails", "fail_timeout"].into_iter().filter(|key| server.has(key)) {
            let problem = format!("\"{key}\" means nothing here: no server of this upstream is taken out");
            let finding = report.fault(server.key(key).key_span(), Code::Conflict, problem);
            finding.related(upstream.key("ejection").span(), "it is off here").hint("remove one of both");
        }
    }
}
