//! The endpoint's answer: passed on, or a switch of protocols.

use std::time::Instant;

use super::{Action, Exchange, Hold, State};
use crate::filter;
use crate::head::ResponseView;
use crate::pool::lease::Outcome;
use crate::refusal::{Refusal, RefusalKind};

impl Exchange {
    pub(super) fn response_head(&mut self, response: &ResponseView<'_>, now: Instant) -> Action {
        match response.status {
            101 => self.switch(response, now),
            100..=199 => Action::Relay { edits: filter::response_edits(self.id, false), tunnel: false },
            _ => {
                self.observe(now);
                self.timings.response_head = Some(now);
                self.state = State::Relaying;
                let mut edits = filter::response_edits(self.id, false);
                self.limit_fields.set(&mut edits);
                Action::Relay { edits, tunnel: false }
            }
        }
    }

    /// Tells the endpoint how long its answer took, if its balance goes by that.
    pub(super) fn observe(&self, now: Instant) {
        let timed = self.proxied().is_some_and(|proxied| proxied.settings.timed);
        if let (true, Hold::Lease(lease), Some(began)) = (timed, &self.hold, self.timings.last_attempt) {
            lease.endpoint().observe(now.saturating_duration_since(began), now);
        }
    }

    /// 101 is right only as the answer to a WebSocket request, and only for that protocol.
    pub(super) fn switch(&mut self, response: &ResponseView<'_>, now: Instant) -> Action {
        let agreed = response.fields.first("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
        let hold = std::mem::replace(&mut self.hold, Hold::Nothing);
        match hold {
            Hold::Lease(lease) if agreed && self.is_websocket() => {
                self.timings.response_head = Some(now);
                self.state = State::Relaying;
                self.hold = Hold::Tunnel(lease.into_tunnel());
                let mut edits = filter::response_edits(self.id, true);
                self.limit_fields.set(&mut edits);
                Action::Relay { edits, tunnel: true }
            }
            hold => {
                if let Hold::Lease(lease) = hold {
                    lease.finish(Outcome::UpstreamFault);
                }
                self.refuse(Refusal::new(RefusalKind::UpstreamBadResponse, "status 101 that was not asked for"))
            }
        }
    }
}
