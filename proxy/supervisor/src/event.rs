//! What the supervisor tells. Plain serialisable values for the log, the metrics, the data plane and a control stream.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::canary::Comparison;
use crate::cpu_use::CpuUse;
use crate::deploy::{Cause, DeployEnd, HookFailure};
use crate::hook::HookId;
use crate::plan::DeployPlan;
use crate::status::PoolState;
use crate::worker::{ExitReason, ExitStatus, WorkerAddress, WorkerId, WorkerState};

/// One thing that happened.
///
/// For the data plane: a worker gets requests from `Ready` on, no new ones from `Drain` on and none at all from `Gone`
/// on. Each of the three comes at most once for one worker id, in that order; `Gone` comes for every worker that was
/// `Ready`, with or without `Drain` before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A worker changed its state.
    Transition(Transition),
    /// Traffic may flow.
    Ready {
        /// Who.
        worker: WorkerId,
        /// Where.
        address: WorkerAddress,
    },
    /// No new request may go there; answer with `Command::RequestsOver` when none is left but what streams, and with
    /// `Command::Drained` when nothing is.
    Drain {
        /// Who.
        worker: WorkerId,
    },
    /// A ready worker shall get no new requests for the time being, or may again; its process goes on. Comes between
    /// `Ready` and `Drain` or `Gone`, as often as it changes.
    Rotation {
        /// Who.
        worker: WorkerId,
        /// Why it is out; `None` when it is back.
        out: Option<String>,
    },
    /// Its process is gone and its address void.
    Gone {
        /// Who.
        worker: WorkerId,
    },
    /// A worker ended that was not asked to.
    Failure(Failure),
    /// Every slot of the pool is served by this generation.
    GenerationActive {
        /// Name of the pool.
        pool: Arc<str>,
        /// Number of the generation.
        generation: u64,
    },
    /// A new generation is given up; the old one keeps serving. Slots that the new one had already taken over keep
    /// their workers, and go back to the old generation when these end.
    GenerationFailed {
        /// Name of the pool.
        pool: Arc<str>,
        /// Number of the generation.
        generation: u64,
        /// What decided.
        cause: Cause,
    },
    /// What runs once before a generation's workers was started.
    HookStarted {
        /// Which run.
        hook: HookId,
    },
    /// It has ended.
    HookEnded {
        /// Which run.
        hook: HookId,
        /// How.
        status: ExitStatus,
        /// Life time of the process.
        took: Duration,
    },
    /// It failed: its generation is given up, or with nothing to go back to it is tried again.
    HookFailed(HookFailure),
    /// A deploy begins: also one that a changed spec began. The first start of a pool is one too.
    DeployBegan {
        /// Name of the pool.
        pool: Arc<str>,
        /// Number of the new generation.
        generation: u64,
    },
    /// How a deploy's workers come up is decided. Comes once, and not where nobody served before.
    DeployPlanned {
        /// Name of the pool.
        pool: Arc<str>,
        /// Number of the new generation.
        generation: u64,
        /// What is decided.
        plan: DeployPlan,
    },
    /// The first worker of a new generation has proven itself and is held: for that long its requests and those of all other
    /// workers of the pool are to be counted, until [`Event::CanaryOver`] or [`Event::DeployEnded`].
    CanaryHeld {
        /// Name of the pool.
        pool: Arc<str>,
        /// Number of the new generation.
        generation: u64,
        /// How long.
        time: Duration,
    },
    /// That time is over; answer with `Command::CanaryFigures`.
    CanaryOver {
        /// Name of the pool.
        pool: Arc<str>,
        /// Number of the new generation.
        generation: u64,
    },
    /// What the comparison came to. Where that is against the new generation, [`Event::GenerationFailed`] follows.
    CanaryJudged {
        /// Name of the pool.
        pool: Arc<str>,
        /// Number of the new generation.
        generation: u64,
        /// Both sides, and what follows.
        comparison: Comparison,
    },
    /// A deploy is over: also one that a changed spec began. The first start of a pool is one too.
    DeployEnded(DeployEnd),
    /// An operator's restart is given up: the new worker failed before it was ready. The old one keeps serving, and no
    /// other worker of the pool is restarted by that order any more.
    RestartFailed(Failure),
    /// A process group was sent SIGKILL, because the worker did not end in time.
    Killed {
        /// Who.
        worker: WorkerId,
    },
    /// Another number of workers is wanted.
    Scaled {
        /// Name of the pool.
        pool: Arc<str>,
        /// Before.
        from: u32,
        /// From now on.
        to: u32,
        /// Who wants it.
        by: ScaledBy,
    },
    /// A worker ended with a code after which it is not started again: its slot stays empty.
    NotRestarted {
        /// Who.
        worker: WorkerId,
    },
    /// A worker has reached a limit and stays: there is no memory for it and its replacement, and nobody else serves.
    /// Told once for a worker.
    RecyclePostponed {
        /// Who.
        worker: WorkerId,
        /// Which limit.
        reason: ExitReason,
    },
    /// The replacement of a recycled worker has reached a limit within [`tidegate_config::model::Recycle::SHORTEST_LIFE`]:
    /// the limit is too low. Told once for a pool and its limits.
    RecycleTooOften {
        /// Who.
        worker: WorkerId,
        /// Which limit.
        reason: ExitReason,
    },
    /// A worker hangs, and is about to be killed; its [`Event::Failure`] follows.
    Hung(Hung),
    /// So many workers do not answer that it is hardly they who are to blame: none of them is killed, and all get requests.
    HangGuard {
        /// Name of the pool.
        pool: Arc<str>,
        /// How many.
        suspects: u32,
        /// Of how many that were ready.
        of: u32,
        /// What they may have in common.
        cause: String,
    },
    /// Few enough of them are left.
    HangGuardOver {
        /// Name of the pool.
        pool: Arc<str>,
    },
    /// A pool changed its state.
    PoolState {
        /// Name of the pool.
        pool: Arc<str>,
        /// Before.
        from: PoolState,
        /// From now on.
        to: PoolState,
    },
    /// A step of the supervisor failed in a way that is a defect of ours; the thread goes on.
    Fault {
        /// What happened.
        message: String,
    },
    /// The shutdown is over: no worker is left.
    Stopped,
}

/// Who decides how many workers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaledBy {
    /// The pool's spec.
    File,
    /// An order or a signal.
    Operator,
    /// CPUs or memory, where the spec leaves it to them.
    Machine,
}

impl ScaledBy {
    /// Its name in logs, metrics and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Operator => "operator",
            Self::Machine => "machine",
        }
    }
}

/// One change of a worker's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Who.
    pub worker: WorkerId,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// State left.
    pub from: WorkerState,
    /// State entered.
    pub to: WorkerState,
    /// Why it leaves or ended; `None` on the way into service.
    pub reason: Option<ExitReason>,
    /// Time spent in the state left.
    pub in_state: Duration,
}

/// A worker that hangs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hung {
    /// Who.
    pub worker: WorkerId,
    /// Its process.
    pub pid: Option<u32>,
    /// What there is against it.
    pub problem: String,
    /// What its processes used of CPU from the first question on that it did not answer; `None` if it was asked none.
    pub cpu: Option<CpuUse>,
    /// What its processes do, and what a command of the operator's has said of them.
    pub evidence: Vec<String>,
}

/// The unplanned end of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Who.
    pub worker: WorkerId,
    /// Its process, if there was one.
    pub pid: Option<u32>,
    /// Class of failure.
    pub reason: ExitReason,
    /// How the process ended.
    pub status: ExitStatus,
    /// What went wrong before the command ran at all, or why it never got ready.
    pub message: Option<String>,
    /// Life time of the process.
    pub uptime: Duration,
    /// The last lines of its output, oldest first, at most 50.
    pub last_lines: Vec<String>,
}
