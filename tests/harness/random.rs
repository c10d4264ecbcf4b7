//! Numbers that look random and are the same for the same seed, so that a failed run can be had again.
//!
//! No crate: the sequence must not change with one.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    ops::Range,
};

/// A sequence of numbers (SplitMix64). No secret, and no defence against anybody.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The sequence of the `index`-th thing of a run, whatever the others took from theirs.
    pub fn of(seed: u64, index: u64) -> Self {
        Self(Self::new(seed ^ index.wrapping_mul(GOLDEN)).number())
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `range`.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        range.start + (self.number() % range.len() as u64) as usize
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.number() % 100 < percent
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.within(0..all.len())]
    }
}

/// A seed nobody chose.
pub fn fresh_seed() -> u64 {
    // The standard library's keys for hash maps are random and differ each time.
    RandomState::new().build_hasher().finish()
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence() {
        let mut random = Random::new(0);
        assert_eq!([random.number(), random.number()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        assert_ne!(Random::of(1, 2).number(), Random::of(1, 3).number());
        assert_eq!(Random::of(1, 2).number(), Random::of(1, 2).number());
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::new(7);
        let seen: std::collections::BTreeSet<_> = (0..200).map(|_| random.within(3..6)).collect();
        assert_eq!(seen, [3, 4, 5].into());
        assert!(!random.chance(0) && random.chance(100));
        assert_eq!(random.one_of(&["only"]), &"only");
    }
}
