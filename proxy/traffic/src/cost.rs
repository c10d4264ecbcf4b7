//! What a request of each route costs the workers that serve it: CPU time, and memory that they grow by.
//!
//! Nobody can see which request a worker's CPU time went to. But in some intervals there are more requests of one route, in
//! some more of another, and the sums tell them apart: the CPU time of an interval is taken to be that of each request, times
//! how many ended in it, and that of doing nothing, times its length. Where the intervals do not tell routes apart (they always
//! come together, or at an even pace), there is no number but the reason why.

mod fit;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::pool::charges::{COLUMNS, Charged};

use fit::{Coefficient, Noise, Observation, fit};

/// What was seen of one worker, all counted from its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Of the worker; none has that of another one.
    pub spawn: u64,
    /// Which version of the program it runs.
    pub generation: u64,
    /// When, by any clock that never goes back.
    pub at: Duration,
    /// CPU time of it and everything below it.
    pub cpu: Duration,
    /// Resident bytes of them, now.
    pub rss_bytes: u64,
    /// What it was charged with, by column.
    pub charged: [Charged; COLUMNS],
}

/// The intervals of an upstream's workers.
#[derive(Debug, Default)]
pub struct Costs {
    last: HashMap<u64, Look>,
    intervals: VecDeque<Interval>,
}

/// Between two looks at a worker.
#[derive(Debug, Clone, Copy)]
struct Interval {
    spawn: u64,
    generation: u64,
    seconds: f64,
    cpu_seconds: f64,
    rss_bytes: f64,
    requests: [f64; COLUMNS],
    held_seconds: [f64; COLUMNS],
}

/// What there is to say of an upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Intervals that it was made from.
    pub intervals: usize,
    /// Their length, all together.
    pub time: Duration,
    /// CPU time that was used in them, in seconds.
    pub cpu_seconds: f64,
    /// Bytes that the workers grew by in them; less than 0 where they shrank.
    pub rss_bytes: f64,
    /// CPU time of doing nothing, in seconds for each second of a worker.
    pub idle: Figure,
    /// Columns that had requests.
    pub columns: Vec<ColumnCost>,
}

/// What requests of a column cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColumnCost {
    /// Which one.
    pub place: usize,
    /// Requests that have ended.
    pub requests: u64,
    /// How long they held their worker, all together, in seconds.
    pub held_seconds: f64,
    /// CPU time of one, in seconds.
    pub cpu_seconds: Figure,
    /// Bytes that a worker grows by for each one.
    pub rss_bytes: Figure,
}

/// A number with its error, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Figure {
    /// The true mean lies within `error` of `value` in 95 of 100 cases, and is not 0.
    Known {
        /// The estimate.
        value: f64,
        /// Half of the 95 % interval.
        error: f64,
    },
    /// It cannot be told from nothing, or from others.
    Unknown {
        /// Why.
        why: Unknown,
        /// It is no more than that in 97 of 100 cases, as far as that can be told.
        at_most: Option<f64>,
    },
}

/// Why there is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// Too few intervals, or too few requests in them.
    TooFew,
    /// Its requests come with those of others, or at an even pace, which is as good as the passing of time.
    Together,
    /// It may be nothing.
    MaybeNothing,
}

impl Unknown {
    /// In words of a closed set.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::TooFew => "too_few",
            Self::Together => "together",
            Self::MaybeNothing => "maybe_nothing",
        }
    }
}

impl Costs {
    /// Takes a look at a worker, which ends an interval of it. An interval in which CPU time seems to have gone back says nothing.
    pub fn note(&mut self, look: Look) {
        let Some(before) = self.last.insert(look.spawn, look) else { return };
        let interval = Interval::between(&before, &look);
        self.intervals.extend(interval);
        while self.intervals.len() > MOST_INTERVALS {
            self.intervals.pop_front();
        }
    }

    /// Forgets the last look at workers that are no more.
    pub fn retain(&mut self, is_there: impl Fn(u64) -> bool) {
        self.last.retain(|spawn, _| is_there(*spawn));
    }

    /// When a worker was last looked at.
    #[must_use]
    pub fn last_look(&self) -> Option<Duration> {
        self.last.values().map(|look| look.at).max()
    }

    /// What the workers of a generation tell.
    #[must_use]
    pub fn estimate(&self, generation: u64) -> Estimate {
        let own: Vec<&Interval> = self.intervals.iter().filter(|one| one.generation == generation).collect();
        let sum = |part: &dyn Fn(&Interval) -> f64| own.iter().map(|one| part(one)).sum::<f64>();
        let places: Vec<usize> = (0..COLUMNS).filter(|place| sum(&|one| one.requests[*place]) > 0.0).collect();
        let cpu = figures(&own, &places, |one| one.cpu_seconds, CPU);
        let rss = figures(&own, &places, |one| one.rss_bytes, MEMORY);
        let column = |(index, place): (usize, &usize)| ColumnCost {
            place: *place,
            // Counts, and not so many that a float would round them.
            requests: sum(&|one| one.requests[*place]) as u64,
            held_seconds: sum(&|one| one.held_seconds[*place]),
            cpu_seconds: cpu[index + 1].of_costs(),
            rss_bytes: rss[index + 1],
        };
        Estimate {
            intervals: own.len(),
            time: Duration::try_from_secs_f64(sum(&|one| one.seconds)).unwrap_or_default(),
            cpu_seconds: sum(&|one| one.cpu_seconds),
            rss_bytes: sum(&|one| one.rss_bytes),
            idle: cpu[0].of_costs(),
            columns: places.iter().enumerate().map(column).collect(),
        }
    }
}

impl Interval {
    fn between(before: &Look, after: &Look) -> Option<Self> {
        let time = after.at.checked_sub(before.at).filter(|time| !time.is_zero())?;
        let of = |place: usize| {
            let (before, after) = (before.charged[place], after.charged[place]);
            let requests = after.requests.checked_sub(before.requests)?;
            Some((requests as f64, after.held.saturating_sub(before.held).as_secs_f64()))
        };
        let mut interval = Self {
            spawn: after.spawn,
            generation: after.generation,
            seconds: time.as_secs_f64(),
            cpu_seconds: after.cpu.checked_sub(before.cpu)?.as_secs_f64(),
            rss_bytes: after.rss_bytes as f64 - before.rss_bytes as f64,
            requests: [0.0; COLUMNS],
            held_seconds: [0.0; COLUMNS],
        };
        for place in 0..COLUMNS {
            (interval.requests[place], interval.held_seconds[place]) = of(place)?;
        }
        Some(interval)
    }
}

/// Of time first, then of each column.
fn figures(own: &[&Interval], places: &[usize], effect: impl Fn(&Interval) -> f64, noise: Noise) -> Vec<Figure> {
    let causes = |one: &&Interval| {
        std::iter::once(one.seconds).chain(places.iter().map(|place| one.requests[*place])).collect::<Vec<f64>>()
    };
    let causes: Vec<Vec<f64>> = own.iter().map(causes).collect();
    let observed = own.iter().zip(&causes);
    let observations: Vec<_> =
        observed.map(|(one, causes)| Observation { causes, effect: effect(one), line: one.spawn }).collect();
    let mean = own.iter().map(|one| one.seconds).sum::<f64>() / own.len().max(1) as f64;
    let Some(found) = fit(&observations, noise) else { return vec![TOO_FEW; places.len() + 1] };
    let figure = |(place, coefficient): (usize, &Coefficient)| {
        let total: f64 = causes.iter().map(|row| row[place]).sum();
        let rows = causes.iter().filter(|row| row[place] > 0.0).count();
        // Time passes in each interval; requests are counted.
        let is_few = place > 0 && (total < LEAST_REQUESTS || rows < LEAST_INTERVALS);
        let held =
            place.checked_sub(1).map_or(0.0, |index| own.iter().map(|one| one.held_seconds[places[index]]).sum());
        if is_few { TOO_FEW } else { Figure::of(coefficient, strayed(held / total, mean)) }
    };
    found.iter().enumerate().map(figure).collect()
}

/// A request is counted in the interval that it ends in, and what it cost before that began is found in another one: of a request
/// that takes `held` of an interval of `length`, half of `held` on the average.
fn strayed(held: f64, length: f64) -> f64 {
    0.5 * held / length
}

impl Figure {
    /// `strayed`: the part of it that may be missing, whatever the noise.
    fn of(coefficient: &Coefficient, strayed: f64) -> Self {
        let Coefficient { value, error, own } = *coefficient;
        let error = error + value.abs() * strayed;
        if !(own >= LEAST_OWN && value.is_finite() && error.is_finite()) {
            return Self::Unknown { why: Unknown::Together, at_most: None };
        }
        if value.abs() <= error {
            return Self::Unknown { why: Unknown::MaybeNothing, at_most: Some(value + error) };
        }
        Self::Known { value, error }
    }

    /// No time is given back.
    fn of_costs(self) -> Self {
        match self {
            Self::Known { value, error } if value < 0.0 => {
                Self::Unknown { why: Unknown::MaybeNothing, at_most: Some((value + error).max(0.0)) }
            }
            other => other,
        }
    }
}

const TOO_FEW: Figure = Figure::Unknown { why: Unknown::TooFew, at_most: None };
/// Intervals that are remembered of an upstream: of four workers, looked at every 5s, those of the last twenty minutes.
const MOST_INTERVALS: usize = 1_024;
/// Requests, and intervals with some, that a route must have had.
const LEAST_REQUESTS: f64 = 10.0;
const LEAST_INTERVALS: usize = 5;
/// Part of a route's coming and going that must be its own. Beyond it the interval itself tells what cannot be told apart.
const LEAST_OWN: f64 = 0.01;
/// The kernel rounds two times, of user and system, to hundredths of a second, at both ends of an interval.
const CPU: Noise = Noise { grain: 0.005_8, far_off: None };
/// Memory is counted in pages, falls when a collector has run, and grows by whole arenas.
const MEMORY: Noise = Noise { grain: 1_672.0, far_off: Some(3.0) };

#[cfg(test)]
mod tests;
