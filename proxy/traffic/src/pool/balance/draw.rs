//! Random choices: by weight, and the better of two.
//!
//! Nothing is drawn here: the numbers come from the request. A choice by weight takes one look into an alias table
//! (Walker 1974, in Vose's form), however many members there are.

use super::Member;
use crate::pool::endpoint::Endpoint;

/// Members by weight.
#[derive(Debug, Default)]
pub(in crate::pool) struct Draw {
    columns: Vec<Column>,
}

/// A member, up to a share of the column, and the one that has the rest of it.
#[derive(Debug, Clone, Copy)]
struct Column {
    /// Of 2^32.
    share: u64,
    other: u32,
}

const WHOLE: u64 = 1 << 32;

impl Draw {
    pub(in crate::pool) fn align(&mut self, members: &[Member]) {
        let count = members.len() as u64;
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let scaled =
            |weight: u32| (u128::from(weight) * u128::from(count) * u128::from(WHOLE) / u128::from(total)) as u64;
        let mut left: Vec<u64> = members.iter().map(|member| scaled(member.weight)).collect();
        self.columns = (0..members.len() as u32).map(|place| Column { share: WHOLE, other: place }).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..members.len()).partition(|place| left[*place] < WHOLE);
        while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
            self.columns[poor] = Column { share: left[poor], other: rich as u32 };
            left[rich] -= WHOLE - left[poor];
            if left[rich] < WHOLE {
                large.pop();
                small.push(rich);
            }
        }
    }

    /// A place by weight; `None` when no member is a candidate.
    pub(in crate::pool) fn pick(
        &self,
        members: &[Member],
        draw: u64,
        candidate: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let place = self.at(draw as u32)?;
        if candidate(&members[place].endpoint) {
            Some(place)
        } else {
            among(members, draw, |one| candidate(&one.endpoint))
        }
    }

    /// The better of two that are drawn by weight, which `cost` tells: the lower one. Cost is divided by weight.
    pub(in crate::pool) fn pick_of_two(
        &self,
        members: &[Member],
        draw: u64,
        cost: impl Fn(&Endpoint) -> f64,
        candidate: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let one = self.pick(members, draw, &candidate)?;
        let is_other = |member: &Member| member.endpoint.id() != members[one].endpoint.id();
        let second = self.at((draw >> 32) as u32).filter(|place| *place != one && candidate(&members[*place].endpoint));
        let second =
            second.or_else(|| among(members, draw >> 32, |member| is_other(member) && candidate(&member.endpoint)));
        let Some(other) = second else { return Some(one) };
        let weighed = |place: usize| cost(&members[place].endpoint) / f64::from(members[place].weight);
        Some(if weighed(other) < weighed(one) { other } else { one })
    }

    fn at(&self, draw: u32) -> Option<usize> {
        let product = u64::from(draw) * self.columns.len() as u64;
        let place = (product >> 32) as usize;
        let column = self.columns.get(place)?;
        Some(if product & (WHOLE - 1) < column.share { place } else { column.other as usize })
    }
}

/// One of those that `fits`, by weight.
fn among(members: &[Member], draw: u64, fits: impl Fn(&Member) -> bool) -> Option<usize> {
    let fitting = || members.iter().enumerate().filter(|(_, member)| fits(member));
    let total: u64 = fitting().map(|(_, member)| u64::from(member.weight)).sum();
    let mut left = draw.checked_rem(total)?;
    for (place, member) in fitting() {
        let weight = u64::from(member.weight);
        if left < weight {
            return Some(place);
        }
        left -= weight;
    }
    None
}
