//! How the first worker of a new generation is compared with those of before.

use std::fmt;
use std::time::Duration;

/// A time in which the first new worker takes requests and nobody leaves, and what it may be worse by at the end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanaryHold {
    /// How long; never zero.
    pub time: Duration,
    /// What it may be worse by.
    pub max_delta: MaxDelta,
}

/// What a new worker may be worse by than those of before. At least one of them is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxDelta {
    /// Its share of failed requests may be so much higher; `None`: whatever it is.
    pub errors: Option<Share>,
    /// The time within which 95 of 100 answers begin may be longer by that share; `None`: however long it is.
    pub p95: Option<Share>,
}

impl Default for MaxDelta {
    fn default() -> Self {
        Self { errors: Some(Share(10)), p95: Some(Share(500)) }
    }
}

/// In thousandths, 1 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u16);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (percent, 0) => write!(f, "{percent}%"),
            (percent, tenths) => write!(f, "{percent}.{tenths}%"),
        }
    }
}
