//! One worker with a process: its launch, its output, its readiness. Reads and writes only what is ready.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::{Errno, read};
use tidegate_config::model::{Template, WorkerTransport};
use tidegate_config::template::{Piece, pieces};

use crate::cpu_use::{CpuMark, CpuUse};
use crate::endpoint;
use crate::environment::{Found, worker_environment};
use crate::generation::Frozen;
use crate::launch::{Account, Launch};
use crate::limits::Limits;
use crate::link::Link;
use crate::output::{Line, LineSink, Output, OutputLine, Stream};
use crate::peer::Expected;
use crate::process::{Process, Shim};
use crate::process_table;
use crate::readiness::notify::{Message, NotifySocket};
use crate::readiness::{Gate, Question, Recheck, Target, Warmup};
use crate::state::{Exit, Notice, Silence};
use crate::template::Values;
use crate::worker::{ExitStatus, WorkerAddress, WorkerId};

/// What is the same for every start.
pub(crate) struct Surroundings {
    pub(crate) runtime_dir: PathBuf,
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Value of the marker variable.
    pub(crate) instance: String,
    /// Soft limit of open files before we raised ours.
    pub(crate) open_files: Option<u64>,
}

/// A launch, where it will be reached, and where it may say how it is.
pub(crate) struct Prepared {
    launch: Vec<u8>,
    address: WorkerAddress,
    notify: Option<NotifySocket>,
}

impl Surroundings {
    /// The variables that a generation begins with.
    pub(crate) fn found<'a>(&'a self, generation: &'a Frozen) -> Result<Found<'a>, String> {
        let files = generation.variables.as_ref().map_err(Clone::clone)?;
        Ok(Found { ours: &self.environment, files })
    }

    /// Everything that can be done, and can fail, before there is a process.
    pub(crate) fn prepare(
        &self,
        worker: &WorkerId,
        generation: &Frozen,
        is_taken: &dyn Fn(SocketAddr) -> bool,
    ) -> Result<Prepared, String> {
        let spec = &generation.spec;
        let folder = endpoint::pool_folder(&self.runtime_dir, &worker.pool);
        let address = match spec.transport {
            WorkerTransport::Unix | WorkerTransport::Fd => {
                endpoint::make_folder(&folder, generation.owner)?;
                endpoint::unix(&folder, worker)?
            }
            WorkerTransport::Port => endpoint::port(is_taken)?,
        };
        let watchdog = spec.hang.as_ref().and_then(|hang| hang.watchdog);
        let notify = if spec.ready.is_notified() || watchdog.is_some() {
            endpoint::make_folder(&folder, generation.owner)?;
            Some(NotifySocket::bind(&endpoint::notify(&folder, worker)?, generation.owner)?)
        } else {
            None
        };
        let (socket, port) = match &address {
            WorkerAddress::Unix(path) => (path.to_string_lossy().into_owned(), 0),
            WorkerAddress::Tcp(address) => (String::new(), address.port()),
        };
        let WorkerId { pool, slot, generation: number, .. } = worker;
        let values = Values { pool, slot: *slot, generation: *number, socket: &socket, port, pid: own_pid() };
        let found = self.found(generation)?;
        let mut environment = worker_environment(&found, spec, &values, &address, &self.instance);
        if let Some(notify) = &notify {
            environment.insert("NOTIFY_SOCKET".into(), notify.path().into());
        }
        let account = spec.user.clone().map(|user| Account { user, kept: spec.env.keys().cloned().collect() });
        let listener = match &address {
            WorkerAddress::Unix(path) if spec.transport == WorkerTransport::Fd => Some(path.into()),
            _ => None,
        };
        let mut texts = spec.command.iter().chain(spec.env.values());
        let is_told = texts.any(|text| pieces(text).contains(&Piece::Template(Template::Fd)));
        let has_folder = matches!(address, WorkerAddress::Unix(_));
        let launch = Launch {
            argv: spec.command.iter().map(|word| values.expand(word)).collect(),
            environment: environment.into_iter().collect(),
            cwd: generation.cwd.clone().map(PathBuf::into_os_string),
            account,
            socket_folder: has_folder.then(|| folder.into_os_string()),
            listen_fds: listener.is_some() && !is_told,
            listener,
            watchdog_usec: watchdog.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            limits: Limits::new(&spec.launch.limits, self.open_files),
            umask: spec.launch.umask,
            parent: own_pid(),
        };
        let launch = serde_json::to_vec(&launch).map_err(|error| format!("launch: {error}"))?;
        Ok(Prepared { launch, address, notify })
    }
}

/// Number of our process.
pub(crate) fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// Which descriptor of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readable {
    Exit,
    Link,
    Output(Stream),
    Notify,
    Probe,
}

/// What a worker is found to be, or says.
#[derive(Debug)]
pub(crate) enum News {
    /// It may get requests.
    Ready,
    /// Something else.
    Notice(Notice),
}

/// A worker's process and what we hold of it.
pub(crate) struct Spawn {
    id: WorkerId,
    address: WorkerAddress,
    generation: Arc<Frozen>,
    process: Process,
    link: Link,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    output: Output,
    /// Until it is ready.
    gate: Option<Gate>,
    /// Before it is, what it is asked for then.
    warmup: Option<Warmup>,
    /// From then on, if it is asked again.
    recheck: Option<Recheck>,
    /// While it is in doubt.
    question: Option<Question>,
    /// When its present doubt began, or the last one.
    doubted: Option<CpuMark>,
    notify: Option<NotifySocket>,
    /// What was heard since the last look.
    news: Vec<News>,
    killed: bool,
}

impl Spawn {
    pub(crate) fn new(id: WorkerId, shim: Shim, prepared: Prepared, generation: Arc<Frozen>) -> Self {
        let gate = Gate::new(&generation.spec.ready);
        Self {
            id,
            address: prepared.address,
            generation,
            process: shim.process,
            link: Link::new(shim.link, prepared.launch),
            stdout: Some(shim.stdout),
            stderr: Some(shim.stderr),
            output: Output::default(),
            gate: Some(gate),
            warmup: None,
            recheck: None,
            question: None,
            doubted: None,
            notify: prepared.notify,
            news: Vec::new(),
            killed: false,
        }
    }

    /// Kills the whole process group.
    pub(crate) fn kill(&mut self) {
        self.killed = true;
        self.process.kill_group();
    }

    /// Has its processes say where they are, and end.
    pub(crate) fn abort(&mut self) {
        self.killed = true;
        self.process.abort_group();
    }

    /// Takes down what it has used when a doubt about it begins.
    pub(crate) fn begin_doubt(&mut self, now: Duration) {
        self.doubted = CpuMark::now(self.process.pid(), now);
    }

    /// What it has used since.
    pub(crate) fn cpu_in_doubt(&self, now: Duration) -> Option<CpuUse> {
        Some(self.doubted?.until(CpuMark::now(self.process.pid(), now)?))
    }

    /// Puts a question to it, in place of one that is not answered yet.
    pub(crate) fn ask(&mut self, path: &str, timeout: Duration, now: Duration) {
        self.question = Some(Question::new(&self.target(), path, timeout, now));
    }

    /// Asks it to end.
    pub(crate) fn stop(&self) {
        self.process.stop(self.generation.spec.launch.stop_signal);
    }

    /// Whether we have killed it.
    pub(crate) fn was_killed(&self) -> bool {
        self.killed
    }

    pub(crate) fn id(&self) -> &WorkerId {
        &self.id
    }

    pub(crate) fn address(&self) -> &WorkerAddress {
        &self.address
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn has_port(&self, address: SocketAddr) -> bool {
        self.address == WorkerAddress::Tcp(address)
    }

    /// What to poll for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Readable, BorrowedFd<'_>, PollFlags)> {
        let exit = Some((Readable::Exit, self.process.descriptor().as_fd(), PollFlags::IN));
        let link = self.link.interest().map(|(socket, flags)| (Readable::Link, socket, flags));
        let output = [(Stream::Stdout, &self.stdout), (Stream::Stderr, &self.stderr)].into_iter().filter_map(
            |(stream, pipe)| pipe.as_ref().map(|pipe| (Readable::Output(stream), pipe.as_fd(), PollFlags::IN)),
        );
        let notify = self.notify.as_ref().map(|notify| (Readable::Notify, notify.socket().as_fd(), PollFlags::IN));
        let gate = self.gate.iter().flat_map(Gate::interests);
        let warmup = self.warmup.iter().flat_map(Warmup::interests);
        let probes = gate.chain(warmup).chain(self.recheck.iter().flat_map(Recheck::interests));
        let probes = probes.chain(self.question.iter().filter_map(Question::interest));
        let probes = probes.map(|(socket, flags)| (Readable::Probe, socket, flags));
        exit.into_iter().chain(link).chain(output).chain(notify).chain(probes)
    }

    /// When [`Spawn::advance`] has something to do although no descriptor has.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let gate = self.gate.as_ref().and_then(Gate::deadline);
        let recheck = self.recheck.as_ref().map(Recheck::deadline);
        let question = self.question.as_ref().map(Question::deadline);
        let warmup = self.warmup.as_ref().map(Warmup::deadline);
        gate.into_iter().chain(warmup).chain(recheck).chain(question).chain(self.output.deadline()).min()
    }

    /// Looks at a descriptor that has something to say.
    pub(crate) fn read(&mut self, readable: Readable, now: Duration, sink: &mut dyn FnMut(OutputLine)) {
        match readable {
            Readable::Link => self.go_on_linking(now),
            Readable::Output(stream) => self.read_output(stream, now, sink),
            Readable::Notify => self.hear_notices(),
            // An exit is the supervisor's business, a probe goes on in `advance`.
            Readable::Exit | Readable::Probe => {}
        }
    }

    /// Goes on with what time or a probe's socket allows, and tells what is new.
    pub(crate) fn advance(&mut self, now: Duration, sink: &mut dyn FnMut(OutputLine)) -> Vec<News> {
        let Self { id, process, output, gate, .. } = self;
        output.flush(now, &mut tag(id, process, gate, sink));
        if self.gate.as_mut().is_some_and(|gate| gate.advance(now)) {
            self.gate = None;
            self.warmup = self.generation.spec.warmup.as_ref().map(|warmup| Warmup::new(warmup, self.target(), now));
            match self.warmup {
                Some(_) => self.news.push(News::Notice(Notice::Warming)),
                None => self.begin_service(now),
            }
        }
        if let Some(end) = self.warmup.as_mut().and_then(|warmup| warmup.advance(now)) {
            self.warmup = None;
            match end {
                Ok(()) => self.begin_service(now),
                Err(problem) => self.news.push(News::Notice(Notice::NotWarm(problem))),
            }
        }
        if let Some(turn) = self.recheck.as_mut().and_then(|recheck| recheck.advance(now)) {
            self.news.push(News::Notice(Notice::Rotation(turn.err())));
        }
        if let Some(answer) = self.question.as_mut().and_then(|question| question.advance(now)) {
            self.question = None;
            let activity = || process_table::activity(self.process.pid());
            let silent = |problem| Notice::Silent(Silence { problem, activity: activity() });
            self.news.push(News::Notice(answer.map_or_else(silent, |()| Notice::Answered)));
        }
        std::mem::take(&mut self.news)
    }

    fn begin_service(&mut self, now: Duration) {
        self.news.push(News::Ready);
        let spec = &self.generation.spec;
        let recheck = |every| Recheck::new(&spec.ready, self.target(), every, now);
        self.recheck = spec.ready_interval.map(recheck);
    }

    /// What the worker says itself.
    fn hear_notices(&mut self) {
        let Some(notify) = &self.notify else { return };
        let (messages, has_stranger) = notify.receive(&self.target().expected);
        if has_stranger {
            tracing::warn!(worker = %self.id, "another process has sent to the worker's NOTIFY_SOCKET; it was not heard");
        }
        for message in messages {
            let notice = match message {
                Message::Ready => {
                    if let Some(gate) = &mut self.gate {
                        gate.notified();
                    }
                    continue;
                }
                Message::Stopping => {
                    // Whatever it answers from now on.
                    self.recheck = None;
                    Notice::Rotation(Some("it says that it is stopping".to_owned()))
                }
                Message::Watchdog => Notice::Alive,
                Message::Trigger => Notice::Unwell,
                Message::WatchdogTime(time) => Notice::WatchdogTime(time),
                Message::Status(text) => Notice::Status(text),
                Message::Extend(time) => Notice::ExtendBoot(time),
            };
            self.news.push(News::Notice(notice));
        }
    }

    fn target(&self) -> Target {
        let expected = Expected { pid: self.process.pid(), uid: self.uid() };
        Target { address: self.address.clone(), expected }
    }

    /// Reads everything that is left after the process has ended: the shim's failure or what the probe last saw, and the
    /// last lines.
    pub(crate) fn finish(&mut self, status: ExitStatus, now: Duration, sink: &mut dyn FnMut(OutputLine)) -> Exit {
        self.go_on_linking(now);
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_output(stream, now, sink);
        }
        let Self { id, process, output, gate, .. } = self;
        output.finish(now, &mut tag(id, process, gate, sink));
        let message = self.link.failure();
        let not_ready = self.gate.as_ref().map(|gate| format!("not ready: {}", gate.missing()));
        Exit { status, oom: false, message, not_ready, last_lines: self.output.tail() }
    }

    /// Takes the process's status and removes its socket.
    pub(crate) fn reap(self) {
        self.process.reap();
        if let WorkerAddress::Unix(path) = &self.address {
            endpoint::remove_socket(path);
        }
    }

    /// The command runs once the link has closed without a text; from then on it is asked whether it is ready.
    fn go_on_linking(&mut self, now: Duration) {
        if self.link.go_on() && self.link.failure().is_none() {
            let target = self.target();
            if let Some(gate) = &mut self.gate {
                gate.begin(target, now);
            }
        }
    }

    fn uid(&self) -> u32 {
        self.generation.owner.map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid)
    }

    fn read_output(&mut self, stream: Stream, now: Duration, sink: &mut dyn FnMut(OutputLine)) {
        let Self { id, process, output, gate, stdout, stderr, .. } = self;
        let pipe = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        read_pipe(pipe, stream, output, now, &mut tag(id, process, gate, sink));
    }
}

/// Reads what is there of a pipe, and closes it at its end.
pub(crate) fn read_pipe(
    pipe: &mut Option<OwnedFd>,
    stream: Stream,
    output: &mut Output,
    now: Duration,
    sink: LineSink<'_>,
) {
    let mut buffer = vec![0; CHUNK];
    // Bounded, so that one worker's flood does not keep the others waiting.
    for _ in 0..CHUNKS {
        let Some(open) = pipe.as_ref() else { return };
        match read(open, &mut buffer[..]) {
            Ok(0) => *pipe = None,
            Ok(count) => output.push(stream, &buffer[..count], now, sink),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return,
            Err(_) => *pipe = None,
        }
    }
}

fn tag<'a>(
    id: &'a WorkerId,
    process: &'a Process,
    gate: &'a mut Option<Gate>,
    sink: &'a mut dyn FnMut(OutputLine),
) -> impl FnMut(Line) + 'a {
    move |Line { stream, text, continued, dropped }| {
        if let Some(gate) = gate {
            gate.line(&text);
        }
        sink(OutputLine {
            pool: id.pool.clone(),
            slot: Some(id.slot),
            generation: id.generation,
            pid: process.pid().unsigned_abs(),
            stream,
            line: text,
            continued,
            dropped,
        });
    }
}

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 20;
