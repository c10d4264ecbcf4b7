//! nginx's `hash KEY consistent`: points on a ring as Cache::Memcached::Fast places them (Ketama).
//!
//! A key goes to the next point. A member that comes or goes moves only the keys next to its own points.

use super::Member;
use super::hash::TRIES;
use crate::pool::endpoint::Endpoint;
use tidegate_config::model::Address;

/// Points for each unit of weight.
const POINTS: u32 = 160;

/// The ring.
#[derive(Debug, Default)]
pub(in crate::pool) struct Ring {
    points: Vec<Point>,
    /// First point of each part of the circle, so that a search begins next to its end.
    parts: Vec<u32>,
    shift: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u32,
    place: u32,
}

impl Ring {
    pub(in crate::pool) fn align(&mut self, members: &[Member]) {
        self.points.clear();
        for (place, member) in members.iter().enumerate() {
            let base = base(member.endpoint.address());
            let mut previous = 0_u32;
            for _ in 0..member.weight.saturating_mul(POINTS) {
                let mut hash = base.clone();
                hash.update(&previous.to_le_bytes());
                previous = hash.finalize();
                self.points.push(Point { hash: previous, place: place as u32 });
            }
        }
        self.points.sort_unstable();
        self.points.dedup_by_key(|point| point.hash);
        let bits = self.points.len().max(2).ilog2();
        self.shift = 32 - bits;
        self.parts = vec![0; (1 << bits) + 1];
        let mut next = 0;
        for (part, first) in self.parts.iter_mut().enumerate() {
            while self.points.get(next).is_some_and(|point| ((point.hash >> self.shift) as usize) < part) {
                next += 1;
            }
            *first = next as u32;
        }
    }

    pub(in crate::pool) fn pick(
        &self,
        members: &[Member],
        key: &[u8],
        candidate: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let first = self.at_or_after(crc32fast::hash(key));
        (0..TRIES as usize).find_map(|step| {
            let point = self.points.get((first + step) % self.points.len().max(1))?;
            let place = point.place as usize;
            candidate(&members[place].endpoint).then_some(place)
        })
    }

    /// The first point at this hash or after it; beyond the last one is the first of all.
    fn at_or_after(&self, hash: u32) -> usize {
        let part = (hash >> self.shift) as usize;
        let mut place = self.parts.get(part).map_or(0, |first| *first as usize);
        while self.points.get(place).is_some_and(|point| point.hash < hash) {
            place += 1;
        }
        place
    }
}

/// Host and port with a zero byte between them; a unix socket is its path and no port.
fn base(address: &Address) -> crc32fast::Hasher {
    let text = address.to_string();
    let (host, port) = match text.strip_prefix("unix:") {
        Some(path) => (path, ""),
        None => text.rsplit_once(':').unwrap_or((&text, "")),
    };
    let mut hash = crc32fast::Hasher::new();
    hash.update(host.as_bytes());
    hash.update(&[0]);
    hash.update(port.as_bytes());
    hash
}
