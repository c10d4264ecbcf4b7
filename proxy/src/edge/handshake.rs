//! From an accepted socket to a connection whose protocol is known, under one deadline.

use super::accept::turned;
use super::conn::Conn;
use super::listener::Settings;
use super::socket::Socket;
use crate::tls::policy::TlsPolicy;
use crate::tls::sni::UNRECOGNIZED_NAME_ALERT;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_config::model::Transport;
use tidegate_traffic::TlsClient;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;

/// What an HTTP/2 client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a connection that has just been made may take for its first bytes when its listener closes.
pub(crate) const FIRST_BYTES_GRACE: Duration = Duration::from_secs(1);

/// A connection that is ready to speak HTTP.
pub(crate) struct Ready {
    /// The connection; `is_http2` tells the protocol.
    pub(crate) conn: Conn,
    /// What TLS told about the client.
    pub(crate) tls: Option<TlsClient>,
}

/// Does the handshake that the listener's transport asks for.
/// A connection that has said nothing when its listener closes gets a moment, for it may have been made just before.
pub(crate) async fn handshake(
    socket: Socket,
    peer: Option<SocketAddr>,
    settings: &Settings,
    mut closing: watch::Receiver<bool>,
) -> io::Result<Ready> {
    if let Transport::Plain { h2c: false } = settings.transport {
        return Ok(Ready { conn: Conn::plain(socket, peer, settings.timeouts.write_idle), tls: None });
    }
    tokio::select! {
        biased;
        ready = greet(socket, peer, settings) => ready,
        () = closed_for(&mut closing, FIRST_BYTES_GRACE) => Err(io::Error::other("the listener closes")),
    }
}

/// Returns when a listener has been closing for `grace`.
pub(crate) async fn closed_for(closing: &mut watch::Receiver<bool>, grace: Duration) {
    turned(closing).await;
    tokio::time::sleep(grace).await;
}

async fn greet(socket: Socket, peer: Option<SocketAddr>, settings: &Settings) -> io::Result<Ready> {
    let deadline = Instant::now() + settings.timeouts.handshake;
    let write_idle = settings.timeouts.write_idle;
    match (settings.transport, &settings.tls) {
        (Transport::Tls, Some(policy)) => {
            let greeting = accept_tls(socket, peer, policy, write_idle);
            tokio::time::timeout_at(deadline, greeting).await.unwrap_or_else(|_| Err(overdue("TLS handshake")))
        }
        (Transport::Tls, None) => Err(io::Error::other("the listener has no TLS configuration")),
        (Transport::Plain { h2c: false }, _) => Ok(Ready { conn: Conn::plain(socket, peer, write_idle), tls: None }),
        (Transport::Plain { h2c: true }, _) => {
            let mut conn = Conn::plain(socket, peer, write_idle);
            let deadline = Instant::now() + settings.timeouts.head;
            let seen = tokio::time::timeout_at(deadline, detect_http2(&mut conn)).await;
            if seen.unwrap_or_else(|_| Err(overdue("first bytes")))? {
                conn.expect_http2(deadline);
            }
            Ok(Ready { conn, tls: None })
        }
    }
}

async fn accept_tls(
    socket: Socket,
    peer: Option<SocketAddr>,
    policy: &TlsPolicy,
    write_idle: Duration,
) -> io::Result<Ready> {
    let deadline = Instant::now() + write_idle;
    let mut start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await?;
    let server_name: Option<Box<str>> = start.client_hello().server_name().map(Box::from);
    if !policy.resolver.admits(server_name.as_deref()) {
        start.io.write_all(&UNRECOGNIZED_NAME_ALERT).await?;
        start.io.shutdown().await?;
        return Err(io::Error::other("no certificate for the name that the client asked for"));
    }
    let stream = start.into_stream(policy.config.clone()).await?;
    let mut conn = Conn::tls(stream, peer, write_idle);
    if conn.is_http2() {
        conn.expect_http2(deadline);
    }
    Ok(Ready { conn, tls: Some(TlsClient { server_name }) })
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
