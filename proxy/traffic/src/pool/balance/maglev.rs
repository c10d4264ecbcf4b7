//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): one look into a table, and even shares.
//!
//! Members fill the table in turns, each by its own permutation of it; the weights are kept as in Envoy, by leaving out
//! turns. A member that comes or goes moves few keys beside its own.

use super::Member;
use super::hash::TRIES;
use crate::mix::mix;
use crate::pool::endpoint::{Endpoint, EndpointId};

/// Slots of the table: a prime, as Envoy has it, more than a hundred times as many as there are likely members.
const SLOTS: usize = 65_537;

/// Who has which slot.
#[derive(Debug, Default)]
pub(in crate::pool) struct Table {
    slots: Vec<u16>,
    /// Whom it was built for.
    built: Vec<(EndpointId, u32)>,
}

/// A member's own order of the slots.
struct Turns {
    next: usize,
    skip: usize,
    /// Turns taken, in the weight of the heaviest.
    taken: u64,
}

/// Nobody's yet. There are no more members than slots, so those beyond this place have none.
const FREE: u16 = u16::MAX;

impl Table {
    /// Builds the table, unless it is that of these members already: those out of service are among them, so it mostly is.
    pub(in crate::pool) fn align(&mut self, members: &[Member]) {
        let wanted = || members.iter().map(|member| (member.endpoint.id(), member.weight));
        if !self.built.iter().copied().eq(wanted()) {
            self.built = wanted().collect();
            self.fill(members);
        }
    }

    fn fill(&mut self, members: &[Member]) {
        self.slots.clear();
        let Some(heaviest) = members.iter().map(|member| u64::from(member.weight)).max() else { return };
        self.slots.resize(SLOTS, FREE);
        let mut turns: Vec<Turns> = members.iter().map(Turns::of).collect();
        let mut left = SLOTS;
        for round in 1_u64.. {
            for ((turn, member), place) in turns.iter_mut().zip(members).zip(0..FREE) {
                if round * u64::from(member.weight) <= turn.taken {
                    continue;
                }
                turn.taken += heaviest;
                let slot = turn.free(&self.slots);
                self.slots[slot] = place;
                left -= 1;
                if left == 0 {
                    return;
                }
            }
        }
    }

    pub(in crate::pool) fn pick(
        &self,
        members: &[Member],
        key: &[u8],
        candidate: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let hash = hash(0, key);
        (0..u64::from(TRIES)).find_map(|step| {
            let hash = if step == 0 { hash } else { mix(hash.wrapping_add(step)) };
            let place = usize::from(*self.slots.get((hash % SLOTS as u64) as usize)?);
            candidate(&members[place].endpoint).then_some(place)
        })
    }
}

impl Turns {
    fn of(member: &Member) -> Self {
        let name = member.endpoint.address().to_string();
        let next = (hash(1, name.as_bytes()) % SLOTS as u64) as usize;
        let skip = (hash(2, name.as_bytes()) % (SLOTS as u64 - 1)) as usize + 1;
        Self { next, skip, taken: 0 }
    }

    /// Its next slot that is free; there is one.
    fn free(&mut self, slots: &[u16]) -> usize {
        loop {
            let slot = self.next;
            self.next = (self.next + self.skip) % SLOTS;
            if slots[slot] == FREE {
                return slot;
            }
        }
    }
}

/// FNV-1a, then SplitMix64's finaliser, which FNV needs for its upper bits. Stable: several programs beside each other
/// choose alike.
fn hash(seed: u64, key: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ mix(seed);
    mix(key.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}
