//! What a pool remembers of a change of generation.

use std::time::Duration;

use super::pool::Canary;
use crate::deploy::{Boots, Cause, Outcome};
use crate::plan::DeployPlan;

/// One change of generation, from the order to its end.
#[derive(Debug)]
pub(super) struct Deploy {
    pub(super) id: Option<u64>,
    pub(super) generation: u64,
    pub(super) replaces: Option<u64>,
    pub(super) began: Duration,
    /// How its workers come up, once that is decided.
    pub(super) plan: Option<DeployPlan>,
    pub(super) first_ready: Option<Duration>,
    pub(super) boots: Option<Boots>,
    /// The comparison of its first worker, once it has begun.
    pub(super) canary: Option<Canary>,
    pub(super) longest_drain: Option<Duration>,
    /// Workers that ended meanwhile without being asked to.
    pub(super) lost: u32,
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
            plan: None,
            first_ready: None,
            boots: None,
            canary: None,
            longest_drain: None,
            lost: 0,
            has_drained: false,
            outcome: None,
            failure: None,
            ended: None,
        }
    }

    /// One of its workers is ready.
    pub(super) fn note_ready(&mut self, boot: Option<Duration>, now: Duration) {
        self.first_ready.get_or_insert(now);
        let Some(boot) = boot else { return };
        self.boots = Some(match self.boots {
            None => Boots { count: 1, shortest: boot, longest: boot },
            Some(Boots { count, shortest, longest }) => {
                Boots { count: count + 1, shortest: shortest.min(boot), longest: longest.max(boot) }
            }
        });
    }

    /// Its outcome is open.
    pub(super) fn is_open(&self) -> bool {
        self.outcome.is_none()
    }
}
