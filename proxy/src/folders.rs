//! The two folders that the process owns: state that outlives it, and sockets that do not. And the lock that keeps
//! two processes from sharing them.

use crate::privileges::Account;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tidegate_config::environment::Environment;
use tidegate_config::model::Server;

/// The process's folders.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// Outlives the process.
    pub(crate) state: PathBuf,
    /// Sockets; empty after a clean stop.
    pub(crate) runtime: PathBuf,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// It does not exist and cannot be made.
    #[error("cannot create {}: {source}; create it for this user or set `{key}`", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// Which setting names another.
        key: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "another tidegate runs with {}; stop it (`tidegate stop`) or set `server.runtime_dir` to another folder",
        path.display()
    )]
    Locked {
        /// The runtime folder.
        path: PathBuf,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Folders {
    /// What the configuration names, else the platform's defaults: `/var/lib/tidegate` for root, the XDG state folder
    /// for others.
    pub(crate) fn of(server: &Server, environment: &dyn Environment) -> Self {
        let runtime = server.runtime_dir.clone().unwrap_or_else(|| environment.runtime_folder());
        let state = server.state_dir.clone().unwrap_or_else(|| default_state(environment));
        Self { state, runtime }
    }

    /// Makes both, private to this user.
    ///
    /// # Errors
    ///
    /// When one cannot be made.
    pub(crate) fn create(&self) -> Result<(), FolderError> {
        create_private(&self.state, "server.state_dir")?;
        create_private(&self.runtime, "server.runtime_dir")
    }

    /// Makes an account their owner, before this process becomes that account.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub(crate) fn give_to(&self, account: &Account) -> anyhow::Result<()> {
        for folder in [&self.state, &self.runtime] {
            give_tree(folder, account.uid, account.gid)?;
        }
        Ok(())
    }

    /// Takes the runtime folder for this process; it is free again when the file is dropped.
    ///
    /// # Errors
    ///
    /// When another process has it.
    pub(crate) fn lock(&self) -> Result<File, FolderError> {
        let path = self.runtime.join("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = open.map_err(|source| FolderError::Lock { path: path.clone(), source })?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::Locked { path: self.runtime.clone() }),
            Err(error) => Err(FolderError::Lock { path, source: error.into() }),
        }
    }
}

fn create_private(path: &Path, key: &'static str) -> Result<(), FolderError> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| FolderError::Create { path: path.to_owned(), key, source })
}

/// Links are given themselves, not followed.
fn give_tree(path: &Path, user: u32, group: u32) -> anyhow::Result<()> {
    std::os::unix::fs::lchown(path, Some(user), Some(group))
        .map_err(|error| anyhow::anyhow!("cannot give {} to the user: {error}", path.display()))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_tree(&entry?.path(), user, group)?;
        }
    }
    Ok(())
}

fn default_state(environment: &dyn Environment) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/tidegate");
    }
    let absolute = |name| environment.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match (absolute("XDG_STATE_HOME"), absolute("HOME")) {
        (Some(state), _) => state.join("tidegate"),
        (None, Some(home)) => home.join(".local/state/tidegate"),
        (None, None) => environment.runtime_folder().join("state"),
    }
}
