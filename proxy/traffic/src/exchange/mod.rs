//! One request with its answer, as a machine of steps.
//!
//! The driver tells what happened as an [`Event`] and does what the returned [`Action`] says. The exchange owns the
//! route, the lease on the endpoint and the list of endpoints tried; it never keeps the snapshot, so a tunnel that
//! lasts for days holds nothing of the configuration it began under.
//!
//! `Head` is the first event. `Delay` is answered by `DelayOver`; `Collect` by `Collected`, or the driver answers by
//! itself; `Queue` by `EndpointReady` or `WaitExpired`; `Forward` by `AttemptFailed` or `ResponseHead`; everything ends with
//! `Finished`, which may come at any time (the client may go away at any time).
//! Dropping the exchange at any point gives back what it holds.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_config::model::{FixedResponse, ForwardPath, Parsing, ProxyHeader, UpstreamProtocol, UpstreamTimeouts};

use crate::body::BodyPlan;
use crate::edits::HeadEdits;
use crate::filter::{self, RequestContext};
use crate::head::{HeadView, HttpVersion, ResponseView};
use crate::limit::{Decision, LimitFields};
use crate::mix::mix;
use crate::pool::endpoint::{Endpoint, EndpointId, Origin};
use crate::pool::key::Key;
use crate::pool::lease::{Lease, Outcome, TunnelLease};
use crate::pool::queue::Ticket;
use crate::pool::{Acquired, Pool, Wanted};
use crate::refusal::{Refusal, RefusalKind};
use crate::request_id::RequestId;
use crate::retry::{self, Cause, Failure, History, Stage, Verdict};
use crate::router::{PoolId, RouteAction, RouteId, RouteInfo};
use crate::traffic::{PoolSettings, Traffic, TransportId};

/// How long a request waits for workers that are starting.
pub const READY_WAIT: Duration = Duration::from_secs(10);

/// Longest method; RFC 9110's have at most 7 bytes.
const MAX_METHOD: usize = 32;

/// What has happened.
pub enum Event<'a> {
    /// The request head has arrived and is well formed.
    Head(&'a HeadView<'a>),
    /// The time of `Delay` has come.
    DelayOver,
    /// As much of the body as `Collect` asks for is held.
    Collected,
    /// The ticket of `Queue` says that it is worth asking again.
    EndpointReady,
    /// The time of `Queue` is over.
    WaitExpired,
    /// The attempt of `Forward` ended before a response head.
    AttemptFailed(Failure),
    /// A response head has arrived: interim (1xx), the 101 of an upgrade, or final.
    ResponseHead(ResponseView<'a>),
    /// The exchange is over: the answer was sent, or something made that impossible.
    Finished(Outcome),
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Action {
    /// Answer without an endpoint.
    Respond(Answer),
    /// Wait: the client is ahead of the rate of a limit.
    Delay {
        /// Then `DelayOver`.
        until: Instant,
    },
    /// Hold the request's body, until it is complete or so much is held or no more can be. Nothing is taken from the
    /// pool meanwhile: however slow the client is, it costs no endpoint anything.
    Collect {
        /// Most bytes to hold.
        most: u64,
    },
    /// Wait for the ticket, but not beyond the given time.
    Queue {
        /// Place in the pool's queue.
        ticket: Ticket,
        /// Then `WaitExpired`.
        until: Instant,
    },
    /// Send the request to an endpoint.
    Forward(Attempt),
    /// Pass the response on. After an interim head another head follows.
    Relay {
        /// Changes of its head.
        edits: HeadEdits<'static>,
        /// Afterwards bytes go both ways until one side ends.
        tunnel: bool,
    },
    /// Nothing more.
    Done,
}

/// An answer of our own.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The route's fixed response.
    Fixed(Arc<FixedResponse>),
    /// Why the request is not served.
    Refused(Refusal),
}

/// One try on one endpoint. The lease stays with the exchange.
#[derive(Debug)]
pub struct Attempt {
    /// The endpoint's pool.
    pub pool: Arc<Pool>,
    /// Where to.
    pub endpoint: Arc<Endpoint>,
    /// What it speaks.
    pub protocol: UpstreamProtocol,
    /// Its deadlines. `connect` is already cut to what is left of `total_connect`.
    pub timeouts: UpstreamTimeouts,
    /// How it is spoken to; an idle connection must have been made in the same way.
    pub transport: TransportId,
    /// Which header tells it of the client; then no connection is shared, neither taken nor kept.
    pub proxy_protocol: Option<ProxyHeader>,
    /// Idle connections to keep, for each endpoint and shard.
    pub idle_connections: usize,
    /// How HTTP/1.1 answers are read.
    pub parsing: Parsing,
    /// Use a new connection, not an idle one.
    pub fresh: bool,
    /// 1 for the first.
    pub number: u32,
}

/// When things happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// The exchange began.
    pub started: Instant,
    /// It first waited for an endpoint.
    pub queued: Option<Instant>,
    /// Its first attempt began.
    pub first_attempt: Option<Instant>,
    /// Its last attempt began.
    pub last_attempt: Option<Instant>,
    /// The final response head arrived.
    pub response_head: Option<Instant>,
}

/// One request with its answer.
#[derive(Debug)]
pub struct Exchange {
    id: RequestId,
    state: State,
    request: Option<Request>,
    hold: Hold,
    /// What follows the delay.
    next: Option<Next>,
    limit_fields: LimitFields,
    tried: Vec<EndpointId>,
    /// Attempts begun.
    attempts: u32,
    /// Attempts that count against the limit of tries.
    tries: u32,
    replayed: bool,
    /// Time spent on connects that failed.
    connecting_for: Duration,
    last_failure: Option<Refusal>,
    timings: Timings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Delayed,
    Collecting,
    Waiting,
    Attempting,
    Relaying,
    Answered,
    Over,
}

/// What becomes of a request that was routed and admitted.
#[derive(Debug)]
enum Next {
    /// It is answered by ourselves.
    Respond(Answer),
    /// So many bytes of its body are held first.
    Collect(u64),
    /// An endpoint is looked for.
    Seek,
}

/// What the exchange holds of an endpoint.
#[derive(Debug)]
enum Hold {
    Nothing,
    Lease(Lease),
    Tunnel(TunnelLease),
}

/// What is remembered of a routed request.
#[derive(Debug)]
struct Request {
    route: RouteId,
    forward_path: ForwardPath,
    default_host: Option<Arc<str>>,
    plan: BodyPlan,
    idempotent: bool,
    proxied: Option<Proxied>,
}

/// What is remembered of a request that is forwarded.
#[derive(Debug)]
struct Proxied {
    pool: Arc<Pool>,
    settings: PoolSettings,
    key: Key,
    websocket: bool,
}

impl Exchange {
    /// An exchange whose head is about to be decided on.
    #[must_use]
    pub fn new(id: RequestId, now: Instant) -> Self {
        Self {
            id,
            state: State::New,
            request: None,
            hold: Hold::Nothing,
            next: None,
            limit_fields: LimitFields::default(),
            tried: Vec::new(),
            attempts: 0,
            tries: 0,
            replayed: false,
            connecting_for: Duration::ZERO,
            last_failure: None,
            timings: Timings {
                started: now,
                queued: None,
                first_attempt: None,
                last_attempt: None,
                response_head: None,
            },
        }
    }

    /// Decides what follows an event. An event that cannot follow the last action is a fault of the driver: it is
    /// answered with an internal refusal, or with `Done` when an answer is already under way.
    pub fn step(&mut self, traffic: &Traffic, event: Event<'_>, now: Instant) -> Action {
        match (self.state, event) {
            (_, Event::Finished(outcome)) => self.finish(outcome),
            (State::New, Event::Head(head)) => match self.begin(traffic, head) {
                Ok(next) => self.limit(traffic, head, next, now),
                Err(refusal) => self.refuse(refusal),
            },
            (State::Delayed, Event::DelayOver) => match self.next.take() {
                Some(next) => self.go_on(next, now),
                None => self.refuse(Refusal::new(RefusalKind::Internal, "a delay with nothing behind it")),
            },
            (State::Collecting, Event::Collected) => self.seek(now),
            (State::Waiting, Event::EndpointReady) => self.seek(now),
            (State::Waiting, Event::WaitExpired) => self.wait_expired(),
            (State::Attempting, Event::AttemptFailed(failure)) => self.attempt_failed(&failure, now),
            (State::Attempting, Event::ResponseHead(response)) => self.response_head(&response, now),
            (State::Relaying | State::Answered | State::Over, _) => Action::Done,
            (state, _) => self.refuse(Refusal::new(RefusalKind::Internal, format!("event out of order in {state:?}"))),
        }
    }

    /// Identifier of the request.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// The route, once there is one.
    #[must_use]
    pub fn route(&self) -> Option<RouteId> {
        self.request.as_ref().map(|request| request.route)
    }

    /// The endpoint in use.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        match &self.hold {
            Hold::Nothing => None,
            Hold::Lease(lease) => Some(lease.endpoint()),
            Hold::Tunnel(lease) => Some(lease.endpoint()),
        }
    }

    /// The pool the request goes to.
    #[must_use]
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        self.proxied().map(|proxied| &proxied.pool)
    }

    /// How the bodies are passed on, once there is a route.
    #[must_use]
    pub fn body_plan(&self) -> Option<&BodyPlan> {
        self.request.as_ref().map(|request| &request.plan)
    }

    /// Whether the request is to become a WebSocket.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.proxied().is_some_and(|proxied| proxied.websocket)
    }

    /// Attempts begun.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When things happened.
    #[must_use]
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Changes of the request head for the attempt under way; `head` is the one the exchange began with.
    #[must_use]
    pub fn request_edits<'a>(&'a self, head: &HeadView<'a>) -> HeadEdits<'a> {
        let proxied = self.proxied();
        let context = RequestContext {
            id: self.id,
            protocol: proxied.map_or(UpstreamProtocol::Http1, |proxied| proxied.settings.protocol),
            websocket: proxied.is_some_and(|proxied| proxied.websocket),
            worker: self.endpoint().is_some_and(|endpoint| matches!(endpoint.origin(), Origin::Worker { .. })),
            default_host: self.request.as_ref().and_then(|request| request.default_host.as_deref()),
        };
        filter::request_edits(head, &context)
    }

    /// Path and query to forward: the form that was matched, or the client's own where the route asks for it.
    #[must_use]
    pub fn forward_target<'a>(&self, head: &HeadView<'a>) -> Cow<'a, str> {
        match self.request.as_ref().map(|request| request.forward_path) {
            Some(ForwardPath::Raw) => Cow::Borrowed(head.raw_target),
            Some(ForwardPath::Canonical) | None => head.target.canonical(),
        }
    }

    /// The lease of the tunnel, for the driver to keep beside the two sockets; then the exchange may be dropped.
    pub fn take_tunnel(&mut self) -> Option<TunnelLease> {
        match std::mem::replace(&mut self.hold, Hold::Nothing) {
            Hold::Tunnel(lease) => Some(lease),
            other => {
                self.hold = other;
                None
            }
        }
    }

    /// What the client is told of its limits in every answer.
    #[must_use]
    pub fn limit_fields(&self) -> &LimitFields {
        &self.limit_fields
    }

    /// Routes the request.
    fn begin(&mut self, traffic: &Traffic, head: &HeadView<'_>) -> Result<Next, Refusal> {
        check_method(head)?;
        filter::check_request(head)?;
        if head.target.is_asterisk() {
            return Ok(Next::Respond(Answer::Fixed(Arc::clone(traffic.options_response()))));
        }
        let route = traffic.router.route(head)?;
        // Remembered first, so that a refusal below is counted for its route.
        let request = self.request.insert(Request::new(route, head));
        request.plan.admit(head.body)?;
        match &route.action {
            RouteAction::Respond(response) => Ok(Next::Respond(Answer::Fixed(Arc::clone(response)))),
            RouteAction::Proxy(pool) => {
                request.proxied = Some(Proxied::new(traffic, *pool, head)?);
                Ok(request.plan.collects(head.body).map_or(Next::Seek, Next::Collect))
            }
        }
    }

    /// Asks the limits of the route.
    fn limit(&mut self, traffic: &Traffic, head: &HeadView<'_>, next: Next, now: Instant) -> Action {
        let route = self.route().and_then(|route| traffic.router.info(route));
        let Some(route) = route.filter(|route| !route.limits.is_empty()) else { return self.go_on(next, now) };
        let Decision { delay, refusal, fields } = traffic.limits.decide(&route.limits, head, now);
        self.limit_fields = fields;
        match refusal {
            Some(refusal) => self.refuse(refusal),
            None if delay.is_zero() => self.go_on(next, now),
            None => {
                self.state = State::Delayed;
                self.next = Some(next);
                Action::Delay { until: now + delay }
            }
        }
    }

    fn go_on(&mut self, next: Next, now: Instant) -> Action {
        match next {
            Next::Respond(answer) => self.respond(answer),
            Next::Collect(most) => {
                self.state = State::Collecting;
                Action::Collect { most }
            }
            Next::Seek => self.seek(now),
        }
    }

    /// Asks the pool for an endpoint that was not tried.
    fn seek(&mut self, now: Instant) -> Action {
        let Some(proxied) = self.proxied() else {
            return self.refuse(Refusal::new(RefusalKind::Internal, "the route has no upstream"));
        };
        // The identifier is random: another number for each request, and by its mix for each attempt.
        let draw = mix((self.id.0 as u64).wrapping_add(u64::from(self.attempts)));
        match proxied.pool.acquire(&Wanted { key: &proxied.key, tried: &self.tried, draw, now }) {
            Acquired::Lease(lease) => {
                self.tries += 1;
                self.forward(lease, false, now)
            }
            Acquired::Wait(ticket) => {
                self.state = State::Waiting;
                let since = *self.timings.queued.get_or_insert(now);
                Action::Queue { ticket, until: since + READY_WAIT }
            }
            Acquired::Refuse(refusal) => {
                let refusal = self.last_failure.take().unwrap_or(refusal);
                self.refuse(refusal)
            }
        }
    }

    fn forward(&mut self, lease: Lease, fresh: bool, now: Instant) -> Action {
        let endpoint = Arc::clone(lease.endpoint());
        self.hold = Hold::Lease(lease);
        let Some(proxied) = self.proxied() else {
            return self.refuse(Refusal::new(RefusalKind::Internal, "the route has no upstream"));
        };
        let (pool, settings) = (Arc::clone(&proxied.pool), proxied.settings);
        self.timings.first_attempt.get_or_insert(now);
        self.timings.last_attempt = Some(now);
        self.state = State::Attempting;
        self.attempts += 1;
        let mut timeouts = settings.timeouts;
        timeouts.connect = timeouts.connect.min(timeouts.total_connect.saturating_sub(self.connecting_for));
        Action::Forward(Attempt {
            pool,
            endpoint,
            protocol: settings.protocol,
            timeouts,
            transport: settings.transport,
            proxy_protocol: settings.proxy_protocol,
            idle_connections: settings.idle_connections,
            parsing: settings.parsing,
            fresh,
            number: self.attempts,
        })
    }

    fn wait_expired(&mut self) -> Action {
        let detail = match self.proxied() {
            Some(proxied) => format!("upstream: {}, no worker ready in {READY_WAIT:?}", proxied.pool.name()),
            None => String::new(),
        };
        let expired = Refusal::new(RefusalKind::NotReadyInTime, detail);
        let refusal = self.last_failure.take().unwrap_or(expired);
        self.refuse(refusal)
    }

    fn attempt_failed(&mut self, failure: &Failure, now: Instant) -> Action {
        let Hold::Lease(lease) = std::mem::replace(&mut self.hold, Hold::Nothing) else {
            return self.refuse(Refusal::new(RefusalKind::Internal, "an attempt without a lease"));
        };
        if failure.stage == Stage::Connect {
            self.tries = self.tries.saturating_sub(1);
            let began = self.timings.last_attempt.unwrap_or(now);
            self.connecting_for += now.saturating_duration_since(began);
        }
        let refusal = refusal_of(failure, lease.endpoint());
        match retry::decide(failure, &self.history()) {
            // A connection that was closed while idle says nothing against the endpoint.
            Verdict::Replay => {
                self.replayed = true;
                self.last_failure = Some(refusal);
                self.replay(lease, now)
            }
            Verdict::Next => {
                self.tried.push(lease.endpoint().id());
                lease.finish(outcome_of(failure.cause));
                self.last_failure = Some(refusal);
                self.seek(now)
            }
            Verdict::GiveUp => {
                lease.finish(outcome_of(failure.cause));
                self.refuse(refusal)
            }
        }
    }

    /// The same endpoint again, unless it has left the pool meanwhile.
    fn replay(&mut self, lease: Lease, now: Instant) -> Action {
        if lease.endpoint().is_ready() {
            return self.forward(lease, true, now);
        }
        self.tries = self.tries.saturating_sub(1);
        self.tried.push(lease.endpoint().id());
        lease.finish(Outcome::Cancelled);
        self.seek(now)
    }

    fn response_head(&mut self, response: &ResponseView<'_>, now: Instant) -> Action {
        match response.status {
            101 => self.switch(response, now),
            100..=199 => Action::Relay { edits: filter::response_edits(self.id, false), tunnel: false },
            _ => {
                self.observe(now);
                self.timings.response_head = Some(now);
                self.state = State::Relaying;
                let mut edits = filter::response_edits(self.id, false);
                self.limit_fields.set(&mut edits);
                Action::Relay { edits, tunnel: false }
            }
        }
    }

    /// Tells the endpoint how long its answer took, if its balance goes by that.
    fn observe(&self, now: Instant) {
        let timed = self.proxied().is_some_and(|proxied| proxied.settings.timed);
        if let (true, Hold::Lease(lease), Some(began)) = (timed, &self.hold, self.timings.last_attempt) {
            lease.endpoint().observe(now.saturating_duration_since(began), now);
        }
    }

    /// 101 is right only as the answer to a WebSocket request, and only for that protocol.
    fn switch(&mut self, response: &ResponseView<'_>, now: Instant) -> Action {
        let agreed = response.fields.first("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
        let hold = std::mem::replace(&mut self.hold, Hold::Nothing);
        match hold {
            Hold::Lease(lease) if agreed && self.is_websocket() => {
                self.timings.response_head = Some(now);
                self.state = State::Relaying;
                self.hold = Hold::Tunnel(lease.into_tunnel());
                let mut edits = filter::response_edits(self.id, true);
                self.limit_fields.set(&mut edits);
                Action::Relay { edits, tunnel: true }
            }
            hold => {
                if let Hold::Lease(lease) = hold {
                    lease.finish(Outcome::UpstreamFault);
                }
                self.refuse(Refusal::new(RefusalKind::UpstreamBadResponse, "status 101 that was not asked for"))
            }
        }
    }

    fn finish(&mut self, outcome: Outcome) -> Action {
        self.state = State::Over;
        if let Hold::Lease(lease) = std::mem::replace(&mut self.hold, Hold::Nothing) {
            lease.finish(outcome);
        }
        Action::Done
    }

    fn refuse(&mut self, refusal: Refusal) -> Action {
        self.respond(Answer::Refused(refusal))
    }

    fn respond(&mut self, answer: Answer) -> Action {
        self.state = State::Answered;
        Action::Respond(answer)
    }

    fn proxied(&self) -> Option<&Proxied> {
        self.request.as_ref()?.proxied.as_ref()
    }

    fn history(&self) -> History {
        History {
            idempotent: self.request.as_ref().is_some_and(|request| request.idempotent),
            tries: self.tries,
            replayed: self.replayed,
            connecting_for: self.connecting_for,
            total_connect: self.proxied().map_or(Duration::ZERO, |proxied| proxied.settings.timeouts.total_connect),
        }
    }
}

impl Request {
    fn new(route: &RouteInfo, head: &HeadView<'_>) -> Self {
        Self {
            route: route.id,
            forward_path: route.forward_path,
            default_host: route.default_host.clone(),
            plan: BodyPlan::of(route.max_body, route.buffer),
            idempotent: retry::is_idempotent(head.method),
            proxied: None,
        }
    }
}

impl Proxied {
    fn new(traffic: &Traffic, id: PoolId, head: &HeadView<'_>) -> Result<Self, Refusal> {
        let missing = || Refusal::new(RefusalKind::Internal, "the route's upstream is not one of this snapshot");
        let (pool, settings) = traffic.upstream(id).ok_or_else(missing)?;
        // The length of an HTTP/2 endpoint's answer may be unknown, and chunks are beyond an HTTP/1.0 client.
        if settings.protocol == UpstreamProtocol::H2 && head.version == HttpVersion::Http10 {
            let detail = "an HTTP/1.0 client, and endpoints of HTTP/2";
            return Err(Refusal::new(RefusalKind::UnsupportedVersion, detail));
        }
        // Only HTTP/1.1 has an upgrade; to an HTTP/2 endpoint the request goes as an ordinary one.
        let websocket = head.upgrade && settings.protocol == UpstreamProtocol::Http1;
        let key = Key::of(traffic.balance(id), head);
        Ok(Self { pool: Arc::clone(pool), settings: *settings, key, websocket })
    }
}

/// CONNECT would make us an open proxy and TRACE would show our own fields to the client.
fn check_method(head: &HeadView<'_>) -> Result<(), Refusal> {
    match head.method {
        "CONNECT" | "TRACE" => Err(Refusal::new(RefusalKind::MethodNotAllowed, format!("method: {}", head.method))),
        method if method.len() > MAX_METHOD => Err(Refusal::bad_request("method longer than 32 bytes")),
        method if head.target.is_asterisk() && method != "OPTIONS" => {
            Err(Refusal::bad_request("target \"*\" with a method other than OPTIONS"))
        }
        _ => Ok(()),
    }
}

fn refusal_of(failure: &Failure, endpoint: &Endpoint) -> Refusal {
    let kind = match (failure.stage, failure.cause) {
        (_, Cause::Local) => RefusalKind::OutOfResources,
        (_, Cause::Full) => RefusalKind::NoEndpoint,
        (_, Cause::Malformed) => RefusalKind::UpstreamBadResponse,
        (_, Cause::Tls) => RefusalKind::UpstreamTls,
        (Stage::Connect, Cause::TimedOut) => RefusalKind::ConnectTimeout,
        (Stage::Connect, Cause::Closed) => RefusalKind::ConnectFailed,
        (Stage::Send, Cause::TimedOut) => RefusalKind::UpstreamWriteTimeout,
        (Stage::Head, Cause::TimedOut) => RefusalKind::HeadTimeout,
        (Stage::Send | Stage::Head, Cause::Closed) => RefusalKind::UpstreamClosed,
    };
    Refusal::new(kind, format!("endpoint: {}, {:?} while in {:?}", endpoint.address(), failure.cause, failure.stage))
}

/// What a failure says about the endpoint.
fn outcome_of(cause: Cause) -> Outcome {
    match cause {
        Cause::Local | Cause::Full => Outcome::Cancelled,
        Cause::Closed | Cause::TimedOut | Cause::Malformed | Cause::Tls => Outcome::UpstreamFault,
    }
}

#[cfg(test)]
mod tests;
