//! Where the levels of clients are kept: a table of fixed size.
//!
//! A client is a hash of its key; what is kept of it is the time at which it is no longer ahead of the rate. Sets of eight
//! entries stand behind a few dozen locks. A set that is full forgets the client that is least ahead: to forget
//! makes a limit more generous, never wrongly strict, and those who are furthest ahead are the last to gain by it. So the
//! memory is bounded whoever sends what.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Levels by client. A trait, so that a store that several hosts share can stand in its place: what it is asked is plain
/// numbers. Such a store is asked by an action of the exchange, since only the driver waits.
pub trait Levels: std::fmt::Debug + Send + Sync {
    /// The level of a client, in nanoseconds ahead of the rate; zero for one that is not known. If it is `most` or less, the
    /// price is put on it, in the same step.
    fn claim(&self, claim: Claim, now: Instant) -> u64;

    /// Clients that are ahead of the rate. Walks through everything: for people who ask, not for requests.
    fn in_use(&self, now: Instant) -> usize;
}

/// What a request asks of a client's level. Times are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The client.
    pub client: u64,
    /// Highest level at which the price is put on it.
    pub most: u64,
    /// Zero only looks.
    pub price: u64,
}

/// Levels in the memory of this process.
#[derive(Debug)]
pub struct Table {
    /// What times count from; the first time that was seen.
    epoch: OnceLock<Instant>,
    parts: Box<[Part]>,
    /// Sets in each part; a power of two.
    sets: usize,
}

/// On a cache line of its own, so that locks do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Part {
    /// Guards the sets of this part for a few comparisons. Empty until the first client comes.
    sets: Mutex<Vec<Set>>,
}

/// The client's hash, and when it is no longer ahead of the rate; an entry whose time has passed is free.
type Entry = [u64; 2];
type Set = [Entry; WAYS];

/// Entries in which a client may stand: two cache lines.
const WAYS: usize = 8;
/// Locks; enough that threads of a large machine seldom meet.
const PARTS: usize = 64;

impl Table {
    /// A table for at least this many clients. Takes no memory to speak of yet.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(PARTS * WAYS).next_power_of_two();
        Self { epoch: OnceLock::new(), parts: (0..PARTS).map(|_| Part::default()).collect(), sets }
    }

    fn time(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(*self.epoch.get_or_init(|| now));
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The part of a client, and its set in there: by bits of its hash that differ.
    fn place(&self, client: u64) -> (&Part, usize) {
        let part = client as usize % PARTS;
        let set = (client >> 32) as usize & (self.sets - 1);
        (&self.parts[part], set)
    }
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, Vec<Set>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Levels for Table {
    fn claim(&self, claim: Claim, now: Instant) -> u64 {
        let now = self.time(now);
        let (part, set) = self.place(claim.client);
        let mut sets = part.lock();
        if sets.is_empty() {
            *sets = vec![[[0; 2]; WAYS]; self.sets];
        }
        let entries = &mut sets[set];
        let found = entries.iter().position(|[client, until]| *client == claim.client && *until > now);
        let level = found.map_or(0, |place| entries[place][1] - now);
        if level <= claim.most && claim.price > 0 {
            let place = found.unwrap_or_else(|| least(entries));
            let until = now.saturating_add(level).saturating_add(claim.price);
            entries[place] = [claim.client, until];
        }
        level
    }

    fn in_use(&self, now: Instant) -> usize {
        let now = self.time(now);
        let used = |part: &Part| part.lock().iter().flatten().filter(|[_, until]| *until > now).count();
        self.parts.iter().map(used).sum()
    }
}

/// The entry that is worth least: free ones come first, having the earliest times.
fn least(entries: &Set) -> usize {
    let places = entries.iter().enumerate();
    places.min_by_key(|(_, [_, until])| *until).map_or(0, |(place, _)| place)
}

#[cfg(test)]
mod tests;
