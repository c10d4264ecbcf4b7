//! Requests that wait until a pool has an endpoint again.
//!
//! A ticket has no deadline of its own: the driver decides how long it waits, and dropping the ticket leaves the
//! queue. All tickets are woken together, in the order they came; each then asks the pool again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
        self.waiter.poll(waker)
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
    /// One lock over both, so that no call falls between a look and the arrival of the waker.
    call: Mutex<Call>,
}

#[derive(Debug, Default)]
struct Call {
    made: bool,
    waker: Option<Waker>,
}

impl Waiter {
    fn poll(&self, waker: &Waker) -> bool {
        let mut call = self.lock();
        if call.made || call.waker.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            return call.made;
        }
        let old = call.waker.replace(waker.clone());
        // Dropping a waker may run code of the runtime.
        drop(call);
        drop(old);
        false
    }

    fn wake(&self) {
        let mut call = self.lock();
        call.made = true;
        let waker = call.waker.take();
        drop(call);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Call> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
