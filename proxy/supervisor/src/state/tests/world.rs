//! A world without processes: it does what the state asks for, remembers what exists, and checks at every step what may
//! never happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::model::{DeployPolicy, DeployStrategy, Portion, WorkerCount, WorkerSpec};

use crate::canary::CanaryFigures;
use crate::command::{Command, PoolSpec};
use crate::cpu_use::CpuUse;
use crate::event::{Event, Failure, Transition};
use crate::hook::HookId;
use crate::plan::Way;
use crate::state::{Action, Evidence, Exit, Input, Limits, Notice, State};
use crate::status::{PoolState, PoolStatus, WorkerStatus};
use crate::worker::{ExitReason, ExitStatus, WorkerAddress, WorkerId, WorkerState};

pub(super) const PARALLEL_STARTS: usize = 2;

/// A process of the world.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) id: WorkerId,
    pub(super) stopped: bool,
    pub(super) killed: bool,
    has_ended: bool,
}

pub(super) struct World {
    pub(super) state: State,
    pub(super) now: Duration,
    pub(super) processes: BTreeMap<u64, Process>,
    pub(super) events: Vec<Event>,
    /// Generations that were frozen, and whether their workers may be started.
    prepared: BTreeMap<(Arc<str>, u64), bool>,
    /// Hooks that run, and whether they were asked to end.
    pub(super) hooks: BTreeMap<HookId, bool>,
    /// Commands about workers that hang, and whether they were killed.
    pub(super) inquests: BTreeMap<HookId, bool>,
    states: BTreeMap<u64, WorkerState>,
    routed: BTreeSet<u64>,
    draining: BTreeSet<u64>,
    /// Ready ones that get no requests.
    pub(super) out: BTreeSet<u64>,
    /// How pools shall be.
    pub(super) wanted: BTreeMap<Arc<str>, WorkerSpec>,
    /// Most workers with a process that a pool may have, those that leave not counted.
    most: BTreeMap<Arc<str>, usize>,
    /// The deploy under way of each pool.
    deploying: BTreeMap<Arc<str>, u64>,
    /// The generation whose first worker is held, and whether its figures were asked for.
    pub(super) held: BTreeMap<Arc<str>, (u64, bool)>,
    /// Generations that were worse than those of before.
    worse: BTreeSet<(Arc<str>, u64)>,
    /// What the data plane has counted of old workers and a new one, if it says anything.
    pub(super) figures: Option<(CanaryFigures, CanaryFigures)>,
    /// Deploys that have ended.
    ended: BTreeSet<(Arc<str>, u64)>,
    /// Workers that leave to be recycled in peace.
    recycled: BTreeSet<u64>,
    /// Who was asked and has neither answered nor missed it.
    pub(super) asked: BTreeSet<u64>,
    /// When the first question of its last doubt was put to one.
    doubted: BTreeMap<u64, Duration>,
    /// Questions in a row without an answer.
    missed: BTreeMap<u64, u32>,
    /// Who was told that it need not say that it lives.
    excused: BTreeSet<u64>,
    /// Whose requests took too long.
    overdue: BTreeSet<u64>,
    /// Those of them that were condemned for it.
    over_limit: BTreeSet<u64>,
    /// Who is to be killed because it hangs, and since when.
    condemned: BTreeMap<u64, Duration>,
    /// When the last one of a pool was.
    last_condemned: BTreeMap<Arc<str>, Duration>,
    /// The next starts fail before there is a process.
    pub(super) failing_starts: u32,
    pub(super) must_sweep: bool,
    /// Whoever ends does so while the kernel kills for want of memory.
    pub(super) oom: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let limits = Limits { parallel_starts: PARALLEL_STARTS, auto_count: 2 };
        Self {
            state: State::new(limits, 1),
            now: Duration::from_secs(100),
            processes: BTreeMap::new(),
            events: Vec::new(),
            prepared: BTreeMap::new(),
            hooks: BTreeMap::new(),
            inquests: BTreeMap::new(),
            states: BTreeMap::new(),
            routed: BTreeSet::new(),
            draining: BTreeSet::new(),
            out: BTreeSet::new(),
            wanted: BTreeMap::new(),
            most: BTreeMap::new(),
            deploying: BTreeMap::new(),
            held: BTreeMap::new(),
            figures: None,
            worse: BTreeSet::new(),
            ended: BTreeSet::new(),
            recycled: BTreeSet::new(),
            asked: BTreeSet::new(),
            doubted: BTreeMap::new(),
            missed: BTreeMap::new(),
            excused: BTreeSet::new(),
            overdue: BTreeSet::new(),
            over_limit: BTreeSet::new(),
            condemned: BTreeMap::new(),
            last_condemned: BTreeMap::new(),
            failing_starts: 0,
            must_sweep: false,
            oom: false,
        }
    }

    /// One pool "app" of that many workers, all ready.
    pub(super) fn serving(count: u32) -> Self {
        let mut world = Self::new();
        world.set(&[("app", spec(count))]);
        world.boot_all();
        assert_eq!(world.ready(), count);
        world.events.clear();
        world
    }

    pub(super) fn set(&mut self, pools: &[(&str, WorkerSpec)]) {
        let pools = pools.iter().map(|(name, spec)| PoolSpec { name: (*name).to_owned(), spec: spec.clone() });
        self.command(Command::SetPools(pools.collect()));
    }

    pub(super) fn command(&mut self, command: Command) {
        self.feed(Input::Command(command));
    }

    pub(super) fn feed(&mut self, input: Input) {
        if let Input::Command(Command::SetPools(pools)) = &input {
            self.wanted = pools.iter().map(|pool| (pool.name.as_str().into(), pool.spec.clone())).collect();
        }
        if let Input::Progress(figures) = &input {
            self.overdue.extend(figures.iter().filter(|(_, one)| one.overdue > 0).map(|(spawn, _)| *spawn));
        }
        let actions = self.state.step(self.now, input);
        self.act(actions);
        self.check_settled();
        self.check_processes();
        self.check_condemned();
    }

    /// Lets time pass, with a tick whenever the state wants one.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.state.deadline().filter(|deadline| *deadline <= end) {
            assert!(deadline >= self.now, "a deadline in the past would keep a CPU busy");
            self.now = deadline;
            self.feed(Input::Tick);
        }
        self.now = end;
    }

    pub(super) fn ready_up(&mut self, id: &WorkerId) {
        let address = WorkerAddress::Unix(format!("/s/{}", id.spawn).into());
        self.feed(Input::Ready { worker: id.clone(), address });
    }

    pub(super) fn notice(&mut self, id: &WorkerId, notice: Notice) {
        let was_asked = matches!(notice, Notice::Silent(_) | Notice::Answered) && self.asked.remove(&id.spawn);
        if was_asked && matches!(notice, Notice::Silent(_)) {
            *self.missed.entry(id.spawn).or_default() += 1;
        }
        self.feed(Input::Notice { worker: id.clone(), notice });
    }

    pub(super) fn exit(&mut self, id: &WorkerId, status: ExitStatus) {
        if let Some(process) = self.processes.get_mut(&id.spawn) {
            process.has_ended = true;
        }
        let exit =
            Exit { status, oom: self.oom, message: None, not_ready: None, last_lines: vec!["last words".to_owned()] };
        self.feed(Input::Exited { worker: id.clone(), exit });
        assert!(!self.processes.contains_key(&id.spawn), "{id} ended and was not reaped");
    }

    pub(super) fn crash(&mut self, slot: u32) {
        let id = self.only(slot);
        self.exit(&id, ExitStatus::Signal(9));
    }

    /// The worker in slot 0 ends in this way.
    pub(super) fn crash_with(&mut self, status: ExitStatus) {
        let id = self.only(0);
        self.exit(&id, status);
    }

    /// Every boot succeeds until none is left.
    pub(super) fn boot_all(&mut self) {
        while let Some(id) = self.booting().into_iter().next() {
            self.ready_up(&id);
        }
    }

    /// Every process that was asked to end does.
    pub(super) fn end_leaving(&mut self) {
        while let Some(process) = self.processes.values().find(|one| one.stopped || one.killed).cloned() {
            let status = if process.killed { ExitStatus::Signal(9) } else { ExitStatus::Code(0) };
            self.exit(&process.id, status);
        }
    }

    /// Failures stop, drains are over at once, and time passes until nothing more happens.
    pub(super) fn calm(&mut self) {
        for _ in 0..10_000 {
            self.failing_starts = 0;
            if let Some(hook) = self.hooks.keys().next().cloned() {
                self.end_hook(&hook, ExitStatus::Code(0));
                continue;
            }
            if let Some(hook) = self.inquests.keys().next().cloned() {
                self.end_inquest(&hook, ExitStatus::Code(0));
                continue;
            }
            self.boot_all();
            self.end_leaving();
            self.excuse();
            while let Some(spawn) = self.asked.pop_first() {
                if let Some(id) = self.processes.get(&spawn).map(|process| process.id.clone()) {
                    self.notice(&id, Notice::Answered);
                }
            }
            for spawn in self.out.clone() {
                let id = self.processes[&spawn].id.clone();
                self.notice(&id, Notice::Rotation(None));
            }
            if let Some(spawn) = self.draining.first().copied() {
                let id = self.processes[&spawn].id.clone();
                self.command(Command::Drained { worker: id });
                continue;
            }
            if !self.booting().is_empty() {
                continue;
            }
            match self.state.deadline() {
                Some(deadline) => {
                    self.now = deadline;
                    self.feed(Input::Tick);
                }
                None => return,
            }
        }
        panic!("never calm: {:#?}", self.status());
    }

    /// Nobody has to say that it lives any more.
    fn excuse(&mut self) {
        let mut all: Vec<WorkerId> = self.processes.values().map(|process| process.id.clone()).collect();
        all.retain(|id| self.excused.insert(id.spawn));
        for id in all {
            self.notice(&id, Notice::WatchdogTime(Duration::ZERO));
            self.notice(&id, Notice::Alive);
        }
    }

    pub(super) fn status(&self) -> Vec<PoolStatus> {
        self.state.status(std::time::SystemTime::UNIX_EPOCH)
    }

    pub(super) fn pool(&self) -> PoolStatus {
        self.status().into_iter().find(|pool| &*pool.name == "app").expect("pool app")
    }

    pub(super) fn ready(&self) -> u32 {
        self.pool().ready
    }

    pub(super) fn booting(&self) -> Vec<WorkerId> {
        let is_booting = |process: &&Process| {
            !process.stopped
                && !process.killed
                && self.states.get(&process.id.spawn).is_some_and(|state| state.is_booting())
        };
        self.processes.values().filter(is_booting).map(|process| process.id.clone()).collect()
    }

    /// Workers of "app" in that state.
    pub(super) fn in_state(&self, state: WorkerState) -> Vec<WorkerId> {
        self.pool().workers.into_iter().filter(|worker| worker.state == state).map(|worker| worker.id).collect()
    }

    /// The one worker of a slot of "app" that has a process and is not leaving.
    pub(super) fn only(&self, slot: u32) -> WorkerId {
        let stays = |state: WorkerState| state.has_process() && state.is_staying();
        let all = self.pool().workers;
        let mut here = all.into_iter().filter(|worker| worker.id.slot == slot && stays(worker.state));
        let only = here.next().expect("a worker").id;
        assert_eq!(here.next(), None);
        only
    }

    /// Generation that serves each slot of "app".
    pub(super) fn generations(&self) -> Vec<u64> {
        self.in_state(WorkerState::Ready).into_iter().map(|id| id.generation).collect()
    }

    pub(super) fn failures(&self) -> Vec<&Failure> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Failure(failure) => Some(failure),
                _ => None,
            })
            .collect()
    }

    pub(super) fn ends(&self) -> Vec<ExitReason> {
        let end = |event: &Event| match event {
            Event::Transition(Transition { to: WorkerState::Exited, reason, .. }) => *reason,
            _ => None,
        };
        self.events.iter().filter_map(end).collect()
    }

    /// In order, as the supervisor's thread does: what an answer brings about comes after what was asked for before.
    fn act(&mut self, actions: Vec<Action>) {
        let mut pending = VecDeque::from(actions);
        while let Some(action) = pending.pop_front() {
            if let Some(input) = self.act_one(action) {
                pending.extend(self.state.step(self.now, input));
            }
        }
    }

    fn act_one(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Prepare { pool, generation, spec } => {
                let before = self.prepared.insert((pool, generation), spec.pre_start.is_none());
                assert!(before.is_none(), "a generation is frozen once");
            }
            Action::Release { pool, generation } => {
                assert!(self.prepared.remove(&(pool, generation)).is_some(), "only what was frozen is forgotten");
            }
            Action::RunHook(hook) => return self.run_hook(hook),
            Action::KillHook(hook) if self.inquests.contains_key(&hook) => {
                self.inquests.insert(hook, true);
            }
            Action::StopHook(hook) | Action::KillHook(hook) => {
                self.hooks.entry(hook).and_modify(|is_asked| *is_asked = true);
            }
            Action::Spawn(id) => return Some(self.spawn(id)),
            Action::Stop(id) => {
                if let Some(process) = self.processes.get_mut(&id.spawn) {
                    process.stopped = true;
                }
            }
            Action::Ask { worker, is_first, .. } => {
                if is_first {
                    self.doubted.insert(worker.spawn, self.now);
                }
                let process = self.processes.get(&worker.spawn).expect("only what lives is asked");
                assert!(!process.has_ended && !process.killed && !process.stopped);
                if self.states.get(&worker.spawn) == Some(&WorkerState::Ready) {
                    self.missed.insert(worker.spawn, 0);
                }
                self.asked.insert(worker.spawn);
            }
            Action::Inspect(worker) => {
                assert!(self.processes.contains_key(&worker.spawn), "{worker} is looked at");
                let cpu = self
                    .doubted
                    .get(&worker.spawn)
                    .map(|since| CpuUse { used: Duration::ZERO, within: self.now - *since });
                let evidence = Evidence { lines: vec!["it waits".to_owned()], cpu };
                return Some(Input::Notice { worker, notice: Notice::Evidence(evidence) });
            }
            Action::RunOnHang { hook, .. } => {
                assert!(self.inquests.insert(hook, false).is_none());
            }
            Action::Abort(id) => {
                self.check_abort(&id);
                if let Some(process) = self.processes.get_mut(&id.spawn) {
                    process.killed = true;
                }
            }
            Action::Kill(id) => {
                if let Some(process) = self.processes.get_mut(&id.spawn) {
                    process.killed = true;
                }
            }
            Action::Bury(id) => {
                let process = self.processes.remove(&id.spawn).expect("only what exists is buried");
                assert!(process.has_ended, "{id} is buried alive");
            }
            Action::Sweep => self.must_sweep = true,
            Action::Emit(event) => {
                let answer = self.answer(&event);
                self.note(event);
                return answer.map(Input::Command);
            }
        }
        None
    }

    /// What the data plane says to an event.
    fn answer(&self, event: &Event) -> Option<Command> {
        let Event::CanaryOver { pool, generation } = event else { return None };
        let (old, new) = self.figures?;
        Some(Command::CanaryFigures { pool: pool.to_string(), generation: *generation, old, new })
    }

    fn run_hook(&mut self, hook: HookId) -> Option<Input> {
        assert!(self.hooks.keys().all(|other| other.pool != hook.pool), "{hook} beside another one");
        let is_done = self.prepared.get(&(hook.pool.clone(), hook.generation));
        assert_eq!(is_done, Some(&false), "{hook} runs for nothing");
        if self.failing_starts > 0 {
            self.failing_starts -= 1;
            return Some(Input::HookEnded { hook, exit: not_started() });
        }
        self.hooks.insert(hook, false);
        None
    }

    pub(super) fn end_hook(&mut self, hook: &HookId, status: ExitStatus) {
        let is_asked = self.hooks.remove(hook).expect("a hook that runs");
        let done = self.prepared.get_mut(&(hook.pool.clone(), hook.generation));
        if let Some(done) = done.filter(|_| status == ExitStatus::Code(0) && !is_asked) {
            *done = true;
        }
        let exit =
            Exit { status, oom: false, message: None, not_ready: None, last_lines: vec!["last words".to_owned()] };
        self.feed(Input::HookEnded { hook: hook.clone(), exit });
    }

    pub(super) fn end_inquest(&mut self, hook: &HookId, status: ExitStatus) {
        self.inquests.remove(hook).expect("a command that runs");
        let last_lines = vec!["dumped".to_owned()];
        let exit = Exit { status, oom: false, message: None, not_ready: None, last_lines };
        self.feed(Input::HookEnded { hook: hook.clone(), exit });
    }

    fn spawn(&mut self, id: WorkerId) -> Input {
        let key = (id.pool.clone(), id.generation);
        assert_eq!(self.prepared.get(&key), Some(&true), "{id}: its generation is forgotten or not prepared");
        let is_twin = |other: &&Process| {
            other.id.pool == id.pool && other.id.slot == id.slot && other.id.generation == id.generation
        };
        let twins = self.processes.values().filter(is_twin).count();
        assert!(twins <= 1, "{id} has {twins} twins, where one may be waiting for its successor");
        if self.failing_starts > 0 {
            self.failing_starts -= 1;
            return Input::Exited { worker: id, exit: not_started() };
        }
        let pid = 1000 + u32::try_from(id.spawn).expect("small");
        let process = Process { id: id.clone(), stopped: false, killed: false, has_ended: false };
        assert!(self.processes.insert(id.spawn, process).is_none(), "{id} is started twice");
        Input::Spawned { worker: id, pid }
    }

    fn note(&mut self, event: Event) {
        match &event {
            Event::Transition(transition) => {
                let spawn = transition.worker.spawn;
                let before = self.states.insert(spawn, transition.to);
                assert_eq!(before.unwrap_or(WorkerState::Backoff), transition.from, "{transition:?}");
                let starting = self.states.values().filter(|state| state.is_booting()).count();
                assert!(starting <= PARALLEL_STARTS, "{starting} workers boot at once");
                self.check_recycle(transition);
                if transition.to == WorkerState::Exited {
                    self.states.remove(&spawn);
                }
                if transition.to == WorkerState::Draining && transition.reason == Some(ExitReason::Reload) {
                    self.check_service(&transition.worker);
                    self.check_held(&transition.worker);
                }
            }
            Event::Ready { worker, .. } => {
                let process = self.processes.get(&worker.spawn).expect("only what lives gets traffic");
                assert!(!process.has_ended && !process.killed && !process.stopped);
                assert!(self.routed.insert(worker.spawn), "{worker} is announced twice");
            }
            Event::Rotation { worker, out } => {
                assert!(self.routed.contains(&worker.spawn) && !self.draining.contains(&worker.spawn));
                let changed =
                    if out.is_some() { self.out.insert(worker.spawn) } else { self.out.remove(&worker.spawn) };
                assert!(changed, "{worker} is told twice that {out:?}");
            }
            Event::Drain { worker } => {
                self.out.remove(&worker.spawn);
                assert!(self.routed.contains(&worker.spawn) && self.draining.insert(worker.spawn));
            }
            Event::Gone { worker } => {
                assert!(self.routed.remove(&worker.spawn), "{worker} was not announced");
                self.draining.remove(&worker.spawn);
                self.out.remove(&worker.spawn);
            }
            Event::DeployBegan { pool, generation } => {
                let before = self.deploying.insert(pool.clone(), *generation);
                assert_eq!(before, None, "{pool}: {generation} begins beside another one");
            }
            Event::CanaryHeld { pool, generation, .. } => {
                assert_eq!(self.deploying.get(pool), Some(generation), "{event:?}");
                assert_eq!(self.held.insert(pool.clone(), (*generation, false)), None, "{event:?}");
            }
            Event::CanaryOver { pool, generation } => {
                assert_eq!(self.held.insert(pool.clone(), (*generation, true)), Some((*generation, false)));
            }
            Event::CanaryJudged { pool, generation, comparison } => {
                assert_eq!(self.held.remove(pool).map(|(held, _)| held), Some(*generation), "{event:?}");
                if comparison.verdict.is_against() {
                    self.worse.insert((pool.clone(), *generation));
                }
            }
            Event::GenerationActive { pool, generation } => {
                assert!(!self.worse.contains(&(pool.clone(), *generation)), "{event:?} although it was worse");
            }
            Event::DeployEnded(end) => {
                self.held.remove(&end.pool);
                assert_eq!(self.deploying.remove(&end.pool), Some(end.generation), "{end:?} has not begun");
                assert!(self.ended.insert((end.pool.clone(), end.generation)), "{end:?} comes twice");
            }
            // A pool that comes back under the name of one that was removed counts from 1.
            Event::PoolState { pool, to: PoolState::Stopped, .. } => {
                self.ended.retain(|(name, _)| name != pool);
                self.worse.retain(|(name, _)| name != pool);
            }
            _ => {}
        }
        self.events.push(event);
    }

    /// One leaves at a time, and somebody else serves meanwhile.
    fn check_recycle(&mut self, transition: &Transition) {
        let Transition { worker, to, .. } = transition;
        let in_peace = [ExitReason::RecycleRequests, ExitReason::RecycleLifetime, ExitReason::RecycleRss];
        if !transition.reason.is_some_and(|reason| in_peace.contains(&reason)) {
            return;
        }
        if *to == WorkerState::Exited {
            self.recycled.remove(&worker.spawn);
        } else if self.recycled.insert(worker.spawn) {
            let of_pool = |spawn: &&u64| self.processes.get(spawn).is_some_and(|other| other.id.pool == worker.pool);
            assert_eq!(self.recycled.iter().filter(of_pool).count(), 1, "{transition:?}");
            let ready = self.states.iter().filter(|(_, state)| **state == WorkerState::Ready).map(|(spawn, _)| spawn);
            assert!(ready.filter(of_pool).count() >= 1, "nobody serves after {transition:?}");
        }
    }

    /// Whoever is to be killed because it hangs was asked often enough, and is not one of many.
    fn check_condemned(&mut self) {
        for pool in self.status() {
            let Some(policy) = self.wanted.get(&pool.name).and_then(|spec| spec.hang.clone()) else { continue };
            let is_condemned = |one: &&WorkerStatus| one.replaced_for == Some(ExitReason::Hang);
            for worker in pool.workers.iter().filter(is_condemned) {
                let spawn = worker.id.spawn;
                if self.condemned.contains_key(&spawn) {
                    continue;
                }
                self.condemned.insert(spawn, self.now);
                if policy.spares_full && self.overdue.contains(&spawn) {
                    self.over_limit.insert(spawn);
                    continue;
                }
                let missed = self.missed.get(&spawn).copied().unwrap_or_default();
                assert!(missed >= policy.tries, "{} has missed {missed} questions only", worker.id);
                let count =
                    |wanted: &[WorkerState]| pool.workers.iter().filter(|one| wanted.contains(&one.state)).count();
                // Those that a limit has condemned are no suspects, also when the limit is gone by now.
                let is_overdue = |one: &&WorkerStatus| {
                    let spawn = &one.id.spawn;
                    self.over_limit.contains(spawn) || (policy.spares_full && self.overdue.contains(spawn))
                };
                // It may be on its way out already.
                let in_doubt = pool.workers.iter().filter(|one| one.state == WorkerState::Suspect);
                let suspects = in_doubt.filter(|one| !is_overdue(one)).count().max(1);
                let of = count(&[WorkerState::Ready, WorkerState::Suspect]).max(suspects);
                let is_shared = suspects >= 2 && suspects * 100 >= usize::from(policy.guard) * of;
                assert!(!is_shared, "{} is condemned, as one of {suspects} of {of}", worker.id);
                let last = self.last_condemned.insert(pool.name.clone(), self.now);
                let is_early = last.is_some_and(|at| self.now < at + policy.kill_interval);
                assert!(!is_early, "{} is condemned so soon after another one", worker.id);
            }
        }
    }

    /// Whoever is killed because it hangs has a successor that was started, or has waited for one.
    fn check_abort(&self, id: &WorkerId) {
        let is_next = |other: &&Process| {
            other.id.pool == id.pool && other.id.slot == id.slot && other.id.spawn > id.spawn && !other.has_ended
        };
        let is_followed = self.processes.values().any(|other| is_next(&other));
        let has_waited = self.condemned.get(&id.spawn).is_some_and(|at| self.now >= *at + seconds(5));
        assert!(is_followed || has_waited, "{id} is killed before its successor was started");
    }

    /// A second look at the same moment finds nothing to do.
    fn check_settled(&mut self) {
        let more = self.state.step(self.now, Input::Tick);
        assert_eq!(more, [], "not settled");
        let leaving = |spawn: &u64| self.processes.get(spawn).is_some_and(|one| one.stopped || one.killed);
        self.draining = self.draining.iter().copied().filter(|spawn| !leaving(spawn)).collect();
    }
}

fn not_started() -> Exit {
    Exit {
        status: ExitStatus::NotStarted,
        oom: false,
        message: Some("no".to_owned()),
        not_ready: None,
        last_lines: vec![],
    }
}

impl World {
    /// A worker that leaves for another generation leaves its slot to one in service, or the policy lets slots be empty.
    fn check_service(&self, leaving: &WorkerId) {
        let Some(spec) = self.wanted.get(&leaving.pool) else { return };
        let pool = self.status().into_iter().find(|pool| pool.name == leaving.pool).expect("its pool");
        let slots = wanted_slots(&pool);
        let count = u32::try_from(slots.len()).expect("small");
        let is_served = |slot: u32| {
            let is_ready = |one: &&Process| self.states.get(&one.id.spawn) == Some(&WorkerState::Ready);
            self.processes.values().filter(is_ready).any(|one| one.id.pool == leaving.pool && one.id.slot == slot)
        };
        let unserved = slots.iter().filter(|slot| !is_served(**slot)).count();
        let allowed = spec.deploy.max_unavailable.rounded_down(count) as usize;
        let planned = pool.deploys.iter().rev().find_map(|deploy| deploy.plan).map(|plan| plan.way);
        let may_miss = match spec.deploy.strategy {
            DeployStrategy::Auto if planned == Some(Way::OneByOne) => allowed.max(1),
            DeployStrategy::Rolling | DeployStrategy::Auto => allowed,
            DeployStrategy::Green => 0,
        };
        assert!(is_served(leaving.slot) || unserved <= may_miss, "{leaving} leaves an empty slot, {unserved} in all");
    }

    /// While the first worker of a generation is held nobody leaves a slot to it. Should it be gone itself, one may leave to
    /// make room for it.
    fn check_held(&self, leaving: &WorkerId) {
        let Some((held, _)) = self.held.get(&leaving.pool) else { return };
        let of_pool = self.processes.values().filter(|one| one.id.pool == leaving.pool);
        let serves = |one: &&Process| {
            let state = self.states.get(&one.id.spawn);
            state.is_some_and(|state| matches!(state, WorkerState::Ready | WorkerState::Suspect))
        };
        let (new, old): (Vec<_>, Vec<_>) = of_pool.filter(serves).partition(|one| one.id.generation == *held);
        let stays = old.iter().any(|one| one.id.slot == leaving.slot);
        let is_fine = leaving.generation == *held || stays || new.is_empty();
        assert!(is_fine, "{leaving} leaves while generation {held} is held: {:#?}", self.status());
    }

    /// Never more processes than the count and its surge, those that leave beside. Where a smaller count or surge has
    /// made it less than there are, none may come on top.
    fn check_processes(&mut self) {
        for pool in self.status() {
            let count = u32::try_from(wanted_slots(&pool).len()).expect("small");
            let staying = pool.workers.iter().filter(|one| one.state.has_process() && one.state.is_staying()).count();
            let surge = self.wanted.get(&pool.name).map_or(0, |spec| match spec.deploy.strategy {
                DeployStrategy::Rolling => spec.deploy.surge.rounded_up(count).max(1),
                DeployStrategy::Green => count.max(1),
                DeployStrategy::Auto => {
                    let planned = pool.deploys.iter().rev().find_map(|deploy| deploy.plan);
                    // One that is restarted or recycled has its successor beside it, whatever the way of the last deploy.
                    planned.map_or(1, |plan| plan.way.surge(count).max(1))
                }
            });
            if let Some((held, _)) = self.held.get(&pool.name) {
                let of_held = pool.workers.iter().filter(|one| one.id.generation == *held);
                let of_held = of_held.filter(|one| one.state.is_staying()).count();
                assert!(of_held <= 1, "{of_held} workers of a generation that is held: {pool:#?}");
            }
            let allowed = (count + surge) as usize;
            let most = self.most.entry(pool.name.clone()).or_insert(allowed);
            *most = allowed.max((*most).min(staying));
            assert!(staying <= *most, "{staying} processes where {most} may be: {pool:#?}");
        }
    }
}

/// Slots that are to have a worker.
pub(super) fn wanted_slots(pool: &PoolStatus) -> Vec<u32> {
    pool.slots.iter().copied().filter(|slot| pool.held.iter().all(|held| held.slot != *slot)).collect()
}

pub(super) fn spec(count: u32) -> WorkerSpec {
    WorkerSpec {
        count: WorkerCount::Fixed(count),
        deploy: DeployPolicy {
            strategy: DeployStrategy::Rolling,
            surge: Portion::Count(1),
            min_ready: Duration::ZERO,
            ..DeployPolicy::default()
        },
        ..WorkerSpec::new(vec!["app".to_owned()])
    }
}

/// Like [`spec`], with a command that makes it another generation.
pub(super) fn release(count: u32, command: &str) -> WorkerSpec {
    WorkerSpec { command: vec![command.to_owned()], ..spec(count) }
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
