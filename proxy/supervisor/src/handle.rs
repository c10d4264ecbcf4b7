//! The supervisor from outside: how it is started, told and looked at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{PidfdFlags, Resource, Rlimit};

use crate::cgroup::Roots;
use crate::command::Command;
use crate::event::Event;
use crate::guardian::{Guardian, INSTANCE_LENGTH};
use crate::oom::OomKills;
use crate::output::OutputLine;
use crate::process::{self, Reexec};
use crate::progress::ProgressBySpawn;
use crate::sampling::Sampling;
use crate::spawn::Surroundings;
use crate::state::{Limits, State};
use crate::status::PoolStatus;
use crate::thread::Supervisor;

/// What a supervisor is started with.
pub struct SupervisorOptions {
    /// Folder for worker sockets; made when missing.
    pub runtime_dir: PathBuf,
    /// How to start our own program as shim and as guardian.
    pub reexec: Reexec,
    /// Our environment, of which workers inherit.
    pub environment: Vec<(OsString, OsString)>,
    /// Takes every event, on the supervisor's thread: it must not block.
    pub events: Box<dyn FnMut(Event) + Send>,
    /// Takes every line that workers write, on the supervisor's thread: it must not block.
    pub output: Box<dyn FnMut(OutputLine) + Send>,
    /// Tells how workers get on with their requests, on the supervisor's thread, about once a second: it must not block.
    pub progress: Box<dyn FnMut() -> ProgressBySpawn + Send>,
    /// Effective CPUs ([`crate::effective_cpus`]) at the start: bounds parallel starts, and is what `count: auto` means
    /// until the machine was looked at.
    pub cpus: f64,
    /// Where to look at the machine.
    pub roots: Roots,
}

/// Why a supervisor cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel lacks process descriptors.
    #[error("process descriptors are not available; Linux 5.4 or later is needed")]
    Kernel(#[source] io::Error),
    /// The process could not be set up to supervise.
    #[error("setting up {what}")]
    Setup {
        /// Which part.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The guardian could not be started.
    #[error("starting the guardian")]
    Guardian(#[source] io::Error),
}

/// The way to a running supervisor. Clones are the same supervisor; dropping them all leaves it running.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// Starts the supervisor: one thread that lives as long as the process, and the guardian. At most one for a process,
/// because it takes the exit status of every child.
///
/// Also makes the process adopt its orphaned descendants, raises its soft limit of open files to the hard one (workers
/// get the old one) and gives SIGCHLD its default effect. The caller must not wait for child processes itself, nor start
/// any in another way.
///
/// # Errors
/// When the kernel lacks something, or the guardian cannot be started.
pub fn start(options: SupervisorOptions) -> Result<Handle, StartError> {
    let own = rustix::process::getpid();
    rustix::process::pidfd_open(own, PidfdFlags::empty()).map_err(|error| StartError::Kernel(error.into()))?;
    process::keep_child_statuses();
    rustix::process::set_child_subreaper(Some(own)).map_err(setup("adoption of orphans"))?;
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(setup("the wake-up descriptor"))?;
    let random: [u8; INSTANCE_LENGTH / 2] = random().map_err(setup("random numbers"))?;
    let shared = Arc::new(Shared::new(wake));
    let theirs = shared.clone();
    let (started, outcome) = sync_channel(1);
    // The thread starts the guardian itself: whatever is started, it is started there.
    let run = move || {
        let supervisor = supervisor(options, theirs, random);
        match supervisor {
            Ok(supervisor) => {
                if started.send(Ok(())).is_ok() {
                    supervisor.run();
                }
            }
            Err(error) => drop(started.send(Err(error))),
        }
    };
    std::thread::Builder::new().name("supervisor".to_owned()).spawn(run).map_err(setup_io("the thread"))?;
    let failed = || StartError::Setup { what: "the thread", source: io::ErrorKind::BrokenPipe.into() };
    outcome.recv().map_err(|_| failed())??;
    Ok(Handle { shared })
}

fn supervisor(
    options: SupervisorOptions,
    shared: Arc<Shared>,
    random: [u8; INSTANCE_LENGTH / 2],
) -> Result<Supervisor, StartError> {
    let instance: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let guardian = Guardian::start(&options.reexec, &instance, &BTreeSet::new()).map_err(StartError::Guardian)?;
    let surroundings = Surroundings {
        runtime_dir: options.runtime_dir.clone(),
        environment: options.environment.clone(),
        instance,
        open_files: raise_open_files(),
    };
    let (seed, _) = random.split_at(size_of::<u64>());
    let seed = seed.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let roots = options.roots.clone();
    Ok(Supervisor {
        state: State::new(limits(options.cpus), seed),
        options,
        shared,
        guardian: Some(guardian),
        guardian_due: None,
        surroundings,
        epoch: (Instant::now(), SystemTime::now()),
        generations: BTreeMap::new(),
        spawns: BTreeMap::new(),
        hooks: BTreeMap::new(),
        pending: VecDeque::new(),
        sweep: None,
        sampling: Sampling::default(),
        oom_kills: OomKills::new(&roots),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to small positive numbers")]
fn limits(cpus: f64) -> Limits {
    Limits { parallel_starts: cpus.floor().clamp(1.0, 4096.0) as usize, auto_count: Limits::auto_count_of(cpus) }
}

/// Raises our soft limit to the hard one and returns what it was.
fn raise_open_files() -> Option<u64> {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    before.current
}

fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], rustix::io::Errno> {
    let mut bytes = [0; LENGTH];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

fn setup(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> StartError {
    move |error| StartError::Setup { what, source: error.into() }
}

fn setup_io(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Setup { what, source }
}

impl Handle {
    /// Gives an order. Never blocks; orders are taken in the sequence they were given in.
    pub fn send(&self, command: Command) {
        lock(&self.shared.orders).give(command);
        // A full counter means that a wake-up is pending already.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }

    /// Waits until every order given so far was taken, at most that long. True if [`Handle::status`] shows what came of them.
    #[must_use]
    pub fn settle(&self, deadline: Duration) -> bool {
        let orders = lock(&self.shared.orders);
        let given = orders.given;
        let waited = self.shared.taken.wait_timeout_while(orders, deadline, |orders| orders.done < given);
        waited.unwrap_or_else(PoisonError::into_inner).0.done >= given
    }

    /// What was there after the last change. Cheap; the value does not change any more.
    #[must_use]
    pub fn status(&self) -> Arc<Vec<PoolStatus>> {
        lock(&self.shared.status).clone()
    }

    /// Waits until a shutdown is over, at most that long. True if it is over.
    #[must_use]
    pub fn join_stopped(&self, deadline: Duration) -> bool {
        let stopped = lock(&self.shared.stopped);
        let waited = self.shared.stop.wait_timeout_while(stopped, deadline, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What the thread and its handles share.
pub(crate) struct Shared {
    /// Guards the orders not taken yet.
    orders: Mutex<Orders>,
    taken: Condvar,
    wake: OwnedFd,
    /// Guards the pointer, for as long as it takes to copy or replace it.
    status: Mutex<Arc<Vec<PoolStatus>>>,
    stopped: Mutex<bool>,
    stop: Condvar,
}

/// Not bounded: there is one for each thing an operator does or a worker ends.
#[derive(Default)]
struct Orders {
    waiting: VecDeque<Command>,
    given: u64,
    done: u64,
}

impl Orders {
    fn give(&mut self, command: Command) {
        self.waiting.push_back(command);
        self.given += 1;
    }
}

impl Shared {
    fn new(wake: OwnedFd) -> Self {
        Self {
            orders: Mutex::default(),
            taken: Condvar::new(),
            wake,
            status: Mutex::default(),
            stopped: Mutex::default(),
            stop: Condvar::new(),
        }
    }

    pub(crate) fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    pub(crate) fn clear_wake(&self) {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut counter);
    }

    /// The next order. Who asks for it is done with the one before, even if that went wrong.
    pub(crate) fn next_command(&self) -> Option<Command> {
        let mut orders = lock(&self.orders);
        orders.done = orders.given - orders.waiting.len() as u64;
        self.taken.notify_all();
        orders.waiting.pop_front()
    }

    pub(crate) fn publish(&self, status: Vec<PoolStatus>) {
        *lock(&self.status) = Arc::new(status);
    }

    pub(crate) fn set_stopped(&self) {
        *lock(&self.stopped) = true;
        self.stop.notify_all();
    }
}

/// A value is complete after every use of its lock, so one that a panic left behind is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
