//! One HTTP/1.1 connection to an endpoint, with its buffers and its permit.

use super::link::Link;
use crate::edge::admission::Descriptor;
use crate::edge::timer::Timer;
use bytes::{Buf, BytesMut};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_http1::ResponseHead;
use tidegate_traffic::pool::lease::ConnPermit;

/// Bytes that the read buffer grows by at first, and at most while reads fill it.
const READ_CHUNK: usize = 16 * 1024;
const MAX_READ_CHUNK: usize = 128 * 1024;

/// A connection to an endpoint; the permit counts it there for its whole life, the descriptor in the process.
#[derive(Debug)]
pub(crate) struct Connection {
    link: Link,
    /// Read and not yet consumed.
    pub(crate) read: BytesMut,
    /// Bytes that `read` grows by.
    chunk: usize,
    /// To be written.
    pub(crate) write: BytesMut,
    /// Reused from response to response.
    pub(crate) head: ResponseHead,
    /// How long the endpoint says it keeps the connection while it is idle.
    pub(crate) announced_idle: Option<Duration>,
    /// Whether it has served an exchange before.
    pub(crate) reused: bool,
    /// Whether its endpoint may have answered the last request without reading all of it; then it may be about to close.
    pub(crate) unsettled: bool,
    /// Deadlines of the exchange that it carries.
    pub(crate) timer: Timer,
    _permit: ConnPermit,
    _descriptor: Descriptor,
}

impl Connection {
    /// A fresh connection.
    pub(crate) fn new(link: Link, permit: ConnPermit, descriptor: Descriptor) -> Self {
        Self {
            link,
            read: BytesMut::new(),
            chunk: READ_CHUNK,
            write: BytesMut::new(),
            head: ResponseHead::new(),
            announced_idle: None,
            reused: false,
            unsettled: false,
            timer: Timer::default(),
            _permit: permit,
            _descriptor: descriptor,
        }
    }

    /// Whether its bytes travel on TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.link.is_tls()
    }

    /// Whether it can carry another exchange: open, and with nothing on it that nobody asked for.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.read.is_empty() && self.write.is_empty() && self.link.is_quiet()
    }

    /// Whether the kernel has neither bytes nor an end of stream for us, asked right now.
    pub(crate) fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// Reads more into `read`; 0 is the end of the stream. Reads that fill the buffer make it larger, so that a large
    /// body takes few system calls.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // An empty buffer is rewound for free; otherwise what earlier answers consumed would shorten the next read.
        if self.read.is_empty() || self.read.capacity() - self.read.len() < self.chunk / 4 {
            self.read.reserve(self.chunk);
        }
        let room = self.read.capacity() - self.read.len();
        let filled = self.link.poll_read_buf(cx, &mut self.read);
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
        let written = self.link.poll_write(cx, &self.write);
        if let Poll::Ready(Ok(count)) = &written {
            self.write.advance(*count);
        }
        written
    }

    /// Ends our direction; what is in `write` has been drained before.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_shutdown(cx)
    }
}
