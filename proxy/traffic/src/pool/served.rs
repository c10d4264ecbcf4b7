//! What became of the requests that an endpoint was given: every lease that ended, in one of its ends.

use super::faults::FaultCounts;

/// Leases of an endpoint that have ended, by how. Each counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Its answer was passed on, whatever its status, or the exchange became a tunnel.
    pub answered: u64,
    /// The endpoint failed it, or its answer gave way to another try.
    pub faults: FaultCounts,
    /// The client went away, or the exchange was dropped.
    pub abandoned: u64,
    /// We ended it for a reason of our own.
    pub cancelled: u64,
    /// Another endpoint answered the same request first.
    pub overtaken: u64,
}

impl Served {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// What came on top of `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        self.with(before, u64::saturating_sub)
    }

    fn with(&self, other: &Self, combine: impl Fn(u64, u64) -> u64 + Copy) -> Self {
        Self {
            answered: combine(self.answered, other.answered),
            faults: self.faults.with(&other.faults, combine),
            abandoned: combine(self.abandoned, other.abandoned),
            cancelled: combine(self.cancelled, other.cancelled),
            overtaken: combine(self.overtaken, other.overtaken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_on_top_is_the_rest_of_the_sum() {
        let before = Served { answered: 3, abandoned: 1, ..Served::default() };
        let more = Served { answered: 4, cancelled: 2, overtaken: 5, ..Served::default() };
        let now = before.plus(&more);
        assert_eq!((now.answered, now.abandoned, now.cancelled, now.overtaken), (7, 1, 2, 5));
        assert_eq!((now.since(&before), before.since(&now)), (more, Served::default()));
    }
}
