//! What a pool has in common with the pool that takes its place: endpoints, and so how busy they are.
//!
//! A place that a request gives back may be what a request of either pool waits for; both are told.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::Pool;
use super::balance::Marks;
use super::median::Median;

/// Pools that follow one another.
#[derive(Default)]
pub(super) struct Lineage {
    pub(super) marks: Marks,
    /// Exchanges under way.
    in_flight: AtomicU32,
    /// Requests that wait. Sequentially consistent, like the counts of what is under way: of a request that finds
    /// everything full and begins to wait, and a place that becomes free, at least one sees the other.
    waiting: AtomicUsize,
    /// Whether there is any limit, so that it matters how long exchanges take.
    limited: AtomicBool,
    service: Median,
    /// Guards the list; no pool's lock is held when it is taken.
    pools: Mutex<Vec<Weak<Pool>>>,
}

impl Lineage {
    /// This pool is one of them.
    pub(super) fn join(&self, pool: &Arc<Pool>) {
        let mut pools = self.lock();
        pools.retain(|known| known.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    pub(super) fn set_limited(&self, limited: bool) {
        self.limited.store(limited, Ordering::Relaxed);
    }

    /// Exchanges under way.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(super) fn has_room(&self, most: Option<u32>) -> bool {
        most.is_none_or(|most| self.in_flight() < most)
    }

    /// Counts an exchange, unless `most` are under way.
    pub(super) fn begin_exchange(&self, most: Option<u32>) -> bool {
        let Some(most) = most else {
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            return true;
        };
        let next = |count| (count < most).then_some(count + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    /// An exchange is over, and whoever waits may have its place. Outside every pool's lock. `times` are its begin and
    /// its end, where known.
    pub(super) fn end_exchange(&self, times: Option<(Instant, Instant)>) {
        if let Some((began, now)) = times
            && self.limited.load(Ordering::Relaxed)
        {
            self.service.observe(now.saturating_duration_since(began));
        }
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.call(times.map(|(_, now)| now));
    }

    /// A place has become free: whoever waits for one may have it. Outside every pool's lock.
    pub(super) fn call(&self, now: Option<Instant>) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        // The list is free while pools hand out places, which may give others back.
        let pools = self.lock().clone();
        pools.iter().filter_map(Weak::upgrade).for_each(|pool| pool.hand_out(now));
    }

    pub(super) fn begin_waiting(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn end_waiting(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// About how long an exchange takes.
    pub(super) fn service(&self) -> &Median {
        &self.service
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
