//! Cookies that HTTP/2 split into several fields are one field again where HTTP/1 is spoken (RFC 9113 section 8.2.3).

use tidegate_config::model::UpstreamProtocol;

use crate::edits::HeadEdits;
use crate::head::{HeadView, HttpVersion};

const NAME: &str = "cookie";

pub(super) fn join_crumbs(head: &HeadView<'_>, protocol: UpstreamProtocol, edits: &mut HeadEdits<'_>) {
    if head.version != HttpVersion::Http2 || protocol != UpstreamProtocol::Http1 {
        return;
    }
    let mut count = 0;
    head.fields.all(NAME, &mut |_| count += 1);
    if count < 2 {
        return;
    }
    let mut joined = Vec::new();
    head.fields.all(NAME, &mut |crumb| {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb);
    });
    edits.set(NAME, joined);
}
