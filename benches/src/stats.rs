//! Medians, percentiles, and how sure a ratio of medians is.

/// The middle value, or the mean of the two in the middle. 0 for no values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest value that at least `share` of all values do not exceed (nearest rank). `None` for no values.
pub(crate) fn percentile(sorted: &[u32], share: f64) -> Option<u32> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// Whether a larger or a smaller value is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// A ratio with the range that holds it with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Median of `ours` over the median of the best of `peers`, one value per round each.
///
/// The interval is a percentile bootstrap over rounds: a round is drawn for everybody at once, because its runs share
/// the machine's mood, and the best peer is chosen anew in each draw, so that the choice itself is part of the doubt.
/// `None` when a side has no rounds, or the rounds of two sides differ in number.
pub(crate) fn ratio_to_best(ours: &[f64], peers: &[Vec<f64>], better: Better) -> Option<Ratio> {
    let rounds = ours.len();
    if rounds == 0 || peers.is_empty() || peers.iter().any(|peer| peer.len() != rounds) {
        return None;
    }
    let every: Vec<usize> = (0..rounds).collect();
    let mut random = SplitMix::new(0x7469_6465_6761_7465);
    let mut draws: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<usize> = every.iter().map(|_| random.below(rounds)).collect();
            ratio_of(ours, peers, &drawn, better)
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    Some(Ratio {
        value: ratio_of(ours, peers, &every, better),
        low: draws[DRAWS * 25 / 1000],
        high: draws[DRAWS * 975 / 1000],
    })
}

fn ratio_of(ours: &[f64], peers: &[Vec<f64>], rounds: &[usize], better: Better) -> f64 {
    let middle = |values: &[f64]| median(&rounds.iter().map(|round| values[*round]).collect::<Vec<_>>());
    let best = peers
        .iter()
        .map(|peer| middle(peer))
        .reduce(|one, other| match better {
            Better::Higher => one.max(other),
            Better::Lower => one.min(other),
        })
        .unwrap_or(f64::NAN);
    middle(ours) / best
}

const DRAWS: usize = 4000;

/// A small generator: the same seed always gives the same numbers, and so the same interval or the same load.
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Evenly distributed above 0 and up to 1.
    pub(crate) fn open_unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_an_outlier() {
        assert_eq!(median(&[3.0, 1000.0, 1.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 1000.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&values, 0.5), Some(50));
        assert_eq!(percentile(&values, 0.99), Some(99));
        assert_eq!(percentile(&[7], 0.99), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn the_best_peer_is_the_quickest_or_the_cheapest() {
        let peers = vec![vec![100.0; 5], vec![200.0; 5]];
        let quicker = ratio_to_best(&[300.0; 5], &peers, Better::Higher).unwrap();
        assert_eq!(quicker, Ratio { value: 1.5, low: 1.5, high: 1.5 });
        assert_eq!(ratio_to_best(&[300.0; 5], &peers, Better::Lower).unwrap().value, 3.0);
    }

    #[test]
    fn noise_widens_the_interval_around_the_ratio() {
        let ours = [110.0, 90.0, 105.0, 95.0, 100.0, 120.0, 80.0];
        let peers = vec![vec![100.0, 101.0, 99.0, 100.0, 98.0, 102.0, 100.0]];
        let ratio = ratio_to_best(&ours, &peers, Better::Higher).unwrap();
        assert!(ratio.low < 0.97 && ratio.high > 1.03, "{ratio:?}");
        assert!(ratio.low > 0.79 && ratio.high < 1.23, "{ratio:?}");
        assert_eq!(ratio_to_best(&ours, &peers, Better::Higher), Some(ratio));
    }

    #[test]
    fn rounds_that_do_not_match_give_no_ratio() {
        assert!(ratio_to_best(&[1.0, 2.0], &[vec![1.0]], Better::Higher).is_none());
        assert!(ratio_to_best(&[1.0], &[], Better::Higher).is_none());
    }
}
