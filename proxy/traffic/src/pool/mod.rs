//! A group of endpoints at run time.
//!
//! A pool lives as long as an upstream of its name is in the site file and its endpoints are spoken to in the same way:
//! reloads reconfigure it, and an endpoint whose identity stays (a server's address, a worker's slot and spawn) keeps its counters and its place in the balance.
//! One short lock guards the list of endpoints, the balance and the queue; giving a lease back does not take it.

pub mod endpoint;
pub mod lease;
pub mod queue;

mod balance;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_config::model::{self, Address, EndpointSource, StaticServer, Upstream};

use crate::refusal::{Refusal, RefusalKind};
use balance::Balance;
use endpoint::{Endpoint, EndpointId, EndpointState, EndpointStatus, OnIdle, Origin, WorkerKey};
use lease::Lease;
use queue::{Queue, Ticket};

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
    /// Workers are starting: a request without an endpoint waits.
    Workers,
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

/// A group of endpoints at run time.
pub struct Pool {
    name: Arc<str>,
    ids: EndpointIds,
    /// Guards the list of endpoints, the balance and the queue. Never held while a callback or a waker runs.
    inner: Mutex<Inner>,
}

struct Inner {
    endpoints: Vec<Arc<Endpoint>>,
    balance: Balance,
    expectation: Expectation,
    queue: Queue,
}

impl Pool {
    /// The pool of an upstream, with its static servers. A pool of workers is empty and expects them.
    #[must_use]
    pub fn new(ids: EndpointIds, upstream: &Upstream) -> Arc<Self> {
        let expectation = match upstream.source {
            EndpointSource::Servers(_) => Expectation::Nothing,
            EndpointSource::Workers(_) => Expectation::Workers,
        };
        let inner = Inner {
            endpoints: Vec::new(),
            balance: Balance::new(upstream.balance),
            expectation,
            queue: Queue::default(),
        };
        let pool = Self { name: Arc::from(upstream.name.as_str()), ids, inner: Mutex::new(inner) };
        pool.reconfigure(upstream);
        Arc::new(pool)
    }

    /// Its upstream's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Takes over a changed upstream. Servers that are no longer named get no new request and finish those they
    /// have. Workers are left alone; where servers replace them they drain, and stay listed until they are removed,
    /// so that whoever stops them can still wait for their last exchange.
    pub fn reconfigure(&self, upstream: &Upstream) {
        let mut inner = self.lock();
        if inner.balance.kind() != upstream.balance {
            inner.balance = Balance::new(upstream.balance);
        }
        let endpoints = match &upstream.source {
            EndpointSource::Servers(servers) => {
                inner.expectation = Expectation::Nothing;
                let mut endpoints = self.servers(&inner.endpoints, servers);
                endpoints.extend(inner.workers().inspect(|worker| worker.mark(EndpointState::Draining)));
                endpoints
            }
            EndpointSource::Workers(_) => {
                if inner.endpoints.iter().any(|known| !is_worker(known)) {
                    inner.expectation = Expectation::Workers;
                }
                inner.workers().collect()
            }
        };
        let retired = inner.replace(endpoints);
        let called = inner.queue_if_worth_asking();
        drop(inner);
        retired.iter().for_each(|endpoint| endpoint.settle());
        called.into_iter().for_each(queue::Called::wake);
    }

    /// Takes the place of a pool of workers whose endpoints are spoken to in another way. Both have them from now on, so
    /// that requests of before finish as they began. Later workers are this pool's alone, so nothing is expected of the
    /// old one any more.
    pub fn succeed(&self, old: &Self) {
        // The older pool's lock first; nobody else takes two.
        let mut before = old.lock();
        let mut inner = self.lock();
        let ready = before.workers().filter(|worker| worker.is_ready());
        inner.endpoints.extend(ready);
        inner.align();
        inner.expectation = std::mem::replace(&mut before.expectation, Expectation::Nothing);
        drop(inner);
        let called = before.queue.take_all();
        drop(before);
        called.wake();
    }

    /// A lease on an endpoint that is ready and not among `tried`, as the balance chooses.
    ///
    /// Waits only if no endpoint at all is ready and workers are expected.
    #[must_use]
    pub fn acquire(self: &Arc<Self>, tried: &[EndpointId]) -> Acquired {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let candidate = |endpoint: &Endpoint| endpoint.is_ready() && !tried.contains(&endpoint.id());
        if let Some(place) = inner.balance.pick(&inner.endpoints, candidate) {
            // Under the lock, so that a drain that follows sees this exchange.
            return Acquired::Lease(Lease::new(Arc::clone(&inner.endpoints[place])));
        }
        let any_ready = inner.endpoints.iter().any(|endpoint| endpoint.is_ready());
        if !any_ready && inner.expectation == Expectation::Workers {
            let (number, waiter) = inner.queue.join();
            return Acquired::Wait(Ticket::new(Arc::clone(self), number, waiter));
        }
        Acquired::Refuse(self.no_endpoint(any_ready, inner.endpoints.len()))
    }

    /// A worker has become ready. The endpoint of a known key is returned as it is.
    pub fn add_worker(&self, key: WorkerKey, pid: u32, address: Address) -> Arc<Endpoint> {
        let mut inner = self.lock();
        if let Some(known) = inner.worker(key) {
            return known;
        }
        let endpoint = Arc::new(Endpoint::new(self.ids.next(), address, Origin::Worker { key, pid }, 1));
        inner.endpoints.push(Arc::clone(&endpoint));
        inner.align();
        let called = inner.queue.take_all();
        drop(inner);
        called.wake();
        endpoint
    }

    /// A worker gets no more requests. `on_idle` runs exactly once, on any thread: when its last exchange has
    /// ended, or at once if it has none or is not known.
    pub fn drain_worker(&self, key: WorkerKey, on_idle: OnIdle) {
        let inner = self.lock();
        let known = inner.worker(key);
        if let Some(endpoint) = &known {
            endpoint.mark(EndpointState::Draining);
        }
        drop(inner);
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
        inner.replace(rest);
        drop(inner);
        endpoint.settle();
    }

    /// Tells whether workers are starting. When nothing is expected any more, waiting requests ask again, and are
    /// refused if there is still no endpoint.
    pub fn set_expecting(&self, expectation: Expectation) {
        let mut inner = self.lock();
        inner.expectation = expectation;
        let called = inner.queue_if_worth_asking();
        drop(inner);
        called.into_iter().for_each(queue::Called::wake);
    }

    /// Its endpoints, in the order of the file or of their start.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.lock().endpoints.clone()
    }

    /// All figures, for people.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let inner = self.lock();
        PoolStatus {
            name: Arc::clone(&self.name),
            balance: inner.balance.kind(),
            expectation: inner.expectation,
            waiting: inner.queue.len(),
            endpoints: inner.endpoints.iter().map(|endpoint| endpoint.status()).collect(),
        }
    }

    pub(crate) fn leave_queue(&self, number: u64) {
        self.lock().queue.leave(number);
    }

    fn servers(&self, known: &[Arc<Endpoint>], servers: &[StaticServer]) -> Vec<Arc<Endpoint>> {
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(servers.len());
        for server in servers {
            let same = |endpoint: &&Arc<Endpoint>| !is_worker(endpoint) && *endpoint.address() == server.address;
            if endpoints.iter().any(|listed| same(&listed)) {
                continue;
            }
            endpoints.push(match known.iter().find(same) {
                Some(endpoint) => {
                    endpoint.set_weight(server.weight);
                    Arc::clone(endpoint)
                }
                None => Arc::new(Endpoint::new(self.ids.next(), server.address.clone(), Origin::Static, server.weight)),
            });
        }
        endpoints
    }

    fn no_endpoint(&self, any_ready: bool, count: usize) -> Refusal {
        let why = if any_ready { "all ready endpoints were tried" } else { "no endpoint is ready" };
        Refusal::new(RefusalKind::NoEndpoint, format!("upstream: {}, {why}, endpoints: {count}", self.name))
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
    fn replace(&mut self, endpoints: Vec<Arc<Endpoint>>) -> Vec<Arc<Endpoint>> {
        let old = std::mem::replace(&mut self.endpoints, endpoints);
        self.align();
        let retired: Vec<_> =
            old.into_iter().filter(|known| !self.endpoints.iter().any(|kept| kept.id() == known.id())).collect();
        retired.iter().for_each(|endpoint| endpoint.mark(EndpointState::Gone));
        retired
    }

    fn align(&mut self) {
        self.balance.align(&self.endpoints);
    }

    fn workers(&self) -> impl Iterator<Item = Arc<Endpoint>> {
        self.endpoints.iter().filter(|known| is_worker(known)).cloned()
    }

    fn worker(&self, key: WorkerKey) -> Option<Arc<Endpoint>> {
        let wanted = |origin| matches!(origin, Origin::Worker { key: known, .. } if known == key);
        self.endpoints.iter().find(|endpoint| wanted(endpoint.origin())).cloned()
    }

    /// Everyone who waits, if asking again would give another answer than to wait.
    fn queue_if_worth_asking(&mut self) -> Option<queue::Called> {
        let ready = self.endpoints.iter().any(|endpoint| endpoint.is_ready());
        (ready || self.expectation == Expectation::Nothing).then(|| self.queue.take_all())
    }
}

fn is_worker(endpoint: &Endpoint) -> bool {
    matches!(endpoint.origin(), Origin::Worker { .. })
}

/// Figures of a pool at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its upstream's name.
    pub name: Arc<str>,
    /// How an endpoint is chosen.
    pub balance: model::Balance,
    /// Whether an endpoint may soon be ready.
    pub expectation: Expectation,
    /// Requests that wait for an endpoint.
    pub waiting: usize,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

#[cfg(test)]
mod tests;
