//! The two logs while configurations change: the program log stays, the access log gets a new writer when its target
//! changes.

use crate::edge::shard::Shard;
use crate::observe::line_writer::{LineWriter, LossCounters};
use crate::observe::program_log::{ProgramLog, WorkerLines};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_config::model::{AccessLog, LogTarget, Logging};

/// Buffers that may wait for the access log's writer; one holds some 32 KiB of lines.
const CAPACITY: usize = 256;
/// How long a writer that is given up may take for what it still has.
const CLOSE: Duration = Duration::from_secs(2);

/// Both logs.
pub(crate) struct Logs {
    program: ProgramLog,
    losses: LossCounters,
    /// Guards the writer in use; taken by reloads and signals only.
    access: Mutex<Option<Access>>,
}

struct Access {
    target: LogTarget,
    writer: LineWriter,
}

/// A log target that was opened for a configuration that is not in use yet.
pub(crate) struct PreparedLogs {
    fresh: Option<Access>,
}

impl Logs {
    /// The program log is running; the access log is off until a configuration is applied.
    pub(crate) fn new(program: ProgramLog, losses: LossCounters) -> Self {
        Self { program, losses, access: Mutex::new(None) }
    }

    /// A way to print lines of workers.
    pub(crate) fn worker_lines(&self) -> WorkerLines {
        self.program.worker_lines()
    }

    /// Opens what `logging` needs beyond what is open.
    ///
    /// # Errors
    ///
    /// When the access log's file cannot be opened; names it.
    pub(crate) fn prepare(&self, logging: &Logging) -> Result<PreparedLogs, String> {
        let Some(AccessLog { to, .. }) = &logging.access else { return Ok(PreparedLogs { fresh: None }) };
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if access.as_ref().is_some_and(|access| access.target == *to) {
            return Ok(PreparedLogs { fresh: None });
        }
        let writer = LineWriter::start("access-log", to, CAPACITY, self.losses.clone());
        let writer = writer.map_err(|error| cannot_open(to, &error))?;
        Ok(PreparedLogs { fresh: Some(Access { target: to.clone(), writer }) })
    }

    /// Uses a configuration from now on. Nothing can fail.
    pub(crate) fn apply(&self, logging: &Logging, prepared: PreparedLogs, shards: &[Arc<Shard>]) {
        self.program.configure(logging.level, logging.format);
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        let old = match (prepared.fresh, &logging.access) {
            (Some(fresh), _) => access.replace(fresh),
            (None, None) => access.take(),
            (None, Some(_)) => None,
        };
        for shard in shards {
            let target = match (&logging.access, &*access) {
                (Some(log), Some(access)) => Some((log.format.clone(), access.writer.sink())),
                _ => None,
            };
            shard.log.configure(target);
        }
        drop(access);
        close(old);
    }

    /// Opens log files again, for logrotate.
    pub(crate) fn reopen(&self) {
        if let Some(access) = &*self.access.lock().unwrap_or_else(PoisonError::into_inner) {
            access.writer.reopen();
        }
    }

    /// Writes what is left; the last thing before the process ends.
    pub(crate) fn finish(&self) {
        close(self.access.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Lines that cannot be written within the time are lost with the process.
        let _ = self.program.flush(CLOSE);
    }
}

fn close(access: Option<Access>) {
    if let Some(Access { target, writer }) = access
        && !writer.close(CLOSE)
    {
        tracing::warn!(?target, "access log lines were lost: their target takes no more");
    }
}

fn cannot_open(target: &LogTarget, error: &io::Error) -> String {
    match target {
        LogTarget::File(path) => {
            format!(
                "logging.access: cannot open {}: {error}; create its folder for this user or change `to`",
                path.display()
            )
        }
        LogTarget::Stdout | LogTarget::Stderr => format!("logging.access: cannot start its writer: {error}"),
    }
}
