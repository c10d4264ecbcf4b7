//! A client's HTTP/2 stream, on the engine's session.
//!
//! The session's own write calls are whole futures; here its stream writer is taken out after the head, so that
//! both directions can be polled from one task.

use super::body_wait::BodyWait;
use super::memory::{MemoryShare, SharedMemory};
use super::{ClientFault, Downstream, ResponseBody};
use crate::edge::timer::Timer;
use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderName;
use pingora::http::ResponseHeader;
use pingora_core::protocols::http::v2::server::HttpSession;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tidegate_config::model::ClientTimeouts;
use tidegate_traffic::Fields;
use tidegate_traffic::edits::HeadEdits;
use tokio::time::Instant;

/// Bytes asked of the client's window at once.
const SEND_CHUNK: usize = 64 * 1024;

/// Fields of an answer that there is room for at once.
const EXPECTED_FIELDS: usize = 16;

/// One stream; see the module's text.
pub(crate) struct Http2Downstream<'c> {
    session: HttpSession,
    memory: MemoryShare<'c>,
    writer: Option<SendStream<Bytes>>,
    ended: bool,
    /// What the request says of its body.
    length: Option<u64>,
    /// The piece that completes the announced length, as long as more may follow: an HTTP/1 endpoint would take the
    /// request for complete, and it is malformed if more does follow (RFC 9113 section 8.1.1).
    last: Bytes,
    wait: BodyWait,
    write_idle: Duration,
    write_since: Option<Instant>,
    write_timer: Timer,
    bytes_in: u64,
    bytes_out: u64,
    connection_ends: bool,
}

impl<'c> Http2Downstream<'c> {
    /// A stream whose head was read.
    pub(crate) fn new(session: HttpSession, timeouts: &ClientTimeouts, shared: &'c SharedMemory) -> Self {
        let length = session.req_header().headers.get(http::header::CONTENT_LENGTH);
        Self {
            length: length.and_then(|value| value.to_str().ok()?.parse().ok()),
            last: Bytes::new(),
            session,
            memory: shared.share(),
            writer: None,
            ended: false,
            wait: BodyWait::new(timeouts),
            write_idle: timeouts.write_idle,
            write_since: None,
            write_timer: Timer::default(),
            bytes_in: 0,
            bytes_out: 0,
            connection_ends: false,
        }
    }

    /// Whether no other stream of the connection will be served.
    pub(crate) fn connection_ends(&self) -> bool {
        self.connection_ends
    }

    /// The session back, for the engine; only before the answer has begun.
    pub(crate) fn into_session(self) -> HttpSession {
        self.session
    }

    /// The next piece of the body that may be passed on.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        loop {
            let Some(data) = ready!(self.session.poll_read_body_bytes(cx)?) else { return Poll::Ready(None) };
            // An empty frame is no sign of a body that moves.
            if !data.is_empty() {
                self.wait.came(data.len());
            }
            self.bytes_in += data.len() as u64;
            // With the announced length complete, only empty pieces can follow.
            let data = if data.is_empty() { std::mem::take(&mut self.last) } else { data };
            if Some(self.bytes_in) != self.length || self.session.is_body_done() {
                return Poll::Ready(Some(Ok(data)));
            }
            self.last = data;
        }
    }

    fn poll_capacity(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, ClientFault>> {
        let Some(writer) = &mut self.writer else { return Poll::Ready(Ok(0)) };
        writer.reserve_capacity(want.min(SEND_CHUNK));
        while writer.capacity() == 0 {
            match writer.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(gone(error))),
                Poll::Ready(None) => return Poll::Ready(Err(gone(Reason::CANCEL.into()))),
                Poll::Pending => {
                    let since = *self.write_since.get_or_insert_with(Instant::now);
                    if self.write_timer.poll_expired(cx, since + self.write_idle) {
                        return Poll::Ready(Err(ClientFault::WriteStalled));
                    }
                    return Poll::Pending;
                }
            }
        }
        self.write_since = None;
        Poll::Ready(Ok(writer.capacity()))
    }
}

fn gone(error: h2::Error) -> ClientFault {
    ClientFault::Gone(io::Error::other(error))
}

impl Downstream for Http2Downstream<'_> {
    fn local_address(&self) -> Option<SocketAddr> {
        self.session.server_addr()?.as_inet().copied()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(&[u8])) -> Poll<Result<bool, ClientFault>> {
        match self.poll_piece(cx) {
            Poll::Ready(Some(Ok(data))) => {
                sink(&data);
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(gone(error))),
            Poll::Ready(None) => {
                sink(&std::mem::take(&mut self.last));
                Poll::Ready(Ok(false))
            }
            Poll::Pending => self.wait.poll(cx).map(Err),
        }
    }

    fn pause_body(&mut self) {
        self.wait.pause();
    }

    fn informational(&mut self, _: u16, _: &dyn Fields, _: &HeadEdits) {
        // The engine's HTTP/2 session has no way to send interim answers.
    }

    fn start_response(
        &mut self,
        status: u16,
        fields: &dyn Fields,
        edits: &HeadEdits<'_>,
        body: ResponseBody,
    ) -> Result<(), ClientFault> {
        let mut head = ResponseHeader::build_no_case(status, Some(EXPECTED_FIELDS))
            .map_err(|error| ClientFault::Gone(io::Error::other(error)))?;
        let mut failed = None;
        edits.apply(fields, &mut |name, value| {
            let added = HeaderName::from_bytes(name.as_bytes())
                .map_err(io::Error::other)
                .and_then(|name| head.append_header(name, value).map_err(io::Error::other));
            if let Err(error) = added {
                failed = Some(error);
            }
        });
        if let ResponseBody::None(Some(length)) | ResponseBody::Length(length) = body {
            head.insert_header(http::header::CONTENT_LENGTH, length)
                .map_err(|error| ClientFault::Gone(io::Error::other(error)))?;
        }
        if let Some(error) = failed {
            return Err(ClientFault::Gone(error));
        }
        let end = matches!(body, ResponseBody::None(_) | ResponseBody::Length(0));
        self.session
            .write_response_header(Box::new(head), end)
            .map_err(|error| ClientFault::Gone(io::Error::other(error)))?;
        self.ended = end;
        self.writer = self.session.take_response_body_writer();
        Ok(())
    }

    fn abandon_body(&mut self) {
        // A stream carries one request; the session resets it when it is dropped.
    }

    fn end_connection(&mut self) {
        self.connection_ends = true;
    }

    fn response_started(&self) -> bool {
        self.writer.is_some()
    }

    fn take_back(&mut self) -> bool {
        // The session has the head as soon as it is started.
        false
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8], last: bool) -> Poll<Result<usize, ClientFault>> {
        let capacity = ready!(self.poll_capacity(cx, data.len()))?;
        let Some(writer) = &mut self.writer else { return Poll::Ready(Ok(0)) };
        let count = capacity.min(data.len());
        let end = last && count == data.len();
        writer.send_data(Bytes::copy_from_slice(&data[..count]), end).map_err(gone)?;
        self.ended = end;
        self.bytes_out += count as u64;
        Poll::Ready(Ok(count))
    }

    fn memory(&mut self, wanted: usize) -> usize {
        self.memory.at_most(wanted)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientFault>> {
        // The connection's task writes frames as they come.
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientFault>> {
        if !self.ended
            && let Some(writer) = &mut self.writer
        {
            writer.send_data(Bytes::new(), true).map_err(gone)?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<ClientFault> {
        let reset = match &mut self.writer {
            Some(writer) => {
                writer.poll_reset(cx).map_ok(|reason| reason.to_string()).map_err(|error| error.to_string())
            }
            None => {
                let idle = pin!(self.session.idle());
                idle.poll(cx).map_ok(|reason| reason.to_string()).map_err(|error| error.to_string())
            }
        };
        reset.map(|result| {
            let text = result.unwrap_or_else(|error| error);
            ClientFault::Gone(io::Error::new(io::ErrorKind::ConnectionReset, text))
        })
    }

    fn poll_hung_up(&mut self, cx: &mut Context<'_>) -> Poll<ClientFault> {
        // A stream is given up by a frame, which the session reads whatever becomes of the body.
        self.poll_gone(cx)
    }

    fn abort(&mut self) {
        match &mut self.writer {
            Some(writer) => writer.send_reset(Reason::INTERNAL_ERROR),
            None => self.session.shutdown(),
        }
        self.ended = true;
    }

    fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    fn bytes_out(&self) -> u64 {
        self.bytes_out
    }
}
