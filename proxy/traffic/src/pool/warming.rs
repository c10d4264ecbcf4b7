//! Slow start: an endpoint that is new gets less than its share at first.
//!
//! Its weight grows from a tenth to the whole in ten equal steps. The time runs from the first request after it came. A worker's
//! places grow beside it, from one to all: weights alone say nothing where requests wait for whatever is free.

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
    /// Somebody has come since this was last taken.
    has_news: bool,
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
            self.has_news = true;
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

    /// Whether this one is new.
    pub(super) fn is_new(&self, endpoint: EndpointId) -> bool {
        self.new.iter().any(|(id, _)| *id == endpoint)
    }

    /// How many of its places an endpoint has by now; at least one.
    pub(super) fn places(&self, endpoint: EndpointId, all: u32) -> u32 {
        let Some((_, since)) = self.new.iter().find(|(id, _)| *id == endpoint) else { return all };
        let more = u64::from(all.saturating_sub(1)) * u64::from(self.step(*since) - 1) / u64::from(STEPS);
        u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// When there is a next step; before now, if that is not known and somebody has to look.
    pub(super) fn due(&self, seen: Option<Instant>) -> Option<Instant> {
        if self.new.is_empty() { None } else { self.next.or(seen) }
    }

    /// Whether somebody has come since this was last asked, so that [`due`](Self::due) is another time than before.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// 1 to 10.
    fn step(&self, since: Option<Instant>) -> u32 {
        let passed = since.zip(self.now).map_or(Duration::ZERO, |(since, now)| now.saturating_duration_since(since));
        let step = passed.as_nanos() * u128::from(STEPS) / self.time.as_nanos().max(1);
        (step as u32 + 1).min(STEPS)
    }
}
