//! Moves one request to an HTTP/1.1 endpoint and its answer back, both directions at once.
//!
//! A polled state machine rather than two tasks: both directions share the client's connection, and the answer may
//! come, or fail, while the request is still being sent. It decides nothing: heads go to the exchange's `step`,
//! and how the relay ended goes back to the driver.

use super::collected::Collected;
use super::downstream::{ClientFault, Downstream, ResponseBody};
use super::failure;
use super::fields::ResponseFields;
use super::held::Held;
use super::spool::Spool;
use crate::upstream::connection::{Connection, MAX_READ_CHUNK};
use crate::upstream::idle;
use bytes::Buf;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};
use tidegate_config::model::UpstreamTimeouts;
use tidegate_http1::{Asked, BodyDecoder, BodyEncoder, HeadLimits, ParsePolicy, ResponseFraming};
use tidegate_traffic::body::{BodyPipe, MEMORY, ResponseBody as ResponsePlan, response_hold};
use tidegate_traffic::edits::HeadEdits;
use tidegate_traffic::retry::{Cause, Failure, Heard, Sent, Stage};
use tidegate_traffic::whole;
use tidegate_traffic::{Action, Answer, Event, Exchange, Fields, Refusal, RefusalKind, ResponseView, Traffic};
use tokio::time::Instant;

/// Interim answers that one request may get; more is an endpoint gone wrong.
const MAX_INFORMATIONAL: u32 = 8;
/// The largest response head that is accepted.
const RESPONSE_HEAD: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 256, target: 0 };

/// How long a client may be behind before a long answer is held for it. A fast client is often behind for some
/// milliseconds, and is served with fewer copies by waiting for it.
const PATIENCE: Duration = Duration::from_millis(50);
/// Bytes of a collected request that are framed at once.
const REQUEST_PIECE: usize = 64 * 1024;
/// Bytes of an answer that one read takes while it is held: the read buffer comes on top of what is held.
const HELD_CHUNK: usize = 64 * 1024;
/// Reads that are held in one turn; then other connections get theirs.
const HELD_READS: u32 = 8;
/// Bytes that every server takes in the one read that finds the head.
const ONE_READ: usize = 8 * 1024;

/// How a relay ended.
#[derive(Debug)]
pub(crate) enum RelayEnd {
    /// The answer is complete at the client.
    Complete {
        /// Whether the endpoint's connection can carry another exchange.
        reusable: bool,
    },
    /// The endpoint has done its part; what the client has not taken is here.
    Held {
        /// What is left to send.
        held: Box<Held>,
        /// How the endpoint left it.
        end: HeldEnd,
    },
    /// Failed before anything of the answer was passed on.
    Failed(Failure),
    /// The answer gives way to another try; nothing of it was passed on.
    Discarded {
        /// Whether the endpoint's connection can carry another exchange: the whole answer was there.
        reusable: bool,
    },
    /// To be answered by us; nothing of the answer was passed on.
    Refused(Refusal),
    /// The answer broke off after its head was passed on.
    Truncated(Refusal),
    /// The client left or broke a limit.
    ClientFault(ClientFault),
    /// 101 was passed on: bytes flow freely from here on.
    Tunnel,
}

/// How an endpoint left an answer that is held.
#[derive(Debug)]
pub(crate) enum HeldEnd {
    /// The answer is complete.
    Complete {
        /// Whether the endpoint's connection can carry another exchange.
        reusable: bool,
        /// Whether the request has been read whole, so that the client has nothing more to send.
        request_read: bool,
    },
    /// It breaks off behind what is held.
    Truncated(Refusal),
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

/// A head at the front of the read buffer whose body has not come.
#[derive(Debug, Clone, Copy)]
struct WaitingHead {
    length: usize,
    since: Instant,
}

/// One request and its answer on one connection; see the module's text.
pub(crate) struct Relay<'a, D> {
    pub(crate) down: &'a mut D,
    pub(crate) up: &'a mut Connection,
    pub(crate) exchange: &'a mut Exchange,
    pub(crate) traffic: &'a Traffic,
    pub(crate) timeouts: UpstreamTimeouts,
    spool: &'a Arc<Spool>,
    /// What is held of the request's body.
    collected: Option<&'a mut Collected>,
    /// Most bytes of the response's body that may be held.
    hold: u64,
    held: Option<Box<Held>>,
    /// Since when the client takes nothing.
    behind_since: Option<Instant>,
    /// It was behind for longer than is normal.
    slow: bool,
    sending: Sending,
    encoder: BodyEncoder,
    pipe: Option<BodyPipe>,
    receiving: Receiving,
    /// A final head that waits for its body.
    waiting: Option<WaitingHead>,
    asked: Asked,
    policy: ParsePolicy,
    sent: bool,
    informational: u32,
    response_bytes: bool,
    keep_alive: bool,
    /// Status of the final head.
    status: Option<u16>,
    body_taken: bool,
    write_since: Option<Instant>,
    read_since: Option<Instant>,
    /// When to ask whether another try is to follow this one.
    try_until: Option<Instant>,
}

/// What the relay needs to know of the request.
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

impl<'a, D: Downstream> Relay<'a, D> {
    /// The request's head stands in `up.write` already.
    pub(crate) fn new(
        down: &'a mut D,
        up: &'a mut Connection,
        exchange: &'a mut Exchange,
        traffic: &'a Traffic,
        timeouts: UpstreamTimeouts,
        spool: &'a Arc<Spool>,
        request: RequestShape<'a>,
    ) -> Self {
        up.head.clear();
        up.unsettled = false;
        Self {
            down,
            up,
            exchange,
            traffic,
            timeouts,
            spool,
            collected: request.collected,
            hold: 0,
            held: None,
            behind_since: None,
            slow: false,
            sending: if request.has_body { Sending::Body } else { Sending::Flushing },
            encoder: request.encoder,
            pipe: request.pipe,
            receiving: Receiving::Head,
            waiting: None,
            asked: request.asked,
            policy: request.policy,
            sent: false,
            informational: 0,
            response_bytes: false,
            keep_alive: false,
            status: None,
            body_taken: false,
            write_since: None,
            read_since: None,
            try_until: request.try_until.map(Instant::from_std),
        }
    }

    /// Runs to the end.
    pub(crate) async fn run(mut self) -> (RelayEnd, Option<u16>) {
        // What is there of the body leaves with the head.
        if self.sending == Sending::Body
            && let Some(end) = self.take_collected()
        {
            return (end, None);
        }
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
        if self.request_left() && !matches!(self.receiving, Receiving::Head)
            // No other attempt can follow: what is held of the request is needed no more.
            && let Some(collected) = self.collected.take()
        {
            *collected = Collected::default();
        }
        if self.request_left()
            && let Poll::Ready(fault) = self.down.poll_gone(cx)
        {
            return Poll::Ready(RelayEnd::ClientFault(fault));
        }
        if self.leaves_client_unread()
            && let Poll::Ready(fault) = self.down.poll_hung_up(cx)
        {
            return Poll::Ready(RelayEnd::ClientFault(fault));
        }
        self.poll_deadlines(cx)
    }

    /// Whether the endpoint takes nothing, so that nobody reads the client's body and meets its end.
    fn leaves_client_unread(&self) -> bool {
        match self.sending {
            Sending::Body | Sending::Flushing => !self.up.write.is_empty(),
            Sending::Broken => true,
            Sending::Done => false,
        }
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
            let end = if self.collected.as_ref().is_some_and(|collected| !collected.is_passed()) {
                self.take_collected()
            } else {
                ready!(self.poll_take_body(cx))
            };
            if let Some(end) = end {
                return Poll::Ready(end);
            }
        }
    }

    /// Moves a piece of what is held of the body into the write buffer.
    fn take_collected(&mut self) -> Option<RelayEnd> {
        let collected = self.collected.as_deref_mut()?;
        let encoded = collected.next().map(|data| {
            let piece = &data[..data.len().min(REQUEST_PIECE)];
            (piece.len(), self.encoder.encode(piece, &mut self.up.write))
        });
        let refusal = match encoded {
            Ok((count, Ok(()))) => {
                collected.advance(count);
                let ended = collected.complete && collected.is_passed();
                return if ended { self.end_request() } else { None };
            }
            Ok((_, Err(error))) => Refusal::new(RefusalKind::Internal, format!("held body: {error}")),
            Err(error) => Refusal::new(RefusalKind::Internal, format!("held body cannot be read: {error}")),
        };
        Some(self.refuse(refusal))
    }

    /// Everything of the body has been framed.
    fn end_request(&mut self) -> Option<RelayEnd> {
        if self.encoder.finish(&mut self.up.write).is_err() {
            let short = Refusal::new(RefusalKind::BadRequest, "the body is shorter than announced");
            return Some(self.refuse(short));
        }
        self.sending = Sending::Flushing;
        None
    }

    fn poll_write_upstream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
            // The answer is under way: a client that only reads it now has not failed.
            Err(ClientFault::BodyStalled | ClientFault::BodyTooSlow) if self.down.response_started() => {
                self.break_request();
                return Poll::Ready(None);
            }
            Err(fault) => return Poll::Ready(Some(RelayEnd::ClientFault(fault))),
        };
        self.body_taken = true;
        if let Some(refusal) = refusal {
            return Poll::Ready(Some(self.refuse(refusal)));
        }
        Poll::Ready(if more { None } else { self.end_request() })
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
        RelayEnd::Complete { reusable: self.is_reusable() }
    }

    fn is_reusable(&self) -> bool {
        self.request_left() && self.keep_alive && self.up.read.is_empty()
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        loop {
            match self.up.head.parse(&self.up.read, &RESPONSE_HEAD, self.asked, self.policy) {
                Ok(Some(length)) if !self.waits_for_body(length) => return Poll::Ready(self.take_head(length)),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "endpoint's answer is malformed");
                    return Poll::Ready(Some(self.fail(Cause::Malformed)));
                }
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(self.fail(Cause::Closed))),
                Poll::Ready(Ok(_)) => self.response_bytes = true,
                Poll::Pending => {
                    if let Some(WaitingHead { length, since }) = self.waiting
                        && self.up.timer.poll_expired(cx, since + whole::PATIENCE)
                    {
                        return Poll::Ready(self.take_head(length));
                    }
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

    /// It stood there before we asked: a farewell to the connection, not an answer to this request.
    fn is_farewell(&self) -> bool {
        self.up.reused && !self.sent
    }

    /// Whether the head of this length is kept back until its body has come. A worker that dies between the two then costs
    /// a try instead of the answer.
    fn waits_for_body(&mut self, length: usize) -> bool {
        let ResponseFraming::Length(body) = self.up.head.framing() else { return false };
        if !whole::is_worth_a_wait(body, self.up.read.len() - length) || self.is_farewell() {
            return false;
        }
        self.waiting.get_or_insert_with(|| WaitingHead { length, since: Instant::now() });
        true
    }

    /// A complete head stands at the front of the read buffer.
    fn take_head(&mut self, length: usize) -> Option<RelayEnd> {
        if self.is_farewell() {
            self.response_bytes = false;
            return Some(self.fail(Cause::Closed));
        }
        if self.up.head.is_informational() && self.up.head.status() != 101 {
            return self.take_informational(length);
        }
        let Self { up, exchange, traffic, .. } = self;
        let fields = ResponseFields { head: &up.head, bytes: &up.read };
        let replayable = !self.body_taken;
        let view = ResponseView { status: up.head.status(), fields: &fields, replayable };
        self.status = Some(view.status);
        let came = self.waiting.take().map_or_else(std::time::Instant::now, |head| head.since.into_std());
        let action = exchange.step(traffic, Event::ResponseHead(view), came);
        let (mut edits, tunnel) = match action {
            Action::Relay { edits, tunnel } => (edits, tunnel),
            Action::Discard => return Some(RelayEnd::Discarded { reusable: self.discard(length) }),
            Action::Respond(Answer::Refused(refusal)) => return Some(RelayEnd::Refused(refusal)),
            other => {
                let text = format!("a response head led to an unexpected action: {other:?}");
                return Some(RelayEnd::Refused(Refusal::new(RefusalKind::Internal, text)));
            }
        };
        // Whoever passes an answer on dates it where its origin did not (RFC 9110 section 6.6.1).
        if !tunnel && fields.first("date").is_none() {
            edits.add("date", failure::date(SystemTime::now()));
        }
        match self.pass_head_on(&edits, length, tunnel) {
            Ok(end) => end,
            Err(fault) => Some(RelayEnd::ClientFault(fault)),
        }
    }

    /// Drops an answer; whether all of it was there, so that its connection can carry another exchange.
    fn discard(&mut self, length: usize) -> bool {
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
        // What an endpoint says of idle connections it says with its first answer.
        let announced = if self.up.reused { None } else { fields.first("keep-alive").and_then(idle::announced_idle) };
        let there = self.up.read.len() - length;
        self.hold = match self.exchange.body_plan().map(|plan| plan.response) {
            // A body that is here already asks for nothing: no field is looked for.
            Some(ResponsePlan::Hold { most }) if body == ResponseBody::Length(there as u64) => most,
            Some(plan) => response_hold(plan, &fields),
            None => 0,
        };
        self.down.start_response(head.status(), &fields, edits, body)?;
        self.up.read.advance(length);
        self.up.announced_idle = announced.or(self.up.announced_idle);
        if tunnel {
            return Ok(Some(RelayEnd::Tunnel));
        }
        self.receiving = match framing {
            ResponseFraming::None => Receiving::Finishing,
            _ => {
                if body != ResponseBody::Length(there as u64) {
                    self.up.allow_chunk(self.down.memory(MAX_READ_CHUNK));
                }
                Receiving::Body { decoder: BodyDecoder::new(framing), ready: 0, skip: 0 }
            }
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
            let view = ResponseView { status: up.head.status(), fields: &fields, replayable: false };
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
        let stage = match self.waiting {
            Some(_) => Stage::Body,
            None if self.request_left() => Stage::Head,
            None => Stage::Send,
        };
        RelayEnd::Failed(Failure {
            stage,
            cause,
            reused: self.up.reused,
            sent: if self.sent { Sent::Some } else { Sent::Nothing },
            body_replayable: !self.body_taken,
            heard: if self.response_bytes { Heard::Some } else { Heard::Nothing },
        })
    }

    fn poll_relay_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        loop {
            if self.held.is_some() {
                match ready!(self.poll_held(cx)) {
                    Some(end) => return Poll::Ready(Some(end)),
                    None => continue,
                }
            }
            let Receiving::Body { decoder, ready, .. } = &mut self.receiving else { return Poll::Ready(None) };
            if *ready > 0 {
                let last = decoder.is_done();
                match self.down.poll_send(cx, &self.up.read[..*ready], last) {
                    Poll::Ready(Ok(count)) => {
                        self.up.read.advance(count);
                        *ready -= count;
                        self.behind_since = None;
                    }
                    Poll::Ready(Err(fault)) => return Poll::Ready(Some(RelayEnd::ClientFault(fault))),
                    Poll::Pending => {
                        let Some(memory) = self.memory_to_hold(cx) else { return Poll::Pending };
                        self.up.allow_chunk(memory.min(HELD_CHUNK));
                        self.held = Some(Box::new(Held::new(self.spool, self.hold, memory)));
                        return self.poll_hold_more(cx);
                    }
                }
                continue;
            }
            match self.poll_more(cx) {
                Poll::Ready(More::Data) => {}
                Poll::Ready(More::End) => {
                    self.receiving = Receiving::Finishing;
                    return Poll::Ready(None);
                }
                Poll::Ready(More::Cut(refusal)) => return Poll::Ready(Some(RelayEnd::Truncated(refusal))),
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

    /// Finds the next bytes of the body at the front of the read buffer, whose bytes found before have left.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<More> {
        loop {
            let Receiving::Body { decoder, ready, skip } = &mut self.receiving else { return Poll::Ready(More::End) };
            self.up.read.advance(std::mem::take(skip));
            if decoder.is_done() {
                return Poll::Ready(More::End);
            }
            match decoder.decode(&self.up.read) {
                Ok(decoded) if decoded.consumed > 0 || decoded.done => {
                    *ready = decoded.data.len();
                    *skip = decoded.consumed - decoded.data.end;
                    self.up.read.advance(decoded.data.start);
                    if *ready > 0 {
                        return Poll::Ready(More::Data);
                    }
                    continue;
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(More::Cut(truncated(&error.to_string()))),
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(self.end_of_upstream()),
                Ok(_) => {}
                Err(error) => return Poll::Ready(More::Cut(truncated(&error.to_string()))),
            }
        }
    }

    /// The endpoint closed: the end of a close-delimited body, or a truncation.
    fn end_of_upstream(&self) -> More {
        match &self.receiving {
            Receiving::Body { decoder, .. } if decoder.finish_eof().is_err() => {
                More::Cut(truncated("connection closed in the middle of the body"))
            }
            _ => More::End,
        }
    }

    /// The client is behind: how much memory may the answer take, if it is to be held? It is at once when the rest of it
    /// fits into memory, since that frees the endpoint; else when the client stays behind.
    fn memory_to_hold(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        let Receiving::Body { decoder, ready, .. } = &self.receiving else { return None };
        if self.hold == 0 {
            return None;
        }
        let left = decoder.remaining().map(|left| left + *ready as u64);
        let most = left.unwrap_or(u64::MAX).min(self.hold).min(MEMORY as u64);
        let wanted = usize::try_from(most).unwrap_or(MEMORY);
        if !self.slow && left == Some(most) && self.down.memory(wanted) == wanted {
            return Some(wanted);
        }
        if !self.slow {
            let since = *self.behind_since.get_or_insert_with(Instant::now);
            self.slow = self.up.timer.poll_expired(cx, since + PATIENCE);
        }
        self.slow.then(|| self.down.memory(wanted))
    }

    /// Sends what is held, and holds what comes meanwhile. Ready with `None` once the client has caught up.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        let Some(held) = &mut self.held else { return Poll::Ready(None) };
        while held.len() > 0 {
            let data = match held.front() {
                Ok(data) => data,
                Err(error) => return Poll::Ready(Some(RelayEnd::Truncated(lost(&error)))),
            };
            match self.down.poll_send(cx, data, false) {
                Poll::Ready(Ok(count)) => held.consume(count),
                Poll::Ready(Err(fault)) => return Poll::Ready(Some(RelayEnd::ClientFault(fault))),
                Poll::Pending => return self.poll_hold_more(cx),
            }
        }
        self.held = None;
        Poll::Ready(None)
    }

    /// Holds what comes while the client is behind, until the answer ends or no more can be held. Then only the client
    /// can wake us, and the endpoint waits.
    fn poll_hold_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        for _ in 0..HELD_READS {
            if let (Receiving::Body { ready, .. }, Some(held)) = (&mut self.receiving, &mut self.held) {
                let count = held.push(&self.up.read[..*ready]);
                self.up.read.advance(count);
                *ready -= count;
                if *ready > 0 {
                    return Poll::Pending;
                }
            }
            let Poll::Ready(more) = self.poll_more(cx) else {
                // Many clients that are behind wait with endpoints that are slow.
                self.up.release();
                return Poll::Pending;
            };
            match more {
                More::Data => {}
                More::End => {
                    let (reusable, request_read) = (self.is_reusable(), self.request_left());
                    return Poll::Ready(self.held_end(HeldEnd::Complete { reusable, request_read }));
                }
                More::Cut(refusal) => return Poll::Ready(self.held_end(HeldEnd::Truncated(refusal))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn held_end(&mut self, end: HeldEnd) -> Option<RelayEnd> {
        self.held.take().map(|held| RelayEnd::Held { held, end })
    }

    /// Both directions wait: is one of the waits overdue?
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        loop {
            let in_head = matches!(self.receiving, Receiving::Head);
            let write = self.write_since.map(|since| since + self.timeouts.write);
            // Until it has the whole request the endpoint owes nothing, though it may have begun to answer.
            let owes = self.request_left() || self.sending == Sending::Broken;
            let limit = if in_head { self.timeouts.head } else { self.timeouts.read };
            // A head that waits for its body came in time, and does not wait for long.
            let awaits_head = in_head && self.waiting.is_none();
            let read = self.read_since.filter(|_| owes && (awaits_head || !in_head)).map(|since| since + limit);
            let try_until = self.try_until.filter(|_| awaits_head);
            let Some(deadline) = [write, read, try_until].into_iter().flatten().min() else { return Poll::Pending };
            if !self.up.timer.poll_expired(cx, deadline) {
                return Poll::Pending;
            }
            if try_until == Some(deadline) {
                self.try_until = None;
                if self.exchange.try_is_over(!self.body_taken, std::time::Instant::now()) {
                    return Poll::Ready(self.fail(Cause::TimedOut));
                }
                continue;
            }
            if in_head {
                return Poll::Ready(self.fail(Cause::TimedOut));
            }
            if read.is_none_or(|read| deadline < read) {
                // It answers without reading on: what is left of the request is not for it.
                self.break_request();
                continue;
            }
            let refusal = Refusal::new(RefusalKind::UpstreamReadTimeout, "no more of the body came in time");
            // What came before is still the client's.
            let end = match self.held.take() {
                Some(held) => RelayEnd::Held { held, end: HeldEnd::Truncated(refusal) },
                None => RelayEnd::Truncated(refusal),
            };
            return Poll::Ready(end);
        }
    }

    /// Nothing more of the request will be sent; from now on the endpoint owes the rest of its answer.
    fn break_request(&mut self) {
        self.sending = Sending::Broken;
        self.write_since = None;
        self.read_since = self.read_since.map(|_| Instant::now());
    }
}

/// What became of the wait for more of a body.
enum More {
    /// Its bytes stand at the front of the read buffer.
    Data,
    /// It is complete.
    End,
    /// It breaks off.
    Cut(Refusal),
}

fn truncated(detail: &str) -> Refusal {
    Refusal::new(RefusalKind::UpstreamClosed, format!("response broke off: {detail}"))
}

/// What was held cannot be read any more.
pub(crate) fn lost(error: &io::Error) -> Refusal {
    Refusal::new(RefusalKind::Internal, format!("held response cannot be read: {error}"))
}
