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

/// Bytes that are read at once at first, and at most while reads fill the buffer.
const READ_CHUNK: usize = 16 * 1024;
pub(crate) const MAX_READ_CHUNK: usize = 96 * 1024;

/// A connection to an endpoint; the permit counts it there for its whole life, the descriptor in the process.
#[derive(Debug)]
pub(crate) struct Connection {
    link: Link,
    /// Read and not yet consumed.
    pub(crate) read: BytesMut,
    /// Bytes that are read at once, and what that may grow to in this exchange.
    chunk: usize,
    max_chunk: usize,
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
    permit: ConnPermit,
    _descriptor: Descriptor,
}

impl Connection {
    /// A fresh connection.
    pub(crate) fn new(link: Link, permit: ConnPermit, descriptor: Descriptor) -> Self {
        Self {
            link,
            read: BytesMut::new(),
            chunk: READ_CHUNK,
            max_chunk: READ_CHUNK,
            write: BytesMut::new(),
            head: ResponseHead::new(),
            announced_idle: None,
            reused: false,
            unsettled: false,
            timer: Timer::default(),
            permit,
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

    /// Most bytes that one read may take from now on; until [`Self::shrink`].
    pub(crate) fn allow_chunk(&mut self, bytes: usize) {
        self.max_chunk = bytes.clamp(READ_CHUNK, MAX_READ_CHUNK);
        self.chunk = self.chunk.min(self.max_chunk);
    }

    /// Reads more into `read`; 0 is the end of the stream. Reads that fill the buffer make it larger, so that a large
    /// body takes few system calls.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.make_room();
        let room = self.read.capacity() - self.read.len();
        let filled = self.link.poll_read_buf(cx, &mut self.read);
        if let Poll::Ready(Ok(count @ 1..)) = &filled {
            self.permit.hear();
            if *count == room {
                self.chunk = (self.chunk * 2).min(self.max_chunk);
            }
        }
        filled
    }

    fn make_room(&mut self) {
        if !self.read.is_empty() {
            if self.read.capacity() - self.read.len() < self.chunk / 4 {
                self.read.reserve(self.chunk);
            }
            return;
        }
        // An empty buffer is rewound for free; otherwise what earlier answers consumed would shorten the next read. One
        // of another size is replaced: growing would copy consumed bytes and double it.
        if !self.read.try_reclaim(self.chunk) || self.read.capacity() > 2 * self.chunk {
            self.read = BytesMut::new();
            self.read = BytesMut::with_capacity(self.chunk);
        }
    }

    /// Gives a large buffer back before the connection idles.
    pub(crate) fn shrink(&mut self) {
        if self.chunk > READ_CHUNK {
            self.release();
        }
        self.max_chunk = READ_CHUNK;
    }

    /// Gives the read buffer back where nothing stands in it; the next read makes a small one.
    pub(crate) fn release(&mut self) {
        if self.read.is_empty() {
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
