//! A deploy: one change from a generation of workers to the next, as the world outside sees it. Plain values.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::canary::Comparison;
use crate::event::Failure;
use crate::plan::DeployPlan;
use crate::worker::ExitStatus;

/// How a deploy ended. A closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new generation serves every slot, and the old one is gone.
    Done,
    /// It failed, and its workers are gone: what served before serves.
    Reverted,
    /// It failed after old workers had left, and new ones serve in their place: the mix stays as it was then.
    Frozen,
    /// It failed, and there was nothing to go back to: its workers are tried again.
    Failed,
    /// Another one took its place, or its pool was removed.
    Superseded,
}

impl Outcome {
    /// Its name in logs, metrics and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Reverted => "reverted",
            Self::Frozen => "frozen",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How far a deploy is. A closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeployPhase {
    /// What runs before the new workers has not succeeded yet.
    Preparing,
    /// The first new worker boots, or has not stayed ready yet.
    Canary,
    /// It takes requests, and is compared with the workers of before.
    Holding,
    /// The new generation takes over.
    Rolling,
    /// It serves every slot; the last old workers leave.
    Leaving,
    /// It failed: what is not to stay of it leaves.
    Reverting,
    /// It has ended.
    Over,
}

impl DeployPhase {
    /// Its name in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Canary => "canary",
            Self::Holding => "holding",
            Self::Rolling => "rolling",
            Self::Leaving => "leaving",
            Self::Reverting => "reverting",
            Self::Over => "over",
        }
    }
}

/// What gave a generation up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// One of its workers failed.
    Worker(Failure),
    /// What runs before its workers failed.
    PreStart(HookFailure),
    /// Its first worker was worse than those of before.
    Canary(Comparison),
}

impl Cause {
    /// The last lines of output, oldest first.
    #[must_use]
    pub fn last_lines(&self) -> &[String] {
        match self {
            Self::Worker(failure) => &failure.last_lines,
            Self::PreStart(failure) => &failure.last_lines,
            Self::Canary(_) => &[],
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, message) = match self {
            Self::Worker(failure) => {
                write!(f, "worker {}: {}: ", failure.worker, failure.reason.word())?;
                (failure.status, &failure.message)
            }
            Self::PreStart(failure) => {
                f.write_str("pre_start: ")?;
                (failure.status, &failure.message)
            }
            Self::Canary(comparison) => return write!(f, "canary: {comparison}"),
        };
        status.fmt(f)?;
        message.as_ref().map_or(Ok(()), |message| write!(f, ", {message}"))
    }
}

/// The failure of a command that runs once for a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookFailure {
    /// Name of the pool.
    pub pool: Arc<str>,
    /// Number of the generation.
    pub generation: u64,
    /// How the process ended.
    pub status: ExitStatus,
    /// What went wrong before the command ran at all, or that it took too long.
    pub message: Option<String>,
    /// Life time of the process.
    pub took: Duration,
    /// The last lines of its output, oldest first, at most 50.
    pub last_lines: Vec<String>,
}

/// The end of a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployEnd {
    /// Name of the pool.
    pub pool: Arc<str>,
    /// Number of the new generation.
    pub generation: u64,
    /// What the order for it was called, if there was one.
    pub id: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// From its begin to its end.
    pub took: Duration,
    /// The failure that decided.
    pub failure: Option<Cause>,
}

/// How long workers took from start to ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boots {
    /// How many workers.
    pub count: u32,
    /// The fastest.
    pub shortest: Duration,
    /// The slowest.
    pub longest: Duration,
}

/// A deploy that is under way or has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployStatus {
    /// What the order for it was called; a changed specification has none.
    pub id: Option<u64>,
    /// Number of the new generation.
    pub generation: u64,
    /// Number of the generation that served before.
    pub replaces: Option<u64>,
    /// How its workers come up; `None` before that is decided, and where nobody served before.
    pub plan: Option<DeployPlan>,
    /// How far it is.
    pub phase: DeployPhase,
    /// Slots in which one of its workers serves right now.
    pub serving: u32,
    /// When it began.
    pub began: SystemTime,
    /// From its begin to the first worker that was ready.
    pub ready_after: Option<Duration>,
    /// From its begin to its end; `None` while it is under way.
    pub took: Option<Duration>,
    /// Boots of its workers that ended in one that was ready.
    pub boots: Option<Boots>,
    /// The comparison of its first worker, where one was made.
    pub comparison: Option<Comparison>,
    /// The longest that a worker needed to finish its requests before it left for it.
    pub longest_drain: Option<Duration>,
    /// Workers of the pool that ended meanwhile without being asked to.
    pub lost: u32,
    /// How it ended, or will end once those that leave are gone; `None` while that is open.
    pub outcome: Option<Outcome>,
    /// The failure that decided.
    pub failure: Option<Cause>,
}
