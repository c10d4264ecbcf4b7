//! Whether a request body comes fast enough.
//!
//! It knows no clock: the codec tells how long it waited for the client and what came then. Time that is not spent
//! waiting for the client is never told, so a client does not pay for an endpoint that takes no more bytes.

use std::time::Duration;

use tidegate_config::model::BodyRate;

/// Measures one body; see the module's text.
#[derive(Debug, Clone, Copy)]
pub struct RateMeter {
    policy: BodyRate,
    /// Waited in the window under way.
    waited: Duration,
    /// Came in it.
    bytes: u64,
}

/// What is known of a body's pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The window is not over.
    Open,
    /// It is over, and enough has come.
    Enough,
    /// It is over, and too little has come.
    TooSlow,
}

impl RateMeter {
    /// A meter for a body that begins.
    #[must_use]
    pub fn new(policy: BodyRate) -> Self {
        Self { policy, waited: Duration::ZERO, bytes: 0 }
    }

    /// Counts bytes that came after a wait.
    pub fn received(&mut self, bytes: usize, waited: Duration) {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited >= self.policy.over && !self.is_short() {
            *self = Self::new(self.policy);
        }
    }

    /// How much longer the client may be waited for until the window is over and [`Self::judge`] knows.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.policy.over.saturating_sub(self.waited)
    }

    /// The pace after a wait of this length that has brought nothing yet. After [`Pace::Enough`] a new window begins,
    /// for which the wait is to be counted from now on.
    pub fn judge(&mut self, waiting: Duration) -> Pace {
        if self.waited + waiting < self.policy.over {
            return Pace::Open;
        }
        if self.is_short() {
            return Pace::TooSlow;
        }
        *self = Self::new(self.policy);
        Pace::Enough
    }

    /// Whether fewer bytes came than a whole window needs.
    fn is_short(&self) -> bool {
        u128::from(self.bytes) * 1_000 < u128::from(self.policy.rate) * self.policy.over.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn meter() -> RateMeter {
        RateMeter::new(BodyRate { rate: 500, over: 30 * SECOND })
    }

    #[test]
    fn a_pace_below_the_rate_is_found_at_the_end_of_the_window() {
        let mut meter = meter();
        for _ in 0..29 {
            meter.received(499, SECOND);
            assert_eq!(meter.judge(Duration::ZERO), Pace::Open);
        }
        assert_eq!(meter.left(), SECOND);
        assert_eq!(meter.judge(SECOND / 2), Pace::Open);
        assert_eq!(meter.judge(SECOND), Pace::TooSlow);
        meter.received(499, SECOND);
        assert_eq!(meter.judge(Duration::ZERO), Pace::TooSlow, "also when the last bytes come just before");
    }

    #[test]
    fn the_rate_itself_is_enough_for_ever() {
        let mut meter = meter();
        for _ in 0..10_000 {
            assert_ne!(meter.judge(Duration::ZERO), Pace::TooSlow);
            meter.received(500, SECOND);
        }
    }

    #[test]
    fn bytes_that_came_early_do_not_help_in_later_windows() {
        let mut meter = meter();
        meter.received(1 << 30, SECOND);
        assert_eq!(meter.judge(29 * SECOND), Pace::Enough);
        assert_eq!(meter.left(), 30 * SECOND);
        assert_eq!(meter.judge(30 * SECOND), Pace::TooSlow);
    }

    #[test]
    fn what_needs_no_waiting_never_ends_a_window() {
        let mut meter = meter();
        for _ in 0..1_000_000 {
            meter.received(1, Duration::ZERO);
        }
        assert_eq!(meter.left(), 30 * SECOND);
    }
}
