//! What became of requests by upstream and slot, whichever workers were given them.

use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_traffic::pool::endpoint::{Endpoint, EndpointState};
use tidegate_traffic::pool::served::Served;

/// Counts on over the workers of a slot.
#[derive(Default)]
pub(crate) struct Tally {
    slots: BTreeMap<(Arc<str>, u32), Slot>,
}

#[derive(Default)]
struct Slot {
    /// Workers that may still count something: a request may end after its worker has.
    endpoints: Vec<Arc<Endpoint>>,
    /// What all others had counted in the end.
    closed: Served,
}

impl Tally {
    /// A worker may have requests from now on.
    pub(super) fn ready(&mut self, pool: &Arc<str>, slot: u32, endpoint: Arc<Endpoint>) {
        let slot = self.slots.entry((pool.clone(), slot)).or_default();
        slot.close();
        slot.endpoints.push(endpoint);
    }

    /// Of a slot, so far.
    pub(super) fn of(&mut self, pool: &Arc<str>, slot: u32) -> Served {
        let Some(slot) = self.slots.get_mut(&(pool.clone(), slot)) else { return Served::default() };
        slot.close();
        slot.endpoints.iter().fold(slot.closed, |sum, endpoint| sum.plus(&endpoint.served()))
    }

    /// The pool is no more.
    pub(super) fn forget(&mut self, pool: &str) {
        self.slots.retain(|(name, _), _| **name != *pool);
    }
}

impl Slot {
    fn close(&mut self) {
        let closed = &mut self.closed;
        self.endpoints.retain(|endpoint| {
            let is_over = endpoint.state() == EndpointState::Gone && endpoint.in_flight() == 0;
            if is_over {
                *closed = closed.plus(&endpoint.served());
            }
            !is_over
        });
    }
}
