//! A thread that writes lines of workers to one target. Whoever hands lines over never waits: each worker has a queue of its own, so
//! that a flood of one costs the others neither lines nor turns.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tidegate_config::model::{WorkerLogFile, WorkerLogFormat};

use super::line::{Line, Shape, push_line};
use super::queue::Queue;
use super::rotation::RotatingFile;
use crate::observe::access_log::Timestamps;
use crate::observe::program_log::WorkerLines;
use crate::observe::workers::WorkerMetrics;

/// The thread.
#[derive(Debug)]
pub(super) struct Writer {
    inbox: Arc<Inbox>,
    thread: JoinHandle<()>,
}

/// The way into a [`Writer`].
#[derive(Debug)]
pub(super) struct Inbox {
    /// Guards what waits, for as long as it takes to add a line or take a batch.
    waiting: Mutex<Waiting>,
    wake: Condvar,
    metrics: WorkerMetrics,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By upstream and slot; empty ones are removed.
    queues: BTreeMap<(Arc<str>, Option<u32>), Queue>,
    reopen: bool,
    rule: Option<WorkerLogFile>,
    /// Everything before has been handed over: write it, and end at that time in any case.
    end: Option<Instant>,
}

/// Where lines go.
#[derive(Debug)]
pub(super) enum Target {
    /// The program log.
    Program(WorkerLines),
    /// A file of their own.
    File(Box<RotatingFile>, WorkerLogFormat),
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(name: &str, target: Target, metrics: WorkerMetrics) -> io::Result<Self> {
        let inbox = Arc::new(Inbox { waiting: Mutex::default(), wake: Condvar::new(), metrics });
        let theirs = Arc::clone(&inbox);
        let mut writing =
            Writing { target, inbox: theirs, times: Timestamps::default(), pending: Vec::new(), is_failing: false };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || writing.run())?;
        Ok(Self { inbox, thread })
    }

    pub(super) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Opens the file again, for who renames files himself; never waits.
    pub(super) fn reopen(&self) {
        self.inbox.lock().reopen = true;
        self.inbox.wake.notify_one();
    }

    /// Another rule for the same path holds from the next line on; never waits.
    pub(super) fn configure(&self, rule: WorkerLogFile) {
        self.inbox.lock().rule = Some(rule);
        self.inbox.wake.notify_one();
    }

    /// Asks for the end once everything handed over is written, or at that time; never waits.
    pub(super) fn ask_to_end(&self, at: Instant) {
        self.inbox.lock().end = Some(at);
        self.inbox.wake.notify_one();
    }

    /// Waits for the end that was asked for. Returns whether everything was written.
    pub(super) fn join(self, until: Instant) -> bool {
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(LOOK);
        }
        self.thread.join().is_ok() && self.inbox.lock().queues.is_empty()
    }
}

impl Inbox {
    /// Hands a line over. What there is no room for is dropped, the oldest first, counted, and told of.
    pub(super) fn push(&self, line: Line) {
        let key = (line.upstream.clone(), line.slot);
        let mut waiting = self.lock();
        let was_idle = waiting.queues.is_empty();
        let lost = waiting.queues.entry(key).or_default().push(line.clone());
        drop(waiting);
        if was_idle {
            self.wake.notify_one();
        }
        if lost > 0 {
            self.metrics.log_lines_dropped(&line.upstream, line.slot, lost);
        }
    }

    /// Whether an end was asked for and its time has come.
    fn is_over(&self) -> bool {
        self.lock().end.is_some_and(|end| end <= Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn has_work(&self) -> bool {
        !self.queues.is_empty() || self.reopen || self.rule.is_some() || self.end.is_some()
    }

    /// Some lines of each worker.
    fn take(&mut self) -> Vec<Line> {
        let lines = self.queues.values_mut().flat_map(Queue::take).collect();
        self.queues.retain(|_, queue| !queue.is_empty());
        lines
    }
}

/// What the thread owns.
struct Writing {
    target: Target,
    inbox: Arc<Inbox>,
    times: Timestamps,
    /// Lines that are formatted and not written yet.
    pending: Vec<u8>,
    /// The last write failed, perhaps in the middle of a line.
    is_failing: bool,
}

impl Writing {
    fn run(&mut self) {
        loop {
            let waiting = self.inbox.wake.wait_while(self.inbox.lock(), |waiting| !waiting.has_work());
            let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
            let (reopen, rule) = (std::mem::take(&mut waiting.reopen), waiting.rule.take());
            let lines = waiting.take();
            let is_last = waiting.end.is_some_and(|end| waiting.queues.is_empty() || end <= Instant::now());
            drop(waiting);
            self.adapt(reopen, rule);
            self.write(&lines);
            if is_last {
                return;
            }
        }
    }

    fn adapt(&mut self, reopen: bool, rule: Option<WorkerLogFile>) {
        let Target::File(file, format) = &mut self.target else { return };
        if let Some(rule) = rule {
            *format = rule.format;
            file.configure(rule);
        }
        if reopen && let Err(error) = file.reopen(SystemTime::now()) {
            self.inbox.metrics.log_errors().inc();
            tracing::error!(path = %file.path().display(), %error, "log cannot be reopened, the old file stays in use");
        }
    }

    fn write(&mut self, lines: &[Line]) {
        let mut first = 0;
        for (at, line) in lines.iter().enumerate() {
            let before = self.pending.len();
            push_line(&mut self.pending, line, self.target.shape(), &mut self.times);
            if let Target::File(file, _) = &mut self.target
                && file.is_full(before, self.pending.len() - before, line.time)
            {
                // What came before it goes into the old file.
                let fresh = self.pending.split_off(before);
                self.flush(&lines[first..at]);
                self.rotate();
                (self.pending, first) = (fresh, at);
            }
        }
        self.flush(&lines[first..]);
    }

    fn rotate(&mut self) {
        let Target::File(file, _) = &mut self.target else { return };
        if let Err(error) = file.rotate(SystemTime::now()) {
            self.inbox.metrics.log_errors().inc();
            tracing::error!(path = %file.path().display(), %error, "log cannot be begun anew, it grows on");
        }
    }

    /// Writes what is pending, which is these lines.
    fn flush(&mut self, lines: &[Line]) {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        let now = SystemTime::now();
        let written = match &mut self.target {
            Target::Program(program) => program.write(pending, lines.len() as u64, &|| self.inbox.is_over()),
            // A line cut by a full disk must not swallow the start of the next one.
            Target::File(file, _) if self.is_failing => file.write(b"\n", now).and_then(|()| file.write(&pending, now)),
            Target::File(file, _) => file.write(&pending, now),
        };
        let was_failing = std::mem::replace(&mut self.is_failing, written.is_err());
        if let Err(error) = written {
            self.inbox.metrics.log_errors().inc();
            for line in lines {
                self.inbox.metrics.log_lines_dropped(&line.upstream, line.slot, 1);
            }
            // Told once for each run of failures.
            if !was_failing && let Target::File(file, _) = &self.target {
                tracing::error!(path = %file.path().display(), %error, "log of workers cannot be written, lines are lost");
            }
        }
    }
}

impl Target {
    fn shape(&self) -> Shape {
        match self {
            Self::Program(program) if program.is_json() => Shape::Json,
            Self::Program(_) => Shape::Text,
            Self::File(_, WorkerLogFormat::Text) => Shape::DatedText,
            Self::File(_, WorkerLogFormat::Json) => Shape::Json,
        }
    }
}

/// How often an end is looked for.
const LOOK: Duration = Duration::from_millis(2);
