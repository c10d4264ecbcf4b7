//! One HTTP/1.1 connection to an endpoint, with its buffers and its permit.

use crate::edge::socket::Socket;
use crate::edge::timer::Timer;
use bytes::{Buf, BytesMut};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tidegate_http1::ResponseHead;
use tidegate_traffic::pool::lease::ConnPermit;
use tokio::io::{AsyncReadExt, AsyncWrite};

/// Bytes that the read buffer grows by at first, and at most while reads fill it.
const READ_CHUNK: usize = 16 * 1024;
const MAX_READ_CHUNK: usize = 128 * 1024;

/// A connection to an endpoint; the permit counts it there for its whole life.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    /// Read and not yet consumed.
    pub(crate) read: BytesMut,
    /// Bytes that `read` grows by.
    chunk: usize,
    /// To be written.
    pub(crate) write: BytesMut,
    /// Reused from response to response.
    pub(crate) head: ResponseHead,
    /// Whether it has served an exchange before.
    pub(crate) reused: bool,
    /// Deadlines of the exchange that it carries.
    pub(crate) timer: Timer,
    _permit: ConnPermit,
}

impl Connection {
    /// A fresh connection.
    pub(crate) fn new(socket: Socket, permit: ConnPermit) -> Self {
        Self {
            socket,
            read: BytesMut::new(),
            chunk: READ_CHUNK,
            write: BytesMut::new(),
            head: ResponseHead::new(),
            reused: false,
            timer: Timer::default(),
            _permit: permit,
        }
    }

    /// Whether it can carry another exchange: open, and with nothing on it that nobody asked for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.read.is_empty() && self.write.is_empty() && self.socket.is_quiet()
    }

    /// Whether the kernel has neither bytes nor an end of stream for us, asked right now.
    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_open()
    }

    /// Reads more into `read`; 0 is the end of the stream. Reads that fill the buffer make it larger, so that a large
    /// body takes few system calls.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // An empty buffer is rewound for free; otherwise what earlier answers consumed would shorten the next read.
        if self.read.is_empty() || self.read.capacity() - self.read.len() < self.chunk / 4 {
            self.read.reserve(self.chunk);
        }
        let room = self.read.capacity() - self.read.len();
        let filled = pin!(self.socket.read_buf(&mut self.read)).poll(cx);
        if matches!(&filled, Poll::Ready(Ok(count)) if *count == room) {
            self.chunk = (self.chunk * 2).min(MAX_READ_CHUNK);
        }
        filled
    }

    /// Gives a large buffer back before the connection idles.
    pub(crate) fn shrink(&mut self) {
        if self.chunk > READ_CHUNK && self.read.is_empty() {
            self.read = BytesMut::new();
            self.chunk = READ_CHUNK;
        }
    }

    /// Writes from `write`; ready with the bytes written once some were.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, &self.write);
        if let Poll::Ready(Ok(count)) = &written {
            self.write.advance(*count);
        }
        written
    }
}
