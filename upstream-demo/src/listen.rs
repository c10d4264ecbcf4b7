//! The one listening socket of the worker: a unix path, a TCP port, or a socket the parent opened.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::FileTypeExt,
            net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
        },
    },
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use anyhow::{Context, Result, bail};
use rustix::{
    io::dup,
    net::{AddressFamily, getsockname, sockopt::socket_acceptconn},
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
    stdio,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use crate::options::Options;

/// A listening socket.
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// The path is removed when the listener is dropped, if we made it.
    Unix(UnixListener, Option<PathBuf>),
}

/// An accepted connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Opens the socket the options name. Needs a runtime.
    pub(crate) async fn open(options: &Options) -> Result<Self> {
        match (&options.uds, options.port, options.fd) {
            (Some(path), ..) => Self::unix(path),
            (None, Some(port), _) => {
                let address = (options.host.as_str(), port);
                let listener = TcpListener::bind(address).await;
                listener.map(Self::Tcp).with_context(|| format!("cannot listen on {}:{port}", options.host))
            }
            (None, None, Some(number)) => inherit(number).with_context(|| format!("cannot use inherited fd {number}")),
            (None, None, None) => bail!("nowhere to listen: give --uds, --port or --fd"),
        }
    }

    /// Waits for the next connection. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }

    fn unix(path: &Path) -> Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on '{}'", path.display()))?;
        Ok(Self::Unix(listener, Some(path.to_owned())))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, Some(path)) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the socket file of a process that is gone, and refuses to take over from one that is not.
fn remove_stale(path: &Path) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        bail!("'{}' is in the way: it is no socket", path.display());
    }
    if StdUnixStream::connect(path).is_ok() {
        bail!("'{}' is in use: another process listens there", path.display());
    }
    fs::remove_file(path).with_context(|| format!("cannot remove the stale socket '{}'", path.display()))
}

/// Makes a listener of the socket the parent left open as descriptor `number`.
fn inherit(number: i32) -> Result<Listener> {
    let socket = duplicate(number)?;
    if !socket_acceptconn(&socket).context("it is no socket")? {
        bail!("the socket does not listen");
    }
    let family = getsockname(&socket)?.address_family();
    if family == AddressFamily::UNIX {
        let listener = StdUnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Listener::Unix(UnixListener::from_std(listener)?, None))
    } else {
        let listener = StdTcpListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Listener::Tcp(TcpListener::from_std(listener)?))
    }
}

/// A descriptor of our own for `number`. Taking the number itself would need `unsafe`; asking the kernel for a copy
/// does not.
fn duplicate(number: i32) -> io::Result<OwnedFd> {
    match number {
        0 => Ok(dup(stdio::stdin())?),
        1 => Ok(dup(stdio::stdout())?),
        2 => Ok(dup(stdio::stderr())?),
        _ => {
            let own = pidfd_open(getpid(), PidfdFlags::empty())?;
            Ok(pidfd_getfd(own.as_fd(), number, PidfdGetfdFlags::empty())?)
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => {
                let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
                write!(f, "http://{}", listener.local_addr().unwrap_or(unknown))
            }
            Self::Unix(_, Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(_, None) => write!(f, "an inherited unix socket"),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("socket");
        let live = StdUnixListener::bind(&path).expect("a fresh path");
        let refused = remove_stale(&path).expect_err("somebody listens");
        assert!(refused.to_string().contains("is in use"), "{refused}");
        drop(live);
        assert!(remove_stale(&path).is_ok());
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_way_stays() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        assert!(remove_stale(file.path()).is_err());
        assert!(file.path().exists());
    }

    #[tokio::test]
    async fn an_inherited_socket_listens_on() {
        let parent = StdTcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = parent.local_addr().expect("an address");
        let listener = inherit(parent.as_raw_fd()).expect("a listening socket");
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
        assert!(accepted.is_ok() && connected.is_ok());
    }

    #[test]
    fn an_inherited_fd_must_listen() {
        let file = tempfile::tempfile().expect("a temporary file");
        assert!(inherit(file.as_raw_fd()).is_err());
        assert!(inherit(9999).is_err());
    }
}
