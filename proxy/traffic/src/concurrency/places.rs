//! What one request has of the limits of its route. Dropping it gives back what was taken, so no path through a driver can
//! leak a place.

use std::sync::Arc;

use smallvec::SmallVec;

use super::ConcurrencyLimit;
use super::table::Place;
use crate::refusal::Refusal;

/// The places of one request: wished for when its head is there, taken when it is admitted, given back when this is
/// dropped.
#[derive(Debug, Default)]
pub struct Places {
    wishes: SmallVec<[Wish; 1]>,
    taken: SmallVec<[Place; 1]>,
}

/// A limit, and whom the request counts for there.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) limit: Arc<ConcurrencyLimit>,
    pub(super) client: u64,
}

impl Places {
    pub(super) fn wish(&mut self, wish: Wish) {
        self.wishes.push(wish);
    }

    /// Takes a place in each limit; once they are taken this changes nothing.
    ///
    /// # Errors
    /// When a limit has none left. Then the request has no place anywhere: those taken are given back, those behind are not
    /// asked.
    pub fn take(&mut self) -> Result<(), Refusal> {
        // Forgotten either way: a place taken holds nothing of the configuration it was taken under.
        for Wish { limit, client } in std::mem::take(&mut self.wishes) {
            match limit.table.take(client, limit.max) {
                Some(place) => self.taken.push(place),
                None => limit.turn_away().inspect_err(|_| self.give_back())?,
            }
        }
        Ok(())
    }

    /// The request is no longer under way.
    pub fn give_back(&mut self) {
        self.taken.clear();
    }
}
