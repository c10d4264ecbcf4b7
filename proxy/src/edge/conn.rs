//! A client's connection once its transport stands: the read buffer, the write deadline and the engine's IO trait.
//!
//! Two users drive it. Our HTTP/1 code fills and drains `read_buffer` itself. The engine (HTTP/2 sessions, HTTP/1
//! sessions towards HTTP/2 upstreams) sees a plain stream whose first bytes are whatever stands in `read_buffer`.
//! A write that makes no progress for `write_idle` fails with `TimedOut` for both, since only this layer sees
//! every write.

use super::gathered::{Gathered, Turn};
use super::socket::Socket;
use super::timer::Timer;
use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::l4::socket::SocketAddr as EngineAddress;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

/// Bytes that the read buffer grows by at first, which is enough for most heads, and at most while reads fill it.
const READ_CHUNK: usize = 4 * 1024;
const MAX_READ_CHUNK: usize = 16 * 1024;
/// A client's HTTP/2 preface with the head of its first SETTINGS frame.
const PREFACE_BYTES: u64 = 24 + 9;
/// What closing waits for while it drops what a client still sends.
const LINGER_TIME: Duration = Duration::from_secs(5);
/// The same for a session that has said why it ends.
const HTTP2_LINGER: Duration = Duration::from_secs(1);
/// What closing an idle connection may take; only TLS has something to say.
const IDLE_LINGER: Duration = Duration::from_millis(200);

#[derive(Debug)]
enum Io {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// What the other side has said of its end, while nobody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HangUp {
    /// Nothing.
    None,
    /// It sends no more than the bytes that are still to be read; over TLS they are more than what is in them.
    Ended {
        /// Bytes that stand in the socket.
        unread: usize,
    },
    /// It has gone.
    Reset,
}

/// A client's connection; see the module's text.
#[derive(Debug)]
pub(crate) struct Conn {
    io: Io,
    /// Read and not yet consumed.
    pub(crate) read_buffer: BytesMut,
    /// Bytes that it grows by.
    chunk: usize,
    http2: bool,
    peer: Option<SocketAddr>,
    write_idle: Duration,
    write_blocked_since: Option<Instant>,
    write_timer: Timer,
    /// HTTP/2 only: when its preface must have come, and in the end until when closing lingers.
    http2_deadline: Option<Instant>,
    http2_timer: Timer,
    bytes_read: u64,
    /// The end of the stream was sent.
    shut: bool,
    /// When it is set as the connection is dropped, the client sees a reset.
    broken: Arc<AtomicBool>,
    /// Of HTTP/2 only: what the session has written and the client has not been sent.
    gathered: Option<Box<Gathered>>,
}

impl Io {
    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, data),
        }
    }
}

impl Conn {
    /// A connection without TLS.
    pub(crate) fn plain(socket: Socket, peer: Option<SocketAddr>, write_idle: Duration) -> Self {
        Self::new(Io::Plain(socket), peer, write_idle)
    }

    /// A connection whose TLS handshake is done.
    pub(crate) fn tls(stream: TlsStream<Socket>, peer: Option<SocketAddr>, write_idle: Duration) -> Self {
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let mut conn = Self::new(Io::Tls(Box::new(stream)), peer, write_idle);
        conn.http2 = http2;
        conn
    }

    fn new(io: Io, peer: Option<SocketAddr>, write_idle: Duration) -> Self {
        Self {
            io,
            read_buffer: BytesMut::new(),
            chunk: READ_CHUNK,
            http2: false,
            peer,
            write_idle,
            write_blocked_since: None,
            write_timer: Timer::default(),
            http2_deadline: None,
            http2_timer: Timer::default(),
            bytes_read: 0,
            shut: false,
            broken: Arc::default(),
            gathered: None,
        }
    }

    /// Whether HTTP/2 was agreed on (ALPN) or seen (prior knowledge).
    pub(crate) fn is_http2(&self) -> bool {
        self.http2
    }

    /// Hands the connection to HTTP/2; its preface must be complete by `deadline`.
    pub(crate) fn expect_http2(&mut self, deadline: Instant) {
        self.http2 = true;
        self.http2_deadline = Some(deadline);
    }

    /// Reads more into `read_buffer`; 0 is the end of the stream. Reads that fill the buffer make it larger.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read_buffer.capacity() - self.read_buffer.len() < self.chunk / 4 {
            self.read_buffer.reserve(self.chunk);
        }
        let room = self.read_buffer.capacity() - self.read_buffer.len();
        let read = match &mut self.io {
            Io::Plain(socket) => pin!(socket.read_buf(&mut self.read_buffer)).poll(cx),
            Io::Tls(stream) => pin!(stream.read_buf(&mut self.read_buffer)).poll(cx),
        };
        if let Poll::Ready(Ok(count)) = &read {
            self.bytes_read += *count as u64;
            if *count == room {
                self.chunk = (self.chunk * 2).min(MAX_READ_CHUNK);
            }
        }
        read
    }

    /// Ready when there may be something to read, or the other side has gone; needs no buffer.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let socket = match &self.io {
            Io::Plain(socket) => socket,
            // Reading until nothing was left has emptied what TLS had decrypted.
            Io::Tls(stream) => stream.get_ref().0,
        };
        // An error is met again by the read that follows.
        socket.poll_read_ready(cx).map(drop)
    }

    /// Asks the kernel whether the other side has gone; takes no byte.
    pub(crate) fn hang_up(&self) -> HangUp {
        let socket = match &self.io {
            Io::Plain(socket) => socket,
            Io::Tls(stream) => stream.get_ref().0,
        };
        let mut asked = [PollFd::new(socket, PollFlags::RDHUP)];
        // What cannot be asked is met by the next read or write.
        let known = rustix::event::poll(&mut asked, Some(&Timespec::default())).is_ok();
        let seen = if known { asked[0].revents() } else { PollFlags::empty() };
        if seen.intersects(PollFlags::ERR | PollFlags::HUP) {
            HangUp::Reset
        } else if seen.contains(PollFlags::RDHUP) {
            let unread = rustix::io::ioctl_fionread(socket).unwrap_or(u64::MAX);
            HangUp::Ended { unread: usize::try_from(unread).unwrap_or(usize::MAX) }
        } else {
            HangUp::None
        }
    }

    /// Gives back what only a connection in use needs.
    pub(crate) fn strip(&mut self) {
        if self.read_buffer.is_empty() {
            self.read_buffer = BytesMut::new();
            self.chunk = READ_CHUNK;
        }
        self.write_timer = Timer::default();
        self.http2_timer = Timer::default();
    }

    /// Writes from both slices, the first one first, in one system call where the transport can.
    pub(crate) fn poll_write_two(&mut self, cx: &mut Context<'_>, a: &[u8], b: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_three(cx, a, b, &[])
    }

    /// As [`Self::poll_write_two`], with a third slice.
    pub(crate) fn poll_write_three(
        &mut self,
        cx: &mut Context<'_>,
        a: &[u8],
        b: &[u8],
        c: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One slice costs the kernel less than a vector of one.
        let written = match (a.is_empty(), c.is_empty()) {
            (true, true) => self.io.poll_write(cx, b),
            (false, true) => self.poll_write_slices(cx, &[a, b].map(io::IoSlice::new)),
            (true, false) => self.poll_write_slices(cx, &[b, c].map(io::IoSlice::new)),
            (false, false) => self.poll_write_slices(cx, &[a, b, c].map(io::IoSlice::new)),
        };
        self.bound_write(cx, written)
    }

    fn poll_write_slices(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
        }
    }

    /// Pushes out what TLS holds back; a plain socket holds nothing.
    pub(crate) fn poll_flush_io(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Io::Tls(stream) = &mut self.io else { return Poll::Ready(Ok(())) };
        let flushed = Pin::new(stream.as_mut()).poll_flush(cx);
        self.bound_write(cx, flushed)
    }

    /// Turns a write that has been pending for too long into an error.
    fn bound_write<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Some(gathered) = &self.gathered {
            gathered.turn().set_blocked(result.is_pending());
        }
        if result.is_ready() {
            self.write_blocked_since = None;
            return result;
        }
        let since = *self.write_blocked_since.get_or_insert_with(Instant::now);
        if self.write_timer.poll_expired(cx, since + self.write_idle) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "client takes no bytes")));
        }
        Poll::Pending
    }

    /// Closes a connection on which nothing is under way.
    pub(crate) async fn close_idle(mut self) {
        if matches!(self.io, Io::Plain(_)) {
            return;
        }
        // A client that is gone already needs no farewell.
        let _ = tokio::time::timeout(IDLE_LINGER, self.shutdown_write()).await;
    }

    /// Closes so that the client can still read what was written: end of stream first, then what it sends is dropped
    /// for a short while. Closing at once would answer its bytes with a reset, which discards our answer.
    pub(crate) async fn close(mut self) {
        self.linger().await;
    }

    async fn linger(&mut self) {
        let lingering = async {
            if self.shutdown_write().await.is_err() {
                return;
            }
            self.read_buffer.clear();
            while matches!(std::future::poll_fn(|cx| self.poll_fill(cx)).await, Ok(1..)) {
                self.read_buffer.clear();
            }
        };
        // Running out of time only means that the client was slow to leave.
        let _ = tokio::time::timeout(LINGER_TIME, lingering).await;
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        // Asked first: a client that sends without end must not keep it from being asked.
        if self.http2_timer.poll_expired(cx, deadline) {
            return Poll::Ready(());
        }
        loop {
            self.read_buffer.clear();
            match self.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    async fn shutdown_write(&mut self) -> io::Result<()> {
        match &mut self.io {
            Io::Plain(socket) => socket.shutdown().await,
            Io::Tls(stream) => stream.shutdown().await,
        }
    }

    /// A flag for somebody who has the connection closed by others: once set, it ends with a reset.
    pub(crate) fn broken_flag(&self) -> Arc<AtomicBool> {
        self.broken.clone()
    }

    /// From here on what is written is gathered and leaves when it is flushed, but not within a turn.
    pub(crate) fn gather(&mut self) -> Arc<Turn> {
        self.gathered.get_or_insert_default().turn().clone()
    }

    /// Writes what was gathered; ready once it has left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(gathered) = self.gathered.as_deref().filter(|gathered| !gathered.rest().is_empty()) {
            let written = self.io.poll_write(cx, gathered.rest());
            match ready!(self.bound_write(cx, written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.gathered.iter_mut().for_each(|gathered| gathered.advance(count)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the connection with a reset: a client must not take what it has for a complete answer.
    pub(crate) fn reset(self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    fn ask_for_reset(&self) {
        let socket = match &self.io {
            Io::Plain(socket) => socket,
            Io::Tls(stream) => stream.get_ref().0,
        };
        if let Socket::Tcp(stream) = socket {
            // Failing to ask for a reset still closes the connection.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    fn socket_fd(&self) -> i32 {
        match &self.io {
            Io::Plain(socket) => socket.as_raw_fd(),
            Io::Tls(stream) => stream.get_ref().0.as_raw_fd(),
        }
    }

    /// Fails once the HTTP/2 preface is overdue.
    fn check_preface(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(deadline) = self.http2_deadline else { return Ok(()) };
        if self.bytes_read >= PREFACE_BYTES {
            self.http2_deadline = None;
            return Ok(());
        }
        if self.http2_timer.poll_expired(cx, deadline) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface"));
        }
        Ok(())
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.broken.load(Ordering::Relaxed) {
            self.ask_for_reset();
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let conn = self.get_mut();
        if !conn.read_buffer.is_empty() {
            let count = conn.read_buffer.len().min(buf.remaining());
            buf.put_slice(&conn.read_buffer[..count]);
            conn.read_buffer.advance(count);
            return Poll::Ready(Ok(()));
        }
        conn.check_preface(cx)?;
        let before = buf.filled().len();
        let read = match &mut conn.io {
            Io::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        };
        conn.bytes_read += (buf.filled().len() - before) as u64;
        read
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let conn = self.get_mut();
        if conn.gathered.as_ref().is_some_and(|gathered| gathered.is_full()) {
            ready!(conn.poll_drain(cx))?;
        }
        if let Some(gathered) = &mut conn.gathered {
            return Poll::Ready(Ok(gathered.take(slices)));
        }
        let written = conn.poll_write_slices(cx, slices);
        conn.bound_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let conn = self.get_mut();
        if conn.gathered.as_ref().is_some_and(|gathered| gathered.holds_back()) {
            return Poll::Ready(Ok(()));
        }
        ready!(conn.poll_drain(cx))?;
        conn.poll_flush_io(cx)
    }

    /// Over HTTP/2 it waits a moment for the client to close as well: see [`Conn::close`], whose caller has the
    /// connection in hand, while this one is inside the session.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let conn = self.get_mut();
        if !conn.shut {
            ready!(conn.poll_drain(cx))?;
            let closed = match &mut conn.io {
                Io::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
                Io::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            };
            ready!(conn.bound_write(cx, closed))?;
            conn.shut = true;
            conn.http2_deadline = conn.http2.then(|| Instant::now() + HTTP2_LINGER);
        }
        match conn.http2_deadline {
            Some(deadline) => conn.poll_linger(cx, deadline).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[async_trait]
impl Shutdown for Conn {
    async fn shutdown(&mut self) {
        // The engine gives the connection up here.
        if !self.broken.load(Ordering::Relaxed) {
            self.linger().await;
        }
    }
}

impl UniqueID for Conn {
    fn id(&self) -> i32 {
        self.socket_fd()
    }
}

impl Ssl for Conn {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.http2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Conn {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Conn {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Conn {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        let digest = SocketDigest::from_raw_fd(self.socket_fd());
        // A fresh cell is empty, so setting it cannot fail.
        let _ = digest.peer_addr.set(self.peer.map(EngineAddress::from));
        Some(Arc::new(digest))
    }
}

#[async_trait]
impl Peek for Conn {}
