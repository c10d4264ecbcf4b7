//! Does the input and output that an exchange's `step` asks for, for every client protocol.
//!
//! It decides nothing: what happens next is always the answer to an event.

use super::asking::{Asking, RequestShape};
use super::began::began;
use super::collected::Collected;
use super::connector::Connector;
use super::downstream::{ClientFault, Downstream, ResponseBody};
use super::failure::{self, Form};
use super::held::Held;
use super::parsing;
use super::relay::{HeldEnd, Relay, RelayEnd, Relayed, lost};
use super::waiting::Waiting;
use crate::edge::shard::{Shard, View};
use crate::edge::timer::Timer;
use crate::upstream::connection::Connection;
use crate::upstream::proxy_protocol;
use bytes::BytesMut;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Instant, SystemTime};
use tidegate_config::model::UpstreamProtocol;
use tidegate_http1::{Asked, BodyEncoder, BodyFraming, HeadWriter};
use tidegate_traffic::body::BodyPlan;
use tidegate_traffic::edits::HeadEdits;
use tidegate_traffic::pool::endpoint::{Endpoint, EndpointState};
use tidegate_traffic::pool::lease::Outcome;
use tidegate_traffic::pool::queue::Ticket;
use tidegate_traffic::retry::{Failure, is_idempotent};
use tidegate_traffic::{Action, Answer, Attempt, BodyLength, Event, Exchange, Fault, HeadView, Refusal, RefusalKind};

/// Bytes of an upload that are dropped while an answer that came early is sent.
const MAX_DROPPED: usize = 1024 * 1024;

/// How the driver left an exchange.
pub(crate) enum Driven {
    /// It is over.
    Done,
    /// The client's connection is a tunnel now: relay on this one, whose lease is held by the exchange.
    Tunnel(Box<Connection>),
    /// An HTTP/2 endpoint was chosen: the engine has to serve it.
    Engine(Attempt),
}

/// What happened, for metrics and the access log.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Status the client saw; 0 when none was sent.
    pub(crate) status: u16,
    /// Status the endpoint sent.
    pub(crate) upstream_status: Option<u16>,
    /// Token of the refusal we answered with.
    pub(crate) reason: Option<&'static str>,
    /// When the last attempt began.
    pub(crate) attempt_started: Option<Instant>,
    /// When it was over or the endpoint had done its part, if that was before the client had its answer.
    pub(crate) endpoint_done: Option<Instant>,
    /// Attempts, those included that found nobody.
    pub(crate) attempts: u32,
    /// Endpoint of the last attempt.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// The answer broke off.
    pub(crate) truncated: bool,
}

impl Account {
    /// An attempt begins; what was noted of one before is forgotten.
    pub(crate) fn begin_attempt(&mut self, endpoint: &Arc<Endpoint>) {
        self.endpoint = Some(endpoint.clone());
        self.attempt_started = Some(Instant::now());
        self.attempts += 1;
        (self.endpoint_done, self.upstream_status) = (None, None);
    }

    /// The attempt is over, whatever follows.
    pub(crate) fn end_attempt(&mut self) {
        self.endpoint_done.get_or_insert_with(Instant::now);
    }

    /// The attempt before this one is the one that counts.
    pub(crate) fn resume_attempt(&mut self, endpoint: &Arc<Endpoint>, started: Option<Instant>) {
        (self.endpoint, self.attempt_started) = (Some(endpoint.clone()), started);
    }

    /// Whether the client broke it off.
    pub(crate) fn client_left(&self) -> bool {
        self.reason == Some(RefusalKind::ClientClosed.reason())
    }
}

/// One exchange being driven.
pub(crate) struct Driver<'a, D> {
    pub(crate) shard: &'a Arc<Shard>,
    pub(crate) view: &'a View,
    pub(crate) exchange: &'a mut Exchange,
    pub(crate) request: HeadView<'a>,
    pub(crate) down: &'a mut D,
    pub(crate) account: &'a mut Account,
}

/// How one attempt ended.
pub(super) enum Attempted {
    Over,
    Failed(Failure),
    /// The answer gives way to another try.
    Discarded,
    Refused(Refusal),
    Tunnel(Box<Connection>),
}

/// What came of holding a request's body.
enum Collecting {
    Held(Collected),
    Refused(Refusal),
    ClientFault(ClientFault),
}

/// Why what is held of an answer was not sent.
enum Unsent {
    Client(ClientFault),
    /// It cannot be read any more.
    Lost(Refusal),
}

impl<'a, D: Downstream> Driver<'a, D> {
    /// Drives the exchange to its end, or to the end of its time.
    pub(crate) async fn run(mut self) -> Driven {
        let action = self.exchange.step(&self.view.traffic, Event::Head(&self.request), Instant::now());
        let deadline = self.exchange.deadline();
        let driven = {
            let mut driving = pin!(self.drive(action));
            let mut timer = Timer::default();
            poll_fn(|cx| match driving.as_mut().poll(cx) {
                Poll::Ready(driven) => Poll::Ready(Some(driven)),
                Poll::Pending => match deadline {
                    Some(deadline) if timer.poll_expired(cx, deadline.into()) => Poll::Ready(None),
                    _ => Poll::Pending,
                },
            })
            .await
        };
        match driven {
            Some(driven) => driven,
            None => self.overdue().await,
        }
    }

    /// Whatever was under way was dropped: a visible break, or 504 where the client has nothing of an answer.
    async fn overdue(&mut self) -> Driven {
        self.account.end_attempt();
        self.account.upstream_status = self.exchange.upstream_status().or(self.account.upstream_status);
        let action = self.exchange.step(&self.view.traffic, Event::DeadlineOver, Instant::now());
        let Action::Respond(answer) = action else {
            // An answer of our own was under way, or what is held of one.
            self.account.reason.get_or_insert(RefusalKind::Deadline.reason());
            self.account.truncated = true;
            self.down.cut();
            return Driven::Done;
        };
        match &answer {
            Answer::Refused(refusal) if self.down.response_started() && !self.down.take_back() => {
                self.truncate(refusal)
            }
            _ => self.respond(&answer).await,
        }
        Driven::Done
    }

    async fn drive(&mut self, mut action: Action) -> Driven {
        let mut collected = None;
        loop {
            action = match action {
                Action::Respond(answer) => {
                    self.respond(&answer).await;
                    return Driven::Done;
                }
                Action::Delay { until } => match self.pause(until, collected.as_ref()).await {
                    Some(event) => self.exchange.step(&self.view.traffic, event, Instant::now()),
                    None => return self.client_left(),
                },
                Action::Collect { most } => match self.collect(most).await {
                    Collecting::Held(body) => {
                        collected = Some(body);
                        self.exchange.step(&self.view.traffic, Event::Collected, Instant::now())
                    }
                    Collecting::Refused(refusal) => {
                        self.finish(Outcome::Cancelled);
                        Action::Respond(Answer::Refused(refusal))
                    }
                    Collecting::ClientFault(fault) => {
                        self.client_fault(fault).await;
                        return Driven::Done;
                    }
                },
                Action::Queue { ticket, until } => match self.wait(ticket, until, collected.as_ref()).await {
                    Some(event) => self.exchange.step(&self.view.traffic, event, Instant::now()),
                    None => return self.client_left(),
                },
                Action::Forward(attempt) if attempt.protocol == UpstreamProtocol::H2 => return Driven::Engine(attempt),
                Action::Forward(attempt) => match self.attempt(&attempt, &mut collected).await {
                    Attempted::Over => return Driven::Done,
                    Attempted::Tunnel(connection) => return Driven::Tunnel(connection),
                    Attempted::Refused(refusal) => {
                        self.account.end_attempt();
                        self.finish(Outcome::of_refusal(refusal.kind));
                        Action::Respond(Answer::Refused(refusal))
                    }
                    Attempted::Failed(failure) => {
                        self.down.pause_body();
                        self.account.end_attempt();
                        let event = Event::AttemptFailed(failure);
                        self.exchange.step(&self.view.traffic, event, Instant::now())
                    }
                    Attempted::Discarded => {
                        self.down.pause_body();
                        self.account.end_attempt();
                        self.exchange.step(&self.view.traffic, Event::Discarded, Instant::now())
                    }
                },
                Action::Hedge(_) | Action::Keep(_) | Action::Relay { .. } | Action::Discard | Action::Done => {
                    return Driven::Done;
                }
            };
        }
    }

    /// Waits for a time; `None` when the client has left.
    async fn pause(&mut self, until: Instant, collected: Option<&Collected>) -> Option<Event<'static>> {
        let mut timer = Timer::default();
        let watch_client = !self.has_body() || collected.is_some_and(|body| body.complete);
        poll_fn(|cx| {
            if timer.poll_expired(cx, until.into()) {
                return Poll::Ready(Some(Event::DelayOver));
            }
            // A body that is under way waits with the client; it is only to be seen whether somebody is there.
            let gone = if watch_client { self.down.poll_gone(cx) } else { self.down.poll_hung_up(cx) };
            gone.map(|_| None)
        })
        .await
    }

    /// Waits for an endpoint; `None` when the client has left.
    async fn wait(&mut self, ticket: Ticket, until: Instant, collected: Option<&Collected>) -> Option<Event<'static>> {
        let _queued = self.exchange.pool().and_then(|pool| self.view.upstream_metrics(pool)).map(|all| all.queued());
        let mut waiting = Waiting::new(ticket, until);
        let watch_client = !self.has_body() || collected.is_some_and(|body| body.complete);
        poll_fn(|cx| {
            if let Poll::Ready(event) = waiting.poll(cx) {
                return Poll::Ready(Some(event));
            }
            let gone = if watch_client { self.down.poll_gone(cx) } else { self.down.poll_hung_up(cx) };
            gone.map(|_| None)
        })
        .await
    }

    fn has_body(&self) -> bool {
        !matches!(self.request.body, BodyLength::None | BodyLength::Known(0))
    }

    /// Holds the request's body, `most` bytes at the most. A body that came with its head is held where it lies.
    async fn collect(&mut self, most: u64) -> Collecting {
        let mut body = match self.down.take_ready_body() {
            Some((bytes, complete)) => Collected::ready(bytes, complete),
            None => Collected::default(),
        };
        let Some(mut pipe) = self.exchange.body_plan().map(BodyPlan::request_pipe) else {
            return Collecting::Held(body);
        };
        let spool = &self.shard.shared.spool;
        let mut room = body.len() < most;
        // A length that is known was admitted.
        let mut over = pipe.push(usize::try_from(body.len()).unwrap_or(usize::MAX)).err();
        while room && over.is_none() && !body.complete {
            let read = poll_fn(|cx| {
                self.down.poll_body(cx, &mut |data| match pipe.push(data.len()) {
                    Ok(()) => room &= body.push(data, spool, most),
                    Err(refusal) => over = Some(refusal),
                })
            });
            match read.await {
                Ok(more) => body.complete = !more,
                Err(fault) => return Collecting::ClientFault(fault),
            }
        }
        over.map_or(Collecting::Held(body), Collecting::Refused)
    }

    fn client_left(&mut self) -> Driven {
        self.account.reason = Some(RefusalKind::ClientClosed.reason());
        self.account.status = failure::status(RefusalKind::ClientClosed);
        self.finish(Outcome::ClientGone);
        Driven::Done
    }

    fn finish(&mut self, outcome: Outcome) {
        self.exchange.step(&self.view.traffic, Event::Finished(outcome), Instant::now());
    }

    /// One attempt on one HTTP/1.1 endpoint.
    async fn attempt(&mut self, attempt: &Attempt, collected: &mut Option<Collected>) -> Attempted {
        self.account.begin_attempt(&attempt.endpoint);
        if collected.is_none() && self.has_body() {
            let ready = self.down.take_ready_body();
            *collected = ready.map(|(bytes, complete)| Collected::ready(bytes, complete));
        }
        let whole = !self.has_body() || collected.as_ref().is_some_and(|body| body.complete);
        if let Some(at) = self.exchange.hedge_at(whole) {
            // In a box, so that a request that is never hedged takes no memory for it.
            return Box::pin(self.race(attempt, at, collected.as_mut())).await;
        }
        let connecting = self.connector().connect(attempt, self.is_careful(whole), self.first_bytes(attempt));
        let mut connection = match connecting.await {
            Ok(connection) => connection,
            Err(failure) => return Attempted::Failed(failure),
        };
        let shape = self.write_request_head(&mut connection.write, attempt, collected.as_mut());
        self.relay(attempt, Asking::new(connection, attempt.timeouts, shape)).await
    }

    /// The rest of an attempt.
    pub(super) async fn relay(&mut self, attempt: &Attempt, asking: Asking<'_>) -> Attempted {
        let (traffic, spool) = (&self.view.traffic, &self.shard.shared.spool);
        let relay = Relay::new(self.down, asking, self.exchange, traffic, spool);
        let Relayed { end, status, connection } = relay.run().await;
        self.account.upstream_status = status;
        if end.is_overdue() {
            abandon(attempt);
        }
        self.settle(attempt, connection, end).await
    }

    pub(super) fn connector(&self) -> Connector<'a> {
        Connector { shard: self.shard, view: self.view }
    }

    /// What must not, or cannot, be sent twice is not sent on a connection that may be closed already. `whole`: nothing of the
    /// request has still to come.
    pub(super) fn is_careful(&self, whole: bool) -> bool {
        !(is_idempotent(self.request.method) && whole)
    }

    /// What a connection begins with before HTTP and TLS: nothing, or who the client is.
    pub(super) fn first_bytes(&self, attempt: &Attempt) -> Vec<u8> {
        let Some(version) = attempt.proxy_protocol else { return Vec::new() };
        let client = self.request.client;
        // What a trusted proxy says of a client has no port.
        let port = if client.is_named() { 0 } else { client.peer_port() };
        let client = SocketAddr::new(client.address(), port);
        proxy_protocol::header(version, self.down.local_address().map(|local| (client, local)))
    }

    /// Puts the request's head into a connection's write buffer.
    pub(super) fn write_request_head<'c>(
        &self,
        buffer: &mut BytesMut,
        attempt: &Attempt,
        mut collected: Option<&'c mut Collected>,
    ) -> RequestShape<'c> {
        let request = &self.request;
        if let Some(collected) = &mut collected {
            collected.rewind();
        }
        let held = collected.as_ref().map(|body| (body.len(), body.complete));
        let framing = match (request.body, held) {
            (BodyLength::None, _) => BodyFraming::None,
            (BodyLength::Known(length), _) | (BodyLength::Unknown, Some((length, true))) => BodyFraming::Length(length),
            (BodyLength::Unknown, _) => BodyFraming::Chunked,
        };
        let mut writer = HeadWriter::new(buffer);
        writer.request_line(request.method, &self.exchange.forward_target(request));
        let edits = self.exchange.request_edits_for(Some(&attempt.endpoint), request, began(self.exchange));
        edits.apply(request.fields, &mut |name, value| {
            writer.field(name, value);
        });
        if framing != BodyFraming::None {
            writer.framing(framing);
        }
        writer.end();
        let asked = match request.method {
            "HEAD" => Asked::Head,
            _ if self.exchange.is_websocket() => Asked::WebSocket,
            _ => Asked::Other,
        };
        let mut pipe = self.exchange.body_plan().map(BodyPlan::request_pipe);
        if let (Some(pipe), Some((length, _))) = (&mut pipe, held) {
            // What is held was within the limit when it came.
            let _ = pipe.push(usize::try_from(length).unwrap_or(usize::MAX));
        }
        RequestShape {
            collected,
            asked,
            has_body: self.has_body(),
            encoder: BodyEncoder::new(framing),
            pipe,
            policy: parsing::policy(attempt.parsing),
            try_until: attempt.try_until,
        }
    }

    /// What follows from a relay's end.
    async fn settle(&mut self, attempt: &Attempt, connection: Box<Connection>, end: RelayEnd) -> Attempted {
        match end {
            RelayEnd::Complete { reusable } => {
                self.account.status = self.account.upstream_status.unwrap_or_default();
                self.give_back(attempt, connection, reusable);
                self.finish(Outcome::Ok);
                Attempted::Over
            }
            RelayEnd::Held { held, end } => self.settle_held(attempt, connection, held, end).await,
            RelayEnd::Tunnel => {
                self.account.status = 101;
                Attempted::Tunnel(connection)
            }
            RelayEnd::Failed(failure) => Attempted::Failed(failure),
            RelayEnd::Discarded { reusable } => {
                self.give_back(attempt, connection, reusable);
                Attempted::Discarded
            }
            RelayEnd::Refused(refusal) => Attempted::Refused(refusal),
            RelayEnd::Truncated(refusal) => {
                // The endpoint's connection ends before the client's, which may take a while.
                drop(connection);
                if self.down.take_back() {
                    return Attempted::Refused(refusal);
                }
                self.finish(Outcome::of_refusal(refusal.kind));
                self.truncate(&refusal);
                Attempted::Over
            }
            RelayEnd::ClientFault(fault) => {
                // The endpoint need not work for somebody who has left.
                drop(connection);
                self.client_fault(fault).await
            }
        }
    }

    /// Keeps a connection that can carry another exchange; the endpoint has done its part with this one.
    pub(super) fn give_back(&self, attempt: &Attempt, connection: Box<Connection>, reusable: bool) {
        let shared = attempt.proxy_protocol.is_none();
        if shared && reusable && !self.shard.is_draining() && attempt.endpoint.state() == EndpointState::Ready {
            let now = tokio::time::Instant::now();
            let (cap, keep) = (attempt.idle_connections, attempt.timeouts.idle);
            self.shard.idle.put((attempt.endpoint.id(), attempt.transport), *connection, cap, keep, now);
        }
    }

    /// The endpoint is let go first, then the client takes what is held, in its own time.
    async fn settle_held(
        &mut self,
        attempt: &Attempt,
        connection: Box<Connection>,
        held: Box<Held>,
        end: HeldEnd,
    ) -> Attempted {
        self.account.status = self.account.upstream_status.unwrap_or_default();
        self.account.end_attempt();
        let (request_read, cut) = match end {
            HeldEnd::Complete { reusable, request_read } => {
                self.give_back(attempt, connection, reusable);
                self.finish(Outcome::Ok);
                (request_read, None)
            }
            HeldEnd::Truncated(refusal) => {
                drop(connection);
                self.finish(Outcome::of_refusal(refusal.kind));
                (false, Some(refusal))
            }
        };
        match (self.send_held(held, request_read, cut.is_none()).await, cut) {
            (Ok(()), None) => Attempted::Over,
            (Err(Unsent::Lost(refusal)), _) if self.down.take_back() => Attempted::Refused(refusal),
            (Ok(()), Some(refusal)) | (Err(Unsent::Lost(refusal)), _) => {
                self.truncate(&refusal);
                Attempted::Over
            }
            (Err(Unsent::Client(fault)), _) => self.client_fault(fault).await,
        }
    }

    /// Sends what is held; `complete` ends the answer with it.
    async fn send_held(&mut self, mut held: Box<Held>, request_read: bool, complete: bool) -> Result<(), Unsent> {
        let mut dropped = 0;
        let mut draining = !request_read;
        poll_fn(|cx| {
            if request_read && let Poll::Ready(fault) = self.down.poll_gone(cx) {
                return Poll::Ready(Err(Unsent::Client(fault)));
            }
            // A client that reads only when its upload is done must not wait for us while we wait for it.
            while draining && dropped < MAX_DROPPED {
                match self.down.poll_body(cx, &mut |data| dropped += data.len()) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false) | Err(_)) => draining = false,
                    Poll::Pending => break,
                }
            }
            while held.len() > 0 {
                let left = held.len();
                let data = held.front().map_err(|error| Unsent::Lost(lost(&error)))?;
                let last = complete && left == data.len() as u64;
                let count = ready!(self.down.poll_send(cx, data, last)).map_err(Unsent::Client)?;
                held.consume(count);
            }
            let ended = if complete { self.down.poll_finish(cx) } else { self.down.poll_flush(cx) };
            ended.map_err(Unsent::Client)
        })
        .await
    }

    /// The answer ends early, visibly.
    fn truncate(&mut self, refusal: &Refusal) {
        tracing::debug!(%refusal, "answer broke off");
        self.account.status = self.account.upstream_status.unwrap_or_default();
        self.account.truncated = true;
        self.account.reason = Some(refusal.reason());
        self.down.cut();
    }

    /// The client broke off or a limit: answered where an answer can still be read.
    pub(super) async fn client_fault(&mut self, fault: ClientFault) -> Attempted {
        let kind = match &fault {
            ClientFault::Gone(_) | ClientFault::WriteStalled => RefusalKind::ClientClosed,
            ClientFault::BodyStalled | ClientFault::BodyTooSlow => RefusalKind::ClientBodyTimeout,
            ClientFault::BadBody(_) => RefusalKind::BadRequest,
            ClientFault::BadAnswer(_) => RefusalKind::UpstreamBadResponse,
        };
        let refusal = Refusal::new(kind, fault.to_string());
        let is_clients = refusal.fault() == Fault::Client;
        self.finish(if is_clients { Outcome::ClientGone } else { Outcome::of_refusal(kind) });
        if kind == RefusalKind::ClientClosed || self.down.response_started() {
            self.account.reason = Some(refusal.reason());
            self.account.status = self.account.upstream_status.unwrap_or(failure::status(kind));
            if self.down.response_started() {
                self.down.abort();
            }
        } else {
            self.respond(&Answer::Refused(refusal)).await;
        }
        Attempted::Over
    }

    /// Answers by ourselves.
    async fn respond(&mut self, answer: &Answer) {
        let id = self.exchange.id();
        let now = SystemTime::now();
        let mut own = match answer {
            Answer::Fixed(fixed) => failure::fixed(fixed, id, now),
            Answer::Refused(refusal) => {
                self.account.reason = Some(refusal.reason());
                tracing::debug!(%refusal, "refused");
                if refusal.kind.ends_connection() {
                    self.down.end_connection();
                }
                let form = Form::of(self.request.version, self.request.fields);
                let pages = self.view.traffic.router.error_pages(self.exchange.route(), &self.request);
                failure::response(refusal, form, pages, id, now)
            }
        };
        own.tell(self.exchange.limit_fields());
        self.account.status = own.status;
        let head_only = self.request.method == "HEAD";
        if send_own(self.down, &own, head_only).await.is_err() {
            self.down.abort();
        }
    }
}

/// The handler of a request that took too long may go on: its place is not free until that is over, for all that is known.
fn abandon(attempt: &Attempt) {
    let place = attempt.endpoint.abandon();
    let until = tokio::time::Instant::now() + attempt.timeouts.abandoned_hold;
    tokio::spawn(async move {
        // Of a worker that has ended no handler is left.
        while tokio::time::Instant::now() < until && place.endpoint().state() != EndpointState::Gone {
            tokio::time::sleep_until(until.min(tokio::time::Instant::now() + GONE_CHECK)).await;
        }
    });
}

/// How often a place that was given up is looked at.
const GONE_CHECK: std::time::Duration = std::time::Duration::from_secs(1);

/// Sends an answer of our own, whole.
pub(crate) async fn send_own<D: Downstream>(
    down: &mut D,
    own: &failure::OwnResponse,
    head_only: bool,
) -> Result<(), ClientFault> {
    let length = own.body.len() as u64;
    let body = match (head_only, own.status) {
        (_, 204 | 304) => ResponseBody::None(None),
        (true, _) => ResponseBody::None(Some(length)),
        (false, _) => ResponseBody::Length(length),
    };
    down.abandon_body();
    down.start_response(own.status, &own.fields(), &HeadEdits::default(), body)?;
    let mut rest = if matches!(body, ResponseBody::Length(_)) { &own.body[..] } else { &[] };
    while !rest.is_empty() {
        let sent = poll_fn(|cx| down.poll_send(cx, rest, true)).await?;
        rest = &rest[sent..];
    }
    poll_fn(|cx| down.poll_finish(cx)).await
}
