//! One worker of a pool and its way through the states. Knows no sibling; `pool.rs` decides what becomes of it.

use std::time::Duration;

use tidegate_config::model::WorkerSpec;

use super::pool::{Doubts, Wear};
use super::{Action, Bound, Turn};
use crate::event::{Event, Transition};
use crate::worker::{ExitReason, WorkerAddress, WorkerId, WorkerState};

/// Deadlines of a worker; a pool's present ones hold for all its workers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Timeouts {
    boot: Duration,
    warmup: Duration,
    drain: Duration,
    streams: Duration,
    pub(super) stop: Duration,
}

impl From<&WorkerSpec> for Timeouts {
    fn from(spec: &WorkerSpec) -> Self {
        let warmup = spec.warmup.as_ref().map_or(Duration::ZERO, |warmup| warmup.timeout);
        Self {
            boot: spec.boot_timeout,
            warmup: warmup.saturating_add(OVERDUE),
            drain: spec.drain_timeout,
            streams: spec.stream_grace,
            stop: spec.stop_timeout,
        }
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) pid: Option<u32>,
    pub(super) state: WorkerState,
    /// When it entered that state.
    pub(super) since: Duration,
    /// Backoff: not before.
    pub(super) start_at: Duration,
    pub(super) spawned_at: Option<Duration>,
    /// Set once it was announced as ready; it stays set.
    pub(super) ready_at: Option<Duration>,
    pub(super) address: Option<WorkerAddress>,
    /// Why it shall end, once that is decided.
    pub(super) purpose: Option<ExitReason>,
    /// Why it shall leave once another one serves in its place.
    pub(super) successor_wanted: Option<ExitReason>,
    pub(super) wear: Wear,
    /// How it is, in its own words.
    pub(super) says: Option<String>,
    /// When it last said that it lives.
    pub(super) alive_at: Option<Duration>,
    /// Why it gets no requests although its process goes on.
    pub(super) out: Option<String>,
    /// It does not pass what is asked of ready ones.
    pub(super) failing: Option<String>,
    /// It does not answer, and is not spared for that.
    pub(super) shunned: Option<String>,
    pub(super) doubts: Doubts,
    /// Its boot may take until then, if that is longer than the pool allows.
    pub(super) boot_until: Option<Duration>,
    /// Memory that it has for itself, in bytes, at the last look.
    pub(super) pss: Option<u64>,
    /// How long it took to finish its requests, once it has or had to stop.
    pub(super) drained_in: Option<Duration>,
    /// Draining: nothing is left of its requests but what streams.
    pub(super) requests_over: bool,
    /// Why it was given up before it was ready.
    pub(super) trouble: Option<String>,
    killed: bool,
    /// It was asked for its last words.
    aborted: bool,
}

impl Worker {
    pub(super) fn new(id: WorkerId, now: Duration, start_at: Duration, wear: Wear) -> Self {
        Self {
            id,
            pid: None,
            state: WorkerState::Backoff,
            since: now,
            start_at,
            spawned_at: None,
            ready_at: None,
            address: None,
            purpose: None,
            successor_wanted: None,
            wear,
            says: None,
            alive_at: None,
            out: None,
            failing: None,
            shunned: None,
            doubts: Doubts::default(),
            boot_until: None,
            pss: None,
            drained_in: None,
            requests_over: false,
            trouble: None,
            killed: false,
            aborted: false,
        }
    }

    /// Whether requests go to it.
    pub(super) fn serves(&self) -> bool {
        self.state == WorkerState::Ready && self.out.is_none()
    }

    pub(super) fn start(&mut self, turn: &mut Turn<'_>) {
        self.go(WorkerState::Starting, turn);
        self.spawned_at = Some(turn.now);
        turn.act(Action::Spawn(self.id.clone()));
    }

    pub(super) fn become_ready(&mut self, address: WorkerAddress, turn: &mut Turn<'_>) {
        self.go(WorkerState::Ready, turn);
        self.ready_at = Some(turn.now);
        self.doubts.watchdog.hear(turn.now);
        self.address = Some(address.clone());
        turn.tell(Event::Ready { worker: self.id.clone(), address });
    }

    /// It shall be replaced for `reason`: one that serves leaves once its successor serves, any other one at once.
    pub(super) fn replace(&mut self, reason: ExitReason, turn: &mut Turn<'_>) {
        match self.state {
            WorkerState::Ready | WorkerState::Suspect => {
                self.successor_wanted.get_or_insert(reason);
            }
            _ => self.retire(reason, turn),
        }
    }

    /// Makes a worker with a process leave for `reason`: by way of a drain if it may have requests.
    pub(super) fn retire(&mut self, reason: ExitReason, turn: &mut Turn<'_>) {
        if !self.state.is_staying() {
            return;
        }
        self.purpose = Some(reason);
        if self.ready_at.is_some() {
            self.go(WorkerState::Draining, turn);
            turn.tell(Event::Drain { worker: self.id.clone() });
        } else {
            self.stop(turn);
        }
    }

    pub(super) fn stop(&mut self, turn: &mut Turn<'_>) {
        self.go(WorkerState::Stopping, turn);
        turn.act(Action::Stop(self.id.clone()));
    }

    /// Does what its deadlines ask for.
    pub(super) fn expire(&mut self, timeouts: &Timeouts, turn: &mut Turn<'_>) {
        let due = |worker: &Self, turn: &Turn<'_>| {
            worker.deadline(timeouts, turn.bound).is_some_and(|deadline| deadline <= turn.now)
        };
        if self.state.is_booting() && due(self, turn) {
            self.kill_for(ExitReason::BootTimeout, turn);
        }
        if self.state == WorkerState::Draining && due(self, turn) {
            self.stop(turn);
        }
        if self.state == WorkerState::Stopping && due(self, turn) {
            self.kill(turn);
        }
    }

    /// When [`Worker::expire`] has something to do.
    pub(super) fn deadline(&self, timeouts: &Timeouts, bound: Option<Bound>) -> Option<Duration> {
        let own = match self.state {
            // Whoever asks for what warms it up ends that in time; should nobody, it ends here.
            WorkerState::Warming => return Some(self.since.saturating_add(timeouts.warmup)),
            WorkerState::Starting => {
                return Some(self.since.saturating_add(timeouts.boot)).max(self.boot_until);
            }
            WorkerState::Draining if self.requests_over => {
                self.since.saturating_add(timeouts.drain.min(timeouts.streams))
            }
            WorkerState::Draining => self.since.saturating_add(timeouts.drain),
            WorkerState::Stopping if self.aborted && !self.killed => self.since.saturating_add(LAST_WORDS),
            WorkerState::Stopping if !self.killed => self.since.saturating_add(timeouts.stop),
            _ => return None,
        };
        let Some(bound) = bound else { return Some(own) };
        // A drain leaves the processes some of the shutdown's time to end by themselves.
        let reserve = match self.state {
            WorkerState::Draining => timeouts.stop.min(bound.end.saturating_sub(bound.began) / 2),
            _ => Duration::ZERO,
        };
        Some(own.min(bound.end.saturating_sub(reserve)))
    }

    /// Its last transition. The caller removes it.
    pub(super) fn end(&mut self, reason: ExitReason, turn: &mut Turn<'_>) {
        self.purpose = Some(reason);
        self.go(WorkerState::Exited, turn);
    }

    /// Ends it at once for `reason`, with whatever it does.
    pub(super) fn kill_for(&mut self, reason: ExitReason, turn: &mut Turn<'_>) {
        self.purpose = Some(reason);
        self.go(WorkerState::Stopping, turn);
        self.kill(turn);
    }

    /// It does not answer: it gets a moment to say where it is, and is killed then.
    pub(super) fn abort(&mut self, turn: &mut Turn<'_>) {
        self.purpose = Some(ExitReason::Hang);
        self.aborted = true;
        self.go(WorkerState::Stopping, turn);
        turn.act(Action::Abort(self.id.clone()));
    }

    /// Tells whether it gets requests, if that has changed.
    pub(super) fn rotate(&mut self, turn: &mut Turn<'_>) {
        let out = self.failing.clone().or_else(|| self.shunned.clone());
        let has_changed = out.is_some() != self.out.is_some();
        self.out.clone_from(&out);
        if has_changed {
            turn.tell(Event::Rotation { worker: self.id.clone(), out });
        }
    }

    /// Between ready and suspect.
    pub(super) fn doubt(&mut self, to: WorkerState, turn: &mut Turn<'_>) {
        self.go(to, turn);
    }

    fn kill(&mut self, turn: &mut Turn<'_>) {
        self.killed = true;
        turn.act(Action::Kill(self.id.clone()));
        turn.tell(Event::Killed { worker: self.id.clone() });
    }

    pub(super) fn go(&mut self, to: WorkerState, turn: &mut Turn<'_>) {
        turn.tell(Event::Transition(Transition {
            worker: self.id.clone(),
            pid: self.pid,
            from: self.state,
            to,
            reason: self.purpose,
            in_state: turn.now.saturating_sub(self.since),
        }));
        if self.state == WorkerState::Draining {
            self.drained_in = Some(turn.now.saturating_sub(self.since));
        }
        self.state = to;
        self.since = turn.now;
    }
}

/// From SIGABRT to SIGKILL: what writes stacks does so at once.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Beyond the time of a warm-up.
const OVERDUE: Duration = Duration::from_secs(5);
