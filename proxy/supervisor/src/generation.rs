//! A frozen spawn specification: what was looked up when a generation was made holds for all its starts, so that a crash
//! after a deploy brings back what was running and not what a link points to now.

use std::ffi::OsString;
use std::path::PathBuf;

use nix::unistd::User;
use tidegate_config::model::WorkerSpec;

use crate::env_file;

/// A spec with its links resolved and its account looked up.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) spec: WorkerSpec,
    /// Without links; as written when it cannot be resolved, the shim then says why.
    pub(crate) cwd: Option<PathBuf>,
    /// Uid and gid of the spec's user; `None` also when there is no such user, the shim then says so.
    pub(crate) owner: Option<(u32, u32)>,
    /// What the files of variables said; else why nothing can be started.
    pub(crate) variables: Result<Vec<(OsString, OsString)>, String>,
}

impl Frozen {
    pub(crate) fn new(spec: &WorkerSpec) -> Self {
        let cwd = spec.cwd.as_ref().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
        let user = spec.user.as_ref().and_then(|name| User::from_name(name).ok().flatten());
        Self {
            spec: spec.clone(),
            cwd,
            owner: user.map(|user| (user.uid.as_raw(), user.gid.as_raw())),
            variables: env_file::read(&spec.launch.env_files),
        }
    }
}
