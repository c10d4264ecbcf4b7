//! Requests that a new worker gets before those of clients.

use std::time::Duration;

/// What a worker is asked for once it is ready, and before it gets requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warmup {
    /// Paths, one after the other; never empty.
    pub paths: Vec<String>,
    /// For all of them together; a worker that takes longer has failed to start.
    pub timeout: Duration,
}
