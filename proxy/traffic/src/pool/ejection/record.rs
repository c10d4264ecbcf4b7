//! What an endpoint's failures come to.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::pool::symptom::Symptom;

/// What an endpoint is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pool) struct Rule {
    /// Failures within `fail_timeout` that take it out; 0 is never by their number.
    pub(in crate::pool) max_fails: u32,
    pub(in crate::pool) fail_timeout: Duration,
    /// Longest time out.
    pub(in crate::pool) max_time: Duration,
}

/// Why an endpoint is out of service for a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EjectionReason {
    /// It failed too often.
    Failures {
        /// So often, lately.
        count: u32,
        /// How the last time.
        last: Symptom,
    },
    /// It answered well less often than the others.
    SuccessRate {
        /// Its share of good answers, in percent.
        share: f64,
        /// That of all who were compared.
        mean: f64,
    },
}

impl EjectionReason {
    /// Token for labels of metrics.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Failures { last, .. } => last.token(),
            Self::SuccessRate { .. } => "success_rate",
        }
    }
}

/// For people.
impl std::fmt::Display for EjectionReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failures { count: 1, last } => write!(f, "1 failure: {last}"),
            Self::Failures { count, last } => write!(f, "{count} failures, last: {last}"),
            Self::SuccessRate { share, mean } => write!(f, "success rate {share:.1}%, of all {mean:.1}%"),
        }
    }
}

/// An endpoint's time out of service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ejected {
    /// When it began.
    pub since: Instant,
    /// When it ends, if not before: so that the pool keeps enough endpoints.
    pub until: Instant,
    /// Why.
    pub reason: EjectionReason,
    /// How often lately, this time included; it is out for so many times as long as the first time.
    pub times: u32,
}

/// An endpoint's failures and ejections of late.
#[derive(Debug, Default)]
pub(in crate::pool) struct Record {
    /// When it failed, oldest first; no more of them than would eject it.
    fails: VecDeque<Instant>,
    /// How often it was ejected, less what it has made good since.
    times: u32,
    out: Option<Ejected>,
    /// When it came back.
    back: Option<Instant>,
}

impl Record {
    /// Its time out, while it is.
    pub(in crate::pool) fn out(&self) -> Option<Ejected> {
        self.out
    }

    /// An exchange that began at `began` has failed; how many failures that makes, when they are enough to eject it.
    pub(in crate::pool) fn fail(&mut self, began: Instant, now: Instant, rule: &Rule) -> Option<u32> {
        // What began before it was out tells nothing about how it came back.
        let stale = self.back.is_some_and(|back| began < back);
        if rule.max_fails == 0 || self.out.is_some() || stale {
            return None;
        }
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= rule.fail_timeout;
        while self.fails.front().is_some_and(is_old) || self.fails.len() >= rule.max_fails as usize {
            self.fails.pop_front();
        }
        self.fails.push_back(now);
        let count = self.fails.len() as u32;
        let enough = if self.is_on_probation(now, rule) { 1 } else { rule.max_fails };
        (count >= enough).then_some(count)
    }

    /// Takes it out from now on.
    pub(in crate::pool) fn eject(&mut self, reason: EjectionReason, now: Instant, rule: &Rule) -> Ejected {
        let base = rule.fail_timeout;
        let served = self.back.map_or(Duration::ZERO, |back| now.saturating_duration_since(back));
        let made_good = steps(served, base);
        // More steps than the longest time has would only have to be taken back.
        let most = steps(rule.max_time, base).saturating_add(1);
        self.times = (self.times.saturating_sub(made_good) + 1).min(most);
        let time = base.saturating_mul(self.times).min(rule.max_time);
        self.fails.clear();
        let out = Ejected { since: now, until: now + time, reason, times: self.times };
        self.out = Some(out);
        out
    }

    /// Ends its time out; whether it was out.
    pub(in crate::pool) fn come_back(&mut self, now: Instant) -> bool {
        let was_out = self.out.take().is_some();
        if was_out {
            self.back = Some(now);
        }
        was_out
    }

    /// Whether it came back so lately that one failure is enough.
    fn is_on_probation(&self, now: Instant, rule: &Rule) -> bool {
        self.back.is_some_and(|back| now.saturating_duration_since(back) < rule.fail_timeout)
    }
}

fn steps(time: Duration, step: Duration) -> u32 {
    let count = time.as_nanos() / step.as_nanos().max(1);
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASON: EjectionReason = EjectionReason::Failures { count: 3, last: Symptom::Closed };
    const RULE: Rule = Rule { max_fails: 3, fail_timeout: Duration::from_secs(10), max_time: Duration::from_secs(35) };

    /// Times in seconds.
    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: u64) -> Instant {
            self.0 + Duration::from_secs(seconds)
        }
    }

    fn new() -> (Record, Clock) {
        (Record::default(), Clock(Instant::now()))
    }

    impl Record {
        /// Fails at each of these times; the results.
        fn fail_at(&mut self, clock: &Clock, times: &[u64], rule: &Rule) -> Vec<Option<u32>> {
            times.iter().map(|time| self.fail(clock.at(*time), clock.at(*time), rule)).collect()
        }

        /// Is ejected at this time; how long for.
        fn out_at(&mut self, clock: &Clock, time: u64) -> u64 {
            let out = self.eject(REASON, clock.at(time), &RULE);
            assert!(self.fail(clock.at(time), clock.at(time), &RULE).is_none(), "what is out cannot fail");
            assert!(self.come_back(out.until) && !self.come_back(out.until));
            (out.until - out.since).as_secs()
        }
    }

    #[test]
    fn failures_within_the_time_count_together() {
        let (mut record, clock) = new();
        assert_eq!(record.fail_at(&clock, &[0, 1, 9], &RULE), [None, None, Some(3)]);
        let (mut record, clock) = new();
        assert_eq!(record.fail_at(&clock, &[0, 5, 10, 14], &RULE), [None, None, None, Some(3)]);
        let (mut record, clock) = new();
        assert!(record.fail_at(&clock, &[0, 5, 10, 15, 20, 25], &RULE).iter().all(Option::is_none));
        let once = Rule { max_fails: 1, ..RULE };
        assert_eq!(record.fail_at(&clock, &[26], &once), [Some(1)]);
        let never = Rule { max_fails: 0, ..RULE };
        assert!(record.fail_at(&clock, &[27; 100], &never).iter().all(Option::is_none));
        assert!(record.fails.len() <= 3);
    }

    #[test]
    fn while_it_cannot_be_ejected_it_stays_due() {
        let (mut record, clock) = new();
        assert_eq!(record.fail_at(&clock, &[0, 1, 2, 3, 4], &RULE), [None, None, Some(3), Some(3), Some(3)]);
    }

    #[test]
    fn each_time_is_longer_up_to_the_longest_and_good_service_shortens_it() {
        let (mut record, clock) = new();
        assert_eq!(record.out_at(&clock, 0), 10);
        assert_eq!(record.out_at(&clock, 11), 20);
        assert_eq!(record.out_at(&clock, 32), 30);
        assert_eq!(record.out_at(&clock, 63), 35);
        assert_eq!(record.out_at(&clock, 99), 35);
        // Back at 134. It serves for twenty seconds, which takes two steps back.
        assert_eq!(record.out_at(&clock, 155), 30);
        assert_eq!(record.out_at(&clock, 1_000), 10, "all is forgotten");
    }

    #[test]
    fn one_failure_soon_after_is_enough() {
        let (mut record, clock) = new();
        assert_eq!(record.out_at(&clock, 0), 10);
        assert_eq!(record.fail_at(&clock, &[19], &RULE), [Some(1)]);
        assert_eq!(record.out_at(&clock, 19), 20);
        assert_eq!(record.fail_at(&clock, &[49, 50, 51], &RULE), [None, None, Some(3)], "ten seconds later it is not");
    }

    /// A stopped server's requests time out long after it has come back.
    #[test]
    fn what_began_before_does_not_count_after() {
        let (mut record, clock) = new();
        assert_eq!(record.out_at(&clock, 0), 10);
        for _ in 0..5 {
            assert_eq!(record.fail(clock.at(9), clock.at(12), &RULE), None);
        }
        assert_eq!(record.fail(clock.at(10), clock.at(12), &RULE), Some(1));
    }

    #[test]
    fn a_clock_that_stands_or_steps_back_is_no_harm() {
        let (mut record, clock) = new();
        assert_eq!(record.fail_at(&clock, &[5, 5, 4], &RULE), [None, None, Some(3)]);
        assert_eq!(record.out_at(&clock, 3), 10);
    }
}
