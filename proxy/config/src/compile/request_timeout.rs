//! How long a worker may work on one request, and for how long what it was given up on counts as under way.

use std::time::Duration;

use super::keep;
use super::retry::parse_time_or_off;
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;

/// A worker whose threads are taken by requests that never end serves nobody.
const OF_THREADS: Duration = Duration::from_secs(60);
/// Where nobody says how long a handler may go on after its client was answered.
const HOLD: Duration = Duration::from_secs(30);

/// Both times of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestTimes {
    pub(super) timeout: Option<Duration>,
    pub(super) hold: Duration,
}

impl RequestTimes {
    /// Of servers that are not ours.
    pub(super) const NONE: Self = Self { timeout: None, hold: HOLD };
}

/// Compiles them; `holds_threads`: each request takes a thread of the worker.
pub(super) fn times(
    timeout: Option<raw::Text>,
    hold: Option<raw::Time>,
    holds_threads: bool,
    workers: Spot<'_>,
    report: &mut Report,
) -> RequestTimes {
    let usual = holds_threads.then_some(OF_THREADS);
    let timeout = match timeout {
        Some(raw::Text(text)) => {
            keep(parse_time_or_off(&text), &text, workers.key("request_timeout"), report).flatten()
        }
        None => usual,
    };
    RequestTimes { timeout, hold: hold.map_or(HOLD, |time| time.0) }
}
