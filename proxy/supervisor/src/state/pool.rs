//! One pool: which workers it should have, generation by generation and slot by slot, and how it gets there.
//!
//! `target` is the generation wanted. While it is not yet proven on every slot there may be a `fallback`, the one that
//! served before: it refills slots that fall empty, and everything goes back to it when the target fails. The target
//! starts with one worker; when that has stayed ready, it takes slots over as far as the pool's policy lets it.

mod auto_count;
mod canary;
mod deploys;
mod failures;
mod hang;
mod inquest;
mod operator;
mod outlook;
mod planning;
mod preparation;
mod recycle;
mod replacement;
mod rollout;
mod sizing;
mod takeover;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::model::{DeployPolicy, WorkerCount, WorkerSpec};

use super::deploy::Deploy;
use super::generation::Generation;
use super::worker::{Timeouts, Worker};
use super::{Action, Bound, Exit, Turn, classify};
use crate::backoff::RestartPolicy;
use crate::event::Event;
use crate::status::PoolState;
use crate::worker::{ExitReason, ExitStatus, WorkerAddress, WorkerId, WorkerState};
pub(super) use canary::Canary;
pub(super) use hang::Doubts;
pub use hang::{Activity, Silence};
use preparation::Preparation;
pub(super) use recycle::Wear;
use watchdog::Watchdog;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: Arc<str>,
    pub(super) state: PoolState,
    pub(super) generations: Vec<Generation>,
    pub(super) workers: Vec<Worker>,
    pub(super) slots: BTreeMap<u32, Slot>,
    /// Numbers of the slots that are wanted.
    wanted: BTreeSet<u32>,
    /// What the spec asked for when `count` was last taken from it.
    spec_count: Option<WorkerCount>,
    /// The spec that was asked for last.
    spec: Option<WorkerSpec>,
    /// How the machine has changed lately, where the number of workers goes by it.
    drift: auto_count::Drift,
    /// An operator chose `count`.
    pub(super) is_scaled: bool,
    target: u64,
    fallback: Option<u64>,
    /// The generation that was asked for last, when it failed: its spec is not tried again unasked.
    failed: Option<u64>,
    /// It failed after it had taken over slots: nothing is replaced until another one is asked for.
    frozen: bool,
    removed: bool,
    timeouts: Timeouts,
    policy: DeployPolicy,
    /// What runs before the workers of a generation, while it does.
    preparation: Option<Preparation>,
    /// The last deploys, oldest first; only the last one can be under way.
    pub(super) deploys: VecDeque<Deploy>,
    last_generation: u64,
    /// Times of unplanned exits within the window, oldest first.
    failures: VecDeque<Duration>,
    /// When it entered the crash loop it is in.
    crashloop: Option<Duration>,
    boots: outlook::Boots,
    /// When failed workers are started again.
    restart: RestartPolicy,
    recycles: recycle::Recycles,
    hangs: hang::Hangs,
}

/// What is remembered of a slot beyond the life of its workers.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Failures in a row.
    failures: u32,
    /// An operator emptied it.
    is_held: bool,
    /// It is held because its worker ended for good.
    pub(super) is_ended: bool,
    retry_at: Duration,
    /// Generation of the last worker that got ready here.
    served_by: u64,
    /// Its worker left for the target before that had one here.
    is_vacated: bool,
    pub(super) restarts: u64,
    pub(super) last_exit: Option<(ExitReason, ExitStatus, Duration)>,
    /// When its worker was last recycled.
    recycled: Option<Duration>,
}

impl Pool {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            state: PoolState::Starting,
            generations: Vec::new(),
            workers: Vec::new(),
            slots: BTreeMap::new(),
            wanted: BTreeSet::new(),
            spec_count: None,
            spec: None,
            drift: auto_count::Drift::default(),
            is_scaled: false,
            target: 0,
            fallback: None,
            failed: None,
            frozen: false,
            removed: false,
            timeouts: Timeouts::default(),
            policy: DeployPolicy::default(),
            preparation: None,
            deploys: VecDeque::new(),
            last_generation: 0,
            failures: VecDeque::new(),
            crashloop: None,
            boots: outlook::Boots::default(),
            restart: RestartPolicy::default(),
            recycles: recycle::Recycles::default(),
            hangs: hang::Hangs::default(),
        }
    }

    /// Takes the spec wanted. The same one as before changes nothing, not even after it failed.
    pub(super) fn set_spec(&mut self, spec: WorkerSpec, turn: &mut Turn<'_>) {
        self.removed = false;
        self.timeouts = Timeouts::from(&spec);
        self.policy = spec.deploy;
        self.spec = Some(spec.clone());
        self.set_spec_count(spec.count, turn);
        self.restart = RestartPolicy::from(&spec.restart);
        self.set_recycle(spec.recycle.clone());
        self.set_hang(spec.hang.clone());
        let last_wanted = self.generation(self.last_wanted());
        if last_wanted.is_some_and(|generation| generation.starts_same(&spec)) {
            return;
        }
        self.retarget(spec, turn);
    }

    pub(super) fn remove(&mut self) {
        self.removed = true;
    }

    pub(super) fn drained(&mut self, id: &WorkerId, turn: &mut Turn<'_>) {
        if let Some(worker) = self.worker(id).filter(|worker| worker.state == WorkerState::Draining) {
            worker.stop(turn);
        }
    }

    pub(super) fn requests_over(&mut self, id: &WorkerId) {
        if let Some(worker) = self.worker(id).filter(|worker| worker.state == WorkerState::Draining) {
            worker.requests_over = true;
        }
    }

    pub(super) fn restart(&mut self, slot: u32, turn: &mut Turn<'_>) {
        if let Some(record) = self.slots.get_mut(&slot) {
            record.retry_at = turn.now;
            record.is_held = false;
            record.is_ended = false;
        }
        for worker in self.workers.iter_mut().filter(|worker| worker.id.slot == slot) {
            match worker.state {
                WorkerState::Backoff => worker.start_at = turn.now,
                _ => worker.replace(ExitReason::Operator, turn),
            }
        }
    }

    pub(super) fn spawned(&mut self, id: &WorkerId, pid: u32) {
        if let Some(worker) = self.worker(id) {
            worker.pid = Some(pid);
        }
    }

    pub(super) fn became_ready(&mut self, id: &WorkerId, address: WorkerAddress, turn: &mut Turn<'_>) {
        let Some(worker) = self.worker(id).filter(|worker| worker.state.is_booting()) else { return };
        worker.become_ready(address, turn);
        let boot = worker.spawned_at.map(|spawned| turn.now.saturating_sub(spawned));
        boot.into_iter().for_each(|boot| self.boots.note(boot));
        let slot = self.slots.entry(id.slot).or_default();
        slot.served_by = id.generation;
        slot.is_vacated = false;
        if let Some(generation) = self.generation_mut(id.generation) {
            generation.proven = true;
        }
        if let Some(deploy) = self.open_deploy().filter(|deploy| deploy.generation == id.generation) {
            deploy.note_ready(boot, turn.now);
        }
    }

    pub(super) fn exited(&mut self, id: &WorkerId, exit: Exit, turn: &mut Turn<'_>) {
        let Some(at) = self.workers.iter().position(|worker| worker.id == *id && worker.state.has_process()) else {
            return;
        };
        let mut worker = self.workers.remove(at);
        let unplanned = [ExitReason::BootTimeout, ExitReason::BootExit, ExitReason::Hang];
        let asked = worker.purpose.filter(|purpose| !unplanned.contains(purpose));
        let reason = worker.purpose.unwrap_or_else(|| classify(exit.status, exit.oom, worker.ready_at.is_some()));
        if worker.ready_at.is_some() {
            turn.tell(Event::Gone { worker: id.clone() });
        }
        worker.end(reason, turn);
        self.note_end(&worker, asked);
        if exit.status != ExitStatus::NotStarted {
            turn.act(Action::Bury(id.clone()));
        }
        let slot = self.slots.entry(id.slot).or_default();
        slot.last_exit = Some((reason, exit.status, turn.now));
        if asked.is_none() {
            self.failed(&worker, reason, exit, turn);
        } else if asked == Some(ExitReason::Operator) && !slot.is_held {
            slot.restarts += 1;
        }
    }

    /// Brings the pool as near to what is wanted as can be done at once, starts excepted (these share a limit).
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        self.expire(turn);
        self.end_inquests(turn);
        self.prepare(turn);
        self.leave_crashloop(turn);
        if turn.bound.is_some() {
            self.supersede(turn);
            self.retire_where(ExitReason::Shutdown, |_| true, turn);
        } else if self.removed {
            self.supersede(turn);
            self.retire_where(ExitReason::Reload, |_| true, turn);
        } else {
            // What follows from a verdict is done at once; one at a time is drawn, so that this ends.
            for _ in 0..VERDICTS {
                let told = turn.out.len();
                // A worker that is no longer in doubt may be the one that ends it.
                self.leave_crashloop(turn);
                self.align(turn);
                // When it is clear who else stays.
                if !self.watch(turn) && turn.out.len() == told {
                    break;
                }
            }
        }
        // Once more for those that have just begun to leave with no time at all.
        self.expire(turn);
        self.end_inquests(turn);
        self.conclude(turn);
        self.release(turn);
    }

    /// Brings workers into line with what is wanted.
    fn align(&mut self, turn: &mut Turn<'_>) {
        // Before all others: who answers again serves.
        self.hear(turn);
        // First, because the first worker of a generation need not be waited for where nobody else is left.
        self.retire_surplus(turn);
        self.kill_heavy(turn);
        self.advance(turn);
        self.recycle(turn);
        self.fill(turn);
        self.roll(turn);
        self.hand_over(turn);
    }

    fn expire(&mut self, turn: &mut Turn<'_>) {
        for worker in &mut self.workers {
            worker.expire(&self.timeouts, turn);
        }
    }

    fn retire_where(&mut self, reason: ExitReason, which: impl Fn(&Worker) -> bool, turn: &mut Turn<'_>) {
        self.workers.retain_mut(|worker| {
            if !which(worker) {
                return true;
            }
            if worker.state == WorkerState::Backoff {
                worker.end(reason, turn);
                return false;
            }
            worker.retire(reason, turn);
            true
        });
    }

    /// Lets go of slots that are not wanted, of workers whose slot the target has taken over, and of boots that no
    /// longer matter.
    fn retire_surplus(&mut self, turn: &mut Turn<'_>) {
        let wanted = self.wanted.clone();
        self.retire_where(ExitReason::ScaleDown, |worker| !wanted.contains(&worker.id.slot), turn);
        let (target, base) = (self.target, self.base());
        let left: Vec<u32> = self.slots().filter(|slot| self.may_leave(*slot, turn.now)).collect();
        let holders: Vec<u64> = self.slots().filter_map(|slot| self.holder(slot)).collect();
        let is_surplus = |worker: &Worker| {
            let is_old = worker.id.generation != target;
            let is_superseded_boot = worker.id.generation != base && worker.ready_at.is_none();
            let is_second = !holders.contains(&worker.id.spawn);
            is_old && (is_superseded_boot || is_second || left.contains(&worker.id.slot))
        };
        self.note_drains(|worker| worker.id.generation != target && left.contains(&worker.id.slot));
        self.retire_where(ExitReason::Reload, is_surplus, turn);
    }

    /// The one worker not of the target that may hold the slot for it. There are more when a third generation was asked
    /// for while the second was going back to the first; one in service is worth more than one that boots, and one of a
    /// generation that failed least of those.
    fn holder(&self, slot: u32) -> Option<u64> {
        let old = self.in_slot(slot).filter(|worker| worker.id.generation != self.target && worker.state.is_staying());
        let worth = |worker: &&Worker| {
            let generation = worker.id.generation;
            let is_sound = Some(generation) != self.failed;
            let is_ready = worker.state == WorkerState::Ready;
            (is_ready, worker.ready_at.is_some(), is_sound, generation == self.base(), worker.id.spawn)
        };
        old.max_by_key(worth).map(|worker| worker.id.spawn)
    }

    /// Gives every slot without a worker one of the target if that had taken the slot over, else one of the base
    /// generation, unless that slot's last one of it still leaves.
    fn fill(&mut self, turn: &mut Turn<'_>) {
        for slot in self.slots().collect::<Vec<_>>() {
            let record = self.slots.entry(slot).or_default();
            let start_at = record.retry_at.max(turn.now);
            if record.is_vacated {
                // One of the target comes as soon as there is room.
                continue;
            }
            let generation = self.refill_generation(slot);
            let is_blocking = |worker: &Worker| worker.state.is_staying() || worker.id.generation == generation;
            if !self.in_slot(slot).any(is_blocking) {
                self.add(slot, generation, start_at, turn);
            }
        }
    }

    /// Generation that a slot's next worker is of.
    fn refill_generation(&self, slot: u32) -> u64 {
        let is_taken = self.slots.get(&slot).is_some_and(|slot| slot.served_by == self.target);
        if is_taken { self.target } else { self.base() }
    }

    fn add(&mut self, slot: u32, generation: u64, start_at: Duration, turn: &mut Turn<'_>) {
        *turn.last_spawn += 1;
        let id = WorkerId { pool: self.name.clone(), slot, generation, spawn: *turn.last_spawn };
        let hang = self.generation(generation).and_then(|generation| generation.spec.hang.as_ref());
        let watchdog = Watchdog::new(hang.and_then(|hang| hang.watchdog));
        let mut worker = Worker::new(id, turn.now, start_at, Wear::new(turn.jitter));
        worker.doubts.watchdog = watchdog;
        self.workers.push(worker);
    }

    pub(super) fn booting(&self) -> usize {
        self.workers.iter().filter(|worker| worker.state.is_booting()).count()
    }

    /// Whether a worker's time to start has come. In a crash loop one boots at a time.
    pub(super) fn may_start(&self, now: Duration) -> bool {
        (self.crashloop.is_none() || self.booting() == 0) && self.next_start(now).is_some()
    }

    pub(super) fn start_next(&mut self, turn: &mut Turn<'_>) {
        if let Some(next) = self.next_start(turn.now) {
            self.workers[next].start(turn);
        }
    }

    /// The newest generation comes first, so that a new one can replace an old one that crash loops.
    fn next_start(&self, now: Duration) -> Option<usize> {
        let due = |worker: &Worker| {
            let is_due = worker.state == WorkerState::Backoff && worker.start_at <= now;
            is_due && self.is_prepared(worker.id.generation)
        };
        let waiting = self.workers.iter().enumerate().filter(|(_, worker)| due(worker));
        waiting.min_by_key(|(_, worker)| (std::cmp::Reverse(worker.id.generation), worker.id.slot)).map(|(at, _)| at)
    }

    pub(super) fn report(&mut self, turn: &mut Turn<'_>) {
        let to = self.present_state(turn.bound.is_some());
        if to != self.state {
            turn.tell(Event::PoolState { pool: self.name.clone(), from: self.state, to });
            self.state = to;
        }
        if self.is_over() {
            for generation in self.generations.drain(..) {
                turn.act(Action::Release { pool: self.name.clone(), generation: generation.number });
            }
        }
    }

    fn present_state(&self, stopping: bool) -> PoolState {
        if (self.removed || stopping) && self.workers.is_empty() && self.preparation.is_none() {
            PoolState::Stopped
        } else if self.crashloop.is_some() {
            PoolState::Crashloop
        } else if self.slots().next().is_none() {
            PoolState::Empty
        } else if self.is_complete() && self.wanted().all(|slot| !self.is_ended(slot)) {
            PoolState::Healthy
        } else if self.state == PoolState::Starting {
            PoolState::Starting
        } else {
            PoolState::Degraded
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == PoolState::Stopped
    }

    pub(super) fn ready(&self) -> u32 {
        let ready = self.workers.iter().filter(|worker| worker.serves()).count();
        u32::try_from(ready).unwrap_or(u32::MAX)
    }

    /// Whether somebody serves in every slot.
    fn is_complete(&self) -> bool {
        let serves = |slot| self.in_slot(slot).any(Worker::serves);
        self.slots().all(serves)
    }

    /// When time alone changes something. A worker whose time to start has come waits for its turn, not for a time.
    pub(super) fn deadline(&self, now: Duration, bound: Option<Bound>) -> Option<Duration> {
        let workers = self.workers.iter().filter_map(|worker| match worker.state {
            WorkerState::Backoff => Some(worker.start_at).filter(|at| *at > now),
            _ => worker.deadline(&self.timeouts, bound),
        });
        let proofs = self.workers.iter().filter_map(|worker| self.proven_at(worker)).filter(|at| *at > now);
        let recycle = self.recycle_deadline(now).filter(|_| bound.is_none());
        let crashloop = self.crashloop_over_at();
        let hang = self.hang_deadline(now).filter(|_| bound.is_none() && !self.removed);
        let recycle =
            recycle.into_iter().chain(hang).chain(self.inquest_deadline()).chain(self.canary_deadline()).min();
        workers.chain(proofs).chain(self.hook_deadline(now, bound)).chain(crashloop).chain(recycle).min()
    }

    /// The generation that empty slots are filled from.
    fn base(&self) -> u64 {
        self.fallback.unwrap_or(self.target)
    }

    fn in_slot(&self, slot: u32) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(move |worker| worker.id.slot == slot)
    }

    pub(super) fn worker(&mut self, id: &WorkerId) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.id == *id)
    }

    fn generation(&self, number: u64) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.number == number)
    }

    fn generation_mut(&mut self, number: u64) -> Option<&mut Generation> {
        self.generations.iter_mut().find(|generation| generation.number == number)
    }
}

/// More than can follow from each other at one moment.
const VERDICTS: u32 = 8;
