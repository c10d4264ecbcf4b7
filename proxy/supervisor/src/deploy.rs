//! A deploy: one change from a generation of workers to the next, as the world outside sees it. Plain values.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::event::Failure;

/// How a deploy ended. A closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new generation serves every slot, and the old one is gone.
    Done,
    /// It failed, and its workers are gone: what served before serves.
    Reverted,
    /// It failed after old workers had left: the mix stays as it was then.
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
    pub failure: Option<Failure>,
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
    /// When it began.
    pub began: SystemTime,
    /// From its begin to the first worker that was ready.
    pub ready_after: Option<Duration>,
    /// From its begin to its end; `None` while it is under way.
    pub took: Option<Duration>,
    /// How it ended, or will end once those that leave are gone; `None` while that is open.
    pub outcome: Option<Outcome>,
    /// The failure that decided.
    pub failure: Option<Failure>,
}
