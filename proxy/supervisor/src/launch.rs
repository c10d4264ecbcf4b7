//! One start as the supervisor hands it to the shim: JSON over a socket, never argv, because the environment may hold
//! secrets and argv is for everybody to read.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Everything the shim needs to become the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// Never empty.
    pub(crate) argv: Vec<String>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) cwd: Option<OsString>,
    pub(crate) account: Option<Account>,
    /// Folder in which the worker will create its socket.
    pub(crate) socket_folder: Option<OsString>,
    /// Path of the socket that the worker inherits.
    pub(crate) listener: Option<OsString>,
    /// Whether it is told so in the way of systemd. Not where the command says it: gunicorn takes the socket twice then.
    pub(crate) listen_fds: bool,
    /// How long it may not have said that it lives, in microseconds as systemd has it.
    pub(crate) watchdog_usec: Option<u64>,
    pub(crate) limits: Limits,
    pub(crate) umask: u32,
    /// The process that must still be the shim's parent.
    pub(crate) parent: i32,
}

/// Whom to run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) user: String,
    /// Which of HOME, USER and LOGNAME the spec sets itself; the others follow the account.
    pub(crate) kept: Vec<String>,
}
