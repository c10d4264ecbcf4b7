//! When requests fall due: a Poisson process, the sum of many clients that do not know each other.

use std::time::{Duration, Instant};

use crate::stats::SplitMix;

/// An endless sequence of due times.
pub(crate) struct Arrivals {
    due: Instant,
    mean_gap: f64,
    random: SplitMix,
}

impl Arrivals {
    /// The first request falls due one gap after `start`. The same `seed` gives the same gaps.
    pub(crate) fn new(start: Instant, per_second: f64, seed: u64) -> Self {
        let mut arrivals = Self { due: start, mean_gap: 1.0 / per_second, random: SplitMix::new(seed) };
        arrivals.advance();
        arrivals
    }

    /// When the next request is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Goes on to the request after it.
    pub(crate) fn advance(&mut self) {
        let gap = -self.random.open_unit().ln() * self.mean_gap;
        self.due += Duration::from_secs_f64(gap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_the_gaps_are_exponential() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start, 10_000.0, 7);
        let (mut last, mut above_mean) = (start, 0);
        for _ in 0..20_000 {
            above_mean += u32::from(arrivals.due() - last > Duration::from_micros(100));
            last = arrivals.due();
            arrivals.advance();
        }
        let seconds = (last - start).as_secs_f64();
        assert!((1.95..2.05).contains(&seconds), "{seconds}");
        let share = f64::from(above_mean) / 20_000.0;
        assert!((0.35..0.39).contains(&share), "a share of 1/e is longer than the mean, not {share}");
    }
}
