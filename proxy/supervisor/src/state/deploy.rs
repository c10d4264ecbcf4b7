//! What a pool remembers of a change of generation.

use std::time::Duration;

use crate::deploy::{Cause, Outcome};

/// One change of generation, from the order to its end.
#[derive(Debug)]
pub(super) struct Deploy {
    pub(super) id: Option<u64>,
    pub(super) generation: u64,
    pub(super) replaces: Option<u64>,
    pub(super) began: Duration,
    pub(super) first_ready: Option<Duration>,
    /// A worker in service was asked to leave for it.
    pub(super) has_drained: bool,
    /// What it comes to, once those that leave are gone.
    pub(super) outcome: Option<Outcome>,
    pub(super) failure: Option<Cause>,
    pub(super) ended: Option<Duration>,
}

impl Deploy {
    pub(super) fn new(id: Option<u64>, generation: u64, replaces: Option<u64>, now: Duration) -> Self {
        Self {
            id,
            generation,
            replaces,
            began: now,
            first_ready: None,
            has_drained: false,
            outcome: None,
            failure: None,
            ended: None,
        }
    }

    /// Its outcome is open.
    pub(super) fn is_open(&self) -> bool {
        self.outcome.is_none()
    }
}
