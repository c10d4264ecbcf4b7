//! `count: auto`: one worker for each CPU, at least 2, and no more than there is memory for with a deploy under way. The machine
//! may change while we run, so the number is looked at again with every look at the machine.

use tidegate_config::model::{DeployStrategy, WorkerCount};

use super::Pool;
use crate::capacity::Capacity;
use crate::event::ScaledBy;
use crate::plan::Way;
use crate::state::{Limits, Turn};

/// A number other than the present one, and how many looks in a row have come to one on the same side of it.
#[derive(Debug, Default)]
pub(super) struct Drift {
    lower: u32,
    higher: u32,
}

impl Pool {
    /// How many workers `count: auto` means now.
    pub(super) fn auto_count(&self, limits: &Limits, capacity: Option<&Capacity>) -> u32 {
        let Some(capacity) = capacity else { return limits.auto_count };
        let by_cpus = Limits::auto_count_of(capacity.cpus);
        self.memory_cap(capacity).map_or(by_cpus, |cap| by_cpus.min(cap))
    }

    /// The most workers for which there is memory together with those that a deploy runs beside them; at least 1. `None`
    /// where memory or the size of a worker is not known.
    fn memory_cap(&self, capacity: &Capacity) -> Option<u32> {
        let known: Vec<u64> = self.workers.iter().filter_map(|worker| worker.pss).collect();
        let own: u64 = known.iter().sum();
        let each = own.checked_div(known.len() as u64).filter(|each| *each > 0)?;
        let fit = capacity.memory.spare(own)? / each;
        let beside = |count: u32| match self.policy.strategy {
            DeployStrategy::Green => Way::Green.surge(count),
            DeployStrategy::Rolling => self.policy.surge.rounded_up(count).max(1),
            // It goes by what there is then.
            DeployStrategy::Auto => 1,
        };
        let fits = |count: &u32| u64::from(*count) + u64::from(beside(*count)) <= fit;
        (1..=u32::try_from(fit).unwrap_or(u32::MAX).min(MOST)).rev().find(fits).or(Some(1))
    }

    /// Follows the machine, unless an operator chose the number, or something else goes on that it must not disturb. One look
    /// may be wrong: memory that somebody borrows for a moment takes no worker away.
    pub(in crate::state) fn follow_machine(&mut self, turn: &mut Turn<'_>) {
        let is_auto = self.spec_count == Some(WorkerCount::Auto) && !self.is_scaled;
        if !is_auto || self.removed || turn.bound.is_some() {
            return;
        }
        let (wanted, present) = (self.auto_count(turn.limits, turn.capacity), self.count());
        self.drift.lower = if wanted < present { self.drift.lower + 1 } else { 0 };
        self.drift.higher = if wanted > present { self.drift.higher + 1 } else { 0 };
        let is_certain = self.drift.lower >= LOOKS_DOWN || self.drift.higher >= LOOKS_UP;
        if is_certain && self.fallback.is_none() && self.crashloop.is_none() {
            self.drift = Drift::default();
            self.resize(wanted, ScaledBy::Machine, turn);
        }
    }
}

const LOOKS_DOWN: u32 = 2;
const LOOKS_UP: u32 = 3;
/// As many as there may be in a pool.
const MOST: u32 = 4_096;
