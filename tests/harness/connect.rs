//! Connections of a client: TCP, and TLS on top of it, with one deadline over all of it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
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

/// A TCP connection from this address of our own.
pub async fn tcp_from(source: Ipv4Addr, address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into()).with_context(|| format!("cannot bind {source}"))?;
    let connecting = timeout(CONNECT_LIMIT, socket.connect(address)).await;
    let stream = connecting.with_context(|| format!("no connection to {address} within {CONNECT_LIMIT:?}"))?;
    let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A TCP connection whose receive buffer is so small that an unread answer stays with its sender.
pub async fn tcp_narrow(address: SocketAddr) -> Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_recv_buffer_size(4_096)?;
    let connecting = timeout(CONNECT_LIMIT, socket.connect(address)).await;
    let stream = connecting.with_context(|| format!("no connection to {address} within {CONNECT_LIMIT:?}"))?;
    stream.with_context(|| format!("cannot connect to {address}"))
}

/// TLS on a connection that is open already; asks for `name`.
pub async fn tls_on<S: Stream>(stream: S, name: &str, config: Arc<ClientConfig>) -> Result<TlsStream<S>> {
    let server = ServerName::try_from(name.to_owned()).with_context(|| format!("'{name}' is no server name"))?;
    let handshake = timeout(CONNECT_LIMIT, TlsConnector::from(config).connect(server, stream)).await;
    handshake.context("no TLS handshake in time")?.with_context(|| format!("the TLS handshake for '{name}' failed"))
}

/// The first flight of a client's TLS handshake.
///
/// # Panics
/// When `name` is no server name.
pub fn client_hello(name: &str, config: Arc<ClientConfig>) -> Vec<u8> {
    let server = ServerName::try_from(name.to_owned()).expect("the test gives a server name");
    let mut client = ClientConnection::new(config, server).expect("the configuration can be used");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a vector takes everything");
    bytes
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
