//! The least of many numbers that change one at a time: a tournament tree, four by four.
//!
//! What four were compared with is copied upwards, so a change reads and writes one cache line for each level (five for a
//! thousand members), whose places are known from the start: nothing is followed.

/// The numbers in matches of four.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Level by level: the first is the final, the four after it are those whose winners meet there, and so on. The
    /// members stand in those of the last level, the rest of which is nobody.
    matches: Vec<Match>,
    /// First of the last level.
    first: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Match([u128; 4]);

impl Tree {
    /// More than any number of a member.
    pub(super) const NOBODY: u128 = u128::MAX;

    /// A tree of these, by their place.
    pub(super) fn new(numbers: impl ExactSizeIterator<Item = u128>) -> Self {
        let (mut first, mut places) = (0, 4);
        while places < numbers.len() {
            first = 4 * first + 1;
            places *= 4;
        }
        let needed = first + numbers.len().div_ceil(4);
        let mut matches = vec![Match([Self::NOBODY; 4]); needed];
        for (place, number) in numbers.enumerate() {
            matches[first + place / 4].0[place % 4] = number;
        }
        for played in (1..needed).rev() {
            matches[(played - 1) / 4].0[(played - 1) % 4] = matches[played].least();
        }
        Self { matches, first }
    }

    /// The least of all; `None` when all are nobody.
    pub(super) fn least(&self) -> Option<u128> {
        self.matches.first().map(Match::least).filter(|least| *least != Self::NOBODY)
    }

    /// The number of a member.
    pub(super) fn get(&self, place: usize) -> u128 {
        self.matches.get(self.first + place / 4).map_or(Self::NOBODY, |found| found.0[place % 4])
    }

    /// The number of a member has changed.
    pub(super) fn set(&mut self, place: usize, number: u128) {
        let (mut at, mut seat, mut number) = (self.first + place / 4, place % 4, number);
        while let Some(played) = self.matches.get_mut(at)
            && played.0[seat] != number
        {
            played.0[seat] = number;
            number = played.least();
            let Some(winner) = at.checked_sub(1) else { return };
            (at, seat) = (winner / 4, winner % 4);
        }
    }
}

impl Match {
    fn least(&self) -> u128 {
        let [a, b, c, d] = self.0;
        a.min(b).min(c.min(d))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_is_the_least_of_none() {
        assert_eq!(Tree::default().least(), None);
        assert_eq!(Tree::new([].into_iter()).least(), None);
        assert_eq!(Tree::new([Tree::NOBODY].into_iter()).least(), None);
    }

    proptest! {
        #[test]
        fn the_least_stands_at_the_top(
            mut numbers in prop::collection::vec(0..1_000_u128, 1..100),
            changes in prop::collection::vec((0..100_usize, prop_oneof![4 => 0..1_000_u128, 1 => Just(Tree::NOBODY)]), 0..200),
        ) {
            let mut tree = Tree::new(numbers.clone().into_iter());
            for (place, number) in changes {
                if let Some(known) = numbers.get_mut(place) {
                    *known = number;
                    tree.set(place, number);
                }
                let least = numbers.iter().copied().min().filter(|least| *least != Tree::NOBODY);
                prop_assert_eq!(tree.least(), least);
            }
            prop_assert!((0..numbers.len()).all(|place| tree.get(place) == numbers[place]));
        }
    }
}
