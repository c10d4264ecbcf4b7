//! From an accepted socket to a connection whose protocol is known: who it is from, then what it speaks, each under a
//! deadline.

use super::accept::turned;
use super::admission::{Admission, Admitted};
use super::conn::Conn;
use super::listener::Settings;
use super::proxy_header;
use super::socket::Socket;
use crate::tls::identity;
use crate::tls::policy::{ListenerTls, Presented};
use crate::tls::sni::UNRECOGNIZED_NAME_ALERT;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::UnixTime;
use rustls::{HandshakeKind, ServerConnection};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tidegate_config::model::Transport;
use tidegate_traffic::TlsClient;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;

/// What an HTTP/2 client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a handshake keeps others waiting: its costly part is ours, done at once, while the rest waits for the client.
const HANDSHAKE_TURN: Duration = Duration::from_secs(1);

/// How long a connection that has just been made may take for its first bytes when its listener closes.
pub(crate) const FIRST_BYTES_GRACE: Duration = Duration::from_secs(1);

/// A connection that is ready to speak HTTP.
pub(crate) struct Ready {
    /// The connection; `is_http2` tells the protocol.
    pub(crate) conn: Conn,
    /// The other end, after its PROXY protocol header.
    pub(crate) peer: Option<SocketAddr>,
    /// When the head of its first request must be there, if that time runs already.
    pub(crate) head_until: Option<Instant>,
    /// What TLS told about the client.
    pub(crate) tls: Option<TlsClient>,
}

/// Why a connection does not get to speak HTTP.
#[derive(Debug)]
pub(crate) enum Unready {
    /// It is not let in.
    Refused {
        /// Word for metrics.
        reason: &'static str,
        /// For the operator.
        detail: String,
    },
    /// It has not managed to begin, or has gone.
    Failed(io::Error),
}

impl From<io::Error> for Unready {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Does the handshake that the listener's transport asks for.
/// A connection that has said nothing when its listener closes gets a moment, for it may have been made just before.
pub(crate) async fn handshake(
    socket: Socket,
    peer: Option<SocketAddr>,
    settings: &Settings,
    (admission, admitted): (&Admission, &mut Admitted),
    mut closing: watch::Receiver<bool>,
) -> Result<Ready, Unready> {
    let named = settings.proxy_protocol_for(peer).is_some();
    if let (Transport::Plain { h2c: false }, false) = (settings.transport, named) {
        let conn = Conn::plain(socket, peer, settings.timeouts.write_idle);
        return Ok(Ready { conn, peer, head_until: None, tls: None });
    }
    tokio::select! {
        biased;
        ready = introduce(socket, peer, settings, admission, admitted) => ready,
        () = closed_for(&mut closing, FIRST_BYTES_GRACE) => Err(io::Error::other("the listener closes").into()),
    }
}

/// Returns when a listener has been closing for `grace`.
pub(crate) async fn closed_for(closing: &mut watch::Receiver<bool>, grace: Duration) {
    turned(closing).await;
    tokio::time::sleep(grace).await;
}

/// Learns whom a balancer speaks for, then what they speak.
async fn introduce(
    socket: Socket,
    mut peer: Option<SocketAddr>,
    settings: &Settings,
    admission: &Admission,
    admitted: &mut Admitted,
) -> Result<Ready, Unready> {
    if let Some(protocol) = settings.proxy_protocol_for(peer) {
        let named = match tokio::time::timeout(protocol.timeout, proxy_header::receive(&socket)).await {
            Ok(named) => named.map_err(|error| refused("proxy_header", error))?,
            Err(_) => return Err(refused("proxy_header", overdue("PROXY protocol header"))),
        };
        peer = named.or(peer);
        if let Some(client) = settings.counts_for(peer) {
            let claimed = admitted.claim(client);
            claimed.map_err(|denied| refused(denied.reason(), format!("too many connections of {client}")))?;
        }
    }
    Ok(greet(socket, peer, settings, admission).await?)
}

fn refused(reason: &'static str, detail: impl ToString) -> Unready {
    Unready::Refused { reason, detail: detail.to_string() }
}

async fn greet(
    socket: Socket,
    peer: Option<SocketAddr>,
    settings: &Settings,
    admission: &Admission,
) -> io::Result<Ready> {
    let deadline = Instant::now() + settings.timeouts.handshake;
    let write_idle = settings.timeouts.write_idle;
    match (settings.transport, &settings.tls) {
        (Transport::Tls, Some(tls)) => {
            let greeting = accept_tls(socket, peer, tls, settings, admission);
            tokio::time::timeout_at(deadline, greeting).await.unwrap_or_else(|_| Err(overdue("TLS handshake")))
        }
        (Transport::Tls, None) => Err(io::Error::other("the listener has no TLS configuration")),
        (Transport::Plain { h2c: false }, _) => {
            Ok(Ready { conn: Conn::plain(socket, peer, write_idle), peer, head_until: None, tls: None })
        }
        (Transport::Plain { h2c: true }, _) => {
            let mut conn = Conn::plain(socket, peer, write_idle);
            let deadline = Instant::now() + settings.timeouts.head;
            let seen = tokio::time::timeout_at(deadline, detect_http2(&mut conn)).await;
            if seen.unwrap_or_else(|_| Err(overdue("first bytes")))? {
                conn.expect_http2(deadline);
            }
            Ok(Ready { conn, peer, head_until: Some(deadline), tls: None })
        }
    }
}

async fn accept_tls(
    socket: Socket,
    peer: Option<SocketAddr>,
    tls: &ListenerTls,
    settings: &Settings,
    admission: &Admission,
) -> io::Result<Ready> {
    let mut start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await?;
    let server_name: Option<Box<str>> = start.client_hello().server_name().map(Box::from);
    let Some(presented) = tls.choose(server_name.as_deref()) else {
        start.io.write_all(&UNRECOGNIZED_NAME_ALERT).await?;
        start.io.shutdown().await?;
        return Err(io::Error::other("no certificate for the name that the client asked for"));
    };
    // Whoever only connects and keeps silent takes no turn; those that wait for one do so within their own deadline.
    let turn = admission.handshake_turn().await;
    let mut finishing = pin!(start.into_stream(presented.config.clone()));
    let within_turn = tokio::time::timeout(HANDSHAKE_TURN, finishing.as_mut()).await;
    drop(turn);
    let stream = match within_turn {
        Ok(finished) => finished?,
        Err(_) => finishing.await?,
    };
    let session = stream.get_ref().1;
    if session.alpn_protocol().is_none() && !presented.speaks_http1() {
        return Err(io::Error::other("the client speaks HTTP/1.1, and the TLS policy does not offer it"));
    }
    match session.handshake_kind() {
        Some(HandshakeKind::Resumed) if !presented.still_trusts(session, UnixTime::now()) => {
            return Err(io::Error::other("the certificate of a resumed session is not valid any more"));
        }
        Some(HandshakeKind::Resumed) => settings.metrics.handshakes_resumed.inc(),
        _ => settings.metrics.handshakes_full.inc(),
    }
    let tls = TlsClient {
        server_name,
        policy: presented.policy().clone(),
        certificate: forwarded_certificate(&presented, session),
        identity: session.peer_certificates().and_then(<[_]>::first).and_then(identity::of).map(Arc::new),
    };
    let mut conn = Conn::tls(stream, peer, settings.timeouts.write_idle);
    if conn.is_http2() {
        conn.expect_http2(Instant::now() + settings.timeouts.head);
    }
    Ok(Ready { conn, peer, head_until: None, tls: Some(tls) })
}

/// The verified certificate of the client, where endpoints are to be told: as a field value of RFC 9440. A resumed
/// session has the one it began with.
fn forwarded_certificate(presented: &Presented, session: &ServerConnection) -> Option<Arc<str>> {
    let leaf = session.peer_certificates().filter(|_| presented.forwards_certificate())?.first()?;
    Some(Arc::from(format!(":{}:", BASE64.encode(leaf))))
}

/// Reads until the first bytes are the HTTP/2 preface or cannot become it.
async fn detect_http2(conn: &mut Conn) -> io::Result<bool> {
    loop {
        let seen = conn.read_buffer.len().min(PREFACE.len());
        if conn.read_buffer[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        if poll_fn(|cx| conn.poll_fill(cx)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn overdue(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} not complete in time"))
}
