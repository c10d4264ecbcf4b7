//! The right to use an endpoint: a lease for one exchange, a permit for one socket.
//!
//! Both give back what they took when they are dropped, so no path through the driver can leak a count.

use std::sync::Arc;
use std::time::Instant;

use super::breaker::Admitted;
use super::charges::Column;
use super::endpoint::Endpoint;
use super::starts::Entry;
use super::symptom::Symptom;
use super::trial::Sample;
use crate::concurrency::Places;
use crate::refusal::RefusalKind;

/// How an exchange with an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The endpoint answered and the answer was passed on.
    Ok,
    /// The endpoint could not be reached, broke off, took too long or sent nonsense.
    UpstreamFault(Symptom),
    /// The client went away first.
    ClientGone,
    /// We ended it for a reason of our own; says nothing about the endpoint.
    Cancelled,
    /// Another endpoint answered the same request first. That is not a failure: losing once says nothing.
    Overtaken,
}

impl Outcome {
    /// The end of an exchange that is refused for this reason.
    #[must_use]
    pub fn of_refusal(kind: RefusalKind) -> Self {
        Symptom::of_refusal(kind).map_or(Self::Cancelled, Self::UpstreamFault)
    }
}

/// The right to use an endpoint for one exchange.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    began: Instant,
    /// Where its beginning is noted, while it is in flight.
    start: Option<Entry>,
    /// Of the answer's head, once there is one.
    status: Option<u16>,
    alternative: bool,
    /// Another try took the place of its answer, or of its connection, which had been closed while it was idle.
    gave_way: bool,
    ended: Option<Instant>,
    /// Where it counts.
    counts: Counts,
    /// Its answer streams while it is in flight.
    streams: bool,
    /// What the pool's breaker wants to know of its end, if there is one.
    admitted: Option<Admitted>,
    /// What a trial of its endpoint counts of it, while there is one.
    sample: Option<Sample>,
    outcome: Option<Outcome>,
    /// Of the route that its exchange belongs to, if somebody wants to know what requests cost.
    column: Option<Column>,
}

/// Where a lease counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// As an exchange in flight.
    InFlight,
    /// As that, and as the tunnel that it may become.
    Both,
    /// As a tunnel, which it has become or which it is as good as.
    Tunnel,
}

impl Lease {
    /// For an exchange that endpoint and lineage have counted. `alternative`: another endpoint that the request has not tried
    /// was in service too.
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        now: Instant,
        alternative: bool,
        counts: Counts,
        admitted: Option<Admitted>,
    ) -> Self {
        let sample = endpoint.sample(now);
        let start = endpoint.note_start(now);
        Self {
            sample,
            endpoint,
            began: now,
            start,
            alternative,
            gave_way: false,
            ended: None,
            status: None,
            counts,
            streams: false,
            admitted,
            outcome: None,
            column: None,
        }
    }

    /// Whose lease it is.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Whether another endpoint that the request had not tried was in service when this one was chosen.
    #[must_use]
    pub fn has_alternative(&self) -> bool {
        self.alternative
    }

    pub(super) fn set_column(&mut self, column: Option<Column>) {
        self.column = column;
    }

    /// When it was given.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The head of an answer with this status has come.
    pub fn answered(&mut self, status: u16, now: Instant) {
        self.status = Some(status);
        self.note_answer(status, now);
    }

    fn note_answer(&mut self, status: u16, now: Instant) {
        if let Some(sample) = &mut self.sample {
            sample.answered(status, now.saturating_duration_since(self.began));
        }
    }

    /// Another try takes the place of its answer; without one its connection had been closed while it was idle.
    pub(crate) fn give_way(&mut self) {
        self.gave_way = true;
    }

    /// What the breaker is to be told of.
    pub(super) fn take_admitted(&mut self) -> Option<Admitted> {
        self.admitted.take()
    }

    /// Status of the answer, if there was one.
    pub(super) fn status(&self) -> Option<u16> {
        self.status
    }

    /// Ends the exchange; [`Pool::end`](super::Pool::end) does so too, and acts on what that says of the endpoint. Dropping the
    /// lease instead counts as abandoned.
    pub fn finish(mut self, outcome: Outcome, now: Instant) {
        self.end(outcome, now);
    }

    /// Nobody has used it: somebody else may have it.
    pub(crate) fn pass_on(mut self) {
        self.endpoint.discount_request();
        // Nothing to count: there was no exchange.
        self.outcome = Some(Outcome::Ok);
    }

    /// The exchange has become a tunnel: it no longer counts as in flight.
    #[must_use]
    pub fn into_tunnel(mut self, now: Instant) -> TunnelLease {
        if self.counts == Counts::InFlight {
            // It was not announced as one.
            self.endpoint.force_tunnel();
        }
        self.counts = Counts::Both;
        self.note_answer(101, now);
        self.leave_flight(now);
        self.outcome = Some(Outcome::Ok);
        TunnelLease { places: Places::default(), lease: self }
    }

    /// Its answer has been streaming for so long that it is as good as a tunnel, and counts as one from now on. `false`: there
    /// are as many as may be, and nothing changes. On an endpoint that gets nothing new there always is room.
    #[must_use]
    pub fn stream(&mut self, now: Instant) -> bool {
        match self.counts {
            Counts::Tunnel => return true,
            Counts::Both => {}
            Counts::InFlight if self.endpoint.begin_tunnel() => {}
            Counts::InFlight if !self.endpoint.is_ready() => self.endpoint.force_tunnel(),
            Counts::InFlight => {
                self.lasts();
                return false;
            }
        }
        self.leave_flight(now);
        true
    }

    /// Its answer may go on for as long as it likes: a drain does not wait for its end as it does for that of requests.
    pub fn lasts(&mut self) {
        if self.counts != Counts::Tunnel && !std::mem::replace(&mut self.streams, true) {
            self.endpoint.begin_stream();
        }
    }

    /// From an exchange in flight, with a tunnel's place, to a tunnel.
    fn leave_flight(&mut self, now: Instant) {
        self.counts = Counts::Tunnel;
        if let Some(admitted) = self.admitted.take() {
            admitted.end(Outcome::Ok, self.status, now);
        }
        self.end_exchange(Some((self.began, now)));
    }

    fn end_exchange(&mut self, times: Option<(Instant, Instant)>) {
        if let Some(entry) = self.start.take() {
            self.endpoint.forget_start(entry);
        }
        if let Some(column) = self.column {
            self.endpoint.charge(column, times.map(|(began, ended)| ended.saturating_duration_since(began)));
        }
        if std::mem::take(&mut self.streams) {
            self.endpoint.end_stream();
        }
        self.endpoint.end_exchange();
        self.endpoint.lineage().end_exchange(times);
    }

    fn end(&mut self, outcome: Outcome, now: Instant) {
        (self.outcome, self.ended) = (Some(outcome), Some(now));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(sample) = self.sample.take() {
            sample.ended(self.outcome);
        }
        match self.outcome {
            Some(Outcome::Ok) => {}
            Some(Outcome::Cancelled) if self.gave_way => {}
            Some(Outcome::Cancelled) => self.endpoint.count_cancelled(),
            Some(Outcome::UpstreamFault(symptom)) => self.endpoint.count_failure(symptom),
            Some(Outcome::ClientGone) | None => self.endpoint.count_abandoned(),
            Some(Outcome::Overtaken) => self.endpoint.count_overtaken(),
        }
        match self.status {
            status if self.gave_way => {
                self.endpoint.count_given_way(status.map_or(Symptom::Closed, Symptom::Status));
            }
            Some(500..) => self.endpoint.count_server_error(),
            Some(_) | None => {}
        }
        if self.counts != Counts::Tunnel {
            self.end_exchange(self.ended.map(|ended| (self.began, ended)));
        }
        if self.counts != Counts::InFlight {
            self.endpoint.end_tunnel();
        }
    }
}

/// One upgraded connection through an endpoint; it ends when this is dropped.
#[derive(Debug)]
pub struct TunnelLease {
    /// In the limits of requests under way; these come back first.
    places: Places,
    lease: Lease,
}

impl TunnelLease {
    /// The same, with the places that its request has.
    pub(crate) fn holding(mut self, places: Places) -> Self {
        self.places = places;
        self
    }

    /// Whose tunnel it is.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.lease.endpoint()
    }
}

impl Drop for TunnelLease {
    fn drop(&mut self) {
        self.places.give_back();
    }
}

/// The right to one socket to an endpoint; whoever owns the socket owns this for as long.
#[derive(Debug)]
pub struct ConnPermit {
    endpoint: Arc<Endpoint>,
}

impl ConnPermit {
    /// A permit, unless `max` sockets are open or being opened. Never waits.
    #[must_use]
    pub fn try_new(endpoint: &Arc<Endpoint>, max: u32) -> Option<Self> {
        endpoint.take_connection(max).then(|| Self { endpoint: Arc::clone(endpoint) })
    }

    /// Where the socket leads.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for ConnPermit {
    fn drop(&mut self) {
        self.endpoint.return_connection();
    }
}
