//! Deploys in the words of the admin endpoint.

use super::WorkerBridge;
use super::receipts::{Account, Receipts};
use super::trials::Trials;
use crate::admin::order::NotTaken;
use crate::admin::view::GenerationReceipt;
use crate::admin::view::{
    self, CanarySide, Deploy, DeployBoots, DeployCanary, DeployFailure, DeployGroup, DeployQueue, DeployReceipt,
    Deploys,
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tidegate_supervisor::{Boots, CanaryFigures, Cause, Command, Comparison, DeployPlan, DeployStatus, PoolStatus};
use tidegate_traffic::pool::served::Served;
use tidegate_traffic::pool::{QueueCounts, QueueStatus};

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
        Ok(Deploys { upstreams: groups.iter().map(|group| self.deploys_of(group, now)).collect() })
    }

    fn deploys_of(&self, group: &PoolStatus, now: SystemTime) -> DeployGroup {
        let queue = self.queue(&group.name);
        let receipts = self.receipts();
        let deploy = |status: &DeployStatus| {
            let account = receipts.account(&group.name, status.generation, queue);
            deploy(group, status, account.as_ref(), now)
        };
        DeployGroup { name: group.name.to_string(), deploys: group.deploys.iter().map(deploy).collect() }
    }

    pub(super) fn begin_receipt(&self, pool: &Arc<str>, generation: u64) {
        if let Some(serving) = self.pool(pool) {
            serving.mark_queue();
        }
        let queue = self.queue(pool);
        self.receipts().begin(pool, generation, queue);
    }

    pub(super) fn end_receipt(&self, pool: &str) {
        let queue = self.queue(pool);
        self.receipts().end(pool, queue);
    }

    /// The first worker of a generation is held: what it is given, and what all others are, is counted from now on.
    pub(super) fn hold_canary(&self, pool: &Arc<str>, generation: u64, time: Duration) {
        tracing::info!(%pool, generation, ms = millis(time), "first new worker takes requests and will be compared");
        let living = self.receipts().living(pool);
        self.trials().begin(pool, generation, time, living.into_iter());
    }

    /// Its time is over.
    pub(super) fn tell_figures(&self, pool: &str, generation: u64) {
        let figures = self.trials().figures(pool, generation);
        if let Some((old, new)) = figures {
            self.send(Command::CanaryFigures { pool: pool.to_owned(), generation, old, new });
        }
    }

    pub(super) fn trials(&self) -> MutexGuard<'_, Trials> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn receipts(&self) -> MutexGuard<'_, Receipts> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits where there is no pool.
    fn queue(&self, pool: &str) -> QueueStatus {
        self.pool(pool).map(|pool| pool.queue_status()).unwrap_or_default()
    }

    /// Number of the next deploy that is ordered, from 1.
    pub(super) fn next_deploy(&self) -> u64 {
        self.ordered_deploys.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn deploy(group: &PoolStatus, status: &DeployStatus, account: Option<&Account>, now: SystemTime) -> Deploy {
    let DeployStatus { id, generation, replaces, phase, serving, began, ready_after, took, outcome, failure, .. } =
        status;
    let so_far = || now.duration_since(*began).unwrap_or_default();
    Deploy {
        id: *id,
        generation: *generation,
        replaces: *replaces,
        began: view::time(*began),
        plan: status.plan.as_ref().map(plan),
        phase: phase.word().to_owned(),
        outcome: outcome.map(|outcome| outcome.word().to_owned()),
        ms: millis(took.unwrap_or_else(so_far)),
        ready_ms: ready_after.map(millis),
        serving: *serving,
        slots: u32::try_from(group.slots.len() - group.held.len()).unwrap_or(u32::MAX),
        failure: failure.as_ref().map(deploy_failure),
        canary: status.comparison.as_ref().map(comparison),
        receipt: account.map(|account| receipt(status, account)),
    }
}

fn comparison(comparison: &Comparison) -> DeployCanary {
    let Comparison { old, new, verdict } = comparison;
    let what = comparison.to_string();
    DeployCanary { verdict: verdict.word().to_owned(), what, old: canary_side(old), new: canary_side(new) }
}

fn canary_side(figures: &CanaryFigures) -> CanarySide {
    let CanaryFigures { requests, failed, p95 } = *figures;
    CanarySide { requests, failed, p95_us: p95.map(|p95| u64::try_from(p95.as_micros()).unwrap_or(u64::MAX)) }
}

pub(super) fn plan(plan: &DeployPlan) -> view::DeployPlan {
    view::DeployPlan {
        way: plan.way.word().to_owned(),
        surge: plan.way.surge(plan.count),
        by_memory: plan.is_by_memory,
        workers: plan.count,
        old_bytes: plan.old,
        each_bytes: plan.each,
        need_bytes: plan.need(),
        spare_bytes: plan.spare,
        fits: plan.fits(),
    }
}

fn receipt(status: &DeployStatus, account: &Account) -> DeployReceipt {
    let Account { served, waited, refused } = account;
    let QueueCounts { full, late, timeout } = *refused;
    let boots = status.boots.map(|Boots { count, shortest, longest }| DeployBoots {
        count,
        shortest_ms: millis(shortest),
        longest_ms: millis(longest),
    });
    DeployReceipt {
        generations: served.iter().map(|(generation, served)| generation_receipt(*generation, served)).collect(),
        queue: DeployQueue { peak: *waited, full, late, timeout },
        boots,
        longest_drain_ms: status.longest_drain.map(millis),
        lost: status.lost,
    }
}

fn generation_receipt(generation: u64, served: &Served) -> GenerationReceipt {
    let Served { answered, faults, abandoned, cancelled, overtaken } = served;
    GenerationReceipt {
        generation,
        answered: *answered,
        server_errors: faults.server_errors,
        retried: faults.retried,
        failed: faults.failed(),
        causes: faults.causes().map(|(cause, count)| (cause.to_owned(), count)).collect(),
        abandoned: *abandoned,
        cancelled: *cancelled,
        overtaken: *overtaken,
    }
}

fn deploy_failure(cause: &Cause) -> DeployFailure {
    let (slot, pid) = match cause {
        Cause::Worker(failure) => (Some(failure.worker.slot), failure.pid),
        Cause::PreStart(_) | Cause::Canary(_) => (None, None),
    };
    DeployFailure { what: cause.to_string(), slot, pid, lines: cause.last_lines().to_vec() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
