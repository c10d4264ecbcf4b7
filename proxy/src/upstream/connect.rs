//! Makes one connection to one endpoint.

use crate::edge::socket::Socket;
use std::io;
use std::time::Duration;
use tidegate_config::model::Address;
use tokio::net::{TcpStream, UnixStream};

/// Connects within `limit`. Nothing has been sent when it fails, so every request may go elsewhere.
pub(crate) async fn connect(address: &Address, limit: Duration) -> io::Result<Socket> {
    let connecting = async {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Address::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
        }
    };
    match tokio::time::timeout(limit, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}"))),
    }
}
