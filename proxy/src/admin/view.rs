//! Everything the admin endpoint sends, as types of its own: the program may change without changing the wire.
//!
//! States are text in lower case with underscores, so that an older client prints a state it does not know.

mod costs;
mod deploys;
mod health;
mod workers;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

pub use costs::{CostGroup, Costs, Figure, RouteCost};
pub use deploys::{
    CanarySide, Deploy, DeployBoots, DeployCanary, DeployFailure, DeployGroup, DeployPlan, DeployQueue, DeployReceipt,
    Deploys, GenerationReceipt, PlanGroup, Plans,
};
pub use health::{Breaker, Check, Ejected};
pub use workers::{Event, LogLine, Ordered, OrderedWorker, WorkerDetail, WorkerExit, WorkerGroup, Workers};

/// `GET /status`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Its process number.
    pub pid: u32,
    /// Number of the configuration in use.
    pub generation: u64,
    /// When the program started, see [`time`].
    pub started: String,
    /// Since when, in seconds.
    pub uptime_seconds: u64,
    /// Whether it is shutting down.
    pub stopping: bool,
    /// In the order of the file.
    pub listeners: Vec<Listener>,
    /// In the order of the file.
    pub sites: Vec<Site>,
    /// By name.
    pub rate_limits: Vec<RateLimit>,
    /// By name.
    pub concurrency_limits: Vec<ConcurrencyLimit>,
    /// By name.
    pub upstreams: Vec<Upstream>,
    /// `None` before the first reload.
    pub last_reload: Option<LastReload>,
}

/// A listener.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// The address it is bound to.
    pub address: String,
    /// `http`, `h2c` or `tls`.
    pub transport: String,
    /// Open connections.
    pub connections: u64,
}

/// A site.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// As in the file.
    pub hosts: Vec<String>,
    /// Names of the listeners it answers on.
    pub listeners: Vec<String>,
    /// When its certificate ends, see [`time`].
    pub certificate_expires: Option<String>,
}

/// A rate limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimit {
    /// Its name, or where it stands.
    pub name: String,
    /// As in the file.
    pub rate: String,
    /// Clients that are remembered at a time.
    pub entries: u64,
    /// Clients that are ahead of the rate right now.
    pub in_use: u64,
    /// Requests that had to wait.
    pub delayed: u64,
    /// Requests that were refused.
    pub rejected: u64,
    /// Requests that a dry run would have delayed or refused.
    pub dry_run: u64,
}

/// A limit of requests under way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConcurrencyLimit {
    /// Its name, or where it stands.
    pub name: String,
    /// Most requests of a client that are under way.
    pub max: u32,
    /// Requests under way, of all clients.
    pub in_flight: u64,
    /// Clients that have requests under way.
    pub clients: u64,
    /// Requests that were refused.
    pub rejected: u64,
    /// Requests that a dry run would have refused.
    pub dry_run: u64,
}

/// An upstream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// `http1` or `h2`.
    pub protocol: String,
    /// As in the file.
    pub balance: String,
    /// State of the whole: `ready`, `degraded` or `down`.
    pub state: String,
    /// Requests at its endpoints right now.
    pub in_flight: u64,
    /// Most requests at its endpoints at a time, where there is a limit.
    pub max_in_flight: Option<u32>,
    /// Requests that wait.
    pub queue: Queue,
    /// Its circuit breaker, if it has one.
    pub breaker: Option<Breaker>,
    /// Addresses able to take requests.
    pub endpoints: Vec<Endpoint>,
    /// Names of servers that are resolved.
    pub names: Vec<Name>,
    /// Supervised processes; empty for static servers.
    pub workers: Vec<Worker>,
    /// How many workers there should be; `None` for static servers.
    pub target: Option<u32>,
    /// Number of the newest spawn specification when it was given up, so that an older one serves.
    pub failed_generation: Option<u64>,
}

/// Requests that wait for an endpoint of an upstream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Queue {
    /// How many right now.
    pub waiting: u64,
    /// How many there may be; 0 without a queue.
    pub size: u64,
    /// How many there ever were at a time.
    pub peak: u64,
    /// Whether the newest come first, and late ones are refused.
    pub overloaded: bool,
    /// Requests refused because there was no room.
    pub full: u64,
    /// Requests refused because they were late while the queue was overloaded.
    pub late: u64,
    /// Requests refused because their time to wait was over.
    pub timeout: u64,
}

/// An endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Where it listens.
    pub address: String,
    /// The name that was resolved to it.
    pub name: Option<String>,
    /// `ready`, `ejected`, `unhealthy`, `down`, `draining`, ...
    pub state: String,
    /// Its time out of service, while it is.
    pub ejected: Option<Ejected>,
    /// How its checks go, where there are some and one has ended.
    pub check: Option<Check>,
    /// For balancing.
    pub weight: u32,
    /// Its tier: those of a lower number come first.
    pub priority: u32,
    /// Most requests at a time.
    pub max_conns: Option<u32>,
    /// Requests right now.
    pub in_flight: u64,
    /// Upgraded connections right now.
    pub tunnels: u64,
    /// Connections right now, idle ones among them.
    pub connections: u64,
    /// Requests since it is known.
    pub requests: u64,
    /// Failed ones of them.
    pub failures: u64,
    /// Those that another endpoint, which a hedge went to as well, answered first.
    pub overtaken: u64,
}

/// A name of servers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Name {
    /// As in the file.
    pub name: String,
    /// How its last resolution ended: `resolving` (there was none yet), `resolved`, `missing` or `failed`.
    pub state: String,
    /// Addresses that are used, those of an earlier resolution among them.
    pub addresses: u64,
    /// Until it is resolved again; 0 while it is.
    pub next_ms: u64,
    /// Why the last resolution brought nothing, or nothing for one of its hosts.
    pub reason: Option<String>,
}

/// A supervised process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// Its small stable number.
    pub slot: u32,
    /// `None` between two processes.
    pub pid: Option<u32>,
    /// `starting`, `ready`, `draining`, `stopping`, `backoff`, ..., `drained` for a slot that an operator emptied.
    pub state: String,
    /// Starts after the first.
    pub restarts: u64,
    /// Resident memory.
    pub rss_bytes: Option<u64>,
    /// Number of the spawn specification it runs.
    pub generation: u64,
    /// Since its start.
    pub uptime_seconds: Option<u64>,
    /// How the process before it ended, in words.
    pub last_exit: Option<String>,
    /// How it is, in its own words.
    pub says: Option<String>,
    /// Seconds since it last said that it lives.
    pub alive_seconds: Option<u64>,
    /// Why it gets no requests although it is ready.
    pub out: Option<String>,
}

/// What the last reload came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastReload {
    /// When, see [`time`].
    pub at: String,
    /// Seconds since then.
    pub age_seconds: u64,
    /// Whether the new configuration is in use.
    pub applied: bool,
    /// In short.
    pub message: String,
}

/// `GET /readyz`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Readiness {
    /// Whether requests are served as the configuration says.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
}

/// `POST /reload`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReloadReport {
    /// Whether the new configuration is in use. When not, nothing changed.
    pub applied: bool,
    /// Number of the configuration in use after this.
    pub generation: u64,
    /// In one line.
    pub message: String,
    /// What changes, one line each, for people.
    pub changes: Vec<String>,
    /// What changes, for programs.
    pub diff: serde_json::Value,
    /// Why it was refused, warnings among them.
    pub faults: Vec<Fault>,
}

/// Something wrong with a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// `error` or `warning`.
    pub severity: String,
    /// `file:line:column`, a file, or nothing.
    pub place: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub hint: Option<String>,
    /// All of it, several lines with the source line and a caret.
    pub text: String,
}

impl From<&tidegate_config::Fault> for Fault {
    fn from(fault: &tidegate_config::Fault) -> Self {
        Self {
            severity: match fault.severity {
                tidegate_config::Severity::Error => "error".to_owned(),
                tidegate_config::Severity::Warning => "warning".to_owned(),
            },
            place: fault.place.as_ref().map(ToString::to_string),
            problem: fault.problem.clone(),
            hint: fault.hint.clone(),
            text: fault.to_string(),
        }
    }
}

impl From<&crate::tls::fault::TlsFault> for Fault {
    fn from(fault: &crate::tls::fault::TlsFault) -> Self {
        let severity = fault.severity.word();
        Self {
            severity: severity.to_owned(),
            place: fault.path.as_ref().map(|path| path.display().to_string()),
            problem: format!("site \"{}\": {}", fault.site, fault.problem),
            hint: Some(fault.remedy.clone()),
            text: fault.report(),
        }
    }
}

/// An answer that is not the one asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// What went wrong.
    pub error: String,
}

/// A time as it goes over the wire: `2000-10-10T13:55:36+00:00`, always UTC.
#[must_use]
pub fn time(time: SystemTime) -> String {
    String::from_utf8_lossy(crate::observe::access_log::Timestamps::default().iso8601(time)).into_owned()
}

/// A span for people, in its two largest units: `2d 3h`, `5m 0s`, `12s`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}
