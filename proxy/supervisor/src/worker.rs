//! Who a worker is, which state it is in and why it ended. Plain values: they travel in commands, events and status.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One start of one worker. The spawn number is never used twice in the life of a supervisor, so two ids
/// that differ only in it never share a socket, a pooled connection or a log line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId {
    /// Name of its pool, which is the upstream's.
    pub pool: Arc<str>,
    /// Small stable number within the pool, from 0.
    pub slot: u32,
    /// Number of the spawn specification it was started from, from 1 within the pool.
    pub generation: u64,
    /// Number of this start.
    pub spawn: u64,
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, slot, generation, spawn } = self;
        write!(f, "{pool}/{slot} (generation {generation}, spawn {spawn})")
    }
}

/// State of one worker. Only `Ready` gets new requests, and `Suspect` where nearly all are.
///
/// The set is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Waits for its time or for its turn to start; no process.
    Backoff,
    /// Has a process that is not ready.
    Starting,
    /// Answers its probe and is being warmed up.
    Warming,
    /// Gets requests.
    Ready,
    /// Perhaps hung: out of rotation until a probe decides.
    Suspect,
    /// Gets no new requests; those in flight may finish.
    Draining,
    /// Was asked to end, or killed.
    Stopping,
    /// Its process is gone.
    Exited,
}

impl WorkerState {
    /// Its name in logs, metrics and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Backoff => "backoff",
            Self::Starting => "starting",
            Self::Warming => "warming",
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
        }
    }

    /// Whether there is a process.
    #[must_use]
    pub const fn has_process(self) -> bool {
        !matches!(self, Self::Backoff | Self::Exited)
    }

    /// Whether it is on its way to or in service, rather than leaving.
    #[must_use]
    pub const fn is_staying(self) -> bool {
        matches!(self, Self::Backoff | Self::Starting | Self::Warming | Self::Ready | Self::Suspect)
    }

    /// Whether it is booting, which counts against the number of parallel starts.
    #[must_use]
    pub const fn is_booting(self) -> bool {
        matches!(self, Self::Starting | Self::Warming)
    }
}

/// Why a worker ended. A closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// Ended before it was ready, did not stand its warm-up, or could not be started at all.
    BootExit,
    /// Was not ready within the boot timeout.
    BootTimeout,
    /// Killed by a signal that we did not send.
    CrashSignal,
    /// Ended by itself with a status other than 0.
    CrashCode,
    /// Ended by itself with status 0.
    CleanExit,
    /// Killed by the kernel for want of memory.
    Oom,
    /// Did not answer any more.
    Hang,
    /// Served its number of requests.
    RecycleRequests,
    /// Reached its age.
    RecycleLifetime,
    /// Grew to its soft memory limit.
    RecycleRss,
    /// Grew over its hard memory limit.
    MemoryHard,
    /// Replaced by a newer generation, or its pool was removed.
    Reload,
    /// Its slot is no longer wanted.
    ScaleDown,
    /// The supervisor stops.
    Shutdown,
    /// An operator asked for it.
    Operator,
    /// Its end was seen but its status was not to be had.
    Lost,
}

impl ExitReason {
    /// Its name in logs, metrics and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BootExit => "boot_exit",
            Self::BootTimeout => "boot_timeout",
            Self::CrashSignal => "crash_signal",
            Self::CrashCode => "crash_code",
            Self::CleanExit => "clean_exit",
            Self::Oom => "oom",
            Self::Hang => "hang",
            Self::RecycleRequests => "recycle_requests",
            Self::RecycleLifetime => "recycle_lifetime",
            Self::RecycleRss => "recycle_rss",
            Self::MemoryHard => "memory_hard",
            Self::Reload => "reload",
            Self::ScaleDown => "scale_down",
            Self::Shutdown => "shutdown",
            Self::Operator => "operator",
            Self::Lost => "lost",
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// There never was a process.
    NotStarted,
    /// Somebody else took the status.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::NotStarted => f.write_str("not started"),
            Self::Unknown => f.write_str("status unknown"),
        }
    }
}

/// Where a worker is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerAddress {
    /// Its private unix socket.
    Unix(PathBuf),
    /// Its private port of the loopback interface.
    Tcp(SocketAddr),
}

impl fmt::Display for WorkerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}
