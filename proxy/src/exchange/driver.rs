//! Does the input and output that an exchange's `step` asks for, for every client protocol.
//!
//! It decides nothing: what happens next is always the answer to an event.

use super::downstream::{ClientFault, Downstream, ResponseBody};
use super::failure;
use super::relay::{Relay, RelayEnd, RequestShape};
use crate::edge::shard::{Shard, View};
use crate::edge::timer::Timer;
use crate::observe::metrics::UpstreamMetrics;
use crate::upstream::connect::connect;
use crate::upstream::connection::Connection;
use rustix::io::Errno;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Instant, SystemTime};
use tidegate_config::model::UpstreamProtocol;
use tidegate_http1::{Asked, BodyEncoder, BodyFraming, HeadWriter};
use tidegate_traffic::body::BodyPlan;
use tidegate_traffic::edits::HeadEdits;
use tidegate_traffic::pool::endpoint::{Endpoint, EndpointState};
use tidegate_traffic::pool::lease::{ConnPermit, Outcome};
use tidegate_traffic::pool::queue::Ticket;
use tidegate_traffic::retry::{Cause, Failure, Sent, Stage, is_idempotent};
use tidegate_traffic::{Action, Answer, Attempt, BodyLength, Event, Exchange, Fault, HeadView, Refusal, RefusalKind};

/// Most connections that one endpoint may have from us; a safety net far above what pools keep.
const MAX_CONNECTIONS: u32 = 16_384;

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
    /// Endpoint of the last attempt.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// The answer broke off.
    pub(crate) truncated: bool,
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
enum Attempted {
    Over,
    Failed(Failure),
    Refused(Refusal),
    Tunnel(Box<Connection>),
}

impl<D: Downstream> Driver<'_, D> {
    /// Drives the exchange to its end.
    pub(crate) async fn run(mut self) -> Driven {
        let mut action = self.exchange.step(&self.view.traffic, Event::Head(&self.request), Instant::now());
        loop {
            action = match action {
                Action::Respond(answer) => {
                    self.respond(&answer).await;
                    return Driven::Done;
                }
                Action::Queue { ticket, until } => match self.wait(ticket, until).await {
                    Some(event) => self.exchange.step(&self.view.traffic, event, Instant::now()),
                    None => return self.client_left(),
                },
                Action::Forward(attempt) if attempt.protocol == UpstreamProtocol::H2 => return Driven::Engine(attempt),
                Action::Forward(attempt) => match self.attempt(&attempt).await {
                    Attempted::Over => return Driven::Done,
                    Attempted::Tunnel(connection) => return Driven::Tunnel(connection),
                    Attempted::Refused(refusal) => {
                        self.finish(blame(&refusal));
                        Action::Respond(Answer::Refused(refusal))
                    }
                    Attempted::Failed(failure) => {
                        let event = Event::AttemptFailed(failure);
                        self.exchange.step(&self.view.traffic, event, Instant::now())
                    }
                },
                Action::Relay { .. } | Action::Done => return Driven::Done,
            };
        }
    }

    /// Waits for an endpoint; `None` when the client has left.
    async fn wait(&mut self, ticket: Ticket, until: Instant) -> Option<Event<'static>> {
        let mut timer = Timer::default();
        let watch_client = matches!(self.request.body, BodyLength::None | BodyLength::Known(0));
        poll_fn(|cx| {
            if ticket.poll(cx.waker()) {
                return Poll::Ready(Some(Event::EndpointReady));
            }
            if timer.poll_expired(cx, until.into()) {
                return Poll::Ready(Some(Event::WaitExpired));
            }
            if watch_client && self.down.poll_gone(cx).is_ready() {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
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
    async fn attempt(&mut self, attempt: &Attempt) -> Attempted {
        self.account.endpoint = Some(attempt.endpoint.clone());
        self.account.attempt_started = Some(Instant::now());
        let mut connection = match self.connection(attempt).await {
            Ok(connection) => connection,
            Err(failure) => return Attempted::Failed(failure),
        };
        let shape = self.write_request_head(&mut connection);
        let relay = Relay::new(self.down, &mut connection, self.exchange, &self.view.traffic, attempt.timeouts, shape);
        let (end, upstream_status) = relay.run().await;
        self.account.upstream_status = upstream_status;
        self.settle(attempt, connection, end).await
    }

    async fn connection(&self, attempt: &Attempt) -> Result<Box<Connection>, Failure> {
        let endpoint = &attempt.endpoint;
        let metrics = self.view.upstream_metrics(&attempt.pool);
        if attempt.number > 1 {
            count(metrics, |metrics| &metrics.retries);
        }
        // What must not be sent twice is not sent on a connection that may be closed already.
        let careful = !is_idempotent(self.request.method);
        if !attempt.fresh
            && let Some(connection) = self.shard.idle.take(endpoint.id(), tokio::time::Instant::now(), careful)
        {
            count(metrics, |metrics| &metrics.reused);
            return Ok(Box::new(connection));
        }
        let Some(permit) = ConnPermit::try_new(endpoint, MAX_CONNECTIONS) else {
            return Err(connect_failure(Cause::Full));
        };
        match connect(endpoint.address(), attempt.timeouts.connect).await {
            Ok(socket) => {
                count(metrics, |metrics| &metrics.opened);
                Ok(Box::new(Connection::new(socket, permit)))
            }
            Err(error) => {
                count(metrics, |metrics| &metrics.failed);
                tracing::debug!(upstream = %attempt.pool.name(), endpoint = ?endpoint.address(), %error, "connect failed");
                Err(connect_failure(connect_cause(&error)))
            }
        }
    }

    /// Puts the request's head into the connection's write buffer.
    fn write_request_head(&self, connection: &mut Connection) -> RequestShape {
        let request = &self.request;
        let framing = match request.body {
            BodyLength::None => BodyFraming::None,
            BodyLength::Known(length) => BodyFraming::Length(length),
            BodyLength::Unknown => BodyFraming::Chunked,
        };
        let mut writer = HeadWriter::new(&mut connection.write);
        writer.request_line(request.method, &self.exchange.forward_target(request));
        self.exchange.request_edits(request).apply(request.fields, &mut |name, value| {
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
        RequestShape {
            asked,
            has_body: !matches!(request.body, BodyLength::None | BodyLength::Known(0)),
            encoder: BodyEncoder::new(framing),
            pipe: self.exchange.body_plan().map(BodyPlan::request_pipe),
        }
    }

    /// What follows from a relay's end.
    async fn settle(&mut self, attempt: &Attempt, connection: Box<Connection>, end: RelayEnd) -> Attempted {
        match end {
            RelayEnd::Complete { reusable } => {
                self.account.status = self.account.upstream_status.unwrap_or_default();
                if reusable && !self.shard.is_draining() && attempt.endpoint.state() == EndpointState::Ready {
                    let now = tokio::time::Instant::now();
                    let (cap, keep) = (attempt.idle_connections, attempt.timeouts.idle);
                    self.shard.idle.put(attempt.endpoint.id(), *connection, cap, keep, now);
                }
                self.finish(Outcome::Ok);
                Attempted::Over
            }
            RelayEnd::Tunnel => {
                self.account.status = 101;
                Attempted::Tunnel(connection)
            }
            RelayEnd::Failed(failure) => Attempted::Failed(failure),
            RelayEnd::Refused(refusal) => Attempted::Refused(refusal),
            RelayEnd::Truncated(refusal) => {
                tracing::debug!(endpoint = ?attempt.endpoint.address(), %refusal, "answer broke off");
                self.account.status = self.account.upstream_status.unwrap_or_default();
                self.account.truncated = true;
                self.account.reason = Some(refusal.reason());
                self.down.abort();
                self.finish(blame(&refusal));
                Attempted::Over
            }
            RelayEnd::ClientFault(fault) => self.client_fault(fault).await,
        }
    }

    /// The client broke off or a limit: answered where an answer can still be read.
    async fn client_fault(&mut self, fault: ClientFault) -> Attempted {
        let kind = match &fault {
            ClientFault::Gone(_) | ClientFault::WriteStalled => RefusalKind::ClientClosed,
            ClientFault::BodyStalled => RefusalKind::ClientBodyTimeout,
            ClientFault::BadBody(_) => RefusalKind::BadRequest,
            ClientFault::BadAnswer(_) => RefusalKind::UpstreamBadResponse,
        };
        let refusal = Refusal::new(kind, fault.to_string());
        self.finish(if refusal.fault() == Fault::Client { Outcome::ClientGone } else { blame(&refusal) });
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
        let own = match answer {
            Answer::Fixed(fixed) => failure::fixed(fixed, id, now),
            Answer::Refused(refusal) => {
                self.account.reason = Some(refusal.reason());
                tracing::debug!(%refusal, "refused");
                failure::response(refusal, self.request.fields.first("accept"), id, now)
            }
        };
        self.account.status = own.status;
        let head_only = self.request.method == "HEAD";
        if send_own(self.down, &own, head_only).await.is_err() {
            self.down.abort();
        }
    }
}

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

/// What an end that we caused says about the endpoint: nothing, unless it was the endpoint's fault.
fn blame(refusal: &Refusal) -> Outcome {
    if refusal.fault() == Fault::Upstream { Outcome::UpstreamFault } else { Outcome::Cancelled }
}

fn connect_failure(cause: Cause) -> Failure {
    Failure {
        stage: Stage::Connect,
        cause,
        reused: false,
        sent: Sent::Nothing,
        body_replayable: true,
        response_started: false,
    }
}

/// What a failed connect means. A lack of our own is no fault of the endpoint, and no other endpoint cures it.
fn connect_cause(error: &std::io::Error) -> Cause {
    const LOCAL: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    match Errno::from_io_error(error) {
        Some(code) if LOCAL.contains(&code) => Cause::Local,
        _ if error.kind() == std::io::ErrorKind::TimedOut => Cause::TimedOut,
        _ => Cause::Closed,
    }
}

fn count(metrics: Option<&Arc<UpstreamMetrics>>, counter: impl Fn(&UpstreamMetrics) -> &prometheus::IntCounter) {
    if let Some(metrics) = metrics {
        counter(metrics).inc();
    }
}
