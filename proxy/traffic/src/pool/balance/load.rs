//! How busy the members are, kept in order while leases come and go.
//!
//! A lease begins and ends without the pool's lock: it marks its endpoint, and the next pick looks at the marked ones
//! again. A tournament tree holds the least loaded member at its root, so that a look costs the logarithm of their
//! number.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Memory};

use super::Member;
use crate::pool::endpoint::{Endpoint, EndpointId};

/// Members that a word of marks stands for.
const BITS: usize = 64;
/// Words of marks. Members beyond 4,096 share marks, which costs a second look and loses nothing.
const WORDS: usize = 64;

/// Which members' loads changed since the last look.
#[derive(Debug)]
pub(in crate::pool) struct Marks {
    /// Whether anybody looks.
    watched: AtomicBool,
    words: [AtomicU64; WORDS],
}

impl Default for Marks {
    fn default() -> Self {
        Self { watched: AtomicBool::new(false), words: [const { AtomicU64::new(0) }; WORDS] }
    }
}

impl Marks {
    /// The load of the member at `place` has changed.
    pub(in crate::pool) fn mark(&self, place: usize) {
        if self.watched.load(Memory::Relaxed) {
            self.words[place / BITS % WORDS].fetch_or(1 << (place % BITS), Memory::SeqCst);
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
        if self.words[word].load(Memory::Relaxed) == 0 { 0 } else { self.words[word].swap(0, Memory::SeqCst) }
    }
}

/// What members are compared by.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    in_flight: u32,
    /// 0 is nobody.
    weight: u32,
    /// When its next turn is, among equals: it grows by the inverse of the weight.
    turn: u64,
}

impl Load {
    /// Whether a request goes here rather than there: fewest in flight for the weight, then the earlier turn.
    fn before(&self, other: &Self) -> bool {
        if self.weight == 0 || other.weight == 0 {
            return other.weight == 0;
        }
        let mine = u64::from(self.in_flight) * u64::from(other.weight);
        let theirs = u64::from(other.in_flight) * u64::from(self.weight);
        match mine.cmp(&theirs) {
            Ordering::Less => true,
            Ordering::Equal => self.turn <= other.turn,
            Ordering::Greater => false,
        }
    }
}

/// The least loaded of the members.
#[derive(Debug, Default)]
pub(in crate::pool) struct Loads {
    /// One for each member, then nobodies up to a power of two.
    leaves: Vec<Load>,
    ids: Vec<EndpointId>,
    /// Winners of the subtrees, by place: 1 is the root, and the leaves begin in the middle.
    winners: Vec<u32>,
    /// The turn of whoever was chosen last.
    turn: u64,
}

/// The turn of weight 1; a member of weight w has w turns in it.
const TURN: u64 = 1 << 24;

impl Loads {
    /// Looks at all members anew; those that stay keep their turn.
    pub(in crate::pool) fn align(&mut self, members: &[Member], marks: &Marks) {
        marks.watch();
        let turns: HashMap<EndpointId, u64> =
            self.ids.iter().copied().zip(self.leaves.iter().map(|load| load.turn)).collect();
        self.ids = members.iter().map(|member| member.endpoint.id()).collect();
        self.leaves = members
            .iter()
            .map(|member| {
                let first = self.turn + TURN / 2 / u64::from(member.weight);
                let turn = turns.get(&member.endpoint.id()).copied().unwrap_or(first);
                Load { in_flight: member.endpoint.in_flight(), weight: member.weight, turn }
            })
            .collect();
        let leaves = members.len().next_power_of_two();
        self.leaves.resize(leaves, Load::default());
        self.winners = vec![0; 2 * leaves];
        for place in 0..leaves {
            self.winners[leaves + place] = place as u32;
        }
        (1..leaves).rev().for_each(|node| self.settle(node));
    }

    /// The place of the least loaded; `None` when no member is a candidate.
    pub(in crate::pool) fn pick(&mut self, members: &[Member], candidate: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let mut passed = Vec::new();
        let chosen = loop {
            let place = self.winners.get(1).map(|place| *place as usize)?;
            let weight = self.leaves[place].weight;
            if weight == 0 {
                break None;
            }
            if candidate(&members[place].endpoint) {
                break Some(place);
            }
            passed.push((place, weight));
            self.leaves[place].weight = 0;
            self.climb(place);
        };
        for (place, weight) in passed {
            self.leaves[place].weight = weight;
            self.climb(place);
        }
        let place = chosen?;
        let leaf = &mut self.leaves[place];
        // Whoever had no turn for long has one now, and not all those that it missed.
        self.turn = self.turn.max(leaf.turn);
        leaf.turn = self.turn + TURN / u64::from(leaf.weight);
        self.climb(place);
        Some(place)
    }

    /// The load of a member has changed.
    pub(in crate::pool) fn look(&mut self, place: usize, endpoint: &Endpoint) {
        self.leaves[place].in_flight = endpoint.in_flight();
        self.climb(place);
    }

    /// Settles the matches from a leaf to the root.
    fn climb(&mut self, place: usize) {
        let mut node = (self.leaves.len() + place) / 2;
        while node > 0 {
            self.settle(node);
            node /= 2;
        }
    }

    fn settle(&mut self, node: usize) {
        let (left, right) = (self.winners[2 * node], self.winners[2 * node + 1]);
        let is_left = self.leaves[left as usize].before(&self.leaves[right as usize]);
        self.winners[node] = if is_left { left } else { right };
    }
}
