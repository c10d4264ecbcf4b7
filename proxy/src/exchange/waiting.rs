//! The wait of a request for an endpoint.

use std::task::{Context, Poll};
use std::time::Instant;

use tidegate_traffic::exchange::Event;
use tidegate_traffic::pool::queue::Ticket;

use crate::edge::timer::Timer;

/// Until the request is called, or its time is over.
pub(super) struct Waiting {
    ticket: Ticket,
    until: Instant,
    timer: Timer,
}

impl Waiting {
    pub(super) fn new(ticket: Ticket, until: Instant) -> Self {
        Self { ticket, until, timer: Timer::default() }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event<'static>> {
        loop {
            if let Some(called) = self.ticket.poll(cx.waker()) {
                return Poll::Ready(Event::Called(called));
            }
            // The waker is known by now, so a call that comes of the look is not missed.
            let look_at = self.ticket.look(Instant::now());
            let next = look_at.map_or(self.until, |at| at.min(self.until));
            if !self.timer.poll_expired(cx, next.into()) {
                return Poll::Pending;
            }
            if next == self.until {
                return Poll::Ready(Event::WaitExpired);
            }
        }
    }
}
