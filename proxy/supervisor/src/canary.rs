//! The first worker of a new generation held against the workers of before: figures of both, and what they come to. Pure: the
//! data plane counts.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_config::model::{MaxDelta, Share};

/// What became of the requests that one side was given in the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CanaryFigures {
    /// Requests that were answered or that failed.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// The time within which 95 of 100 answers began; `None` without any.
    pub p95: Option<Duration>,
}

/// What a comparison comes to. A closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryVerdict {
    /// The new worker is as good as those of before, or as much worse as it may be.
    Fine,
    /// Its share of failed requests is too high.
    MoreErrors,
    /// Its answers take too long.
    Slower,
    /// Too few requests came to say more than that nothing was found against it.
    TooFewRequests,
    /// Nobody else served any more.
    Alone,
    /// The data plane had no figures.
    Unknown,
}

impl CanaryVerdict {
    /// Its name in logs and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::MoreErrors => "more_errors",
            Self::Slower => "slower",
            Self::TooFewRequests => "too_few_requests",
            Self::Alone => "alone",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the deploy is given up for it.
    #[must_use]
    pub const fn is_against(self) -> bool {
        matches!(self, Self::MoreErrors | Self::Slower)
    }
}

/// A comparison that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The workers of before.
    pub old: CanaryFigures,
    /// The new one.
    pub new: CanaryFigures,
    /// What it comes to.
    pub verdict: CanaryVerdict,
}

impl Comparison {
    /// Both sides held against each other. What is found against the new worker needs evidence, and so does its acquittal: a
    /// share of errors needs [`LEAST_FAILED`] failed requests to be too high and [`LEAST_COUNTED`] requests on each side to be
    /// fine, a p95 [`LEAST_TIMED`] requests on each side for either, and a difference of more than [`NEGLIGIBLE`] to be too long.
    #[must_use]
    pub fn new(old: CanaryFigures, new: CanaryFigures, max_delta: MaxDelta) -> Self {
        let MaxDelta { errors, p95 } = max_delta;
        let have = |least: u64| old.requests.min(new.requests) >= least;
        let verdict = if errors.is_some_and(|most| fails_more(&old, &new, most)) {
            CanaryVerdict::MoreErrors
        } else if have(LEAST_TIMED) && p95.is_some_and(|most| is_slower(&old, &new, most)) {
            CanaryVerdict::Slower
        } else if have(if p95.is_some() { LEAST_TIMED } else { LEAST_COUNTED }) {
            CanaryVerdict::Fine
        } else {
            CanaryVerdict::TooFewRequests
        };
        Self { old, new, verdict }
    }

    /// One that could not be made.
    #[must_use]
    pub fn without_figures(verdict: CanaryVerdict) -> Self {
        Self { old: CanaryFigures::default(), new: CanaryFigures::default(), verdict }
    }
}

/// Shares are compared as fractions of whole numbers, so that nothing is rounded.
fn fails_more(old: &CanaryFigures, new: &CanaryFigures, most: Share) -> bool {
    if new.failed < LEAST_FAILED || old.requests == 0 {
        return false;
    }
    let [old_all, old_failed, new_all, new_failed] =
        [old.requests, old.failed, new.requests, new.failed].map(u128::from);
    // What comes over a wire may be any number.
    let ours = new_failed.saturating_mul(old_all).saturating_mul(THOUSAND);
    let theirs = (old_failed * THOUSAND + u128::from(most.0) * old_all).saturating_mul(new_all);
    ours > theirs
}

fn is_slower(old: &CanaryFigures, new: &CanaryFigures, most: Share) -> bool {
    let Some((old, new)) = old.p95.zip(new.p95) else { return false };
    let longer = new.saturating_sub(old);
    longer > NEGLIGIBLE && longer.as_nanos() * THOUSAND > old.as_nanos() * u128::from(most.0)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self.verdict {
            CanaryVerdict::Fine => "it is as good as the workers from before",
            CanaryVerdict::MoreErrors => "it fails more requests than the workers from before",
            CanaryVerdict::Slower => "it is slower than the workers from before",
            CanaryVerdict::TooFewRequests => "too few requests to compare",
            CanaryVerdict::Alone => return f.write_str("nobody else served that it could be compared with"),
            CanaryVerdict::Unknown => return f.write_str("there are no figures to compare"),
        };
        write!(f, "{problem}: {}; before: {}", self.new, self.old)
    }
}

impl fmt::Display for CanaryFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, failed, p95 } = *self;
        // For people: a digit behind the point says enough, whatever the numbers are.
        let percent = if requests == 0 { 0.0 } else { failed as f64 * 100.0 / requests as f64 };
        write!(f, "{failed} of {requests} requests failed ({percent:.1}%)")?;
        p95.map_or(Ok(()), |p95| write!(f, ", p95 {:.1}ms", p95.as_secs_f64() * 1_000.0))
    }
}

const THOUSAND: u128 = 1_000;
/// One request that fails, or two, may have failed anywhere.
const LEAST_FAILED: u64 = 3;
/// Requests on each side for its share of errors to be fine.
const LEAST_COUNTED: u64 = 20;
/// Requests on each side for a p95 to mean anything: five of them are slower than that.
const LEAST_TIMED: u64 = 100;
/// What a new process needs longer anyway.
const NEGLIGIBLE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(requests: u64, failed: u64, micros: u64) -> CanaryFigures {
        CanaryFigures { requests, failed, p95: (micros > 0).then(|| Duration::from_micros(micros)) }
    }

    #[test]
    fn it_is_worse_by_more_than_it_may_be_or_it_is_not() {
        use CanaryVerdict::{Fine, MoreErrors, Slower, TooFewRequests};
        let usual = MaxDelta::default();
        let only_errors = MaxDelta { p95: None, ..usual };
        let only_p95 = MaxDelta { errors: None, ..usual };
        for (old, new, max_delta, verdict) in [
            (figures(1_000, 0, 20_000), figures(1_000, 10, 30_000), usual, Fine),
            (figures(1_000, 0, 20_000), figures(1_000, 11, 20_000), usual, MoreErrors),
            // A difference of shares, not their ratio.
            (figures(1_000, 50, 20_000), figures(1_000, 60, 20_000), usual, Fine),
            (figures(1_000, 50, 20_000), figures(1_000, 61, 20_000), usual, MoreErrors),
            (figures(3_000, 3_000, 20_000), figures(1_000, 1_000, 20_000), usual, Fine),
            // It is the new one that is looked at.
            (figures(1_000, 500, 900_000), figures(1_000, 0, 20_000), usual, Fine),
            (figures(1_000, 0, 20_000), figures(1_000, 0, 30_001), usual, Slower),
            (figures(1_000, 0, 1_000), figures(1_000, 0, 6_000), usual, Fine),
            (figures(1_000, 0, 1_000), figures(1_000, 0, 6_001), usual, Slower),
            (figures(1_000, 0, 20_000), figures(1_000, 900, 20_000), only_p95, Fine),
            (figures(1_000, 0, 20_000), figures(1_000, 0, 900_000), only_errors, Fine),
            // Both: what clients lose comes first.
            (figures(1_000, 0, 20_000), figures(1_000, 900, 900_000), usual, MoreErrors),
            (figures(1_000, 0, 0), figures(1_000, 0, 900_000), usual, Fine),
            // Little is enough to see that nothing works, and not to see that all is well.
            (figures(1, 0, 20_000), figures(3, 3, 0), usual, MoreErrors),
            (figures(500, 0, 20_000), figures(2, 2, 0), usual, TooFewRequests),
            (figures(0, 0, 0), figures(500, 500, 20_000), usual, TooFewRequests),
            (figures(99, 0, 20_000), figures(500, 2, 900_000), usual, TooFewRequests),
            (figures(500, 0, 20_000), figures(99, 1, 900_000), usual, TooFewRequests),
            (figures(100, 0, 20_000), figures(100, 2, 900_000), usual, Slower),
            (figures(20, 0, 20_000), figures(20, 2, 20_000), only_errors, Fine),
            (figures(19, 0, 20_000), figures(20, 2, 20_000), only_errors, TooFewRequests),
            (figures(0, 0, 0), figures(0, 0, 0), usual, TooFewRequests),
            (figures(1 << 50, 0, 1), figures(1 << 50, 1 << 50, 1), usual, MoreErrors),
            (figures(u64::MAX, 0, 1), figures(u64::MAX, u64::MAX, 1), usual, Fine),
        ] {
            assert_eq!(Comparison::new(old, new, max_delta).verdict, verdict, "{old} {new} {max_delta:?}");
        }
    }

    #[test]
    fn both_figures_are_told() {
        let told =
            Comparison::new(figures(1_200, 2, 12_340), figures(400, 122, 30_000), MaxDelta::default()).to_string();
        assert_eq!(
            told,
            "it fails more requests than the workers from before: 122 of 400 requests failed (30.5%), p95 30.0ms; before: \
             2 of 1200 requests failed (0.2%), p95 12.3ms"
        );
        let nothing = Comparison::new(figures(0, 0, 0), figures(0, 0, 0), MaxDelta::default()).to_string();
        assert!(
            nothing.starts_with("too few requests to compare: 0 of 0 requests failed (0.0%); before: 0 of 0"),
            "{nothing}"
        );
    }
}
