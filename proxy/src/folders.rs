//! The two folders that the process owns: state that outlives it, and sockets that do not. And the lock that keeps
//! two processes from sharing them.

use crate::privileges::Account;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt, PermissionsExt as _};
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
    /// Temporary files of bodies, without names: always empty to look at.
    pub(crate) spool: PathBuf,
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
    /// Others could put files in it.
    #[error(
        "{} belongs to another user or may be written to by others; make it private (chmod go-w) or set `{key}`",
        path.display()
    )]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Which setting names another.
        key: &'static str,
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
    /// What the configuration names, else what the service manager gives, else the platform's defaults: `/var/lib/tidegate` for root, the XDG state folder
    /// for others.
    pub(crate) fn of(server: &Server, environment: &dyn Environment) -> Self {
        let runtime = server.runtime_dir.clone().unwrap_or_else(|| environment.runtime_folder());
        let state = server.state_dir.clone().unwrap_or_else(|| default_state(environment));
        let spool = server.spool.dir.clone().unwrap_or_else(|| state.join("spool"));
        Self { state, runtime, spool }
    }

    /// Makes them, private to this user.
    ///
    /// # Errors
    ///
    /// When one cannot be made.
    pub(crate) fn create(&self) -> Result<(), FolderError> {
        create_private(&self.state, "server.state_dir")?;
        create_private(&self.runtime, "server.runtime_dir")?;
        create_private(&self.spool, "server.spool.dir")
    }

    /// Lets workers that run as other accounts reach their own sockets below the runtime folder, and nothing else.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub(crate) fn let_workers_through(&self) -> std::io::Result<()> {
        std::fs::set_permissions(&self.runtime, Permissions::from_mode(0o711))
    }

    /// Makes an account their owner, before this process becomes that account.
    ///
    /// # Errors
    ///
    /// When a folder holds what is not ours, or the system refuses.
    pub(crate) fn give_to(&self, account: &Account) -> anyhow::Result<()> {
        let folders = [
            (&self.state, "server.state_dir"),
            (&self.runtime, "server.runtime_dir"),
            (&self.spool, "server.spool.dir"),
        ];
        for (folder, key) in folders {
            check_contents(folder, key)?;
            let folder = Path::new(folder);
            give_tree(rustix::fs::CWD, folder, account)
                .map_err(|error| anyhow::anyhow!("cannot give {} to the user: {error}", folder.display()))?;
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
    if let Ok(found) = std::fs::metadata(path)
        && found.is_dir()
    {
        return check_private(path, &found, key);
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| FolderError::Create { path: path.to_owned(), key, source })
}

/// A folder that was there: nobody else may be able to put files in it. Root may use another account's, since it gives
/// its folders to `server.user`.
fn check_private(path: &Path, found: &Metadata, key: &'static str) -> Result<(), FolderError> {
    let own = rustix::process::geteuid();
    let ours = own.is_root() || found.uid() == own.as_raw();
    if ours && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(FolderError::Exposed { path: path.to_owned(), key })
}

/// A folder of the system, named by mistake, must not be given away with all that is in it.
fn check_contents(folder: &Path, key: &str) -> anyhow::Result<()> {
    const OURS: [&str; 7] = ["lock", "workers", "internal-ca", "sticky", "spool", "admin.sock", "admin.sock.lock"];
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        anyhow::ensure!(
            OURS.iter().any(|ours| name == *ours),
            "{} holds \"{}\", which is not ours, so it is not given to `server.user`; set `{key}` to a folder of its own",
            folder.display(),
            name.to_string_lossy()
        );
    }
    Ok(())
}

/// Gives what root owns of a tree to an account. By descriptors, so that nobody who may already write to a part of the
/// tree can lead us out of it; links are given themselves.
fn give_tree(parent: BorrowedFd<'_>, name: &Path, account: &Account) -> rustix::io::Result<()> {
    let (user, group) = (Some(Uid::from_raw(account.uid)), Some(Gid::from_raw(account.gid)));
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if found.st_uid == 0 {
        rustix::fs::chownat(parent, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            give_tree(folder.as_fd(), Path::new(OsStr::from_bytes(name)), account)?;
        }
    }
    Ok(())
}

fn default_state(environment: &dyn Environment) -> PathBuf {
    let given = environment.variable("STATE_DIRECTORY");
    let mut given = given.iter().flat_map(|folders| folders.split(':')).map(PathBuf::from);
    if let Some(folder) = given.find(|path| path.is_absolute()) {
        return folder;
    }
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
