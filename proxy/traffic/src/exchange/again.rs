//! Another try: whether there is one, where it goes and when it begins.

use std::time::{Duration, Instant};

use super::begin::Next;
use super::{Action, Exchange, Hold, State};
use crate::head::ResponseView;
use crate::mix::mix;
use crate::pool::endpoint::EndpointId;
use crate::pool::lease::{Lease, Outcome};
use crate::pool::{Rest, Wanted};
use crate::refusal::{Refusal, RefusalKind};
use crate::retry::{self, Reason, backoff, grpc};

/// Told apart from the draw that chooses the endpoint.
const JITTER: u64 = 0x6a69_7474_6572;

/// A try that is to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    wait: Duration,
    /// Endpoints that were tried may be tried again.
    start_over: bool,
}

impl Exchange {
    /// After a failure of an endpoint that stands among those tried: another try, or the failure is the answer.
    pub(super) fn again(&mut self, reason: Reason, refusal: Refusal, now: Instant) -> Action {
        let reserved = self.next.take();
        let rest = match (&reserved, self.proxied()) {
            (Some(_), _) => Rest::Untried,
            (None, Some(proxied)) => proxied.pool.rest(&self.tried, None),
            (None, None) => Rest::Nothing,
        };
        let plan = self.plan(rest, reason, None, now).filter(|_| reserved.is_some() || self.pay(now));
        let Some(Plan { wait, start_over }) = plan else { return self.refuse(refusal) };
        if start_over {
            self.tried.clear();
        }
        self.last_failure = Some(refusal);
        self.retries += 1;
        self.reason = Some(reason);
        self.later(reserved.unwrap_or(Next::Seek), wait, now)
    }

    /// After an endpoint that could not be reached: all others are asked first. When none could be, that was a try.
    pub(super) fn walk(&mut self, refusal: Refusal, refused: bool, now: Instant) -> Action {
        let Some(proxied) = self.proxied() else { return self.refuse(refusal) };
        if proxied.pool.rest(&self.tried, None) != Rest::Tried {
            self.last_failure = Some(refusal);
            self.reason = Some(Reason::Connect);
            return self.seek(now);
        }
        self.tries += 1;
        // Who did not answer a connect, or has no room, is not asked again at once.
        if refused && self.tries < self.policy().tries {
            self.again(Reason::Connect, refusal, now)
        } else {
            self.refuse(refusal)
        }
    }

    /// Whether the try under way has had its time: another endpoint has taken the request, and the budget has paid. Then it is
    /// to be given up as one that timed out. `replayable`: everything taken from the client's body so far can be sent again.
    #[must_use]
    pub fn try_is_over(&mut self, replayable: bool, now: Instant) -> bool {
        let (Hold::Lease(lease), Some(proxied)) = (&self.hold, self.proxied()) else { return false };
        let id = lease.endpoint().id();
        let is_untried = proxied.pool.rest(&self.tried, Some(id)) == Rest::Untried;
        if !(replayable && is_untried && self.plan(Rest::Untried, Reason::Timeout, None, now).is_some()) {
            return false;
        }
        let mut tried = self.tried.clone();
        tried.push(id);
        self.reserve(&tried, now)
    }

    /// Whether an answer gives way to another try. If so, its endpoint is found already, so that an answer is never dropped
    /// for nothing.
    pub(super) fn gives_way(&mut self, response: &ResponseView<'_>, now: Instant) -> bool {
        let (Hold::Lease(lease), Some(proxied)) = (&self.hold, self.proxied()) else { return false };
        let Some(reason) = self.speaks_for_another(response) else { return false };
        let asked = match self.policy().retry_after {
            Some(most) => match asked_for(response) {
                Some(time) if time > most => return false,
                time => time,
            },
            None => None,
        };
        let id = lease.endpoint().id();
        let rest = proxied.pool.rest(&self.tried, Some(id));
        // An endpoint that failed others is no better than an answer.
        let certain = matches!(rest, Rest::Untried | Rest::Tried);
        let Some(plan) = self.plan(rest, reason, asked, now).filter(|_| certain) else {
            return false;
        };
        let mut tried = if plan.start_over { Vec::new() } else { self.tried.clone() };
        if !plan.start_over {
            tried.push(id);
        }
        if !self.reserve(&tried, now) {
            return false;
        }
        self.tried = tried;
        self.lose_hedge();
        self.state = State::Discarding { wait: plan.wait, reason };
        self.observe(response.status, now);
        true
    }

    /// Why an answer might give way.
    fn speaks_for_another(&self, response: &ResponseView<'_>) -> Option<Reason> {
        let (history, policy) = (self.history(), self.policy());
        if retry::takes(response.status, response.replayable, &history, policy) {
            return Some(Reason::Status);
        }
        let code = if policy.grpc.is_empty() { None } else { grpc::code(response) };
        code.is_some_and(|code| retry::takes_call(code, response.replayable, &history, policy)).then_some(Reason::Grpc)
    }

    /// Takes a lease on another endpoint for the try that is to follow, if the budget pays for it. Whatever there is now is
    /// given up only for that.
    fn reserve(&mut self, tried: &[EndpointId], now: Instant) -> bool {
        let Some(proxied) = self.proxied() else { return false };
        let wanted = Wanted { key: &proxied.key, tried, draw: self.draw(), now, tunnel: self.is_websocket() };
        let Some(lease) = proxied.pool.acquire_now(&wanted) else { return false };
        if !self.pay(now) {
            lease.pass_on();
            return false;
        }
        self.next = Some(Next::Forward(lease));
        true
    }

    /// The try that was to follow does not.
    pub(super) fn give_reserved_back(&mut self) {
        if let Some(Next::Forward(lease)) = self.next.take() {
            lease.pass_on();
        }
    }

    /// The answer that gave way is gone.
    pub(super) fn discarded(&mut self, wait: Duration, reason: Reason, now: Instant) -> Action {
        if let Hold::Lease(mut lease) = std::mem::replace(&mut self.hold, Hold::Nothing) {
            lease.give_way();
            // What its status says of the endpoint is for the ejection to judge, as of any answer.
            self.end(lease, Outcome::Ok, now);
        }
        let Some(next) = self.next.take() else {
            return self.refuse(Refusal::new(RefusalKind::Internal, "an answer was dropped for nothing"));
        };
        self.retries += 1;
        self.reason = Some(reason);
        self.later(next, wait, now)
    }

    /// The try that was reserved for an answer that gave way.
    pub(super) fn forward_reserved(&mut self, lease: Lease, now: Instant) -> Action {
        self.tries += 1;
        self.forward(lease, false, now)
    }

    fn later(&mut self, next: Next, wait: Duration, now: Instant) -> Action {
        if wait.is_zero() {
            return self.go_on(next, now);
        }
        self.state = State::Delayed;
        self.next = Some(next);
        Action::Delay { until: now + wait }
    }

    /// Where and when another try would go; `None` where the deadline or the endpoints leave no room for one.
    fn plan(&self, rest: Rest, reason: Reason, asked: Option<Duration>, now: Instant) -> Option<Plan> {
        let start_over = rest == Rest::Tried;
        // An endpoint that was silent for its whole time would be so again, and its client waits for both.
        if start_over && (reason == Reason::Timeout || !self.policy().start_over) {
            return None;
        }
        let first = self.retries == 0 && !start_over;
        let wait = match asked {
            Some(time) => time,
            None if first => Duration::ZERO,
            None => backoff::delay(&self.policy().backoff, self.retries + 1, mix(self.draw() ^ JITTER)),
        };
        let in_time = self.deadline.is_none_or(|deadline| now + wait < deadline);
        in_time.then_some(Plan { wait, start_over })
    }

    /// Takes a retry out of the upstream's budget.
    fn pay(&mut self, now: Instant) -> bool {
        let paid = self.proxied().is_some_and(|proxied| proxied.pool.retry_budget().withdraw(now));
        self.retry_denied |= !paid;
        paid
    }
}

/// The wait that an answer asks for.
fn asked_for(response: &ResponseView<'_>) -> Option<Duration> {
    backoff::asked_for(response.fields.first("retry-after")?, response.fields.first("date"))
}
