//! What an operator asks of a pool: other workers in its slots, a slot that stays empty, another number of workers than
//! its spec has.

use tidegate_config::model::WorkerCount;

use super::Pool;
use crate::event::{Event, Failure, ScaledBy};
use crate::state::Turn;
use crate::state::worker::Worker;
use crate::worker::ExitReason;

impl Pool {
    /// Empties a slot until it is restarted.
    pub(in crate::state) fn hold(&mut self, slot: u32, turn: &mut Turn<'_>) {
        if !self.wanted.contains(&slot) {
            return;
        }
        let record = self.slots.entry(slot).or_default();
        record.is_held = true;
        record.is_ended = false;
        self.retire_where(ExitReason::Operator, |worker| worker.id.slot == slot, turn);
    }

    /// An operator wants that many workers.
    pub(in crate::state) fn scale(&mut self, count: u32, turn: &mut Turn<'_>) {
        self.is_scaled = true;
        self.resize(count, ScaledBy::Operator, turn);
    }

    /// An operator wants so many more; the last one is not taken away by that.
    pub(in crate::state) fn scale_by(&mut self, by: i32, turn: &mut Turn<'_>) {
        let least = self.count().min(1);
        self.scale(self.count().saturating_add_signed(by).max(least), turn);
    }

    /// The spec says again how many there are.
    pub(in crate::state) fn follow_spec_count(&mut self, turn: &mut Turn<'_>) {
        self.is_scaled = false;
        let count = match self.spec_count {
            Some(WorkerCount::Fixed(count)) => count,
            Some(WorkerCount::Auto) => self.auto_count(turn.limits, turn.capacity),
            None => return,
        };
        self.resize(count, ScaledBy::File, turn);
    }

    /// Takes the number of a spec. The same one as before leaves an operator's choice alone.
    pub(super) fn set_spec_count(&mut self, count: WorkerCount, turn: &mut Turn<'_>) {
        if self.spec_count.replace(count) != Some(count) {
            self.follow_spec_count(turn);
        }
    }

    /// Whether a worker that failed was to take the place of one that an operator wants restarted.
    pub(super) fn is_restart_of_one_that_serves(&self, failed: &Worker) -> bool {
        failed.ready_at.is_none() && self.in_slot(failed.id.slot).any(is_to_be_restarted)
    }

    /// Leaves the workers as they are: whatever keeps one new worker from its start will keep the next one too.
    pub(super) fn give_up_restarts(&mut self, failure: Failure, turn: &mut Turn<'_>) {
        for worker in self.workers.iter_mut().filter(|worker| is_to_be_restarted(worker)) {
            worker.successor_wanted = None;
        }
        turn.tell(Event::RestartFailed(failure));
    }
}

fn is_to_be_restarted(worker: &Worker) -> bool {
    worker.successor_wanted == Some(ExitReason::Operator)
}
