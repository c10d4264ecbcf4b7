//! Takes a PROXY protocol header off a socket, and nothing behind it: TLS or HTTP begin with the next byte.
//!
//! What has arrived is looked at first and then taken as far as it belongs to the header, so that no buffer has to be
//! handed on.

use super::socket::Socket;
use std::io;
use std::net::SocketAddr;
use tidegate_traffic::proxy_header::{LONGEST_HEADER, parse};

/// Bytes that are looked at together; only a header with long additions has more.
const GLANCE: usize = 1_024;

/// The client that the header names, or `None` when it names none. Cancelling it leaves the socket in the middle.
///
/// # Errors
///
/// When the header is malformed, or the connection ends before it.
pub(crate) async fn receive(socket: &Socket) -> io::Result<Option<SocketAddr>> {
    let mut header = Vec::with_capacity(GLANCE);
    let mut seen = [0; GLANCE];
    loop {
        socket.readable().await?;
        let count = match socket.peek(&mut seen) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let before = header.len();
        header.extend_from_slice(&seen[..count]);
        let parsed = parse(&header).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let own = parsed.map_or(count, |parsed| parsed.length - before);
        take(socket, &mut seen[..own])?;
        if let Some(parsed) = parsed {
            return Ok(parsed.client);
        }
        if header.len() > LONGEST_HEADER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "PROXY protocol header too long"));
        }
    }
}

/// Takes bytes that have been seen; they are all there.
fn take(socket: &Socket, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = socket.try_read(bytes)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[count..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::receive;
    use crate::edge::socket::Socket;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn what_follows_the_header_stays_in_the_socket() {
        let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0c\x0c"[..], &[192, 0, 2, 7, 0, 0, 0, 0, 1, 0, 0, 0]].concat();
        let long = [long, vec![7; 0x0c00]].concat();
        let short = b"PROXY TCP4 192.0.2.7 192.0.2.1 256 80\r\n".to_vec();
        for header in [short, long] {
            for pieces in [1, 7, header.len()] {
                let (mut proxy, edge) = UnixStream::pair().expect("a pair");
                let mut edge = Socket::Unix(edge);
                let mut bytes = header.clone();
                bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
                let writing = tokio::spawn(async move {
                    for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
                        proxy.write_all(piece).await.expect("written");
                        tokio::task::yield_now().await;
                    }
                    proxy
                });
                let client = receive(&edge).await.expect("a header");
                assert_eq!(client, Some("192.0.2.7:256".parse().expect("an address")));
                drop(writing.await);
                let mut rest = Vec::new();
                edge.read_to_end(&mut rest).await.expect("the rest");
                assert_eq!(rest, b"GET / HTTP/1.1\r\n");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_an_error() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PROXY TCP4 ", b"", b"PROXY \r\n"] {
            let (mut proxy, edge) = UnixStream::pair().expect("a pair");
            proxy.write_all(bytes).await.expect("written");
            drop(proxy);
            assert!(receive(&Socket::Unix(edge)).await.is_err(), "{}", bytes.escape_ascii());
        }
    }
}
