//! A command that runs once for a generation: started through the shim like a worker, its output read the same way, but
//! without an address and a probe. What it comes to is its exit status.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};

use crate::environment::hook_environment;
use crate::generation::Frozen;
use crate::launch::{Account, Launch};
use crate::limits::Limits;
use crate::link::Link;
use crate::output::{Line, Output, OutputLine, Stream};
use crate::process::{Process, Shim};
use crate::spawn::{Readable, Surroundings, own_pid, read_pipe};
use crate::state::Exit;
use crate::template::Values;
use crate::worker::ExitStatus;

/// One run of a command for a generation. Run numbers and spawn numbers are one sequence, never used twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HookId {
    /// Name of the pool.
    pub pool: Arc<str>,
    /// Number of the generation.
    pub generation: u64,
    /// Number of this run.
    pub run: u64,
}

impl fmt::Display for HookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, generation, run } = self;
        write!(f, "{pool}/pre_start (generation {generation}, run {run})")
    }
}

impl Surroundings {
    /// The launch of a generation's `pre_start`, as the shim reads it.
    pub(crate) fn prepare_hook(&self, hook: &HookId, generation: &Frozen) -> Result<Vec<u8>, String> {
        let spec = &generation.spec;
        let pre_start = spec.pre_start.as_ref().ok_or_else(|| "there is no pre_start".to_owned())?;
        let HookId { pool, generation: number, .. } = hook;
        // The words that differ from worker to worker do not stand in it.
        let values = Values { pool, slot: 0, generation: *number, socket: "", port: 0, pid: own_pid() };
        let found = self.found(generation)?;
        let environment = hook_environment(&found, spec, &values, &self.instance);
        let argv = pre_start.command.iter().map(|word| values.expand(word)).collect();
        self.command_launch(generation, argv, environment)
    }

    /// The launch of a command beside the workers of a generation: as their account, in their folder, under their limits,
    /// without a socket.
    pub(crate) fn command_launch(
        &self,
        generation: &Frozen,
        argv: Vec<String>,
        environment: BTreeMap<OsString, OsString>,
    ) -> Result<Vec<u8>, String> {
        let spec = &generation.spec;
        let launch = Launch {
            watchdog_usec: None,
            argv,
            environment: environment.into_iter().collect(),
            cwd: generation.cwd.clone().map(PathBuf::into_os_string),
            account: spec.user.clone().map(|user| Account { user, kept: spec.env.keys().cloned().collect() }),
            socket_folder: None,
            listener: None,
            listen_fds: false,
            limits: Limits::new(&spec.launch.limits, self.open_files),
            umask: spec.launch.umask,
            parent: own_pid(),
        };
        serde_json::to_vec(&launch).map_err(|error| format!("launch: {error}"))
    }
}

/// A hook's process and what we hold of it.
pub(crate) struct Hook {
    id: HookId,
    process: Process,
    link: Link,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    output: Output,
}

impl Hook {
    pub(crate) fn new(id: HookId, shim: Shim, launch: Vec<u8>) -> Self {
        Self {
            id,
            process: shim.process,
            link: Link::new(shim.link, launch),
            stdout: Some(shim.stdout),
            stderr: Some(shim.stderr),
            output: Output::default(),
        }
    }

    pub(crate) fn id(&self) -> &HookId {
        &self.id
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// What to poll for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Readable, BorrowedFd<'_>, PollFlags)> {
        let exit = Some((Readable::Exit, self.process.descriptor().as_fd(), PollFlags::IN));
        let link = self.link.interest().map(|(socket, flags)| (Readable::Link, socket, flags));
        let pipes = [(Stream::Stdout, &self.stdout), (Stream::Stderr, &self.stderr)].into_iter();
        let output = pipes.filter_map(|(stream, pipe)| {
            pipe.as_ref().map(|pipe| (Readable::Output(stream), pipe.as_fd(), PollFlags::IN))
        });
        exit.into_iter().chain(link).chain(output)
    }

    /// When [`Hook::flush`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.output.deadline()
    }

    /// Looks at a descriptor that has something to say.
    pub(crate) fn read(&mut self, readable: Readable, now: Duration, sink: &mut dyn FnMut(OutputLine)) {
        match readable {
            Readable::Link => {
                self.link.go_on();
            }
            Readable::Output(stream) => self.read_output(stream, now, sink),
            // An exit is the supervisor's business, and nobody probes a hook.
            Readable::Exit | Readable::Notify | Readable::Probe => {}
        }
    }

    /// Hands on lines that have waited long enough for their end.
    pub(crate) fn flush(&mut self, now: Duration, sink: &mut dyn FnMut(OutputLine)) {
        let Self { id, process, output, .. } = self;
        output.flush(now, &mut tag(id, process, sink));
    }

    /// Reads everything that is left after the process has ended.
    pub(crate) fn finish(&mut self, status: ExitStatus, now: Duration, sink: &mut dyn FnMut(OutputLine)) -> Exit {
        self.link.go_on();
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read_output(stream, now, sink);
        }
        let Self { id, process, output, .. } = self;
        output.finish(now, &mut tag(id, process, sink));
        Exit { status, oom: false, message: self.link.failure(), not_ready: None, last_lines: self.output.tail() }
    }

    /// Takes the process's status.
    pub(crate) fn reap(self) {
        self.process.reap();
    }

    fn read_output(&mut self, stream: Stream, now: Duration, sink: &mut dyn FnMut(OutputLine)) {
        let Self { id, process, output, stdout, stderr, .. } = self;
        let pipe = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        read_pipe(pipe, stream, output, now, &mut tag(id, process, sink));
    }
}

fn tag<'a>(id: &'a HookId, process: &'a Process, sink: &'a mut dyn FnMut(OutputLine)) -> impl FnMut(Line) + 'a {
    move |Line { stream, text, continued, dropped }| {
        sink(OutputLine {
            pool: id.pool.clone(),
            slot: None,
            generation: id.generation,
            pid: process.pid().unsigned_abs(),
            stream,
            line: text,
            continued,
            dropped,
        });
    }
}
