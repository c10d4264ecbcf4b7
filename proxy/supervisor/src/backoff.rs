//! How long a slot waits after failures, and when a pool counts as crash looping. Pure numbers; jitter is passed in.

use std::time::Duration;

use tidegate_config::model::Restart;

use crate::worker::ExitStatus;

/// When and how fast failed workers are started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Wait after the first failure of a worker that had not been stable; doubles with each further one.
    pub first_delay: Duration,
    /// Longest wait.
    pub delay_ceiling: Duration,
    /// Longest wait in a crash loop.
    pub crashloop_ceiling: Duration,
    /// Time in service after which a slot's failures are forgotten.
    pub stable_after: Duration,
    /// Span over which the pool's failures are counted.
    pub window: Duration,
    /// Failures within the window that make a crash loop, if twice the target is not more.
    pub crashloop_failures: u32,
    /// Exit codes after which nothing is started again.
    pub final_codes: Vec<u8>,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self::from(&Restart::default())
    }
}

impl From<&Restart> for RestartPolicy {
    fn from(restart: &Restart) -> Self {
        let Restart { stable_after, max_delay, failures, window, no_restart_codes } = restart;
        Self {
            first_delay: FIRST_DELAY,
            delay_ceiling: *max_delay,
            crashloop_ceiling: CRASHLOOP_CEILING.max(*max_delay),
            stable_after: *stable_after,
            window: *window,
            crashloop_failures: *failures,
            final_codes: no_restart_codes.clone(),
        }
    }
}

impl RestartPolicy {
    /// Wait before the next start after `failures` (1 or more) in a row: doubling up to `ceiling`, times a factor of
    /// 0.8 to 1.2 that `jitter` (0 to 1) picks, so that slots that failed together do not come back together.
    #[must_use]
    pub fn delay(&self, failures: u32, ceiling: Duration, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        let plain = self.first_delay.saturating_mul(1 << doublings).min(ceiling);
        plain.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
    }

    /// Whether nothing is started again after such an end.
    #[must_use]
    pub fn is_final(&self, status: ExitStatus) -> bool {
        let code = match status {
            ExitStatus::Code(code) => u8::try_from(code).ok(),
            _ => None,
        };
        code.is_some_and(|code| self.final_codes.contains(&code))
    }

    /// Whether that many failures within the window make a crash loop of a pool with `target` workers.
    #[must_use]
    pub fn is_crashloop(&self, failures: usize, target: u32) -> bool {
        failures >= self.crashloop_failures.max(target.saturating_mul(2)) as usize
    }
}

/// A small pseudo-random sequence (SplitMix64). Good enough to spread restarts, not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number from 0 to 1.
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let unit = (z >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }
}

/// Wait after a first failure; it doubles from there.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest wait in a crash loop, if the longest of all is not longer.
const CRASHLOOP_CEILING: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_from_100_ms_to_its_ceiling() {
        let policy = RestartPolicy::default();
        for (failures, milliseconds) in [(1, 100), (2, 200), (3, 400), (9, 25_600), (10, 30_000), (4_000, 30_000)] {
            let delay = policy.delay(failures, policy.delay_ceiling, 0.5);
            assert_eq!(delay, Duration::from_millis(milliseconds), "after {failures} failures");
        }
    }

    #[test]
    fn jitter_spreads_by_a_fifth_either_way() {
        let policy = RestartPolicy::default();
        assert_eq!(policy.delay(1, policy.delay_ceiling, 0.0), Duration::from_millis(80));
        assert_eq!(policy.delay(1, policy.delay_ceiling, 1.0), Duration::from_millis(120));
        let mut jitter = Jitter::new(7);
        let numbers: Vec<f64> = (0..1000).map(|_| jitter.next()).collect();
        assert!(numbers.iter().all(|n| (0.0..1.0).contains(n)));
        assert!(numbers.iter().any(|n| *n < 0.1) && numbers.iter().any(|n| *n > 0.9));
    }

    #[test]
    fn crash_loop_starts_at_five_failures_or_twice_the_target() {
        let policy = RestartPolicy::default();
        for (failures, target, expected) in [(4, 1, false), (5, 1, true), (7, 4, false), (8, 4, true)] {
            assert_eq!(policy.is_crashloop(failures, target), expected, "{failures} failures of {target}");
        }
    }
}
