//! Unplanned exits: what is told, when the slot is tried again, when the pool is in a crash loop.

use std::time::Duration;

use super::Pool;
use crate::deploy::{Cause, Outcome};
use crate::event::{Event, Failure};
use crate::state::worker::Worker;
use crate::state::{Exit, Turn};
use crate::worker::{ExitReason, WorkerState};

impl Pool {
    pub(super) fn failed(&mut self, worker: &Worker, reason: ExitReason, exit: Exit, turn: &mut Turn<'_>) {
        let failure = Failure {
            worker: worker.id.clone(),
            pid: worker.pid,
            reason,
            status: exit.status,
            message: exit.message.or(worker.trouble.clone()).or_else(|| match reason {
                ExitReason::BootTimeout => exit.not_ready,
                ExitReason::Hang => Some(worker.doubts.text()),
                _ => None,
            }),
            uptime: worker.spawned_at.map_or(Duration::ZERO, |start| turn.now.saturating_sub(start)),
            last_lines: exit.last_lines,
        };
        turn.tell(Event::Failure(failure.clone()));
        if let Some(slot) = self.slots.get_mut(&worker.id.slot) {
            slot.restarts += 1;
        }
        match self.fallback {
            // A new generation that fails is no trouble of the pool: it is given up, and the old one serves on.
            Some(fallback) if self.fails_deploy(worker, reason, turn) => {
                self.give_up(fallback, Cause::Worker(failure), turn)
            }
            _ if self.is_restart_of_one_that_serves(worker) => self.give_up_restarts(failure, turn),
            Some(_) => self.back_off(worker, reason, turn),
            None => {
                if self.fails_deploy(worker, reason, turn) && self.open_deploy().is_some_and(|one| one.id.is_some()) {
                    self.decide(Outcome::Failed, Some(Cause::Worker(failure)));
                }
                self.back_off(worker, reason, turn);
            }
        }
    }

    pub(super) fn back_off(&mut self, worker: &Worker, reason: ExitReason, turn: &mut Turn<'_>) {
        if self.is_final(worker) {
            return self.end_slot(worker, turn);
        }
        let policy = &self.restart;
        self.failures.push_back(turn.now);
        self.failures.retain(|at| turn.now.saturating_sub(*at) < policy.window);
        if self.crashloop.is_none() && policy.is_crashloop(self.failures.len(), self.count()) {
            self.crashloop = Some(turn.now);
        }
        let stable = worker.ready_at.is_some_and(|at| turn.now.saturating_sub(at) >= policy.stable_after);
        let slot = self.slots.entry(worker.id.slot).or_default();
        slot.failures = if stable { 1 } else { slot.failures.saturating_add(1) };
        let at_once = self.crashloop.is_none() && (stable || reason == ExitReason::CleanExit);
        let ceiling = if self.crashloop.is_some() { policy.crashloop_ceiling } else { policy.delay_ceiling };
        let delay = if at_once { Duration::ZERO } else { policy.delay(slot.failures, ceiling, turn.jitter.next()) };
        slot.retry_at = turn.now + delay;
    }

    /// Whether the end of a worker is the end of its slot: by its exit code, unless another one is there already.
    fn is_final(&self, worker: &Worker) -> bool {
        let exit = self.slots.get(&worker.id.slot).and_then(|slot| slot.last_exit);
        let is_alone = !self.in_slot(worker.id.slot).any(|other| other.state.is_staying());
        is_alone && exit.is_some_and(|(_, status, _)| self.restart.is_final(status))
    }

    fn end_slot(&mut self, worker: &Worker, turn: &mut Turn<'_>) {
        let slot = self.slots.entry(worker.id.slot).or_default();
        slot.is_held = true;
        slot.is_ended = true;
        turn.tell(Event::NotRestarted { worker: worker.id.clone() });
    }

    /// A new version is tried in every slot again.
    pub(super) fn open_ended_slots(&mut self) {
        for slot in self.slots.values_mut().filter(|slot| slot.is_ended) {
            slot.is_held = false;
            slot.is_ended = false;
        }
    }

    /// A crash loop ends when a worker started in it has been in service long enough, or all have been since.
    pub(super) fn leave_crashloop(&mut self, turn: &mut Turn<'_>) {
        if self.crashloop_over_at().is_none_or(|at| at > turn.now) {
            return;
        }
        self.crashloop = None;
        self.failures.clear();
        for slot in self.slots.values_mut() {
            slot.failures = 0;
            slot.retry_at = slot.retry_at.min(turn.now);
        }
        for worker in self.workers.iter_mut().filter(|worker| worker.state == WorkerState::Backoff) {
            worker.start_at = worker.start_at.min(turn.now);
        }
    }

    pub(super) fn crashloop_over_at(&self) -> Option<Duration> {
        let entered = self.crashloop?;
        let complete = self.is_complete();
        let ready = self.workers.iter().filter(|worker| worker.state == WorkerState::Ready);
        let proofs = ready.filter_map(|worker| {
            let began = worker.ready_at?;
            let is_new = worker.spawned_at.is_some_and(|at| at >= entered);
            (is_new || complete).then(|| began.max(entered) + self.restart.stable_after)
        });
        if complete && self.slots().next().is_none() { Some(entered) } else { proofs.min() }
    }
}
