//! The endpoint: one is asked for, waited for, and gets the request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Action, Attempt, Exchange, Hold, State};
use crate::mix::mix;
use crate::pool::lease::Lease;
use crate::pool::queue::{Called, Ticket};
use crate::pool::{Acquired, Wanted};
use crate::refusal::{Refusal, RefusalKind};
use crate::retry::Reason;

impl Exchange {
    /// Asks the pool for an endpoint that was not tried.
    pub(super) fn seek(&mut self, now: Instant) -> Action {
        let Some(proxied) = self.proxied() else {
            return self.refuse(Refusal::new(RefusalKind::Internal, "the route has no upstream"));
        };
        match proxied.pool.acquire(&Wanted {
            key: &proxied.key,
            tried: &self.tried,
            draw: self.draw(),
            now,
            tunnel: self.is_websocket(),
        }) {
            Acquired::Lease(lease) => self.leased(lease, now),
            Acquired::Wait(ticket) => {
                self.state = State::Waiting;
                // A later wait goes on where the first one ended.
                let since = *self.timings.queued.get_or_insert(now);
                let until = self.within_deadline(since + self.longest_wait(&ticket));
                Action::Queue { ticket, until }
            }
            Acquired::Refuse(refusal) => self.unserved(refusal),
        }
    }

    /// The wait has come to this.
    pub(super) fn called(&mut self, called: Called, now: Instant) -> Action {
        match called {
            Called::Lease(lease) => self.leased(lease, now),
            Called::Refuse(refusal) => self.unserved(refusal),
        }
    }

    pub(super) fn wait_expired(&mut self, now: Instant) -> Action {
        let Some(proxied) = self.proxied() else {
            return self.refuse(Refusal::new(RefusalKind::Internal, "the route has no upstream"));
        };
        let refusal = proxied.pool.wait_expired(&self.tried, self.draw(), now);
        self.unserved(refusal)
    }

    /// The failure of an attempt tells more than what became of the search for another endpoint.
    fn unserved(&mut self, refusal: Refusal) -> Action {
        let refusal = self.last_failure.take().unwrap_or(refusal);
        self.refuse(refusal)
    }

    /// The identifier is random: another number for each request, and by its mix for each attempt.
    pub(super) fn draw(&self) -> u64 {
        mix((self.id.0 as u64).wrapping_add(u64::from(self.attempts)))
    }

    /// Half of the time that there is at the most: the rest is for the endpoint.
    fn longest_wait(&self, ticket: &Ticket) -> Duration {
        let half = self.deadline.map(|deadline| deadline.saturating_duration_since(self.timings.started) / 2);
        half.map_or(ticket.longest(), |half| ticket.longest().min(half))
    }

    fn leased(&mut self, lease: Lease, now: Instant) -> Action {
        if self.attempts == 0
            && let Some(proxied) = self.proxied()
        {
            proxied.pool.retry_budget().deposit(now);
        }
        self.tries += 1;
        self.forward(lease, false, now)
    }

    pub(super) fn forward(&mut self, mut lease: Lease, fresh: bool, now: Instant) -> Action {
        let reason = self.reason.take();
        let attempt = self.attempt(&mut lease, fresh, reason, now);
        self.hold = Hold::Lease(lease);
        self.timings.first_attempt.get_or_insert(now);
        self.timings.last_attempt = Some(now);
        self.state = State::Attempting;
        match attempt {
            Some(attempt) => Action::Forward(attempt),
            None => self.refuse(Refusal::new(RefusalKind::Internal, "the route has no upstream")),
        }
    }

    /// One try with this lease, which is counted.
    pub(super) fn attempt(
        &mut self,
        lease: &mut Lease,
        fresh: bool,
        reason: Option<Reason>,
        now: Instant,
    ) -> Option<Attempt> {
        let try_time = self.try_time(lease, now);
        let proxied = self.proxied()?;
        let (pool, settings) = (Arc::clone(&proxied.pool), proxied.settings);
        lease.charge_to(proxied.column);
        self.attempts += 1;
        let mut timeouts = settings.timeouts;
        let connect = timeouts.connect.min(timeouts.total_connect.saturating_sub(self.connecting_for));
        timeouts.connect = try_time.map_or(connect, |time| time.min(connect));
        Some(Attempt {
            pool,
            endpoint: Arc::clone(lease.endpoint()),
            protocol: settings.protocol,
            timeouts,
            transport: settings.transport,
            proxy_protocol: settings.proxy_protocol,
            idle_connections: settings.idle_connections,
            parsing: settings.parsing,
            fresh,
            number: self.attempts,
            reason,
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
}
