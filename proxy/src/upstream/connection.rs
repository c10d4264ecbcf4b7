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

/// Bytes that the read buffer grows by.
const READ_CHUNK: usize = 16 * 1024;

/// A connection to an endpoint; the permit counts it there for its whole life.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    /// Read and not yet consumed.
    pub(crate) read: BytesMut,
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

    /// Reads more into `read`; 0 is the end of the stream.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < READ_CHUNK / 4 {
            self.read.reserve(READ_CHUNK);
        }
        pin!(self.socket.read_buf(&mut self.read)).poll(cx)
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
