//! A group of endpoints at run time.
//!
//! A pool lives as long as an upstream of its name is in the site file and its endpoints are spoken to in the same way:
//! reloads reconfigure it, and an endpoint whose identity stays (a server's address with the name it was resolved from, a worker's slot and spawn)
//! keeps its counters and its place in the balance.
//! One short lock guards the list of endpoints, the balance and the queue; giving a lease back does not take it.

pub mod abandoned;
pub mod breaker;
pub mod charges;
pub mod check;
pub mod ejection;
pub mod endpoint;
pub mod faults;
mod gate;
pub mod key;
pub mod lease;
pub mod queue;
mod rotation;
pub mod served;
pub mod servers;
mod starts;
pub mod sticky;
pub mod symptom;
pub mod transition;
pub mod trial;

mod balance;
mod broken_version;
mod codel;
mod health;
mod latency;
mod leaving;
mod lineage;
mod median;
mod outlook;
mod overtaken;
pub mod pulse;
mod status_set;
mod tunnels;
mod usage;
mod warming;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

use tidegate_config::model::{self, Address, EndpointSource, ServerAddress, Upstream};

use crate::refusal::Refusal;
use crate::retry::budget::Budget;
use balance::{Balance, Ring};
use breaker::{Breaker, BreakerStatus};
use charges::Columns;
use ejection::{Ejections, Watched, transitions};
use endpoint::{Endpoint, EndpointId, EndpointState, EndpointStatus, OnIdle, Origin, WorkerKey};
use gate::Gate;
pub use gate::{QueueCounts, QueueStatus};
use key::Key;
use lease::Lease;
use lineage::Lineage;
pub use outlook::Outlook;
use queue::{Queue, Ticket};
use servers::{Resolved, Servers};
use transition::{Change, Observer};
use warming::Warming;

/// Source of endpoint names; clones share it, so that no two pools give the same name.
#[derive(Debug, Clone, Default)]
pub struct EndpointIds(Arc<AtomicU64>);

impl EndpointIds {
    fn next(&self) -> EndpointId {
        EndpointId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whether an endpoint may soon be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expectation {
    /// Nothing is starting: a request without an endpoint is refused.
    Nothing,
    /// No worker is starting, because none is wanted any more.
    Stopped,
    /// Workers fail one after the other: a request without an endpoint is refused.
    Crashloop,
    /// Workers are starting: a request without an endpoint waits.
    Workers,
    /// Names of servers are being resolved for the first time: a request without an endpoint waits.
    Names,
}

/// What a request brings to the choice of its endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What it is told apart by, for policies that go by it.
    pub key: &'a Key,
    /// Endpoints that have failed it.
    pub tried: &'a [EndpointId],
    /// A random number, another one for each attempt.
    pub draw: u64,
    /// The time.
    pub now: Instant,
    /// It is to become a tunnel, so the endpoint must have room for one.
    pub tunnel: bool,
}

/// Answer to a request for an endpoint.
#[derive(Debug)]
pub enum Acquired {
    /// The right to use one.
    Lease(Lease),
    /// None is ready, but one is expected.
    Wait(Ticket),
    /// There is none, or all have been tried.
    Refuse(Refusal),
}

/// What is left for a request that has tried some endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rest {
    /// An endpoint in service that it has not tried.
    Untried,
    /// All in service were tried; one that is out of it for failures was not.
    LastResort,
    /// All in service were tried.
    Tried,
    /// None is in service.
    Nothing,
}

/// A group of endpoints at run time.
pub struct Pool {
    /// Itself, for what has to find it later.
    me: Weak<Self>,
    name: Arc<str>,
    ids: EndpointIds,
    lineage: Arc<Lineage>,
    watched: Watched,
    observer: OnceLock<Observer>,
    /// Who has its endpoints now.
    successor: OnceLock<Weak<Self>>,
    retry_budget: Budget,
    /// Guards the pointer, for as long as it takes to copy or replace it; no request takes it.
    columns: Mutex<Option<Arc<Columns>>>,
    /// Guards the list of endpoints, the balance and the queue. Never held while a callback or a waker runs.
    inner: Mutex<Inner>,
}

struct Inner {
    endpoints: Vec<Arc<Endpoint>>,
    /// What the file says of servers, and what their names resolve to.
    servers: Servers,
    balance: Balance,
    warming: Warming,
    ejections: Ejections,
    /// How its endpoints are asked whether they are well.
    check: Option<model::HealthCheck>,
    breaker: Option<Breaker>,
    /// What became of the newest version, while that is shown.
    broken_version: Option<Arc<str>>,
    /// The first phase of the next breaker.
    phases: u64,
    /// What nobody was told yet.
    news: Vec<Change>,
    /// Whether an endpoint has a limit of exchanges.
    limited: bool,
    expectation: Expectation,
    queue: Queue,
    gate: Gate,
    /// Whether those in the queue wait for workers that are starting.
    held: bool,
}

impl Pool {
    /// The pool of an upstream, with its static servers. A pool of workers is empty and expects them.
    #[must_use]
    pub fn new(ids: EndpointIds, upstream: &Upstream) -> Arc<Self> {
        Self::in_lineage(ids, upstream, Arc::default())
    }

    /// The pool of an upstream that is to [succeed](Self::succeed) another one.
    #[must_use]
    pub fn after(&self, upstream: &Upstream) -> Arc<Self> {
        Self::in_lineage(self.ids.clone(), upstream, Arc::clone(&self.lineage))
    }

    fn in_lineage(ids: EndpointIds, upstream: &Upstream, lineage: Arc<Lineage>) -> Arc<Self> {
        let expectation = match upstream.source {
            EndpointSource::Servers(_) => Expectation::Nothing,
            EndpointSource::Workers(_) => Expectation::Workers,
        };
        let inner = Inner {
            endpoints: Vec::new(),
            servers: Servers::default(),
            balance: Balance::new(upstream.balance.clone()),
            warming: Warming::default(),
            ejections: Ejections::default(),
            check: None,
            breaker: None,
            broken_version: None,
            phases: 0,
            news: Vec::new(),
            limited: false,
            expectation,
            queue: Queue::default(),
            gate: Gate::new(upstream.capacity.clone()),
            held: false,
        };
        let pool = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            name: Arc::from(upstream.name.as_str()),
            ids,
            lineage,
            watched: Watched::default(),
            observer: OnceLock::new(),
            successor: OnceLock::new(),
            retry_budget: Budget::default(),
            columns: Mutex::default(),
            inner: Mutex::new(inner),
        });
        pool.lineage.join(&pool);
        pool.reconfigure(upstream);
        // Where all are new none needs sparing: somebody has to take the load.
        pool.lock().warm_all(&pool.lineage);
        pool
    }

    /// Its upstream's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// In which columns its requests are counted from now on; `None` while nobody wants to know what they cost.
    pub fn count_in(&self, columns: Option<Arc<Columns>>) {
        *self.columns.lock().unwrap_or_else(PoisonError::into_inner) = columns;
    }

    /// In which columns its requests are counted.
    #[must_use]
    pub fn columns(&self) -> Option<Arc<Columns>> {
        self.columns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has somebody hear of changes of its service from now on; who came first stays.
    pub fn observe(&self, observer: Observer) {
        let _ = self.observer.set(observer);
    }

    /// Takes over a changed upstream. Servers that are no longer named get no new request and finish those they
    /// have. Workers are left alone; where servers replace them they drain, and stay listed until they are removed,
    /// so that whoever stops them can still wait for their last exchange.
    pub fn reconfigure(&self, upstream: &Upstream) {
        self.retry_budget.configure(upstream.retry_budget);
        if let EndpointSource::Servers(servers) = &upstream.source {
            self.prepare(Some(&upstream.balance), |known| known.configure(servers));
        }
        let mut inner = self.lock();
        inner.gate.limits = upstream.capacity.clone();
        inner.balance.set_kind(&upstream.balance);
        inner.warming.set_time(upstream.slow_start);
        inner.ejections.configure(upstream.ejection.as_ref());
        inner.set_check(upstream.health_check.as_ref());
        inner.set_breaker(upstream.breaker.as_ref(), &self.watched.attempts);
        self.watched.configure(upstream.ejection.as_ref());
        let endpoints = match &upstream.source {
            EndpointSource::Servers(servers) => {
                inner.servers.configure(servers);
                inner.expectation = inner.servers.expectation();
                let mut endpoints = self.servers(&inner);
                endpoints.extend(inner.workers().inspect(|worker| worker.mark(EndpointState::Draining)));
                endpoints
            }
            EndpointSource::Workers(_) => {
                inner.servers.configure(&[]);
                if inner.endpoints.iter().any(|known| !is_worker(known)) {
                    inner.expectation = Expectation::Workers;
                }
                inner.workers().collect()
            }
        };
        inner.limit_workers();
        let retired = inner.replace(endpoints, &self.lineage);
        self.changed(inner);
        retired.iter().for_each(|endpoint| endpoint.settle());
    }

    /// Takes over what a server's name resolves to now, from the first answer or failure on; an empty list is a name
    /// without addresses. Returns the endpoints that are gone: they get no new request and finish those they have. What
    /// is told of a name before the file has it counts once [`reconfigure`](Self::reconfigure) brings it.
    pub fn resolve(&self, name: &ServerAddress, found: Vec<Resolved>) -> Vec<EndpointId> {
        self.prepare(None, |known| known.resolve(name, found.clone()));
        let mut inner = self.lock();
        inner.servers.resolve(name, found);
        if inner.servers.is_empty() {
            return Vec::new();
        }
        let had_none = inner.endpoints.is_empty();
        let mut endpoints = self.servers(&inner);
        endpoints.extend(inner.workers());
        let retired = inner.replace(endpoints, &self.lineage);
        if had_none {
            inner.warm_all(&self.lineage);
        }
        inner.expectation = inner.servers.expectation();
        self.changed(inner);
        retired.iter().for_each(|endpoint| endpoint.settle());
        retired.iter().map(|endpoint| endpoint.id()).collect()
    }

    /// Takes the place of a pool of workers whose endpoints are spoken to in another way. Both have them from now on, so
    /// that requests of before finish as they began. Later workers are this pool's alone, so nothing is expected of the
    /// old one any more.
    pub fn succeed(self: &Arc<Self>, old: &Self) {
        // It happens once: a pool that was succeeded is part of no later configuration.
        let _ = old.successor.set(Arc::downgrade(self));
        // The older pool's lock first; nobody else takes two.
        let mut before = old.lock();
        let mut inner = self.lock();
        let ready = before.workers().filter(|worker| worker.is_ready());
        inner.endpoints.extend(ready);
        inner.limit_workers();
        inner.align(&self.lineage);
        inner.expectation = std::mem::replace(&mut before.expectation, Expectation::Nothing);
        drop(inner);
        old.changed(before);
    }

    /// What retries there may be.
    #[must_use]
    pub fn retry_budget(&self) -> &Budget {
        &self.retry_budget
    }

    /// What is left for a request that has tried these, and one more.
    #[must_use]
    pub fn rest(&self, tried: &[EndpointId], but: Option<EndpointId>) -> Rest {
        self.lock().rest(tried, but)
    }

    /// A worker has become ready. The endpoint of a known key is returned as it is.
    pub fn add_worker(&self, key: WorkerKey, pid: u32, address: Address) -> Arc<Endpoint> {
        let mut inner = self.lock();
        if let Some(known) = inner.worker(key) {
            return known;
        }
        let origin = Origin::Worker { key, pid };
        let endpoint = Arc::new(Endpoint::new(self.ids.next(), address, None, origin, Arc::clone(&self.lineage)));
        inner.endpoints.push(Arc::clone(&endpoint));
        inner.limit_workers();
        inner.warming.begin(endpoint.id());
        inner.align(&self.lineage);
        self.changed(inner);
        endpoint
    }

    /// A worker gets no more requests. `on_idle` runs exactly once, on any thread: when its last request has ended, tunnels
    /// and answers that stream apart, or at once if it has none or is not known.
    pub fn drain_worker(&self, key: WorkerKey, on_idle: OnIdle) {
        let mut inner = self.lock();
        let known = inner.worker(key);
        if let Some(endpoint) = &known {
            endpoint.mark(EndpointState::Draining);
            inner.align(&self.lineage);
        }
        self.changed(inner);
        match known {
            Some(endpoint) => endpoint.when_idle(on_idle),
            None => on_idle(),
        }
    }

    /// A worker has ended. Exchanges still on it end by themselves, and with the last one its drain callbacks run.
    pub fn remove_worker(&self, key: WorkerKey) {
        let mut inner = self.lock();
        let Some(endpoint) = inner.worker(key) else { return };
        let rest = inner.endpoints.iter().filter(|known| known.id() != endpoint.id()).cloned().collect();
        inner.replace(rest, &self.lineage);
        self.changed(inner);
        endpoint.settle();
    }

    /// Tells whether workers are starting. When nothing is expected any more, waiting requests ask again, and are
    /// refused if there is still no endpoint.
    pub fn set_expecting(&self, expectation: Expectation) {
        let mut inner = self.lock();
        inner.expectation = expectation;
        self.changed(inner);
    }

    /// Tells when the next worker will be ready; `None` is not known. Requests do not wait for one that starts too late for them.
    pub fn foresee(&self, outlook: Option<Outlook>) {
        let mut inner = self.lock();
        inner.gate.outlook = outlook;
        self.changed(inner);
    }

    /// Does what time alone brings, for whoever looks while no request comes.
    pub fn refresh(&self, now: Instant) {
        self.changed(self.lock_at(now));
    }

    /// Its endpoints, in the order of the file or of their start.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.lock().endpoints.clone()
    }

    /// From now on [`QueueStatus::recent_peak`] is counted anew.
    pub fn mark_queue(&self) {
        self.lock().queue.mark();
    }

    /// Requests that wait, and those that did.
    #[must_use]
    pub fn queue_status(&self) -> QueueStatus {
        self.lock().queue_status()
    }

    /// All figures, for people.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let inner = self.lock();
        PoolStatus {
            name: Arc::clone(&self.name),
            balance: inner.balance.kind().clone(),
            expectation: inner.expectation,
            in_flight: self.lineage.in_flight(),
            places: inner.places(),
            queue: inner.queue_status(),
            breaker: inner.breaker.as_ref().map(Breaker::status),
            endpoints: inner.endpoints.iter().map(|endpoint| endpoint.status()).collect(),
        }
    }

    /// Builds rings while nobody waits for the lock: those that the servers will have after this change. Should another change
    /// come in between, `align` builds its own.
    fn prepare(&self, balance: Option<&model::Balance>, change: impl FnOnce(&mut Servers)) {
        let inner = self.lock();
        if !matches!(balance.unwrap_or(inner.balance.kind()), model::Balance::Consistent(_)) {
            return;
        }
        let mut servers = inner.servers.clone();
        drop(inner);
        change(&mut servers);
        let members = servers.list().into_iter().map(|listed| {
            let (weight, tier) = listed.place();
            (tier, listed.address, weight)
        });
        let rings = Ring::of_tiers(members);
        self.lock().balance.prepare(rings);
    }

    /// Endpoints of the servers as they are known now, those of before among them.
    fn servers(&self, inner: &Inner) -> Vec<Arc<Endpoint>> {
        let same = |endpoint: &Arc<Endpoint>| (endpoint.address().clone(), endpoint.host().cloned());
        let before = inner.endpoints.iter().filter(|known| !is_worker(known));
        let before: HashMap<_, _> = before.map(|known| (same(known), known)).collect();
        let listed = inner.servers.list();
        let endpoints = listed.into_iter().map(|listed| {
            let identity = (listed.address, listed.host);
            let endpoint = before.get(&identity).map(|known| Arc::clone(known)).unwrap_or_else(|| {
                let (address, host) = identity;
                Arc::new(Endpoint::new(self.ids.next(), address, host, Origin::Static, Arc::clone(&self.lineage)))
            });
            endpoint.configure(listed.server, inner.gate.limits.max_in_flight_per_endpoint);
            endpoint.limit_tunnels(inner.gate.limits.max_tunnels);
            if let Some((weight, priority)) = listed.share {
                endpoint.configure_share(weight, priority);
            }
            endpoint
        });
        endpoints.collect()
    }

    /// The lock, once everything is done that is due by now.
    fn lock_at(&self, now: Instant) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        let returns = inner.ejections.is_due(now);
        if returns {
            inner.catch_up(now);
        }
        if inner.warming.is_due(now) || returns {
            inner.align(&self.lineage);
        }
        inner.look_at_breaker(now);
        if inner.news.is_empty() {
            return inner;
        }
        self.tell(inner);
        self.lock()
    }

    /// Tells the news once the lock is free.
    fn tell(&self, mut inner: MutexGuard<'_, Inner>) {
        let news = std::mem::take(&mut inner.news);
        // What has changed may change what time alone brings to those who wait.
        let is_retimed = inner.warming.take_news();
        let wakers = if news.is_empty() && !is_retimed { Vec::new() } else { inner.queue.wakers() };
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        if let Some(observer) = self.observer.get() {
            transitions(&self.name, news).for_each(|transition| observer.hear(&transition));
        }
    }

    fn successor(&self) -> Option<Arc<Self>> {
        self.successor.get()?.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock was held leaves the list whole: every change is a single assignment or push.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status().fmt(f)
    }
}

impl Inner {
    /// Installs a list and returns the endpoints that are not in it, marked as gone.
    fn replace(&mut self, endpoints: Vec<Arc<Endpoint>>, lineage: &Lineage) -> Vec<Arc<Endpoint>> {
        let ids = |list: &[Arc<Endpoint>]| list.iter().map(|one| one.id()).collect::<HashSet<_>>();
        let old = std::mem::replace(&mut self.endpoints, endpoints);
        let (before, after) = (ids(&old), ids(&self.endpoints));
        for new in after.difference(&before) {
            self.warming.begin(*new);
        }
        self.align(lineage);
        let retired: Vec<_> = old.into_iter().filter(|known| !after.contains(&known.id())).collect();
        retired.iter().for_each(|endpoint| endpoint.mark(EndpointState::Gone));
        retired
    }

    /// Tells the balance who takes part, and with which weight.
    fn align(&mut self, lineage: &Lineage) {
        self.spare();
        self.limited = self.endpoints.iter().any(|endpoint| endpoint.max_conns().is_some());
        let keeps_places = self.balance.keeps_places();
        let part = |endpoint: &&Arc<Endpoint>| endpoint.is_in_service() || (keeps_places && endpoint.is_ready());
        let members = self.endpoints.iter().filter(part).cloned().collect();
        self.balance.align(self.warming.weigh(members), &lineage.marks);
        self.limit_workers();
        self.count_places(lineage);
        if let Some(names) = self.balance.names() {
            names.align(&self.endpoints);
        }
    }

    /// `but` counts as tried.
    fn rest(&self, tried: &[EndpointId], but: Option<EndpointId>) -> Rest {
        if self.has_untried(tried, but) {
            return Rest::Untried;
        }
        let tried: Vec<EndpointId> = tried.iter().copied().chain(but).collect();
        if self.last_resort(&tried).is_some() {
            return Rest::LastResort;
        }
        let in_service = self.endpoints.iter().any(|endpoint| endpoint.is_in_service());
        if in_service { Rest::Tried } else { Rest::Nothing }
    }

    /// Ends with the first that was not tried, so that it costs little where most are in service.
    fn has_untried(&self, tried: &[EndpointId], but: Option<EndpointId>) -> bool {
        let mut in_service = self.endpoints.iter().filter(|endpoint| endpoint.is_in_service());
        in_service.any(|endpoint| Some(endpoint.id()) != but && !tried.contains(&endpoint.id()))
    }

    fn warm_all(&mut self, lineage: &Lineage) {
        self.warming.end();
        self.align(lineage);
    }

    /// Gives workers the limits of an endpoint. One that is new grows into its own while others take the load.
    fn limit_workers(&self) {
        let limits = &self.gate.limits;
        let is_seasoned = |worker: Arc<Endpoint>| worker.is_in_service() && !self.warming.is_new(worker.id());
        let spares = self.workers().any(is_seasoned);
        self.workers().for_each(|worker| {
            let all = limits.max_in_flight_per_endpoint;
            worker.limit(if spares { all.map(|all| self.warming.places(worker.id(), all)) } else { all });
            worker.limit_tunnels(limits.max_tunnels);
        });
    }

    /// When time alone brings something.
    fn due(&self) -> Option<Instant> {
        self.ejections.due().into_iter().chain(self.warming.due(self.gate.now())).min()
    }

    fn workers(&self) -> impl Iterator<Item = Arc<Endpoint>> {
        self.endpoints.iter().filter(|known| is_worker(known)).cloned()
    }

    fn worker(&self, key: WorkerKey) -> Option<Arc<Endpoint>> {
        let wanted = |origin| matches!(origin, Origin::Worker { key: known, .. } if known == key);
        self.endpoints.iter().find(|endpoint| wanted(endpoint.origin())).cloned()
    }
}

fn is_worker(endpoint: &Endpoint) -> bool {
    matches!(endpoint.origin(), Origin::Worker { .. })
}

/// Figures of a pool at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolStatus {
    /// Its upstream's name.
    pub name: Arc<str>,
    /// How an endpoint is chosen.
    pub balance: model::Balance,
    /// Whether an endpoint may soon be ready.
    pub expectation: Expectation,
    /// Exchanges under way with endpoints of now and before.
    pub in_flight: u32,
    /// Most exchanges that endpoints in service take at a time, where there is a limit.
    pub places: Option<u32>,
    /// Requests that wait for an endpoint.
    pub queue: QueueStatus,
    /// Its breaker, if it has one.
    pub breaker: Option<BreakerStatus>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

#[cfg(test)]
mod tests;
