//! Least squares with intervals that hold where the noise is not as the textbook has it.

/// What a fit needs of an observation.
pub(super) struct Observation<'a> {
    /// How much of each cause there was.
    pub(super) causes: &'a [f64],
    /// What there was of the effect.
    pub(super) effect: f64,
    /// Observations of one line follow one another: what one misses the next may have.
    pub(super) line: u64,
}

/// What is found of a cause.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Coefficient {
    /// Effect of one unit.
    pub(super) value: f64,
    /// Half of the 95 % interval.
    pub(super) error: f64,
    /// Part of the cause that the other causes do not explain: 1 where it has nothing to do with them, 0 where it follows from
    /// them.
    pub(super) own: f64,
}

/// What is known of the noise beforehand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    /// Its deviation where nothing but rounding makes any.
    pub(super) grain: f64,
    /// An observation that is further off than so many usual deviations pulls no harder than one that is just so far (Huber's
    /// estimate).
    pub(super) far_off: Option<f64>,
}

/// The coefficients of all causes; `None` with too few observations to judge the noise by.
pub(super) fn fit(observations: &[Observation<'_>], noise: Noise) -> Option<Vec<Coefficient>> {
    let width = observations.first()?.causes.len();
    let freedom = observations.len().checked_sub(width).filter(|rest| *rest >= LEAST_FREEDOM)?;
    // All columns of length 1: counts and seconds differ by orders.
    let length = |place: usize| observations.iter().map(|one| one.causes[place].powi(2)).sum::<f64>().sqrt();
    let lengths: Vec<f64> = (0..width).map(|place| length(place).max(f64::MIN_POSITIVE)).collect();
    let scaled =
        |one: &Observation<'_>| one.causes.iter().zip(&lengths).map(|(cause, length)| cause / length).collect();
    let rows: Vec<Vec<f64>> = observations.iter().map(scaled).collect();
    let effects: Vec<f64> = observations.iter().map(|one| one.effect).collect();
    let mut weights = vec![1.0; rows.len()];
    let (mut inverse, mut values) = solve(&rows, &effects, &weights);
    let mut rests = residuals(&rows, &effects, &values);
    if let Some(most) = noise.far_off {
        for _ in 0..ROUNDS {
            let limit = most * usual(&rests).max(noise.grain);
            weights = rests.iter().map(|rest| (limit / rest.abs().max(limit)).min(1.0)).collect();
            (inverse, values) = solve(&rows, &effects, &weights);
            rests = residuals(&rows, &effects, &values);
        }
    }
    let plain = solve(&rows, &effects, &vec![1.0; rows.len()]).0;
    let pulls: Vec<f64> = rests.iter().zip(&weights).map(|(rest, weight)| rest * weight).collect();
    let quantile = quantile(freedom);
    let variance = pulls.iter().map(|pull| pull * pull).sum::<f64>() / freedom as f64;
    let even = variance.max(noise.grain * noise.grain);
    let coefficient = |place: usize| Coefficient {
        value: values[place] / lengths[place],
        error: quantile * deviation(place, &rows, &pulls, &inverse, observations, even) / lengths[place],
        own: 1.0 / plain[place][place],
    };
    Some((0..width).map(coefficient).collect())
}

/// The largest of three estimates: that of even noise, whose variance is `even`; that of noise which differs from row to row (MacKinnon and White, HC3);
/// and that of noise which also goes from one row of a line to the next.
fn deviation(
    place: usize,
    rows: &[Vec<f64>],
    pulls: &[f64],
    inverse: &[Vec<f64>],
    observations: &[Observation<'_>],
    even: f64,
) -> f64 {
    let even = inverse[place][place] * even;
    let score = |(row, pull): (&Vec<f64>, &f64)| {
        let leverage = dot(row, &product(inverse, row)).min(1.0 - 1e-3);
        dot(&inverse[place], row) * pull / (1.0 - leverage)
    };
    let scores: Vec<f64> = rows.iter().zip(pulls).map(score).collect();
    let uneven: f64 = scores.iter().map(|score| score * score).sum();
    let mut last = std::collections::HashMap::new();
    let mut carried = 0.0;
    for (score, observation) in scores.iter().zip(observations) {
        if let Some(before) = last.insert(observation.line, *score) {
            carried += 2.0 * before * score;
        }
    }
    even.max(uneven).max(uneven + carried).sqrt()
}

fn residuals(rows: &[Vec<f64>], effects: &[f64], values: &[f64]) -> Vec<f64> {
    rows.iter().zip(effects).map(|(row, effect)| effect - dot(row, values)).collect()
}

/// The usual deviation, by the median: a few far ones do not change it.
fn usual(rests: &[f64]) -> f64 {
    let mut sizes: Vec<f64> = rests.iter().map(|rest| rest.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    1.4826 * sizes[sizes.len() / 2]
}

/// Inverse of the normal matrix, and the solution.
fn solve(rows: &[Vec<f64>], effects: &[f64], weights: &[f64]) -> (Vec<Vec<f64>>, Vec<f64>) {
    let width = rows[0].len();
    let mut normal = vec![vec![0.0; width]; width];
    let mut right = vec![0.0; width];
    for ((row, effect), weight) in rows.iter().zip(effects).zip(weights) {
        for (place, cause) in row.iter().enumerate() {
            right[place] += weight * cause * effect;
            normal[place].iter_mut().zip(row).for_each(|(sum, other)| *sum += weight * cause * other);
        }
    }
    // So that causes which follow from one another exactly spoil nothing but themselves.
    (0..width).for_each(|place| normal[place][place] += RIDGE);
    let inverse = inverse(normal);
    let values = product(&inverse, &right);
    (inverse, values)
}

/// Gauss and Jordan; of a positive definite matrix no pivot is 0.
fn inverse(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let width = matrix.len();
    let unit = |place: usize| (0..width).map(|other| f64::from(u8::from(other == place))).collect();
    let mut result: Vec<Vec<f64>> = (0..width).map(unit).collect();
    for place in 0..width {
        let pivot = matrix[place][place].max(RIDGE / 2.0);
        for line in [&mut matrix[place], &mut result[place]] {
            line.iter_mut().for_each(|value| *value /= pivot);
        }
        let (pivots, results) = (matrix[place].clone(), result[place].clone());
        for other in (0..width).filter(|other| *other != place) {
            let factor = matrix[other][place];
            matrix[other].iter_mut().zip(&pivots).for_each(|(value, pivot)| *value -= factor * pivot);
            result[other].iter_mut().zip(&results).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    result
}

fn product(matrix: &[Vec<f64>], vector: &[f64]) -> Vec<f64> {
    matrix.iter().map(|line| dot(line, vector)).collect()
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// Of Student's distribution, at 97.5 %, by the expansion of Cornish and Fisher; better than one in a thousand from
/// [`LEAST_FREEDOM`] on.
fn quantile(freedom: usize) -> f64 {
    let (z, n) = (1.959_963_985_f64, freedom as f64);
    let (third, fifth) = (z.powi(3), z.powi(5));
    let seventh = z.powi(7);
    z + (third + z) / (4.0 * n)
        + (5.0 * fifth + 16.0 * third + 3.0 * z) / (96.0 * n * n)
        + (3.0 * seventh + 19.0 * fifth + 17.0 * third - 15.0 * z) / (384.0 * n.powi(3))
}

/// Observations beyond the causes that there must be.
const LEAST_FREEDOM: usize = 8;
/// Rounds of Huber's estimate; few more would change anything.
const ROUNDS: usize = 12;
const RIDGE: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Noise = Noise { grain: 1e-9, far_off: None };

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, table) in [(8, 2.306), (10, 2.228), (20, 2.086), (60, 2.000), (1_000, 1.962)] {
            assert!((quantile(freedom) - table).abs() < 0.002, "{freedom}: {}", quantile(freedom));
        }
    }

    #[test]
    fn an_exact_law_is_found_and_a_cause_that_follows_from_others_is_told() {
        let causes: Vec<[f64; 4]> = (0..40)
            .map(|turn: u32| {
                let (first, second) = (f64::from(turn % 5), f64::from(turn * 7 % 11));
                [first, second, first + second, f64::from(turn * 3 % 7)]
            })
            .collect();
        let observation =
            |causes: &'static [f64; 4]| Observation { causes, effect: 2.0 * causes[0] + 3.0 * causes[3], line: 0 };
        let causes: &'static [[f64; 4]] = causes.leak();
        let found = fit(&causes.iter().map(observation).collect::<Vec<_>>(), EXACT).unwrap();
        assert!(found[..3].iter().all(|one| one.own < 1e-6), "{found:?}");
        assert!((found[3].value - 3.0).abs() < 1e-6 && found[3].own > 0.2, "{found:?}");
        assert!(fit(&causes[..11].iter().map(observation).collect::<Vec<_>>(), EXACT).is_none());
    }
}
