//! Where lines of workers go: into a bounded memory, and to the program log or a file that begins anew by size and age.
//!
//! Lines come on the supervisor's thread, which must not wait for a disk or a terminal: it adds to a queue, and the thread of the
//! target writes.

mod book;
mod line;
mod queue;
mod rotation;
mod writer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tidegate_config::model::{Model, WorkerLogFile};

pub use book::{Book, Choice, Found};
pub use line::Line;

use self::rotation::RotatingFile;
use self::writer::{Inbox, Target, Writer};
use super::program_log::WorkerLines;
use super::workers::WorkerMetrics;

/// All of it.
#[derive(Debug)]
pub struct WorkerLog {
    book: Arc<Book>,
    /// Upstreams with a file of their own.
    routes: ArcSwap<HashMap<String, Arc<Inbox>>>,
    program: Arc<Inbox>,
    /// Guards the writers; taken by reloads, signals and the end only.
    writers: Mutex<Writers>,
    metrics: WorkerMetrics,
}

#[derive(Debug, Default)]
struct Writers {
    program: Option<Writer>,
    files: BTreeMap<PathBuf, Writer>,
}

/// Files that were opened for a configuration that is not in use yet.
#[derive(Debug, Default)]
pub(crate) struct PreparedWorkerLogs {
    fresh: BTreeMap<PathBuf, Writer>,
}

impl WorkerLog {
    /// Every line goes to the program log until a configuration is applied.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(program: WorkerLines, metrics: WorkerMetrics) -> io::Result<Self> {
        let writer = Writer::start("worker-log", Target::Program(program), metrics.clone())?;
        Ok(Self {
            book: Arc::default(),
            routes: ArcSwap::default(),
            program: writer.inbox(),
            writers: Mutex::new(Writers { program: Some(writer), files: BTreeMap::new() }),
            metrics,
        })
    }

    /// Takes a line. Never waits.
    pub fn take(&self, line: Line) {
        if line.dropped > 0 {
            self.metrics.log_lines_dropped(&line.upstream, line.slot, line.dropped);
        }
        self.book.push(line.clone());
        match self.routes.load().get(line.upstream.as_ref()) {
            Some(file) => file.push(line),
            None => self.program.push(line),
        }
    }

    /// The last lines.
    #[must_use]
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book)
    }

    /// Opens the files that a model needs beyond those that are open.
    ///
    /// # Errors
    /// When one cannot be opened; names it.
    pub(crate) fn prepare(&self, model: &Model) -> Result<PreparedWorkerLogs, String> {
        let writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut prepared = PreparedWorkerLogs::default();
        for (upstream, file) in files(model) {
            if !writers.files.contains_key(&file.path) && !prepared.fresh.contains_key(&file.path) {
                let writer = self.open(file).map_err(|error| cannot_open(upstream, &file.path, &error))?;
                prepared.fresh.insert(file.path.clone(), writer);
            }
        }
        Ok(prepared)
    }

    fn open(&self, file: &WorkerLogFile) -> io::Result<Writer> {
        let opened = RotatingFile::open(file.clone(), SystemTime::now())?;
        Writer::start("worker-log", Target::File(Box::new(opened), file.format), self.metrics.clone())
    }

    /// Uses a configuration from now on. Nothing can fail.
    pub(crate) fn apply(&self, model: &Model, prepared: PreparedWorkerLogs) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.files.extend(prepared.fresh);
        let mut routes = HashMap::new();
        for (upstream, file) in files(model) {
            if let Some(writer) = writers.files.get(&file.path) {
                writer.configure(file.clone());
                routes.insert(upstream.to_owned(), writer.inbox());
            }
        }
        self.routes.store(Arc::new(routes));
        let wanted: BTreeSet<&Path> = files(model).map(|(_, file)| file.path.as_path()).collect();
        let gone = writers.files.extract_if(.., |path, _| !wanted.contains(path.as_path()));
        close(gone.map(|(_, writer)| writer).collect(), CLOSE);
        drop(writers);
        self.book.retain(&model.upstreams.keys().cloned().collect());
    }

    /// Opens the files again, for who renames them himself.
    pub(crate) fn reopen(&self) {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner).files.values().for_each(Writer::reopen);
    }

    /// Writes what is left; no line comes any more.
    pub(crate) fn finish(&self) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let Writers { program, files } = std::mem::take(&mut *writers);
        close(files.into_values().chain(program).collect(), CLOSE);
    }
}

/// Upstreams whose workers have a file, and the file.
fn files(model: &Model) -> impl Iterator<Item = (&str, &WorkerLogFile)> {
    model.upstreams.values().filter_map(|upstream| Some((upstream.name.as_str(), upstream.worker_log.as_ref()?)))
}

/// All at once, so that one stuck target does not take the time of the others.
fn close(writers: Vec<Writer>, patience: Duration) {
    let until = Instant::now() + patience;
    writers.iter().for_each(|writer| writer.ask_to_end(until));
    for writer in writers {
        // It may notice the end of its time a little later.
        if !writer.join(until + Duration::from_millis(100)) {
            tracing::warn!("lines of workers were lost: their log takes no more");
        }
    }
}

fn cannot_open(upstream: &str, path: &Path, error: &io::Error) -> String {
    format!(
        "upstreams.{upstream}.workers.logs: cannot open {}: {error}; create its folder for this user or change `file`",
        path.display()
    )
}

#[cfg(test)]
mod tests;

/// How long a writer that is given up may take for what it still has.
const CLOSE: Duration = Duration::from_secs(2);
