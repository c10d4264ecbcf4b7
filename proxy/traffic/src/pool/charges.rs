//! Which routes the requests that a worker was given came from, counted for who asks what requests cost.
//!
//! Off unless a site file wants it: then routes have no column, leases are charged to none, and endpoints have no counters.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::endpoint::Endpoint;
use super::lease::Lease;

/// Routes of an upstream that are told apart; what further ones get is counted together.
pub const NAMED: usize = 16;
/// All columns: those of routes, and that of all others.
pub const COLUMNS: usize = NAMED + 1;

/// A route by its site's and its own name.
pub type RouteName = (Arc<str>, Arc<str>);

/// Where requests of a route are counted: its place and one more, so that a lease without one is no larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column(NonZeroU8);

impl Column {
    /// Where routes beyond [`NAMED`] are counted.
    const OTHERS: Self = Self(NonZeroU8::MIN.saturating_add(NAMED as u8));

    fn at(place: usize) -> Self {
        u8::try_from(place.min(NAMED)).map_or(Self::OTHERS, |place| Self(NonZeroU8::MIN.saturating_add(place)))
    }

    fn place(self) -> usize {
        usize::from(self.0.get()) - 1
    }
}

/// The columns of an upstream's routes. A route keeps its column from one snapshot to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Whose column it is; that of a route that is no more keeps its name until it is needed.
    names: Vec<RouteName>,
    /// Another one since a column was given to another route: what was counted before says nothing of it.
    epoch: u64,
}

impl Columns {
    /// For these routes, after those of the snapshot before.
    #[must_use]
    pub fn after(previous: Option<&Self>, routes: &BTreeSet<RouteName>) -> Self {
        let mut columns = previous.cloned().unwrap_or_default();
        let known: HashSet<RouteName> = columns.names.iter().cloned().collect();
        let mut unused: Vec<usize> =
            (0..columns.names.len()).filter(|place| !routes.contains(&columns.names[*place])).collect();
        let mut is_reused = false;
        for route in routes.iter().filter(|route| !known.contains(*route)) {
            if columns.names.len() < NAMED {
                columns.names.push(route.clone());
            } else if let Some(place) = unused.pop() {
                columns.names[place] = route.clone();
                is_reused = true;
            }
        }
        columns.epoch += u64::from(is_reused);
        columns
    }

    /// Where requests of a route are counted.
    #[must_use]
    pub fn of(&self, route: &RouteName) -> Column {
        self.names.iter().position(|name| name == route).map_or(Column::OTHERS, Column::at)
    }

    /// Whose column that is; `None` is that of all others.
    #[must_use]
    pub fn name(&self, place: usize) -> Option<&RouteName> {
        self.names.get(place)
    }

    /// Another one since a column was given to another route.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// What an endpoint was charged with.
#[derive(Debug, Default)]
pub(super) struct Charges([Charge; COLUMNS]);

#[derive(Debug, Default)]
struct Charge {
    requests: AtomicU64,
    held_micros: AtomicU64,
}

/// What an endpoint was charged with so far for a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charged {
    /// Exchanges that have ended.
    pub requests: u64,
    /// How long they held the endpoint, all together; those that the client left are not in it.
    pub held: Duration,
}

impl Endpoint {
    /// What it was charged with so far, by column. Nothing while nobody wants to know.
    #[must_use]
    pub fn charged(&self) -> [Charged; COLUMNS] {
        let Some(Charges(charges)) = self.charges().get().map(|all| &**all) else { return Default::default() };
        std::array::from_fn(|place| Charged {
            requests: charges[place].requests.load(Ordering::Relaxed),
            held: Duration::from_micros(charges[place].held_micros.load(Ordering::Relaxed)),
        })
    }

    /// An exchange of this column has ended. Its first one makes the counters. Kept away from what every request runs through.
    #[cold]
    pub(super) fn charge(&self, column: Column, held: Option<Duration>) {
        let Charges(charges) = &**self.charges().get_or_init(Box::default);
        let charge = &charges[column.place().min(NAMED)];
        charge.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(held) = held {
            charge.held_micros.fetch_add(u64::try_from(held.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

impl Lease {
    /// Its exchange is one of this column, if anybody wants to know.
    pub(crate) fn charge_to(&mut self, column: Option<Column>) {
        self.set_column(column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(names: impl IntoIterator<Item = usize>) -> BTreeSet<RouteName> {
        names.into_iter().map(|name| (Arc::from("site"), Arc::from(format!("{name:03}")))).collect()
    }

    fn name(number: usize) -> RouteName {
        (Arc::from("site"), Arc::from(format!("{number:03}")))
    }

    #[test]
    fn a_route_keeps_its_column_and_further_ones_share_one() {
        let first = Columns::after(None, &routes(0..NAMED + 3));
        assert_eq!([first.of(&name(0)), first.of(&name(NAMED - 1))], [Column::at(0), Column::at(15)]);
        assert_eq!([first.of(&name(NAMED)), first.of(&name(NAMED + 2))], [Column::OTHERS; 2]);
        // Route 3 has gone, 50 is new: it takes that column, which counts for another one from now on.
        let second = Columns::after(Some(&first), &routes((0..NAMED).filter(|one| *one != 3).chain([50])));
        assert_eq!((second.of(&name(50)), second.of(&name(4)), second.epoch()), (Column::at(3), Column::at(4), 1));
        assert_eq!((second.name(3), second.name(NAMED)), (Some(&name(50)), None));
    }

    #[test]
    fn a_free_column_is_taken_before_one_that_was_counted_in() {
        let first = Columns::after(None, &routes([1, 2]));
        let second = Columns::after(Some(&first), &routes([2, 3]));
        assert_eq!((second.of(&name(2)), second.of(&name(3)), second.epoch()), (Column::at(1), Column::at(2), 0));
        assert_eq!(Columns::after(Some(&second), &routes([1, 2, 3])).of(&name(1)), Column::at(0), "as before");
    }
}
