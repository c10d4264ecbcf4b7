//! The endpoint: one is asked for, waited for, and gets the request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Action, Attempt, Exchange, Hold, State};
use crate::mix::mix;
use crate::pool::lease::Lease;
use crate::pool::{Acquired, Wanted};
use crate::refusal::{Refusal, RefusalKind};

/// How long a request waits for workers that are starting.
pub const READY_WAIT: Duration = Duration::from_secs(10);
impl Exchange {
    /// Asks the pool for an endpoint that was not tried.
    pub(super) fn seek(&mut self, now: Instant) -> Action {
        let Some(proxied) = self.proxied() else {
            return self.refuse(Refusal::new(RefusalKind::Internal, "the route has no upstream"));
        };
        let wanted = Wanted { key: &proxied.key, tried: &self.tried, draw: self.draw(), now };
        match proxied.pool.acquire(&wanted) {
            Acquired::Lease(lease) => {
                if self.attempts == 0 {
                    proxied.pool.retry_budget().deposit(now);
                }
                self.tries += 1;
                self.forward(lease, false, now)
            }
            Acquired::Wait(ticket) => {
                self.state = State::Waiting;
                let since = *self.timings.queued.get_or_insert(now);
                Action::Queue { ticket, until: self.within_deadline(since + READY_WAIT) }
            }
            Acquired::Refuse(refusal) => {
                let refusal = self.last_failure.take().unwrap_or(refusal);
                self.refuse(refusal)
            }
        }
    }

    /// Another random number for each request, whose identifier is one, and by its mix for each attempt.
    pub(super) fn draw(&self) -> u64 {
        mix((self.id.0 as u64).wrapping_add(u64::from(self.attempts)))
    }

    pub(super) fn forward(&mut self, lease: Lease, fresh: bool, now: Instant) -> Action {
        let endpoint = Arc::clone(lease.endpoint());
        let try_time = self.try_time(&lease, now);
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
        let connect = timeouts.connect.min(timeouts.total_connect.saturating_sub(self.connecting_for));
        timeouts.connect = try_time.map_or(connect, |time| time.min(connect));
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
            reason: self.reason.take(),
            try_until: try_time.map(|time| now + time),
        })
    }

    /// How long the try may take, if another one could follow it.
    fn try_time(&self, lease: &Lease, now: Instant) -> Option<Duration> {
        let policy = self.policy();
        let follows = policy.on.timeout && self.is_idempotent() && self.tries < policy.tries && lease.has_alternative();
        let time = policy.try_timeout.filter(|_| follows)?;
        self.deadline.is_none_or(|deadline| now + time < deadline).then_some(time)
    }

    pub(super) fn wait_expired(&mut self) -> Action {
        let detail = match self.proxied() {
            Some(proxied) => format!("upstream: {}, no worker ready in {READY_WAIT:?}", proxied.pool.name()),
            None => String::new(),
        };
        let expired = Refusal::new(RefusalKind::NotReadyInTime, detail);
        let refusal = self.last_failure.take().unwrap_or(expired);
        self.refuse(refusal)
    }
}
