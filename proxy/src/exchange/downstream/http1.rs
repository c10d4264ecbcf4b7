//! A client's HTTP/1.1 request on its connection.

use super::body_wait::BodyWait;
use super::{ClientFault, Downstream, ResponseBody};
use crate::edge::conn::{Conn, HangUp};
use crate::edge::listener::Settings;
use crate::edge::timer::Timer;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::GetSocketDigest as _;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tidegate_config::model::HalfClose;
use tidegate_http1::{BodyDecoder, BodyEncoder, HeadWriter, ResponseFraming, Version};
use tidegate_traffic::Fields;
use tidegate_traffic::edits::HeadEdits;
use tokio::sync::watch;
use tokio::time::Instant;

/// Bytes of later requests that are read ahead while an answer is under way.
const MAX_READ_AHEAD: usize = 64 * 1024;

/// What may still come of a body whose answer is complete.
const DRAIN_BYTES: usize = 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// How often a client whose body nobody reads is looked after.
const HANG_UP_LOOK: Duration = Duration::from_millis(600);

/// What the answer needs to know of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestTraits {
    /// Its version.
    pub(crate) version: Version,
    /// The client wants, and we allow, another request on the connection.
    pub(crate) keep_alive: bool,
    /// The client waits for 100 before it sends the body.
    pub(crate) expect_continue: bool,
}

/// One request and its answer; see the module's text.
#[derive(Debug)]
pub(crate) struct Http1Downstream<'c> {
    conn: &'c mut Conn,
    /// To be written before anything else.
    out: BytesMut,
    request: RequestTraits,
    decoder: BodyDecoder,
    encoder: Option<BodyEncoder>,
    /// Where the answer begins in `out`, until a byte of it has left.
    unsent_from: Option<usize>,
    /// What stands behind the frame under way, once that was prepared.
    tail: BytesMut,
    frame_left: usize,
    closing: watch::Receiver<bool>,
    wait: BodyWait,
    /// When to look next whether a client that nobody reads has gone.
    hang_up_at: Option<Instant>,
    hang_up_timer: Timer,
    half_close: HalfClose,
    /// The client sends nothing more.
    ended: bool,
    keep_alive: bool,
    finished: bool,
    aborted: bool,
    bytes_in: u64,
    bytes_out: u64,
}

/// What becomes of the connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It can carry another request.
    KeepAlive,
    /// The client said that this was its last request, so nothing that it still sends is waited for.
    Done,
    /// It is closed in order.
    Close,
    /// It is reset: the client must not take what it has for complete.
    Reset,
}

impl<'c> Http1Downstream<'c> {
    /// A request whose head was taken from `conn.read_buffer`. `out` is an empty buffer to use.
    pub(crate) fn new(
        conn: &'c mut Conn,
        out: BytesMut,
        request: RequestTraits,
        decoder: BodyDecoder,
        settings: &Settings,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            conn,
            out,
            request,
            decoder,
            encoder: None,
            unsent_from: None,
            tail: BytesMut::new(),
            frame_left: 0,
            closing,
            wait: BodyWait::new(&settings.timeouts),
            hang_up_at: None,
            hang_up_timer: Timer::default(),
            half_close: settings.half_close,
            ended: false,
            keep_alive: request.keep_alive,
            finished: false,
            aborted: false,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Ends the exchange: what becomes of the connection, and the buffer back.
    pub(crate) fn end(self) -> (After, BytesMut) {
        let after = if self.aborted {
            After::Reset
        } else if self.finished && self.keep_alive && self.decoder.is_done() {
            After::KeepAlive
        } else if self.finished
            && !self.request.keep_alive
            && self.decoder.is_done()
            && self.conn.read_buffer.is_empty()
        {
            After::Done
        } else {
            After::Close
        };
        (after, self.out)
    }

    /// Whether the connection could carry another request, were it not for the rest of this one's body.
    pub(crate) fn owes_body(&self) -> bool {
        self.finished && self.keep_alive && !self.aborted && !self.decoder.is_done()
    }

    /// Reads what is left of the request's body and drops it, within narrow bounds: then the connection can carry
    /// another request although the answer came early.
    pub(crate) async fn drain_body(&mut self) {
        let mut dropped = 0;
        let draining = async {
            while dropped < DRAIN_BYTES {
                match poll_fn(|cx| self.poll_body(cx, &mut |data| dropped += data.len())).await {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return,
                }
            }
        };
        // Out of time or bytes the connection is closed, which `end` sees by the decoder.
        let _ = tokio::time::timeout(DRAIN_TIME, draining).await;
    }

    /// What is still to be written to the connection, for a tunnel.
    pub(crate) fn into_unsent(self) -> BytesMut {
        self.out
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientFault>> {
        while !self.out.is_empty() {
            let count = ready!(self.conn.poll_write_two(cx, &[], &self.out))?;
            if count == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            self.out.advance(count);
            self.unsent_from = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Asks a waiting client for its body.
    fn send_continue(&mut self) {
        if std::mem::take(&mut self.request.expect_continue) && self.encoder.is_none() {
            let mut writer = HeadWriter::new(&mut self.out);
            writer.status_line(100);
            writer.end();
        }
    }

    /// Whether the client has reset the connection, or has ended its side and will not be served: its request can never be
    /// complete, or ending it means leaving.
    fn has_hung_up(&self) -> bool {
        match self.conn.hang_up() {
            HangUp::None => false,
            HangUp::Reset => true,
            HangUp::Ended { .. } if self.half_close == HalfClose::Abort => true,
            // With the answer under way a client may well end an upload that nobody wants.
            HangUp::Ended { unread } if self.encoder.is_none() => {
                let there = self.conn.read_buffer.len().saturating_add(unread) as u64;
                self.decoder.remaining().is_some_and(|left| there < left)
            }
            HangUp::Ended { .. } => false,
        }
    }

    /// The client sends nothing more, which is its right once its request is complete. Nothing more is read from here
    /// on: the end would be found again and again.
    fn note_end(&mut self) {
        self.ended = true;
        if self.conn.read_buffer.is_empty() {
            self.keep_alive = false;
        }
    }
}

impl Downstream for Http1Downstream<'_> {
    fn local_address(&self) -> Option<SocketAddr> {
        self.conn.get_socket_digest()?.local_addr()?.as_inet().copied()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(&[u8])) -> Poll<Result<bool, ClientFault>> {
        loop {
            if self.decoder.is_done() {
                return Poll::Ready(Ok(false));
            }
            let decoded = self.decoder.decode(&self.conn.read_buffer)?;
            if !decoded.data.is_empty() {
                self.bytes_in += decoded.data.len() as u64;
                sink(&self.conn.read_buffer[decoded.data.clone()]);
            }
            self.conn.read_buffer.advance(decoded.consumed);
            if !decoded.data.is_empty() || decoded.done {
                self.wait.came(decoded.data.len());
                return Poll::Ready(Ok(!self.decoder.is_done()));
            }
            if decoded.consumed > 0 {
                continue;
            }
            self.send_continue();
            if self.encoder.is_none() && !self.out.is_empty() {
                ready!(self.poll_flush(cx))?;
            }
            match self.conn.poll_fill(cx) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(ClientFault::Gone(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ClientFault::Gone(error))),
                Poll::Pending => return self.wait.poll(cx).map(Err),
            }
        }
    }

    fn take_ready_body(&mut self) -> Option<(BytesMut, bool)> {
        // Only a body of known length lies in the buffer as it is.
        if self.decoder.is_done() || self.decoder.remaining().is_none() || self.conn.read_buffer.is_empty() {
            return None;
        }
        let decoded = self.decoder.decode(&self.conn.read_buffer).ok()?;
        self.bytes_in += decoded.consumed as u64;
        Some((self.conn.read_buffer.split_to(decoded.consumed), decoded.done))
    }

    fn pause_body(&mut self) {
        self.wait.pause();
    }

    fn informational(&mut self, status: u16, fields: &dyn Fields, edits: &HeadEdits<'_>) {
        // HTTP/1.0 knows no interim answers (RFC 9110 section 15.2).
        if self.request.version == Version::Http10 || self.encoder.is_some() {
            return;
        }
        let mut writer = HeadWriter::new(&mut self.out);
        writer.status_line(status);
        edits.apply(fields, &mut |name, value| {
            writer.field(name, value);
        });
        writer.end();
    }

    fn start_response(
        &mut self,
        status: u16,
        fields: &dyn Fields,
        edits: &HeadEdits<'_>,
        body: ResponseBody,
    ) -> Result<(), ClientFault> {
        if *self.closing.borrow() {
            self.keep_alive = false;
        }
        let framing = match body {
            ResponseBody::None(_) => ResponseFraming::None,
            ResponseBody::Length(length) => ResponseFraming::Length(length),
            ResponseBody::Unknown if self.request.version == Version::Http11 => ResponseFraming::Chunked,
            ResponseBody::Unknown => {
                // The end of the connection is the only end that HTTP/1.0 can see.
                self.keep_alive = false;
                ResponseFraming::UntilClose
            }
        };
        let begin = self.out.len();
        let mut writer = HeadWriter::new(&mut self.out);
        writer.status_line(status);
        edits.apply(fields, &mut |name, value| {
            writer.field(name, value);
        });
        match body {
            ResponseBody::None(Some(length)) => writer.framing(ResponseFraming::Length(length)),
            ResponseBody::None(None) | ResponseBody::Length(_) | ResponseBody::Unknown => writer.framing(framing),
        };
        if status != 101 {
            match (self.keep_alive, self.request.version) {
                (false, _) => writer.field("Connection", "close"),
                (true, Version::Http10) => writer.field("Connection", "keep-alive"),
                (true, Version::Http11) => &mut writer,
            };
        }
        writer.end();
        self.encoder = Some(BodyEncoder::new(framing));
        self.unsent_from = Some(begin);
        Ok(())
    }

    fn abandon_body(&mut self) {
        if !self.decoder.is_done() {
            self.keep_alive = false;
        }
    }

    fn end_connection(&mut self) {
        self.keep_alive = false;
    }

    fn response_started(&self) -> bool {
        self.encoder.is_some()
    }

    fn take_back(&mut self) -> bool {
        let Some(begin) = self.unsent_from.take() else { return false };
        self.out.truncate(begin);
        self.tail.clear();
        self.frame_left = 0;
        self.encoder = None;
        true
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8], _last: bool) -> Poll<Result<usize, ClientFault>> {
        let Some(encoder) = &mut self.encoder else { return Poll::Ready(Ok(0)) };
        if self.frame_left == 0 {
            encoder.prefix(data.len(), &mut self.out)?;
            encoder.suffix(&mut self.tail);
            self.frame_left = data.len();
        }
        let part = &data[..self.frame_left.min(data.len())];
        // The frame's end leaves with its data: alone it would cost a system call and a segment of its own.
        let tail = if part.len() == self.frame_left { &self.tail[..] } else { &[] };
        let written = ready!(self.conn.poll_write_three(cx, &self.out, part, tail))?;
        if written == 0 {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
        }
        self.unsent_from = None;
        let head = written.min(self.out.len());
        let sent = (written - head).min(part.len());
        self.out.advance(head);
        self.frame_left -= sent;
        self.bytes_out += sent as u64;
        if self.frame_left == 0 {
            self.tail.advance(written - head - sent);
            self.out.unsplit(self.tail.split());
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientFault>> {
        ready!(self.poll_write_out(cx))?;
        Poll::Ready(ready!(self.conn.poll_flush_io(cx)).map_err(ClientFault::from))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientFault>> {
        if !self.finished
            && let Some(encoder) = &mut self.encoder
        {
            encoder.finish(&mut self.out)?;
            self.finished = true;
        }
        self.poll_flush(cx)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<ClientFault> {
        loop {
            if self.ended || self.conn.read_buffer.len() >= MAX_READ_AHEAD {
                return Poll::Pending;
            }
            match ready!(self.conn.poll_fill(cx)) {
                Ok(0) if self.half_close == HalfClose::Serve => self.note_end(),
                Ok(0) => return Poll::Ready(ClientFault::Gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(ClientFault::Gone(error)),
            }
        }
    }

    fn poll_hung_up(&mut self, cx: &mut Context<'_>) -> Poll<ClientFault> {
        // Bytes that nobody has read hide from the runtime what comes behind them; only the kernel knows, so it is asked
        // from time to time.
        let at = *self.hang_up_at.get_or_insert_with(|| Instant::now() + HANG_UP_LOOK);
        if !self.hang_up_timer.poll_expired(cx, at) {
            return Poll::Pending;
        }
        if self.has_hung_up() {
            return Poll::Ready(ClientFault::Gone(io::ErrorKind::ConnectionReset.into()));
        }
        self.hang_up_at = None;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn abort(&mut self) {
        self.aborted = true;
    }

    fn cut(&mut self) {
        // A length or a last chunk that is missing tells, and an orderly end lets everything before it arrive. Without
        // either only a reset can tell.
        let tells = self.encoder.as_ref().is_some_and(|encoder| encoder.tells_its_end());
        self.keep_alive = false;
        self.aborted = !tells;
    }

    fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    fn bytes_out(&self) -> u64 {
        self.bytes_out
    }
}
