//! One client connection: the requests in flight on it, and their answers.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use rustls::ClientConfig;

use crate::workload::{Protocol, Workload};

use super::{http1::Http1, http2::Http2, transport::Transport, websocket::WebSocket};

/// A connection that knows when each of its open requests was due.
pub(crate) struct Connection {
    transport: Transport,
    codec: Codec,
    /// Bytes the socket did not take yet.
    unsent: Vec<u8>,
    /// Due times of open requests by stream.
    open: Vec<(u32, Instant)>,
}

/// The end of one request.
pub(crate) struct Answer {
    pub(crate) due: Instant,
    /// A complete answer with status 200 and a body of the right length.
    pub(crate) good: bool,
    /// Whether the peer says that the TLS session was resumed.
    pub(crate) resumed: bool,
}

/// A stream that ended, as a codec saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) stream: u32,
    pub(crate) good: bool,
    pub(crate) resumed: bool,
}

enum Codec {
    Http1(Http1),
    Http2(Http2),
    WebSocket(WebSocket),
}

impl Connection {
    /// Connects and says what the protocol wants said first. A TLS handshake happens while requests are sent and
    /// answers awaited; a WebSocket tunnel is open when this returns.
    pub(crate) fn open(workload: Workload, port: u16, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let mut socket = Transport::connect(port)?;
        let codec = match workload.protocol() {
            Protocol::Http1 | Protocol::Http1Tls => Codec::Http1(Http1::new(workload)),
            Protocol::Http2Plain | Protocol::Http2Tls => Codec::Http2(Http2::new(workload)),
            Protocol::WebSocket => {
                WebSocket::upgrade(&mut socket)?;
                Codec::WebSocket(WebSocket::new())
            }
        };
        let unsent = match &codec {
            Codec::Http2(_) => Http2::preface(),
            Codec::Http1(_) | Codec::WebSocket(_) => Vec::new(),
        };
        socket.set_nonblocking(true).context("cannot set up a socket")?;
        Ok(Self { transport: Transport::new(socket, tls)?, codec, unsent, open: Vec::new() })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.transport.socket()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// Whether the peer took up an earlier TLS session.
    pub(crate) fn resumed(&self) -> bool {
        self.transport.resumed()
    }

    pub(crate) fn negotiated(&self) -> Option<String> {
        self.transport.negotiated()
    }

    /// Prepares the next request; [`flush`](Self::flush) sends it.
    pub(crate) fn queue(&mut self, due: Instant) {
        let stream = match &mut self.codec {
            Codec::Http1(codec) => codec.request(&mut self.unsent),
            Codec::Http2(codec) => codec.request(&mut self.unsent),
            Codec::WebSocket(codec) => codec.request(&mut self.unsent),
        };
        self.open.push((stream, due));
    }

    /// Reads what has arrived into `buffer` and adds the requests that ended to `answers`. An error also means the peer
    /// closed.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], answers: &mut Vec<Answer>) -> io::Result<()> {
        let mut ended = Vec::new();
        let result = self.read_all(buffer, &mut ended);
        for Ended { stream, good, resumed } in ended {
            if let Some(position) = self.open.iter().position(|(open, _)| *open == stream) {
                let (_, due) = self.open.swap_remove(position);
                answers.push(Answer { due, good, resumed });
            }
        }
        result.and_then(|()| self.flush())
    }

    /// Writes as much as the socket takes. The rest goes out after the next answer; requests are small enough that
    /// there is always one to come.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.transport.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match self.transport.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    fn read_all(&mut self, buffer: &mut [u8], ended: &mut Vec<Ended>) -> io::Result<()> {
        loop {
            let count = match self.transport.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let bytes = &buffer[..count];
            match &mut self.codec {
                Codec::Http1(codec) => codec.receive(bytes, ended)?,
                Codec::Http2(codec) => codec.receive(bytes, ended, &mut self.unsent)?,
                Codec::WebSocket(codec) => codec.receive(bytes, ended)?,
            }
            // A plain socket that gave less than asked is empty; TLS may hold more records.
            if count < buffer.len() && matches!(self.transport, Transport::Plain(_)) {
                return Ok(());
            }
        }
    }
}
