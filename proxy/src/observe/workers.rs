//! What is counted of workers, by upstream and slot.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::metrics::{counter, counters};
use super::names::{self, label};

/// Counters of workers; clones share them.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    log_dropped: IntCounterVec,
    log_errors: IntCounter,
    /// Guards the series there are, so that those of an upstream that is gone can be forgotten.
    known: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl WorkerMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            log_dropped: counters(registry, names::WORKER_LOG_DROPPED, &[label::UPSTREAM, label::SLOT])?,
            log_errors: counter(registry, names::WORKER_LOG_ERRORS)?,
            known: Arc::default(),
        })
    }

    /// Lines of a worker are lost, without a slot those of `pre_start`.
    pub fn log_lines_dropped(&self, upstream: &str, slot: Option<u32>, count: u64) {
        let slot = slot.map_or_else(|| "pre_start".to_owned(), |slot| slot.to_string());
        self.log_dropped.with_label_values(&[upstream, slot.as_str()]).inc_by(count);
        self.known().insert((upstream.to_owned(), slot));
    }

    /// Lines of a worker that were lost.
    #[cfg(test)]
    pub(super) fn log_lines_dropped_so_far(&self, upstream: &str, slot: u32) -> u64 {
        self.log_dropped.with_label_values(&[upstream, &slot.to_string()]).get()
    }

    /// Failed writes, reopens and rotations of logs of workers.
    #[must_use]
    pub fn log_errors(&self) -> &IntCounter {
        &self.log_errors
    }

    /// Forgets the series of upstreams that are not among these.
    pub(super) fn retain(&self, upstreams: &BTreeSet<String>) {
        self.known().retain(|(upstream, slot)| {
            let stays = upstreams.contains(upstream);
            if !stays {
                let _ = self.log_dropped.remove_label_values(&[upstream.as_str(), slot.as_str()]);
            }
            stays
        });
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, String)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
