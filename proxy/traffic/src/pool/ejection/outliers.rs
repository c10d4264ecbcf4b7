//! Who answers well less often than the others, as Envoy finds them: below the mean by so many standard deviations.

use tidegate_config::model::SuccessRate;

/// What was counted of one endpoint within an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pool) struct Tally {
    pub(in crate::pool) good: u32,
    pub(in crate::pool) bad: u32,
}

impl Tally {
    /// Share of good answers, in percent.
    fn share(self) -> f64 {
        100.0 * f64::from(self.good) / (f64::from(self.good) + f64::from(self.bad)).max(1.0)
    }
}

/// One who stands out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::pool) struct Outlier {
    /// Its place in what was compared.
    pub(in crate::pool) place: usize,
    /// Its share of good answers, in percent.
    pub(in crate::pool) share: f64,
    /// That of all who were compared.
    pub(in crate::pool) mean: f64,
}

/// Who stands out, the worst first. Who had too few requests is not compared.
pub(in crate::pool) fn outliers(tallies: &[Tally], rule: &SuccessRate) -> Vec<Outlier> {
    let enough = |tally: &Tally| u64::from(tally.good) + u64::from(tally.bad) >= rule.min_requests.into();
    let compared = tallies.iter().enumerate().filter(|(_, tally)| enough(tally));
    let compared: Vec<(usize, f64)> = compared.map(|(place, tally)| (place, tally.share())).collect();
    if compared.len() < rule.min_endpoints as usize {
        return Vec::new();
    }
    let count = compared.len() as f64;
    let mean = compared.iter().map(|(_, share)| share).sum::<f64>() / count;
    let variance = compared.iter().map(|(_, share)| (share - mean).powi(2)).sum::<f64>() / count;
    let least = mean - rule.deviations * variance.sqrt();
    let below = compared.into_iter().filter(|(_, share)| *share < least);
    let mut found: Vec<Outlier> = below.map(|(place, share)| Outlier { place, share, mean }).collect();
    found.sort_by(|one, other| one.share.total_cmp(&other.share));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const RULE: SuccessRate =
        SuccessRate { interval: Duration::from_secs(10), min_endpoints: 5, min_requests: 100, deviations: 1.9 };

    fn places(shares: &[(u32, u32)], rule: &SuccessRate) -> Vec<usize> {
        let tallies: Vec<_> = shares.iter().map(|(good, bad)| Tally { good: *good, bad: *bad }).collect();
        outliers(&tallies, rule).iter().map(|one| one.place).collect()
    }

    #[test]
    fn who_stands_out_is_found() {
        // Mean 80, deviation 40: the border is 4.
        assert_eq!(places(&[(100, 0), (100, 0), (0, 100), (100, 0), (100, 0)], &RULE), [2]);
        assert_eq!(places(&[(100, 0), (100, 0), (5, 95), (100, 0), (100, 0)], &RULE), [2]);
        assert_eq!(places(&[(99, 1), (98, 2), (97, 3), (99, 1), (98, 2)], &RULE), [0; 0], "none differs enough");
        assert_eq!(places(&[(50, 50); 6], &RULE), [0; 0], "all are alike");
        assert_eq!(places(&[(0, 100); 6], &RULE), [0; 0], "all are alike");
        let strict = SuccessRate { deviations: 1.0, ..RULE };
        assert_eq!(
            places(&[(100, 0), (100, 0), (20, 80), (100, 0), (10, 90), (100, 0)], &strict),
            [4, 2],
            "worst first"
        );
    }

    #[test]
    fn too_few_are_not_compared() {
        assert_eq!(places(&[(100, 0), (100, 0), (0, 100), (100, 0)], &RULE), [0; 0], "four endpoints");
        assert_eq!(places(&[(100, 0), (100, 0), (0, 100), (100, 0), (99, 0)], &RULE), [0; 0], "one had 99 requests");
        assert_eq!(places(&[], &RULE), [0; 0]);
        let idle = SuccessRate { min_requests: 1, min_endpoints: 2, ..RULE };
        assert_eq!(places(&[(0, 0), (0, 0)], &idle), [0; 0]);
    }
}
