//! Which endpoint a client stays with from this answer on.

use super::Exchange;
use crate::edits::HeadEdits;
use crate::head::ResponseView;
use crate::pool::sticky::Bond;

impl Exchange {
    /// Has the client come back to the endpoint that answered: whichever that is, since what the client has begun is there
    /// now. HAProxy (`option redispatch`), Envoy and Traefik do the same.
    pub(super) fn bind(&self, response: &ResponseView<'_>, edits: &mut HeadEdits<'static>) {
        let (Some(proxied), Some(endpoint)) = (self.proxied(), self.endpoint()) else { return };
        let Some(sticky) = &proxied.sticky else { return };
        if let Some(Bond::Set(token)) = proxied.pool.bond(sticky.asked(), endpoint.id()) {
            edits.add("set-cookie", sticky.set_cookie(&token));
            if response.status != 101 && !is_private(response) {
                // As HAProxy's `nocache`. What the endpoint says stays beside it: of directives that disagree the stricter
                // counts (RFC 9111 section 4.2.1), so browsers go on to cache what they may.
                edits.add("cache-control", "private");
            }
        }
    }
}

/// Whether caches keep from giving the answer, and the cookie in it, to other clients. With a list of fields `private` allows
/// the rest, and not all caches know such lists.
fn is_private(response: &ResponseView<'_>) -> bool {
    let is_strict = |directive: &[u8]| {
        let directive = directive.trim_ascii();
        directive.eq_ignore_ascii_case(b"private") || directive.eq_ignore_ascii_case(b"no-store")
    };
    let mut found = false;
    response.fields.all("cache-control", &mut |line| found |= line.split(|byte| *byte == b',').any(is_strict));
    found
}
