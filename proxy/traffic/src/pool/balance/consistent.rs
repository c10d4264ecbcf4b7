//! nginx's `hash KEY consistent`: points on a ring as Cache::Memcached::Fast places them (Ketama).
//!
//! A key goes to the next point. A member that comes or goes moves only the keys next to its own points.

use super::Member;
use super::hash::TRIES;
use crate::pool::endpoint::Endpoint;
use std::collections::BTreeMap;
use tidegate_config::model::Address;

/// Points for each unit of weight.
const POINTS: u64 = 160;
/// Points of a ring. Where weights ask for more, each member gets its share of these: a ring of theirs would be megabytes of
/// memory that a key's search would miss.
const MOST_POINTS: u64 = 1 << 20;

/// The ring.
#[derive(Debug, Default)]
pub(in crate::pool) struct Ring {
    points: Vec<Point>,
    /// First point of each part of the circle, so that a search begins next to its end.
    parts: Vec<u32>,
    shift: u32,
    /// Where its members listen, and their weights.
    pub(super) of: Vec<(Address, u32)>,
}

/// Hash, then place: in one number, which sorts faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point(u64);

impl Point {
    fn hash(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn place(self) -> usize {
        self.0 as u32 as usize
    }
}

impl Ring {
    /// The ring of these. For a thousand of weight 1 it takes 3 ms, for the longest one 60.
    fn new(of: Vec<(Address, u32)>) -> Self {
        let points = points(&of);
        let mut ring = Self { points, of, ..Self::default() };
        ring.index();
        ring
    }

    /// The rings of members to come, given by tier, address and weight.
    pub(in crate::pool) fn of_tiers(members: impl Iterator<Item = (u32, Address, u32)>) -> Vec<Self> {
        let mut tiers: BTreeMap<u32, Vec<(Address, u32)>> = BTreeMap::new();
        members.for_each(|(tier, address, weight)| tiers.entry(tier).or_default().push((address, weight)));
        tiers.into_values().map(Self::new).collect()
    }

    /// Becomes the ring of these members, unless it is that already: those out of service are among them, so it mostly is.
    pub(in crate::pool) fn align(&mut self, members: &[Member], prepared: &mut Vec<Self>) {
        if self.is_of(members) {
            return;
        }
        *self = match prepared.iter().position(|ring| ring.is_of(members)) {
            Some(ready) => prepared.swap_remove(ready),
            None => Self::new(members.iter().map(|one| (one.endpoint.address().clone(), one.weight)).collect()),
        };
    }

    fn is_of(&self, members: &[Member]) -> bool {
        let members = members.iter().map(|member| (member.endpoint.address(), member.weight));
        self.of.iter().map(|(address, weight)| (address, *weight)).eq(members)
    }

    fn index(&mut self) {
        let bits = self.points.len().max(2).ilog2();
        self.shift = 32 - bits;
        self.parts = vec![0; (1 << bits) + 1];
        let mut next = 0;
        for (part, first) in self.parts.iter_mut().enumerate() {
            while self.points.get(next).is_some_and(|point| ((point.hash() >> self.shift) as usize) < part) {
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
            let place = point.place();
            candidate(&members[place].endpoint).then_some(place)
        })
    }

    /// The first point at this hash or after it; beyond the last one is the first of all.
    fn at_or_after(&self, hash: u32) -> usize {
        let part = (hash >> self.shift) as usize;
        let mut place = self.parts.get(part).map_or(0, |first| *first as usize);
        while self.points.get(place).is_some_and(|point| point.hash() < hash) {
            place += 1;
        }
        place
    }
}

/// The points of all, each hash once.
fn points(members: &[(Address, u32)]) -> Vec<Point> {
    let asked: u64 = members.iter().map(|(_, weight)| u64::from(*weight) * POINTS).sum();
    let share = |weight: u32| match u64::from(weight) * POINTS {
        all if asked <= MOST_POINTS => all,
        all => (all * MOST_POINTS / asked).max(1),
    };
    let mut points = Vec::with_capacity(asked.min(MOST_POINTS) as usize);
    for (place, (address, weight)) in (0_u64..).zip(members) {
        let base = base(address);
        let mut previous = 0_u32;
        for _ in 0..share(*weight) {
            let mut hash = base.clone();
            hash.update(&previous.to_le_bytes());
            previous = hash.finalize();
            points.push(Point(u64::from(previous) << 32 | place));
        }
    }
    points.sort_unstable();
    points.dedup_by_key(|point| point.hash());
    points
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
