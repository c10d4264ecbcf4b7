//! When the requests that are under way at a worker began, for who asks how old the oldest is.
//!
//! Each lease writes its beginning into a free entry of a table and clears it at its end: without a lock, and without a search
//! while there are few. Whoever asks looks through the tables, which is long only where much is under way. No entry is ever
//! shared, so an answer is never older than what is under way.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Entries of each table; powers of two. One is made when a lease finds no entry in those before it.
const TABLES: [usize; 3] = [64, 1_024, 16_384];
/// Entries of a table that a lease looks at before it goes to the next one.
const TRIES: usize = 8;

/// The beginnings of leases under way.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// What beginnings are counted from: that of the first lease.
    first: OnceLock<Instant>,
    /// Nanoseconds since then and one more; 0 is a free entry. Made when they are needed: of many workers few have much to do.
    tables: [OnceLock<Box<[AtomicU64]>>; TABLES.len()],
}

/// The entry of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    table: u8,
    place: u16,
}

impl Starts {
    /// A lease begins. `hint`: a number that differs from lease to lease, so that few meet at an entry. `None` where there is no
    /// entry left, beyond some ten thousand leases: then nobody hears of this one.
    pub(super) fn begin(&self, hint: u64, now: Instant) -> Option<Entry> {
        let since = now.saturating_duration_since(*self.first.get_or_init(|| now));
        let start = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1) + 1;
        TABLES.iter().enumerate().find_map(|(number, size)| {
            let table = self.tables[number].get_or_init(|| (0..*size).map(|_| AtomicU64::new(0)).collect());
            (0..TRIES).find_map(|turn| {
                // Fewer bits than either type has.
                let place = (hint as usize).wrapping_add(turn) & (size - 1);
                let is_ours = table[place].compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed).is_ok();
                is_ours.then_some(Entry { table: number as u8, place: place as u16 })
            })
        })
    }

    /// It ends.
    pub(super) fn end(&self, entry: Entry) {
        if let Some(start) =
            self.tables[usize::from(entry.table)].get().and_then(|all| all.get(usize::from(entry.place)))
        {
            start.store(0, Ordering::Relaxed);
        }
    }

    /// When the oldest that is under way began.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let starts = self.tables.iter().filter_map(OnceLock::get).flat_map(|table| table.iter());
        let oldest = starts.map(|start| start.load(Ordering::Relaxed)).filter(|start| *start > 0).min()?;
        Some(*self.first.get()? + Duration::from_nanos(oldest - 1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn at(base: Instant, millis: u64) -> Instant {
        base + Duration::from_millis(millis)
    }

    #[test]
    fn the_oldest_is_known_and_then_the_next() {
        let (starts, base) = (Starts::default(), Instant::now());
        assert_eq!(starts.oldest(), None);
        let entries: Vec<_> = (0..3).map(|turn| starts.begin(turn, at(base, turn)).unwrap()).collect();
        for turn in 0..3 {
            assert_eq!(starts.oldest(), Some(at(base, turn)));
            starts.end(entries[turn as usize]);
        }
        assert_eq!(starts.oldest(), None);
    }

    #[test]
    fn what_finds_no_entry_is_forgotten_and_harms_nobody() {
        let (starts, base) = (Starts::default(), Instant::now());
        let begun: Vec<_> = (0..20_000).map(|turn| starts.begin(turn, at(base, turn))).collect();
        let known = begun.iter().flatten().count();
        assert!((16_384..20_000).contains(&known), "{known}");
        assert_eq!(starts.oldest(), Some(base));
        begun.into_iter().flatten().for_each(|entry| starts.end(entry));
        assert_eq!(starts.oldest(), None);
    }

    #[test]
    fn threads_that_meet_share_no_entry() {
        let (starts, base) = (Arc::new(Starts::default()), Instant::now());
        // Under way throughout, and older than all others.
        let held = starts.begin(0, base).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let starts = Arc::clone(&starts);
                std::thread::spawn(move || {
                    for turn in 0..50_000 {
                        let entry = starts.begin(turn, at(base, 1)).unwrap();
                        assert_eq!(starts.oldest(), Some(base));
                        starts.end(entry);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        starts.end(held);
        assert_eq!(starts.oldest(), None);
    }

    proptest! {
        // Each step looks through all tables, unoptimised.
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Against a list of all that are under way.
        #[test]
        fn the_oldest_is_the_oldest(steps in prop::collection::vec((any::<bool>(), any::<u16>()), 1..200)) {
            let (starts, base) = (Starts::default(), Instant::now());
            let mut under_way = BTreeMap::new();
            for (time, (begins, chance)) in steps.into_iter().enumerate() {
                if begins {
                    let now = at(base, time as u64);
                    // The same hints again and again: they meet, and some find no entry.
                    if let Some(entry) = starts.begin(u64::from(chance % 16), now) {
                        under_way.insert(now, entry);
                    }
                } else if !under_way.is_empty() {
                    let chosen = *under_way.keys().nth(usize::from(chance) % under_way.len()).unwrap();
                    starts.end(under_way.remove(&chosen).unwrap());
                }
                prop_assert_eq!(starts.oldest(), under_way.keys().next().copied());
            }
        }
    }
}
