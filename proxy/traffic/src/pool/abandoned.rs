//! Places of requests that were given up while their handler may still be running: they are not free, whatever we do.

use std::sync::Arc;

use super::endpoint::Endpoint;

/// A place at an endpoint that nobody else gets until this is dropped.
#[derive(Debug)]
pub struct AbandonedPlace {
    endpoint: Arc<Endpoint>,
}

impl Endpoint {
    /// Keeps a place taken beyond the end of its lease; to be called before that.
    #[must_use]
    pub fn abandon(self: &Arc<Self>) -> AbandonedPlace {
        self.keep_place();
        AbandonedPlace { endpoint: Arc::clone(self) }
    }
}

impl AbandonedPlace {
    /// Whose place it is.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for AbandonedPlace {
    fn drop(&mut self) {
        self.endpoint.give_place_up();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tidegate_config::model::{Address, Capacity, EndpointSource, Upstream};

    use crate::fixtures::{upstream, worker_spec};
    use crate::pool::endpoint::WorkerKey;
    use crate::pool::key::Key;
    use crate::pool::lease::{Lease, Outcome};
    use crate::pool::symptom::Symptom;
    use crate::pool::{Acquired, EndpointIds, Pool, Wanted};

    #[test]
    fn a_place_that_was_given_up_is_free_only_when_that_is_over() {
        let capacity = Capacity { max_in_flight_per_endpoint: Some(1), queue: None, ..Capacity::default() };
        let upstream = upstream("app", EndpointSource::Workers(worker_spec()));
        let pool = Pool::new(EndpointIds::default(), &Upstream { capacity, ..upstream });
        let endpoint = pool.add_worker(WorkerKey { slot: 0, spawn: 1 }, 1, Address::Unix("/s".into()));
        let now = Instant::now();
        let lease = || -> Option<Lease> {
            match pool.acquire(&Wanted { key: &Key::None, tried: &[], draw: 0, now, tunnel: false }) {
                Acquired::Lease(lease) => Some(lease),
                _ => None,
            }
        };
        let first = lease().expect("it is free");
        assert_eq!((endpoint.status().kept, endpoint.status().oldest), (0, Some(now)));
        let place = endpoint.abandon();
        pool.end(first, Outcome::UpstreamFault(Symptom::RequestTimeout), now);
        assert!(lease().is_none());
        let vitals = endpoint.vitals();
        assert_eq!((vitals.in_flight, vitals.overdue, vitals.requests), (1, 1, 1));
        let status = endpoint.status();
        assert_eq!((status.in_flight, status.kept, status.oldest), (1, 1, None));
        assert_eq!((endpoint.served().answered, endpoint.served().faults.total()), (0, 1));
        drop(place);
        assert_eq!((endpoint.vitals().in_flight, endpoint.status().kept), (0, 0));
        assert!(lease().is_some());
    }
}
