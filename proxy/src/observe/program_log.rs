//! The program log: tracing events and the output of workers, as text or JSON on standard error.
//!
//! Lines go through a [`super::line_writer::LineWriter`], so that a stuck terminal stops neither a shard nor the thread that supervises
//! workers. Level and format can change while running.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_config::model::{LogFormat, LogLevel, LogTarget};
use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::{Layer, fmt, reload};

use super::access_log::push_plain;
use super::line_writer::{LineSink, LineWriter, LossCounters};

/// Lines that wait for the writer at most.
const WAITING_LINES: usize = 4_096;

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The running program log.
pub struct ProgramLog {
    writer: LineWriter,
    shared: Arc<Shared>,
    filter: reload::Handle<EnvFilter, Filtered>,
    layer: reload::Handle<BoxedLayer, Registry>,
    options: Options,
}

type Filtered = tracing_subscriber::layer::Layered<reload::Layer<BoxedLayer, Registry>, Registry>;

/// What does not come from the site file.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `RUST_LOG`, which wins over the level of the site file.
    pub directives: Option<String>,
    /// Whether standard error is a terminal: decides `auto`.
    pub terminal: bool,
    /// Whether `NO_COLOR` forbids colours on it.
    pub no_color: bool,
}

#[derive(Debug, Default)]
struct Shared {
    json: AtomicBool,
}

/// The way of workers' output into the program log.
#[derive(Debug, Clone)]
pub struct WorkerLines {
    sink: LineSink,
    shared: Arc<Shared>,
}

impl ProgramLog {
    /// Starts the writer and makes the log. The subscriber still has to be installed: [`ProgramLog::install`] in the program,
    /// `tracing::subscriber::with_default` in a test.
    ///
    /// # Errors
    /// When the writer's thread cannot be started.
    pub fn start(
        level: LogLevel,
        format: LogFormat,
        options: Options,
        target: &LogTarget,
        losses: LossCounters,
    ) -> io::Result<(Self, impl Subscriber + Send + Sync + use<>)> {
        let writer = LineWriter::start("program-log", target, WAITING_LINES, losses)?;
        let shared = Arc::new(Shared::default());
        let (layer, layer_handle) = reload::Layer::new(options.layer(format, &writer, &shared));
        let (filter, filter_handle) = reload::Layer::new(options.filter(level));
        let subscriber = Registry::default().with(layer).with(filter);
        let log = Self { writer, shared, filter: filter_handle, layer: layer_handle, options };
        Ok((log, subscriber))
    }

    /// [`ProgramLog::start`] on standard error, for the whole process.
    ///
    /// # Errors
    /// When the writer's thread cannot be started or a log was installed before.
    pub fn install(level: LogLevel, format: LogFormat, options: Options, losses: LossCounters) -> io::Result<Self> {
        let (log, subscriber) = Self::start(level, format, options, &LogTarget::Stderr, losses)?;
        tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
        Ok(log)
    }

    /// Changes level and format from the next event on.
    pub fn configure(&self, level: LogLevel, format: LogFormat) {
        // Both fail only when the subscriber is gone, and then nobody logs.
        let _ = self.layer.reload(self.options.layer(format, &self.writer, &self.shared));
        let _ = self.filter.reload(self.options.filter(level));
    }

    /// A way in for lines of workers.
    #[must_use]
    pub fn worker_lines(&self) -> WorkerLines {
        WorkerLines { sink: self.writer.sink(), shared: Arc::clone(&self.shared) }
    }

    /// Waits until everything logged so far is written, for at most `deadline`; the last thing before the process ends.
    #[must_use]
    pub fn flush(&self, deadline: Duration) -> bool {
        self.writer.sink().flush(deadline)
    }
}

impl Options {
    fn layer(&self, format: LogFormat, writer: &LineWriter, shared: &Shared) -> BoxedLayer {
        let json = match format {
            LogFormat::Auto => !self.terminal,
            LogFormat::Text => false,
            LogFormat::Json => true,
        };
        let colours = self.terminal && !self.no_color && !json;
        shared.json.store(json, Ordering::Relaxed);
        let lines = Lines { sink: writer.sink(), keep_escapes: colours };
        let layer = fmt::layer().with_writer(lines).with_ansi(colours);
        if json {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        } else {
            layer.boxed()
        }
    }

    /// `RUST_LOG` when it is usable, else the level, with libraries one step quieter: their `debug` is for their authors.
    fn filter(&self, level: LogLevel) -> EnvFilter {
        if let Some(directives) = self.directives.as_deref().filter(|directives| !directives.trim().is_empty())
            && let Ok(filter) = EnvFilter::try_new(directives)
        {
            return filter;
        }
        EnvFilter::new(match level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => {
                "debug,h2=info,hyper=info,hyper_util=info,tokio=info,rustls=info,hickory_resolver=info,hickory_net=info,hickory_proto=info"
            }
            LogLevel::Trace => "trace",
        })
    }
}

impl WorkerLines {
    /// Whether the program log has objects, so that lines shall be some too.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.shared.json.load(Ordering::Relaxed)
    }

    /// Waits until a buffer of so many whole lines is written, or `is_over` says so: for a thread that has time.
    ///
    /// # Errors
    /// When it was over before.
    pub fn write(&self, buffer: Vec<u8>, lines: u64, is_over: &dyn Fn() -> bool) -> io::Result<()> {
        if self.sink.write_through(buffer, lines, is_over) { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

/// Gives every event a buffer that becomes one line.
#[derive(Debug, Clone)]
struct Lines {
    sink: LineSink,
    /// Colours are ours to print; what events carry was escaped by the formatter.
    keep_escapes: bool,
}

/// One event on its way to the channel.
#[derive(Debug)]
struct Line {
    sink: LineSink,
    keep_escapes: bool,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { sink: self.sink.clone(), keep_escapes: self.keep_escapes, text: Vec::new() }
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let body = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        if body.is_empty() {
            return;
        }
        let mut line = Vec::with_capacity(self.text.len() + 1);
        line.extend_from_slice(&one_line(body, self.keep_escapes));
        line.push(b'\n');
        self.sink.send(line, 1);
    }
}

/// An event is one line, whatever a field holds; most are already.
fn one_line(body: &[u8], keep_escapes: bool) -> Cow<'_, [u8]> {
    let harmless = |byte: &u8| *byte >= 0x20 && *byte != 0x7f || *byte == b'\t' || keep_escapes && *byte == 0x1b;
    if body.iter().all(harmless) {
        return Cow::Borrowed(body);
    }
    let mut line = Vec::with_capacity(body.len() + 16);
    for piece in body.chunk_by(|a, b| harmless(a) == harmless(b)) {
        if harmless(&piece[0]) {
            line.extend_from_slice(piece);
        } else {
            push_plain(&mut line, piece);
        }
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::line_writer::tests::losses;

    const SOON: Duration = Duration::from_secs(10);

    struct Captured {
        log: ProgramLog,
        path: std::path::PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Captured {
        fn lines(&self) -> Vec<String> {
            assert!(self.log.flush(SOON));
            std::fs::read_to_string(&self.path).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn with_log(level: LogLevel, format: LogFormat, options: Options, body: impl FnOnce(&Captured)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let target = LogTarget::File(path.clone());
        let (log, subscriber) = ProgramLog::start(level, format, options, &target, losses()).unwrap();
        tracing::subscriber::with_default(subscriber, || body(&Captured { log, path, _folder: folder }));
    }

    #[test]
    fn level_and_format_change_while_running() {
        with_log(LogLevel::Info, LogFormat::Text, Options::default(), |captured| {
            tracing::debug!("hidden");
            tracing::info!(generation = 2, "reloaded");
            captured.log.configure(LogLevel::Debug, LogFormat::Json);
            tracing::debug!(path = "a\"b\nc", "seen");
            let lines = captured.lines();
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(lines[0].contains("INFO") && lines[0].ends_with("reloaded generation=2"), "{lines:?}");
            let event: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
            assert_eq!((&event["message"], &event["path"]), (&"seen".into(), &"a\"b\nc".into()));
        });
    }

    #[test]
    fn auto_is_json_away_from_a_terminal() {
        for (terminal, json) in [(true, false), (false, true)] {
            let options = Options { terminal, no_color: true, ..Options::default() };
            with_log(LogLevel::Info, LogFormat::Auto, options, |captured| {
                tracing::info!("started");
                assert_eq!(captured.lines()[0].starts_with('{'), json);
            });
        }
    }

    #[test]
    fn directives_of_the_environment_win() {
        let options = Options { directives: Some("error".to_owned()), ..Options::default() };
        with_log(LogLevel::Trace, LogFormat::Text, options, |captured| {
            tracing::warn!("hidden");
            tracing::error!("seen");
            assert_eq!(captured.lines().len(), 1);
        });
    }

    #[test]
    fn a_field_cannot_forge_a_line() {
        with_log(LogLevel::Info, LogFormat::Text, Options::default(), |captured| {
            tracing::info!(path = %"x\n2026 INFO forged\x1b[2J", "refused");
            let lines = captured.lines();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(!lines[0].contains('\x1b') && lines[0].contains("forged"), "{lines:?}");
        });
    }

    #[test]
    fn lines_of_workers_come_whole_and_in_the_shape_of_the_log() {
        with_log(LogLevel::Info, LogFormat::Text, Options::default(), |captured| {
            let workers = captured.log.worker_lines();
            assert!(!workers.is_json());
            workers.write(b"app/0 | one\napp/0 | two\n".to_vec(), 2, &|| false).unwrap();
            captured.log.configure(LogLevel::Info, LogFormat::Json);
            assert!(workers.is_json());
            assert_eq!(captured.lines(), ["app/0 | one", "app/0 | two"]);
        });
    }
}
