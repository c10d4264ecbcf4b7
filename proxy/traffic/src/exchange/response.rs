//! The endpoint's answer: passed on, or a switch of protocols.

use std::time::{Duration, Instant};

use super::{Action, Exchange, Hold, State, Timings};
use crate::body::is_event_stream;
use crate::edits::HeadEdits;
use crate::filter;
use crate::head::{Fields, ResponseView};
use crate::pool::lease::Outcome;
use crate::pool::symptom::Symptom;
use crate::refusal::{Refusal, RefusalKind};

impl Exchange {
    pub(super) fn response_head(&mut self, response: &ResponseView<'_>, now: Instant) -> Action {
        match response.status {
            101 => self.switch(response, now),
            100..=199 => Action::Relay { edits: filter::response_edits(self.id, false), tunnel: false },
            _ if self.gives_way(response, now) => Action::Discard,
            _ => {
                self.observe(response.status, now);
                self.timings.response_head = Some(now);
                self.state = State::Relaying;
                self.status = Some(response.status);
                let mut edits = filter::response_edits(self.id, false);
                self.limit_fields.set(&mut edits);
                self.bind(response, &mut edits);
                self.tell_queue(&mut edits);
                Action::Relay { edits, tunnel: false }
            }
        }
    }

    /// Notes how the endpoint answered, and how long that took, if its balance goes by that.
    pub(super) fn observe(&mut self, status: u16, now: Instant) {
        let timed = self.is_timed();
        let Hold::Lease(lease) = &mut self.hold else { return };
        lease.answered(status, now);
        if let (true, Some(began)) = (timed, self.timings.last_attempt) {
            lease.endpoint().observe(now.saturating_duration_since(began), now);
        }
    }

    /// How long the request waited for its first endpoint, for a client that is told.
    fn tell_queue(&self, edits: &mut HeadEdits<'_>) {
        if self.proxied().is_some_and(|proxied| proxied.settings.timing.server_timing) {
            let Timings { queued, first_attempt, .. } = self.timings;
            let waited = queued.zip(first_attempt).map(|(from, to)| to.saturating_duration_since(from));
            filter::server_timing::add(waited.unwrap_or_default(), edits);
        }
    }

    /// Whether it counts how long answers take.
    pub(super) fn is_timed(&self) -> bool {
        self.proxied().is_some_and(|proxied| proxied.settings.timed)
    }

    /// How long an answer may stream before it counts as a tunnel, where one may.
    #[must_use]
    pub fn stream_after(&self) -> Option<Duration> {
        self.proxied()?.settings.stream_after
    }

    /// The answer has these fields, and nobody knows how long it is.
    pub fn answer_goes_on(&mut self, fields: &dyn Fields) {
        if let Hold::Lease(lease) = &mut self.hold
            && is_event_stream(fields)
        {
            lease.lasts();
        }
    }

    /// The answer has been streaming for so long that it is to count as a tunnel. `false`: there are as many as may be.
    pub fn streams(&mut self, now: Instant) -> bool {
        match &mut self.hold {
            Hold::Lease(lease) => lease.stream(now),
            Hold::Nothing | Hold::Tunnel(_) => true,
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
                self.hold = Hold::Tunnel(lease.into_tunnel(now));
                let mut edits = filter::response_edits(self.id, true);
                self.limit_fields.set(&mut edits);
                self.bind(response, &mut edits);
                Action::Relay { edits, tunnel: true }
            }
            hold => {
                if let Hold::Lease(lease) = hold {
                    self.end(lease, Outcome::UpstreamFault(Symptom::BadResponse), now);
                }
                self.refuse(Refusal::new(RefusalKind::UpstreamBadResponse, "status 101 that was not asked for"))
            }
        }
    }
}
