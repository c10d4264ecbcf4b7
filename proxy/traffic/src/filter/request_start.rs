//! `X-Request-Start`: when we had the request's head, which is what monitoring of applications counts their queue from.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::edits::{HeadEdits, Inline};

const NAME: &str = "x-request-start";

/// Replaces what the client sent: it could tell any time.
pub(super) fn set(began: SystemTime, edits: &mut HeadEdits<'_>) {
    let since = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    edits.set(NAME, Inline::display(&format_args!("t={}", since.as_micros())));
}
