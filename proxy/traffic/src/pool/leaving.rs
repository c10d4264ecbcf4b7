//! What an endpoint that gets nothing new still has to do, and who waits for the end of that.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::endpoint::OnIdle;

/// What is left of what was under way, the least last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    /// Requests.
    Requests,
    /// Only what lasts: tunnels, and answers that stream.
    Lasting,
    /// Nothing.
    Nothing,
}

/// Callbacks of drains under way.
#[derive(Default)]
pub(super) struct Leaving {
    /// Taken only by a drain and by what ends after it began; free while callbacks run.
    waiting: Mutex<Vec<(Left, OnIdle)>>,
}

impl Leaving {
    /// Runs the callback, once, when as little as this is left.
    pub(super) fn wait(&self, until: Left, on_idle: OnIdle) {
        self.lock().push((until, on_idle));
    }

    /// So much is left. The list is emptied under its lock, so each callback runs once, whoever comes here at the same time.
    pub(super) fn see(&self, left: Left) {
        let due: Vec<_> = self.lock().extract_if(.., |(until, _)| *until <= left).collect();
        due.into_iter().for_each(|(_, on_idle)| on_idle());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Left, OnIdle)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{upstream, worker_spec};
    use crate::pool::endpoint::WorkerKey;
    use crate::pool::key::Key;
    use crate::pool::lease::{Lease, Outcome, TunnelLease};
    use crate::pool::{Acquired, EndpointIds, Pool, Wanted};
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;
    use tidegate_config::model::{Address, EndpointSource};

    const KEY: WorkerKey = WorkerKey { slot: 0, spawn: 1 };

    fn told() -> (Arc<AtomicU32>, OnIdle) {
        let count = Arc::new(AtomicU32::new(0));
        let shared = Arc::clone(&count);
        let on_idle = move || {
            shared.fetch_add(1, Ordering::SeqCst);
        };
        (count, Box::new(on_idle))
    }

    /// A request, and whether it streams.
    type Held = (Lease, bool);

    /// One step with what is under way.
    fn step(kind: u8, which: usize, held: &mut Vec<Held>, tunnels: &mut Vec<TunnelLease>, now: Instant) {
        let Some(which) = which.checked_rem(held.len()) else { return };
        match kind {
            0 => held.swap_remove(which).0.finish(Outcome::Ok, now),
            1 => drop(held.swap_remove(which)),
            // What streams is no upgrade any more.
            2 if !held[which].1 => tunnels.push(held.swap_remove(which).0.into_tunnel(now)),
            2 => {}
            3 => {
                held[which].0.lasts();
                held[which].1 = true;
            }
            4 => {
                // Where there is no room for one more tunnel it streams all the same.
                let _ = held[which].0.stream(now);
                held[which].1 = true;
            }
            _ => drop(tunnels.pop()),
        }
    }

    proptest! {
        #[test]
        fn a_drain_is_told_once_that_only_streams_are_left_and_once_that_nothing_is(
            count in 0..6_usize,
            room in 0..3_u32,
            before in proptest::collection::vec((0..6_u8, any::<usize>()), 0..6),
            after in proptest::collection::vec((0..6_u8, any::<usize>()), 0..12),
        ) {
            let mut upstream = upstream("app", EndpointSource::Workers(worker_spec()));
            upstream.capacity.max_tunnels = Some(room);
            let pool = Pool::new(EndpointIds::default(), &upstream);
            let now = Instant::now();
            let endpoint = pool.add_worker(KEY, 1, Address::Unix("/s".into()));
            let wanted = Wanted { key: &Key::None, tried: &[], draw: 0, now, tunnel: false };
            let lease = |_| match pool.acquire(&wanted) {
                Acquired::Lease(lease) => (lease, false),
                other => panic!("{other:?}"),
            };
            let (mut held, mut tunnels): (Vec<Held>, _) = ((0..count).map(lease).collect(), Vec::new());
            for (kind, which) in before {
                step(kind, which, &mut held, &mut tunnels, now);
            }
            let ((requests, on_idle), (everything, on_empty)) = (told(), told());
            pool.drain_worker(KEY, on_idle);
            endpoint.when_empty(on_empty);
            for (kind, which) in after.into_iter().chain((0..12).map(|kind| (kind % 2, 0))).chain([(5, 0); 6]) {
                let over = u32::from(held.iter().all(|(_, streams)| *streams));
                let empty = u32::from(held.is_empty() && tunnels.is_empty());
                prop_assert_eq!((requests.load(Ordering::SeqCst), everything.load(Ordering::SeqCst)), (over, empty));
                step(kind, which, &mut held, &mut tunnels, now);
                if held.is_empty() && kind == 5 {
                    tunnels.pop();
                }
            }
            drop((held, tunnels));
            prop_assert_eq!((requests.load(Ordering::SeqCst), everything.load(Ordering::SeqCst)), (1, 1));
            let status = endpoint.status();
            prop_assert_eq!((status.in_flight, status.tunnels), (0, 0));
        }
    }
}
