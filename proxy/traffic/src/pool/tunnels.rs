//! Upgraded connections and long streams through one endpoint. They last, so they are counted apart from what is in flight, and
//! have a limit of their own.

use std::sync::atomic::{AtomicU32, Ordering};

/// How many there are, and may be. Sequentially consistent, for the same reasons as the count of what is in flight.
#[derive(Debug)]
pub(super) struct Tunnels {
    count: AtomicU32,
    most: AtomicU32,
}

/// No limit.
const ANY: u32 = u32::MAX;

impl Default for Tunnels {
    fn default() -> Self {
        Self { count: AtomicU32::new(0), most: AtomicU32::new(ANY) }
    }
}

impl Tunnels {
    /// One more, unless there are as many as may be.
    #[must_use]
    pub(super) fn begin(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let next = |count| (count < most).then_some(count + 1);
        self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    /// One more, whatever the limit.
    pub(super) fn force(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// One less.
    pub(super) fn end(&self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }

    /// How many there may be, where there is a limit.
    pub(super) fn most(&self) -> Option<u32> {
        Some(self.most.load(Ordering::Relaxed)).filter(|most| *most != ANY)
    }

    /// From now on; those beyond it go on.
    pub(super) fn limit(&self, most: Option<u32>) {
        self.most.store(most.unwrap_or(ANY), Ordering::Relaxed);
    }
}
