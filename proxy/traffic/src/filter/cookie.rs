//! Cookies on their way to an endpoint.
//!
//! Those that HTTP/2 split into several fields are one field again where HTTP/1 is spoken (RFC 9113 section 8.2.3). One that
//! is between us and the client goes no further: the application would not know what to do with it, and what it logs,
//! echoes or varies a cache by had better not depend on which endpoint a client has.

use tidegate_config::model::UpstreamProtocol;

use super::RequestContext;
use crate::edits::HeadEdits;
use crate::head::{HeadView, HttpVersion};
use crate::parameters;

const NAME: &str = "cookie";

pub(super) fn pass_on(head: &HeadView<'_>, context: &RequestContext<'_>, edits: &mut HeadEdits<'_>) {
    let (mut fields, mut has_own) = (0, false);
    head.fields.all(NAME, &mut |_| fields += 1);
    if let Some(own) = context.own_cookie {
        parameters::cookies(head.fields, own, &mut |_| has_own = true);
    }
    let is_split = head.version == HttpVersion::Http2 && context.protocol == UpstreamProtocol::Http1 && fields > 1;
    if !is_split && !has_own {
        return;
    }
    let mut joined = Vec::new();
    let mut add = |text: &[u8]| {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(text);
    };
    match context.own_cookie.filter(|_| has_own) {
        Some(own) => parameters::other_cookies(head.fields, own, &mut add),
        None => head.fields.all(NAME, &mut add),
    }
    match joined.is_empty() {
        true => edits.remove(NAME),
        false => edits.set(NAME, joined),
    }
}
