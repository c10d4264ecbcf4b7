//! How an endpoint is used: leases under way, and leases ever given. One number, so that a lease begins with one atomic
//! operation and whoever reads sees both as they were at one moment.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sequentially consistent throughout: of a drain, or of a request that begins to wait, and the end of a last lease, at least
/// one sees the other.
#[derive(Debug, Default)]
pub(super) struct Usage(AtomicU64);

/// Leases under way stand in the lower bits: memory ends long before they do. Leases ever given stand above; after 2^40 of
/// them they begin anew.
const UNDER_WAY_BITS: u32 = 24;
const GIVEN: u64 = 1 << UNDER_WAY_BITS;
const UNDER_WAY: u64 = GIVEN - 1;

impl Usage {
    /// A lease begins, unless `most` are under way.
    pub(super) fn begin(&self, most: Option<u32>) -> bool {
        let Some(most) = most else {
            self.0.fetch_add(GIVEN + 1, Ordering::SeqCst);
            return true;
        };
        let next = |usage| (under_way(usage) < most).then(|| u64::wrapping_add(usage, GIVEN + 1));
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }

    /// A lease ends.
    pub(super) fn end(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// A lease that is under way was given to nobody.
    pub(super) fn discount(&self) {
        self.0.fetch_sub(GIVEN, Ordering::SeqCst);
    }

    /// Leases under way.
    pub(super) fn under_way(&self) -> u32 {
        under_way(self.0.load(Ordering::SeqCst))
    }

    /// Leases under way, and leases ever given.
    pub(super) fn both(&self) -> (u32, u64) {
        let usage = self.0.load(Ordering::SeqCst);
        (under_way(usage), usage >> UNDER_WAY_BITS)
    }
}

fn under_way(usage: u64) -> u32 {
    // Fewer bits than the type has.
    (usage & UNDER_WAY) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_counts_go_their_own_way() {
        let usage = Usage::default();
        assert!(usage.begin(None) && usage.begin(Some(2)) && !usage.begin(Some(2)));
        assert_eq!(usage.both(), (2, 2));
        usage.end();
        usage.discount();
        assert_eq!((usage.both(), usage.under_way()), ((1, 1), 1));
        usage.end();
        assert_eq!(usage.both(), (0, 1));
    }

    #[test]
    fn the_last_lease_of_all_counts_begins_them_anew() {
        let usage = Usage(AtomicU64::new(u64::MAX - UNDER_WAY));
        assert!(usage.begin(Some(1)));
        assert_eq!(usage.both(), (1, 0));
        usage.end();
        assert_eq!(usage.both(), (0, 0));
    }
}
