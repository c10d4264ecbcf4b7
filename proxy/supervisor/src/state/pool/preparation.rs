//! What runs once before the workers of a generation: when it is started, how long it may take, what its end means.
//!
//! One at a time for a pool: a generation that comes while the hook of another one runs waits for its end, because two
//! migrations at once, or one that is killed half way, are worse than a wait. Only a pool that ends stops it.

use std::time::Duration;

use super::Pool;
use crate::deploy::{Cause, HookFailure, Outcome};
use crate::event::Event;
use crate::hook::HookId;
use crate::state::{Action, Bound, Exit, Turn};
use crate::status::GenerationState;
use crate::worker::ExitStatus;

/// A hook that runs.
#[derive(Debug)]
pub(super) struct Preparation {
    id: HookId,
    since: Duration,
    timeout: Duration,
    /// When it was asked to end.
    stopped: Option<Duration>,
    is_late: bool,
    is_killed: bool,
}

impl Pool {
    /// Starts the hook of the target if that waits for it, and ends one that takes too long or is not wanted any more.
    pub(super) fn prepare(&mut self, turn: &mut Turn<'_>) {
        let is_ending = self.removed || turn.bound.is_some();
        self.expire_hook(is_ending, turn);
        if is_ending || self.preparation.is_some() {
            return;
        }
        let target = self.target;
        let is_waiting = |state: GenerationState| state == GenerationState::Preparing;
        let Some(generation) = self.generation_mut(target).filter(|one| is_waiting(one.state)) else { return };
        let Some(hook) = generation.spec.pre_start.as_ref().filter(|_| generation.retry_at <= turn.now) else { return };
        let timeout = hook.timeout;
        *turn.last_spawn += 1;
        let id = HookId { pool: self.name.clone(), generation: target, run: *turn.last_spawn };
        let since = turn.now;
        self.preparation =
            Some(Preparation { id: id.clone(), since, timeout, stopped: None, is_late: false, is_killed: false });
        turn.tell(Event::HookStarted { hook: id.clone() });
        turn.act(Action::RunHook(id));
    }

    fn expire_hook(&mut self, is_ending: bool, turn: &mut Turn<'_>) {
        let stop_timeout = self.timeouts.stop;
        let Some(hook) = self.preparation.as_mut() else { return };
        let is_late = turn.now >= hook.since.saturating_add(hook.timeout);
        if hook.stopped.is_none() && (is_ending || is_late) {
            hook.stopped = Some(turn.now);
            hook.is_late = is_late && !is_ending;
            turn.act(Action::StopHook(hook.id.clone()));
        }
        if !hook.is_killed && hook.kill_at(stop_timeout, turn.bound).is_some_and(|at| at <= turn.now) {
            hook.is_killed = true;
            turn.act(Action::KillHook(hook.id.clone()));
        }
    }

    pub(in crate::state) fn hook_ended(&mut self, id: &HookId, exit: Exit, turn: &mut Turn<'_>) {
        if self.inquest_ended(id, &exit) {
            return;
        }
        let Some(hook) = self.preparation.take_if(|hook| hook.id == *id) else { return };
        let took = turn.now.saturating_sub(hook.since);
        turn.tell(Event::HookEnded { hook: id.clone(), status: exit.status, took });
        let target = self.target;
        let was_unwanted = hook.stopped.is_some() && !hook.is_late;
        if id.generation != target || was_unwanted {
            // Should its pool have come back meanwhile, it runs once more: what it was stopped in, nobody knows.
            return;
        }
        if exit.status == ExitStatus::Code(0) && !hook.is_late {
            if let Some(generation) = self.generation_mut(target) {
                generation.state = GenerationState::Canary;
            }
            return;
        }
        let late = || format!("not over within {:?}", hook.timeout);
        let message = exit.message.or_else(|| hook.is_late.then(late));
        let HookId { pool, generation, .. } = id.clone();
        let failure = HookFailure { pool, generation, status: exit.status, message, took, last_lines: exit.last_lines };
        self.hook_failed(failure, turn);
    }

    fn hook_failed(&mut self, failure: HookFailure, turn: &mut Turn<'_>) {
        turn.tell(Event::HookFailed(failure.clone()));
        if let Some(fallback) = self.fallback {
            return self.give_up(fallback, Cause::PreStart(failure), turn);
        }
        // Nothing to go back to: what it needs may come up in a moment.
        if self.open_deploy().is_some_and(|deploy| deploy.id.is_some()) {
            self.decide(Outcome::Failed, Some(Cause::PreStart(failure)));
        }
        let (policy, jitter) = (self.restart.clone(), turn.jitter.next());
        let target = self.target;
        if let Some(generation) = self.generation_mut(target) {
            generation.tries = generation.tries.saturating_add(1);
            generation.retry_at = turn.now + policy.delay(generation.tries, policy.delay_ceiling, jitter);
        }
    }

    /// Whether workers of a generation may be started.
    pub(super) fn is_prepared(&self, number: u64) -> bool {
        self.generation(number).is_none_or(|generation| generation.state != GenerationState::Preparing)
    }

    /// When [`Pool::prepare`] has something to do.
    pub(super) fn hook_deadline(&self, now: Duration, bound: Option<Bound>) -> Option<Duration> {
        if let Some(hook) = &self.preparation {
            let stop = hook.since.saturating_add(hook.timeout);
            return if hook.is_killed { None } else { hook.kill_at(self.timeouts.stop, bound).or(Some(stop)) };
        }
        let waiting = self.generation(self.target).filter(|one| one.state == GenerationState::Preparing);
        waiting.map(|generation| generation.retry_at).filter(|at| *at > now && !self.removed && bound.is_none())
    }
}

impl Preparation {
    /// When it is killed, once it was asked to end.
    fn kill_at(&self, stop_timeout: Duration, bound: Option<Bound>) -> Option<Duration> {
        let own = self.stopped?.saturating_add(stop_timeout);
        Some(bound.map_or(own, |bound| own.min(bound.end)))
    }
}
