//! Numbers for requests: unique, without order to the eye, and without a system call for each.

use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_traffic::RequestId;
use tidegate_traffic::mix::mix;

/// The numbers of one shard: a random half that only this shard has, and a mixed counter.
#[derive(Debug)]
pub(crate) struct RequestIds {
    prefix: u64,
    key: u64,
    counter: AtomicU64,
}

impl RequestIds {
    /// `seed` must be random and different for each shard; ids tell apart requests, they are no secrets.
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        Self { prefix: seed[0], key: seed[1], counter: AtomicU64::new(0) }
    }

    /// The next one; never the same twice in a shard.
    pub(crate) fn next(&self) -> RequestId {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        // A bijection, so that different numbers stay different.
        RequestId(u128::from(self.prefix) << 64 | u128::from(mix(number.wrapping_add(self.key))))
    }
}

#[cfg(test)]
mod tests {
    use super::RequestIds;
    use std::collections::HashSet;

    #[test]
    fn no_two_are_alike() {
        let ids = RequestIds::new([1, 2]);
        let seen: HashSet<u128> = (0..10_000).map(|_| ids.next().0).collect();
        assert_eq!(seen.len(), 10_000);
    }
}
