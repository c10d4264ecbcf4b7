//! How many requests are admitted, and when: the arithmetic of a limit.
//!
//! nginx's `limit_req` counts the requests that are ahead of the rate; so does this, as the time until they are not (a
//! theoretical arrival time: GCRA). That time is all that is remembered of a client. Nothing here knows where.

use std::time::Duration;

use tidegate_config::model::RateLimit;

/// The numbers of a limit. All times are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Between two requests at the rate.
    period: u64,
    /// Requests that may be ahead of the rate.
    burst: u64,
    /// Requests ahead of the rate that are not delayed.
    free: u64,
}

/// What becomes of a request under one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is served after this time, often zero.
    Admit(Duration),
    /// It comes too soon, by this time.
    Reject(Duration),
}

impl Policy {
    /// The numbers of a limit of the file.
    #[must_use]
    pub fn new(limit: &RateLimit) -> Self {
        let per = u64::try_from(limit.rate.per.as_nanos()).unwrap_or(u64::MAX);
        Self {
            period: (per / u64::from(limit.rate.requests.max(1))).max(1),
            burst: limit.burst.into(),
            free: limit.delay.map_or(u64::MAX, u64::from),
        }
    }

    /// What becomes of a request of a client that is ahead of the rate by `level`.
    #[must_use]
    pub fn judge(&self, level: u64) -> Verdict {
        let most = self.most();
        if level > most {
            return Verdict::Reject(Duration::from_nanos(level - most));
        }
        Verdict::Admit(self.delay(level))
    }

    /// How long a request waits that is admitted at this level. Whole milliseconds, as with nginx: timers are no finer, and
    /// the level keeps the rest.
    #[must_use]
    pub fn delay(&self, level: u64) -> Duration {
        Duration::from_millis(level.saturating_sub(self.period.saturating_mul(self.free)) / 1_000_000)
    }

    /// The level up to which requests are admitted.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.period.saturating_mul(self.burst)
    }

    /// What a request of this cost adds to the level.
    #[must_use]
    pub fn price(&self, cost: u32) -> u64 {
        self.period.saturating_mul(cost.into())
    }

    /// Requests that a client without any before may send at once.
    #[must_use]
    pub fn quota(&self) -> u64 {
        self.burst + 1
    }

    /// The time in which a quota that is used up comes back.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_nanos(self.period.saturating_mul(self.quota()))
    }

    /// Requests that are admitted at this level, one after the other.
    #[must_use]
    pub fn remaining(&self, level: u64) -> u64 {
        if level > self.most() { 0 } else { (self.most() - level) / self.period + 1 }
    }
}
