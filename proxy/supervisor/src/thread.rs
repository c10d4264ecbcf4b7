//! The one thread that owns every start and every wait. It feeds the pure [`State`] and does what that asks for.
//!
//! One turn: wait for descriptors and time, look at what is due, take orders. A turn never waits for a
//! worker, a client or a log. A panic within a turn is a defect of ours; it is reported and the next turn begins, because
//! the end of this thread would be the end of every worker (their parent-death signal follows the thread, not the
//! process).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tidegate_config::model::StopSignal;

use crate::command::Command;
use crate::event::Event;
use crate::evidence;
use crate::generation::Frozen;
use crate::guardian::Guardian;
use crate::handle::{Shared, SupervisorOptions};
use crate::hook::{Hook, HookId};
use crate::oom::OomKills;
use crate::process::{self, PipeRoom, Process, Shim};
use crate::sampling::Sampling;
use crate::spawn::{News, Readable, Spawn, Surroundings};
use crate::state::{Action, Evidence, Exit, Input, Notice, State};
use crate::stray;
use crate::worker::{ExitStatus, WorkerId};

/// Everything the thread owns.
pub(crate) struct Supervisor {
    pub(crate) options: SupervisorOptions,
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: State,
    /// Missing only between its end and its replacement.
    pub(crate) guardian: Option<Guardian>,
    /// When to try again to replace it.
    pub(crate) guardian_due: Option<Duration>,
    pub(crate) surroundings: Surroundings,
    pub(crate) epoch: (Instant, SystemTime),
    /// By pool and generation number.
    pub(crate) generations: BTreeMap<(Arc<str>, u64), Arc<Frozen>>,
    /// Workers with a process, by spawn number.
    pub(crate) spawns: BTreeMap<u64, Spawn>,
    /// Hooks with a process, by run number.
    pub(crate) hooks: BTreeMap<u64, Hook>,
    pub(crate) pending: VecDeque<Action>,
    pub(crate) sweep: Option<Sweep>,
    pub(crate) sampling: Sampling,
    pub(crate) oom_kills: OomKills,
}

/// The end of a shutdown: kill what is left until nothing is found.
pub(crate) struct Sweep {
    next: Duration,
    end: Duration,
}

/// What a descriptor in the poll set belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Orders,
    Guardian,
    Worker(u64, Readable),
    Hook(u64, Readable),
}

impl Supervisor {
    /// Never returns.
    pub(crate) fn run(mut self) -> ! {
        loop {
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn()));
            if let Err(panic) = turn {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                self.report_fault(text.unwrap_or_default());
            }
        }
    }

    fn report_fault(&mut self, text: String) {
        tracing::error!(panic = text, "a step of the supervisor failed");
        let event = Event::Fault { message: text };
        // The sink itself may be what panics.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.options.events)(event)));
        // Should the cause still be there, it must not keep a CPU busy.
        std::thread::sleep(AFTER_PANIC);
    }

    fn turn(&mut self) {
        self.work_off();
        let ready = self.wait();
        for source in ready {
            self.look_at(source);
        }
        while let Some(command) = self.shared.next_command() {
            // Who is chosen to leave is the one with nothing under way now, not a second ago.
            self.ask_progress();
            if matches!(command, Command::Deploy { .. } | Command::SetPools(_)) {
                self.look_closely();
            }
            self.feed(Input::Command(command));
        }
        self.reap_ended();
        if self.guardian_due.is_some_and(|due| due <= self.now()) {
            self.replace_guardian();
        }
        self.advance_workers();
        self.sample();
        self.go_on_sweeping();
        if self.state.deadline().is_some_and(|deadline| deadline <= self.now()) {
            self.feed(Input::Tick);
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.epoch.0.elapsed()
    }

    fn wait(&self) -> Vec<Source> {
        let mut sources = vec![Source::Orders];
        let mut descriptors = vec![PollFd::new(self.shared.wake(), PollFlags::IN)];
        if let Some(guardian) = &self.guardian {
            sources.push(Source::Guardian);
            descriptors.push(PollFd::new(guardian.process().descriptor(), PollFlags::IN));
        }
        for (spawn, running) in &self.spawns {
            for (readable, descriptor, flags) in running.interests() {
                sources.push(Source::Worker(*spawn, readable));
                descriptors.push(PollFd::from_borrowed_fd(descriptor, flags));
            }
        }
        for (run, hook) in &self.hooks {
            for (readable, descriptor, flags) in hook.interests() {
                sources.push(Source::Hook(*run, readable));
                descriptors.push(PollFd::from_borrowed_fd(descriptor, flags));
            }
        }
        let patience = self.patience();
        let timeout = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        if poll(&mut descriptors, Some(&timeout)).is_err() {
            return Vec::new();
        }
        let is_ready = |descriptor: &PollFd<'_>| !descriptor.revents().is_empty();
        sources
            .into_iter()
            .zip(&descriptors)
            .filter(|(_, descriptor)| is_ready(descriptor))
            .map(|(source, _)| source)
            .collect()
    }

    /// Time until something is due. Never more than a second: the end of a process that was handed to us by the death of
    /// its parent wakes nobody.
    fn patience(&self) -> Duration {
        let now = self.now();
        let spawns = self.spawns.values().filter_map(Spawn::deadline);
        let spawns = spawns.chain(self.hooks.values().filter_map(Hook::deadline));
        let sweep = self.sweep.as_ref().map(|sweep| sweep.next);
        let due =
            spawns.chain(self.state.deadline()).chain(self.next_sample()).chain(sweep).chain(self.guardian_due).min();
        // Half a millisecond more than the difference, so that rounding never wakes us just before it is due.
        due.map_or(STRANGERS, |due| due.saturating_sub(now) + Duration::from_micros(500)).min(STRANGERS)
    }

    fn look_at(&mut self, source: Source) {
        match source {
            Source::Orders => self.shared.clear_wake(),
            Source::Guardian => self.replace_guardian(),
            Source::Worker(spawn, Readable::Exit) => self.see_exit(spawn),
            Source::Hook(run, Readable::Exit) => self.see_end_of_hook(run),
            Source::Hook(run, readable) => {
                let now = self.now();
                if let Some(hook) = self.hooks.get_mut(&run) {
                    hook.read(readable, now, &mut *self.options.output);
                }
            }
            Source::Worker(spawn, readable) => {
                let now = self.now();
                if let Some(running) = self.spawns.get_mut(&spawn) {
                    running.read(readable, now, &mut *self.options.output);
                }
            }
        }
    }

    fn advance_workers(&mut self) {
        let now = self.now();
        for hook in self.hooks.values_mut() {
            hook.flush(now, &mut *self.options.output);
        }
        let numbers: Vec<u64> = self.spawns.keys().copied().collect();
        // One after the other, so that a panic at one does not lose what the next had to say.
        for number in numbers {
            let now = self.now();
            let Some(running) = self.spawns.get_mut(&number) else { continue };
            let news = running.advance(now, &mut *self.options.output);
            let (worker, address) = (running.id().clone(), running.address().clone());
            for news in news {
                let worker = worker.clone();
                self.feed(match news {
                    News::Ready => Input::Ready { worker, address: address.clone() },
                    News::Notice(notice) => Input::Notice { worker, notice },
                });
            }
        }
    }

    fn see_exit(&mut self, spawn: u64) {
        let now = self.now();
        let Some(running) = self.spawns.get_mut(&spawn) else { return };
        let Some(status) = running.process().peek() else { return };
        let mut exit = running.finish(status, now, &mut *self.options.output);
        exit.oom = status == ExitStatus::Signal(SIGKILL) && !running.was_killed() && self.oom_kills.claim(now);
        let worker = running.id().clone();
        self.feed(Input::Exited { worker, exit });
        // The state asks for the burial of every worker it knows; running that it does not know must not stay unreaped.
        self.bury(spawn);
    }

    fn see_end_of_hook(&mut self, run: u64) {
        let now = self.now();
        let Some(running) = self.hooks.get_mut(&run) else { return };
        let Some(status) = running.process().peek() else { return };
        let exit = running.finish(status, now, &mut *self.options.output);
        let Some(running) = self.hooks.remove(&run) else { return };
        self.forget_group(running.process());
        let hook = running.id().clone();
        running.reap();
        self.feed(Input::HookEnded { hook, exit });
    }

    fn bury(&mut self, spawn: u64) {
        let Some(running) = self.spawns.remove(&spawn) else { return };
        self.forget_group(running.process());
        running.reap();
    }

    /// Order matters: while the leader is unreaped its number names this group only, so the group is killed, the guardian
    /// forgets it, and then the caller reaps the leader.
    fn forget_group(&mut self, leader: &Process) {
        leader.kill_group();
        let forgotten = self.guardian.as_ref().map(|guardian| guardian.remove(leader.pid()));
        if forgotten.is_some_and(|told| told.is_err()) {
            self.replace_guardian();
        }
    }

    /// Reaps whoever has ended: our workers by their own way, all others silently.
    fn reap_ended(&mut self) {
        let mut last = None;
        while let Some(pid) = process::any_ended().filter(|pid| last != Some(*pid)) {
            last = Some(pid);
            let worker = self.spawns.values().find(|running| running.process().pid() == pid);
            let worker = worker.map(|running| running.id().spawn);
            let hook = self.hooks.values().find(|running| running.process().pid() == pid).map(|hook| hook.id().run);
            match (worker, hook) {
                (Some(spawn), _) => self.see_exit(spawn),
                (None, Some(run)) => self.see_end_of_hook(run),
                (None, None) if Some(pid) == self.guardian_pid() => self.replace_guardian(),
                (None, None) => process::reap_stranger(pid),
            }
        }
    }

    fn guardian_pid(&self) -> Option<i32> {
        self.guardian.as_ref().map(|guardian| guardian.process().pid())
    }

    fn replace_guardian(&mut self) {
        if let Some(old) = self.guardian.take() {
            tracing::warn!("the guardian is gone and will be replaced");
            old.dismiss();
        }
        let hooks = self.hooks.values().map(Hook::process);
        let all = self.spawns.values().map(Spawn::process).chain(hooks);
        let groups: BTreeSet<i32> = all.map(Process::pid).collect();
        match Guardian::start(&self.options.reexec, &self.surroundings.instance, &groups) {
            Ok(guardian) => {
                self.guardian = Some(guardian);
                self.guardian_due = None;
            }
            Err(error) => {
                tracing::error!(%error, "the guardian cannot be replaced");
                self.guardian_due = Some(self.now() + GUARDIAN_RETRY);
            }
        }
    }

    /// Tells the guardian of a new group; a guardian that does not take it is replaced once.
    fn announce(&mut self, group: i32) -> Result<(), String> {
        if self.guardian.as_ref().is_some_and(|guardian| guardian.add(group).is_ok()) {
            return Ok(());
        }
        self.replace_guardian();
        let guardian = self.guardian.as_ref().ok_or_else(|| "the guardian is missing".to_owned())?;
        guardian.add(group).map_err(|error| format!("guardian: {error}"))
    }

    pub(crate) fn feed(&mut self, input: Input) {
        self.step(input);
        self.work_off();
    }

    /// The view is published before anything is told, so that who hears of an event never sees an older view.
    fn step(&mut self, input: Input) {
        let actions = self.state.step(self.now(), input);
        self.shared.publish(self.state.status(self.epoch.1));
        self.pending.extend(actions);
    }

    /// Does what is asked for, in order. An action that panics is not tried again; those after it are, in the next turn.
    fn work_off(&mut self) {
        while let Some(action) = self.pending.pop_front() {
            if let Some(input) = self.act(action) {
                self.step(input);
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Prepare { pool, generation, spec } => {
                self.generations.insert((pool, generation), Arc::new(Frozen::new(&spec)));
            }
            Action::Release { pool, generation } => {
                self.generations.remove(&(pool, generation));
            }
            Action::RunHook(hook) => return self.run_hook(hook),
            Action::StopHook(hook) => {
                if let Some(running) = self.hooks.get(&hook.run) {
                    running.process().stop(StopSignal::Term);
                }
            }
            Action::KillHook(hook) => {
                if let Some(running) = self.hooks.get(&hook.run) {
                    running.process().kill_group();
                }
            }
            Action::Spawn(worker) => return Some(self.spawn(worker)),
            Action::Stop(worker) => {
                if let Some(running) = self.spawns.get(&worker.spawn) {
                    running.stop();
                }
            }
            Action::Kill(worker) => {
                if let Some(running) = self.spawns.get_mut(&worker.spawn) {
                    running.kill();
                }
            }
            Action::Ask { worker, path, timeout, is_first } => {
                let now = self.now();
                if let Some(running) = self.spawns.get_mut(&worker.spawn) {
                    if is_first {
                        running.begin_doubt(now);
                    }
                    running.ask(&path, timeout, now);
                }
            }
            Action::Inspect(worker) => {
                let running = self.spawns.get(&worker.spawn)?;
                let lines = evidence::of_tree(running.process().pid());
                let evidence = Evidence { lines, cpu: running.cpu_in_doubt(self.now()) };
                return Some(Input::Notice { worker, notice: Notice::Evidence(evidence) });
            }
            Action::RunOnHang { hook, worker, command } => return self.run_on_hang(hook, &worker, &command),
            Action::Abort(worker) => {
                if let Some(running) = self.spawns.get_mut(&worker.spawn) {
                    running.abort();
                }
            }
            Action::Bury(worker) => self.bury(worker.spawn),
            Action::Sweep => {
                let now = self.now();
                self.sweep = Some(Sweep { next: now, end: now + SWEEP });
            }
            Action::Emit(event) => self.emit(event),
        }
        None
    }

    fn emit(&mut self, event: Event) {
        let is_over = event == Event::Stopped;
        (self.options.events)(event);
        // After the sink has it: whoever waits for the end may end the process.
        if is_over {
            self.shared.set_stopped();
        }
    }

    fn spawn(&mut self, worker: WorkerId) -> Input {
        match self.try_spawn(&worker) {
            Ok(running) => {
                let pid = running.process().pid().unsigned_abs();
                self.spawns.insert(worker.spawn, running);
                Input::Spawned { worker, pid }
            }
            Err(problem) => {
                let status = ExitStatus::NotStarted;
                let exit = Exit { status, oom: false, message: Some(problem), not_ready: None, last_lines: Vec::new() };
                Input::Exited { worker, exit }
            }
        }
    }

    fn try_spawn(&mut self, worker: &WorkerId) -> Result<Spawn, String> {
        let generation = self.generation(&worker.pool, worker.generation)?;
        let taken = |address| self.spawns.values().any(|running| running.has_port(address));
        let prepared = self.surroundings.prepare(worker, &generation, &taken)?;
        Ok(Spawn::new(worker.clone(), self.start_shim()?, prepared, generation))
    }

    /// An answer only if it cannot be started.
    fn run_hook(&mut self, hook: HookId) -> Option<Input> {
        let started = self.generation(&hook.pool, hook.generation).and_then(|generation| {
            let launch = self.surroundings.prepare_hook(&hook, &generation)?;
            Ok(Hook::new(hook.clone(), self.start_shim()?, launch))
        });
        self.take_hook(hook, started)
    }

    /// An answer only if it cannot be started.
    fn run_on_hang(&mut self, hook: HookId, worker: &WorkerId, command: &[String]) -> Option<Input> {
        let pid = self.spawns.get(&worker.spawn).map(|running| running.process().pid());
        let pid = pid.ok_or_else(|| "its worker has ended".to_owned());
        let started = self.generation(&worker.pool, worker.generation).and_then(|generation| {
            let launch = self.surroundings.prepare_on_hang(worker, pid?, command, &generation)?;
            Ok(Hook::new(hook.clone(), self.start_shim()?, launch))
        });
        self.take_hook(hook, started)
    }

    fn take_hook(&mut self, hook: HookId, started: Result<Hook, String>) -> Option<Input> {
        match started {
            Ok(running) => {
                self.hooks.insert(hook.run, running);
                None
            }
            Err(problem) => {
                let status = ExitStatus::NotStarted;
                let exit = Exit { status, oom: false, message: Some(problem), not_ready: None, last_lines: Vec::new() };
                Some(Input::HookEnded { hook, exit })
            }
        }
    }

    fn generation(&self, pool: &Arc<str>, number: u64) -> Result<Arc<Frozen>, String> {
        let generation = self.generations.get(&(pool.clone(), number)).cloned();
        generation.ok_or_else(|| "its specification is gone".to_owned())
    }

    fn start_shim(&mut self) -> Result<Shim, String> {
        let shim = process::spawn_shim(&self.options.reexec, PipeRoom::beside(self.spawns.len()))
            .map_err(|error| format!("start of a process: {error}"))?;
        // Announced before the shim gets its launch: no command of ours ever runs unknown to the guardian.
        if let Err(problem) = self.announce(shim.process.pid()) {
            shim.process.kill_group();
            // Reaped as a stranger once it has ended.
            return Err(problem);
        }
        Ok(shim)
    }

    fn go_on_sweeping(&mut self) {
        let now = self.now();
        if self.sweep.as_ref().is_none_or(|sweep| sweep.next > now) {
            return;
        }
        let spared: Vec<i32> = self.guardian_pid().into_iter().collect();
        let found = stray::kill(&self.surroundings.instance, &BTreeSet::new(), &stray::adopted(), &spared);
        if let Some(sweep) = self.sweep.as_mut().filter(|sweep| found > 0 && now < sweep.end) {
            sweep.next = now + SWEEP_PAUSE;
            return;
        }
        self.sweep = None;
        self.reap_ended();
        self.feed(Input::Swept);
    }
}

const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();
const STRANGERS: Duration = Duration::from_secs(1);
const AFTER_PANIC: Duration = Duration::from_millis(50);
const GUARDIAN_RETRY: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(1);
const SWEEP_PAUSE: Duration = Duration::from_millis(5);
