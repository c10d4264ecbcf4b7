//! Moves one request to an HTTP/1.1 endpoint and its answer back, both directions at once.
//!
//! A polled state machine rather than two tasks: both directions share the client's connection, and the answer may
//! come, or fail, while the request is still being sent. It decides nothing: heads go to the exchange's `step`,
//! and how the relay ended goes back to the driver.

use super::asking::{Asking, Overdue, Sending};
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
use tidegate_http1::{Asked, BodyDecoder, ResponseFraming};
use tidegate_traffic::body::{MEMORY, ResponseBody as ResponsePlan, response_hold};
use tidegate_traffic::edits::HeadEdits;
use tidegate_traffic::retry::{Cause, Failure};
use tidegate_traffic::{Action, Answer, Event, Exchange, Fields, Refusal, RefusalKind, ResponseView, Traffic};
use tokio::time::Instant;

/// How long a client may be behind before a long answer is held for it. A fast client is often behind for some
/// milliseconds, and is served with fewer copies by waiting for it.
const PATIENCE: Duration = Duration::from_millis(50);
/// Bytes of an answer that one read takes while it is held: the read buffer comes on top of what is held.
const HELD_CHUNK: usize = 64 * 1024;
/// Reads that are held in one turn; then other connections get theirs.
const HELD_READS: u32 = 8;
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

/// State of the response's way.
#[derive(Debug)]
enum Receiving {
    Head,
    Body { decoder: BodyDecoder, ready: usize, skip: usize },
    Finishing,
}

/// One request and its answer on one connection; see the module's text.
pub(crate) struct Relay<'a, D> {
    down: &'a mut D,
    asking: Asking<'a>,
    exchange: &'a mut Exchange,
    traffic: &'a Traffic,
    spool: &'a Arc<Spool>,
    /// Most bytes of the response's body that may be held.
    hold: u64,
    held: Option<Box<Held>>,
    /// Since when the client takes nothing.
    behind_since: Option<Instant>,
    /// It was behind for longer than is normal.
    slow: bool,
    receiving: Receiving,
    /// When the answer counts as a stream, should it still be coming.
    stream_at: Option<Instant>,
    keep_alive: bool,
    /// Status of the final head.
    status: Option<u16>,
}

/// A relay that has ended.
pub(crate) struct Relayed {
    /// How.
    pub(crate) end: RelayEnd,
    /// Status of the final head, if there was one.
    pub(crate) status: Option<u16>,
    /// The endpoint's connection.
    pub(crate) connection: Box<Connection>,
}

impl<'a, D: Downstream> Relay<'a, D> {
    /// Goes on with a request that has begun or is about to.
    pub(crate) fn new(
        down: &'a mut D,
        asking: Asking<'a>,
        exchange: &'a mut Exchange,
        traffic: &'a Traffic,
        spool: &'a Arc<Spool>,
    ) -> Self {
        Self {
            down,
            asking,
            exchange,
            traffic,
            spool,
            hold: 0,
            held: None,
            behind_since: None,
            slow: false,
            receiving: Receiving::Head,
            stream_at: None,
            keep_alive: false,
            status: None,
        }
    }

    /// Runs to the end.
    pub(crate) async fn run(mut self) -> Relayed {
        let end = match self.asking.begin() {
            Ok(()) => std::future::poll_fn(|cx| self.poll(cx)).await,
            Err(refusal) => self.refuse(refusal),
        };
        Relayed { end, status: self.status, connection: self.asking.up }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        if let Poll::Ready(end) = self.poll_request(cx) {
            return Poll::Ready(end);
        }
        if let Poll::Ready(end) = self.poll_response(cx) {
            return Poll::Ready(end);
        }
        if self.asking.request_left() && !matches!(self.receiving, Receiving::Head)
            // No other attempt can follow: what is held of the request is needed no more.
            && let Some(collected) = self.asking.collected.take()
        {
            *collected = Collected::default();
        }
        if self.asking.request_left()
            && let Poll::Ready(fault) = self.down.poll_gone(cx)
        {
            return Poll::Ready(RelayEnd::ClientFault(fault));
        }
        if self.leaves_client_unread()
            && let Poll::Ready(fault) = self.down.poll_hung_up(cx)
        {
            return Poll::Ready(RelayEnd::ClientFault(fault));
        }
        self.look_at_stream(cx);
        self.poll_deadlines(cx)
    }

    /// An answer that has come for long no longer takes the place of others that might be short.
    fn look_at_stream(&mut self, cx: &mut Context<'_>) {
        let Some(after) = self.exchange.stream_after() else { return };
        while let (Receiving::Body { .. }, Some(at)) = (&self.receiving, self.stream_at)
            && self.asking.up.timer.poll_expired(cx, at)
        {
            let is_stream = self.exchange.streams(Instant::now().into_std());
            self.stream_at = (!is_stream).then(|| Instant::now() + after);
            if is_stream {
                // It may go on for as long as it likes.
                self.asking.answer_until = None;
            }
        }
    }

    /// Whether the endpoint takes nothing, so that nobody reads the client's body and meets its end.
    fn leaves_client_unread(&self) -> bool {
        match self.asking.sending {
            Sending::Body | Sending::Flushing => !self.asking.up.write.is_empty(),
            Sending::Broken => true,
            Sending::Done => false,
        }
    }

    /// Ready only when the exchange cannot go on.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        loop {
            if let Err(refusal) = ready!(self.asking.poll_send(cx)) {
                return Poll::Ready(self.refuse(refusal));
            }
            if let Some(end) = ready!(self.poll_take_body(cx)) {
                return Poll::Ready(end);
            }
        }
    }

    /// Moves a piece of the client's body into the write buffer.
    fn poll_take_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        let Self { down, asking, .. } = self;
        let Asking { up, encoder, pipe, .. } = asking;
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
                self.asking.break_request();
                return Poll::Ready(None);
            }
            Err(fault) => return Poll::Ready(Some(RelayEnd::ClientFault(fault))),
        };
        self.asking.body_taken = true;
        if let Some(refusal) = refusal {
            return Poll::Ready(Some(self.refuse(refusal)));
        }
        let ended = if more { Ok(()) } else { self.asking.end_request() };
        Poll::Ready(ended.err().map(|refusal| self.refuse(refusal)))
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
        self.asking.request_left() && self.keep_alive && self.asking.up.read.is_empty()
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Option<RelayEnd>> {
        match self.asking.poll_head(cx) {
            Poll::Ready(Ok(length)) => Poll::Ready(self.take_head(length)),
            Poll::Ready(Err(cause)) => Poll::Ready(Some(self.fail(cause))),
            // An interim answer must not wait for the final one.
            Poll::Pending => match ready!(self.down.poll_flush(cx)) {
                Ok(()) => Poll::Pending,
                Err(fault) => Poll::Ready(Some(RelayEnd::ClientFault(fault))),
            },
        }
    }

    /// A complete head stands at the front of the read buffer.
    fn take_head(&mut self, length: usize) -> Option<RelayEnd> {
        if self.asking.is_interim() {
            let Self { asking, exchange, traffic, down, .. } = self;
            return asking.pass_interim(length, *down, exchange, traffic).err().map(RelayEnd::Failed);
        }
        let came = self.asking.take_arrival();
        let Self { asking, exchange, traffic, .. } = self;
        let up = &asking.up;
        let fields = ResponseFields { head: &up.head, bytes: &up.read };
        let replayable = !asking.body_taken;
        let view = ResponseView { status: up.head.status(), fields: &fields, replayable };
        self.status = Some(view.status);
        let action = exchange.step(traffic, Event::ResponseHead(view), came);
        let (mut edits, tunnel) = match action {
            Action::Relay { edits, tunnel } => (edits, tunnel),
            Action::Discard => return Some(RelayEnd::Discarded { reusable: self.asking.discard(length) }),
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

    fn pass_head_on(
        &mut self,
        edits: &HeadEdits<'_>,
        length: usize,
        tunnel: bool,
    ) -> Result<Option<RelayEnd>, ClientFault> {
        let up = &self.asking.up;
        let head = &up.head;
        let fields = ResponseFields { head, bytes: &up.read };
        let framing = head.framing();
        let body = match framing {
            // Only answers to HEAD and 304 may announce a body that they do not have (RFC 9110 section 8.6).
            ResponseFraming::None if self.asking.asked == Asked::Head || head.status() == 304 => {
                ResponseBody::None(head.content_length().filter(|_| head.status() >= 200 && head.status() != 204))
            }
            ResponseFraming::None => ResponseBody::None(None),
            ResponseFraming::Length(length) => ResponseBody::Length(length),
            ResponseFraming::Chunked | ResponseFraming::UntilClose => ResponseBody::Unknown,
        };
        self.keep_alive = head.keep_alive() && framing != ResponseFraming::UntilClose;
        // What an endpoint says of idle connections it says with its first answer.
        let announced = if up.reused { None } else { fields.first("keep-alive").and_then(idle::announced_idle) };
        let there = up.read.len() - length;
        self.hold = match self.exchange.body_plan().map(|plan| plan.response) {
            // A body that is here already asks for nothing: no field is looked for.
            Some(ResponsePlan::Hold { most }) if body == ResponseBody::Length(there as u64) => most,
            Some(plan) => response_hold(plan, &fields),
            None => 0,
        };
        if body == ResponseBody::Unknown {
            self.exchange.answer_goes_on(&fields);
        }
        self.down.start_response(head.status(), &fields, edits, body)?;
        let up = &mut self.asking.up;
        up.read.advance(length);
        up.announced_idle = announced.or(up.announced_idle);
        if tunnel {
            return Ok(Some(RelayEnd::Tunnel));
        }
        self.receiving = match framing {
            ResponseFraming::None => Receiving::Finishing,
            _ => {
                if body != ResponseBody::Length(there as u64) {
                    up.allow_chunk(self.down.memory(MAX_READ_CHUNK));
                    self.stream_at = self.exchange.stream_after().map(|after| Instant::now() + after);
                }
                Receiving::Body { decoder: BodyDecoder::new(framing), ready: 0, skip: 0 }
            }
        };
        Ok(None)
    }

    /// A failure before the answer's head was passed on.
    fn fail(&self, cause: Cause) -> RelayEnd {
        RelayEnd::Failed(self.asking.fail(cause))
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
                match self.down.poll_send(cx, &self.asking.up.read[..*ready], last) {
                    Poll::Ready(Ok(count)) => {
                        self.asking.up.read.advance(count);
                        *ready -= count;
                        self.behind_since = None;
                    }
                    Poll::Ready(Err(fault)) => return Poll::Ready(Some(RelayEnd::ClientFault(fault))),
                    Poll::Pending => {
                        let Some(memory) = self.memory_to_hold(cx) else { return Poll::Pending };
                        self.asking.up.allow_chunk(memory.min(HELD_CHUNK));
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
            self.asking.up.read.advance(std::mem::take(skip));
            if decoder.is_done() {
                return Poll::Ready(More::End);
            }
            match decoder.decode(&self.asking.up.read) {
                Ok(decoded) if decoded.consumed > 0 || decoded.done => {
                    *ready = decoded.data.len();
                    *skip = decoded.consumed - decoded.data.end;
                    self.asking.up.read.advance(decoded.data.start);
                    if *ready > 0 {
                        return Poll::Ready(More::Data);
                    }
                    continue;
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(More::Cut(truncated(&error.to_string()))),
            }
            match ready!(self.asking.poll_fill(cx)) {
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
            self.slow = self.asking.up.timer.poll_expired(cx, since + PATIENCE);
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
                let count = held.push(&self.asking.up.read[..*ready]);
                self.asking.up.read.advance(count);
                *ready -= count;
                if *ready > 0 {
                    return Poll::Pending;
                }
            }
            let Poll::Ready(more) = self.poll_more(cx) else {
                // Many clients that are behind wait with endpoints that are slow.
                self.asking.up.release();
                return Poll::Pending;
            };
            match more {
                More::Data => {}
                More::End => {
                    let (reusable, request_read) = (self.is_reusable(), self.asking.request_left());
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

    /// The endpoint took longer for one request than it may.
    fn overdue(&self) -> Refusal {
        let time = self.asking.timeouts.request.unwrap_or_default();
        Refusal::new(RefusalKind::RequestTimeout, format!("not answered within {time:?}"))
    }

    /// Both directions wait: is one of the waits overdue?
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        loop {
            let in_head = matches!(self.receiving, Receiving::Head);
            let overdue = ready!(self.asking.poll_overdue(cx, in_head));
            match overdue {
                Overdue::Try => {
                    self.asking.try_until = None;
                    if self.exchange.try_is_over(!self.asking.body_taken, std::time::Instant::now()) {
                        return Poll::Ready(self.fail(Cause::TimedOut));
                    }
                }
                Overdue::Write | Overdue::Read if in_head => return Poll::Ready(self.fail(Cause::TimedOut)),
                // It answers without reading on: what is left of the request is not for it.
                Overdue::Write => self.asking.break_request(),
                Overdue::Answer if in_head => return Poll::Ready(RelayEnd::Refused(self.overdue())),
                Overdue::Read | Overdue::Answer => {
                    let refusal = if overdue == Overdue::Answer {
                        self.overdue()
                    } else {
                        Refusal::new(RefusalKind::UpstreamReadTimeout, "no more of the body came in time")
                    };
                    // What came before is still the client's.
                    return Poll::Ready(match self.held.take() {
                        Some(held) => RelayEnd::Held { held, end: HeldEnd::Truncated(refusal) },
                        None => RelayEnd::Truncated(refusal),
                    });
                }
            }
        }
    }
}

impl RelayEnd {
    /// Whether the endpoint took longer than it may, and so may still be at it.
    pub(super) fn is_overdue(&self) -> bool {
        let refusal = match self {
            Self::Refused(refusal) | Self::Truncated(refusal) => refusal,
            Self::Held { end: HeldEnd::Truncated(refusal), .. } => refusal,
            _ => return false,
        };
        refusal.kind == RefusalKind::RequestTimeout
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
