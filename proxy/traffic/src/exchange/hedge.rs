//! A second try beside a first one that is slow to answer, on another endpoint: when there is one, and which of both counts.
//!
//! The two are legs of one race. The first head of an answer ends it, unless its status would be tried again; so does the
//! failure of either. What is left then is an attempt like any other, and whatever comes of that is decided as ever. A hedge is
//! a try and is paid out of the budget, but it takes only what is free: nobody waits for the sake of a request that is being
//! served already.
//!
//! To lose says nothing of an endpoint's health. That would be a way for a silent one to stay in service for ever, so the pool
//! hears of it all the same: see [`Pool::overtaken`](crate::pool::Pool::overtaken).

use std::time::{Duration, Instant};

use super::failed::refusal_of;
use super::{Action, Exchange, Hold};
use crate::head::ResponseView;
use crate::pool::Wanted;
use crate::pool::lease::{Lease, Outcome};
use crate::pool::symptom::Symptom;
use crate::refusal::{Refusal, RefusalKind};
use crate::retry::{self, Failure, Reason, Stage, Verdict};

/// One of two attempts that are under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leg {
    /// The one that was there before.
    First,
    /// The hedge.
    Second,
}

impl Leg {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// What came of a hedge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hedged {
    /// The answer was its endpoint's.
    Won,
    /// It was sent, and the answer was not its endpoint's, if there was one.
    Lost,
    /// No other endpoint was free.
    NoEndpoint,
    /// The budget did not pay for it.
    NoBudget,
}

impl Hedged {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Won, Self::Lost, Self::NoEndpoint, Self::NoBudget];

    /// Label of metrics; stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::NoEndpoint => "no_endpoint",
            Self::NoBudget => "no_budget",
        }
    }
}

/// What is held for the second leg.
#[derive(Debug)]
pub(super) struct Second {
    lease: Lease,
    began: Instant,
}

impl Exchange {
    /// When to tell of [`Event::HedgeDue`](super::Event::HedgeDue), unless the head of an answer is there by then. To be asked
    /// when an attempt begins; `whole`: nothing of the request has still to come from the client, and all of it can be sent
    /// again.
    #[must_use]
    pub fn hedge_at(&self, whole: bool) -> Option<Instant> {
        // Most requests are never hedged, and cost nothing more than this look.
        self.policy().hedge?;
        let after = retry::hedges(whole, self.is_websocket(), &self.history(), self.policy())?;
        let at = self.timings.last_attempt? + after;
        // Once asked for is enough, whatever came of it.
        (self.hedged.is_none() && self.deadline.is_none_or(|deadline| at < deadline)).then_some(at)
    }

    pub(super) fn hedge(&mut self, now: Instant) -> Action {
        if self.hedged.is_some() {
            return Action::Keep(Leg::First);
        }
        let mut lease = match self.spare(now) {
            Ok(lease) => lease,
            Err(hedged) => {
                self.hedged = Some(hedged);
                return Action::Keep(Leg::First);
            }
        };
        self.tries += 1;
        self.retries += 1;
        let Some(attempt) = self.attempt(&mut lease, false, Some(Reason::Hedge), now) else {
            lease.pass_on();
            return Action::Keep(Leg::First);
        };
        self.hedged = Some(Hedged::Lost);
        self.second = Some(Box::new(Second { lease, began: now }));
        Action::Hedge(attempt)
    }

    /// A lease on another endpoint that is free, paid for.
    fn spare(&self, now: Instant) -> Result<Lease, Hedged> {
        let (Hold::Lease(first), Some(proxied)) = (&self.hold, self.proxied()) else { return Err(Hedged::NoEndpoint) };
        let mut tried = self.tried.clone();
        tried.push(first.endpoint().id());
        let wanted = Wanted { key: &proxied.key, tried: &tried, draw: self.draw(), now, tunnel: self.is_websocket() };
        let lease = proxied.pool.acquire_now(&wanted).ok_or(Hedged::NoEndpoint)?;
        if proxied.pool.retry_budget().withdraw(now) {
            return Ok(lease);
        }
        lease.pass_on();
        Err(Hedged::NoBudget)
    }

    /// A failure ends nothing while the other leg may still answer.
    pub(super) fn leg_failed(&mut self, leg: Leg, failure: &Failure, now: Instant) -> Action {
        let verdict = retry::decide(failure, &self.history(), self.policy());
        let Some((mut lease, began)) = self.drop_leg(leg) else { return self.no_race() };
        // As of any attempt: who could not be reached has received nothing, and a connection that had been closed while it was
        // idle says nothing against the endpoint.
        if failure.stage == Stage::Connect {
            self.connecting_for += now.saturating_duration_since(began);
        }
        if failure.stage == Stage::Connect || verdict == Verdict::Replay {
            self.tries = self.tries.saturating_sub(1);
        }
        let refusal = refusal_of(failure, lease.endpoint());
        let outcome = if verdict == Verdict::Replay { Outcome::Cancelled } else { Outcome::of_refusal(refusal.kind) };
        self.last_failure = Some(refusal);
        self.tried.push(lease.endpoint().id());
        if matches!(outcome, Outcome::UpstreamFault(_)) {
            lease.endpoint().count_retried();
        } else if verdict == Verdict::Replay {
            lease.give_way();
        }
        self.end(lease, outcome, now);
        Action::Keep(leg.other())
    }

    pub(super) fn leg_answered(&mut self, leg: Leg, response: &ResponseView<'_>, now: Instant) -> Action {
        if retry::wins(response.status, self.policy()) {
            let Some((lease, began)) = self.drop_leg(leg.other()) else { return self.no_race() };
            self.overtaken(lease, began, now);
            return Action::Keep(leg);
        }
        let Some((mut lease, began)) = self.drop_leg(leg) else { return self.no_race() };
        lease.answered(response.status, now);
        lease.give_way();
        if self.is_timed() {
            lease.endpoint().observe(now.saturating_duration_since(began), now);
        }
        self.tried.push(lease.endpoint().id());
        // What its status says of the endpoint is for the ejection to judge, as of any answer.
        self.end(lease, Outcome::Ok, now);
        Action::Keep(leg.other())
    }

    /// Takes a leg out of the race. The other one is the attempt from now on.
    fn drop_leg(&mut self, leg: Leg) -> Option<(Lease, Instant)> {
        let second = *self.second.take()?;
        if leg == Leg::Second {
            return Some((second.lease, second.began));
        }
        let began = self.timings.last_attempt.replace(second.began);
        self.hedged = Some(Hedged::Won);
        match std::mem::replace(&mut self.hold, Hold::Lease(second.lease)) {
            Hold::Lease(first) => Some((first, began.unwrap_or(second.began))),
            Hold::Nothing | Hold::Tunnel(_) => None,
        }
    }

    fn overtaken(&self, lease: Lease, began: Instant, now: Instant) {
        let Some(proxied) = self.proxied() else { return };
        if self.is_timed() {
            lease.endpoint().observe_at_least(now.saturating_duration_since(began), now);
        }
        let patience = self.policy().try_timeout.unwrap_or(proxied.settings.timeouts.head);
        proxied.pool.overtaken(lease, patience, now);
    }

    /// The attempt that the hedge had become is not the answer either.
    pub(super) fn lose_hedge(&mut self) {
        if self.hedged == Some(Hedged::Won) {
            self.hedged = Some(Hedged::Lost);
        }
    }

    /// The exchange is over with two legs under way.
    pub(super) fn end_second(&mut self, outcome: Outcome, now: Instant) {
        let Some(second) = self.second.take() else { return };
        let outcome = if outcome == Outcome::ClientGone { outcome } else { Outcome::Cancelled };
        self.end(second.lease, outcome, now);
    }

    /// The time for the whole request, which took `whole`, is over: this leg is blamed as the other one is.
    pub(super) fn second_overdue(&mut self, whole: Duration, now: Instant) {
        let Some(second) = self.second.take() else { return };
        let silent = now.saturating_duration_since(second.began) >= whole / 2;
        let outcome = if silent { Outcome::UpstreamFault(Symptom::HeadTimeout) } else { Outcome::Cancelled };
        if silent {
            // Of two legs the first one tells that the request failed.
            second.lease.endpoint().count_retried();
        }
        self.end(second.lease, outcome, now);
    }

    fn no_race(&mut self) -> Action {
        self.refuse(Refusal::new(RefusalKind::Internal, "there are no two legs"))
    }
}
