//! Workers, orders about them and what happened to them, as they go over the wire.

use serde::{Deserialize, Serialize};

/// `GET /workers`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workers {
    /// Upstreams with workers, by name.
    pub upstreams: Vec<WorkerGroup>,
}

/// The workers of one upstream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerGroup {
    /// Name of the upstream.
    pub name: String,
    /// `starting`, `healthy`, `degraded`, `crashloop` or `empty`.
    pub state: String,
    /// How many workers there should be, emptied slots among them.
    pub target: u32,
    /// Whether an operator chose the target, rather than the site file.
    pub scaled: bool,
    /// How many are ready.
    pub ready: u32,
    /// By slot, the older one of a slot first. An emptied slot has an entry without a process, in the state `drained`.
    pub workers: Vec<WorkerDetail>,
}

/// One worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerDetail {
    /// Its small stable number.
    pub slot: u32,
    /// Number of its start, never repeated; `None` for an emptied slot.
    pub spawn: Option<u64>,
    /// `None` between two processes.
    pub pid: Option<u32>,
    /// `starting`, `ready`, `draining`, `stopping`, `backoff`, `drained`, ...
    pub state: String,
    /// Why it leaves once another one serves in its place.
    pub replaced_for: Option<String>,
    /// Number of the spawn specification it runs.
    pub generation: u64,
    /// Since its start.
    pub age_seconds: Option<u64>,
    /// Requests it was given.
    pub requests: u64,
    /// Failed ones of them.
    pub failures: u64,
    /// Requests right now.
    pub in_flight: u64,
    /// How long the oldest of them has been under way.
    pub oldest_ms: Option<u64>,
    /// Places among them of requests that took too long and were given up: handlers may still be at them.
    pub abandoned: u64,
    /// Most requests at a time, if there is a limit.
    pub max_in_flight: Option<u32>,
    /// Connections right now, idle ones among them.
    pub connections: u64,
    /// Upgraded connections right now.
    pub tunnels: u64,
    /// Resident memory of it and what it started.
    pub rss_bytes: Option<u64>,
    /// CPUs that it kept busy lately; of its whole life while it is young.
    pub cpus: Option<f64>,
    /// CPU time of its whole life.
    pub cpu_seconds: Option<f64>,
    /// Threads of it and what it started.
    pub threads: Option<u64>,
    /// Open descriptors of it and what it started.
    pub open_fds: Option<u64>,
    /// How often its slot was started again.
    pub restarts: u64,
    /// How the process before it ended.
    pub last_exit: Option<WorkerExit>,
}

/// The end of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerExit {
    /// `crash_signal`, `reload`, `operator`, ...
    pub reason: String,
    /// In words: `exit code 1`, `signal 9`.
    pub status: String,
    /// Seconds since then.
    pub age_seconds: u64,
}

/// `POST /workers/...`: an order was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ordered {
    /// Name of the upstream.
    pub upstream: String,
    /// The workers that it is about, as they were.
    pub workers: Vec<OrderedWorker>,
    /// How many workers there were to be before.
    pub target: u32,
    /// Number of the last event before the order: what comes after it may come of it.
    pub last_event: u64,
    /// Number of the deploy that was ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy: Option<u64>,
}

/// A worker that an order is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderedWorker {
    /// Its slot.
    pub slot: u32,
    /// Number of its start; `None` for a slot that was empty.
    pub spawn: Option<u64>,
    /// Its process.
    pub pid: Option<u32>,
}

/// A line of `GET /events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Counts on by one for each event.
    pub number: u64,
    /// When: `2000-10-10T13:55:36.123Z`.
    pub time: String,
    /// `transition`, `failure`, `pool`, `scaled`, `killed`, ...; `lost` where events came faster than they were read.
    pub event: String,
    /// Name of the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Slot of the worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Number of its spawn specification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Number of its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawn: Option<u64>,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What was entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why, as a word of a closed set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time spent in the state left, of a failure the life time of the process, of a hang the time since its first question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// Of a hang: CPU time that its processes used in that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// How the process ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The last lines of output before a failure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// A line of `GET /logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLine {
    /// Counts on with each line of any worker.
    pub number: u64,
    /// When it was read: `2000-10-10T13:55:36.123Z`.
    pub time: String,
    /// Name of the upstream.
    pub upstream: String,
    /// Slot of the worker; `None` for a line of `pre_start`.
    pub slot: Option<u32>,
    /// Number of its spawn specification.
    pub generation: u64,
    /// Its process.
    pub pid: u32,
    /// `stdout` or `stderr`; `tidegate` for a line of ours about lines that are not there.
    pub stream: String,
    /// The text. Control characters and what is no UTF-8 are escaped.
    pub line: String,
    /// It goes on where the stream's last line ended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub continued: bool,
}
