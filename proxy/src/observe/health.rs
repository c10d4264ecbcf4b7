//! What is counted of the health of endpoints.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounterVec, Registry};

use super::metrics::counters;
use super::names::{self, label};

/// Counters of changes; nothing of this is on the path of a request that goes well.
#[derive(Debug)]
pub struct HealthMetrics {
    ejections: IntCounterVec,
    checks: IntCounterVec,
    trips: IntCounterVec,
    /// Guards the series there are, so that those of an upstream that is gone can be forgotten.
    known: Mutex<BTreeSet<(String, &'static str)>>,
}

impl HealthMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            ejections: counters(registry, names::EJECTIONS, &[label::UPSTREAM, label::REASON])?,
            checks: counters(registry, names::CHECKS, &[label::UPSTREAM, label::RESULT])?,
            trips: counters(registry, names::BREAKER_TRIPS, &[label::UPSTREAM])?,
            known: Mutex::default(),
        })
    }

    /// An endpoint was taken out of service; `reason` is a constant of the program.
    pub fn ejected(&self, upstream: &str, reason: &'static str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert((upstream.to_owned(), reason));
        self.ejections.with_label_values(&[upstream, reason]).inc();
    }

    /// A check has ended; `result` is a constant of the program.
    pub fn checked(&self, upstream: &str, result: &'static str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert((upstream.to_owned(), result));
        self.checks.with_label_values(&[upstream, result]).inc();
    }

    /// A breaker has opened.
    pub fn tripped(&self, upstream: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert((upstream.to_owned(), ""));
        self.trips.with_label_values(&[upstream]).inc();
    }

    /// Forgets the series of upstreams that are not among these.
    pub(super) fn retain(&self, upstreams: &BTreeSet<String>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(upstream, reason)| {
            let stays = upstreams.contains(upstream);
            if !stays {
                let _ = self.trips.remove_label_values(&[upstream.as_str()]);
                for counters in [&self.ejections, &self.checks] {
                    let _ = counters.remove_label_values(&[upstream.as_str(), reason]);
                }
            }
            stays
        });
    }
}
