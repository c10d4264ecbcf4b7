//! How a deploy brings its workers up, and whether memory is there for it. Pure: who asks brings the figures.

use serde::{Deserialize, Serialize};
use tidegate_config::model::{DeployPolicy, DeployStrategy};

use crate::memory::Memory;

/// In which order new workers come and old ones leave. A closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The whole new set first.
    Green,
    /// Slot by slot, the new worker first.
    Rolling {
        /// Processes that may run beyond the count, those that leave included; 1 or more.
        surge: u32,
    },
    /// Slot by slot, and the old worker leaves first: there is no memory for one more.
    OneByOne,
}

impl Way {
    /// Its name in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Rolling { .. } => "rolling",
            Self::OneByOne => "one_by_one",
        }
    }

    /// Processes that it runs beyond `count`.
    #[must_use]
    pub const fn surge(self, count: u32) -> u32 {
        match self {
            Self::Green => count,
            Self::Rolling { surge } => surge,
            Self::OneByOne => 0,
        }
    }
}

/// What a deploy is about to do, with the figures that it went by. Units: workers, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployPlan {
    /// How it goes.
    pub way: Way,
    /// Whether memory decided that, rather than the site file.
    pub is_by_memory: bool,
    /// How many workers there will be.
    pub count: u32,
    /// What the workers of before take together, as far as known.
    pub old: u64,
    /// What a new worker is taken to need: as much as the largest one that serves.
    pub each: Option<u64>,
    /// What may be taken and planned with.
    pub spare: Option<u64>,
}

impl DeployPlan {
    /// The plan for `count` workers of which those of before take `old` bytes each. Where the figures are not known nothing
    /// is taken away from what the site file allows.
    #[must_use]
    pub fn new(policy: &DeployPolicy, count: u32, old: &[u64], memory: &Memory) -> Self {
        let (each, spare) = (old.iter().copied().max().filter(|each| *each > 0), memory.spare(0));
        let surge = policy.surge.rounded_up(count).max(1);
        let way = match policy.strategy {
            DeployStrategy::Green => Way::Green,
            DeployStrategy::Rolling => Way::Rolling { surge },
            DeployStrategy::Auto => by_memory(count, surge, each.zip(spare)),
        };
        let is_by_memory = policy.strategy == DeployStrategy::Auto;
        Self { way, is_by_memory, count, old: old.iter().sum(), each, spare }
    }

    /// What new workers need before the first old one has left for each, if that is known.
    #[must_use]
    pub fn need(&self) -> Option<u64> {
        self.each.map(|each| each.saturating_mul(self.way.surge(self.count).into()))
    }

    /// Whether that is there; `true` where it is not known.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.need().zip(self.spare).is_none_or(|(need, spare)| need <= spare)
    }
}

/// The way that costs clients least, of those that `figures` (what a worker needs, what there is) have memory for.
fn by_memory(count: u32, surge: u32, figures: Option<(u64, u64)>) -> Way {
    let Some((each, spare)) = figures else { return Way::Rolling { surge } };
    let extra = spare / each;
    if extra >= count.into() {
        Way::Green
    } else if extra > 0 {
        Way::Rolling { surge: surge.min(u32::try_from(extra).unwrap_or(u32::MAX)) }
    } else {
        Way::OneByOne
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Bound;
    use tidegate_config::model::Portion;

    const AUTO: DeployStrategy = DeployStrategy::Auto;

    /// A limit and what is used of it; nothing is known where the limit is 0.
    fn memory(limit: u64, used: u64) -> Memory {
        Memory { bounds: [Bound::of_group(limit, used)].into_iter().filter(|bound| bound.limit > 0).collect() }
    }

    #[test]
    fn memory_decides_how_many_new_workers_come_before_old_ones_leave() {
        for (strategy, count, surge, old, memory, way, fits) in [
            // 400 of 800 are used, and 600 may be.
            (AUTO, 4, 1, &[50, 50, 50, 50][..], memory(800, 400), Way::Green, true),
            (AUTO, 4, 2, &[50, 50, 51, 50], memory(800, 400), Way::Rolling { surge: 2 }, true),
            (AUTO, 4, 4, &[80, 90, 70, 60], memory(800, 400), Way::Rolling { surge: 2 }, true),
            (AUTO, 4, 1, &[200, 10, 10, 10], memory(800, 400), Way::Rolling { surge: 1 }, true),
            (AUTO, 4, 1, &[201, 10, 10, 10], memory(800, 400), Way::OneByOne, true),
            (AUTO, 1, 1, &[10], memory(800, 790), Way::OneByOne, true),
            (AUTO, 1, 1, &[10], memory(800, 590), Way::Green, true),
            // Nothing is known of a worker, or of memory.
            (AUTO, 2, 1, &[], memory(800, 790), Way::Rolling { surge: 1 }, true),
            (AUTO, 2, 1, &[50, 50], memory(0, 0), Way::Rolling { surge: 1 }, true),
            // The file's word is the file's word.
            (DeployStrategy::Rolling, 4, 1, &[100, 90], memory(800, 790), Way::Rolling { surge: 1 }, false),
            (DeployStrategy::Green, 4, 1, &[50, 50], memory(800, 500), Way::Green, false),
            (DeployStrategy::Green, 2, 1, &[50, 50], memory(800, 500), Way::Green, true),
        ] {
            let policy = DeployPolicy { strategy, surge: Portion::Count(surge), ..DeployPolicy::default() };
            let plan = DeployPlan::new(&policy, count, old, &memory);
            assert_eq!((plan.way, plan.fits()), (way, fits), "{strategy:?} {count} {old:?} {memory:?}");
        }
    }
}
