//! One request with its answer, as a machine of steps.
//!
//! The driver tells what happened as an [`Event`] and does what the returned [`Action`] says. The exchange owns the
//! route, the lease on the endpoint and the list of endpoints tried; it never keeps the snapshot, so a tunnel that
//! lasts for days holds nothing of the configuration it began under.
//!
//! `Head` is the first event. `Delay` is answered by `DelayOver`; `Collect` by `Collected`, or the driver answers by
//! itself; `Queue` by `Called` or `WaitExpired`; `Forward` by `AttemptFailed` or `ResponseHead`;
//! `Discard` by `Discarded`; while an attempt is under way `HedgeDue` may come once, and `Hedge` is answered by `LegFailed` or
//! `LegAnswered`, until `Keep` says that there is one attempt again; `DeadlineOver` may come when [`Exchange::deadline`] has passed; everything ends with
//! `Finished`, which may come at any time (the client may go away at any time).
//! Dropping the exchange at any point gives back what it holds.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tidegate_config::model::{ForwardPath, Retry, UpstreamProtocol};

use crate::body::BodyPlan;
use crate::concurrency::Places;
use crate::edits::HeadEdits;
use crate::filter::{self, RequestContext};
use crate::head::HeadView;
use crate::limit::LimitFields;
use crate::pool::Pool;
use crate::pool::endpoint::{Endpoint, EndpointId, Origin};
use crate::pool::lease::{Lease, Outcome, TunnelLease};
use crate::refusal::{Refusal, RefusalKind};
use crate::request_id::RequestId;
use crate::retry::Reason;
use crate::router::RouteId;
use crate::sticky_cookie::StickyRequest;
use crate::traffic::Traffic;
use begin::Next;
use hedge::Second;
use request::{Proxied, Request};

mod action;
mod again;
mod begin;
mod event;
mod failed;
mod hedge;
mod request;
mod response;
mod seek;
mod sticky;

pub use action::{Action, Answer, Attempt};
pub use event::Event;
pub use hedge::{Hedged, Leg};

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
    /// The second leg, while there are two.
    second: Option<Box<Second>>,
    hedged: Option<Hedged>,
    /// In the limits of requests under way, from the admission to the end of the answer.
    places: Places,
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
    /// Tries after a try that counted.
    retries: u32,
    /// Why the next attempt is made.
    reason: Option<Reason>,
    /// A retry was not made because the budget did not pay for it.
    retry_denied: bool,
    deadline: Option<Instant>,
    /// Of the answer that is passed on.
    status: Option<u16>,
    timings: Timings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Delayed,
    Collecting,
    Waiting,
    Attempting,
    /// An answer gives way to another try, which begins after this time.
    Discarding {
        wait: Duration,
        reason: Reason,
    },
    Relaying,
    Answered,
    Over,
}
/// What the exchange holds of an endpoint.
#[derive(Debug)]
enum Hold {
    Nothing,
    Lease(Lease),
    Tunnel(TunnelLease),
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
            second: None,
            hedged: None,
            places: Places::default(),
            next: None,
            limit_fields: LimitFields::default(),
            tried: Vec::new(),
            attempts: 0,
            tries: 0,
            replayed: false,
            connecting_for: Duration::ZERO,
            last_failure: None,
            retries: 0,
            reason: None,
            retry_denied: false,
            deadline: None,
            status: None,
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
            (_, Event::Finished(outcome)) => self.finish(outcome, now),
            (State::Answered | State::Over, _) => Action::Done,
            (_, Event::DeadlineOver) => self.overdue(now),
            (State::Delayed | State::Collecting | State::Waiting | State::Attempting, event)
                if !matches!(event, Event::ResponseHead(_) | Event::LegAnswered(..))
                    && self.deadline.is_some_and(|deadline| now >= deadline) =>
            {
                self.overdue(now)
            }
            (State::New, Event::Head(head)) => match self.begin(traffic, head) {
                Ok(next) => self.limit(traffic, head, next, now),
                Err(refusal) => self.refuse(refusal),
            },
            (State::Delayed, Event::DelayOver) => match self.next.take() {
                Some(next) => self.go_on(next, now),
                None => self.refuse(Refusal::new(RefusalKind::Internal, "a delay with nothing behind it")),
            },
            (State::Collecting, Event::Collected) => self.seek(now),
            (State::Waiting, Event::Called(called)) => self.called(called, now),
            (State::Waiting, Event::WaitExpired) => self.wait_expired(now),
            (State::Attempting, Event::AttemptFailed(failure)) => self.attempt_failed(&failure, now),
            (State::Attempting, Event::ResponseHead(response)) => self.response_head(&response, now),
            (State::Attempting, Event::HedgeDue) => self.hedge(now),
            (State::Attempting, Event::LegFailed(leg, failure)) => self.leg_failed(leg, &failure, now),
            (State::Attempting, Event::LegAnswered(leg, response)) => self.leg_answered(leg, &response, now),
            (State::Discarding { wait, reason }, Event::Discarded) => self.discarded(wait, reason, now),
            (State::Relaying, _) => Action::Done,
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

    /// When the whole request has to be over.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Status of the endpoint's answer, once it is passed on.
    #[must_use]
    pub fn upstream_status(&self) -> Option<u16> {
        self.status
    }

    /// Whether another try would have followed, had the upstream's budget paid for it.
    #[must_use]
    pub fn was_denied_a_retry(&self) -> bool {
        self.retry_denied
    }

    /// What came of the hedge, if there was to be one.
    #[must_use]
    pub fn hedged(&self) -> Option<Hedged> {
        self.hedged
    }

    /// When things happened.
    #[must_use]
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Whether endpoints are told when the request began.
    #[must_use]
    pub fn tells_start(&self) -> bool {
        self.proxied().is_some_and(|proxied| proxied.settings.timing.request_start)
    }

    /// Changes of the request head for the attempt under way; `head` is the one the exchange began with. `began`: when that
    /// was, for an endpoint that is told.
    #[must_use]
    pub fn request_edits<'a>(&'a self, head: &HeadView<'a>, began: Option<SystemTime>) -> HeadEdits<'a> {
        self.request_edits_for(self.endpoint().map(Arc::as_ref), head, began)
    }

    /// The same for this endpoint, which may be that of a second leg.
    #[must_use]
    pub fn request_edits_for<'a>(
        &'a self,
        endpoint: Option<&Endpoint>,
        head: &HeadView<'a>,
        began: Option<SystemTime>,
    ) -> HeadEdits<'a> {
        let proxied = self.proxied();
        let context = RequestContext {
            id: self.id,
            protocol: proxied.map_or(UpstreamProtocol::Http1, |proxied| proxied.settings.protocol),
            websocket: proxied.is_some_and(|proxied| proxied.websocket),
            worker: endpoint.is_some_and(|endpoint| matches!(endpoint.origin(), Origin::Worker { .. })),
            own_cookie: proxied.and_then(|proxied| proxied.sticky.as_ref()).map(StickyRequest::name),
            default_host: self.request.as_ref().and_then(|request| request.default_host.as_deref()),
            began,
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

    /// The lease of the tunnel, for the driver to keep beside the two sockets; then the exchange may be dropped. The
    /// request is under way for as long as the lease is kept.
    pub fn take_tunnel(&mut self) -> Option<TunnelLease> {
        match std::mem::replace(&mut self.hold, Hold::Nothing) {
            Hold::Tunnel(lease) => Some(lease.holding(std::mem::take(&mut self.places))),
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

    fn finish(&mut self, outcome: Outcome, now: Instant) -> Action {
        self.state = State::Over;
        self.give_reserved_back();
        if self.second.is_some() {
            self.end_second(outcome, now);
        }
        if let Hold::Lease(lease) = std::mem::replace(&mut self.hold, Hold::Nothing) {
            self.end(lease, outcome, now);
        }
        Action::Done
    }

    /// Gives a lease back; the pool hears how its endpoint did.
    fn end(&self, lease: Lease, outcome: Outcome, now: Instant) {
        if let Some(pool) = self.pool() {
            pool.end(lease, outcome, now);
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Action {
        self.respond(Answer::Refused(refusal))
    }

    fn respond(&mut self, answer: Answer) -> Action {
        self.state = State::Answered;
        Action::Respond(answer)
    }

    fn is_idempotent(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.idempotent)
    }

    fn policy(&self) -> &Retry {
        self.proxied().map_or(&Retry::OFF, |proxied| &proxied.retry)
    }

    /// No wait is longer than the request may take.
    fn within_deadline(&self, until: Instant) -> Instant {
        self.deadline.map_or(until, |deadline| until.min(deadline))
    }

    fn proxied(&self) -> Option<&Proxied> {
        self.request.as_ref()?.proxied.as_ref()
    }
}

#[cfg(test)]
mod hedge_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tries_tests;
