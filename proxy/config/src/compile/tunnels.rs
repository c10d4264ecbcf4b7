//! Upgraded connections and long streams: how many an endpoint has, and from when on an answer is one.

use std::time::Duration;

use super::keep;
use super::retry::parse_time_or_off;
use crate::fault::Code;
use crate::model::UpstreamProtocol;
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;

/// For a worker: below the 1,024 descriptors that a process usually has, and far more than most applications need.
const USUAL: u32 = 1_000;
/// An answer that streams for longer than this is no page.
const LONG: Duration = Duration::from_secs(10);

/// `max_tunnels`.
pub(super) fn max_tunnels(given: Option<u32>, has_workers: bool, spot: Spot<'_>, report: &mut Report) -> Option<u32> {
    if given == Some(0) && spot.has("stream_after") {
        let problem = "no answer ever counts as a stream: max_tunnels is 0";
        let finding = report.fault(spot.key("stream_after").key_span(), Code::Conflict, problem);
        finding.related(spot.key("max_tunnels").span(), "it is here").hint("remove one of both");
    }
    given.or(has_workers.then_some(USUAL))
}

/// `stream_after`. A worker that serves each request on a thread of its own is not free while it streams.
pub(super) fn stream_after(
    given: Option<raw::Text>,
    has_workers: bool,
    holds_threads: bool,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<Duration> {
    let usual = (has_workers && !holds_threads).then_some(LONG);
    let Some(raw::Text(text)) = given else { return usual };
    keep(parse_time_or_off(&text), &text, spot.key("stream_after"), report).flatten()
}

/// The engine behind HTTP/2 endpoints has no tunnels, and does not tell a long answer from a short one.
pub(super) fn check_h2(protocol: UpstreamProtocol, spot: Spot<'_>, report: &mut Report) {
    for key in ["max_tunnels", "stream_after"] {
        if protocol == UpstreamProtocol::H2 && spot.has(key) {
            let problem = format!("\"{key}\" is about HTTP/1.1 endpoints, and these speak HTTP/2");
            report.fault(spot.key(key).key_span(), Code::Conflict, problem).hint("remove it, or write protocol: http1");
        }
    }
}
