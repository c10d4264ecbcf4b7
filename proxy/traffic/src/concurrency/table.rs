//! What is under way, by client.
//!
//! A client is a hash of its key, and stands here while it has a request under way and no longer: memory is bounded by
//! what is under way, whoever sends what. Maps behind a few dozen locks, so that threads seldom meet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests under way by client.
#[derive(Debug)]
pub struct Table {
    parts: Box<[Part]>,
}

/// A place of a request; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    table: Arc<Table>,
    client: u64,
}

/// On a cache line of its own, so that locks do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Part {
    /// Guards the clients of this part for one look-up.
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// Requests of each client; never zero.
    clients: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    /// Of all clients.
    requests: u64,
}

/// Locks; enough that threads of a large machine seldom meet.
const PARTS: usize = 64;
/// Clients that a part keeps room for when it shrinks.
const LEAST_ROOM: usize = 16;

impl Default for Table {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Part::default()).collect() }
    }
}

impl Table {
    /// A place for a request of this client, unless `max` of its requests are under way.
    #[must_use]
    pub fn take(self: &Arc<Self>, client: u64, max: u32) -> Option<Place> {
        let mut under_way = self.part(client).lock();
        match under_way.clients.entry(client) {
            Entry::Occupied(known) if *known.get() >= max => return None,
            Entry::Occupied(mut known) => *known.get_mut() += 1,
            Entry::Vacant(_) if max == 0 => return None,
            Entry::Vacant(new) => *new.insert(0) += 1,
        }
        under_way.requests += 1;
        Some(Place { table: Arc::clone(self), client })
    }

    fn give_back(&self, client: u64) {
        let mut under_way = self.part(client).lock();
        let Entry::Occupied(mut known) = under_way.clients.entry(client) else { return };
        *known.get_mut() -= 1;
        if *known.get() == 0 {
            known.remove();
            under_way.shrink();
        }
        under_way.requests -= 1;
    }

    /// Requests under way. Takes every lock: for people who ask, not for requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.parts.iter().map(|part| part.lock().requests).sum()
    }

    /// Clients that have requests under way. Takes every lock too.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.parts.iter().map(|part| part.lock().clients.len()).sum()
    }

    /// By bits that a map of a part does not go by first.
    fn part(&self, client: u64) -> &Part {
        &self.parts[(client >> 40) as usize % PARTS]
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.parts.iter().map(|part| part.lock().clients.capacity()).sum()
    }
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// Gives back memory that a flood has left, seldom enough that a client that comes and goes costs nothing.
    fn shrink(&mut self) {
        let (used, room) = (self.clients.len(), self.clients.capacity());
        if room > 4 * LEAST_ROOM && used < room / 8 {
            self.clients.shrink_to((2 * used).max(LEAST_ROOM));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.give_back(self.client);
    }
}

/// Clients are hashes already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, client: u64) {
        self.0 = client;
    }
}
