//! Workers out of rotation: whoever starts them says so, and then it is as if a check of theirs had failed.

use std::time::{Duration, Instant};

use tidegate_config::model::{CheckKind, HealthCheck};

use super::Pool;
use super::check::CheckResult;
use super::endpoint::WorkerKey;
use super::transition::Change;

/// Each word counts at once; nobody is asked anything.
const AT_ONCE: HealthCheck = HealthCheck {
    kind: CheckKind::Connect,
    interval: Duration::ZERO,
    jitter: Duration::ZERO,
    timeout: Duration::ZERO,
    rise: 1,
    fall: 1,
    port: None,
};

impl Pool {
    /// A worker gets no new requests for the time being, for the reason given, or may again. Requests under way go on.
    pub fn rotate_worker(&self, key: WorkerKey, out: Option<String>, now: Instant) {
        let mut inner = self.lock_at(now);
        let Some(endpoint) = inner.worker(key) else { return };
        let since = endpoint.health().check().map_or(now, |check| check.since);
        if !endpoint.health().observe(CheckResult { failure: out.clone(), took: Duration::ZERO }, &AT_ONCE, now) {
            return;
        }
        endpoint.note_health();
        let address = endpoint.address().clone();
        if out.is_none() {
            inner.warming.begin(endpoint.id());
        }
        inner.news.push(match out {
            Some(why) => Change::CheckFailing { endpoint: address, why },
            None => Change::CheckPassing { endpoint: address, after: now.saturating_duration_since(since) },
        });
        inner.align(&self.lineage);
        self.changed(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{upstream, worker_spec};
    use crate::pool::key::Key;
    use crate::pool::{Acquired, EndpointIds, Wanted};
    use tidegate_config::model::{Address, EndpointSource};

    #[test]
    fn a_worker_that_is_out_gets_nothing_until_it_is_back() {
        let pool = Pool::new(EndpointIds::default(), &upstream("app", EndpointSource::Workers(worker_spec())));
        let now = Instant::now();
        let keys = [0, 1].map(|slot| WorkerKey { slot, spawn: u64::from(slot) + 1 });
        let ids = keys.map(|key| pool.add_worker(key, 1, Address::Unix(format!("/{}", key.spawn).into())).id());
        let taken = || {
            let wanted = Wanted { key: &Key::None, tried: &[], draw: 0, now, tunnel: false };
            let leases: Vec<_> = (0..4).map(|_| pool.acquire(&wanted)).collect();
            let ids = leases.iter().map(|got| match got {
                Acquired::Lease(lease) => Some(lease.endpoint().id()),
                _ => None,
            });
            ids.collect::<Vec<_>>()
        };
        let out = || Some("status 503".to_owned());
        pool.rotate_worker(keys[0], out(), now);
        pool.rotate_worker(keys[0], out(), now);
        assert_eq!(taken(), [Some(ids[1]); 4]);
        pool.rotate_worker(keys[1], out(), now);
        assert_eq!(taken(), [None; 4], "nobody else either");
        for key in keys {
            pool.rotate_worker(key, None, now);
        }
        let back = taken();
        assert!(ids.iter().all(|id| back.contains(&Some(*id))), "{back:?}");
        pool.rotate_worker(WorkerKey { slot: 7, spawn: 7 }, out(), now);
    }
}
