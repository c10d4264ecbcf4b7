//! Fields that are about one connection only (RFC 9110 section 7.6.1) end here.
//!
//! `Connection` and every field it names, and those that are known to be about a connection even when it does not
//! name them. `Upgrade` passes in one case: a valid WebSocket request and the 101 that answers it.

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

/// Fields for every recipient that a client may not declare to be about the connection.
static NEVER_NOMINATED: NameSet<3> = NameSet::new(["host", "content-length", "cache-control"]);

/// Most fields that `Connection` may name; each one is compared with every field of the head.
const MAX_NOMINATED: usize = 32;

/// Refuses what could be read in two ways: names with an underscore (many servers take `x_real_ip` for `x-real-ip`),
/// a `Connection` that names a field meant for everyone, an `Expect` that nobody can meet.
pub(super) fn check_request(fields: &dyn Fields) -> Result<(), Refusal> {
    let mut verdict = Ok(());
    let mut nominated = 0;
    fields.each(&mut |name, value| {
        if verdict.is_ok() {
            verdict = check_field(name, value, &mut nominated);
        }
    });
    verdict
}

fn check_field(name: &str, value: &[u8], nominated: &mut usize) -> Result<(), Refusal> {
    if name.contains('_') {
        return Err(Refusal::bad_request(format!("underscore in a field name: \"{}\"", name.escape_debug())));
    }
    if name.eq_ignore_ascii_case("expect") && !value.eq_ignore_ascii_case(b"100-continue") {
        let detail = format!("expect: \"{}\"", value.escape_ascii());
        return Err(Refusal::new(RefusalKind::ExpectationFailed, detail));
    }
    if name.eq_ignore_ascii_case("connection") {
        return check_connection(value, nominated);
    }
    Ok(())
}

fn check_connection(value: &[u8], nominated: &mut usize) -> Result<(), Refusal> {
    for token in tokens(value) {
        *nominated += 1;
        if *nominated > MAX_NOMINATED {
            return Err(Refusal::bad_request("connection names more than 32 fields"));
        }
        if NEVER_NOMINATED.contains(token) {
            return Err(Refusal::bad_request(format!("connection names a field for everyone: \"{token}\"")));
        }
    }
    Ok(())
}

pub(super) fn remove_from_request(head: &HeadView<'_>, edits: &mut HeadEdits<'_>) {
    edits.remove_matching(|name| OF_REQUEST.contains(name));
    remove_nominated(head.fields, |name| OF_REQUEST.contains(name), edits);
}

pub(super) fn remove_from_response(fields: &dyn Fields, edits: &mut HeadEdits<'_>) {
    edits.remove_matching(|name| OF_RESPONSE.contains(name));
    remove_nominated(fields, |name| OF_RESPONSE.contains(name), edits);
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

fn remove_nominated(fields: &dyn Fields, known: fn(&str) -> bool, edits: &mut HeadEdits<'_>) {
    fields.all("connection", &mut |value| {
        for token in tokens(value).filter(|token| !known(token) && !is_connection_option(token)) {
            edits.remove(token.to_owned());
        }
    });
}

/// Options of a connection that are no field names.
fn is_connection_option(token: &str) -> bool {
    token.eq_ignore_ascii_case("close")
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &str> {
    value
        .split(|byte| *byte == b',')
        .filter_map(|token| std::str::from_utf8(token.trim_ascii()).ok())
        .filter(|token| !token.is_empty())
}
