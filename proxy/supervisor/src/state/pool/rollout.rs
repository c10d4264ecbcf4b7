//! From one generation to the next: which is wanted, when it has taken over, when it is given up and who is kept.

use std::sync::Arc;
use std::time::Duration;

use tidegate_config::model::WorkerSpec;

use super::Pool;
use crate::event::{Event, Failure};
use crate::state::generation::Generation;
use crate::state::worker::Worker;
use crate::state::{Action, Turn};
use crate::status::GenerationState;
use crate::worker::WorkerState;

impl Pool {
    /// The generation whose spec was asked for last: after a failure that is the newest, not the target.
    pub(super) fn last_wanted(&self) -> u64 {
        self.generations.last().filter(|_| self.frozen).map_or(self.target, |generation| generation.number)
    }

    /// Makes `spec` the target: as a new generation, or by going back to the fallback if that is what it says.
    pub(super) fn retarget(&mut self, spec: WorkerSpec, turn: &mut Turn<'_>) {
        self.frozen = false;
        let back = self.fallback.or(Some(self.target)).filter(|number| {
            self.generation(*number).is_some_and(|generation| generation.proven && generation.starts_same(&spec))
        });
        if let Some(number) = back {
            self.abandon_target_unless(number);
            self.target = number;
            self.fallback = None;
            if let Some(generation) = self.generation_mut(number) {
                generation.state = GenerationState::Rolling;
            }
            return;
        }
        let proven = self.generation(self.target).is_some_and(|generation| generation.proven);
        self.fallback = self.fallback.or(Some(self.target).filter(|_| proven));
        self.abandon_target_unless(self.fallback.unwrap_or(0));
        self.last_generation += 1;
        self.target = self.last_generation;
        let spec = Arc::new(spec);
        self.generations.push(Generation::new(self.target, spec.clone()));
        turn.act(Action::Prepare { pool: self.name.clone(), generation: self.target, spec });
        if self.fallback.is_none() {
            self.forget_failures();
        }
    }

    pub(super) fn abandon_target_unless(&mut self, kept: u64) {
        let target = self.target;
        if let Some(generation) = self.generation_mut(target).filter(|generation| generation.number != kept) {
            generation.state = GenerationState::Retiring;
        }
    }

    /// A new spec with nothing to fall back to is a new start for the pool.
    pub(super) fn forget_failures(&mut self) {
        self.failures.clear();
        self.crashloop = None;
        for slot in self.slots.values_mut() {
            slot.failures = 0;
            slot.retry_at = Duration::ZERO;
        }
    }

    pub(super) fn give_up(&mut self, fallback: u64, failure: Failure, turn: &mut Turn<'_>) {
        if let Some(generation) = self.generation_mut(self.target) {
            generation.state = GenerationState::Failed;
        }
        turn.tell(Event::GenerationFailed { generation: self.target, failure });
        self.target = fallback;
        self.fallback = None;
        self.frozen = true;
    }

    /// The target is active when it serves every slot; then nobody is kept to fall back to.
    pub(super) fn complete(&mut self, turn: &mut Turn<'_>) {
        let served = (0..self.count).all(|slot| self.is_ready(slot, self.target));
        let Some(target) = self.generations.iter_mut().find(|generation| generation.number == self.target) else {
            return;
        };
        if !served || target.state != GenerationState::Rolling {
            return;
        }
        target.state = GenerationState::Active;
        turn.tell(Event::GenerationActive { pool: self.name.clone(), generation: self.target });
        self.fallback = None;
        for generation in self.generations.iter_mut().filter(|generation| generation.number != self.target) {
            if generation.state != GenerationState::Failed {
                generation.state = GenerationState::Retiring;
            }
        }
    }

    /// Forgets generations that nobody uses or may go back to.
    pub(super) fn release(&mut self, turn: &mut Turn<'_>) {
        let Self { name, generations, workers, target, fallback, frozen, .. } = self;
        let wanted_last = generations.last().map(|generation| generation.number).filter(|_| *frozen);
        generations.retain(|generation| {
            let number = generation.number;
            let in_use = number == *target
                || Some(number) == *fallback
                || Some(number) == wanted_last
                || workers.iter().any(|worker| worker.id.generation == number);
            if !in_use {
                turn.act(Action::Release { pool: name.clone(), generation: number });
            }
            in_use
        });
    }

    /// Begins to replace the next slot that is not served by the target, if no other replacement is under way and no
    /// more processes than one above the count would run.
    pub(super) fn roll(&mut self, turn: &mut Turn<'_>) {
        if self.frozen {
            return;
        }
        let target = self.target;
        let is_ours = |worker: &&Worker| worker.id.generation == target;
        let replacing = self.workers.iter().filter(is_ours).any(|worker| {
            worker.state.is_booting() || (worker.state == WorkerState::Backoff && self.fallback.is_some())
        });
        if replacing || self.processes() > self.count as usize {
            return;
        }
        let next = (0..self.count).find(|slot| !self.in_slot(*slot).any(|worker| is_ours(&worker)));
        if let Some(slot) = next {
            self.add(slot, target, turn.now, turn);
        }
    }
}
