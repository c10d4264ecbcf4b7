//! How long an endpoint takes to answer, lately.
//!
//! A peak-sensitive, exponentially weighted moving average, as Finagle's `peak_ewma`: a slower answer counts at once, a
//! faster one little by little. Without answers the average fades, so an endpoint that was slow once is tried again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After this time an answer counts for 1/e of what it did.
const DECAY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Latency(Mutex<Option<Average>>);

#[derive(Debug, Clone, Copy)]
struct Average {
    /// Nanoseconds.
    value: f64,
    since: Instant,
}

impl Latency {
    pub(super) fn observe(&self, latency: Duration, now: Instant) {
        let latency = latency.as_nanos() as f64;
        let mut average = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = match *average {
            Some(known) if latency < known.value => {
                let weight = known.weight(now);
                known.value * weight + latency * (1.0 - weight)
            }
            Some(_) | None => latency,
        };
        *average = Some(Average { value, since: now });
    }

    /// An answer would have taken longer than this: it raises the average, and never lowers it.
    pub(super) fn observe_at_least(&self, latency: Duration, now: Instant) {
        if latency.as_nanos() as f64 > self.at(now) {
            self.observe(latency, now);
        }
    }

    /// In nanoseconds; 0 is not known.
    pub(super) fn at(&self, now: Instant) -> f64 {
        let average = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        average.map_or(0.0, |known| known.value * known.weight(now))
    }
}

impl Average {
    fn weight(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.since).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_count_at_once_and_fade() {
        let (latency, start) = (Latency::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(latency.at(start), 0.0);
        latency.observe(Duration::from_millis(10), start);
        latency.observe(Duration::from_millis(100), start);
        assert_eq!(latency.at(start), 1e8);
        // A fast answer at the same moment says nothing yet; after the decay it has 1 - 1/e of the weight.
        latency.observe(Duration::from_millis(10), start);
        assert_eq!(latency.at(start), 1e8);
        latency.observe(Duration::from_millis(10), after(10));
        let expected = 1e8 * (-1.0_f64).exp() + 1e7 * (1.0 - (-1.0_f64).exp());
        assert!((latency.at(after(10)) - expected).abs() < 1.0);
        assert!(latency.at(after(100)) < 1e5, "it is forgotten");
    }

    #[test]
    fn an_answer_that_never_came_raises_the_average_only() {
        let (latency, start) = (Latency::default(), Instant::now());
        latency.observe_at_least(Duration::from_millis(60), start);
        assert_eq!(latency.at(start), 6e7, "it is known to be slower than nothing");
        latency.observe_at_least(Duration::from_millis(10), start + DECAY / 100);
        assert!(latency.at(start + DECAY / 100) > 5.9e7, "says nothing");
        latency.observe_at_least(Duration::from_millis(100), start + DECAY / 100);
        assert_eq!(latency.at(start + DECAY / 100), 1e8);
    }

    #[test]
    fn a_clock_that_stands_or_steps_back_is_no_harm() {
        let (latency, start) = (Latency::default(), Instant::now());
        latency.observe(Duration::from_millis(1), start + Duration::from_secs(5));
        assert_eq!(latency.at(start), 1e6);
    }
}
