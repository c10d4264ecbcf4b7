//! An attempt that failed: what it says of the endpoint, and what follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Action, Exchange, Hold, Timings};
use crate::pool::endpoint::Endpoint;
use crate::pool::lease::{Lease, Outcome};
use crate::pool::symptom::Symptom;
use crate::refusal::{Refusal, RefusalKind};
use crate::retry::{self, Cause, Failure, History, Reason, Stage, Verdict};

impl Exchange {
    pub(super) fn attempt_failed(&mut self, failure: &Failure, now: Instant) -> Action {
        let Hold::Lease(lease) = std::mem::replace(&mut self.hold, Hold::Nothing) else {
            return self.refuse(Refusal::new(RefusalKind::Internal, "an attempt without a lease"));
        };
        if failure.stage == Stage::Connect {
            self.tries = self.tries.saturating_sub(1);
            let began = self.timings.last_attempt.unwrap_or(now);
            self.connecting_for += now.saturating_duration_since(began);
        }
        self.lose_hedge();
        let refusal = refusal_of(failure, lease.endpoint());
        let verdict = retry::decide(failure, &self.history(), self.policy());
        if verdict == Verdict::Replay {
            // A connection that was closed while idle says nothing against the endpoint.
            self.replayed = true;
            self.reason = Some(Reason::Stale);
            self.last_failure = Some(refusal);
            return self.replay(lease, now);
        }
        let (endpoint, outcome) = (Arc::clone(lease.endpoint()), Outcome::of_refusal(refusal.kind));
        self.tried.push(endpoint.id());
        self.end(lease, outcome, now);
        let action = match verdict {
            Verdict::Walk => self.walk(refusal, failure.cause == Cause::Closed, now),
            Verdict::Again(reason) => self.again(reason, refusal, now),
            Verdict::Replay | Verdict::GiveUp => {
                self.give_reserved_back();
                self.refuse(refusal)
            }
        };
        if matches!(outcome, Outcome::UpstreamFault(_)) && !matches!(action, Action::Respond(_)) {
            endpoint.count_retried();
        }
        action
    }

    /// The same endpoint again, unless it has left the pool meanwhile.
    fn replay(&mut self, mut lease: Lease, now: Instant) -> Action {
        if lease.endpoint().is_ready() {
            return self.forward(lease, true, now);
        }
        self.tries = self.tries.saturating_sub(1);
        self.tried.push(lease.endpoint().id());
        lease.give_way();
        self.end(lease, Outcome::Cancelled, now);
        self.seek(now)
    }

    /// The time for the whole request is over. The endpoint is blamed when it had most of it and did not answer.
    pub(super) fn overdue(&mut self, now: Instant) -> Action {
        let Timings { started, last_attempt, response_head, .. } = self.timings;
        let whole = now.saturating_duration_since(started);
        let there = last_attempt.map(|began| now.saturating_duration_since(began)).unwrap_or_default();
        if let Hold::Lease(lease) = std::mem::replace(&mut self.hold, Hold::Nothing) {
            let silent = response_head.is_none() && there >= whole / 2;
            let outcome = if silent { Outcome::UpstreamFault(Symptom::HeadTimeout) } else { Outcome::Cancelled };
            self.end(lease, outcome, now);
        }
        if response_head.is_none() {
            self.lose_hedge();
        }
        self.second_overdue(whole, now);
        self.give_reserved_back();
        self.next = None;
        self.refuse(Refusal::new(RefusalKind::Deadline, format!("not answered within {whole:?}")))
    }

    pub(super) fn history(&self) -> History {
        History {
            idempotent: self.is_idempotent(),
            tries: self.tries,
            replayed: self.replayed,
            connecting_for: self.connecting_for,
            total_connect: self.proxied().map_or(Duration::ZERO, |proxied| proxied.settings.timeouts.total_connect),
        }
    }
}

pub(super) fn refusal_of(failure: &Failure, endpoint: &Endpoint) -> Refusal {
    let kind = match (failure.stage, failure.cause) {
        (_, Cause::Local) => RefusalKind::OutOfResources,
        (_, Cause::Full) => RefusalKind::NoEndpoint,
        (_, Cause::Malformed) => RefusalKind::UpstreamBadResponse,
        (_, Cause::Tls) => RefusalKind::UpstreamTls,
        (Stage::Connect, Cause::TimedOut) => RefusalKind::ConnectTimeout,
        (Stage::Connect, Cause::Closed) => RefusalKind::ConnectFailed,
        (Stage::Send, Cause::TimedOut) => RefusalKind::UpstreamWriteTimeout,
        (Stage::Head, Cause::TimedOut) => RefusalKind::HeadTimeout,
        (Stage::Body, Cause::TimedOut) => RefusalKind::UpstreamReadTimeout,
        (Stage::Send | Stage::Head | Stage::Body, Cause::Closed) => RefusalKind::UpstreamClosed,
    };
    Refusal::new(kind, format!("endpoint: {}, {:?} while in {:?}", endpoint.address(), failure.cause, failure.stage))
}
