//! Tries, their budget and deadlines.

use std::fmt;
use std::time::Duration;

use super::{GrpcCodes, Rate};

/// When a request of a route is tried again. Small and `Copy`: every request takes it along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries that may reach an endpoint, the first included; at least 1.
    pub tries: u32,
    /// What is tried again.
    pub on: RetryOn,
    /// Calls of gRPC that are tried again when they end with one of these before they have brought anything.
    pub grpc: GrpcCodes,
    /// How long one try may take to the head of its answer while another one can follow; `None` is as long as any.
    pub try_timeout: Option<Duration>,
    /// How long the head of an answer may keep a request waiting until another endpoint gets it as well; shorter than
    /// `try_timeout`. `None` is never.
    pub hedge: Option<Duration>,
    /// Waits between tries.
    pub backoff: Backoff,
    /// Whether endpoints that failed may be asked again once all were.
    pub start_over: bool,
    /// The longest wait that an endpoint may ask for; `None` does not listen.
    pub retry_after: Option<Duration>,
}

impl Retry {
    /// The first failure is the answer.
    pub const OFF: Self = Self {
        tries: 1,
        on: RetryOn::NOTHING,
        grpc: GrpcCodes::NONE,
        try_timeout: None,
        hedge: None,
        backoff: Backoff { base: Duration::ZERO, max: Duration::ZERO },
        start_over: false,
        retry_after: None,
    };
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryOn {
    /// There was no connection.
    pub connect: bool,
    /// It was closed before an answer.
    pub closed: bool,
    /// No head of an answer in time.
    pub timeout: bool,
    /// The answer is not HTTP.
    pub invalid: bool,
    /// Answers with these statuses.
    pub statuses: Statuses,
}

impl RetryOn {
    /// No failure at all.
    pub const NOTHING: Self =
        Self { connect: false, closed: false, timeout: false, invalid: false, statuses: Statuses::NONE };
}

/// As a site file writes it.
impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connect, closed, timeout, invalid, statuses } = self;
        let words = [("connect", connect), ("closed", closed), ("timeout", timeout), ("invalid", invalid)];
        let words = words.into_iter().filter(|(_, on)| **on).map(|(word, _)| word.to_owned());
        let all: Vec<String> = words.chain(statuses.iter().map(|status| status.to_string())).collect();
        write!(f, "[{}]", all.join(", "))
    }
}

/// A set of statuses from 400 to 599.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Statuses([u64; 4]);

impl Statuses {
    /// The empty set.
    pub const NONE: Self = Self([0; 4]);
    const FIRST: u16 = 400;
    const LAST: u16 = 599;

    /// Adds a status; `false` when it is none that may stand here.
    pub fn insert(&mut self, status: u16) -> bool {
        let Some(place) = Self::place(status) else { return false };
        self.0[place / 64] |= 1 << (place % 64);
        true
    }

    /// Whether the status is in the set.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        Self::place(status).is_some_and(|place| self.0[place / 64] & (1 << (place % 64)) != 0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    fn iter(&self) -> impl Iterator<Item = u16> {
        (Self::FIRST..=Self::LAST).filter(|status| self.contains(*status))
    }

    const fn place(status: u16) -> Option<usize> {
        if status < Self::FIRST || status > Self::LAST { None } else { Some((status - Self::FIRST) as usize) }
    }
}

impl fmt::Debug for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Waits between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first one.
    pub base: Duration,
    /// The longest of all; at least `base`.
    pub max: Duration,
}

/// How many retries an upstream may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// For each hundred requests.
    pub share: u32,
    /// That there may always be.
    pub floor: Rate,
}

/// As a site file writes it.
impl fmt::Display for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%, floor {}", self.share, self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_that_were_put_in() {
        let mut set = Statuses::NONE;
        assert!(set.is_empty());
        for status in [400, 463, 464, 503, 599] {
            assert!(set.insert(status), "{status}");
        }
        assert!(!set.insert(399) && !set.insert(600));
        assert_eq!(set.iter().collect::<Vec<_>>(), [400, 463, 464, 503, 599]);
        assert!((0..=1_000).all(|status| set.contains(status) == [400, 463, 464, 503, 599].contains(&status)));
    }
}
