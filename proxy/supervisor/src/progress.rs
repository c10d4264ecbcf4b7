//! How workers get on with their requests. The data plane counts; the supervisor asks now and then.

use std::collections::BTreeMap;

/// Figures of one worker at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Requests it was ever given, those that became WebSockets among them.
    pub requests: u64,
    /// Requests under way, WebSockets not among them.
    pub in_flight: u32,
    /// Those of them whose answers may go on for as long as they like.
    pub streams: u32,
    /// It has as many of them as it may have.
    pub is_full: bool,
    /// Grows when bytes of an answer have come since the last time.
    pub heard: u64,
    /// Connections that it refused or did not accept in time.
    pub unreachable: u64,
    /// Requests that took it longer than they may.
    pub overdue: u64,
    /// Requests whose client went away; it may be working on them all the same.
    pub abandoned: u64,
}

/// Figures of workers by spawn number; workers that are not there are not known to the data plane.
pub type ProgressBySpawn = BTreeMap<u64, Progress>;
