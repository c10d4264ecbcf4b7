//! The head: is the request one that we serve, who serves it, and may it be asked for now.

use std::sync::Arc;
use std::time::Instant;

use super::request::{Proxied, Request};
use super::{Action, Answer, Exchange, State};
use crate::filter;
use crate::head::HeadView;
use crate::limit::Decision;
use crate::pool::lease::Lease;
use crate::refusal::{Refusal, RefusalKind};
use crate::router::RouteAction;
use crate::traffic::Traffic;

/// Longest method; RFC 9110's have at most 7 bytes.
const MAX_METHOD: usize = 32;

/// What becomes of a request that was routed and admitted.
#[derive(Debug)]
pub(super) enum Next {
    /// It is answered by ourselves.
    Respond(Answer),
    /// So many bytes of its body are held first.
    Collect(u64),
    /// An endpoint is looked for.
    Seek,
    /// It goes to this one.
    Forward(Lease),
}

impl Exchange {
    /// Routes the request.
    pub(super) fn begin(&mut self, traffic: &Traffic, head: &HeadView<'_>) -> Result<Next, Refusal> {
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
                request.proxied = Some(Proxied::new(traffic, *pool, route, head)?);
                self.deadline = route.deadline.map(|time| self.timings.started + time);
                Ok(request.plan.collects(head.body).map_or(Next::Seek, Next::Collect))
            }
        }
    }

    /// Asks the limits of the route: those of rates first, since a request that waits for its time is not yet under way.
    pub(super) fn limit(&mut self, traffic: &Traffic, head: &HeadView<'_>, next: Next, now: Instant) -> Action {
        let route = self.route().and_then(|route| traffic.router.info(route));
        let Some(route) = route else { return self.go_on(next, now) };
        self.places = traffic.concurrency.ask(&route.concurrency, head);
        if route.limits.is_empty() {
            return self.go_on(next, now);
        }
        let Decision { delay, refusal, fields } = traffic.limits.decide(&route.limits, head, now);
        self.limit_fields = fields;
        match refusal {
            Some(refusal) => self.refuse(refusal),
            None if delay.is_zero() => self.go_on(next, now),
            None => {
                self.state = State::Delayed;
                self.next = Some(next);
                Action::Delay { until: self.within_deadline(now + delay) }
            }
        }
    }

    /// Takes the places of the request, which it then keeps whatever it is delayed for later.
    pub(super) fn go_on(&mut self, next: Next, now: Instant) -> Action {
        if let Err(refusal) = self.places.take() {
            return self.refuse(refusal);
        }
        match next {
            Next::Respond(answer) => self.respond(answer),
            Next::Collect(most) => {
                self.state = State::Collecting;
                Action::Collect { most }
            }
            Next::Seek => self.seek(now),
            Next::Forward(lease) => self.forward_reserved(lease, now),
        }
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
