//! Fields that are about one connection only (RFC 9110 section 7.6.1) end here.
//!
//! `Connection`, and those that are known to be about a connection even when it does not name them. Which fields it may
//! name, and that they are gone, is the codec's rule: only HTTP/1.1 has it, and no decision sees them. `Upgrade` passes in one case: a valid WebSocket request and the 101 that answers it.

use tidegate_config::model::UpstreamProtocol;

use super::RequestContext;
use crate::edits::{HeadEdits, NameSet};
use crate::head::{Fields, HeadView};
use crate::refusal::{Refusal, RefusalKind};

/// Besides RFC 9110's list: framing, which the codec writes; `Expect`, which the driver answers; `HTTP2-Settings`
/// (RFC 9113 removes the upgrade it belongs to); `Proxy`, which CGI turns into the variable HTTP_PROXY (CVE-2016-5385).
static OF_REQUEST: NameSet<11> = NameSet::new([
    "te",
    "proxy",
    "expect",
    "trailer",
    "upgrade",
    "connection",
    "keep-alive",
    "content-length",
    "http2-settings",
    "proxy-connection",
    "transfer-encoding",
]);

/// Besides those: nginx's field about buffering, which is about us and nobody else.
static OF_RESPONSE: NameSet<9> = NameSet::new([
    "te",
    "trailer",
    "upgrade",
    "connection",
    "keep-alive",
    "content-length",
    "proxy-connection",
    "x-accel-buffering",
    "transfer-encoding",
]);

/// Refuses what could be read in two ways: names with an underscore (many servers take `x_real_ip` for `x-real-ip`),
/// an `Expect` that nobody can meet.
pub(super) fn check_request(fields: &dyn Fields) -> Result<(), Refusal> {
    let mut verdict = Ok(());
    fields.each(&mut |name, value| {
        if verdict.is_ok() {
            verdict = check_field(name, value);
        }
    });
    verdict
}

fn check_field(name: &str, value: &[u8]) -> Result<(), Refusal> {
    if name.contains('_') {
        return Err(Refusal::bad_request(format!("underscore in a field name: \"{}\"", name.escape_debug())));
    }
    if name.eq_ignore_ascii_case("expect") && !value.eq_ignore_ascii_case(b"100-continue") {
        let detail = format!("expect: \"{}\"", value.escape_ascii());
        return Err(Refusal::new(RefusalKind::ExpectationFailed, detail));
    }
    Ok(())
}

pub(super) fn remove_from_request(edits: &mut HeadEdits<'_>) {
    edits.remove_matching(|name| OF_REQUEST.contains(name));
}

pub(super) fn remove_from_response(edits: &mut HeadEdits<'_>) {
    edits.remove_matching(|name| OF_RESPONSE.contains(name));
}

/// What the next connection needs: the upgrade of a WebSocket, or the `TE: trailers` that gRPC insists on.
pub(super) fn add_to_request(head: &HeadView<'_>, context: &RequestContext<'_>, edits: &mut HeadEdits<'_>) {
    if context.websocket {
        add_upgrade(edits);
    }
    if context.protocol == UpstreamProtocol::H2 && head.fields.first("te").is_some_and(|te| te == b"trailers") {
        edits.add("te", "trailers");
    }
}

pub(super) fn add_upgrade(edits: &mut HeadEdits<'_>) {
    edits.add("connection", "upgrade");
    edits.add("upgrade", "websocket");
}
