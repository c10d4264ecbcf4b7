//! `X-Request-ID`: ours, in the forwarded request and in the answer. What the client sent is not trusted.

use crate::edits::{HeadEdits, Inline};
use crate::request_id::RequestId;

const NAME: &str = "x-request-id";

pub(super) fn remove(edits: &mut HeadEdits<'_>) {
    edits.remove(NAME);
}

pub(super) fn add(id: RequestId, edits: &mut HeadEdits<'_>) {
    if let Some(digits) = Inline::new(&id.digits()) {
        edits.add(NAME, digits);
    }
}

pub(super) fn set(id: RequestId, edits: &mut HeadEdits<'_>) {
    remove(edits);
    add(id, edits);
}
