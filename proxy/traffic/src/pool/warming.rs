//! Slow start: an endpoint that is new gets less than its share at first.
//!
//! Its weight grows from a tenth to the whole in ten equal steps. The time runs from the first request after it came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::Member;
use super::endpoint::{Endpoint, EndpointId};

/// Steps from nothing to the whole weight.
const STEPS: u32 = 10;

/// Who is new.
#[derive(Debug, Default)]
pub(super) struct Warming {
    /// From the first step to the whole weight; zero is without slow start.
    time: Duration,
    new: Vec<(EndpointId, Option<Instant>)>,
    /// When a weight changes next.
    next: Option<Instant>,
    /// The time that the weights are for.
    now: Option<Instant>,
}

impl Warming {
    pub(super) fn set_time(&mut self, time: Duration) {
        self.time = time;
        if time.is_zero() {
            self.end();
        }
    }

    /// This endpoint is new.
    pub(super) fn begin(&mut self, endpoint: EndpointId) {
        if !self.time.is_zero() {
            self.new.push((endpoint, None));
        }
    }

    /// Nobody is new any more.
    pub(super) fn end(&mut self) {
        self.new.clear();
    }

    /// Whether weights have changed by now; then they are to be asked for again.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = !self.new.is_empty() && self.next.is_none_or(|next| next <= now);
        if due {
            self.now = Some(now);
            self.new.iter_mut().for_each(|(_, since)| {
                since.get_or_insert(now);
            });
        }
        due
    }

    /// Members with the weights they have now. While somebody is new all weights are ten times as large, which leaves
    /// their proportions.
    pub(super) fn weigh(&mut self, endpoints: Vec<Arc<Endpoint>>) -> Vec<Member> {
        let (time, now) = (self.time, self.now);
        self.new.retain(|(id, since)| {
            let stays = endpoints.iter().any(|endpoint| endpoint.id() == *id);
            stays && since.is_none_or(|since| now.is_some_and(|now| now.saturating_duration_since(since) < time))
        });
        self.next = match (self.now, self.new.iter().any(|(_, since)| since.is_none())) {
            (Some(now), false) => Some(now + time / STEPS),
            (None, _) | (_, true) => None,
        };
        let scale = if self.new.is_empty() { 1 } else { STEPS };
        let weigh = |endpoint: Arc<Endpoint>| {
            let new = self.new.iter().find(|(id, _)| *id == endpoint.id());
            let weight = match new {
                Some((_, since)) => endpoint.weight() * self.step(*since),
                None => endpoint.weight() * scale,
            };
            Member { endpoint, weight }
        };
        endpoints.into_iter().map(weigh).collect()
    }

    /// 1 to 10.
    fn step(&self, since: Option<Instant>) -> u32 {
        let passed = since.zip(self.now).map_or(Duration::ZERO, |(since, now)| now.saturating_duration_since(since));
        let step = passed.as_nanos() * u128::from(STEPS) / self.time.as_nanos().max(1);
        (step as u32 + 1).min(STEPS)
    }
}
