//! Listening sockets: one set per listener, one socket per shard.
//!
//! TCP sockets share a port by `SO_REUSEPORT`, so that each shard has its own accept queue. That option would also
//! let a second program share the port silently, so the address is bound once without it first: a port in use is an
//! error. Unix sockets are bound once and duplicated.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use tidegate_config::model::Address;

/// Connections the kernel may hold for one socket before they are accepted.
const BACKLOG: i32 = 4096;

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The address is taken.
    #[error("listener {name}: {address} is in use by another process; stop it or choose another address")]
    InUse {
        /// The listener.
        name: String,
        /// As text.
        address: String,
    },
    /// A low port without the right to it.
    #[error(
        "listener {name}: no permission to bind {address}; start as root with `server.user`, grant CAP_NET_BIND_SERVICE, \
         or use a port above 1023"
    )]
    NotPermitted {
        /// The listener.
        name: String,
        /// As text.
        address: String,
    },
    /// Anything else.
    #[error("listener {name}: cannot bind {address}: {source}")]
    Other {
        /// The listener.
        name: String,
        /// As text.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The sockets of one listener, one for each shard.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The real address: a port 0 in the file has become a real port.
    pub(crate) address: Address,
    /// In the order of the shards.
    pub(crate) sockets: Vec<OwnedFd>,
}

/// Binds `address` and listens, with one socket for each of `shards`. `shared`: the port is ours already, on another
/// address, so that it cannot be probed for other programs.
pub(crate) fn bind(name: &str, address: &Address, shards: usize, shared: bool) -> Result<Bound, BindError> {
    let bound = match address {
        Address::Tcp(address) => bind_tcp(*address, shards, shared),
        Address::Unix(path) => bind_unix(path, shards),
    };
    bound.map_err(|source| {
        let (name, address) = (name.to_owned(), display(address));
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { name, address },
            io::ErrorKind::PermissionDenied => BindError::NotPermitted { name, address },
            _ => BindError::Other { name, address, source },
        }
    })
}

fn bind_tcp(address: SocketAddr, shards: usize, shared: bool) -> io::Result<Bound> {
    let address = if shared { address } else { probe(address)? };
    let sockets = (0..shards)
        .map(|_| {
            let socket = tcp_socket(address, true)?;
            socket.listen(BACKLOG)?;
            Ok(OwnedFd::from(socket))
        })
        .collect::<io::Result<_>>()?;
    Ok(Bound { address: Address::Tcp(address), sockets })
}

/// The address with its real port, when no other program has it. The socket is gone again on return: without the
/// option to share it would exclude ours too.
fn probe(address: SocketAddr) -> io::Result<SocketAddr> {
    let socket = tcp_socket(address, false)?;
    socket.listen(1)?;
    Ok(socket.local_addr()?.as_socket().unwrap_or(address))
}

fn tcp_socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Without it a restart would have to wait for old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn bind_unix(path: &Path, shards: usize) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    let mut sockets = Vec::with_capacity(shards);
    for _ in 1..shards {
        sockets.push(OwnedFd::from(socket.try_clone()?));
    }
    sockets.push(OwnedFd::from(socket));
    Ok(Bound { address: Address::Unix(path.to_owned()), sockets })
}

/// Removes the socket file of a process that is gone; one that answers is in use, any other file is not ours.
fn remove_stale(path: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::Error::other("a file that is no socket stands there; remove it or choose another path"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(io::Error::from(io::ErrorKind::AddrInUse)),
    }
}

/// An address as people write it.
pub(crate) fn display(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::{BindError, bind};
    use tidegate_config::model::Address;

    fn loopback(port: u16) -> Address {
        Address::Tcp(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn a_port_in_use_is_an_error_although_it_could_be_shared() {
        let first = bind("web", &loopback(0), 2, false).expect("a free port");
        assert_eq!(first.sockets.len(), 2);
        let second = bind("web", &first.address, 2, false);
        assert!(matches!(second, Err(BindError::InUse { .. })), "{second:?}");
    }

    #[test]
    fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("web.sock");
        let address = Address::Unix(path.clone());
        drop(bind("web", &address, 3, false).expect("first"));
        let live = bind("web", &address, 2, false).expect("the file left behind is stale");
        assert!(matches!(bind("web", &address, 1, false), Err(BindError::InUse { .. })));
        drop(live);
        std::fs::remove_file(&path).expect("stale file");
        std::fs::write(&path, "precious").expect("a plain file");
        assert!(bind("web", &address, 1, false).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    }
}
