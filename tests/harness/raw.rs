//! A socket without a protocol: a test writes the bytes, and reads them, each with a deadline.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::connect;

/// An open TCP connection.
pub struct Raw {
    stream: TcpStream,
    // Read, and not yet given to the test.
    ahead: Vec<u8>,
}

/// How the other side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order (FIN).
    Closed,
    /// By a reset (RST).
    Reset,
    /// Not at all within the deadline.
    Open,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = connect::tcp(address).await.unwrap_or_else(|error| panic!("{error:#}"));
        Self { stream, ahead: Vec::new() }
    }

    /// Connects by IPv4 from a socket that `prepare` has bound, or given other buffers.
    ///
    /// # Panics
    /// When that fails, or nobody listens.
    pub async fn connect_from(address: SocketAddr, prepare: impl FnOnce(&TcpSocket) -> io::Result<()>) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        prepare(&socket).expect("the test asks for what a socket can have");
        let connecting = timeout(READ_LIMIT, socket.connect(address)).await.expect("a connection in time");
        Self { stream: connecting.unwrap_or_else(|error| panic!("{address}: {error}")), ahead: Vec::new() }
    }

    /// Connects, sends `bytes`, and reads what comes until the other side ends or `limit` is over.
    pub async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>, limit: Duration) -> (String, End) {
        let mut raw = Self::connect(address).await;
        raw.send(bytes).await;
        let (read, end) = raw.read_to_end(limit).await;
        (String::from_utf8_lossy(&read).into_owned(), end)
    }

    /// Sends bytes. A connection that the other side has ended swallows them.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = timeout(WRITE_LIMIT, self.stream.write_all(bytes.as_ref())).await;
    }

    /// Ends our direction; the other one stays open.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }

    /// Reads until the other side ends or `limit` is over.
    pub async fn read_to_end(&mut self, limit: Duration) -> (Vec<u8>, End) {
        let mut read = std::mem::take(&mut self.ahead);
        let end = match timeout(limit, self.stream.read_to_end(&mut read)).await {
            Err(_) => End::Open,
            Ok(Ok(_)) => End::Closed,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => End::Reset,
            Ok(Err(_)) => End::Closed,
        };
        (read, end)
    }

    /// Reads up to and including `mark`; what comes after it stays for the next read.
    pub async fn read_until(&mut self, mark: &str, limit: Duration) -> Result<String> {
        let reading = async {
            loop {
                if let Some(at) = find(&self.ahead, mark.as_bytes()) {
                    let rest = self.ahead.split_off(at + mark.len());
                    return Ok(std::mem::replace(&mut self.ahead, rest));
                }
                anyhow::ensure!(self.stream.read_buf(&mut self.ahead).await? > 0, "the connection ended");
            }
        };
        let read = timeout(limit, reading).await.with_context(|| format!("no {mark:?} within {limit:?}"))?;
        let read = read.with_context(|| format!("waiting for {mark:?}"))?;
        Ok(String::from_utf8_lossy(&read).into_owned())
    }

    /// Reads one head: up to and including the empty line.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn read_head(&mut self) -> String {
        self.read_until("\r\n\r\n", READ_LIMIT).await.unwrap_or_else(|error| panic!("no head: {error:#}"))
    }

    /// Reads exactly `length` bytes.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn read_exact(&mut self, length: usize) -> Vec<u8> {
        let reading = async {
            while self.ahead.len() < length {
                let read = self.stream.read_buf(&mut self.ahead).await.expect("the connection is not reset");
                assert!(read > 0, "the connection ended after {} of {length} bytes", self.ahead.len());
            }
        };
        timeout(READ_LIMIT, reading).await.expect("the bytes come in time");
        let rest = self.ahead.split_off(length);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Reads one answer with a content length, head and body.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn read_answer(&mut self) -> (String, Vec<u8>) {
        let head = self.read_head().await;
        let length = field(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let body = self.read_exact(length).await;
        (head, body)
    }
}

/// The value of a header field in a head, the first one.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    fields(head, name).next()
}

/// All values of a header field in a head.
pub fn fields<'a>(head: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    head.lines().skip(1).filter_map(move |line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status of a head; 0 when it is none.
pub fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Where `wanted` begins in `bytes`.
pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

const READ_LIMIT: Duration = Duration::from_secs(10);
const WRITE_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_by_field() {
        let head = "HTTP/1.1 404 Not Found\r\nA: 1\r\nb: x:y \r\na: 2\r\n\r\n";
        assert_eq!(status(head), 404);
        assert_eq!(field(head, "B"), Some("x:y"));
        assert_eq!(fields(head, "a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(status("garbage"), 0);
    }
}
