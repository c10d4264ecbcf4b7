//! Moves one request to an HTTP/1.1 endpoint and its answer back, both directions at once.
//!
//! A polled state machine rather than two tasks: both directions share the client's connection, and the answer may
//! come, or fail, while the request is still being sent. It decides nothing: heads go to the exchange's `step`,
//! and how the relay ended goes back to the driver.

use super::downstream::{ClientFault, Downstream, ResponseBody};
use super::fields::ResponseFields;
use crate::upstream::connection::Connection;
use bytes::Buf;
use std::io;
use std::task::{Context, Poll, ready};
use tidegate_config::model::UpstreamTimeouts;
use tidegate_http1::{Asked, BodyDecoder, BodyEncoder, HeadLimits, ResponseFraming};
use tidegate_traffic::body::BodyPipe;
use tidegate_traffic::edits::HeadEdits;
use tidegate_traffic::retry::{Cause, Failure, Sent, Stage};
use tidegate_traffic::{Action, Answer, Event, Exchange, Refusal, RefusalKind, ResponseView, Traffic};
use tokio::time::Instant;

/// Interim answers that one request may get; more is an endpoint gone wrong.
const MAX_INFORMATIONAL: u32 = 8;
/// The largest response head that is accepted.
const RESPONSE_HEAD: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 256, target: 0 };

/// How a relay ended.
#[derive(Debug)]
pub(crate) enum RelayEnd {
    /// The answer is complete at the client.
    Complete {
        /// Whether the endpoint's connection can carry another exchange.
        reusable: bool,
    },
    /// Failed before anything of the answer was passed on.
    Failed(Failure),
    /// To be answered by us; nothing of the answer was passed on.
    Refused(Refusal),
    /// The answer broke off after its head was passed on.
    Truncated(Refusal),
    /// The client left or broke a limit.
    ClientFault(ClientFault),
    /// 101 was passed on: bytes flow freely from here on.
    Tunnel,
}

/// State of the request's way.
#[derive(Debug, PartialEq, Eq)]
enum Sending {
    /// More of the body may come.
    Body,
    /// Everything is in the write buffer.
    Flushing,
    /// All of it has left.
    Done,
    /// The endpoint stopped taking it; its answer may still come.
    Broken,
}

/// State of the response's way.
#[derive(Debug)]
enum Receiving {
    Head,
    Body { decoder: BodyDecoder, ready: usize, skip: usize },
    Finishing,
}

/// One request and its answer on one connection; see the module's text.
pub(crate) struct Relay<'a, D> {
    pub(crate) down: &'a mut D,
    pub(crate) up: &'a mut Connection,
    pub(crate) exchange: &'a mut Exchange,
    pub(crate) traffic: &'a Traffic,
    pub(crate) timeouts: UpstreamTimeouts,
    sending: Sending,
    encoder: BodyEncoder,
    pipe: Option<BodyPipe>,
    receiving: Receiving,
    asked: Asked,
    sent: bool,
    informational: u32,
    response_bytes: bool,
    keep_alive: bool,
    /// Status of the final head.
    status: Option<u16>,
    body_taken: bool,
    write_since: Option<Instant>,
    read_since: Option<Instant>,
}

/// What the relay needs to know of the request.
pub(crate) struct RequestShape {
    /// What its answer's framing depends on.
    pub(crate) asked: Asked,
    /// It has a body, perhaps an empty one that is not known to be.
    pub(crate) has_body: bool,
    /// How the body is framed towards the endpoint.
    pub(crate) encoder: BodyEncoder,
    /// Limits on the body.
    pub(crate) pipe: Option<BodyPipe>,
}

impl<'a, D: Downstream> Relay<'a, D> {
    /// The request's head stands in `up.write` already.
    pub(crate) fn new(
        down: &'a mut D,
        up: &'a mut Connection,
        exchange: &'a mut Exchange,
        traffic: &'a Traffic,
        timeouts: UpstreamTimeouts,
        request: RequestShape,
    ) -> Self {
        up.head.clear();
        Self {
            down,
            up,
            exchange,
            traffic,
            timeouts,
            sending: if request.has_body { Sending::Body } else { Sending::Flushing },
            encoder: request.encoder,
            pipe: request.pipe,
            receiving: Receiving::Head,
            asked: request.asked,
            sent: false,
            informational: 0,
            response_bytes: false,
            keep_alive: false,
            status: None,
            body_taken: false,
            write_since: None,
            read_since: None,
        }
    }

    /// Runs to the end.
    pub(crate) async fn run(mut self) -> (RelayEnd, Option<u16>) {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        (end, self.status)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        if let Poll::Ready(end) = self.poll_request(cx) {
            return Poll::Ready(end);
        }
        if let Poll::Ready(end) = self.poll_response(cx) {
            return Poll::Ready(end);
        }
        if self.request_left()
            && let Poll::Ready(fault) = self.down.poll_gone(cx)
        {
            return Poll::Ready(RelayEnd::ClientFault(fault));
        }
        self.poll_deadlines(cx)
    }

    fn request_left(&self) -> bool {
        matches!(self.sending, Sending::Done)
    }

    /// Ready only when the exchange cannot go on.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        loop {
            match self.sending {
                Sending::Done | Sending::Broken => return Poll::Pending,
                Sending::Body | Sending::Flushing => {}
            }
            if !self.up.write.is_empty() {
                match self.poll_write_upstream(cx) {
                    Poll::Ready(()) => continue,
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.sending == Sending::Flushing {
                self.sending = Sending::Done;
                // The wait for the answer counts from here, not from the first byte of a long upload.
                self.read_since = self.read_since.map(|_| Instant::now());
                return Poll::Pending;
            }
            if let Some(end) = ready!(self.poll_take_body(cx)) {
                return Poll::Ready(end);
            }
        }
    }

    fn poll_write_upstream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.up.poll_drain(cx) {
            Poll::Ready(Ok(count)) if count > 0 => {
                self.sent = true;
                self.write_since = None;
                Poll::Ready(())
            }
            Poll::Ready(_) => {
                self.write_since = None;
                self.sending = Sending::Broken;
                Poll::Ready(())
            }
            Poll::Pending => {
                self.write_since.get_or_insert_with(Instant::now);
                Poll::Pending
            }
        }
    }

    /// Moves a piece of the client's body into the write buffer.
    fn poll_take_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        let Self { down, up, encoder, pipe, .. } = self;
        let mut refusal = None;
        let taken = down.poll_body(cx, &mut |data| {
            if refusal.is_some() {
                return;
            }
            match pipe.as_mut().map_or(Ok(()), |pipe| pipe.push(data.len())) {
                Ok(()) => {
                    if let Err(error) = encoder.encode(data, &mut up.write) {
                        refusal = Some(Refusal::new(RefusalKind::BadRequest, error.to_string()));
                    }
                }
                Err(over) => refusal = Some(over),
            }
        });
        let more = match ready!(taken) {
            Ok(more) => more,
            Err(fault) => return Poll::Ready(Some(RelayEnd::ClientFault(fault))),
        };
        self.body_taken = true;
        if let Some(refusal) = refusal {
            return Poll::Ready(Some(self.refuse(refusal)));
        }
        if !more {
            if self.encoder.finish(&mut self.up.write).is_err() {
                let short = Refusal::new(RefusalKind::BadRequest, "the body is shorter than announced");
                return Poll::Ready(Some(self.refuse(short)));
            }
            self.sending = Sending::Flushing;
        }
        Poll::Ready(None)
    }

    /// An end that we cause: an answer of our own while none has begun, otherwise a visible break.
    fn refuse(&self, refusal: Refusal) -> RelayEnd {
        if self.down.response_started() { RelayEnd::Truncated(refusal) } else { RelayEnd::Refused(refusal) }
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        loop {
            match self.receiving {
                Receiving::Head => {
                    if let Some(end) = ready!(self.poll_head(cx)) {
                        return Poll::Ready(end);
                    }
                }
                Receiving::Body { .. } => {
                    if let Some(end) = ready!(self.poll_relay_body(cx)) {
                        return Poll::Ready(end);
                    }
                }
                Receiving::Finishing => {
                    return self.down.poll_finish(cx).map(|finished| match finished {
                        Ok(()) => self.complete(),
                        Err(fault) => RelayEnd::ClientFault(fault),
                    });
                }
            }
        }
    }

    fn complete(&self) -> RelayEnd {
        let reusable = self.request_left() && self.keep_alive && self.up.read.is_empty();
        RelayEnd::Complete { reusable }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        loop {
            match self.up.head.parse(&self.up.read, &RESPONSE_HEAD, self.asked) {
                Ok(Some(length)) => return Poll::Ready(self.take_head(length)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "endpoint's answer is malformed");
                    return Poll::Ready(Some(self.fail(Cause::Malformed)));
                }
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(self.fail(Cause::Closed))),
                Poll::Ready(Ok(_)) => self.response_bytes = true,
                Poll::Pending => {
                    // An interim answer must not wait for the final one.
                    if let Err(fault) = ready!(self.down.poll_flush(cx)) {
                        return Poll::Ready(Some(RelayEnd::ClientFault(fault)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let filled = self.up.poll_fill(cx);
        match &filled {
            Poll::Ready(_) => self.read_since = None,
            Poll::Pending => {
                self.read_since.get_or_insert_with(Instant::now);
            }
        }
        filled
    }

    /// A complete head stands at the front of the read buffer.
    fn take_head(&mut self, length: usize) -> Option<RelayEnd> {
        if self.up.head.is_informational() && self.up.head.status() != 101 {
            return self.take_informational(length);
        }
        let Self { up, exchange, traffic, .. } = self;
        let fields = ResponseFields { head: &up.head, bytes: &up.read };
        let view = ResponseView { status: up.head.status(), fields: &fields };
        self.status = Some(view.status);
        let action = exchange.step(traffic, Event::ResponseHead(view), std::time::Instant::now());
        let (edits, tunnel) = match action {
            Action::Relay { edits, tunnel } => (edits, tunnel),
            Action::Respond(Answer::Refused(refusal)) => return Some(RelayEnd::Refused(refusal)),
            other => {
                let text = format!("a response head led to an unexpected action: {other:?}");
                return Some(RelayEnd::Refused(Refusal::new(RefusalKind::Internal, text)));
            }
        };
        match self.pass_head_on(&edits, length, tunnel) {
            Ok(end) => end,
            Err(fault) => Some(RelayEnd::ClientFault(fault)),
        }
    }

    fn pass_head_on(
        &mut self,
        edits: &HeadEdits<'_>,
        length: usize,
        tunnel: bool,
    ) -> Result<Option<RelayEnd>, ClientFault> {
        let head = &self.up.head;
        let fields = ResponseFields { head, bytes: &self.up.read };
        let framing = head.framing();
        let body = match framing {
            // Only answers to HEAD and 304 may announce a body that they do not have (RFC 9110 section 8.6).
            ResponseFraming::None if self.asked == Asked::Head || head.status() == 304 => {
                ResponseBody::None(head.content_length().filter(|_| head.status() >= 200 && head.status() != 204))
            }
            ResponseFraming::None => ResponseBody::None(None),
            ResponseFraming::Length(length) => ResponseBody::Length(length),
            ResponseFraming::Chunked | ResponseFraming::UntilClose => ResponseBody::Unknown,
        };
        self.keep_alive = head.keep_alive() && framing != ResponseFraming::UntilClose;
        self.down.start_response(head.status(), &fields, edits, body)?;
        self.up.read.advance(length);
        if tunnel {
            return Ok(Some(RelayEnd::Tunnel));
        }
        self.receiving = match framing {
            ResponseFraming::None => Receiving::Finishing,
            _ => Receiving::Body { decoder: BodyDecoder::new(framing), ready: 0, skip: 0 },
        };
        Ok(None)
    }

    fn take_informational(&mut self, length: usize) -> Option<RelayEnd> {
        self.informational += 1;
        if self.informational > MAX_INFORMATIONAL {
            return Some(self.fail(Cause::Malformed));
        }
        // 100 is between us and the endpoint: the client's Expect was answered by us.
        if self.up.head.status() != 100 {
            let Self { up, exchange, traffic, down, .. } = self;
            let fields = ResponseFields { head: &up.head, bytes: &up.read };
            let view = ResponseView { status: up.head.status(), fields: &fields };
            let action = exchange.step(traffic, Event::ResponseHead(view), std::time::Instant::now());
            if let Action::Relay { edits, .. } = action {
                down.informational(up.head.status(), &fields, &edits);
            }
        }
        self.up.read.advance(length);
        self.up.head.clear();
        None
    }

    /// A failure before the answer's head was passed on.
    fn fail(&self, cause: Cause) -> RelayEnd {
        let stage = if self.request_left() { Stage::Head } else { Stage::Send };
        RelayEnd::Failed(Failure {
            stage,
            cause,
            reused: self.up.reused,
            sent: if self.sent { Sent::Some } else { Sent::Nothing },
            body_replayable: !self.body_taken,
            response_started: self.response_bytes,
        })
    }

    fn poll_relay_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        loop {
            let Receiving::Body { decoder, ready, skip } = &mut self.receiving else { return Poll::Ready(None) };
            if *ready > 0 {
                let last = decoder.is_done();
                match ready!(self.down.poll_send(cx, &self.up.read[..*ready], last)) {
                    Ok(count) => {
                        self.up.read.advance(count);
                        *ready -= count;
                    }
                    Err(fault) => return Poll::Ready(Some(RelayEnd::ClientFault(fault))),
                }
                continue;
            }
            self.up.read.advance(std::mem::take(skip));
            if decoder.is_done() {
                self.receiving = Receiving::Finishing;
                return Poll::Ready(None);
            }
            match decoder.decode(&self.up.read) {
                Ok(decoded) if decoded.consumed > 0 || decoded.done => {
                    *ready = decoded.data.len();
                    *skip = decoded.consumed - decoded.data.end;
                    self.up.read.advance(decoded.data.start);
                    continue;
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(truncated(&error.to_string()))),
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(self.end_of_upstream()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(truncated(&error.to_string()))),
                Poll::Pending => {
                    // Nothing more for now: what is buffered must not wait for it.
                    if let Err(fault) = ready!(self.down.poll_flush(cx)) {
                        return Poll::Ready(Some(RelayEnd::ClientFault(fault)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// The endpoint closed: the end of a close-delimited body, or a truncation.
    fn end_of_upstream(&mut self) -> Option<RelayEnd> {
        let Receiving::Body { decoder, .. } = &self.receiving else { return None };
        match decoder.finish_eof() {
            Ok(()) => {
                self.receiving = Receiving::Finishing;
                None
            }
            Err(_) => Some(truncated("connection closed in the middle of the body")),
        }
    }

    /// Both directions wait: is one of the waits overdue?
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let write = self.write_since.map(|since| since + self.timeouts.write);
        let in_head = matches!(self.receiving, Receiving::Head);
        // The endpoint owes an answer only once it has the whole request.
        let owes = self.request_left() || self.sending == Sending::Broken;
        let read = match self.read_since {
            Some(since) if in_head && owes => Some(since + self.timeouts.head),
            Some(since) if !in_head => Some(since + self.timeouts.read),
            _ => None,
        };
        let Some(deadline) = [write, read].into_iter().flatten().min() else { return Poll::Pending };
        if !self.up.timer.poll_expired(cx, deadline) {
            return Poll::Pending;
        }
        if in_head {
            return Poll::Ready(self.fail(Cause::TimedOut));
        }
        let refusal = Refusal::new(RefusalKind::UpstreamReadTimeout, "no more of the body came in time");
        Poll::Ready(RelayEnd::Truncated(refusal))
    }
}

fn truncated(detail: &str) -> RelayEnd {
    RelayEnd::Truncated(Refusal::new(RefusalKind::UpstreamClosed, format!("response broke off: {detail}")))
}
