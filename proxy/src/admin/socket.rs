//! The socket of the admin endpoint: a unix socket that only its owner can open, or loopback TCP.
//!
//! The unix socket is made in a private folder and moved into place, so that nobody can connect before its permissions
//! are right and clients never see none. A lock file beside it, held as long as the program runs, excludes a second one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use tidegate_config::model::Address;

/// Longest path of a unix socket (unix(7): 108 bytes with the final zero).
const LONGEST_PATH: usize = 107;

/// A bound admin socket. Dropping it removes the unix socket, as long as it is still ours.
#[derive(Debug)]
pub struct AdminSocket {
    pub(crate) listener: Listening,
    place: Option<Place>,
}

#[derive(Debug)]
pub(crate) enum Listening {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Where the unix socket is, and what tells that it is ours.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    inode: (u64, u64),
    _lock: File,
}

/// Why the admin socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another instance of this configuration runs.
    #[error("admin socket {}: another tidegate uses it; stop that one or give admin.listen another path", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket has that name.
    #[error("admin socket {}: there is a file of that name that is no socket; give admin.listen another path", .0.display())]
    NotASocket(PathBuf),
    /// The system allows less.
    #[error("admin socket {}: the path is longer than {LONGEST_PATH} bytes; give admin.listen a shorter one", .0.display())]
    TooLong(PathBuf),
    /// Without TLS the token could be read on the way.
    #[error("admin address {0} is not a loopback address; use 127.0.0.1, [::1] or a unix socket")]
    NotLoopback(SocketAddr),
    /// The system refused.
    #[error("admin socket {at}: cannot {what}")]
    Io {
        /// Path or address.
        at: String,
        /// What was being done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl AdminSocket {
    /// Binds the address of the model. Call it before privileges are dropped.
    ///
    /// A socket that a dead process left is replaced; a live one is refused.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(address: &Address) -> Result<Self, BindError> {
        match address {
            Address::Unix(path) => Self::bind_unix(path),
            Address::Tcp(address) => Self::bind_tcp(*address),
        }
    }

    /// The port that was bound, when it was asked for as 0; `None` for a unix socket.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listening::Tcp(listener) => listener.local_addr().ok(),
            Listening::Unix(_) => None,
        }
    }

    fn bind_tcp(address: SocketAddr) -> Result<Self, BindError> {
        if !address.ip().to_canonical().is_loopback() {
            return Err(BindError::NotLoopback(address));
        }
        let failed = |source| BindError::Io { at: address.to_string(), what: "listen", source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener: Listening::Tcp(listener), place: None })
    }

    fn bind_unix(path: &Path) -> Result<Self, BindError> {
        let failed = |what, source| BindError::Io { at: path.display().to_string(), what, source };
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(BindError::TooLong(path.to_owned()));
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| failed("create its folder", error))?;
        let lock = lock_beside(path)?;
        refuse_what_lives(path)?;
        let listener = bind_private(folder, path)?;
        listener.set_nonblocking(true).map_err(|error| failed("listen", error))?;
        let inode = inode(path).map_err(|error| failed("look at it", error))?;
        Ok(Self {
            listener: Listening::Unix(listener),
            place: Some(Place { path: path.to_owned(), inode, _lock: lock }),
        })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Some(place) = &self.place
            && inode(&place.path).is_ok_and(|inode| inode == place.inode)
        {
            // After a change of account the folder may not be ours any more: the next start replaces the socket.
            let _ = fs::remove_file(&place.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Takes the lock that says "this socket has an owner"; the kernel frees it when that process ends in any way.
fn lock_beside(path: &Path) -> Result<File, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |source| BindError::Io { at: path.display().to_string(), what: "lock it", source };
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(PathBuf::from(name))
        .map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// Refuses what is no socket, and a socket that somebody else (an older version, another program) listens on.
fn refuse_what_lives(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { at: path.display().to_string(), what: "look at it", source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    // Never waits: a full queue of a live socket is an answer too.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    probe.set_nonblocking(true).map_err(failed)?;
    match probe.connect(&SockAddr::unix(path).map_err(failed)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(()) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

/// Binds in a folder that only we can enter, sets the permissions, and moves the socket into place.
fn bind_private(folder: &Path, path: &Path) -> Result<UnixListener, BindError> {
    let failed = |what, source| BindError::Io { at: path.display().to_string(), what, source };
    let private = folder.join(format!(".{}", std::process::id()));
    let _ = fs::remove_dir_all(&private);
    DirBuilder::new().mode(0o700).create(&private).map_err(|error| failed("make it in its folder", error))?;
    let temporary = private.join("s");
    let bound = UnixListener::bind(&temporary).map_err(|error| failed("listen", error)).and_then(|listener| {
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&temporary, private).map_err(|error| failed("set its permissions", error))?;
        fs::rename(&temporary, path).map_err(|error| failed("move it into place", error))?;
        Ok(listener)
    });
    let _ = fs::remove_dir_all(&private);
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path) -> Address {
        Address::Unix(path.to_owned())
    }

    #[test]
    fn only_the_owner_can_open_it_and_it_goes_with_us() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/admin.sock");
        let socket = AdminSocket::bind(&unix(&path)).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
        let left: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["admin.sock.lock"]);
    }

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = AdminSocket::bind(&unix(&path)).unwrap();
        assert!(matches!(AdminSocket::bind(&unix(&path)), Err(BindError::InUse(_))));
        drop(first);
        let foreign = UnixListener::bind(&path).unwrap();
        assert!(matches!(AdminSocket::bind(&unix(&path)), Err(BindError::InUse(_))));
        drop(foreign);
        assert!(path.exists(), "left behind");
        let socket = AdminSocket::bind(&unix(&path)).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists(), "not ours any more");
        drop(successor);
    }

    #[test]
    fn other_files_long_paths_and_public_addresses_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(AdminSocket::bind(&unix(&path)), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let long = folder.path().join("x".repeat(120));
        assert!(matches!(AdminSocket::bind(&unix(&long)), Err(BindError::TooLong(_))));
        for public in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let address = Address::Tcp(public.parse().unwrap());
            assert!(matches!(AdminSocket::bind(&address), Err(BindError::NotLoopback(_))), "{public}");
        }
    }
}
