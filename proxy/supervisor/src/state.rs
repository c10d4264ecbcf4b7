//! Everything the supervisor decides, as one pure step: state and input in, actions out.
//!
//! It never waits, reads no clock and draws no random number: `now` is the time since some fixed moment, chosen by the
//! caller, and the jitter's seed is given at the start. It knows no process either: [`Action`] says what shall be done
//! and [`Input`] what came of it. After every input the whole state is settled against what is wanted, rather than each
//! input having its own consequences, so that an input that is lost, doubled or late cannot leave a slot behind.

mod deploy;
mod generation;
mod notice;
mod pool;
mod view;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::model::WorkerSpec;

use crate::backoff::Jitter;
use crate::capacity::Capacity;
use crate::command::{Command, PoolSpec};
use crate::event::Event;
use crate::hook::HookId;
use crate::progress::ProgressBySpawn;
use crate::worker::{ExitReason, ExitStatus, WorkerAddress, WorkerId};
pub use notice::{Evidence, Notice};
use pool::Pool;
pub use pool::{Activity, Silence};

/// What the state is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// An order.
    Command(Command),
    /// A worker has a process.
    Spawned {
        /// Who.
        worker: WorkerId,
        /// Its process.
        pid: u32,
    },
    /// A worker passed its readiness probe.
    Ready {
        /// Who.
        worker: WorkerId,
        /// Where it is reached.
        address: WorkerAddress,
    },
    /// A worker says something, or was found out about.
    Notice {
        /// Who.
        worker: WorkerId,
        /// What.
        notice: Notice,
    },
    /// A worker's process has ended, or could not be started.
    Exited {
        /// Who.
        worker: WorkerId,
        /// How.
        exit: Exit,
    },
    /// A hook's process has ended, or could not be started.
    HookEnded {
        /// Which run.
        hook: HookId,
        /// How.
        exit: Exit,
    },
    /// How workers get on with their requests.
    Progress(ProgressBySpawn),
    /// What memory there is.
    Memory {
        /// Bytes that we may still take, if that is known.
        room: Option<u64>,
        /// Resident bytes of workers' process trees, by spawn number.
        rss: BTreeMap<u64, u64>,
    },
    /// What the machine gives us right now.
    Capacity(Capacity),
    /// What workers left behind is killed; answers [`Action::Sweep`].
    Swept,
    /// Time has passed.
    Tick,
}

/// How a process ended, and what it left to be read.
#[derive(Debug, Clone)]
pub struct Exit {
    /// How.
    pub status: ExitStatus,
    /// The kernel has just killed somebody for want of memory.
    pub oom: bool,
    /// Why the command was not started.
    pub message: Option<String>,
    /// Why it was not taken for ready, if it was not.
    pub not_ready: Option<String>,
    /// The last lines of its output.
    pub last_lines: Vec<String>,
}

/// What shall be done. Actions are done in order, each before the next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Freeze a spawn specification: later starts of the generation use what was found now.
    Prepare {
        /// Name of the pool.
        pool: Arc<str>,
        /// Number of the generation.
        generation: u64,
        /// What to freeze.
        spec: Arc<WorkerSpec>,
    },
    /// Forget a frozen specification.
    Release {
        /// Name of the pool.
        pool: Arc<str>,
        /// Number of the generation.
        generation: u64,
    },
    /// Run what a generation runs before its workers; answered with [`Input::HookEnded`].
    RunHook(HookId),
    /// Ask a hook's process to end.
    StopHook(HookId),
    /// Kill a hook's whole process group.
    KillHook(HookId),
    /// Start a process; answered with [`Input::Spawned`] or [`Input::Exited`].
    Spawn(WorkerId),
    /// Send the stop signal to the main process.
    Stop(WorkerId),
    /// Kill the whole process group.
    Kill(WorkerId),
    /// Ask a worker in doubt once; answered with [`Notice::Answered`] or [`Notice::Silent`].
    Ask {
        /// Who.
        worker: WorkerId,
        /// What it is asked for.
        path: String,
        /// How long that may take.
        timeout: Duration,
        /// Of this doubt.
        is_first: bool,
    },
    /// Look at what a worker's processes do; answered with [`Notice::Evidence`].
    Inspect(WorkerId),
    /// Run a command about a worker that hangs; answered with [`Input::HookEnded`].
    RunOnHang {
        /// Which run.
        hook: HookId,
        /// About whom.
        worker: WorkerId,
        /// argv.
        command: Vec<String>,
    },
    /// Have the whole process group say where it is, and end.
    Abort(WorkerId),
    /// The main process has ended: kill what is left of its group, then reap it.
    Bury(WorkerId),
    /// No worker is left: kill processes that left their worker's group; answered with [`Input::Swept`].
    Sweep,
    /// Tell.
    Emit(Event),
}

/// Numbers that hold for all pools.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Workers that may boot at the same time; 1 or more.
    pub parallel_starts: usize,
    /// What `count: auto` means here; 1 or more.
    pub auto_count: u32,
}

impl Limits {
    /// What `count: auto` means with so many CPUs and enough memory.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to small positive numbers")]
    pub fn auto_count_of(cpus: f64) -> u32 {
        cpus.round().clamp(2.0, 4096.0) as u32
    }
}

/// All pools and their workers.
#[derive(Debug)]
pub struct State {
    limits: Limits,
    pools: BTreeMap<Arc<str>, Pool>,
    last_spawn: u64,
    jitter: Jitter,
    /// Bytes that we may still take, if that is known.
    room: Option<u64>,
    /// At the last look.
    capacity: Option<Capacity>,
    phase: Phase,
    /// Time of the last step.
    now: Duration,
}

/// Life of the supervisor as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Running,
    Stopping(Bound),
    Sweeping,
    Stopped,
}

/// When a shutdown began, and when everything must be over.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound {
    began: Duration,
    end: Duration,
}

/// What one step works with.
struct Turn<'a> {
    now: Duration,
    out: &'a mut Vec<Action>,
    limits: &'a Limits,
    last_spawn: &'a mut u64,
    jitter: &'a mut Jitter,
    room: Option<u64>,
    capacity: Option<&'a Capacity>,
    bound: Option<Bound>,
}

impl Turn<'_> {
    fn act(&mut self, action: Action) {
        self.out.push(action);
    }

    fn tell(&mut self, event: Event) {
        self.out.push(Action::Emit(event));
    }
}

impl State {
    /// No pools. `seed` chooses the jitter of restarts.
    #[must_use]
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            pools: BTreeMap::new(),
            last_spawn: 0,
            jitter: Jitter::new(seed),
            room: None,
            capacity: None,
            phase: Phase::Running,
            now: Duration::ZERO,
        }
    }

    /// Takes one input at time `now` (never before the last one) and returns what shall be done.
    pub fn step(&mut self, now: Duration, input: Input) -> Vec<Action> {
        self.now = now;
        let mut out = Vec::new();
        self.take(now, input, &mut out);
        self.settle(now, &mut out);
        out
    }

    /// Whether anything is decided by what workers have of memory for themselves.
    #[must_use]
    pub fn goes_by_shares(&self) -> bool {
        self.pools.values().any(Pool::goes_by_shares)
    }

    /// Whether what changes of that matters at any time, and not only when a deploy begins.
    #[must_use]
    pub fn follows_shares(&self) -> bool {
        self.pools.values().any(Pool::follows_shares)
    }

    /// Whether it is not known of one that serves, and matters.
    #[must_use]
    pub fn misses_shares(&self) -> bool {
        self.pools.values().any(Pool::misses_shares)
    }

    /// When [`Input::Tick`] is due if nothing else happens before: always later than the last step.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let bound = match self.phase {
            Phase::Stopping(bound) => Some(bound),
            Phase::Running => None,
            Phase::Sweeping | Phase::Stopped => return None,
        };
        let pools = self.pools.values().filter_map(|pool| pool.deadline(self.now, bound)).min();
        bound.map(|bound| bound.end + UNKILLABLE).into_iter().chain(pools).min()
    }

    fn take(&mut self, now: Duration, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Command(Command::SetPools(pools)) => self.set_pools(now, pools, out),
            Input::Command(Command::Shutdown { deadline }) => self.shut_down(now, now + deadline),
            Input::Command(Command::ShutdownNow) => self.shut_down(now, now),
            Input::Command(Command::Drained { worker }) => {
                self.in_pool(now, &worker.pool.clone(), out, |pool, turn| pool.drained(&worker, turn));
            }
            Input::Command(Command::RequestsOver { worker }) => {
                self.in_pool(now, &worker.pool.clone(), out, |pool, _| pool.requests_over(&worker));
            }
            Input::Command(Command::RestartWorker { pool, slot }) => {
                self.in_pool(now, &pool, out, |pool, turn| pool.restart(slot, turn));
            }
            Input::Command(Command::Deploy { pool, id }) => {
                self.in_pool(now, &pool, out, |pool, turn| pool.deploy(id, turn));
            }
            Input::Command(Command::CanaryFigures { pool, generation, old, new }) => {
                self.in_pool(now, &pool, out, |pool, turn| pool.compare(generation, old, new, turn));
            }
            Input::Command(Command::DrainWorker { pool, slot }) => {
                self.in_pool(now, &pool, out, |pool, turn| pool.hold(slot, turn));
            }
            Input::Command(Command::SetCount { pool, count }) => {
                self.in_pool(now, &pool, out, |pool, turn| pool.scale(count, turn));
            }
            Input::Command(Command::ChangeCount { pool, by }) => {
                self.in_pool(now, &pool, out, |pool, turn| pool.scale_by(by, turn));
            }
            Input::Command(Command::ReleaseCount { pool }) => {
                self.in_pool(now, &pool, out, Pool::follow_spec_count);
            }
            Input::Spawned { worker, pid } => {
                self.in_pool(now, &worker.pool.clone(), out, |pool, _| pool.spawned(&worker, pid));
            }
            Input::Ready { worker, address } => {
                self.in_pool(now, &worker.pool.clone(), out, |pool, turn| pool.became_ready(&worker, address, turn));
            }
            Input::Notice { worker, notice } => {
                self.in_pool(now, &worker.pool.clone(), out, |pool, turn| pool.noticed(&worker, notice, turn));
            }
            Input::Exited { worker, exit } => {
                self.in_pool(now, &worker.pool.clone(), out, |pool, turn| pool.exited(&worker, exit, turn));
            }
            Input::HookEnded { hook, exit } => {
                self.in_pool(now, &hook.pool.clone(), out, |pool, turn| pool.hook_ended(&hook, exit, turn));
            }
            Input::Progress(figures) => {
                self.pools.values_mut().for_each(|pool| pool.take_progress(&figures, now));
            }
            Input::Memory { room, rss } => {
                self.room = room;
                self.pools.values_mut().for_each(|pool| pool.weigh(&rss));
            }
            Input::Capacity(capacity) => {
                if let Some(pss) = &capacity.pss {
                    self.pools.values_mut().for_each(|pool| pool.take_shares(pss));
                }
                self.capacity = Some(capacity);
                for name in self.pools.keys().cloned().collect::<Vec<_>>() {
                    self.in_pool(now, &name, out, Pool::follow_machine);
                }
            }
            Input::Swept => self.swept(out),
            Input::Tick => {}
        }
    }

    /// Runs `action` on a pool that exists; an order for one that does not is void.
    fn in_pool(
        &mut self,
        now: Duration,
        name: &str,
        out: &mut Vec<Action>,
        action: impl FnOnce(&mut Pool, &mut Turn<'_>),
    ) {
        let bound = self.bound();
        let Self { limits, pools, last_spawn, jitter, room, capacity, .. } = self;
        if let Some(pool) = pools.get_mut(name) {
            action(
                pool,
                &mut Turn { now, out, limits, last_spawn, jitter, room: *room, capacity: capacity.as_ref(), bound },
            );
        }
    }

    fn bound(&self) -> Option<Bound> {
        match self.phase {
            Phase::Stopping(bound) => Some(bound),
            _ => None,
        }
    }

    fn set_pools(&mut self, now: Duration, wanted: Vec<PoolSpec>, out: &mut Vec<Action>) {
        if self.phase != Phase::Running {
            return;
        }
        for pool in self.pools.values_mut() {
            if !wanted.iter().any(|spec| *spec.name == *pool.name) {
                pool.remove();
            }
        }
        for PoolSpec { name, spec } in wanted {
            let name: Arc<str> = name.into();
            self.pools.entry(name.clone()).or_insert_with(|| Pool::new(name.clone()));
            self.in_pool(now, &name, out, |pool, turn| pool.set_spec(spec, turn));
        }
    }

    fn shut_down(&mut self, now: Duration, end: Duration) {
        self.phase = match self.phase {
            Phase::Running => Phase::Stopping(Bound { began: now, end }),
            Phase::Stopping(bound) => Phase::Stopping(Bound { began: bound.began, end: bound.end.min(end) }),
            over => over,
        };
    }

    fn swept(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::Sweeping {
            self.phase = Phase::Stopped;
            out.push(Action::Emit(Event::Stopped));
        }
    }

    /// Brings everything as near to what is wanted as can be done at once.
    fn settle(&mut self, now: Duration, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Sweeping | Phase::Stopped) {
            return;
        }
        let bound = self.bound();
        let Self { limits, pools, last_spawn, jitter, room, capacity, .. } = self;
        let mut turn = Turn { now, out, limits, last_spawn, jitter, room: *room, capacity: capacity.as_ref(), bound };
        for pool in pools.values_mut() {
            pool.settle(&mut turn);
        }
        grant_starts(pools, &mut turn);
        for pool in pools.values_mut() {
            pool.report(&mut turn);
        }
        pools.retain(|_, pool| !pool.is_over());
        let given_up = bound.is_some_and(|bound| now >= bound.end + UNKILLABLE);
        if bound.is_some() && (pools.is_empty() || given_up) {
            self.phase = Phase::Sweeping;
            out.push(Action::Sweep);
        }
    }
}

/// Starts workers whose time has come while fewer than the limit boot. The pool with the fewest booting comes first, so
/// that one with slow or failing boots cannot keep the others waiting.
fn grant_starts(pools: &mut BTreeMap<Arc<str>, Pool>, turn: &mut Turn<'_>) {
    let booting: usize = pools.values().map(Pool::booting).sum();
    for _ in booting..turn.limits.parallel_starts {
        let Some(pool) = pools.values_mut().filter(|pool| pool.may_start(turn.now)).min_by_key(|pool| pool.booting())
        else {
            return;
        };
        pool.start_next(turn);
    }
}

/// Class of an exit nobody asked for.
fn classify(status: ExitStatus, oom: bool, was_ready: bool) -> ExitReason {
    match status {
        ExitStatus::Signal(SIGKILL) if oom => ExitReason::Oom,
        ExitStatus::NotStarted => ExitReason::BootExit,
        ExitStatus::Unknown => ExitReason::Lost,
        ExitStatus::Code(_) | ExitStatus::Signal(_) if !was_ready => ExitReason::BootExit,
        ExitStatus::Code(0) => ExitReason::CleanExit,
        ExitStatus::Code(_) => ExitReason::CrashCode,
        ExitStatus::Signal(_) => ExitReason::CrashSignal,
    }
}

/// What the kernel kills with.
const SIGKILL: i32 = 9;
/// A killed process that is not gone after this hangs in the kernel; a shutdown does not wait longer for it.
const UNKILLABLE: Duration = Duration::from_secs(1);
