//! Whether a queue is overloaded: the controlled delay of folly's `Codel`, which goes by the shortest wait.
//!
//! A burst makes long waits, but is worked off: some request soon waits for a short time only. A queue in which even the
//! shortest wait of an interval is above the target stands, and each request in it waits for nothing. The wait that is
//! looked at is that of the oldest request whenever one comes or goes, which is the wait of the one that goes as long as
//! the oldest is served first.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(100);
/// Lowest target, where it follows the times of exchanges.
const LEAST_TARGET: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(super) struct Codel {
    /// The interval's end; `None` before the first one.
    until: Option<Instant>,
    /// Shortest wait of the interval.
    least: Duration,
    overloaded: bool,
}

impl Codel {
    /// The oldest request has waited for so long.
    pub(super) fn observe(&mut self, wait: Duration, target: Duration, now: Instant) {
        match self.until {
            Some(until) if now < until => self.least = self.least.min(wait),
            running => {
                self.overloaded = running.is_some() && self.least > target;
                self.least = wait;
                self.until = Some(now + INTERVAL);
            }
        }
    }

    /// Nobody waits any more.
    pub(super) fn emptied(&mut self) {
        self.least = Duration::ZERO;
    }

    /// It is not known any more how long requests have waited.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_overloaded(&self) -> bool {
        self.overloaded
    }
}

/// The wait that is too long when it lasts, for exchanges that take so long at so many places: a quarter of that, and with
/// few places the time in which one becomes free, which even a queue of one has to wait.
pub(super) fn target(service: Duration, places: u32) -> Duration {
    (service / places.clamp(1, 4)).max(LEAST_TARGET)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells of waits in ms at times in ms, and whether the queue was overloaded after each.
    fn check(what: &str, rows: &[(u64, u64, bool)]) {
        let (mut codel, start) = (Codel::default(), Instant::now());
        for (at, wait, overloaded) in rows {
            let now = start + Duration::from_millis(*at);
            codel.observe(Duration::from_millis(*wait), Duration::from_millis(10), now);
            assert_eq!(codel.is_overloaded(), *overloaded, "{what} at {at} ms");
        }
    }

    #[test]
    fn a_burst_is_no_overload_and_a_standing_queue_is() {
        check("a burst", &[(0, 0, false), (20, 20, false), (40, 40, false), (99, 90, false), (101, 100, false)]);
        check("worked off in the second", &[(0, 0, false), (100, 60, false), (150, 9, false), (200, 30, false)]);
        check("standing", &[(0, 0, false), (100, 60, false), (150, 11, false), (200, 30, true), (250, 9, true)]);
        check("over again", &[(0, 50, false), (100, 50, true), (150, 9, true), (200, 30, false)]);
        check("few come by", &[(0, 500, false), (1_000, 500, true), (2_000, 5, true), (3_000, 5, false)]);
    }

    #[test]
    fn an_empty_queue_ends_it() {
        let (mut codel, now, long) = (Codel::default(), Instant::now(), Duration::from_secs(1));
        codel.observe(long, LEAST_TARGET, now);
        codel.observe(long, LEAST_TARGET, now + INTERVAL);
        assert!(codel.is_overloaded());
        codel.emptied();
        codel.observe(long, LEAST_TARGET, now + 3 * INTERVAL);
        assert!(!codel.is_overloaded());
    }

    #[test]
    fn the_target_follows_the_service() {
        let millis = Duration::from_millis;
        for (service, places, expected) in [
            (0, 9, 5),
            (10, 9, 5),
            (20, 9, 5),
            (100, 9, 25),
            (4_000, 4, 1_000),
            (100, 2, 50),
            (100, 1, 100),
            (100, 0, 100),
        ] {
            assert_eq!(target(millis(service), places), millis(expected), "{service} ms at {places} places");
        }
    }
}
