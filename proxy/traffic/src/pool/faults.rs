//! What became of requests that an endpoint failed: by what it did, and whether they went on elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};

use super::symptom::Symptom;

/// Counters of one endpoint. Nothing here is touched by an exchange that goes well.
#[derive(Debug, Default)]
pub(super) struct Faults {
    by_symptom: [AtomicU64; Symptom::KINDS],
    retried: AtomicU64,
    server_errors: AtomicU64,
}

impl Faults {
    /// It failed an exchange.
    pub(super) fn count(&self, symptom: Symptom) {
        self.by_symptom[symptom.kind()].fetch_add(1, Ordering::Relaxed);
    }

    /// The request of an exchange that it failed was sent again.
    pub(super) fn count_retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// It answered with a status of 500 or more.
    pub(super) fn count_server_error(&self) {
        self.server_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Exchanges that it failed by not taking their connection.
    pub(super) fn unreachable(&self) -> u64 {
        let count = |symptom: Symptom| self.by_symptom[symptom.kind()].load(Ordering::Relaxed);
        count(Symptom::ConnectFailed) + count(Symptom::ConnectTimeout)
    }

    /// Exchanges that took it longer than a request may take.
    pub(super) fn overdue(&self) -> u64 {
        self.by_symptom[Symptom::RequestTimeout.kind()].load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> FaultCounts {
        FaultCounts {
            by_symptom: std::array::from_fn(|kind| self.by_symptom[kind].load(Ordering::Relaxed)),
            retried: self.retried.load(Ordering::Relaxed),
            server_errors: self.server_errors.load(Ordering::Relaxed),
        }
    }
}

/// What became of requests that an endpoint failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    by_symptom: [u64; Symptom::KINDS],
    /// Exchanges that failed here and whose request was sent again, or had been sent elsewhere beside.
    pub retried: u64,
    /// Answers with a status of 500 or more.
    pub server_errors: u64,
}

impl FaultCounts {
    /// Exchanges that failed, by the token of what the endpoint did; those that there were none of left out.
    pub fn causes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Symptom::TOKENS.into_iter().zip(self.by_symptom).filter(|(_, count)| *count > 0)
    }

    /// Exchanges that failed for their clients: what was sent again is not among them.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.total().saturating_sub(self.retried)
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_symptom.iter().sum()
    }

    pub(super) fn with(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            by_symptom: std::array::from_fn(|kind| combine(self.by_symptom[kind], other.by_symptom[kind])),
            retried: combine(self.retried, other.retried),
            server_errors: combine(self.server_errors, other.server_errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_for_clients_is_what_was_not_sent_again() {
        let faults = Faults::default();
        for symptom in [Symptom::Closed, Symptom::Closed, Symptom::HeadTimeout, Symptom::Status(503)] {
            faults.count(symptom);
        }
        faults.count_retried();
        faults.count_server_error();
        let counts = faults.counts();
        let causes: Vec<_> = counts.causes().collect();
        assert_eq!(causes, [("head_timeout", 1), ("upstream_closed", 2), ("status", 1)]);
        assert_eq!((counts.failed(), counts.retried, counts.server_errors), (3, 1, 1));
        let twice = counts.with(&counts, u64::saturating_add);
        assert_eq!((twice.total(), twice.with(&counts, u64::saturating_sub)), (8, counts));
    }

    #[test]
    fn every_symptom_has_a_counter_of_its_own() {
        let all = [
            Symptom::ConnectFailed,
            Symptom::ConnectTimeout,
            Symptom::Tls,
            Symptom::WriteTimeout,
            Symptom::HeadTimeout,
            Symptom::Closed,
            Symptom::BadResponse,
            Symptom::ReadTimeout,
            Symptom::RequestTimeout,
            Symptom::Status(500),
        ];
        assert_eq!(all.len(), Symptom::KINDS);
        for symptom in all {
            assert_eq!(Symptom::TOKENS[symptom.kind()], symptom.token());
        }
    }
}
