//! The changes that every forwarded head gets.
//!
//! Order matters. Removals come first and act on what the message brought; what we add comes after them, so nothing
//! in a message can take it out again.

mod cookie;
mod forwarded;
mod hop_by_hop;
mod request_id;
mod request_start;
pub(crate) mod server_timing;

use std::time::SystemTime;

use tidegate_config::model::UpstreamProtocol;

use crate::edits::HeadEdits;
use crate::head::HeadView;
use crate::refusal::Refusal;
use crate::request_id::RequestId;

/// What the changes of a request head depend on besides the head.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext<'a> {
    /// Identifier of the request.
    pub id: RequestId,
    /// What the endpoint speaks.
    pub protocol: UpstreamProtocol,
    /// The request is to become a WebSocket.
    pub websocket: bool,
    /// The endpoint is a worker of ours.
    pub worker: bool,
    /// A cookie that is between us and the client.
    pub own_cookie: Option<&'a str>,
    /// `Host` for a request that came without one.
    pub default_host: Option<&'a str>,
    /// When the request began, for an endpoint that is told.
    pub began: Option<SystemTime>,
}

/// Refuses a request head whose fields cannot be forwarded safely. One pass over the fields.
pub fn check_request(head: &HeadView<'_>) -> Result<(), Refusal> {
    hop_by_hop::check_request(head.fields)
}

/// The changes of a request head.
///
/// Framing fields are taken out: the codec writes those of its own protocol.
#[must_use]
pub fn request_edits<'a>(head: &HeadView<'a>, context: &RequestContext<'a>) -> HeadEdits<'a> {
    let mut edits = HeadEdits::with_capacity(10);
    hop_by_hop::remove_from_request(&mut edits);
    forwarded::remove(&mut edits);
    request_id::remove(&mut edits);
    hop_by_hop::add_to_request(head, context, &mut edits);
    cookie::pass_on(head, context, &mut edits);
    forwarded::add(head, context, &mut edits);
    request_id::add(context.id, &mut edits);
    if let Some(began) = context.began {
        request_start::set(began, &mut edits);
    }
    if let Some(certificate) = head.client.tls().and_then(|tls| tls.certificate.as_deref()) {
        edits.add("client-cert", certificate);
    }
    edits
}

/// The changes of a response head; with `tunnel` the answer is the 101 that makes a WebSocket.
///
/// Framing fields are taken out: the codec writes those of its own protocol.
#[must_use]
pub fn response_edits(id: RequestId, tunnel: bool) -> HeadEdits<'static> {
    let mut edits = HeadEdits::with_capacity(4);
    hop_by_hop::remove_from_response(&mut edits);
    if tunnel {
        hop_by_hop::add_upgrade(&mut edits);
    }
    request_id::set(id, &mut edits);
    edits
}

#[cfg(test)]
mod tests;
