//! About how long exchanges take: their median, from one number that every exchange moves a little.
//!
//! Frugal streaming (Ma, Muthukrishnan, Sandler 2013), with steps in proportion: a longer exchange raises the number by
//! a sixteenth, a shorter one lowers it by as much, so it rests where both come equally often. Two threads that meet may
//! lose one step.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Part of the number by which it moves.
const STEP: u64 = 16;

/// Nanoseconds; 0 is not known.
#[derive(Debug, Default)]
pub(super) struct Median(AtomicU64);

impl Median {
    pub(super) fn observe(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let known = self.0.load(Ordering::Relaxed);
        let step = (known / STEP).max(1);
        let next = match time.cmp(&known) {
            _ if known == 0 => time,
            std::cmp::Ordering::Less => time.max(known - step),
            std::cmp::Ordering::Equal => known,
            std::cmp::Ordering::Greater => time.min(known.saturating_add(step)),
        };
        self.0.store(next, Ordering::Relaxed);
    }

    /// Zero while nothing is known.
    pub(super) fn value(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::mix;

    fn after(times: impl Iterator<Item = u64>) -> f64 {
        let median = Median::default();
        times.for_each(|time| median.observe(Duration::from_micros(time)));
        median.value().as_secs_f64() * 1e6
    }

    #[test]
    fn it_comes_near_the_median() {
        assert_eq!(after(std::iter::empty()), 0.0);
        assert_eq!(after([700].into_iter()), 700.0);
        let near = |value: f64, wanted: f64| assert!((value / wanted - 1.0).abs() < 0.35, "{value} for {wanted}");
        // Nine of ten are fast: one that is slow says little, however slow.
        near(after((0..1_000).map(|number| if number % 10 == 9 { 1_000_000 } else { 1_000 })), 1_000.0);
        near(after((0..10_000).map(|number| mix(number) % 10_000)), 5_000.0);
        // Twice as slow from one moment on.
        near(after((0..600).map(|number| if number < 300 { 1_000 } else { 100_000 })), 100_000.0);
        near(after((0..600).map(|number| if number < 300 { 100_000 } else { 1_000 })), 1_000.0);
    }
}
