//! Tests with two lengths: a short form in every run, and a long one, marked `#[ignore]`, which `make drill` runs.

use std::{env, fmt::Display, str::FromStr};

use crate::random::fresh_seed;

/// The number in an environment variable, or `default` where it is not set.
///
/// # Panics
/// When it is set to something else than a number.
pub fn amount(variable: &str, default: usize) -> usize {
    read(variable).unwrap_or(default)
}

/// The seed of a long form: `TIDEGATE_DRILL_SEED`, or another one each time. Tell it by [`say`], for it is how a failed run is had
/// again.
pub fn seed() -> u64 {
    read("TIDEGATE_DRILL_SEED").unwrap_or_else(fresh_seed)
}

/// Prints a line of figures for who reads the run.
#[expect(clippy::print_stderr, reason = "figures are what a drill is for; the test runner hides them otherwise")]
pub fn say(line: impl Display) {
    eprintln!("{line}");
}

fn read<T: FromStr>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: '{text}' is no number")))
}
