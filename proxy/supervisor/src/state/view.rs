//! The state as its published view.

use std::time::{Duration, SystemTime};

use super::State;
use super::deploy::Deploy;
use super::pool::{Canary, Pool};
use super::worker::Worker;
use crate::deploy::DeployStatus;
use crate::status::{GenerationStatus, HeldSlot, LastExit, PoolStatus, WorkerStatus};

impl State {
    /// What is there now; `epoch` is the wall clock's time of the moment from which `now` is counted.
    #[must_use]
    pub fn status(&self, epoch: SystemTime) -> Vec<PoolStatus> {
        self.pools.values().map(|pool| pool_status(pool, epoch)).collect()
    }
}

fn pool_status(pool: &Pool, epoch: SystemTime) -> PoolStatus {
    let generation = |generation: &super::generation::Generation| GenerationStatus {
        number: generation.number,
        state: generation.state,
    };
    let mut workers: Vec<_> = pool.workers.iter().map(|worker| worker_status(pool, worker, epoch)).collect();
    workers.sort_by_key(|worker| (worker.id.slot, worker.id.spawn));
    PoolStatus {
        name: pool.name.clone(),
        state: pool.state,
        target: pool.count(),
        is_scaled: pool.is_scaled,
        slots: pool.wanted().collect(),
        held: pool.held().map(|slot| held_slot(pool, slot, epoch)).collect(),
        ready: pool.ready(),
        next_start: pool.next_start_at().map(|moment| epoch + moment),
        boot: pool.median_boot(),
        generations: pool.generations.iter().map(generation).collect(),
        deploys: pool.deploys.iter().map(|deploy| deploy_status(pool, deploy, epoch)).collect(),
        workers,
    }
}

fn deploy_status(pool: &Pool, deploy: &Deploy, epoch: SystemTime) -> DeployStatus {
    let since = |moment: Duration| moment.saturating_sub(deploy.began);
    DeployStatus {
        id: deploy.id,
        generation: deploy.generation,
        replaces: deploy.replaces,
        plan: deploy.plan,
        phase: pool.phase(deploy),
        serving: pool.serving(deploy.generation),
        began: epoch + deploy.began,
        ready_after: deploy.first_ready.map(since),
        took: deploy.ended.map(since),
        boots: deploy.boots,
        comparison: match deploy.canary {
            Some(Canary::Judged(comparison)) => Some(comparison),
            Some(Canary::Held(_) | Canary::Asked(_)) | None => None,
        },
        longest_drain: deploy.longest_drain,
        lost: deploy.lost,
        outcome: deploy.outcome,
        failure: deploy.failure.clone(),
    }
}

fn held_slot(pool: &Pool, slot: u32, epoch: SystemTime) -> HeldSlot {
    let is_ended = pool.slots.get(&slot).is_some_and(|slot| slot.is_ended);
    HeldSlot { slot, is_ended, last_exit: last_exit(pool, slot, epoch) }
}

fn last_exit(pool: &Pool, slot: u32, epoch: SystemTime) -> Option<LastExit> {
    let (reason, status, moment) = pool.slots.get(&slot)?.last_exit?;
    Some(LastExit { reason, status, at: epoch + moment })
}

fn worker_status(pool: &Pool, worker: &Worker, epoch: SystemTime) -> WorkerStatus {
    let at = |moment: Duration| epoch + moment;
    let slot = pool.slots.get(&worker.id.slot);
    WorkerStatus {
        id: worker.id.clone(),
        pid: worker.pid,
        state: worker.state,
        since: at(worker.since),
        started: worker.spawned_at.map(at),
        address: worker.address.clone(),
        replaced_for: worker.successor_wanted,
        says: worker.says.clone(),
        alive: worker.alive_at.map(at),
        out: worker.out.clone(),
        restarts: slot.map_or(0, |slot| slot.restarts),
        last_exit: last_exit(pool, worker.id.slot, epoch),
    }
}
