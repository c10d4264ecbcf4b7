//! What is there right now: the published view of pools and workers. Plain values, rebuilt whole after every change.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::deploy::DeployStatus;
use crate::worker::{ExitReason, ExitStatus, WorkerAddress, WorkerId, WorkerState};

/// State of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// Was never complete so far.
    Starting,
    /// As many ready workers as wanted.
    Healthy,
    /// Fewer ready workers than wanted.
    Degraded,
    /// Fails so often that only one worker is started at a time.
    Crashloop,
    /// No worker is wanted.
    Empty,
    /// Removed or shut down, and its last worker is gone.
    Stopped,
}

impl PoolState {
    /// Its name in logs, metrics and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Crashloop => "crashloop",
            Self::Empty => "empty",
            Self::Stopped => "stopped",
        }
    }
}

/// State of a generation.
///
/// The set is closed; a generation that is `Gone` is no longer listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationState {
    /// What runs before its workers has not succeeded yet.
    Preparing,
    /// None of its workers has stayed ready yet.
    Canary,
    /// Takes over slot by slot.
    Rolling,
    /// Serves every slot, or did.
    Active,
    /// Is being replaced.
    Retiring,
    /// Its last worker is gone.
    Gone,
    /// Given up.
    Failed,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its state.
    pub state: PoolState,
    /// How many workers are wanted.
    pub target: u32,
    /// Whether an operator chose the target, rather than the spec.
    pub is_scaled: bool,
    /// The slots that make up the target, lowest first.
    pub slots: Vec<u32>,
    /// Those of them that shall stay empty.
    pub held: Vec<HeldSlot>,
    /// How many are ready.
    pub ready: u32,
    /// When the next worker starts, or has started that is not ready yet.
    pub next_start: Option<SystemTime>,
    /// How long its workers take from start to ready: the median of the last ones.
    pub boot: Option<Duration>,
    /// Its generations, oldest first.
    pub generations: Vec<GenerationStatus>,
    /// Its last deploys, oldest first; only the last one can be under way.
    pub deploys: Vec<DeployStatus>,
    /// Its workers by slot, then spawn number; those in backoff too.
    pub workers: Vec<WorkerStatus>,
}

/// A slot that shall stay empty until it is restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSlot {
    /// Its number.
    pub slot: u32,
    /// Its worker ended for good; else an operator emptied it.
    pub is_ended: bool,
    /// How its last worker ended.
    pub last_exit: Option<LastExit>,
}

/// One generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Its number.
    pub number: u64,
    /// Its state.
    pub state: GenerationState,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Who.
    pub id: WorkerId,
    /// Its process.
    pub pid: Option<u32>,
    /// Its state.
    pub state: WorkerState,
    /// When it entered that state.
    pub since: SystemTime,
    /// When its process was started.
    pub started: Option<SystemTime>,
    /// Where it is reached, once it is ready.
    pub address: Option<WorkerAddress>,
    /// Why it leaves once another one serves in its place.
    pub replaced_for: Option<ExitReason>,
    /// How it is, in its own words (`STATUS=` on its notification socket).
    pub says: Option<String>,
    /// When it last said that it lives (`WATCHDOG=1`).
    pub alive: Option<SystemTime>,
    /// Why it gets no requests although it is ready.
    pub out: Option<String>,
    /// How often its slot was started again, after a failure or by an operator.
    pub restarts: u64,
    /// How the slot's worker before it ended.
    pub last_exit: Option<LastExit>,
}

/// How the last worker of a slot ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// Why.
    pub reason: ExitReason,
    /// How.
    pub status: ExitStatus,
    /// When.
    pub at: SystemTime,
}
