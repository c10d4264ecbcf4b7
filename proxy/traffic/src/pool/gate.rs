//! Who gets a place of a pool's endpoints, who waits for one, and who is refused.
//!
//! A place is taken under the pool's lock and by compare-and-swap, so no limit is exceeded, not even by a pool and its
//! successor at the same time. While requests wait, a new one joins them before anybody is served: nobody is overtaken
//! by it but those who cannot use what is free.

use std::sync::{Arc, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use tidegate_config::model::{Capacity, QUEUE_LEAST, QUEUE_MOST, QueuePolicy};

use super::balance::Choice;
use super::breaker::Breaker;
use super::codel;
use super::endpoint::{Endpoint, EndpointId, EndpointState};
use super::lease::{Counts, Lease};
use super::lineage::Lineage;
use super::outlook::Outlook;
use super::queue::{Called, Entry, Ticket};
use super::{Acquired, Expectation, Inner, Pool, Wanted};
use crate::refusal::{Refusal, RefusalKind};

/// Longest time after which a client is told to come again.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Who is admitted how, and what came of it.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) limits: Capacity,
    /// Exchanges that all endpoints in service take at a time, where there is a limit.
    places: Option<u32>,
    /// When the next worker will be ready, where that is known.
    pub(super) outlook: Option<Outlook>,
    /// The latest time that was told.
    now: Option<Instant>,
    counts: QueueCounts,
}

/// Requests that did not get an endpoint, although they had something to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// As many waited as may.
    pub full: u64,
    /// The queue was overloaded, and they had waited too long.
    pub late: u64,
    /// Their time to wait was over.
    pub timeout: u64,
}

/// What a pool's queue looks like, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Requests in it.
    pub waiting: usize,
    /// Most requests that may be in it; 0 without a queue.
    pub size: usize,
    /// Most requests that ever were in it.
    pub peak: usize,
    /// Most requests that were in it since [`Pool::mark_queue`](super::Pool::mark_queue).
    pub recent_peak: usize,
    /// Whether the newest come first, and late ones are refused.
    pub overloaded: bool,
    /// Those it lost.
    pub counts: QueueCounts,
}

impl Gate {
    pub(super) fn new(limits: Capacity) -> Self {
        Self { limits, places: None, outlook: None, now: None, counts: QueueCounts::default() }
    }

    pub(super) fn see(&mut self, now: Instant) {
        self.now = self.now.max(Some(now));
    }

    /// The latest time that was told.
    pub(super) fn now(&self) -> Option<Instant> {
        self.now
    }

    /// Most requests that wait; 0 without a queue.
    fn size(&self) -> usize {
        let Some(queue) = &self.limits.queue else { return 0 };
        let default = || self.places.map_or(QUEUE_MOST, |most| (2 * most as usize).clamp(QUEUE_LEAST, QUEUE_MOST));
        queue.size.unwrap_or_else(default)
    }
}

/// What a request that is not served at once may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prospect {
    /// An endpoint that is full.
    Place,
    /// Any endpoint: none is ready, and some are expected.
    Endpoint,
    Nothing,
}

/// What remains to be done once the pool's lock is free.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct After {
    wakers: Vec<Waker>,
    /// Endpoints of which a place was taken in vain.
    undone: Vec<Arc<Endpoint>>,
}

impl After {
    fn call(&mut self, entry: &Entry, called: Called) {
        self.wakers.extend(entry.waiter.call(called));
    }

    pub(super) fn run(self, lineage: &Lineage) {
        self.wakers.into_iter().for_each(Waker::wake);
        for endpoint in self.undone {
            endpoint.discount_request();
            endpoint.end_exchange();
            lineage.call(None);
        }
    }
}

impl Pool {
    /// A lease on an endpoint that is ready, has room and is not among those tried, as the balance chooses.
    ///
    /// Waits if every endpoint that it has not tried is full, or if none at all is ready and some are expected.
    #[must_use]
    pub fn acquire(self: &Arc<Self>, wanted: &Wanted<'_>) -> Acquired {
        let mut after = After::default();
        let mut inner = self.lock_at(wanted.now);
        inner.gate.see(wanted.now);
        if let Some(refusal) = self.broken_version(&inner).or_else(|| self.broken(&inner, wanted.now)) {
            return Acquired::Refuse(refusal);
        }
        let lease = if inner.queue.is_empty() { inner.lease(self, wanted, &mut after) } else { None };
        let acquired = match lease {
            Some(lease) => Acquired::Lease(lease),
            None => self.wait(&mut inner, wanted, &mut after),
        };
        drop(inner);
        after.run(&self.lineage);
        acquired
    }

    /// A lease as [`acquire`](Self::acquire) gives it, for a try that need not be: nothing is waited for, nobody who waits is
    /// overtaken, and no refusal is counted.
    #[must_use]
    pub fn acquire_now(self: &Arc<Self>, wanted: &Wanted<'_>) -> Option<Lease> {
        let mut after = After::default();
        let mut inner = self.lock_at(wanted.now);
        inner.gate.see(wanted.now);
        let refused = self.broken_version(&inner).or_else(|| self.broken(&inner, wanted.now));
        let is_free = refused.is_none() && inner.queue.is_empty();
        let lease = if is_free { inner.lease(self, wanted, &mut after) } else { None };
        drop(inner);
        after.run(&self.lineage);
        lease
    }

    fn wait(self: &Arc<Self>, inner: &mut Inner, wanted: &Wanted<'_>, after: &mut After) -> Acquired {
        let prospect = inner.prospect(wanted.tried);
        if prospect != Prospect::Place
            && let Some(lease) = inner.last_lease(self, wanted, after)
        {
            return Acquired::Lease(lease);
        }
        if prospect == Prospect::Nothing {
            return Acquired::Refuse(self.no_endpoint(inner, wanted.draw));
        }
        if wanted.tunnel && prospect == Prospect::Place && !inner.has_room_for_tunnel(wanted.tried) {
            return Acquired::Refuse(self.no_tunnel(wanted.draw));
        }
        inner.hold(prospect == Prospect::Endpoint);
        inner.drop_late(self, wanted.now, after);
        let Some(policy) = inner.gate.limits.queue else {
            return Acquired::Refuse(inner.refuse(self, prospect, Trouble::NoQueue, wanted.draw));
        };
        if inner.queue.len() >= inner.gate.size() {
            return Acquired::Refuse(inner.refuse(self, prospect, Trouble::Full, wanted.draw));
        }
        let longest = match prospect {
            Prospect::Endpoint => policy.hold,
            Prospect::Place | Prospect::Nothing => policy.wait,
        };
        let (number, waiter) = inner.queue.join(wanted);
        self.lineage.begin_waiting();
        // Again, although nothing was free a moment ago: who gave a place back before we counted as waiting told nobody.
        inner.serve(self, after);
        match waiter.take() {
            Some(Called::Lease(lease)) => Acquired::Lease(lease),
            Some(Called::Refuse(refusal)) => Acquired::Refuse(refusal),
            None => Acquired::Wait(Ticket::new(Arc::clone(self), number, waiter, longest)),
        }
    }

    /// Why a request is refused whose time to wait is over; counts it.
    #[must_use]
    pub fn wait_expired(&self, tried: &[EndpointId], draw: u64, now: Instant) -> Refusal {
        let mut inner = self.lock();
        inner.gate.see(now);
        match inner.prospect(tried) {
            Prospect::Nothing => self.no_endpoint(&inner, draw),
            prospect => inner.refuse(self, prospect, Trouble::Expired, draw),
        }
    }

    /// Ends a change after which endpoints may be chosen that could not be before, or the other way round: whoever waits
    /// gets what is free now, or is refused if nothing can come of it any more.
    pub(super) fn changed(&self, mut inner: MutexGuard<'_, Inner>) {
        let mut after = After::default();
        if !inner.queue.is_empty() {
            let holds = inner.prospect(&[]) == Prospect::Endpoint;
            inner.hold(holds);
            let (in_service, expects) = (inner.in_service(), inner.expects());
            let hopeless =
                |entry: &Entry| prospect(in_service.iter().copied(), expects, entry.tried()) == Prospect::Nothing;
            for entry in inner.queue.take_where(hopeless) {
                self.lineage.end_waiting();
                let lease = inner.gate.now.and_then(|now| inner.last_lease(self, &entry.wanted(now), &mut after));
                let called =
                    lease.map_or_else(|| Called::Refuse(self.no_endpoint(&inner, entry.draw())), Called::Lease);
                after.call(&entry, called);
            }
            inner.serve(self, &mut after);
        }
        self.tell(inner);
        after.run(&self.lineage);
    }

    /// Places may be free: those who wait get them. To be called without any lock.
    pub(super) fn hand_out(&self, now: Option<Instant>) {
        let mut after = After::default();
        let mut inner = now.map_or_else(|| self.lock(), |now| self.lock_at(now));
        if let Some(now) = now {
            inner.gate.see(now);
        }
        inner.serve(self, &mut after);
        drop(inner);
        after.run(&self.lineage);
    }

    /// Does what time alone has brought by now; when it brings something again.
    pub(super) fn look(&self, now: Instant) -> Option<Instant> {
        let next = self.lock().due();
        if next.is_none_or(|next| next > now) {
            return next;
        }
        let mut inner = self.lock_at(now);
        inner.gate.see(now);
        self.changed(inner);
        self.lock().due()
    }

    pub(super) fn leave_queue(&self, number: u64) {
        if self.lock().queue.remove(number).is_some() {
            self.lineage.end_waiting();
        }
    }

    fn no_tunnel(&self, draw: u64) -> Refusal {
        let detail = format!("upstream: {}, every endpoint has as many tunnels and long streams as it may", self.name);
        Refusal { retry_after: Some(spread(Duration::ZERO, draw)), ..Refusal::new(RefusalKind::TunnelsFull, detail) }
    }

    pub(super) fn no_endpoint(&self, inner: &Inner, draw: u64) -> Refusal {
        let any = inner.endpoints.iter().any(|endpoint| endpoint.is_in_service());
        let kind = if any { RefusalKind::NoEndpoint } else { inner.why_empty() };
        let why = if any { "all ready endpoints were tried" } else { "no endpoint is ready" };
        let (name, count) = (&self.name, inner.endpoints.len());
        let unwell = match inner.failing() {
            0 => String::new(),
            failing => format!(", of which checks fail: {failing}"),
        };
        let retry_after = (kind != RefusalKind::NoEndpoint).then(|| spread(inner.ready_in(), draw));
        Refusal { retry_after, ..Refusal::new(kind, format!("upstream: {name}, {why}, endpoints: {count}{unwell}")) }
    }
}

/// Why a request does not get what it might wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    NoQueue,
    Full,
    Late,
    Expired,
}

impl Inner {
    /// Whether an endpoint that was not tried may have one more tunnel, were it free.
    fn has_room_for_tunnel(&self, tried: &[EndpointId]) -> bool {
        let mut open = self.endpoints.iter().filter(|one| one.is_in_service() && !tried.contains(&one.id()));
        open.any(|endpoint| endpoint.has_room_for_tunnel())
    }

    pub(super) fn queue_status(&self) -> QueueStatus {
        QueueStatus {
            waiting: self.queue.len(),
            size: self.gate.size(),
            peak: self.queue.peak(),
            recent_peak: self.queue.recent_peak(),
            overloaded: self.queue.is_overloaded(),
            counts: self.gate.counts,
        }
    }

    /// Exchanges that all endpoints in service take at a time, where there is a limit.
    pub(super) fn places(&self) -> Option<u32> {
        self.gate.places
    }

    /// Limits or endpoints have changed.
    pub(super) fn count_places(&mut self, lineage: &Lineage) {
        let most = self.gate.limits.max_in_flight;
        let mut known = self.endpoints.iter().filter(|endpoint| endpoint.is_in_service()).peekable();
        let all = known
            .peek()
            .is_some()
            .then(|| known.try_fold(0_u32, |sum, endpoint| endpoint.max_conns().map(|most| sum.saturating_add(most))));
        let all = all.flatten();
        self.gate.places = match (all, most) {
            (Some(all), Some(most)) => Some(all.min(most)),
            (all, most) => all.or(most),
        };
        lineage.set_limited(self.limited || most.is_some());
    }

    /// Takes a place. Under the pool's lock, so that a drain that follows sees the exchange.
    fn lease(&mut self, pool: &Pool, wanted: &Wanted<'_>, after: &mut After) -> Option<Lease> {
        let lineage = &pool.lineage;
        let most = self.gate.limits.max_in_flight;
        if !lineage.has_room(most) {
            return None;
        }
        let Wanted { key, tried, draw, now, tunnel } = *wanted;
        let mut choice = Choice { key, draw, now, all: tried.is_empty() && !self.limited && !tunnel };
        let candidate = |endpoint: &Endpoint| {
            let is_free = endpoint.is_in_service() && endpoint.has_room() && !tried.contains(&endpoint.id());
            is_free && (!tunnel || endpoint.has_room_for_tunnel())
        };
        loop {
            let endpoint = self.balance.pick(&choice, &lineage.marks, candidate)?;
            // A pool of the same lineage may have been faster: then this endpoint is full now and no candidate.
            if !endpoint.begin_exchange() {
                choice.all = false;
                continue;
            }
            return self.counted(pool, endpoint, wanted, after);
        }
    }

    /// Takes a place of an endpoint that is left alone for a time, for a request that has failed everywhere else.
    fn last_lease(&mut self, pool: &Pool, wanted: &Wanted<'_>, after: &mut After) -> Option<Lease> {
        let endpoint = self.last_resort(wanted.tried)?;
        if endpoint.begin_exchange() { self.counted(pool, endpoint, wanted, after) } else { None }
    }

    /// The lease on an endpoint whose place was taken, unless as many are under way as may.
    fn counted(
        &mut self,
        pool: &Pool,
        endpoint: Arc<Endpoint>,
        wanted: &Wanted<'_>,
        after: &mut After,
    ) -> Option<Lease> {
        let counts = if wanted.tunnel { Counts::Both } else { Counts::InFlight };
        // A pool of the same lineage may have been faster here too.
        if !wanted.tunnel || endpoint.begin_tunnel() {
            if pool.lineage.begin_exchange(self.gate.limits.max_in_flight) {
                let alternative = self.has_untried(wanted.tried, Some(endpoint.id()));
                return Some(Lease::new(endpoint, wanted.now, alternative, counts, pool.admitted(self)));
            }
            if wanted.tunnel {
                endpoint.forgo_tunnel();
            }
        }
        after.undone.push(endpoint);
        None
    }

    /// Serves those who wait, in their order, as long as something is free that they may use.
    fn serve(&mut self, pool: &Pool, after: &mut After) {
        let (Some(now), Some(policy)) = (self.gate.now, self.queue_policy()) else { return };
        let mut free: Option<Vec<EndpointId>> = None;
        let mut passed = None;
        self.drop_broken(pool, now, after);
        self.drop_late(pool, now, after);
        while pool.lineage.has_room(self.gate.limits.max_in_flight)
            && let Some((number, entry)) = self.queue.after(passed, &policy)
        {
            passed = Some(number);
            // Many may wait for others than those that are free: a look at each must cost little.
            if !entry.tried().is_empty() {
                let free = free.get_or_insert_with(|| with_room(&self.endpoints));
                if free.iter().all(|one| entry.tried().contains(one)) {
                    continue;
                }
            }
            let ends = entry.tried().is_empty() && !entry.is_tunnel();
            // Half-open, it lets a few pass.
            if let Some(refusal) = pool.broken(self, now) {
                if let Some(entry) = self.queue.remove(number) {
                    pool.lineage.end_waiting();
                    after.call(&entry, Called::Refuse(refusal));
                }
                continue;
            }
            let Some(lease) = self.lease_for(pool, number, now, after) else {
                // Nobody has more to choose from.
                if ends {
                    break;
                }
                continue;
            };
            let Some(entry) = self.queue.remove(number) else { break };
            pool.lineage.end_waiting();
            after.call(&entry, Called::Lease(lease));
            self.queue.look(&policy, self.target(&policy, &pool.lineage), now);
            free = None;
        }
    }

    /// Takes a place for somebody in the queue.
    fn lease_for(&mut self, pool: &Pool, number: u64, now: Instant, after: &mut After) -> Option<Lease> {
        // Out of the way, because the rest of the pool chooses by what it says.
        let queue = std::mem::take(&mut self.queue);
        let lease = queue.entry(number).and_then(|entry| self.lease(pool, &entry.wanted(now), after));
        self.queue = queue;
        lease
    }

    /// Whether those in the queue wait until there is any endpoint. When that is over, their wait for a place begins.
    fn hold(&mut self, holds: bool) {
        if std::mem::replace(&mut self.held, holds) && !holds {
            self.queue.restart();
        }
    }

    /// Nobody is sent while the breaker is open, so nobody need wait.
    fn drop_broken(&mut self, pool: &Pool, now: Instant, after: &mut After) {
        if !self.breaker.as_ref().is_some_and(Breaker::is_open) {
            return;
        }
        for entry in self.queue.take_where(|_| true) {
            pool.lineage.end_waiting();
            let refusal = pool.broken(self, now).unwrap_or_else(|| pool.no_endpoint(self, entry.draw()));
            after.call(&entry, Called::Refuse(refusal));
        }
    }

    /// Refuses those who are late while the queue is overloaded. Who waits for the first endpoint is not.
    fn drop_late(&mut self, pool: &Pool, now: Instant, after: &mut After) {
        let Some(policy) = self.queue_policy().filter(|_| !self.held) else { return };
        let target = self.target(&policy, &pool.lineage);
        self.queue.look(&policy, target, now);
        while let Some(entry) = self.queue.late(&policy, target, now) {
            pool.lineage.end_waiting();
            let refusal = self.refuse(pool, Prospect::Place, Trouble::Late, entry.wanted(now).draw);
            after.call(&entry, Called::Refuse(refusal));
        }
    }

    /// The wait that is too long when it lasts.
    fn target(&self, policy: &QueuePolicy, lineage: &Lineage) -> Duration {
        let places = || self.gate.places.unwrap_or_else(|| lineage.in_flight());
        policy.target.unwrap_or_else(|| codel::target(lineage.service().value(), places()))
    }

    /// Requests that wait when the file takes their queue away go by the default.
    fn queue_policy(&self) -> Option<QueuePolicy> {
        (!self.queue.is_empty()).then(|| self.gate.limits.queue.unwrap_or_default())
    }

    fn in_service(&self) -> Vec<EndpointId> {
        self.endpoints.iter().filter(|endpoint| endpoint.is_in_service()).map(|endpoint| endpoint.id()).collect()
    }

    fn prospect(&self, tried: &[EndpointId]) -> Prospect {
        let in_service = self.endpoints.iter().filter(|endpoint| endpoint.is_in_service());
        prospect(in_service.map(|endpoint| endpoint.id()), self.expects(), tried)
    }

    /// Whether it is worth while to wait for an endpoint, where there is none.
    fn expects(&self) -> bool {
        match self.expectation {
            Expectation::Nothing | Expectation::Stopped | Expectation::Crashloop => false,
            Expectation::Names => true,
            Expectation::Workers => {
                let hold = self.gate.limits.queue.unwrap_or_default().hold;
                let known = self.gate.outlook.zip(self.gate.now);
                known.is_none_or(|(outlook, now)| outlook.starts_within(hold, now))
            }
        }
    }

    /// What nobody in service comes from.
    fn why_empty(&self) -> RefusalKind {
        let drains = |endpoint: &Arc<Endpoint>| endpoint.state() == EndpointState::Draining;
        match self.expectation {
            Expectation::Nothing | Expectation::Names => RefusalKind::NoEndpoint,
            Expectation::Crashloop => RefusalKind::Crashloop,
            Expectation::Stopped if self.endpoints.iter().any(drains) => RefusalKind::Draining,
            Expectation::Stopped | Expectation::Workers => RefusalKind::NoWorker,
        }
    }

    /// How long until the next worker is ready, by experience; zero where nothing is known.
    fn ready_in(&self) -> Duration {
        let known = self.gate.outlook.zip(self.gate.now);
        known.map_or(Duration::ZERO, |(outlook, now)| outlook.ready_in(now))
    }

    fn refuse(&mut self, pool: &Pool, prospect: Prospect, trouble: Trouble, draw: u64) -> Refusal {
        let counts = &mut self.gate.counts;
        let (count, kind, why) = match (trouble, prospect) {
            (Trouble::NoQueue, Prospect::Endpoint) => {
                (&mut counts.full, RefusalKind::NotReadyInTime, "no endpoint is ready, and there is no queue")
            }
            (Trouble::NoQueue, _) => {
                (&mut counts.full, RefusalKind::QueueFull, "every endpoint is full, and there is no queue")
            }
            (Trouble::Full, _) => (&mut counts.full, RefusalKind::QueueFull, "as many requests wait as may"),
            (Trouble::Late, _) => (&mut counts.late, RefusalKind::QueueLate, "the queue is overloaded"),
            (Trouble::Expired, Prospect::Endpoint) => {
                (&mut counts.timeout, RefusalKind::NotReadyInTime, "no endpoint became ready in time")
            }
            (Trouble::Expired, _) => (&mut counts.timeout, RefusalKind::QueueTimeout, "no endpoint had room in time"),
        };
        *count += 1;
        let (waiting, under_way) = (self.queue.len(), pool.lineage.in_flight());
        let detail = format!("upstream: {}, {why}, waiting: {waiting}, in flight: {under_way}", pool.name);
        let soonest = match prospect {
            Prospect::Endpoint => self.ready_in(),
            Prospect::Place | Prospect::Nothing => {
                let places = self.gate.places.unwrap_or(under_way).max(1);
                pool.lineage.service().value().saturating_mul(waiting as u32 + 1) / places
            }
        };
        Refusal { retry_after: Some(spread(soonest, draw)), ..Refusal::new(kind, detail) }
    }
}

/// After what time a client is told to come again. Those who are refused together are not to come back together.
fn spread(soonest: Duration, draw: u64) -> Duration {
    let soonest = Duration::from_secs(soonest.as_secs() + u64::from(soonest.subsec_nanos() > 0));
    (soonest.max(Duration::from_secs(1)) + Duration::from_secs(draw % 3)).min(LONGEST_RETRY)
}

fn prospect(mut in_service: impl Iterator<Item = EndpointId>, expects: bool, tried: &[EndpointId]) -> Prospect {
    let mut empty = true;
    if in_service.any(|one| {
        empty = false;
        !tried.contains(&one)
    }) {
        Prospect::Place
    } else if empty && expects {
        Prospect::Endpoint
    } else {
        Prospect::Nothing
    }
}

fn with_room(endpoints: &[Arc<Endpoint>]) -> Vec<EndpointId> {
    let free = endpoints.iter().filter(|endpoint| endpoint.is_in_service() && endpoint.has_room());
    free.map(|endpoint| endpoint.id()).collect()
}

#[cfg(test)]
mod tests;
