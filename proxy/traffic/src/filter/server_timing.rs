//! `Server-Timing`: how long the request waited for an endpoint, beside what the endpoint says of its own times.

use std::time::Duration;

use crate::edits::{HeadEdits, Inline};

/// Adds it, in milliseconds.
pub(crate) fn add(queued: Duration, edits: &mut HeadEdits<'_>) {
    edits.add("server-timing", Inline::display(&format_args!("queue;dur={:.1}", queued.as_secs_f64() * 1_000.0)));
}
