//! What the process of a worker is given besides its command and its account.

use std::path::PathBuf;

/// How the process of a worker is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSettings {
    /// Files of environment variables, absolute; later ones win. Read when a generation is made.
    pub env_files: Vec<PathBuf>,
    /// What it may use.
    pub limits: ProcessLimits,
    /// Permission bits that files it creates do not get.
    pub umask: u32,
    /// What asks it to end.
    pub stop_signal: StopSignal,
}

impl Default for LaunchSettings {
    /// As in a file that says nothing.
    fn default() -> Self {
        Self {
            env_files: Vec::new(),
            limits: ProcessLimits::default(),
            umask: 0o022,
            stop_signal: StopSignal::default(),
        }
    }
}

/// What the process of a worker may use, soft and hard limits alike (setrlimit(2)). `None` leaves what it would have, which
/// for files is the soft limit that we were started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Open files.
    pub nofile: Option<u64>,
    /// Processes and threads of its account.
    pub nproc: Option<u64>,
    /// Size of a core dump. Unit: bytes; the largest number is no limit.
    pub core: Option<u64>,
    /// Size of its address space. Unit: bytes.
    pub address_space: Option<u64>,
    /// How far it stands back for others, from -20 to 19.
    pub nice: Option<i32>,
    /// How soon the kernel ends it for want of memory, from -1000 to 1000; `None` is 300 more than ours.
    pub oom_score_adj: Option<i32>,
}

/// A signal that programs end on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum StopSignal {
    /// SIGTERM.
    #[default]
    Term,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGWINCH.
    Winch,
}

impl StopSignal {
    /// As in the file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Hup => "HUP",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Winch => "WINCH",
        }
    }
}
