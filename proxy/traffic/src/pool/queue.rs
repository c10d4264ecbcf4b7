//! Requests that wait until a pool has an endpoint again.
//!
//! A ticket has no deadline of its own: the driver decides how long it waits, and dropping the ticket leaves the
//! queue. All tickets are woken together, in the order they came; each then asks the pool again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use super::Pool;

/// A place in the queue of a pool.
pub struct Ticket {
    pool: Arc<Pool>,
    number: u64,
    waiter: Arc<Waiter>,
}

impl Ticket {
    pub(super) fn new(pool: Arc<Pool>, number: u64, waiter: Arc<Waiter>) -> Self {
        Self { pool, number, waiter }
    }

    /// Whether it is worth asking the pool again. If not, the waker is kept (the last one counts) and woken when it is.
    #[must_use]
    pub fn poll(&self, waker: &Waker) -> bool {
        if self.waiter.called.load(Ordering::Acquire) {
            return true;
        }
        let mut slot = self.waiter.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_mut() {
            Some(kept) => kept.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
        drop(slot);
        // A call between the first look and the waker's arrival has woken nobody.
        self.waiter.called.load(Ordering::Acquire)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.leave_queue(self.number);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("pool", &self.pool.name()).field("number", &self.number).finish()
    }
}

/// Tickets by number, so in the order they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    next: u64,
    waiters: BTreeMap<u64, Arc<Waiter>>,
}

impl Queue {
    pub(super) fn join(&mut self) -> (u64, Arc<Waiter>) {
        let number = self.next;
        self.next += 1;
        let waiter = Arc::new(Waiter::default());
        self.waiters.insert(number, Arc::clone(&waiter));
        (number, waiter)
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.waiters.remove(&number);
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Takes everyone out; to be called once the pool's lock is free again.
    pub(super) fn take_all(&mut self) -> Called {
        Called(std::mem::take(&mut self.waiters))
    }
}

/// Waiters that have left the queue and are still to be woken.
#[must_use]
pub(super) struct Called(BTreeMap<u64, Arc<Waiter>>);

impl Called {
    pub(super) fn wake(self) {
        self.0.into_values().for_each(|waiter| waiter.wake());
    }
}

/// The side of a ticket that the queue keeps.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    called: AtomicBool,
    /// Guards the waker; held only to exchange it.
    waker: Mutex<Option<Waker>>,
}

impl Waiter {
    fn wake(&self) {
        self.called.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
