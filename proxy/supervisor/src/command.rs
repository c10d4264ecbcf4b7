//! What the supervisor is told. Plain values; in JSON a pool has its own form (`wire.rs`), never the model's.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_config::model::WorkerSpec;

use crate::canary::CanaryFigures;
use crate::wire;
use crate::worker::WorkerId;

/// One order. Orders about a pool, slot or worker that does not exist (any more) change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// All pools that shall exist, and how. Pools not named are drained and removed, an unchanged pool is not touched.
    SetPools(Vec<PoolSpec>),
    /// Nothing is under way at a worker that drains but tunnels and streams, which may last.
    RequestsOver {
        /// Who.
        worker: WorkerId,
    },
    /// Nothing at all is under way at a worker that drains.
    Drained {
        /// Who.
        worker: WorkerId,
    },
    /// Replace the workers of a slot: one that serves leaves once its successor serves, one that boots is stopped first,
    /// and a worker in backoff starts at once.
    RestartWorker {
        /// Name of the pool.
        pool: String,
        /// Which slot.
        slot: u32,
    },
    /// Replace the workers of a pool by a new generation of its spec. What is under way for the pool is superseded.
    Deploy {
        /// Name of the pool.
        pool: String,
        /// What the deploy is called in events and status; the sender's choice.
        id: u64,
    },
    /// What was counted since [`Event::CanaryHeld`](crate::Event::CanaryHeld); answers
    /// [`Event::CanaryOver`](crate::Event::CanaryOver).
    CanaryFigures {
        /// Name of the pool.
        pool: String,
        /// Number of the new generation.
        generation: u64,
        /// Of the workers of all other generations.
        old: CanaryFigures,
        /// Of its own.
        new: CanaryFigures,
    },
    /// Empty a slot: its worker gets no new request, finishes those it has, and is stopped. The slot stays empty until
    /// [`Command::RestartWorker`] names it, or until it is not part of the count any more.
    DrainWorker {
        /// Name of the pool.
        pool: String,
        /// Which slot.
        slot: u32,
    },
    /// That many workers, until the pool's spec asks for another number than now or [`Command::ReleaseCount`].
    SetCount {
        /// Name of the pool.
        pool: String,
        /// How many, at most 4,096; 0 stops them all and keeps the pool.
        count: u32,
    },
    /// So many workers more or less, as [`Command::SetCount`]. It never takes the last one away.
    ChangeCount {
        /// Name of the pool.
        pool: String,
        /// How many more; fewer when negative.
        by: i32,
    },
    /// The number of workers that the pool's spec asks for.
    ReleaseCount {
        /// Name of the pool.
        pool: String,
    },
    /// Drain and stop everything, all pools in parallel; what lives longer than the deadline is killed. A second
    /// shutdown may shorten the deadline of the first, never lengthen it.
    Shutdown {
        /// From now, in all.
        deadline: Duration,
    },
    /// Kill everything.
    ShutdownNow,
}

/// How a pool shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "wire::Pool", into = "wire::Pool")]
pub struct PoolSpec {
    /// Its name, which is the upstream's.
    pub name: String,
    /// Its workers.
    pub spec: WorkerSpec,
}
