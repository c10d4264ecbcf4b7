//! Takes connections from one listening socket of one shard.

use super::admission::Admitted;
use super::handshake;
use super::listener::Listener;
use super::shard::Shard;
use super::socket::Socket;
use crate::exchange;
use crate::observe::metrics::ListenerMetrics;
use rustix::net::SocketFlags;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tidegate_config::model::{Address, Transport};
use tidegate_traffic::TlsClient;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

/// How long accepting rests when the process or the system has no descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket inside a runtime.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    /// Registers a bound socket with this thread's runtime.
    pub(crate) fn register(address: &Address, socket: OwnedFd) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(_) => Self::Tcp(TcpListener::from_std(socket.into())?),
            Address::Unix(_) => Self::Unix(UnixListener::from_std(socket.into())?),
        })
    }

    /// One connection that waits in the queue already, by asking the kernel and not the runtime, which may not have
    /// heard of it yet.
    fn accept_waiting(&self) -> Option<io::Result<(Socket, Option<SocketAddr>)>> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accepted = match self {
            Self::Tcp(listener) => rustix::net::accept_with(listener, flags).map_err(io::Error::from).and_then(|fd| {
                let stream = std::net::TcpStream::from(fd);
                let peer = stream.peer_addr()?;
                Ok((Socket::Tcp(TcpStream::from_std(stream)?), Some(peer)))
            }),
            Self::Unix(listener) => rustix::net::accept_with(listener, flags).map_err(io::Error::from).and_then(|fd| {
                Ok((Socket::Unix(UnixStream::from_std(std::os::unix::net::UnixStream::from(fd))?), None))
            }),
        };
        match accepted {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            accepted => Some(accepted),
        }
    }

    async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener) => Ok((Socket::Unix(listener.accept().await?.0), None)),
        }
    }
}

/// Accepts until `stop` turns true; connections that wait in the queue by then are still taken.
pub(crate) async fn run(
    shard: Arc<Shard>,
    listener: Arc<Listener>,
    acceptor: Acceptor,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            () = turned(&mut stop) => break,
            accepted = acceptor.accept() => {
                if let Err(error) = take(&shard, &listener, accepted) {
                    tracing::warn!(listener = %listener.settings().name, %error, "cannot accept connections");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }
    // Closing the socket would reset what waits in its queue.
    while let Some(accepted) = acceptor.accept_waiting() {
        if take(&shard, &listener, accepted).is_err() {
            break;
        }
    }
}

/// Returns once the flag is set, or nobody can set it any more.
pub(crate) async fn turned(flag: &mut watch::Receiver<bool>) {
    // The error says that the other side has gone, which ends the wait as well.
    let _ = flag.wait_for(|set| *set).await;
}

/// Starts a task for an accepted connection; an error means that accepting has to rest.
fn take(
    shard: &Arc<Shard>,
    listener: &Arc<Listener>,
    accepted: io::Result<(Socket, Option<SocketAddr>)>,
) -> io::Result<()> {
    let (socket, peer) = match accepted {
        Ok(accepted) => accepted,
        // The client left before it was accepted.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::NotConnected) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let settings = listener.settings();
    match shard.shared.admission.admit(peer.map(|peer| peer.ip())) {
        Ok(admitted) => {
            settings.metrics.accepted.inc();
            tokio::spawn(serve(shard.clone(), listener.clone(), socket, peer, admitted));
        }
        Err(denied) => settings.metrics.refused(denied.reason()),
    }
    Ok(())
}

/// What an exchange needs to know of its connection.
pub(crate) struct Origin {
    /// Who accepted it.
    pub(crate) listener: Arc<Listener>,
    /// The client; a local one on a unix socket.
    pub(crate) peer: SocketAddr,
    /// What TLS told.
    pub(crate) tls: Option<TlsClient>,
}

/// Counts a connection while it is open.
struct Open(Arc<ListenerMetrics>);

impl Open {
    fn new(metrics: &Arc<ListenerMetrics>) -> Self {
        metrics.open.inc();
        Self(metrics.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}

async fn serve(
    shard: Arc<Shard>,
    listener: Arc<Listener>,
    socket: Socket,
    peer: Option<SocketAddr>,
    admitted: Admitted,
) {
    let settings = listener.settings();
    let _open = Open::new(&settings.metrics);
    let ready = match handshake::handshake(socket, peer, &settings, listener.closing()).await {
        Ok(ready) => ready,
        Err(error) => {
            if settings.transport == Transport::Tls {
                settings.metrics.handshakes_failed.inc();
            }
            tracing::debug!(listener = %settings.name, ?peer, %error, "handshake failed");
            return;
        }
    };
    if settings.transport == Transport::Tls {
        settings.metrics.handshakes_ok.inc();
    }
    // Whoever reaches a unix socket is on this host.
    let peer = peer.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    let origin = Origin { listener, peer, tls: ready.tls };
    if ready.conn.is_http2() {
        exchange::serve_http2(ready.conn, origin, shard, &settings).await;
    } else {
        exchange::serve_http1(ready.conn, origin, shard, &settings).await;
    }
    drop(admitted);
}
