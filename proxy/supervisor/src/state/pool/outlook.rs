//! When a pool's next worker will be ready, as far as experience tells.

use std::collections::VecDeque;
use std::time::Duration;

use super::Pool;
use crate::worker::WorkerState;

/// Boots that are remembered.
const REMEMBERED: usize = 9;

/// How long the last workers took from start to ready, oldest first.
#[derive(Debug, Default)]
pub(super) struct Boots(VecDeque<Duration>);

impl Boots {
    pub(super) fn note(&mut self, boot: Duration) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(boot);
    }

    fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

impl Pool {
    /// When the next worker starts, or has started that is not ready yet.
    pub(in crate::state) fn next_start_at(&self) -> Option<Duration> {
        let starts = self.workers.iter().filter_map(|worker| match worker.state {
            WorkerState::Backoff => Some(worker.start_at),
            _ if worker.state.is_booting() => Some(worker.spawned_at.unwrap_or(worker.since)),
            // Its successor starts as soon as it is gone.
            _ if self.slots.get(&worker.id.slot).is_some_and(|slot| slot.is_vacated) => Some(worker.since),
            _ => None,
        });
        starts.min()
    }

    /// How long workers take from start to ready; `None` before the first one.
    pub(in crate::state) fn median_boot(&self) -> Option<Duration> {
        self.boots.median()
    }
}

#[cfg(test)]
mod tests {
    use super::{Boots, Duration, REMEMBERED};

    #[test]
    fn the_last_boots_count() {
        let mut boots = Boots::default();
        assert_eq!(boots.median(), None);
        for seconds in [60, 60, 60, 3, 1, 2] {
            boots.note(Duration::from_secs(seconds));
        }
        assert_eq!(boots.median(), Some(Duration::from_secs(60)));
        (0..REMEMBERED as u64).for_each(|seconds| boots.note(Duration::from_secs(seconds)));
        assert_eq!(boots.median(), Some(Duration::from_secs(4)), "those before are forgotten");
    }
}
