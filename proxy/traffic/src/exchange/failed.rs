//! An attempt that failed: what it says of the endpoint, and what follows.

use std::time::{Duration, Instant};

use super::{Action, Exchange, Hold};
use crate::pool::endpoint::Endpoint;
use crate::pool::lease::{Lease, Outcome};
use crate::refusal::{Refusal, RefusalKind};
use crate::retry::{self, Cause, Failure, History, Stage, Verdict};

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
                self.end(lease, Outcome::of_refusal(refusal.kind), now);
                self.last_failure = Some(refusal);
                self.seek(now)
            }
            Verdict::GiveUp => {
                self.end(lease, Outcome::of_refusal(refusal.kind), now);
                self.refuse(refusal)
            }
        }
    }

    /// The same endpoint again, unless it has left the pool meanwhile.
    pub(super) fn replay(&mut self, lease: Lease, now: Instant) -> Action {
        if lease.endpoint().is_ready() {
            return self.forward(lease, true, now);
        }
        self.tries = self.tries.saturating_sub(1);
        self.tried.push(lease.endpoint().id());
        self.end(lease, Outcome::Cancelled, now);
        self.seek(now)
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
