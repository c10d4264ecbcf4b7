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

use super::{http1::Http1, http2::Http2, transport::Transport};

/// A connection that knows when each of its open requests was due.
pub(crate) struct Connection {
    transport: Transport,
    codec: Codec,
    /// Bytes the socket did not take yet.
    unsent: Vec<u8>,
    /// Due times of open requests by stream.
    open: Vec<(u32, Instant)>,
    buffer: Vec<u8>,
}

/// The end of one request.
pub(crate) struct Answer {
    pub(crate) due: Instant,
    /// A complete answer with status 200.
    pub(crate) good: bool,
}

/// A stream that ended, as a codec saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) stream: u32,
    pub(crate) good: bool,
}

enum Codec {
    Http1(Http1),
    Http2(Http2),
}

impl Connection {
    /// Connects and says what the protocol wants said first.
    pub(crate) fn open(workload: Workload, port: u16, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let protocol = workload.protocol();
        let codec = match protocol {
            Protocol::Http1 | Protocol::Http1Tls => Codec::Http1(Http1::new(workload.path())),
            Protocol::Http2Plain | Protocol::Http2Tls => {
                Codec::Http2(Http2::new(workload.path(), protocol == Protocol::Http2Tls))
            }
        };
        let unsent = match &codec {
            Codec::Http1(_) => Vec::new(),
            Codec::Http2(_) => Http2::preface(),
        };
        let transport = Transport::open(port, tls)?;
        let mut connection = Self { transport, codec, unsent, open: Vec::new(), buffer: vec![0; 64 << 10] };
        connection.flush().context("cannot send the first bytes")?;
        Ok(connection)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        self.transport.socket()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// Bytes of bodies received so far.
    pub(crate) fn body_bytes(&self) -> u64 {
        match &self.codec {
            Codec::Http1(codec) => codec.body_bytes(),
            Codec::Http2(codec) => codec.body_bytes(),
        }
    }

    pub(crate) fn negotiated(&self) -> Option<String> {
        self.transport.negotiated()
    }

    /// Sends the next request. On an error the connection is of no further use.
    pub(crate) fn send(&mut self, due: Instant) -> io::Result<()> {
        let stream = match &mut self.codec {
            Codec::Http1(codec) => codec.request(&mut self.unsent),
            Codec::Http2(codec) => codec.request(&mut self.unsent),
        };
        self.open.push((stream, due));
        self.flush()
    }

    /// Reads what has arrived and adds the requests that ended to `answers`. An error also means the peer closed.
    pub(crate) fn receive(&mut self, answers: &mut Vec<Answer>) -> io::Result<()> {
        let mut ended = Vec::new();
        let result = self.read_all(&mut ended);
        for Ended { stream, good } in ended {
            if let Some(position) = self.open.iter().position(|(open, _)| *open == stream) {
                let (_, due) = self.open.swap_remove(position);
                answers.push(Answer { due, good });
            }
        }
        result.and_then(|()| self.flush())
    }

    fn read_all(&mut self, ended: &mut Vec<Ended>) -> io::Result<()> {
        loop {
            let count = match self.transport.read(&mut self.buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let bytes = &self.buffer[..count];
            match &mut self.codec {
                Codec::Http1(codec) => codec.receive(bytes, ended)?,
                Codec::Http2(codec) => codec.receive(bytes, ended, &mut self.unsent)?,
            }
            // A plain socket that gave less than asked is empty; TLS may hold more records.
            if count < self.buffer.len() && matches!(self.transport, Transport::Plain(_)) {
                return Ok(());
            }
        }
    }

    /// Writes as much as the socket takes. The rest goes out after the next answer; requests are small enough that
    /// there is always one to come.
    fn flush(&mut self) -> io::Result<()> {
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
}
