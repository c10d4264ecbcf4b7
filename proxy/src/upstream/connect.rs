//! Makes one connection to one endpoint.

use super::link::Link;
use crate::edge::socket::Socket;
use crate::tls::upstream::UpstreamTls;
use rustix::io::Errno;
use std::io;
use std::time::Duration;
use tidegate_config::model::Address;
use tidegate_traffic::pool::endpoint::Endpoint;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// No connection, or one that broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The endpoint is not whom we trust, does not trust us, or does not speak TLS.
    #[error("TLS: {0}")]
    Tls(io::Error),
}

/// Connects within `limit`, the handshake included; `first` is sent before anything else. Nothing of a request has been sent when it fails, so every request
/// may go elsewhere.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    first: &[u8],
    tls: Option<&UpstreamTls>,
    limit: Duration,
) -> Result<Link, ConnectError> {
    connect_to(endpoint.address(), endpoint.host().map(AsRef::as_ref), first, tls, limit).await
}

/// As [`connect`], to an address that may be another one than that of an endpoint.
pub(crate) async fn connect_to(
    address: &Address,
    host: Option<&str>,
    first: &[u8],
    tls: Option<&UpstreamTls>,
    limit: Duration,
) -> Result<Link, ConnectError> {
    let connecting = async {
        let mut socket = socket(address).await?;
        if !first.is_empty() {
            socket.write_all(first).await?;
        }
        let Some(tls) = tls else { return Ok(Link::Plain(socket)) };
        match tls.connect(socket, address, host).await {
            Ok(stream) => Ok(Link::Tls(Box::new(stream))),
            Err(error) => Err(ConnectError::Tls(error)),
        }
    };
    match tokio::time::timeout(limit, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")).into()),
    }
}

/// Whether a connect failed by a lack of our own, which is no fault of the endpoint, and which no other endpoint cures.
pub(crate) fn is_local(error: &io::Error) -> bool {
    const LOCAL: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|code| LOCAL.contains(&code))
}

async fn socket(address: &Address) -> io::Result<Socket> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Socket::Tcp(stream))
        }
        Address::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
    }
}
