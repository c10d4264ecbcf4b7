//! How workers get on with their requests. The data plane counts; the supervisor asks now and then.

use std::collections::BTreeMap;

/// Figures of one worker at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Requests it was ever given, those that became WebSockets among them.
    pub requests: u64,
    /// Requests under way.
    pub in_flight: u32,
}

/// Figures of workers by spawn number; workers that are not there are not known to the data plane.
pub type ProgressBySpawn = BTreeMap<u64, Progress>;
