//! Connections of a client: TCP, and TLS on top of it, with one deadline over all of it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A byte stream, whatever is below it.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// A TCP connection without delay for small writes.
pub async fn tcp(address: SocketAddr) -> Result<TcpStream> {
    let connecting = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
    let stream = connecting.with_context(|| format!("no connection to {address} within {CONNECT_LIMIT:?}"))?;
    let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A TLS connection that asks for `name`.
pub async fn tls(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let stream = tcp(address).await?;
    let server = ServerName::try_from(name.to_owned()).with_context(|| format!("'{name}' is no server name"))?;
    let handshake = timeout(CONNECT_LIMIT, TlsConnector::from(config).connect(server, stream)).await;
    handshake
        .with_context(|| format!("no TLS handshake with {address} within {CONNECT_LIMIT:?}"))?
        .with_context(|| format!("the TLS handshake for '{name}' with {address} failed"))
}

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
