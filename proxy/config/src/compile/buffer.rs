//! What is held of bodies: wishes of sites and routes, settled once the kind of endpoint is known.

use super::names::EndpointKind;
use crate::fault::Code;
use crate::model::Buffer;
use crate::raw::{self, HoldingSize};
use crate::report::Report;
use crate::source::Span;
use crate::tree::Spot;

/// What `on` holds of a response. An answer of an app is rarely longer, and sixty slow clients with as much fit into
/// the default total.
const RESPONSE: u64 = 16 << 20;

/// What a site or route says about both bodies, with where it says so.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes {
    request: Option<(HoldingSize, Span)>,
    response: Option<(HoldingSize, Span)>,
}

impl Wishes {
    /// These, but for what a mapping further in says.
    pub(crate) fn with(self, raw: Option<Box<raw::Buffer>>, spot: Spot<'_>) -> Self {
        let Some(raw::Buffer { request, response }) = raw.map(|raw| *raw) else { return self };
        let placed = |wish: raw::Holding, key| (wish.0, spot.key(key).span());
        Self {
            request: request.map(|wish| placed(wish, "request")).or(self.request),
            response: response.map(|wish| placed(wish, "response")).or(self.response),
        }
    }

    /// What they mean before endpoints of this kind; `None` without any.
    pub(crate) fn settle(
        self,
        kind: Option<EndpointKind>,
        max_body: u64,
        spot: Spot<'_>,
        report: &mut Report,
    ) -> Buffer {
        if kind == Some(EndpointKind::H2) {
            for (key, wish) in [("request", self.request), ("response", self.response)] {
                refuse_for_h2(key, wish, spot, report);
            }
            return Buffer { request: 0, response: 0 };
        }
        let request = match self.request {
            Some((wish, _)) => bytes(wish, max_body),
            // A worker has few places for requests; a server elsewhere is asked as it would be without us.
            None if kind == Some(EndpointKind::Worker) => max_body,
            None => 0,
        };
        let response = self.response.map_or(RESPONSE, |(wish, _)| bytes(wish, RESPONSE));
        Buffer { request: request.min(max_body), response }
    }
}

const fn bytes(wish: HoldingSize, on: u64) -> u64 {
    match wish {
        HoldingSize::On => on,
        HoldingSize::Off => 0,
        HoldingSize::UpTo(bytes) => bytes,
    }
}

/// The engine behind HTTP/2 endpoints passes bodies on as they come.
fn refuse_for_h2(key: &str, wish: Option<(HoldingSize, Span)>, spot: Spot<'_>, report: &mut Report) {
    let Some((HoldingSize::On | HoldingSize::UpTo(_), span)) = wish else { return };
    let problem = format!("no {key} body can be held before HTTP/2 endpoints in this version");
    let finding = report.fault(span, Code::NotAvailable, problem);
    finding
        .related(spot.key("proxy").span(), "this upstream has protocol: h2")
        .hint(format!("write buffer: {{ {key}: off }} in this route"));
}
