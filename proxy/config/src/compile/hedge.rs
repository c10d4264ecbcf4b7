//! Hedges: whether one can follow in the time and the tries that there are.

use std::time::Duration;

use super::keep;
use super::names::EndpointKind;
use super::retry::parse_time_or_off;
use crate::fault::Code;
use crate::raw;
use crate::report::Report;
use crate::source::Span;
use crate::tree::Spot;
use crate::units::format_duration;

/// What was written of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hedge {
    /// `None` is off.
    after: Option<Duration>,
    span: Span,
}

/// What a mapping says of it.
pub(super) fn wish(raw: Option<raw::Text>, spot: Spot<'_>, report: &mut Report) -> Option<Hedge> {
    let raw::Text(text) = raw?;
    let after = keep(parse_time_or_off(&text), &text, spot, report)?;
    Some(Hedge { after, span: spot.span() })
}

impl Hedge {
    /// For endpoints of this kind and what else is said of tries; `spot` is the route's. A hedge that could never be sent is a
    /// fault.
    pub(super) fn settle(
        self,
        kind: Option<EndpointKind>,
        tries: u32,
        try_timeout: Option<Duration>,
        spot: Spot<'_>,
        report: &mut Report,
    ) -> Option<Duration> {
        let after = self.after?;
        let (code, problem, note, hint) = if kind == Some(EndpointKind::H2) {
            let problem = "requests to HTTP/2 endpoints cannot be hedged in this version".to_owned();
            (
                Code::NotAvailable,
                problem,
                "this route's upstream has protocol: h2",
                "write hedge: off, or protocol: http1",
            )
        } else if tries < 2 {
            let problem = "a hedge is a second try, and there is one".to_owned();
            (Code::Conflict, problem, "requests of this route have tries: 1", "write tries: 2, or hedge: off")
        } else if let Some(time) = try_timeout.filter(|time| *time <= after) {
            let problem =
                format!("no hedge would be sent: a try is over after {} (try_timeout)", format_duration(time));
            (Code::Conflict, problem, "it is so for this route", "write a shorter time, or raise try_timeout")
        } else {
            return Some(after);
        };
        report.fault(self.span, code, problem).related(spot.key("proxy").span(), note).hint(hint);
        None
    }
}
