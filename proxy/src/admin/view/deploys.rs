//! Deploys of workers, as they go over the wire.

use std::collections::BTreeMap;

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
    /// `preparing`, `canary`, `holding`, `rolling`, `leaving`, `reverting` or `over`.
    pub phase: String,
    /// `done`, `reverted`, `frozen`, `failed` or `superseded`; `None` while that is open.
    pub outcome: Option<String>,
    /// How its workers come up; `None` before that is decided, and for a first start.
    pub plan: Option<DeployPlan>,
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
    /// The first new worker held against the old ones, where that is over.
    pub canary: Option<DeployCanary>,
    /// What became of requests while it went on.
    pub receipt: Option<DeployReceipt>,
}

/// The first new worker held against the old ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployCanary {
    /// `fine`, `more_errors`, `slower`, `too_few_requests`, `alone` or `unknown`. After the second and the third the deploy was
    /// given up.
    pub verdict: String,
    /// The same in words, with the figures.
    pub what: String,
    /// All old workers together.
    pub old: CanarySide,
    /// The new one.
    pub new: CanarySide,
}

/// What became of the requests of one side in that time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CanarySide {
    /// Requests that were answered or that failed.
    pub requests: u64,
    /// Those of them that failed: a status of 500 or more, no answer, or one that broke off.
    pub failed: u64,
    /// The time within which 95 of 100 answers began, in microseconds; `None` without any.
    pub p95_us: Option<u64>,
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

/// What became of requests and workers while a deploy went on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployReceipt {
    /// Generations that were given requests, oldest first.
    pub generations: Vec<GenerationReceipt>,
    /// Requests that waited for a worker.
    pub queue: DeployQueue,
    /// Boots of new workers that came to serve.
    pub boots: Option<DeployBoots>,
    /// The longest that an old worker needed to finish its requests; `None` where none has left.
    pub longest_drain_ms: Option<u64>,
    /// Workers, old or new, that ended without being asked to.
    pub lost: u32,
}

/// What became of the requests that workers of one generation were given. Each counts once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationReceipt {
    /// Its number.
    pub generation: u64,
    /// Those whose answer the client got, whatever its status.
    pub answered: u64,
    /// Answers among them with a status of 500 or more.
    pub server_errors: u64,
    /// Those that failed here and were sent again, or had been sent elsewhere beside.
    pub retried: u64,
    /// Those that failed for the client.
    pub failed: u64,
    /// What workers did to those that failed or were sent again: `upstream_closed`, `head_timeout`, ...
    pub causes: BTreeMap<String, u64>,
    /// Those whose client went away.
    pub abandoned: u64,
    /// Those that were ended for a reason of our own, such as the deadline of the request.
    pub cancelled: u64,
    /// Those that another worker, which a hedge went to as well, answered first.
    pub overtaken: u64,
}

/// Requests that waited while a deploy went on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployQueue {
    /// Most at a time.
    pub peak: u64,
    /// Refused because there was no room.
    pub full: u64,
    /// Refused because they were late while the queue was overloaded.
    pub late: u64,
    /// Refused because their time to wait was over.
    pub timeout: u64,
}

/// How long new workers took from start to ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployBoots {
    /// How many workers.
    pub count: u32,
    /// The fastest.
    pub shortest_ms: u64,
    /// The slowest.
    pub longest_ms: u64,
}

/// `GET /workers/plan`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plans {
    /// Upstreams with workers, by name.
    pub upstreams: Vec<PlanGroup>,
}

/// What a deploy of one upstream would do now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanGroup {
    /// Name of the upstream.
    pub name: String,
    /// What it would do.
    pub plan: DeployPlan,
}

/// How a deploy brings its workers up, and the figures behind that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployPlan {
    /// `green`, `rolling` or `one_by_one`.
    pub way: String,
    /// Processes beyond the count, at the most.
    pub surge: u32,
    /// Whether memory decided that, rather than the site file.
    pub by_memory: bool,
    /// How many workers there will be.
    pub workers: u32,
    /// What the workers of now take together, shared pages in part.
    pub old_bytes: u64,
    /// What a new worker is taken to need: as much as the largest one of now.
    pub each_bytes: Option<u64>,
    /// What those beyond the count need.
    pub need_bytes: Option<u64>,
    /// What may be taken: a quarter of the limit of every control group, and a tenth of the host's memory, is to stay free.
    pub spare_bytes: Option<u64>,
    /// Whether that is enough; `true` where it is not known.
    pub fits: bool,
}
