//! What becomes of the requests that some endpoints are given for a while, so that they can be compared with others: how many,
//! how many fail, how long answers take.
//!
//! Counted only while a trial goes on; all other leases look at a flag. Nothing is allocated by a request. A request counts
//! once, on the head of its answer or on its failure: also one whose answer gives way to another try, because it is the
//! endpoint that is looked at and not what its client gets. Requests whose clients went away, that were ended for a reason of
//! ours or on a connection that was closed while it was idle say nothing and do not count.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::lease::Outcome;
use super::symptom::Symptom;

/// Counts of one side, which several endpoints may share.
pub struct Trial {
    began: Instant,
    planned: Duration,
    requests: AtomicU64,
    failed: AtomicU64,
    times: Times,
    /// Requests without an answer so far, by the part of the trial that they began in.
    waiting: [AtomicU32; PARTS],
}

/// What a trial has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests that were answered or that failed.
    pub requests: u64,
    /// Those of them that failed: with a status of 500 or more, without an answer, or with one that broke off.
    pub failed: u64,
    /// The time within which 95 of 100 heads of answers came; `None` without any.
    pub p95: Option<Duration>,
}

impl Trial {
    /// One that begins now and is to last that long.
    #[must_use]
    pub fn new(began: Instant, planned: Duration) -> Arc<Self> {
        Arc::new(Self {
            began,
            planned,
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            times: Times::default(),
            waiting: [const { AtomicU32::new(0) }; PARTS],
        })
    }

    /// What it has come to. A request that has waited for an answer for 5 s, or for half of the trial where that is less, has
    /// failed by now; its answer takes as long as it has been waiting at least.
    #[must_use]
    pub fn figures(&self, now: Instant) -> Figures {
        let (mut requests, mut failed) = (self.requests.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        let mut counts = self.times.counts();
        let patience = NO_ANSWER.min(self.planned / 2);
        for (part, waiting) in self.waiting.iter().enumerate() {
            let waited = now.saturating_duration_since(self.end_of(part));
            let count = u64::from(waiting.load(Ordering::Relaxed));
            if waited >= patience && count > 0 {
                requests += count;
                failed += count;
                counts[bucket(waited)] += count;
            }
        }
        Figures { requests, failed, p95: p95(&counts) }
    }

    fn part(&self, now: Instant) -> usize {
        let part = now.saturating_duration_since(self.began).as_nanos() / self.part_length().as_nanos();
        usize::try_from(part).unwrap_or(usize::MAX).min(PARTS - 1)
    }

    /// The last part goes on for as long as the trial does: who began in it has not waited yet.
    fn end_of(&self, part: usize) -> Instant {
        let parts = u32::try_from(part + 1).unwrap_or(u32::MAX);
        if part + 1 == PARTS { self.began + MAX_WAIT } else { self.began + self.part_length() * parts }
    }

    fn part_length(&self) -> Duration {
        (self.planned / PARTS_IN_TIME).max(Duration::from_millis(1))
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("requests", &self.requests).field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// One request of a trial.
#[derive(Debug)]
pub(super) struct Sample {
    trial: Arc<Trial>,
    part: u8,
    is_counted: bool,
    has_failed: bool,
}

impl Sample {
    /// The head of its answer has come.
    pub(super) fn answered(&mut self, status: u16, took: Duration) {
        if !self.is_counted {
            self.trial.times.add(took);
        }
        self.count(matches!(status, 500..));
    }

    /// Its lease has ended.
    pub(super) fn ended(mut self, outcome: Option<Outcome>) {
        match outcome {
            // An answer: what its status says was counted with its head.
            Some(Outcome::UpstreamFault(Symptom::Status(_))) => {}
            Some(Outcome::UpstreamFault(_)) => self.count(true),
            _ => {}
        }
        self.leave();
    }

    fn count(&mut self, has_failed: bool) {
        self.leave();
        if !std::mem::replace(&mut self.is_counted, true) {
            self.trial.requests.fetch_add(1, Ordering::Relaxed);
        }
        if has_failed && !std::mem::replace(&mut self.has_failed, true) {
            self.trial.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It waits no longer.
    fn leave(&mut self) {
        let part = std::mem::replace(&mut self.part, LEFT);
        if let Some(waiting) = self.trial.waiting.get(usize::from(part)) {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Endpoint {
    /// Its requests count there from now on; `None` ends that, also for those that are under way.
    pub fn put_on_trial(&self, trial: Option<Arc<Trial>>) {
        let is_on = trial.is_some();
        *self.trial().write().unwrap_or_else(PoisonError::into_inner) = trial;
        self.mark_trial(is_on);
    }

    /// For a request that begins now, if it counts.
    pub(super) fn sample(&self, now: Instant) -> Option<Sample> {
        if !self.is_on_trial() {
            return None;
        }
        let trial = Arc::clone(self.trial().read().unwrap_or_else(PoisonError::into_inner).as_ref()?);
        let part = trial.part(now);
        trial.waiting[part].fetch_add(1, Ordering::Relaxed);
        let part = u8::try_from(part).unwrap_or(LEFT);
        Some(Sample { trial, part, is_counted: false, has_failed: false })
    }
}

/// Times by how often they occurred: each power of two of microseconds in 32 equal parts, so that a time read from it is right
/// to 2 %.
struct Times([AtomicU32; BUCKETS]);

impl Default for Times {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; BUCKETS])
    }
}

impl Times {
    fn add(&self, time: Duration) {
        self.0[bucket(time)].fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> Vec<u64> {
        self.0.iter().map(|count| u64::from(count.load(Ordering::Relaxed))).collect()
    }
}

fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    // Below 32 us each microsecond has its own.
    let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(FINE_BITS + 1);
    let within = usize::try_from(micros >> shift).unwrap_or(usize::MAX);
    (((shift as usize) << FINE_BITS) + within).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn time_of(bucket: usize) -> Duration {
    let shift = (bucket >> FINE_BITS).saturating_sub(1);
    let within = (bucket - (shift << FINE_BITS)) as u64;
    Duration::from_micros((within << shift) + ((1 << shift) >> 1))
}

/// The smallest time that 95 of 100 do not exceed.
fn p95(counts: &[u64]) -> Option<Duration> {
    let rank = (counts.iter().sum::<u64>() * 95).div_ceil(100);
    let mut seen = 0;
    let found = counts.iter().position(|count| {
        seen += count;
        seen >= rank && seen > 0
    });
    found.map(time_of)
}

const FINE_BITS: u32 = 5;
/// Up to more than an hour; what takes longer counts as that.
const BUCKETS: usize = 28 << FINE_BITS;
/// Parts of a trial, by which it is known how long requests have been waiting, and one more for what comes late.
const PARTS: usize = 65;
const PARTS_IN_TIME: u32 = 64;
/// Longer than any trial.
const MAX_WAIT: Duration = Duration::from_secs(365 * 24 * 3_600);
/// No part.
const LEFT: u8 = u8::MAX;
/// A request that has waited for so long when the trial ends has no answer.
const NO_ANSWER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(20);

    fn millis(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn begin(trial: &Arc<Trial>, now: Instant) -> Sample {
        let part = trial.part(now);
        trial.waiting[part].fetch_add(1, Ordering::Relaxed);
        Sample { trial: Arc::clone(trial), part: u8::try_from(part).unwrap(), is_counted: false, has_failed: false }
    }

    #[test]
    fn each_request_counts_once_by_what_the_endpoint_did() {
        let start = Instant::now();
        let fault = Some(Outcome::UpstreamFault(Symptom::Closed));
        for (status, end, counted) in [
            (Some(200), Some(Outcome::Ok), (1, 0)),
            (Some(404), Some(Outcome::ClientGone), (1, 0)),
            (Some(500), Some(Outcome::Ok), (1, 1)),
            (Some(503), fault, (1, 1)),
            (Some(200), fault, (1, 1)),
            (Some(404), Some(Outcome::UpstreamFault(Symptom::Status(404))), (1, 0)),
            (None, fault, (1, 1)),
            (None, Some(Outcome::Ok), (0, 0)),
            (None, Some(Outcome::Cancelled), (0, 0)),
            (None, Some(Outcome::Overtaken), (0, 0)),
            (None, None, (0, 0)),
        ] {
            let trial = Trial::new(start, HOLD);
            let mut sample = begin(&trial, start);
            if let Some(status) = status {
                sample.answered(status, millis(3));
            }
            sample.ended(end);
            let figures = trial.figures(start + HOLD);
            assert_eq!((figures.requests, figures.failed), counted, "{status:?} {end:?}");
            assert_eq!(figures.p95.is_some(), status.is_some(), "{status:?} {end:?}");
        }
    }

    #[test]
    fn who_has_waited_too_long_has_failed_when_the_trial_ends() {
        let start = Instant::now();
        let trial = Trial::new(start, HOLD);
        let at = |seconds| start + Duration::from_secs(seconds);
        let (early, late) = (begin(&trial, at(2)), begin(&trial, at(17)));
        let after_the_end = begin(&trial, at(30));
        let figures = trial.figures(start + HOLD);
        assert_eq!((figures.requests, figures.failed), (1, 1));
        let waited = figures.p95.unwrap();
        assert!((millis(17_000)..=millis(18_000)).contains(&waited), "{waited:?}");
        early.ended(None);
        assert_eq!(trial.figures(start + HOLD), Figures::default());
        late.ended(None);
        after_the_end.ended(None);
        assert!(trial.waiting.iter().all(|waiting| waiting.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_short_trial_takes_half_of_its_time_for_no_answer() {
        let start = Instant::now();
        let trial = Trial::new(start, millis(2_000));
        let (_early, _late) = (begin(&trial, start + millis(900)), begin(&trial, start + millis(1_200)));
        assert_eq!(trial.figures(start + millis(2_000)).failed, 1);
    }

    #[test]
    fn a_time_is_right_to_two_percent() {
        for micros in (0..64).chain([100, 999, 1_000, 12_345, 1 << 20, 60_000_000, 3_600_000_000]) {
            let (time, read) = (Duration::from_micros(micros), time_of(bucket(Duration::from_micros(micros))));
            let error = read.abs_diff(time).as_secs_f64();
            assert!(error <= time.as_secs_f64() * 0.02, "{time:?} is read as {read:?}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert!((1..1 << 16).map(|micros| bucket(Duration::from_micros(micros))).is_sorted());
    }

    #[test]
    fn five_of_a_hundred_may_take_longer() {
        for (slow, expected) in [(0, millis(10)), (5, millis(10)), (6, millis(200)), (100, millis(200))] {
            let trial = Trial::new(Instant::now(), HOLD);
            (0..100).for_each(|at| trial.times.add(if at < slow { millis(200) } else { millis(10) }));
            let found = p95(&trial.times.counts()).unwrap();
            assert!(found.abs_diff(expected) <= expected / 50, "{slow}: {found:?}");
        }
        assert_eq!(p95(&[0; BUCKETS]), None);
    }
}
