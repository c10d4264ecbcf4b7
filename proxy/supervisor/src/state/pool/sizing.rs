//! Which slots make up the count. Numbers are small and a worker keeps its own for life, so they need not follow one another:
//! who is taken away is chosen by what he does, and his number is the next to be given.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Pool;
use crate::event::{Event, ScaledBy};
use crate::state::Turn;
use crate::state::worker::Worker;
use crate::worker::WorkerState;

impl Pool {
    /// Slots that shall have a worker: all that are wanted but those that an operator emptied.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.wanted.iter().copied().filter(|slot| !self.is_held(*slot))
    }

    /// How many these are.
    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.slots().count()).unwrap_or(u32::MAX)
    }

    /// Slots that are wanted, emptied ones among them.
    pub(in crate::state) fn wanted(&self) -> impl Iterator<Item = u32> {
        self.wanted.iter().copied()
    }

    /// How many these are.
    pub(in crate::state) fn count(&self) -> u32 {
        u32::try_from(self.wanted.len()).unwrap_or(u32::MAX)
    }

    /// Slots that are wanted and emptied.
    pub(in crate::state) fn held(&self) -> impl Iterator<Item = u32> {
        self.wanted.iter().copied().filter(|slot| self.is_held(*slot))
    }

    /// Whether its program ended in a way that is not to be started again.
    pub(super) fn is_ended(&self, slot: u32) -> bool {
        self.slots.get(&slot).is_some_and(|slot| slot.is_ended)
    }

    pub(super) fn is_held(&self, slot: u32) -> bool {
        self.slots.get(&slot).is_some_and(|slot| slot.is_held)
    }

    /// So many slots from now on.
    pub(super) fn resize(&mut self, count: u32, by: ScaledBy, turn: &mut Turn<'_>) {
        let (from, to) = (self.count(), count.min(MAX_COUNT));
        let missing = to.saturating_sub(from) as usize;
        self.wanted.extend(self.free_numbers(missing));
        let surplus = from.saturating_sub(to) as usize;
        for slot in self.most_dispensable(surplus) {
            self.wanted.remove(&slot);
            // Who asks for the slot again later wants a worker in it.
            let record = self.slots.entry(slot).or_default();
            (record.is_held, record.is_ended) = (false, false);
        }
        // The first number of a new pool is no change.
        if from != to && !self.generations.is_empty() {
            turn.tell(Event::Scaled { pool: self.name.clone(), from, to, by });
        }
    }

    /// The lowest numbers that are free and whose last worker need not be waited for.
    fn free_numbers(&self, count: usize) -> Vec<u32> {
        let taken: BTreeSet<u32> = self.workers.iter().map(|worker| worker.id.slot).chain(self.wanted()).collect();
        (0..).filter(|slot| !taken.contains(slot)).take(count).collect()
    }

    /// The slots whose workers are missed least: who does not serve, then who has the fewest requests under way, the most
    /// memory, or was started first. The first slot stays to the last: programs make the worker that knows itself as number 0
    /// do what one of them has to do.
    fn most_dispensable(&self, count: usize) -> Vec<u32> {
        let serving = self.workers.iter().filter(|worker| worker.state == WorkerState::Ready);
        let serving: BTreeMap<u32, &Worker> = serving.map(|worker| (worker.id.slot, worker)).collect();
        let rank = |slot: &u32| {
            let worker = serving.get(slot);
            let (in_flight, rss) = worker.map_or((0, 0), |worker| worker.wear.load());
            let spawn = worker.map(|worker| worker.id.spawn);
            (*slot == 0, worker.is_some(), in_flight, Reverse(rss), spawn, Reverse(*slot))
        };
        let mut slots: Vec<u32> = self.wanted().collect();
        slots.sort_by_cached_key(rank);
        slots.truncate(count);
        slots
    }
}

/// More workers than this in one pool are a mistake, not a wish.
const MAX_COUNT: u32 = 4_096;
