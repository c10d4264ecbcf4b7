//! Workers that shall leave although they serve: each stays until another one of its slot has taken its place.

use super::Pool;
use crate::state::Turn;
use crate::state::worker::Worker;

impl Pool {
    /// Retires those whose successor serves, and begins with the next one if nothing else is being replaced.
    pub(super) fn hand_over(&mut self, turn: &mut Turn<'_>) {
        if self.fallback.is_some() {
            // A new generation replaces them, once it has proven itself.
            return;
        }
        for at in 0..self.workers.len() {
            let Some(reason) = self.workers[at].successor_wanted else { continue };
            if self.successor(&self.workers[at]).is_some_and(Worker::serves) {
                self.workers[at].retire(reason, turn);
            }
        }
        if let Some(slot) = self.next_to_replace() {
            let start_at = self.slots.get(&slot).map_or(turn.now, |slot| slot.retry_at.max(turn.now));
            self.add(slot, self.refill_generation(slot), start_at, turn);
        }
    }

    /// The slot of the worker that has waited longest for a successor and has no other that still leaves, unless a
    /// replacement or a change of generation is under way or a process more than the count runs already.
    fn next_to_replace(&self) -> Option<u32> {
        let wants = |worker: &&Worker| worker.successor_wanted.is_some() && worker.state.is_staying();
        let changing = self.workers.len() > self.size() as usize
            || self.workers.iter().filter(wants).any(|worker| self.successor(worker).is_some());
        if changing {
            return None;
        }
        let is_calm = |worker: &&Worker| self.in_slot(worker.id.slot).all(|other| other.state.is_staying());
        let waiting = self.workers.iter().filter(wants).filter(is_calm);
        waiting.min_by_key(|worker| worker.id.spawn).map(|worker| worker.id.slot)
    }

    /// Who is to serve its slot after a worker.
    pub(super) fn successor(&self, worker: &Worker) -> Option<&Worker> {
        let newer = |other: &&Worker| other.id.spawn > worker.id.spawn && other.state.is_staying();
        self.in_slot(worker.id.slot).find(newer)
    }
}
