//! Deploys in the words of the admin endpoint.

use super::WorkerBridge;
use crate::admin::order::NotTaken;
use crate::admin::view::{self, Deploy, DeployFailure, DeployGroup, Deploys};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tidegate_supervisor::{Cause, DeployStatus, PoolStatus};

impl WorkerBridge {
    /// The last deploys of one upstream, or of all.
    ///
    /// # Errors
    /// When there is no such upstream.
    pub(crate) fn deploys(&self, upstream: Option<&str>) -> Result<Deploys, NotTaken> {
        let groups = match upstream {
            Some(name) => vec![self.group(name)?],
            None => self.groups(),
        };
        let now = SystemTime::now();
        Ok(Deploys { upstreams: groups.iter().map(|group| deploys_of(group, now)).collect() })
    }

    /// Number of the next deploy that is ordered, from 1.
    pub(super) fn next_deploy(&self) -> u64 {
        self.ordered_deploys.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn deploys_of(group: &PoolStatus, now: SystemTime) -> DeployGroup {
    let deploys = group.deploys.iter().map(|status| deploy(group, status, now)).collect();
    DeployGroup { name: group.name.to_string(), deploys }
}

fn deploy(group: &PoolStatus, status: &DeployStatus, now: SystemTime) -> Deploy {
    let DeployStatus { id, generation, replaces, phase, serving, began, ready_after, took, outcome, failure } = status;
    let so_far = || now.duration_since(*began).unwrap_or_default();
    Deploy {
        id: *id,
        generation: *generation,
        replaces: *replaces,
        began: view::time(*began),
        phase: phase.word().to_owned(),
        outcome: outcome.map(|outcome| outcome.word().to_owned()),
        ms: millis(took.unwrap_or_else(so_far)),
        ready_ms: ready_after.map(millis),
        serving: *serving,
        slots: u32::try_from(group.slots.len() - group.held.len()).unwrap_or(u32::MAX),
        failure: failure.as_ref().map(deploy_failure),
    }
}

fn deploy_failure(cause: &Cause) -> DeployFailure {
    let (slot, pid) = match cause {
        Cause::Worker(failure) => (Some(failure.worker.slot), failure.pid),
        Cause::PreStart(_) => (None, None),
    };
    DeployFailure { what: cause.to_string(), slot, pid, lines: cause.last_lines().to_vec() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
