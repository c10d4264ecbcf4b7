//! The logs while configurations change: the program log stays, the access log gets a new writer when its target changes, and
//! so do files for lines of workers.

use crate::edge::shard::Shard;
use crate::observe::line_writer::{LineWriter, LossCounters};
use crate::observe::program_log::ProgramLog;
use crate::observe::worker_log::{PreparedWorkerLogs, WorkerLog};
use crate::observe::workers::WorkerMetrics;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_config::model::{AccessLog, LogTarget, Logging, Model};

/// Buffers that may wait for the access log's writer; one holds some 32 KiB of lines.
const CAPACITY: usize = 256;
/// How long a writer that is given up may take for what it still has.
const CLOSE: Duration = Duration::from_secs(2);

/// All logs.
pub(crate) struct Logs {
    program: ProgramLog,
    workers: Arc<WorkerLog>,
    losses: LossCounters,
    /// Guards the writer in use; taken by reloads and signals only.
    access: Mutex<Option<Access>>,
}

struct Access {
    target: LogTarget,
    writer: LineWriter,
}

/// Log targets that were opened for a configuration that is not in use yet.
pub(crate) struct PreparedLogs {
    fresh: Option<Access>,
    workers: PreparedWorkerLogs,
}

impl Logs {
    /// The program log is running; the access log is off until a configuration is applied.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub(crate) fn new(program: ProgramLog, losses: LossCounters, workers: WorkerMetrics) -> io::Result<Self> {
        let workers = Arc::new(WorkerLog::start(program.worker_lines(), workers)?);
        Ok(Self { program, workers, losses, access: Mutex::new(None) })
    }

    /// Where lines of workers go.
    pub(crate) fn workers(&self) -> &Arc<WorkerLog> {
        &self.workers
    }

    /// Opens what a model needs beyond what is open.
    ///
    /// # Errors
    ///
    /// When a file cannot be opened; names it.
    pub(crate) fn prepare(&self, model: &Model) -> Result<PreparedLogs, String> {
        let workers = self.workers.prepare(model)?;
        Ok(PreparedLogs { fresh: self.prepare_access(&model.logging)?, workers })
    }

    fn prepare_access(&self, logging: &Logging) -> Result<Option<Access>, String> {
        let Some(AccessLog { to, .. }) = &logging.access else { return Ok(None) };
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        if access.as_ref().is_some_and(|access| access.target == *to) {
            return Ok(None);
        }
        let writer = LineWriter::start("access-log", to, CAPACITY, self.losses.clone());
        let writer = writer.map_err(|error| cannot_open(to, &error))?;
        Ok(Some(Access { target: to.clone(), writer }))
    }

    /// Uses a configuration from now on. Nothing can fail.
    pub(crate) fn apply(&self, model: &Model, prepared: PreparedLogs, shards: &[Arc<Shard>]) {
        let logging = &model.logging;
        self.workers.apply(model, prepared.workers);
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
        self.workers.reopen();
    }

    /// Writes what is left; the last thing before the process ends.
    pub(crate) fn finish(&self) {
        close(self.access.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.workers.finish();
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
