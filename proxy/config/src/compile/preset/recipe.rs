//! The table of presets: one entry for each server program, as its own documentation and its behaviour have it.

use std::time::Duration;

use crate::model::{Preset, WorkerTransport};

/// What is known of one program.
pub(in crate::compile) struct Recipe {
    /// What starts it where the file does not say.
    pub(super) program: &'static str,
    /// It runs without being told an application.
    pub(super) finds_app: bool,
    /// An application, for hints.
    pub(super) example: &'static str,
    /// How its workers are reached where the file does not say.
    pub(in crate::compile) transport: WorkerTransport,
    /// Options it always gets: one process, in the foreground, with nothing of its own to manage.
    pub(super) always: &'static [&'static [&'static str]],
    unix: Listen,
    port: Listen,
    /// None where it takes no descriptor.
    fd: Option<Listen>,
    pub(super) keep_alive: KeepAlive,
    pub(super) cap: Cap,
    /// Path that is asked before a worker is ready; none where a connection proves it, because the program listens only
    /// once the application runs.
    pub(super) ready: Option<&'static str>,
    /// Arguments that cannot be: names, why, and what to do.
    pub(super) refused: &'static [Remark],
    /// Arguments that are rarely meant.
    pub(super) doubtful: &'static [Remark],
}

/// Names of an option, what is wrong with it, and what to do.
type Remark = (&'static [&'static str], &'static str, &'static str);

/// How a program is told where to listen.
pub(super) struct Listen {
    pub(super) words: &'static [&'static str],
    pub(super) env: &'static [(&'static str, &'static str)],
}

/// How long a program keeps an idle connection.
pub(super) struct KeepAlive {
    /// What we ask for, or what it does where it cannot be asked.
    pub(super) default: Duration,
    /// How it is told; none where only its own code says.
    pub(super) option: Option<TimeOption>,
}

/// An option that takes a time.
pub(super) struct TimeOption {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) most: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

impl Unit {
    pub(super) fn write(self, time: Duration) -> String {
        match self {
            Self::Seconds => time.as_secs().to_string(),
            Self::Milliseconds => time.as_millis().to_string(),
        }
    }

    pub(super) const fn read(self, number: u64) -> Duration {
        match self {
            Self::Seconds => Duration::from_secs(number),
            Self::Milliseconds => Duration::from_millis(number),
        }
    }
}

/// Most requests under way with a worker.
pub(super) enum Cap {
    Fixed(u32),
    /// The program is told how many connections it takes: requests, tunnels and idle ones.
    Budget {
        option: &'static str,
        default: u32,
    },
    /// As many as it has threads, which it is told by an option with one of these names.
    Threads {
        option: &'static [&'static str],
        default: u32,
    },
    /// gunicorn's worker class decides.
    ByWorkerClass,
}

impl Recipe {
    /// The entry of a preset; custom has none.
    pub(in crate::compile) const fn of(preset: Preset) -> Option<&'static Self> {
        Some(match preset {
            Preset::Custom => return None,
            Preset::Uvicorn => &UVICORN,
            Preset::Granian => &GRANIAN,
            Preset::Gunicorn => &GUNICORN,
            Preset::Hypercorn => &HYPERCORN,
            Preset::Node => &NODE,
            Preset::Puma => &PUMA,
        })
    }

    /// None where workers cannot be reached in this way.
    pub(super) const fn listen(&self, transport: WorkerTransport) -> Option<&Listen> {
        match transport {
            WorkerTransport::Unix => Some(&self.unix),
            WorkerTransport::Port => Some(&self.port),
            WorkerTransport::Fd => self.fd.as_ref(),
        }
    }
}

const fn words(words: &'static [&'static str]) -> Listen {
    Listen { words, env: &[] }
}

const fn seconds(name: &'static str, default: u64) -> KeepAlive {
    let option = TimeOption { name, unit: Unit::Seconds, most: None };
    KeepAlive { default: Duration::from_secs(default), option: Some(option) }
}

const LISTENS: &str = "the preset says where workers listen";
const TRANSPORT: &str = "remove it; transport chooses between a socket and a port";
const ONE_PROCESS: &str = "a worker is one process here, and count says how many there are";
const COUNT: &str = "remove it, and write count";
const FOREGROUND: &str = "workers run in the foreground: who starts them watches them";
const REMOVE: &str = "remove it";

const UVICORN: Recipe = Recipe {
    program: "uvicorn",
    finds_app: false,
    example: "main:app",
    transport: WorkerTransport::Unix,
    // Event loop and parser stay on uvicorn's own `auto`: uvloop and httptools where they are installed.
    always: &[],
    unix: words(&["--uds", "{socket}"]),
    port: Listen { words: &["--port", "{port}", "--host", "{host}"], env: &[] },
    fd: Some(words(&["--fd", "{fd}"])),
    keep_alive: seconds("--timeout-keep-alive", 75),
    cap: Cap::Fixed(32),
    ready: None,
    refused: &[(&["--uds", "--fd", "--host", "--port"], LISTENS, TRANSPORT), (&["--workers"], ONE_PROCESS, COUNT)],
    doubtful: &[(
        &["--limit-concurrency"],
        "uvicorn counts idle connections too, and answers 503 beyond the limit",
        "remove it, and write cap: requests beyond it wait here",
    )],
};

const GRANIAN: Recipe = Recipe {
    program: "granian",
    finds_app: false,
    example: "main:app",
    transport: WorkerTransport::Unix,
    always: &[&["--interface", "asgi"], &["--workers", "1"]],
    unix: words(&["--uds", "{socket}"]),
    port: Listen { words: &["--port", "{port}", "--host", "{host}"], env: &[] },
    fd: None,
    // The time for a head is also that of an idle connection, and it takes no more than a minute.
    keep_alive: KeepAlive {
        default: Duration::from_secs(60),
        option: Some(TimeOption {
            name: "--http1-header-read-timeout",
            unit: Unit::Milliseconds,
            most: Some(Duration::from_secs(60)),
        }),
    },
    cap: Cap::Budget { option: "--backpressure", default: 32 },
    ready: None,
    refused: &[
        (&["--uds", "--host", "--port"], LISTENS, TRANSPORT),
        (&["--workers"], ONE_PROCESS, COUNT),
        (&["--respawn-failed-workers"], "a worker that ends is started again here, with the reason in the log", REMOVE),
    ],
    doubtful: &[],
};

const GUNICORN: Recipe = Recipe {
    program: "gunicorn",
    finds_app: false,
    example: "main:app",
    transport: WorkerTransport::Unix,
    // Its own heartbeat would kill a worker of threads before `request_timeout` does.
    always: &[&["--workers", "1"], &["--no-control-socket"], &["--timeout", "0"]],
    unix: words(&["--bind", "unix:{socket}"]),
    port: words(&["--bind", "{host}:{port}"]),
    fd: Some(words(&["--bind", "fd://{fd}"])),
    keep_alive: seconds("--keep-alive", 75),
    cap: Cap::ByWorkerClass,
    // It listens before its worker process has loaded the application.
    ready: Some("/"),
    refused: &[
        (&["--bind", "-b"], LISTENS, TRANSPORT),
        (&["--workers", "-w"], ONE_PROCESS, COUNT),
        (&["--daemon", "-D"], FOREGROUND, REMOVE),
    ],
    doubtful: &[],
};

const HYPERCORN: Recipe = Recipe {
    program: "hypercorn",
    finds_app: false,
    example: "main:app",
    transport: WorkerTransport::Unix,
    // 0 serves in the process itself; 1 would start another one below it.
    always: &[&["--workers", "0"]],
    unix: words(&["--bind", "unix:{socket}"]),
    port: words(&["--bind", "{host}:{port}"]),
    fd: Some(words(&["--bind", "fd://{fd}"])),
    keep_alive: seconds("--keep-alive", 75),
    cap: Cap::Fixed(32),
    ready: None,
    refused: &[
        (&["--bind", "-b", "--insecure-bind", "--quic-bind"], LISTENS, TRANSPORT),
        (&["--workers", "-w"], ONE_PROCESS, COUNT),
        (&["--daemon", "-D"], FOREGROUND, REMOVE),
    ],
    doubtful: &[],
};

const NODE: Recipe = Recipe {
    program: "node",
    finds_app: false,
    example: "server.js",
    // Every Node program knows PORT.
    transport: WorkerTransport::Port,
    always: &[],
    // `listen` takes a path where it takes a port.
    unix: Listen { words: &[], env: &[("PORT", "{socket}"), ("SOCKET", "{socket}")] },
    port: Listen { words: &[], env: &[("PORT", "{port}"), ("HOST", "{host}")] },
    fd: None,
    keep_alive: KeepAlive { default: Duration::from_secs(5), option: None },
    cap: Cap::Fixed(64),
    ready: None,
    refused: &[],
    doubtful: &[],
};

const PUMA: Recipe = Recipe {
    program: "puma",
    finds_app: true,
    example: "config.ru",
    transport: WorkerTransport::Unix,
    always: &[&["-w", "0"]],
    unix: words(&["-b", "unix://{socket}"]),
    port: words(&["-b", "tcp://{host}:{port}"]),
    fd: None,
    // Of the oldest version in use; newer ones say 65 s.
    keep_alive: KeepAlive { default: Duration::from_secs(20), option: None },
    cap: Cap::Threads { option: &["-t", "--threads"], default: 5 },
    ready: None,
    refused: &[(&["--bind", "-b", "--port", "-p"], LISTENS, TRANSPORT), (&["--workers", "-w"], ONE_PROCESS, COUNT)],
    doubtful: &[],
};
