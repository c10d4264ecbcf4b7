//! One request on one HTTP/1.1 connection, until the head of its answer is there: what needs the endpoint only.
//!
//! The client's side, and everything behind the head, is the [relay](super::relay)'s. Apart, two of these can be under way for
//! one client.

use super::collected::Collected;
use super::downstream::Downstream;
use super::fields::ResponseFields;
use crate::upstream::connection::Connection;
use bytes::Buf;
use std::io;
use std::task::{Context, Poll, ready};
use tidegate_config::model::UpstreamTimeouts;
use tidegate_http1::{Asked, BodyDecoder, BodyEncoder, HeadLimits, ParsePolicy, ResponseFraming};
use tidegate_traffic::body::BodyPipe;
use tidegate_traffic::retry::{Cause, Failure, Heard, Sent, Stage};
use tidegate_traffic::whole;
use tidegate_traffic::{Action, Event, Exchange, Refusal, RefusalKind, ResponseView, Traffic};
use tokio::time::Instant;

/// Interim answers that one request may get; more is an endpoint gone wrong.
const MAX_INFORMATIONAL: u32 = 8;
/// The largest response head that is accepted.
const RESPONSE_HEAD: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 256, target: 0 };
/// Bytes of a collected request that are framed at once.
const REQUEST_PIECE: usize = 64 * 1024;
/// Bytes that every server takes in the one read that finds the head.
const ONE_READ: usize = 8 * 1024;

/// State of the request's way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// More of the body may come.
    Body,
    /// Everything is in the write buffer.
    Flushing,
    /// All of it has left.
    Done,
    /// The endpoint stopped taking it; its answer may still come.
    Broken,
}

/// A head at the front of the read buffer whose body has not come.
#[derive(Debug, Clone, Copy)]
struct WaitingHead {
    length: usize,
    since: Instant,
}

/// Which wait has taken too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The endpoint takes no bytes.
    Write,
    /// It sends none.
    Read,
    /// The time of this try is over.
    Try,
    /// That of the whole answer is.
    Answer,
}

/// What the endpoint needs to be told, and to be asked.
pub(crate) struct RequestShape<'a> {
    /// What is held of its body; at its beginning.
    pub(crate) collected: Option<&'a mut Collected>,
    /// What its answer's framing depends on.
    pub(crate) asked: Asked,
    /// It has a body, perhaps an empty one that is not known to be.
    pub(crate) has_body: bool,
    /// How the body is framed towards the endpoint.
    pub(crate) encoder: BodyEncoder,
    /// Limits on the body.
    pub(crate) pipe: Option<BodyPipe>,
    /// How the head of its answer is read.
    pub(crate) policy: ParsePolicy,
    /// When to ask whether another try is to follow this one.
    pub(crate) try_until: Option<std::time::Instant>,
}

/// See the module's text.
pub(crate) struct Asking<'a> {
    pub(super) up: Box<Connection>,
    pub(super) timeouts: UpstreamTimeouts,
    /// What is held of the request's body.
    pub(super) collected: Option<&'a mut Collected>,
    pub(super) sending: Sending,
    pub(super) encoder: BodyEncoder,
    pub(super) pipe: Option<BodyPipe>,
    /// Something of the body was taken from the client, and is held nowhere.
    pub(super) body_taken: bool,
    pub(super) asked: Asked,
    policy: ParsePolicy,
    sent: bool,
    informational: u32,
    response_bytes: bool,
    /// A final head that waits for its body.
    waiting: Option<WaitingHead>,
    write_since: Option<Instant>,
    read_since: Option<Instant>,
    /// When to ask whether another try is to follow this one.
    pub(super) try_until: Option<Instant>,
    /// When the whole answer has to be there, from the end of the request on.
    pub(super) answer_until: Option<Instant>,
}

impl<'a> Asking<'a> {
    /// The request's head stands in `up.write` already.
    pub(crate) fn new(mut up: Box<Connection>, timeouts: UpstreamTimeouts, request: RequestShape<'a>) -> Self {
        up.head.clear();
        up.unsettled = false;
        Self {
            up,
            timeouts,
            collected: request.collected,
            sending: if request.has_body { Sending::Body } else { Sending::Flushing },
            encoder: request.encoder,
            pipe: request.pipe,
            body_taken: false,
            asked: request.asked,
            policy: request.policy,
            sent: false,
            informational: 0,
            response_bytes: false,
            waiting: None,
            write_since: None,
            read_since: None,
            try_until: request.try_until.map(Instant::from_std),
            answer_until: None,
        }
    }

    /// Frames what is there of the body, so that it leaves with the head.
    ///
    /// # Errors
    ///
    /// When it cannot be sent; as all of these it ends the request.
    pub(super) fn begin(&mut self) -> Result<(), Refusal> {
        if self.sending == Sending::Body { self.take_collected() } else { Ok(()) }
    }

    /// Whether all of the request has left.
    pub(super) fn request_left(&self) -> bool {
        matches!(self.sending, Sending::Done)
    }

    /// Sends what is there. Ready when more is needed of the client's body, which is to be framed into `up.write`.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        loop {
            match self.sending {
                Sending::Done | Sending::Broken => return Poll::Pending,
                Sending::Body | Sending::Flushing => {}
            }
            if !self.up.write.is_empty() {
                ready!(self.poll_write(cx));
                continue;
            }
            if self.sending == Sending::Flushing {
                self.sending = Sending::Done;
                // The wait for the answer counts from here, not from the first byte of a long upload.
                self.begin_waiting();
                return Poll::Pending;
            }
            if self.collected.as_ref().is_none_or(|collected| collected.is_passed()) {
                return Poll::Ready(Ok(()));
            }
            if let Err(refusal) = self.take_collected() {
                return Poll::Ready(Err(refusal));
            }
        }
    }

    /// Moves a piece of what is held of the body into the write buffer.
    fn take_collected(&mut self) -> Result<(), Refusal> {
        let Some(collected) = self.collected.as_deref_mut() else { return Ok(()) };
        let encoded = collected.next().map(|data| {
            let piece = &data[..data.len().min(REQUEST_PIECE)];
            (piece.len(), self.encoder.encode(piece, &mut self.up.write))
        });
        match encoded {
            Ok((count, Ok(()))) => {
                collected.advance(count);
                let ended = collected.complete && collected.is_passed();
                if ended { self.end_request() } else { Ok(()) }
            }
            Ok((_, Err(error))) => Err(Refusal::new(RefusalKind::Internal, format!("held body: {error}"))),
            Err(error) => Err(Refusal::new(RefusalKind::Internal, format!("held body cannot be read: {error}"))),
        }
    }

    /// Everything of the body has been framed.
    pub(super) fn end_request(&mut self) -> Result<(), Refusal> {
        if self.encoder.finish(&mut self.up.write).is_err() {
            return Err(Refusal::new(RefusalKind::BadRequest, "the body is shorter than announced"));
        }
        self.sending = Sending::Flushing;
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.up.poll_drain(cx) {
            Poll::Ready(Ok(count)) if count > 0 => {
                // What does not come with the head may be what the endpoint answers without having read.
                self.up.unsettled |= self.sent || count > ONE_READ;
                self.sent = true;
                self.write_since = None;
                Poll::Ready(())
            }
            Poll::Ready(result) => {
                // TLS may have passed a part on before it failed.
                self.sent |= result.is_err() && self.up.is_tls();
                self.break_request();
                Poll::Ready(())
            }
            Poll::Pending => {
                self.write_since.get_or_insert_with(Instant::now);
                Poll::Pending
            }
        }
    }

    /// Nothing more of the request will be sent; from now on the endpoint owes the rest of its answer.
    pub(super) fn break_request(&mut self) {
        self.sending = Sending::Broken;
        self.write_since = None;
        self.begin_waiting();
    }

    /// From now on the endpoint owes its answer.
    fn begin_waiting(&mut self) {
        let now = Instant::now();
        self.read_since = self.read_since.map(|_| now);
        self.answer_until = self.timeouts.request.map(|time| now + time);
    }

    /// Ready with the length of a head that stands complete at the front of the read buffer, interim or final; again for the same
    /// one until it is consumed. A final one may be kept back for a moment.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Cause>> {
        loop {
            match self.up.head.parse(&self.up.read, &RESPONSE_HEAD, self.asked, self.policy) {
                // It stood there before we asked: a farewell to the connection, not an answer to this request.
                Ok(Some(_)) if self.up.reused && !self.sent => {
                    self.response_bytes = false;
                    return Poll::Ready(Err(Cause::Closed));
                }
                Ok(Some(length)) if !self.waits_for_body(length) => return Poll::Ready(Ok(length)),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "endpoint's answer is malformed");
                    return Poll::Ready(Err(Cause::Malformed));
                }
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Cause::Closed)),
                Poll::Ready(Ok(_)) => self.response_bytes = true,
                Poll::Pending => match self.waiting {
                    Some(WaitingHead { length, since }) if self.up.timer.poll_expired(cx, since + whole::PATIENCE) => {
                        return Poll::Ready(Ok(length));
                    }
                    Some(_) | None => return Poll::Pending,
                },
            }
        }
    }

    /// Whether the head of this length is kept back until its body has come. A worker that dies between the two then costs
    /// a try instead of the answer.
    fn waits_for_body(&mut self, length: usize) -> bool {
        let ResponseFraming::Length(body) = self.up.head.framing() else { return false };
        if !whole::is_worth_a_wait(body, self.up.read.len() - length) {
            return false;
        }
        self.waiting.get_or_insert_with(|| WaitingHead { length, since: Instant::now() });
        true
    }

    /// When the final head arrived that waits for its body, or had to.
    pub(super) fn arrival(&self) -> Option<std::time::Instant> {
        self.waiting.map(|head| head.since.into_std())
    }

    /// When the final head arrived that is taken now.
    pub(super) fn take_arrival(&mut self) -> std::time::Instant {
        self.waiting.take().map_or_else(std::time::Instant::now, |head| head.since.into_std())
    }

    /// Whether the head that is complete is interim (1xx, not 101).
    pub(super) fn is_interim(&self) -> bool {
        self.up.head.is_informational() && self.up.head.status() != 101
    }

    /// Passes the interim head on that stands at the front.
    ///
    /// # Errors
    ///
    /// When that is one too many.
    pub(super) fn pass_interim<D: Downstream>(
        &mut self,
        length: usize,
        down: &mut D,
        exchange: &mut Exchange,
        traffic: &Traffic,
    ) -> Result<(), Failure> {
        self.informational += 1;
        if self.informational > MAX_INFORMATIONAL {
            return Err(self.fail(Cause::Malformed));
        }
        // 100 is between us and the endpoint: the client's Expect was answered by us.
        if self.up.head.status() != 100 {
            let fields = ResponseFields { head: &self.up.head, bytes: &self.up.read };
            let view = ResponseView { status: self.up.head.status(), fields: &fields, replayable: false };
            let action = exchange.step(traffic, Event::ResponseHead(view), std::time::Instant::now());
            if let Action::Relay { edits, .. } = action {
                down.informational(self.up.head.status(), &fields, &edits);
            }
        }
        self.up.read.advance(length);
        self.up.head.clear();
        Ok(())
    }

    /// Reads more of the answer.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let filled = self.up.poll_fill(cx);
        match &filled {
            Poll::Ready(_) => self.read_since = None,
            Poll::Pending => {
                self.read_since.get_or_insert_with(Instant::now);
            }
        }
        filled
    }

    /// Drops an answer; whether all of it was there, so that its connection can carry another exchange.
    pub(super) fn discard(&mut self, length: usize) -> bool {
        let framing = self.up.head.framing();
        let keep_alive = self.up.head.keep_alive() && framing != ResponseFraming::UntilClose;
        self.up.read.advance(length);
        let mut decoder = BodyDecoder::new(framing);
        while !decoder.is_done() {
            match decoder.decode(&self.up.read) {
                Ok(decoded) if decoded.consumed > 0 || decoded.done => self.up.read.advance(decoded.consumed),
                _ => return false,
            }
        }
        keep_alive && self.request_left() && self.up.read.is_empty()
    }

    /// A failure before the answer's head was passed on.
    pub(super) fn fail(&self, cause: Cause) -> Failure {
        Failure {
            stage: match self.waiting {
                Some(_) => Stage::Body,
                None if self.request_left() => Stage::Head,
                None => Stage::Send,
            },
            cause,
            reused: self.up.reused,
            sent: if self.sent { Sent::Some } else { Sent::Nothing },
            body_replayable: !self.body_taken,
            heard: if self.response_bytes { Heard::Some } else { Heard::Nothing },
        }
    }

    /// Ready when the endpoint has kept us waiting for too long. `in_head`: for the head of its answer.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>, in_head: bool) -> Poll<Overdue> {
        let write = self.write_since.map(|since| since + self.timeouts.write);
        // Until it has the whole request the endpoint owes nothing, though it may have begun to answer.
        let owes = self.request_left() || self.sending == Sending::Broken;
        let limit = if in_head { self.timeouts.head } else { self.timeouts.read };
        // A head that waits for its body came in time, and does not wait for long.
        let awaits_head = in_head && self.waiting.is_none();
        let read = self.read_since.filter(|_| owes && (awaits_head || !in_head)).map(|since| since + limit);
        let try_until = self.try_until.filter(|_| awaits_head);
        // It is not for it to answer faster than the client reads.
        let answer = self.answer_until.filter(|_| self.read_since.is_some());
        let Some(deadline) = [write, read, try_until, answer].into_iter().flatten().min() else { return Poll::Pending };
        if !self.up.timer.poll_expired(cx, deadline) {
            return Poll::Pending;
        }
        Poll::Ready(if answer == Some(deadline) {
            Overdue::Answer
        } else if try_until == Some(deadline) {
            Overdue::Try
        } else if read.is_none_or(|read| deadline < read) {
            Overdue::Write
        } else {
            Overdue::Read
        })
    }
}
