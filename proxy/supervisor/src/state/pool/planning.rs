//! Which way a deploy goes, where memory has a say in it.

use std::collections::BTreeMap;

use tidegate_config::model::{DeployStrategy, WorkerCount};

use super::Pool;
use crate::event::Event;
use crate::plan::{DeployPlan, Way};
use crate::state::Turn;

impl Pool {
    /// Takes what workers have for themselves, in bytes by spawn number.
    pub(in crate::state) fn take_shares(&mut self, pss: &BTreeMap<u64, u64>) {
        // One that boots is smaller than it will be.
        for worker in self.workers.iter_mut().filter(|worker| worker.ready_at.is_some()) {
            worker.pss = pss.get(&worker.id.spawn).copied().or(worker.pss);
        }
    }

    /// Whether anything is decided by that.
    pub(in crate::state) fn goes_by_shares(&self) -> bool {
        self.policy.strategy == DeployStrategy::Auto || self.follows_shares()
    }

    /// Whether what changes of that matters at any time, and not only when a deploy begins.
    pub(in crate::state) fn follows_shares(&self) -> bool {
        self.spec_count == Some(WorkerCount::Auto)
    }

    /// Whether it is not known of one that serves.
    pub(in crate::state) fn misses_shares(&self) -> bool {
        self.follows_shares() && self.workers.iter().any(|worker| worker.ready_at.is_some() && worker.pss.is_none())
    }

    /// Plans the deploy under way, once its first worker may come. Where nobody serves there is nothing to weigh.
    pub(super) fn plan(&mut self, turn: &mut Turn<'_>) {
        let is_due = self.fallback.is_some() && self.is_prepared(self.target);
        if !is_due || self.open_deploy().is_none_or(|deploy| deploy.plan.is_some()) {
            return;
        }
        let memory = turn.capacity.map(|capacity| capacity.memory.clone()).unwrap_or_default();
        let old: Vec<u64> = self.workers.iter().filter_map(|worker| worker.pss).collect();
        let plan = DeployPlan::new(&self.policy, self.size(), &old, &memory);
        if let Some(deploy) = self.open_deploy() {
            deploy.plan = Some(plan);
        }
        turn.tell(Event::DeployPlanned { pool: self.name.clone(), generation: self.target, plan });
    }

    /// The way that workers are replaced: that of the file, or of the last plan where the file leaves it to memory; a
    /// deploy that failed goes back as it came.
    pub(super) fn way(&self) -> Way {
        let surge = self.policy.surge.rounded_up(self.size()).max(1);
        match self.policy.strategy {
            DeployStrategy::Green => Way::Green,
            DeployStrategy::Rolling => Way::Rolling { surge },
            DeployStrategy::Auto => self.planned_way().unwrap_or(Way::Rolling { surge: 1 }),
        }
    }

    fn planned_way(&self) -> Option<Way> {
        self.deploys.iter().rev().find_map(|deploy| Some(deploy.plan?.way))
    }
}
