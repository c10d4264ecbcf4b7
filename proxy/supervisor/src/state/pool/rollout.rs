//! From one generation to the next: which is wanted, when it has proven itself, when it is given up and who is kept.

use std::sync::Arc;
use std::time::Duration;

use tidegate_config::model::{OnFailure, WorkerSpec};

use super::Pool;
use crate::deploy::{Cause, Outcome};
use crate::event::Event;
use crate::state::generation::Generation;
use crate::state::worker::Worker;
use crate::state::{Action, Turn};
use crate::status::GenerationState;
use crate::worker::ExitReason;

impl Pool {
    /// The generation whose spec was asked for last: after a failure that is the one that failed, not the target.
    pub(super) fn last_wanted(&self) -> u64 {
        self.failed.unwrap_or(self.target)
    }

    /// Makes `spec` the target: as a new generation, or by going back to the one that served before if that is what it
    /// says.
    pub(super) fn retarget(&mut self, spec: WorkerSpec, turn: &mut Turn<'_>) {
        let back = self.fallback.or(Some(self.target)).filter(|number| {
            self.generation(*number).is_some_and(|generation| generation.proven && generation.starts_same(&spec))
        });
        match back {
            Some(number) => self.go_back(number, turn),
            None => self.begin(spec, None, turn),
        }
    }

    /// Begins a new generation, of the same spec as the last one if that is all that is wanted.
    pub(in crate::state) fn deploy(&mut self, id: u64, turn: &mut Turn<'_>) {
        if let Some(spec) = self.spec.clone().filter(|_| !self.removed && turn.bound.is_none()) {
            self.begin(spec, Some(id), turn);
        }
    }

    fn go_back(&mut self, number: u64, turn: &mut Turn<'_>) {
        self.supersede(turn);
        self.abandon_target_unless(number);
        self.forget_vacated();
        self.target = number;
        self.fallback = None;
        self.frozen = false;
        self.failed = None;
        if let Some(generation) = self.generation_mut(number) {
            generation.state = GenerationState::Rolling;
        }
    }

    fn begin(&mut self, spec: WorkerSpec, id: Option<u64>, turn: &mut Turn<'_>) {
        self.supersede(turn);
        let is_proven = self.generation(self.target).is_some_and(|generation| generation.proven);
        self.fallback = self.fallback.or(Some(self.target).filter(|_| is_proven));
        self.abandon_target_unless(self.fallback.unwrap_or(0));
        self.frozen = false;
        self.failed = None;
        self.forget_vacated();
        self.last_generation += 1;
        self.target = self.last_generation;
        self.record_deploy(id, turn);
        self.open_ended_slots();
        let spec = Arc::new(spec);
        self.generations.push(Generation::new(self.target, spec.clone()));
        turn.act(Action::Prepare { pool: self.name.clone(), generation: self.target, spec });
        if self.fallback.is_none() {
            self.forget_failures();
        }
    }

    fn abandon_target_unless(&mut self, kept: u64) {
        let target = self.target;
        if let Some(generation) = self.generation_mut(target).filter(|generation| generation.number != kept) {
            generation.state = GenerationState::Retiring;
        }
    }

    /// A new spec with nothing to fall back to is a new start for the pool.
    fn forget_failures(&mut self) {
        self.failures.clear();
        self.crashloop = None;
        for slot in self.slots.values_mut() {
            slot.failures = 0;
            slot.retry_at = Duration::ZERO;
        }
    }

    /// Whether the failure of a worker says something about the generation that is being deployed. One that served for a
    /// while and then ended of its own accord does not: some programs end after so many requests.
    pub(super) fn fails_deploy(&self, worker: &Worker, reason: ExitReason, turn: &Turn<'_>) -> bool {
        let served = worker.ready_at.is_some_and(|at| turn.now.saturating_sub(at) >= self.policy.min_ready);
        worker.id.generation == self.target && !(reason == ExitReason::CleanExit && served)
    }

    /// The new generation is no good. Where it has no slot to itself everything goes back to what it was, also where workers
    /// had already left for it; else the policy says whether the mix stays or the old generation takes its slots back.
    pub(super) fn give_up(&mut self, fallback: u64, cause: Cause, turn: &mut Turn<'_>) {
        let has_drained = self.open_deploy().is_some_and(|deploy| deploy.has_drained);
        // A deploy that was superseded half way has left a mix behind, which this one did not change either.
        let is_third = |worker: &Worker| ![self.target, fallback].contains(&worker.id.generation);
        let is_mixed = self.workers.iter().any(|worker| worker.ready_at.is_some() && is_third(worker));
        // What is worse than the others is not to stay among them.
        let is_worse = matches!(cause, Cause::Canary(_));
        let may_stay = self.policy.on_failure == OnFailure::Freeze && !(is_worse && has_drained);
        let keeps = self.slots().any(|slot| self.is_held_by_target_alone(slot));
        self.frozen = ((has_drained && keeps) || is_mixed) && may_stay;
        if let Some(generation) = self.generation_mut(self.target) {
            generation.state = GenerationState::Failed;
        }
        let (pool, generation) = (self.name.clone(), self.target);
        turn.tell(Event::GenerationFailed { pool, generation, cause: cause.clone() });
        let outcome = if self.frozen && keeps { Outcome::Frozen } else { Outcome::Reverted };
        self.decide(outcome, Some(cause));
        self.forget_vacated();
        self.failed = Some(self.target);
        self.target = fallback;
        self.fallback = None;
        let is_rolled_back = (has_drained || is_mixed) && !self.frozen;
        if let Some(generation) = self.generation_mut(fallback).filter(|_| is_rolled_back) {
            generation.state = GenerationState::Rolling;
        }
    }

    /// Whether the target has a slot to itself, so that something of it would stay.
    fn is_held_by_target_alone(&self, slot: u32) -> bool {
        let holds = |worker: &&Worker| worker.state.is_staying() && worker.ready_at.is_some();
        let mut holding = self.in_slot(slot).filter(holds).peekable();
        holding.peek().is_some() && holding.all(|worker| worker.id.generation == self.target)
    }

    /// The target has proven that it works when its first worker has stayed ready, or is ready where nobody else is; it is
    /// active when it has done so in every slot. Then nobody is kept to fall back to.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>) {
        let is_done = self.slots().all(|slot| self.is_taken(slot, turn.now));
        let is_proven = is_done || self.has_proven_canary(turn.now);
        let is_past_canary = self.pass_canary(is_proven, turn) && is_proven;
        let Some(target) = self.generations.iter_mut().find(|generation| generation.number == self.target) else {
            return;
        };
        if target.state == GenerationState::Canary && is_past_canary {
            target.state = GenerationState::Rolling;
        }
        if !is_done || target.state != GenerationState::Rolling {
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
        if self.deploys.back().is_some_and(|deploy| deploy.generation == self.target) {
            self.decide(Outcome::Done, None);
        }
    }

    fn has_proven_canary(&self, now: Duration) -> bool {
        let is_ready = |worker: &&Worker| worker.serves();
        let is_alone = self.workers.iter().filter(is_ready).all(|worker| worker.id.generation == self.target);
        let mut canaries = self.workers.iter().filter(is_ready).filter(|worker| worker.id.generation == self.target);
        canaries.any(|worker| is_alone || self.proven_at(worker).is_some_and(|at| at <= now))
    }

    /// Whether a worker of the target that has proven itself serves a slot, so that others there may leave.
    pub(super) fn is_taken(&self, slot: u32, now: Duration) -> bool {
        self.in_slot(slot).any(|worker| self.proven_at(worker).is_some_and(|at| at <= now))
    }

    /// When a worker of the target that is in service will have proven itself: at once unless there is something to fall
    /// back to.
    pub(super) fn proven_at(&self, worker: &Worker) -> Option<Duration> {
        let is_target = worker.id.generation == self.target && worker.serves();
        let patience = if self.fallback.is_some() { self.policy.min_ready } else { Duration::ZERO };
        worker.ready_at.filter(|_| is_target).map(|at| at.saturating_add(patience))
    }

    /// Forgets generations that nobody uses or may go back to.
    pub(super) fn release(&mut self, turn: &mut Turn<'_>) {
        let Self { name, generations, workers, target, fallback, failed, .. } = self;
        generations.retain(|generation| {
            let number = generation.number;
            let in_use = number == *target
                || Some(number) == *fallback
                || Some(number) == *failed
                || workers.iter().any(|worker| worker.id.generation == number);
            if !in_use {
                turn.act(Action::Release { pool: name.clone(), generation: number });
            }
            in_use
        });
    }
}
