//! How a new generation of workers takes over.

use std::fmt;
use std::time::Duration;

use super::CanaryHold;

/// A command that runs once for each generation, before its first worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreStart {
    /// argv; never empty. May hold `{pool}` and `{generation}`.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// How a new generation of workers takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeployPolicy {
    /// When old workers begin to leave.
    pub strategy: DeployStrategy,
    /// Processes that may run beyond the count, those that leave included; at least one.
    pub surge: Portion,
    /// Slots that a deploy may leave without a worker in service.
    pub max_unavailable: Portion,
    /// How long a new worker must stay ready before the old one of its slot leaves.
    pub min_ready: Duration,
    /// What becomes of a deploy that fails after old workers have left.
    pub on_failure: OnFailure,
    /// What SIGHUP does about workers whose specification has not changed.
    pub on_hup: OnHup,
    /// A comparison of the first new worker with those of before, if there is to be one.
    pub canary: Option<CanaryHold>,
}

impl Default for DeployPolicy {
    fn default() -> Self {
        Self {
            strategy: DeployStrategy::Auto,
            surge: Portion::Share(25),
            max_unavailable: Portion::Count(0),
            min_ready: Duration::from_secs(2),
            on_failure: OnFailure::Freeze,
            on_hup: OnHup::Reload,
            canary: None,
        }
    }
}

/// When old workers begin to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeployStrategy {
    /// Slot by slot, each as soon as its new worker has proven itself.
    Rolling,
    /// All together, once the whole new set has proven itself.
    Green,
    /// As memory allows: green if it has room for twice the workers, else rolling with as many more at a time as fit, else
    /// each old worker leaves before its successor starts.
    Auto,
}

/// What SIGHUP does about workers whose specification has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHup {
    /// Nothing: the configuration is read again, and that is all.
    Reload,
    /// They are deployed once the configuration is in use.
    Deploy,
}

/// What becomes of a deploy that fails after old workers have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing is replaced any more; new workers that serve go on.
    Freeze,
    /// The old generation takes its slots back.
    Rollback,
}

/// A part of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// That many.
    Count(u32),
    /// In percent of the count, 1 to 100.
    Share(u8),
}

impl Portion {
    /// How many of `count` that is, at least.
    #[must_use]
    pub fn rounded_up(self, count: u32) -> u32 {
        self.hundredths(count).div_ceil(100).try_into().unwrap_or(u32::MAX)
    }

    /// How many of `count` that is, at most.
    #[must_use]
    pub fn rounded_down(self, count: u32) -> u32 {
        (self.hundredths(count) / 100).try_into().unwrap_or(u32::MAX)
    }

    fn hundredths(self, count: u32) -> u64 {
        match self {
            Self::Count(number) => u64::from(number) * 100,
            Self::Share(percent) => u64::from(count) * u64::from(percent),
        }
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Share(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_towards_what_is_asked_for() {
        for (portion, count, up, down) in [
            (Portion::Share(25), 1, 1, 0),
            (Portion::Share(25), 4, 1, 1),
            (Portion::Share(25), 5, 2, 1),
            (Portion::Share(100), 4_096, 4_096, 4_096),
            (Portion::Share(25), 0, 0, 0),
            (Portion::Count(3), 1, 3, 3),
            (Portion::Count(u32::MAX), 1, u32::MAX, u32::MAX),
        ] {
            assert_eq!((portion.rounded_up(count), portion.rounded_down(count)), (up, down), "{portion} of {count}");
        }
    }
}
