//! How busy the members are, kept in order while leases come and go.
//!
//! A lease begins and ends without the pool's lock: it marks its endpoint, and the next pick looks at the marked ones
//! again. A tournament [`Tree`] holds the least loaded member at its root, so that a look costs the logarithm of their
//! number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Memory};

use super::Member;
use super::tree::Tree;
use crate::pool::endpoint::{Endpoint, EndpointId};

/// Members that a word of marks stands for.
const BITS: usize = 64;
/// Words of marks. Members beyond 4,096 share marks, which costs a second look and loses nothing.
const WORDS: usize = 64;

/// Which members' loads changed since the last look.
#[derive(Debug, Default)]
pub(in crate::pool) struct Marks {
    /// Whether anybody looks.
    watched: AtomicBool,
    words: Words,
}

/// On cache lines of their own: every lease reads whether anybody looks, and leases of all shards write here if so.
#[derive(Debug)]
#[repr(align(64))]
struct Words([AtomicU64; WORDS]);

impl Default for Words {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }
}

impl Marks {
    /// The load of the member at `place` has changed.
    pub(in crate::pool) fn mark(&self, place: usize) {
        if self.watched.load(Memory::Relaxed) {
            let (word, bit) = (&self.words.0[place / BITS % WORDS], 1 << (place % BITS));
            // Whoever takes a mark away looks at the load afterwards. So a mark that is still there will do for this
            // change too, which all threads see in one order.
            if word.load(Memory::SeqCst) & bit == 0 {
                word.fetch_or(bit, Memory::SeqCst);
            }
        }
    }

    fn watch(&self) {
        self.watched.store(true, Memory::SeqCst);
    }

    /// Visits the marked of so many places, and takes their marks away.
    pub(super) fn drain(&self, places: usize, mut visit: impl FnMut(usize)) {
        for word in 0..places.div_ceil(BITS).min(WORDS) {
            let mut marked = self.take(word);
            while marked != 0 {
                let first = word * BITS + marked.trailing_zeros() as usize;
                marked &= marked - 1;
                (first..places).step_by(BITS * WORDS).for_each(&mut visit);
            }
        }
    }

    fn take(&self, word: usize) -> u64 {
        let word = &self.words.0[word];
        if word.load(Memory::Relaxed) == 0 { 0 } else { word.swap(0, Memory::SeqCst) }
    }
}

/// What members are compared by, the least first: requests under way for the weight, then the earlier turn, then the place.
/// One number, so that comparing two costs a few instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Load(u128);

/// Parts of a request that a load is counted in. More than the square of the largest weight (65,535, tenfold during a slow
/// start): so loads that differ still do when they are rounded down.
const PARTS: u64 = 1 << 39;
/// Requests under way beyond which loads are equal.
const MOST_IN_FLIGHT: u32 = (1 << 25) - 1;
/// Bits of a place; members beyond are not chosen.
const PLACE_BITS: u32 = 20;
/// Bits of a turn. Before they are used up, all turns begin anew.
const TURN_BITS: u32 = 64 - PLACE_BITS;

impl Load {
    fn new(in_flight: u32, weight: u32, turn: u64, place: usize) -> Self {
        let parts = u64::from(in_flight.min(MOST_IN_FLIGHT)) * PARTS / u64::from(weight.max(1));
        Self(u128::from(parts) << 64 | u128::from(turn << PLACE_BITS) | place as u128)
    }

    fn place(self) -> usize {
        self.0 as usize & ((1 << PLACE_BITS) - 1)
    }

    fn turn(self) -> u64 {
        self.0 as u64 >> PLACE_BITS
    }
}

/// The least loaded of the members.
#[derive(Debug, Default)]
pub(in crate::pool) struct Loads {
    tree: Tree,
    ids: Vec<EndpointId>,
    /// The turn of whoever was chosen last.
    turn: u64,
}

/// The turn of weight 1; a member of weight w has w turns in it.
const TURN: u64 = 1 << 24;
/// Turns are kept below this, and those that are older than half of it are as good as any.
const LAST_TURN: u64 = 1 << (TURN_BITS - 1);

impl Loads {
    /// Looks at all members anew; those that stay keep their turn.
    pub(in crate::pool) fn align(&mut self, members: &[Member], marks: &Marks) {
        marks.watch();
        let turns = self.ids.iter().enumerate().map(|(place, id)| (*id, self.load(place).turn()));
        let turns: HashMap<EndpointId, u64> = turns.collect();
        let members = &members[..members.len().min(1 << PLACE_BITS)];
        self.ids = members.iter().map(|member| member.endpoint.id()).collect();
        let loads = members.iter().enumerate().map(|(place, member)| {
            let first = self.turn + TURN / 2 / u64::from(member.weight);
            let turn = turns.get(&member.endpoint.id()).copied().unwrap_or(first);
            Load::new(member.endpoint.in_flight(), member.weight, turn, place).0
        });
        self.tree = Tree::new(loads);
    }

    /// The place of the least loaded, which counts one more request from now on; `None` when no member is a candidate.
    /// Whether the request has begun there, the next look tells.
    pub(in crate::pool) fn pick(&mut self, members: &[Member], candidate: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let mut passed = Vec::new();
        let chosen = loop {
            let Some(least) = self.tree.least().map(Load) else { break None };
            let place = least.place();
            if candidate(&members[place].endpoint) {
                break Some(least);
            }
            passed.push(least);
            self.tree.set(place, Tree::NOBODY);
        };
        passed.into_iter().for_each(|load| self.tree.set(load.place(), load.0));
        let chosen = chosen?;
        // Whoever had no turn for long has one now, and not all those that it missed.
        self.turn = self.turn.max(chosen.turn());
        if self.turn >= LAST_TURN {
            self.turn_back(members);
        }
        let (place, Member { endpoint, weight }) = (chosen.place(), &members[chosen.place()]);
        let turn = self.turn + TURN / u64::from(*weight);
        self.tree.set(place, Load::new(endpoint.in_flight().saturating_add(1), *weight, turn, place).0);
        Some(place)
    }

    /// The load of a member may have changed.
    pub(in crate::pool) fn look(&mut self, place: usize, member: &Member) {
        let known = self.load(place);
        let load = Load::new(member.endpoint.in_flight(), member.weight, known.turn(), place);
        if load != known && place < self.ids.len() {
            self.tree.set(place, load.0);
        }
    }

    fn load(&self, place: usize) -> Load {
        Load(self.tree.get(place))
    }

    /// Has turns begin anew in the same order.
    fn turn_back(&mut self, members: &[Member]) {
        let back = self.turn - LAST_TURN / 2;
        self.turn -= back;
        let loads: Vec<Load> = (0..self.ids.len()).map(|place| self.load(place)).collect();
        let earlier = members.iter().zip(loads).map(|(member, load)| {
            Load::new(member.endpoint.in_flight(), member.weight, load.turn().saturating_sub(back), load.place()).0
        });
        self.tree = Tree::new(earlier);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool::balance::round_robin::members;
    use crate::pool::balance::tests::endpoints;

    proptest! {
        /// Rounding keeps the order of the exact quotients, and equal ones equal.
        #[test]
        fn loads_compare_as_the_quotients_do(
            one in (0..100_000_u32, 1..=655_350_u32),
            other in (0..100_000_u32, 1..=655_350_u32),
        ) {
            let parts = |(in_flight, weight): (u32, u32)| Load::new(in_flight, weight, 0, 0);
            let exact = (u64::from(one.0) * u64::from(other.1)).cmp(&(u64::from(other.0) * u64::from(one.1)));
            prop_assert_eq!(parts(one).cmp(&parts(other)), exact);
        }
    }

    #[test]
    fn turns_go_on_in_order_when_they_begin_anew() {
        let lineage = std::sync::Arc::default();
        let members = members(&endpoints(&[1; 3], &lineage));
        let mut loads = Loads::default();
        loads.align(&members, &lineage.marks);
        loads.turn = LAST_TURN - 5 * TURN;
        for round in 0..30 {
            for expected in 0..3 {
                assert_eq!(loads.pick(&members, |_| true), Some(expected), "round {round}");
                loads.look(expected, &members[expected]);
            }
        }
        assert!(loads.turn < LAST_TURN);
    }

    #[test]
    fn a_load_keeps_turn_and_place() {
        let load = Load::new(u32::MAX, 1, LAST_TURN + TURN, (1 << PLACE_BITS) - 1);
        assert_eq!((load.turn(), load.place()), (LAST_TURN + TURN, (1 << PLACE_BITS) - 1));
        assert!(load.0 < Tree::NOBODY);
    }
}
