//! Passive ejection: endpoints that fail requests are left alone for a time, and come back by themselves.
//!
//! A failure takes the pool's lock, a success does not: what it costs where nothing is compared is one look at a flag. The
//! share of the pool that may be out holds at any time: where endpoints leave the pool or its checks take some out, others
//! come back before their time, and the last one in service is never taken out.

mod outliers;
mod record;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tidegate_config::model;

use super::breaker::Attempts;
use super::endpoint::{Endpoint, EndpointId};
use super::lease::{Lease, Outcome};
use super::status_set::StatusSet;
use super::symptom::Symptom;
use super::transition::{Change, Transition};
use super::{Inner, Pool};
pub(super) use outliers::Tally;
use outliers::outliers;
pub use record::{Ejected, EjectionReason};
pub(super) use record::{Record, Rule};

/// What of an exchange's end is looked at; read without the pool's lock.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// Whether endpoints are compared, so that successes count.
    successes: AtomicBool,
    /// Statuses that are failures.
    statuses: StatusSet,
    /// What the breaker is told of.
    pub(super) attempts: Arc<Attempts>,
}

impl Watched {
    pub(super) fn configure(&self, policy: Option<&model::Ejection>) {
        self.statuses.set(policy.map_or(&[][..], |policy| &policy.statuses));
        self.successes.store(policy.is_some_and(|policy| policy.success_rate.is_some()), Ordering::Relaxed);
    }

    /// What an exchange's end is: an answer may be whole and a failure all the same.
    fn outcome(&self, lease: &Lease, outcome: Outcome) -> Outcome {
        match lease.status() {
            Some(status) if outcome == Outcome::Ok && self.statuses.contains(status) => {
                Outcome::UpstreamFault(Symptom::Status(status))
            }
            Some(_) | None => outcome,
        }
    }
}

/// Who is out of a pool, and when that changes.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    policy: Option<model::Ejection>,
    /// When the next one comes back, or endpoints are compared next.
    due: Option<Instant>,
    /// When endpoints are compared next.
    compare: Option<Instant>,
    /// The latest time that was told.
    clock: Option<Instant>,
}

impl Ejections {
    pub(super) fn configure(&mut self, policy: Option<&model::Ejection>) {
        let compared = |policy: Option<&model::Ejection>| policy.and_then(|policy| policy.success_rate);
        if compared(self.policy.as_ref()) != compared(policy) {
            self.compare = None;
        }
        self.policy = policy.cloned();
    }

    /// When there is something to do next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether there is something to do by now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.clock = self.clock.max(Some(now));
        let interval = self.policy.as_ref().and_then(|policy| policy.success_rate).map(|rate| rate.interval);
        if let (Some(interval), None) = (interval, self.compare) {
            self.compare = Some(now + interval);
            self.due = earlier(self.due, self.compare);
        }
        self.due.is_some_and(|due| due <= now)
    }
}

impl Pool {
    /// Ends an exchange with one of its endpoints, and takes the endpoint out of service for a time where that was one
    /// failure too many.
    pub fn end(&self, mut lease: Lease, outcome: Outcome, now: Instant) {
        // Before its place is given back: whoever gets that is to know.
        if let Some(admitted) = lease.take_admitted() {
            admitted.end(outcome, lease.status(), now);
        }
        let outcome = self.watched.outcome(&lease, outcome);
        match outcome {
            Outcome::UpstreamFault(symptom) => {
                // Nobody who waits is to get the place that an endpoint leaves with.
                self.failed(lease.endpoint(), symptom, lease.began(), now);
                lease.finish(outcome, now);
            }
            Outcome::Ok if self.watched.successes.load(Ordering::Relaxed) => {
                lease.endpoint().health().count_good();
                lease.finish(outcome, now);
            }
            Outcome::Ok | Outcome::ClientGone | Outcome::Cancelled | Outcome::Overtaken => lease.finish(outcome, now),
        }
    }

    fn failed(&self, endpoint: &Arc<Endpoint>, symptom: Symptom, began: Instant, now: Instant) {
        if let Some(successor) = self.successor() {
            // Its endpoints are that one's now, and so is their service.
            return successor.failed(endpoint, symptom, began, now);
        }
        endpoint.health().count_bad();
        let mut inner = self.lock_at(now);
        let is_listed = inner.endpoints.iter().any(|known| known.id() == endpoint.id());
        if is_listed && let Some(reason) = inner.verdict(endpoint, symptom, began, now) {
            inner.eject(endpoint, reason, now);
            inner.align(&self.lineage);
        }
        self.changed(inner);
    }
}

impl Inner {
    /// Why an endpoint that has failed is to be taken out, if it is.
    fn verdict(&self, endpoint: &Endpoint, symptom: Symptom, began: Instant, now: Instant) -> Option<EjectionReason> {
        let policy = self.ejections.policy.as_ref()?;
        let count = endpoint.health().fail(began, now, policy)?;
        self.may_eject(endpoint).then_some(EjectionReason::Failures { count, last: symptom })
    }

    fn eject(&mut self, endpoint: &Endpoint, reason: EjectionReason, now: Instant) {
        let Some(policy) = &self.ejections.policy else { return };
        let ejected = endpoint.health().eject(reason, now, policy);
        endpoint.note_health();
        self.news.push(Change::Ejected { endpoint: endpoint.address().clone(), ejected });
    }

    /// Whether so many may be out, and somebody is left.
    fn may_eject(&self, endpoint: &Endpoint) -> bool {
        let others = || self.endpoints.iter().filter(|other| other.id() != endpoint.id());
        endpoint.is_in_service() && self.has_room_for(1) && others().any(|other| other.is_in_service())
    }

    /// Whether `more` may be out besides those that are.
    fn has_room_for(&self, more: usize) -> bool {
        let Some(policy) = &self.ejections.policy else { return false };
        let members = || self.endpoints.iter().filter(|endpoint| endpoint.is_ready() && !endpoint.is_down());
        let out = members().filter(|endpoint| endpoint.health().is_ejected()).count();
        (out + more) * 100 <= members().count() * usize::from(policy.max_ejected)
    }

    /// Does what has become due by `now`: endpoints come back, and are compared with each other.
    pub(super) fn catch_up(&mut self, now: Instant) {
        let is_over = |endpoint: &&Arc<Endpoint>| endpoint.health().out().is_some_and(|out| out.until <= now);
        let back: Vec<_> = self.endpoints.iter().filter(is_over).cloned().collect();
        for endpoint in back {
            self.bring_back(&endpoint, now);
        }
        if self.ejections.compare.is_some_and(|at| at <= now) {
            self.compare(now);
        }
    }

    /// Takes out those that answer well less often than the others.
    fn compare(&mut self, now: Instant) {
        self.ejections.compare = None;
        let Some(rule) = self.ejections.policy.as_ref().and_then(|policy| policy.success_rate) else { return };
        self.ejections.compare = Some(now + rule.interval);
        let compared: Vec<_> = self.endpoints.iter().filter(|endpoint| endpoint.is_in_service()).cloned().collect();
        let tallies: Vec<_> = compared.iter().map(|endpoint| endpoint.health().take_tally()).collect();
        for found in outliers(&tallies, &rule) {
            let endpoint = &compared[found.place];
            if self.may_eject(endpoint) && !endpoint.health().is_exempt() {
                let reason = EjectionReason::SuccessRate { share: found.share, mean: found.mean };
                self.eject(endpoint, reason, now);
            }
        }
    }

    fn bring_back(&mut self, endpoint: &Endpoint, now: Instant) {
        let Some(out) = endpoint.health().come_back(now) else { return };
        endpoint.note_health();
        self.warming.begin(endpoint.id());
        self.news.push(Change::Returned {
            endpoint: endpoint.address().clone(),
            after: now.saturating_duration_since(out.since),
            early: now < out.until,
        });
    }

    /// For a request that has failed everywhere else: the one of those out that comes back next. It may be better by now, and
    /// is no worse than giving up.
    pub(super) fn last_resort(&self, tried: &[EndpointId]) -> Option<Arc<Endpoint>> {
        if tried.is_empty() {
            return None;
        }
        let members = self.endpoints.iter().filter(|endpoint| endpoint.is_ready() && !endpoint.is_down());
        let fits = |endpoint: &&Arc<Endpoint>| endpoint.has_room() && !endpoint.health().is_failing();
        let left = members.filter(fits).filter(|endpoint| !tried.contains(&endpoint.id()));
        let out = left.filter_map(|endpoint| Some((endpoint, endpoint.health().out()?.until)));
        out.min_by_key(|(_, until)| *until).map(|(endpoint, _)| Arc::clone(endpoint))
    }

    /// Brings those back that the pool cannot spare: too many are out, or nobody else is in service. Then notes when there is
    /// something to do next. To be called whenever the list or somebody's service has changed.
    pub(super) fn spare(&mut self) {
        while let Some(next) = self.next_back() {
            let in_service = self.endpoints.iter().any(|endpoint| endpoint.is_in_service());
            if in_service && self.has_room_for(0) {
                break;
            }
            let now = self.ejections.clock.unwrap_or(next.1);
            self.bring_back(&next.0, now);
        }
        let next = self.out().map(|(_, until)| until).min();
        self.ejections.due = earlier(next, self.ejections.compare);
    }

    /// Whom the pool takes back first: who fails its checks as well would be no help.
    fn next_back(&self) -> Option<(Arc<Endpoint>, Instant)> {
        let next = self.out().min_by_key(|(endpoint, until)| (endpoint.health().is_failing(), *until));
        next.map(|(endpoint, until)| (Arc::clone(endpoint), until))
    }

    /// Who is out, and until when.
    fn out(&self) -> impl Iterator<Item = (&Arc<Endpoint>, Instant)> {
        let ready = self.endpoints.iter().filter(|endpoint| endpoint.is_ready());
        ready.filter_map(|endpoint| Some((endpoint, endpoint.health().out()?.until)))
    }
}

/// The earlier one of those that are there.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Whom the pool tells once its lock is free.
pub(super) fn transitions(upstream: &Arc<str>, news: Vec<Change>) -> impl Iterator<Item = Transition> {
    news.into_iter().map(|change| Transition { upstream: Arc::clone(upstream), change })
}
