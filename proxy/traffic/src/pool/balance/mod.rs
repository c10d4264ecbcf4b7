//! How a pool chooses one of its endpoints.
//!
//! Endpoints of the lowest priority number are chosen among as long as one of them can take the request, then those of
//! the next: the tiers. Within a tier every policy has the same skeleton: `align` is told the members whenever they
//! change and keeps what it knows about those that stay, and `pick` chooses among the candidates. Both run under the
//! pool's lock.

mod consistent;
mod draw;
mod hash;
mod load;
mod maglev;
mod round_robin;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;
use std::time::Instant;

use tidegate_config::model;

use super::endpoint::Endpoint;
use super::key::Key;
use super::sticky::Names;
pub(super) use consistent::Ring;
use draw::Draw;
use hash::Shares;
use load::Loads;
pub(super) use load::Marks;
use maglev::Table;
use round_robin::RoundRobin;

/// What a choice may depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    /// What the request is told apart by.
    pub(super) key: &'a Key,
    /// A random number of this attempt.
    pub(super) draw: u64,
    pub(super) now: Instant,
    /// Every member is a candidate, as far as the pool knows.
    pub(super) all: bool,
}

/// An endpoint with the weight it has now, which is at least 1.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) weight: u32,
}

/// The policy of a pool with its state, for each tier.
#[derive(Debug)]
pub(super) struct Balance {
    kind: model::Balance,
    tiers: Vec<Tier>,
    /// Set where clients stay with endpoints.
    names: Option<Names>,
    /// For the next `align`.
    prepared: Vec<Ring>,
}

/// Endpoints of one priority.
#[derive(Debug)]
struct Tier {
    priority: u32,
    /// Place of its first member among those of all tiers.
    first: usize,
    members: Vec<Member>,
    policy: Policy,
}

#[derive(Debug)]
enum Policy {
    RoundRobin(RoundRobin),
    LeastConn(Loads),
    Random(Draw),
    RandomTwo(Draw),
    Ewma(Draw),
    IpHash(Shares, RoundRobin),
    Hash(Shares, RoundRobin),
    Consistent(Ring, RoundRobin),
    Maglev(Table, RoundRobin),
}

impl Balance {
    pub(super) fn new(kind: model::Balance) -> Self {
        Self { kind, tiers: Vec::new(), names: None, prepared: Vec::new() }
    }

    /// Chooses in this way after the next `align`.
    pub(super) fn set_kind(&mut self, kind: &model::Balance) {
        if self.kind != *kind {
            self.kind = kind.clone();
            self.tiers.clear();
        }
    }

    /// By what clients stay with endpoints, if they do.
    pub(super) fn names(&mut self) -> &mut Option<Names> {
        &mut self.names
    }

    pub(super) fn kind(&self) -> &model::Balance {
        &self.kind
    }

    /// Whether who is out of service keeps a place, so that only that one's keys move.
    pub(super) fn keeps_places(&self) -> bool {
        self.kind.key().is_some()
    }

    /// What takes long of an `align` that is to follow. It is made without the pool's lock; where it does not fit the members
    /// then it is made again, with it.
    pub(super) fn prepare(&mut self, rings: Vec<Ring>) {
        self.prepared = rings;
    }

    /// The members have changed; `pick` chooses among these until the next change.
    pub(super) fn align(&mut self, members: Vec<Member>, marks: &Marks) {
        let mut old = std::mem::take(&mut self.tiers);
        for member in members {
            let priority = member.endpoint.priority();
            let place = match self.tiers.binary_search_by_key(&priority, |tier| tier.priority) {
                Ok(place) => place,
                Err(place) => {
                    let known = old.iter().position(|tier| tier.priority == priority);
                    let policy = known.map_or_else(|| Policy::new(&self.kind), |known| old.swap_remove(known).policy);
                    self.tiers.insert(place, Tier { priority, first: 0, members: Vec::new(), policy });
                    place
                }
            };
            self.tiers[place].members.push(member);
        }
        let mut places = 0;
        let mut prepared = std::mem::take(&mut self.prepared);
        for tier in &mut self.tiers {
            tier.first = places;
            for member in &tier.members {
                member.endpoint.set_place(places);
                places += 1;
            }
            tier.policy.align(&tier.members, marks, &mut prepared);
        }
    }

    /// The chosen endpoint, the one that the client stays with if it can; `None` when none is a candidate.
    pub(super) fn pick(
        &mut self,
        choice: &Choice<'_>,
        marks: &Marks,
        candidate: impl Fn(&Endpoint) -> bool,
    ) -> Option<Arc<Endpoint>> {
        if let (Some(names), Some(token)) = (&self.names, choice.key.token())
            && let Some(endpoint) = names.find(token, &candidate)
        {
            return Some(endpoint);
        }
        if matches!(self.kind, model::Balance::LeastConn) {
            self.look(marks);
        }
        self.tiers.iter_mut().find_map(|tier| {
            let place = tier.policy.pick(&tier.members, choice, &candidate)?;
            if let Policy::LeastConn(_) = tier.policy {
                // A lease begins on it, as far as can be seen from here: the next pick looks whether it did.
                marks.mark(tier.first + place);
            }
            Some(Arc::clone(&tier.members[place].endpoint))
        })
    }
}

impl Balance {
    /// Looks at the members whose loads have changed, those of every tier: their marks are gone then.
    fn look(&mut self, marks: &Marks) {
        let places = self.tiers.last().map_or(0, |tier| tier.first + tier.members.len());
        marks.drain(places, |place| {
            let number = self.tiers.partition_point(|tier| tier.first <= place) - 1;
            let Tier { first, members, policy, .. } = &mut self.tiers[number];
            if let Policy::LeastConn(loads) = policy {
                loads.look(place - *first, &members[place - *first]);
            }
        });
    }
}

impl Policy {
    fn new(kind: &model::Balance) -> Self {
        match kind {
            model::Balance::RoundRobin => Self::RoundRobin(RoundRobin::default()),
            model::Balance::LeastConn => Self::LeastConn(Loads::default()),
            model::Balance::Random => Self::Random(Draw::default()),
            model::Balance::RandomTwo => Self::RandomTwo(Draw::default()),
            model::Balance::Ewma => Self::Ewma(Draw::default()),
            model::Balance::IpHash => Self::IpHash(Shares::default(), RoundRobin::default()),
            model::Balance::Hash(_) => Self::Hash(Shares::default(), RoundRobin::default()),
            model::Balance::Consistent(_) => Self::Consistent(Ring::default(), RoundRobin::default()),
            model::Balance::Maglev(_) => Self::Maglev(Table::default(), RoundRobin::default()),
        }
    }

    fn align(&mut self, members: &[Member], marks: &Marks, prepared: &mut Vec<Ring>) {
        match self {
            Self::RoundRobin(turns) => turns.align(members),
            Self::LeastConn(loads) => loads.align(members, marks),
            Self::Random(draw) | Self::RandomTwo(draw) | Self::Ewma(draw) => draw.align(members),
            Self::IpHash(shares, turns) | Self::Hash(shares, turns) => {
                shares.align(members);
                turns.align(members);
            }
            Self::Consistent(ring, turns) => {
                ring.align(members, prepared);
                turns.align(members);
            }
            Self::Maglev(table, turns) => {
                table.align(members);
                turns.align(members);
            }
        }
    }

    /// Requests without a key, and keys whose members are all out of service, go in turn.
    fn pick(
        &mut self,
        members: &[Member],
        choice: &Choice<'_>,
        candidate: &impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let by_key = match self {
            Self::RoundRobin(turns) => return turns.pick(members, choice.all, candidate),
            Self::LeastConn(loads) => return loads.pick(members, candidate),
            Self::Random(draw) => return draw.pick(members, choice.draw, candidate),
            Self::RandomTwo(draw) => {
                return draw.pick_of_two(members, choice.draw, |one| f64::from(one.in_flight()), candidate);
            }
            Self::Ewma(draw) => return draw.pick_of_two(members, choice.draw, |one| one.cost(choice.now), candidate),
            Self::IpHash(shares, _) => {
                choice.key.address().and_then(|address| shares.pick_by_address(members, address, candidate))
            }
            Self::Hash(shares, _) => choice.key.bytes().and_then(|key| shares.pick_by_key(members, key, candidate)),
            Self::Consistent(ring, _) => choice.key.bytes().and_then(|key| ring.pick(members, key, candidate)),
            Self::Maglev(table, _) => choice.key.bytes().and_then(|key| table.pick(members, key, candidate)),
        };
        match self {
            Self::IpHash(_, turns) | Self::Hash(_, turns) | Self::Consistent(_, turns) | Self::Maglev(_, turns) => {
                by_key.or_else(|| turns.pick(members, false, candidate))
            }
            Self::RoundRobin(_) | Self::LeastConn(_) | Self::Random(_) | Self::RandomTwo(_) | Self::Ewma(_) => by_key,
        }
    }
}
