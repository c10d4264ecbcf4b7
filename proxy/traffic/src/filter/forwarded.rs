//! What an endpoint is told about the client: `X-Forwarded-For`, `-Proto`, `-Host`, `X-Real-IP` and `Host`.
//!
//! No client is trusted, so everything that could speak for another client is taken out, whatever its spelling, and
//! written anew from what is known: the connection, and what trusted proxies said (`trusted`).

use super::RequestContext;
use crate::edits::{HeadEdits, NameSet};
use crate::head::HeadView;

static NAMES: NameSet<6> =
    NameSet::new(["forwarded", "x-real-ip", "x-rewrite-url", "client-cert", "client-cert-chain", "x-client-cert"]);

/// Whole families: `X-Forwarded-Port`, `-Prefix`, `-Server`, `-Client-Cert`, `X-Original-URL` and so on.
const PREFIXES: [&str; 4] = ["x-forwarded-", "x-original-", "ssl-client-", "x-ssl-client-"];

/// Takes out what speaks for a client.
pub(super) fn remove(edits: &mut HeadEdits<'_>) {
    edits.remove_matching(speaks_for_a_client);
}

/// Adds what we know. Comes after every removal.
pub(super) fn add<'a>(head: &HeadView<'a>, context: &RequestContext<'a>, edits: &mut HeadEdits<'a>) {
    let client = head.client;
    // Application servers trust their unix socket and take whichever address comes first, or last.
    edits.add("x-forwarded-for", if context.worker { client.address_text() } else { client.chain() });
    edits.add("x-forwarded-proto", client.scheme());
    let asked = head.host.map(|host| host.authority());
    if let Some(host) = client.forwarded_host().or(asked) {
        edits.add("x-forwarded-host", host);
    }
    edits.add("x-real-ip", client.address_text());
    let host = asked.or(context.default_host).unwrap_or("");
    // Most requests bring their canonical host already; it then stays where it is, as the first field.
    if head.fields.first("host") != Some(host.as_bytes()) {
        edits.set("host", host);
    }
}

fn speaks_for_a_client(name: &str) -> bool {
    NAMES.contains(name) || PREFIXES.iter().any(|prefix| begins_with(name, prefix))
}

fn begins_with(name: &str, prefix: &str) -> bool {
    name.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}
