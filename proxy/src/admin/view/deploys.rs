//! Deploys of workers, as they go over the wire.

use serde::{Deserialize, Serialize};

/// `GET /workers/deploys`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deploys {
    /// Upstreams with workers, by name.
    pub upstreams: Vec<DeployGroup>,
}

/// The last deploys of one upstream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployGroup {
    /// Name of the upstream.
    pub name: String,
    /// Oldest first; only the last one can be under way.
    pub deploys: Vec<Deploy>,
}

/// One change from a generation of workers to the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Deploy {
    /// Number of the order for it; `None` for a changed site file and for a first start.
    pub id: Option<u64>,
    /// Number of the new generation.
    pub generation: u64,
    /// Number of the generation that served before; `None` for a first start.
    pub replaces: Option<u64>,
    /// When it began: `2000-10-10T13:55:36Z`.
    pub began: String,
    /// `preparing`, `canary`, `rolling`, `leaving`, `reverting` or `over`.
    pub phase: String,
    /// `done`, `reverted`, `frozen`, `failed` or `superseded`; `None` while that is open.
    pub outcome: Option<String>,
    /// From its begin to its end, or until now.
    pub ms: u64,
    /// From its begin to the first new worker that was ready.
    pub ready_ms: Option<u64>,
    /// Slots in which a new worker serves right now.
    pub serving: u32,
    /// Slots there are right now.
    pub slots: u32,
    /// What gave it up.
    pub failure: Option<DeployFailure>,
}

/// What gave a deploy up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployFailure {
    /// In words: which worker or `pre_start`, how it ended, why.
    pub what: String,
    /// Slot of the worker; `None` for `pre_start`.
    pub slot: Option<u32>,
    /// Its process.
    pub pid: Option<u32>,
    /// The last lines of output, oldest first.
    pub lines: Vec<String>,
}
