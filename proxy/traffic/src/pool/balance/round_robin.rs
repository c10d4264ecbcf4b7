//! nginx's smooth weighted round robin, in time that grows with the number of different weights only.
//!
//! At every pick each candidate gains its weight; the one with the most (the first of equals) is chosen and pays the
//! weights of all. Weights 5, 1, 1 give a a b a c a a: in proportion, and without bursts.
//!
//! Members of one weight gain alike, so the one of them that was chosen least stays in front of its group, and only the
//! fronts need comparing. Picks that pass somebody over (an endpoint that was tried or is full) look at every member.

use super::Member;
use crate::pool::endpoint::{Endpoint, EndpointId};
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

/// What each member has gained and paid.
#[derive(Debug, Default)]
pub(in crate::pool) struct RoundRobin {
    groups: Vec<Group>,
    /// By place.
    ids: Vec<EndpointId>,
    /// Weights of all.
    total: i64,
}

/// Members of one weight, the next to be chosen first.
#[derive(Debug)]
struct Group {
    weight: i64,
    gained: i64,
    queue: VecDeque<Account>,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    paid: i64,
    place: u32,
}

impl RoundRobin {
    /// Members that stay keep what they have gained.
    pub(in crate::pool) fn align(&mut self, members: &[Member]) {
        let (old, total) = (self.total, members.iter().map(|member| i64::from(member.weight)).sum());
        // Gains are as large as the weights, and these may all be ten times as large for a while.
        let scaled = |gained: i64| if old == total { gained } else { gained * total / old.max(1) };
        let ids = std::mem::take(&mut self.ids);
        let gain = |group: &Group, one: &Account| (ids[one.place()], scaled(group.gained - one.paid));
        let gains = self.groups.iter().flat_map(|group| group.queue.iter().map(move |one| (group, one)));
        let known: HashMap<EndpointId, i64> = gains.map(|(group, one)| gain(group, one)).collect();
        self.groups.clear();
        self.total = total;
        for (place, member) in (0..).zip(members) {
            let id = member.endpoint.id();
            self.ids.push(id);
            let account = Account { place, paid: -known.get(&id).copied().unwrap_or(0) };
            let weight = i64::from(member.weight);
            match self.groups.iter_mut().find(|group| group.weight == weight) {
                Some(group) => group.queue.push_back(account),
                None => self.groups.push(Group { weight, gained: 0, queue: VecDeque::from([account]) }),
            }
        }
        self.groups.iter_mut().for_each(Group::sort);
    }

    /// The place of the next one; `None` when no member is a candidate. `all` says that every member is one.
    pub(in crate::pool) fn pick(
        &mut self,
        members: &[Member],
        all: bool,
        candidate: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        if all { self.pick_front() } else { self.pick_among(members, candidate) }
    }

    fn pick_front(&mut self) -> Option<usize> {
        for group in &mut self.groups {
            group.gained += group.weight;
        }
        let best = self.groups.iter_mut().max_by_key(|group| {
            let front = group.queue.front().map_or((i64::MIN, 0), |front| (group.gained - front.paid, front.place));
            (front.0, Reverse(front.1))
        })?;
        let mut front = best.queue.pop_front()?;
        front.paid += self.total;
        // Only who was passed over for long may stand behind it.
        if best.queue.back().is_none_or(|last| last.rank() <= front.rank()) {
            best.queue.push_back(front);
        } else {
            let rank = best.queue.partition_point(|one| one.rank() <= front.rank());
            best.queue.insert(rank, front);
        }
        Some(front.place())
    }

    fn pick_among(&mut self, members: &[Member], candidate: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(i64, Reverse<usize>, usize, usize)> = None;
        for (number, group) in self.groups.iter_mut().enumerate() {
            group.gained += group.weight;
            for (index, one) in group.queue.iter_mut().enumerate() {
                if !candidate(&members[one.place()].endpoint) {
                    // Whoever is passed over gains nothing.
                    one.paid += group.weight;
                    continue;
                }
                total += group.weight;
                let rank = (group.gained - one.paid, Reverse(one.place()), number, index);
                if best.is_none_or(|best| (rank.0, rank.1) > (best.0, best.1)) {
                    best = Some(rank);
                }
            }
        }
        let chosen = best.map(|(_, Reverse(place), number, index)| {
            self.groups[number].queue[index].paid += total;
            place
        });
        self.groups.iter_mut().for_each(Group::sort);
        chosen
    }
}

impl Group {
    fn sort(&mut self) {
        self.queue.make_contiguous().sort_by_key(Account::rank);
    }
}

impl Account {
    fn place(&self) -> usize {
        self.place as usize
    }

    /// The lowest of a group is next.
    fn rank(&self) -> (i64, u32) {
        (self.paid, self.place)
    }
}

/// The rule as nginx writes it, for comparison.
#[cfg(test)]
pub(super) struct Plain(Vec<i64>);

#[cfg(test)]
impl Plain {
    pub(super) fn new(members: usize) -> Self {
        Self(vec![0; members])
    }

    pub(super) fn pick(&mut self, weights: &[u32], candidate: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for place in (0..weights.len()).filter(|place| candidate(*place)) {
            self.0[place] += i64::from(weights[place]);
            total += i64::from(weights[place]);
            if best.is_none_or(|best| self.0[place] > self.0[best]) {
                best = Some(place);
            }
        }
        self.0[best?] -= total;
        best
    }
}

/// The members of a slice of endpoints with their own weights.
#[cfg(test)]
pub(super) fn members(endpoints: &[std::sync::Arc<Endpoint>]) -> Vec<Member> {
    endpoints
        .iter()
        .map(|endpoint| Member { endpoint: std::sync::Arc::clone(endpoint), weight: endpoint.weight() })
        .collect()
}
