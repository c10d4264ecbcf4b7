//! Requests that wait for an endpoint of a pool.
//!
//! Whoever is called has left the queue with what it waited for: a lease, or a refusal. The lease is handed over under
//! the pool's lock and lies in the ticket until it is taken, so a place that becomes free goes to one request, and a
//! ticket that is dropped meanwhile gives it to the next. A ticket has no deadline of its own: the driver drops it when
//! its time is over.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tidegate_config::model::{QueueOrder, QueuePolicy};

use super::codel::Codel;
use super::endpoint::EndpointId;
use super::key::Key;
use super::lease::Lease;
use super::{Pool, Wanted};
use crate::refusal::Refusal;

/// A place in the queue of a pool.
pub struct Ticket {
    pool: Arc<Pool>,
    number: u64,
    waiter: Arc<Waiter>,
    longest: Duration,
}

/// What a request is called with.
#[derive(Debug)]
pub enum Called {
    /// It has an endpoint.
    Lease(Lease),
    /// There is none to wait for any more.
    Refuse(Refusal),
}

impl Ticket {
    pub(super) fn new(pool: Arc<Pool>, number: u64, waiter: Arc<Waiter>, longest: Duration) -> Self {
        Self { pool, number, waiter, longest }
    }

    /// Whether the wait is over, and how; once. If not, the waker is kept (the last one counts) and woken when it is.
    #[must_use]
    pub fn poll(&self, waker: &Waker) -> Option<Called> {
        self.waiter.poll(waker)
    }

    /// Does what time alone has brought by now, of which the request may be called. Returns when to look again, as far as is
    /// known: whoever changes that wakes the kept waker.
    #[must_use]
    pub fn look(&self, now: Instant) -> Option<Instant> {
        self.pool.look(now)
    }

    /// How long the request may wait in all.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.leave_queue(self.number);
        // Nobody calls it any more. What it was called with before goes on to the next.
        if let Some(Called::Lease(lease)) = self.waiter.take() {
            lease.pass_on();
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("pool", &self.pool.name()).field("number", &self.number).finish()
    }
}

/// Requests by number, so in the order they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    codel: Codel,
    /// Whether there are entries whose wait begins with the next time that is known.
    undated: bool,
    peak: usize,
    /// Since it was marked.
    recent_peak: usize,
}

/// A request that waits, with all it brought to the pool.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) waiter: Arc<Waiter>,
    since: Option<Instant>,
    key: Key,
    tried: Vec<EndpointId>,
    draw: u64,
    tunnel: bool,
}

impl Entry {
    pub(super) fn wanted(&self, now: Instant) -> Wanted<'_> {
        Wanted { key: &self.key, tried: &self.tried, draw: self.draw, now, tunnel: self.tunnel }
    }

    pub(super) fn tried(&self) -> &[EndpointId] {
        &self.tried
    }

    /// Whether it is to become a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    pub(super) fn draw(&self) -> u64 {
        self.draw
    }

    fn wait(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

impl Queue {
    pub(super) fn join(&mut self, wanted: &Wanted<'_>) -> (u64, Arc<Waiter>) {
        let number = self.next;
        self.next += 1;
        let waiter = Arc::new(Waiter::default());
        let entry = Entry {
            waiter: Arc::clone(&waiter),
            since: Some(wanted.now),
            key: wanted.key.clone(),
            tried: wanted.tried.to_vec(),
            draw: wanted.draw,
            tunnel: wanted.tunnel,
        };
        self.entries.insert(number, entry);
        self.peak = self.peak.max(self.entries.len());
        self.recent_peak = self.recent_peak.max(self.entries.len());
        (number, waiter)
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        if self.entries.is_empty() {
            self.codel.emptied();
        }
        Some(entry)
    }

    pub(super) fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(&number)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Most that ever waited at a time.
    pub(super) fn peak(&self) -> usize {
        self.peak
    }

    /// Most that waited at a time since the mark.
    pub(super) fn recent_peak(&self) -> usize {
        self.recent_peak
    }

    pub(super) fn mark(&mut self) {
        self.recent_peak = self.entries.len();
    }

    pub(super) fn is_overloaded(&self) -> bool {
        self.codel.is_overloaded()
    }

    /// Whoever waits has waited for something else so far: its wait begins anew.
    pub(super) fn restart(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.since = None);
        self.undated = !self.entries.is_empty();
        self.codel.restart();
    }

    /// It is so late now: whether the queue is overloaded.
    pub(super) fn look(&mut self, policy: &QueuePolicy, target: Duration, now: Instant) {
        if std::mem::take(&mut self.undated) {
            self.entries.values_mut().for_each(|entry| {
                entry.since.get_or_insert(now);
            });
        }
        if policy.order == QueueOrder::Adaptive
            && let Some((_, oldest)) = self.entries.first_key_value()
        {
            self.codel.observe(oldest.wait(now), target, now);
        }
    }

    /// Takes out who is late, while the queue is overloaded.
    pub(super) fn late(&mut self, policy: &QueuePolicy, target: Duration, now: Instant) -> Option<Entry> {
        if !self.newest_first(policy) {
            return None;
        }
        let (number, oldest) = self.entries.first_key_value()?;
        let number = *number;
        (oldest.wait(now) > 2 * target).then(|| self.remove(number)).flatten()
    }

    /// Who is served after this one, or first.
    pub(super) fn after(&self, place: Option<u64>, policy: &QueuePolicy) -> Option<(u64, &Entry)> {
        let found = match (self.newest_first(policy), place) {
            (false, None) => self.entries.first_key_value(),
            (false, Some(place)) => self.entries.range(place + 1..).next(),
            (true, None) => self.entries.last_key_value(),
            (true, Some(place)) => self.entries.range(..place).next_back(),
        };
        found.map(|(number, entry)| (*number, entry))
    }

    /// Wakers of all who wait, for news that are no call.
    pub(super) fn wakers(&self) -> Vec<Waker> {
        self.entries.values().filter_map(|entry| entry.waiter.lock().waker.take()).collect()
    }

    /// Takes out those for whom this is true.
    pub(super) fn take_where(&mut self, mut ends: impl FnMut(&Entry) -> bool) -> Vec<Entry> {
        let numbers: Vec<u64> =
            self.entries.iter().filter(|(_, entry)| ends(entry)).map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    fn newest_first(&self, policy: &QueuePolicy) -> bool {
        policy.order == QueueOrder::Adaptive && self.codel.is_overloaded()
    }
}

/// The side of a ticket that the queue keeps.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    /// One lock over both, so that no call falls between a look and the arrival of the waker.
    call: Mutex<Call>,
}

#[derive(Debug, Default)]
struct Call {
    called: Option<Called>,
    waker: Option<Waker>,
}

impl Waiter {
    fn poll(&self, waker: &Waker) -> Option<Called> {
        let mut call = self.lock();
        if call.called.is_some() || call.waker.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            return call.called.take();
        }
        let old = call.waker.replace(waker.clone());
        // Dropping a waker may run code of the runtime.
        drop(call);
        drop(old);
        None
    }

    /// Ends the wait. Whoever is to be woken is woken by the caller, once the pool's lock is free again.
    pub(super) fn call(&self, called: Called) -> Option<Waker> {
        let mut call = self.lock();
        call.called = Some(called);
        call.waker.take()
    }

    pub(super) fn take(&self) -> Option<Called> {
        self.lock().called.take()
    }

    fn lock(&self) -> MutexGuard<'_, Call> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
