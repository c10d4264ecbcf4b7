//! Takes connections from one listening socket of one shard.

use super::admission::{Admitted, Denied};
use super::handshake::{self, Unready};
use super::listener::{Listener, Settings};
use super::shard::Shard;
use super::socket::Socket;
use crate::exchange;
use crate::observe::metrics::ListenerMetrics;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tidegate_config::model::{Address, Transport};
use tidegate_traffic::{Client, Fields, ListenerId, TlsClient, trusted};
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
    let mut resting = false;
    loop {
        tokio::select! {
            biased;
            () = turned(&mut stop) => break,
            accepted = acceptor.accept() => {
                let taken = take(&shard, &listener, accepted);
                // Said once for each time that accepting fails, not for each try.
                match (&taken, resting) {
                    (Err(error), false) => {
                        tracing::warn!(listener = %listener.settings().name, %error, "cannot accept connections");
                    }
                    (Ok(()), true) => {
                        tracing::info!(listener = %listener.settings().name, "connections are accepted again");
                    }
                    (Err(_), true) | (Ok(()), false) => {}
                }
                resting = taken.is_err();
                if resting {
                    // The kernel keeps them in its queue meanwhile. Asking it again at once would spin.
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
        Err(error) if concerns_one_connection(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let settings = listener.settings();
    let expects_header = settings.proxy_protocol_for(peer).is_some();
    // The client of a balancer is known only when its header has come.
    let counted = if expects_header { None } else { settings.counts_for(peer) };
    let shared = &shard.shared;
    let admit = || shared.admission.admit(counted, &listener.seats, settings.max_connections);
    let mut verdict = admit();
    while matches!(verdict, Err(Denied::Descriptors)) && shared.give_any_back() {
        verdict = admit();
    }
    match verdict {
        Ok(admitted) => {
            settings.metrics.accepted.inc();
            // The same settings all along: who it counts for has been decided by these.
            tokio::spawn(serve(shard.clone(), listener.clone(), settings, socket, peer, admitted));
        }
        Err(denied) => settings.metrics.refused(denied.reason()),
    }
    Ok(())
}

/// Whether the next connection can be accepted at once: the client left before it was accepted, or its network failed
/// (accept(2) wants these to be met by trying again), or a firewall forbids it. Each takes one connection off the queue.
fn concerns_one_connection(error: &io::Error) -> bool {
    let Some(errno) = Errno::from_io_error(error) else { return false };
    let of_its_network = [
        Errno::NETDOWN,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
        Errno::TIMEDOUT,
    ];
    let of_its_client = [Errno::CONNABORTED, Errno::CONNRESET, Errno::NOTCONN, Errno::INTR, Errno::PERM];
    of_its_network.contains(&errno) || of_its_client.contains(&errno)
}

/// What an exchange needs to know of its connection.
pub(crate) struct Origin {
    /// Who accepted it.
    pub(crate) listener: Arc<Listener>,
    /// The other end, after its PROXY protocol header; `None` on a unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// Its word about clients is taken.
    pub(crate) trusted: bool,
    /// What TLS told.
    pub(crate) tls: Option<TlsClient>,
}

impl Origin {
    /// The client, as long as nobody else is named. Whoever reaches a unix socket is on this host.
    pub(crate) fn client(&self, listener: ListenerId) -> Client {
        let peer = self.peer.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
        Client::new(peer.ip(), peer.port(), listener, self.tls.clone())
    }

    /// The client of one request, where trusted proxies speak for it.
    pub(crate) fn named_client(&self, settings: &Settings, client: &Client, fields: &dyn Fields) -> Option<Client> {
        let policy = settings.trusted_proxies.as_ref().filter(|_| self.trusted)?;
        Some(trusted::resolve(policy, self.peer.map(|peer| peer.ip()), client, fields))
    }
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

/// A connection whose protocol is known.
enum Greeted {
    Http1(Box<exchange::Resting>),
    Http2(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Serves a connection to its end. This future lives as long as the connection, so it holds little but boxes.
async fn serve(
    shard: Arc<Shard>,
    listener: Arc<Listener>,
    settings: Arc<Settings>,
    socket: Socket,
    peer: Option<SocketAddr>,
    mut admitted: Admitted,
) {
    let _open = Open::new(&settings.metrics);
    match Box::pin(greet(shard, listener, settings, socket, peer, &mut admitted)).await {
        Some(Greeted::Http1(resting)) => exchange::serve_http1(resting).await,
        Some(Greeted::Http2(serving)) => serving.await,
        None => {}
    }
}

/// Learns who it is and does the handshake; `None` when that failed.
async fn greet(
    shard: Arc<Shard>,
    listener: Arc<Listener>,
    settings: Arc<Settings>,
    socket: Socket,
    peer: Option<SocketAddr>,
    admitted: &mut Admitted,
) -> Option<Greeted> {
    let admission = &shard.shared.admission;
    let ready = match handshake::handshake(socket, peer, &settings, (admission, admitted), listener.closing()).await {
        Ok(ready) => ready,
        Err(Unready::Refused { reason, detail }) => {
            settings.metrics.refused(reason);
            tracing::debug!(listener = %settings.name, ?peer, reason, detail, "connection refused");
            return None;
        }
        Err(Unready::Failed(error)) => {
            if settings.transport == Transport::Tls {
                settings.metrics.handshakes_failed.inc();
            }
            tracing::debug!(listener = %settings.name, ?peer, %error, "handshake failed");
            return None;
        }
    };
    let trusted = settings.trusts(ready.peer);
    let origin = Origin { listener, peer: ready.peer, trusted, tls: ready.tls };
    Some(if ready.conn.is_http2() {
        Greeted::Http2(Box::pin(exchange::serve_http2(ready.conn, origin, shard, settings)))
    } else {
        Greeted::Http1(exchange::Resting::new(ready.conn, ready.head_until, origin, shard, settings))
    })
}

#[cfg(test)]
mod tests {
    use super::concerns_one_connection;
    use rustix::io::Errno;
    use std::io;

    #[test]
    fn only_what_one_connection_brought_is_tried_again_at_once() {
        let rows = [
            (Errno::CONNABORTED, true),
            (Errno::HOSTUNREACH, true),
            (Errno::PROTO, true),
            (Errno::PERM, true),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::NOBUFS, false),
            (Errno::NOMEM, false),
            (Errno::INVAL, false),
        ];
        for (errno, expected) in rows {
            assert_eq!(concerns_one_connection(&io::Error::from(errno)), expected, "{errno}");
        }
        assert!(!concerns_one_connection(&io::Error::other("somebody's")));
    }
}
