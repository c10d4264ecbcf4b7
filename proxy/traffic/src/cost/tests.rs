//! Workers whose costs are known, looked at as they would be. Seeds are fixed: how often an interval holds the truth is counted,
//! not hoped for.

use proptest::prelude::*;

use super::*;

/// Numbers that look random, by SplitMix64.
struct Draw(u64);

impl Draw {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, most: u64) -> u64 {
        (self.unit() * most as f64) as u64
    }

    /// With mean 1, and often far from it.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Nearly normal, with deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// How long each request takes.
const HELD: Duration = Duration::from_millis(100);

/// A worker whose requests are counted and whose costs are known.
struct Worker {
    costs: Costs,
    look: Look,
    /// Exact; what is looked at is rounded as the kernel rounds.
    cpu: f64,
    rss: f64,
}

impl Worker {
    fn new() -> Self {
        let look = Look {
            spawn: 7,
            generation: 1,
            at: Duration::ZERO,
            cpu: Duration::ZERO,
            rss_bytes: 0,
            charged: Default::default(),
        };
        Self { costs: Costs::default(), look, cpu: 0.0, rss: 500e6 }
    }

    /// An interval with so many requests by column, CPU time and growth; seconds and bytes.
    fn interval(&mut self, requests: &[u64], cpu: f64, growth: f64) {
        self.cpu += cpu;
        self.rss += growth;
        self.look.at += Duration::from_secs(5);
        for (charged, requests) in self.look.charged.iter_mut().zip(requests) {
            charged.requests += requests;
            charged.held += HELD * u32::try_from(*requests).unwrap();
        }
        self.look()
    }

    fn look(&mut self) {
        self.look.cpu = Duration::from_millis((self.cpu * 100.0) as u64 * 10);
        self.look.rss_bytes = (self.rss / 4096.0) as u64 * 4096;
        self.costs.note(self.look);
    }
}

fn holds(figure: Figure, truth: f64) -> Option<bool> {
    match figure {
        Figure::Known { value, error } => Some((value - truth).abs() <= error),
        Figure::Unknown { .. } => None,
    }
}

fn is_together(figure: Figure) -> bool {
    matches!(figure, Figure::Unknown { why: Unknown::Together, .. })
}

/// Shares of runs, of CPU and of memory, in which a column has a number, and in which that number's interval holds the truth.
fn shares(
    runs: u64,
    truth: [f64; 3],
    run: impl Fn(u64, [f64; 3]) -> Estimate,
    figure: impl Fn(&ColumnCost) -> Figure,
) -> [[f64; 2]; 3] {
    let mut counts = [[0.0; 2]; 3];
    for seed in 0..runs {
        let estimate = run(seed, truth);
        for (place, count) in counts.iter_mut().enumerate() {
            if let Some(held) = holds(figure(&estimate.columns[place]), truth[place]) {
                count[0] += 1.0 / runs as f64;
                count[1] += f64::from(u8::from(held)) / runs as f64;
            }
        }
    }
    counts
}

/// Three routes that come and go, whose requests cost what they cost on the average only. What an interval ends may have run
/// in the one before.
fn cpu_run(seed: u64, truth: [f64; 3]) -> Estimate {
    let mut draw = Draw(seed);
    let mut worker = Worker::new();
    worker.look();
    let mut late = 0.0;
    for _ in 0..60 {
        let requests: [u64; 3] = std::array::from_fn(|_| if draw.unit() < 0.4 { 0 } else { draw.below(60) });
        let mut cpu = 0.05 + 0.01 * draw.normal();
        for (requests, cost) in requests.iter().zip(truth) {
            cpu += (0..*requests).map(|_| cost * draw.exponential()).sum::<f64>();
        }
        // Half of a request's time, on the average, of those that are under way at the end.
        let next = cpu * HELD.as_secs_f64() / 5.0 * draw.unit();
        worker.interval(&requests, (cpu - next + late).max(0.0), 0.0);
        late = next;
    }
    worker.costs.estimate(1)
}

#[test]
fn intervals_of_cpu_hold_the_truth_as_often_as_they_say() {
    let found = shares(600, [0.02, 0.004, 0.0], cpu_run, |column| column.cpu_seconds);
    println!("{found:?}");
    for [known, held] in &found[..2] {
        assert!(*known > 0.97 && *held >= 0.93 * known, "{found:?}");
    }
    assert!(found[2][0] <= 0.035, "what costs nothing is said to cost something: {found:?}");
}

/// Memory that a collector gives back now and then, and that grows by arenas: the level wavers, and what one interval has too
/// much the next has too little. Bursts take turns, which is the worst that can be.
fn rss_run(seed: u64, truth: [f64; 3]) -> Estimate {
    let mut draw = Draw(seed);
    let mut worker = Worker::new();
    worker.look();
    let mut level = 0.0;
    for turn in 0..80_usize {
        let requests: [u64; 3] =
            std::array::from_fn(|place| if turn % 3 == place { 20 + draw.below(40) } else { draw.below(10) });
        let grown: f64 = requests.iter().zip(truth).map(|(requests, cost)| *requests as f64 * cost).sum();
        let before = level;
        level = 1e6 * draw.normal() - if draw.unit() < 0.05 { 40e6 } else { 0.0 };
        worker.interval(&requests, 0.0, grown + level - before);
    }
    worker.costs.estimate(1)
}

#[test]
fn intervals_of_growth_hold_the_truth_among_falls_and_steps() {
    let found = shares(600, [1e6, 60e3, 0.0], rss_run, |column| column.rss_bytes);
    println!("{found:?}");
    for [known, held] in &found[..2] {
        assert!(*known > 0.6 && *held >= 0.93 * known, "{found:?}");
    }
    assert!(found[2][0] <= 0.06, "both ends of the interval count: {found:?}");
}

#[test]
fn each_route_has_its_own_number_and_its_own_counts() {
    let estimate = cpu_run(3, [0.02, 0.004, 0.0]);
    let [dear, cheap, free] = estimate.columns[..] else { panic!("{estimate:?}") };
    assert_eq!([dear.place, cheap.place, free.place], [0, 1, 2]);
    let value = |figure| if let Figure::Known { value, .. } = figure { value } else { f64::NAN };
    assert!((value(dear.cpu_seconds) - 0.02).abs() < 0.002, "{dear:?}");
    assert!((value(cheap.cpu_seconds) - 0.004).abs() < 0.002, "{cheap:?}");
    assert!(matches!(free.cpu_seconds, Figure::Unknown { why: Unknown::MaybeNothing, at_most: Some(_) }), "{free:?}");
    // It is there, but beside these it is lost in the noise.
    assert!(!is_together(estimate.idle) && holds(estimate.idle, 0.01) != Some(false), "{:?}", estimate.idle);
    assert!((dear.held_seconds - dear.requests as f64 * HELD.as_secs_f64()).abs() < 1e-6);
    assert_eq!((estimate.intervals, estimate.time), (60, Duration::from_secs(300)));
}

#[test]
fn of_other_versions_and_before_enough_was_seen_there_is_no_number() {
    let mut worker = Worker::new();
    worker.look();
    for turn in 0..9 {
        worker.interval(&[turn % 3, turn % 2], 0.1, 0.0);
    }
    let few = worker.costs.estimate(1);
    assert!(few.columns.iter().all(|column| column.cpu_seconds == TOO_FEW && column.rss_bytes == TOO_FEW), "{few:?}");
    assert_eq!((few.idle, worker.costs.estimate(2).intervals), (TOO_FEW, 0));
}

#[test]
fn a_worker_that_counts_backwards_says_nothing() {
    let mut worker = Worker::new();
    worker.look();
    worker.interval(&[3], 0.5, 0.0);
    worker.interval(&[3], -0.2, 0.0);
    worker.look.charged[0].requests = 1;
    worker.interval(&[0], 0.5, 0.0);
    assert_eq!(worker.costs.estimate(1).intervals, 1);
    worker.costs.retain(|_| false);
    worker.interval(&[3], 0.5, 0.0);
    assert_eq!(worker.costs.estimate(1).intervals, 1, "a first look ends no interval");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A route that always comes with others, give or take a little, has no number, whatever the noise; who comes by itself has.
    #[test]
    fn what_comes_together_is_not_told_apart(
        seed in any::<u64>(),
        factor in 1..20_u64,
        is_sum in any::<bool>(),
        wobble in 0..2_u64,
    ) {
        let mut draw = Draw(seed);
        let mut worker = Worker::new();
        worker.look();
        for turn in 0..80_u64 {
            let (first, own) = (200 + draw.below(600), draw.below(100));
            let second = if is_sum { draw.below(400) } else { 0 };
            let shaken = if turn % 9 == 0 { wobble } else { 0 };
            let requests = [first, own, first * factor + second + shaken, second];
            let cpu = first as f64 * 0.001 + own as f64 * 0.002 + 0.01 * draw.unit();
            worker.interval(&requests, cpu, 4096.0 * first as f64);
        }
        let estimate = worker.costs.estimate(1);
        for column in estimate.columns.iter().filter(|column| column.place != 1) {
            prop_assert!(is_together(column.cpu_seconds) && is_together(column.rss_bytes), "{:?}", column);
        }
        prop_assert!(holds(estimate.columns[1].cpu_seconds, 0.002).is_some(), "{:?}", estimate);
    }

    /// Requests at an even pace are as good as the passing of time.
    #[test]
    fn an_even_pace_is_not_told_from_idling(pace in 100..10_000_u64) {
        let mut worker = Worker::new();
        worker.look();
        for turn in 0..60 {
            worker.interval(&[pace + turn % 2], 0.2, 4096.0);
        }
        let estimate = worker.costs.estimate(1);
        prop_assert!([estimate.columns[0].cpu_seconds, estimate.idle].into_iter().all(is_together), "{:?}", estimate);
    }
}
