//! What a deploy would do now, without one.

use super::WorkerBridge;
use super::deploys::plan;
use crate::admin::order::NotTaken;
use crate::admin::view::{PlanGroup, Plans};
use tidegate_config::model::{DeployPolicy, EndpointSource, Model};
use tidegate_supervisor::{DeployPlan, Memory, PoolStatus, Roots, pss_of_trees};

/// Upstreams whose deploys are to be planned.
pub(crate) struct Planned {
    groups: Vec<(PoolStatus, DeployPolicy)>,
}

impl WorkerBridge {
    /// What the deploy of one upstream, or of all, is to be planned from.
    ///
    /// # Errors
    /// When there is no such upstream.
    pub(crate) fn planned(&self, upstream: Option<&str>, model: &Model) -> Result<Planned, NotTaken> {
        let groups = match upstream {
            Some(name) => vec![self.group(name)?],
            None => self.groups(),
        };
        let with_policy = |group: PoolStatus| {
            let policy = match &model.upstreams.get(group.name.as_ref())?.source {
                EndpointSource::Workers(spec) => spec.deploy,
                EndpointSource::Servers(_) => return None,
            };
            Some((group, policy))
        };
        Ok(Planned { groups: groups.into_iter().filter_map(with_policy).collect() })
    }
}

impl Planned {
    /// Looks at memory and processes as they are now: it reads files, some of which take the kernel a while.
    pub(crate) fn look(&self, roots: &Roots) -> Plans {
        let memory = Memory::read(roots);
        let plan_of = |(group, policy): &(PoolStatus, DeployPolicy)| {
            let pids: Vec<u32> = group.workers.iter().filter_map(|worker| worker.pid).collect();
            let old: Vec<u64> = pss_of_trees(&pids).into_values().collect();
            let count = u32::try_from(group.slots.len() - group.held.len()).unwrap_or(u32::MAX);
            PlanGroup { name: group.name.to_string(), plan: plan(&DeployPlan::new(policy, count, &old, &memory)) }
        };
        Plans { upstreams: self.groups.iter().map(plan_of).collect() }
    }
}
