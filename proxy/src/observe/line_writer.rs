//! A thread that owns a log target, fed through a bounded channel, so that a slow disk or terminal never stops traffic.
//!
//! The access log hands over whole buffers, the program log single lines. What does not fit into the channel, and what
//! the target refuses, is counted and gone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tidegate_config::model::LogTarget;

/// How often a full channel is tried again during shutdown.
const RETRY: Duration = Duration::from_millis(2);
/// How often it is asked whether a wait is over.
const PATIENCE: Duration = Duration::from_millis(50);

/// Counts what is lost.
#[derive(Debug, Clone)]
pub struct LossCounters {
    /// Lines that nobody will see.
    pub dropped_lines: IntCounter,
    /// Writes and reopens that failed.
    pub errors: IntCounter,
}

/// The thread and its target.
#[derive(Debug)]
pub struct LineWriter {
    sink: LineSink,
    reopen: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// The way into a [`LineWriter`]; clones share it.
#[derive(Debug, Clone)]
pub struct LineSink {
    sender: SyncSender<Message>,
    losses: LossCounters,
}

#[derive(Debug)]
enum Message {
    /// Whole lines, and how many.
    Lines(Vec<u8>, u64),
    /// Answer once everything before has been written.
    Flush(SyncSender<()>),
    /// Look at the flags.
    Wake,
    /// Everything before has been sent; end.
    Stop,
}

impl LineWriter {
    /// Opens the target (a file is appended to, created with 0640) and starts the thread under this name.
    ///
    /// `capacity` is the number of buffers the channel holds.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub fn start(name: &str, target: &LogTarget, capacity: usize, losses: LossCounters) -> io::Result<Self> {
        let output = Output::open(target)?;
        let (sender, receiver) = sync_channel(capacity);
        let reopen = Arc::new(AtomicBool::new(false));
        let mut writing = Writing { output, torn: false, reopen: Arc::clone(&reopen), losses: losses.clone() };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || writing.run(&receiver))?;
        Ok(Self { sink: LineSink { sender, losses }, reopen, thread })
    }

    /// A way in.
    #[must_use]
    pub fn sink(&self) -> LineSink {
        self.sink.clone()
    }

    /// Opens the file again, for logrotate; never waits. The old file stays in use when that fails.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        // A full channel wakes the thread anyway.
        let _ = self.sink.sender.try_send(Message::Wake);
    }

    /// Writes what was handed over and ends the thread; blocks for at most `deadline`.
    ///
    /// Returns whether all was written in time. A writer stuck in its target is left behind.
    #[must_use]
    pub fn close(self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        if !self.sink.send_until(Message::Stop, until) {
            return false;
        }
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(RETRY);
        }
        self.thread.join().is_ok()
    }
}

impl LineSink {
    /// Hands over a buffer of `lines` whole lines; never waits. What does not fit is dropped and counted.
    pub fn send(&self, buffer: Vec<u8>, lines: u64) {
        if self.sender.try_send(Message::Lines(buffer, lines)).is_err() {
            self.losses.dropped_lines.inc_by(lines);
        }
    }

    /// Hands over a buffer, waiting for room for at most `deadline`: only for shutdown.
    pub fn send_waiting(&self, buffer: Vec<u8>, lines: u64, deadline: Duration) {
        if !self.send_until(Message::Lines(buffer, lines), Instant::now() + deadline) {
            self.losses.dropped_lines.inc_by(lines);
        }
    }

    /// Hands over a buffer and waits until it is written, for as long as it is not over: who writes through holds one buffer of
    /// the channel at a time, however slow the target is. Returns whether it was written; if not, the caller counts.
    #[must_use]
    pub fn write_through(&self, buffer: Vec<u8>, lines: u64, is_over: &dyn Fn() -> bool) -> bool {
        let (done, written) = sync_channel(1);
        if !self.send_unless(Message::Lines(buffer, lines), is_over) || !self.send_unless(Message::Flush(done), is_over)
        {
            return false;
        }
        loop {
            match written.recv_timeout(PATIENCE) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Timeout) if !is_over() => {}
                Err(_) => return false,
            }
        }
    }

    /// Waits until everything handed over so far is written, for at most `deadline`; returns whether it is.
    #[must_use]
    pub fn flush(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let (done, written) = sync_channel(1);
        self.send_until(Message::Flush(done), until)
            && written.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok()
    }

    fn send_until(&self, message: Message, until: Instant) -> bool {
        self.send_unless(message, &|| Instant::now() >= until)
    }

    fn send_unless(&self, mut message: Message, is_over: &dyn Fn() -> bool) -> bool {
        loop {
            match self.sender.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) if !is_over() => message = back,
                Err(TrySendError::Full(_)) => return false,
            }
            thread::sleep(RETRY);
        }
    }
}

/// What the thread owns.
struct Writing {
    output: Output,
    /// The last write failed in the middle of a line.
    torn: bool,
    reopen: Arc<AtomicBool>,
    losses: LossCounters,
}

impl Writing {
    fn run(&mut self, receiver: &Receiver<Message>) {
        while let Ok(message) = receiver.recv() {
            self.reopen_when_asked();
            match message {
                Message::Lines(buffer, lines) => self.write(&buffer, lines),
                Message::Flush(done) => drop(done.try_send(())),
                Message::Wake => {}
                Message::Stop => return,
            }
        }
    }

    fn reopen_when_asked(&mut self) {
        if self.reopen.swap(false, Ordering::Acquire)
            && let Err(error) = self.output.reopen()
        {
            self.losses.errors.inc();
            tracing::error!(path = self.output.name(), %error, "log cannot be reopened, the old file stays in use");
        }
    }

    fn write(&mut self, buffer: &[u8], lines: u64) {
        // A line cut by a full disk must not swallow the start of the next one.
        let result = if self.torn { self.output.write(b"\n") } else { Ok(()) };
        let result = result.and_then(|()| self.output.write(buffer));
        let was_torn = std::mem::replace(&mut self.torn, result.is_err());
        if let Err(error) = result {
            self.losses.errors.inc();
            self.losses.dropped_lines.inc_by(lines);
            // Told once for each run of failures, which also keeps the program log from feeding itself.
            if !was_torn {
                tracing::error!(path = self.output.name(), %error, "log cannot be written, lines are lost");
            }
        }
    }
}

enum Output {
    Stdout,
    Stderr,
    File { file: File, path: PathBuf },
}

impl Output {
    fn open(target: &LogTarget) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Stdout => Self::Stdout,
            LogTarget::Stderr => Self::Stderr,
            LogTarget::File(path) => Self::File { file: open_append(path)?, path: path.clone() },
        })
    }

    /// For messages.
    fn name(&self) -> String {
        match self {
            Self::Stdout => "standard output".to_owned(),
            Self::Stderr => "standard error".to_owned(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File { file, path } = self {
            *file = open_append(path)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File { file, .. } => file.write_all(bytes),
        }
    }
}

fn open_append(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn losses() -> LossCounters {
        LossCounters {
            dropped_lines: IntCounter::new("dropped", "lines").unwrap(),
            errors: IntCounter::new("errors", "writes").unwrap(),
        }
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn everything_handed_over_is_written_and_a_renamed_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let writer = LineWriter::start("t", &LogTarget::File(path.clone()), 4, losses()).unwrap();
        let sink = writer.sink();
        sink.send(b"one\n".to_vec(), 1);
        assert!(sink.flush(SOON));
        let rotated = folder.path().join("access.log.1");
        std::fs::rename(&path, &rotated).unwrap();
        sink.send(b"two\n".to_vec(), 1);
        assert!(sink.flush(SOON));
        writer.reopen();
        sink.send(b"three\n".to_vec(), 1);
        assert!(writer.close(SOON));
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
    }

    #[test]
    fn a_stuck_target_drops_and_counts_instead_of_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let _reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let counters = losses();
        let writer = LineWriter::start("t", &LogTarget::File(path), 2, counters.clone()).unwrap();
        let sink = writer.sink();
        let started = Instant::now();
        for _ in 0..20 {
            sink.send(vec![b'x'; 65_536], 10);
        }
        assert!(started.elapsed() < Duration::from_secs(2));
        let dropped = counters.dropped_lines.get();
        assert!((150..=190).contains(&dropped) && dropped.is_multiple_of(10), "{dropped}");
        assert!(!sink.flush(Duration::from_millis(20)));
        assert!(!writer.close(Duration::from_millis(20)), "a stuck writer is left behind");
    }

    #[test]
    fn a_full_disk_is_counted_and_the_next_line_starts_anew() {
        let counters = losses();
        let mut writing = Writing {
            output: Output::open(&LogTarget::File("/dev/full".into())).unwrap(),
            torn: false,
            reopen: Arc::default(),
            losses: counters.clone(),
        };
        writing.write(b"lost\n", 1);
        assert_eq!((counters.errors.get(), counters.dropped_lines.get()), (1, 1));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        writing.output = Output::open(&LogTarget::File(path.clone())).unwrap();
        writing.write(b"kept\n", 1);
        writing.write(b"kept too\n", 1);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "\nkept\nkept too\n");
    }
}
