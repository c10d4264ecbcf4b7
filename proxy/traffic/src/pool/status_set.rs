//! Statuses of answers, looked up without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// A set of statuses from 100 to 611. What is looked up while it changes finds the old or the new one.
#[derive(Debug, Default)]
pub(super) struct StatusSet {
    /// Bits from 100 on.
    words: [AtomicU64; 8],
}

impl StatusSet {
    pub(super) fn set(&self, statuses: &[u16]) {
        for (word, bits) in self.words.iter().enumerate() {
            let of_word = statuses.iter().map(|status| bit(*status)).filter(|(place, _)| *place == word);
            bits.store(of_word.fold(0, |bits, (_, bit)| bits | bit), Ordering::Relaxed);
        }
    }

    pub(super) fn contains(&self, status: u16) -> bool {
        let (word, bit) = bit(status);
        self.words.get(word).is_some_and(|bits| bits.load(Ordering::Relaxed) & bit != 0)
    }
}

/// Word and bit of a status.
fn bit(status: u16) -> (usize, u64) {
    let place = usize::from(status.saturating_sub(100));
    (place / 64, 1 << (place % 64))
}
