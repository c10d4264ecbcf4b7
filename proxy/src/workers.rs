//! Between the supervisor and the pools: a worker that is ready becomes an endpoint, one that drains stops being one.
//!
//! The supervisor's event sink runs on its thread and must not wait; everything here is a short lock or a send that
//! cannot block.

mod costs;
mod deploys;
mod fail_fast;
mod figures;
mod hang_up;
mod journal;
mod orders;
mod plans;
mod receipts;
mod tally;
mod trials;
mod watch;

use self::costs::Ledger;
use self::fail_fast::FailFast;
use self::figures::Figures;
use self::journal::Journal;
use self::receipts::Receipts;
use self::tally::Tally;
use self::trials::Trials;
use self::watch::Watch;
use crate::observe::metrics::Metrics;
use crate::plane::Plane;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};
use tidegate_config::model::{Address, EndpointSource, Model};
use tidegate_supervisor::{
    Command, Comparison, DeployEnd, DeployPlan, Event, Failure, Handle, HookFailure, Outcome, PoolSpec, PoolState,
    Progress, ProgressBySpawn, Transition, Way, WorkerAddress, WorkerId, WorkerState,
};
use tidegate_traffic::pool::endpoint::{Endpoint, EndpointStatus, Origin, WorkerKey};
use tidegate_traffic::pool::pulse::Vitals;
use tidegate_traffic::pool::served::Served;
use tidegate_traffic::pool::{Expectation, Outlook, Pool};

/// Pools by name, the newest last: one that left the configuration stays until its last worker has gone, even when
/// another one has its name by then.
#[derive(Default)]
struct Pools {
    by_name: HashMap<String, Vec<Arc<Pool>>>,
    /// Names in the configuration.
    wanted: HashSet<String>,
}

/// Passes events of the supervisor on to the pools.
#[derive(Default)]
pub(crate) struct WorkerBridge {
    /// Guards the pools that events may be about; taken by reloads and by the supervisor's thread.
    pools: Mutex<Pools>,
    handle: OnceLock<Handle>,
    plane: OnceLock<Arc<Plane>>,
    /// What happened.
    pub(crate) journal: Journal,
    /// What processes use.
    pub(crate) figures: Arc<Figures>,
    /// Guards a few numbers, for as long as an event is looked at.
    fail_fast: Mutex<FailFast>,
    /// What becomes of requests, for metrics. Guards some counts, for as long as it takes to read them.
    tally: Mutex<Tally>,
    /// Where events are counted.
    metrics: OnceLock<Arc<Metrics>>,
    give_up: OnceLock<Box<dyn Fn(String) + Send + Sync>>,
    /// Guards what deploys came to; taken by the supervisor's thread and by who asks.
    receipts: Mutex<Receipts>,
    /// Comparisons of new workers with old ones. Guards which endpoints take part, for as long as that changes.
    trials: Mutex<Trials>,
    /// What is watched for those who develop.
    watch: Watch,
    /// What requests cost, where somebody wants to know.
    ledger: Ledger,
    /// Deploys ordered so far.
    ordered_deploys: AtomicU64,
}

impl WorkerBridge {
    /// Where events are counted from now on.
    pub(crate) fn count(&self, metrics: Arc<Metrics>) {
        // Set once, by the assembly.
        let _ = self.metrics.set(metrics);
    }

    /// What became of the requests of a slot.
    pub(crate) fn served(&self, pool: &Arc<str>, slot: u32) -> Served {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).of(pool, slot)
    }

    /// Completes the bridge once both sides exist.
    pub(crate) fn connect(&self, handle: Handle, plane: Arc<Plane>) {
        // Connected once, by the assembly.
        let _ = self.handle.set(handle);
        let _ = self.plane.set(plane);
    }

    /// Who is told why when no worker comes up at all. It must not wait.
    pub(crate) fn when_hopeless(&self, give_up: impl Fn(String) + Send + Sync + 'static) {
        // Set once, by the assembly.
        let _ = self.give_up.set(Box::new(give_up));
    }

    /// Pools of workers of a configuration that is about to serve; so many failures of workers end the program before one
    /// was ever ready.
    pub(crate) fn adopt<'a>(&self, pools: impl Iterator<Item = &'a Arc<Pool>>, fail_fast: Option<u32>) {
        self.fail_fast.lock().unwrap_or_else(PoisonError::into_inner).configure(fail_fast);
        let mut known = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        known.wanted.clear();
        for pool in pools {
            let name = pool.name().to_string();
            let same_name = known.by_name.entry(name.clone()).or_default();
            if !same_name.last().is_some_and(|newest| Arc::ptr_eq(newest, pool)) {
                same_name.retain(|old| old.endpoints().iter().any(|endpoint| is_worker(endpoint)));
                same_name.push(pool.clone());
            }
            known.wanted.insert(name);
        }
    }

    /// Takes one event. Never waits.
    pub(crate) fn event(self: &Arc<Self>, event: Event) {
        self.journal.note(&event, SystemTime::now());
        if let Some(metrics) = self.metrics.get() {
            metrics.life().hear(&event, Instant::now());
        }
        let hopeless = self.fail_fast.lock().unwrap_or_else(PoisonError::into_inner).hear(&event);
        if let (Some(text), Some(give_up)) = (hopeless, self.give_up.get()) {
            give_up(text);
        }
        match event {
            Event::Ready { worker, address } => {
                self.ready(&worker, address);
                self.show_ready(&worker);
            }
            Event::Drain { worker } => self.drain(worker),
            Event::Rotation { worker, out } => self.rotate(&worker, out),
            Event::Gone { worker } => self.gone(&worker),
            Event::Transition(change) => {
                log_transition(&change);
                self.foresee(&change.worker.pool);
            }
            Event::Failure(failure) => {
                self.show_failure(&failure);
                log_failure(&failure);
            }
            Event::GenerationActive { pool, generation } => tracing::info!(%pool, generation, "generation serves"),
            Event::GenerationFailed { pool, generation, cause: _ } => {
                tracing::error!(%pool, generation, "generation given up, the old one keeps serving");
            }
            Event::HookStarted { hook } => {
                tracing::info!(pool = %hook.pool, generation = hook.generation, "pre_start runs");
            }
            Event::HookEnded { hook, status, took } => {
                let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(pool = %hook.pool, generation = hook.generation, %status, ms, "pre_start ended");
            }
            Event::HookFailed(failure) => log_hook_failure(&failure),
            Event::DeployBegan { pool, generation } => self.begin_receipt(&pool, generation),
            Event::DeployPlanned { pool, generation, plan } => log_plan(&pool, generation, &plan),
            Event::CanaryHeld { pool, generation, time } => {
                self.hold_canary(&pool, generation, time);
            }
            Event::CanaryOver { pool, generation } => self.tell_figures(&pool, generation),
            Event::CanaryJudged { pool, generation, comparison } => log_comparison(&pool, generation, &comparison),
            Event::DeployEnded(end) => {
                self.trials().end(&end.pool);
                self.end_receipt(&end.pool);
                self.show_end(&end);
                log_deploy(&end);
            }
            Event::RestartFailed(failure) => {
                tracing::error!(pool = %failure.worker.pool, slot = failure.worker.slot, "restart given up, the old workers keep serving");
            }
            Event::Killed { worker } => tracing::warn!(pool = %worker.pool, slot = worker.slot, "worker killed"),
            Event::Scaled { pool, from, to, by } => tracing::info!(%pool, from, to, by = by.word(), "workers scaled"),
            Event::NotRestarted { worker } => tracing::error!(
                pool = %worker.pool, slot = worker.slot,
                "worker is not started again: its exit code is one of no_restart_codes"
            ),
            Event::RecyclePostponed { worker, reason } => tracing::warn!(
                pool = %worker.pool, slot = worker.slot, reason = reason.word(),
                "worker is not recycled: there is no memory for a second one"
            ),
            Event::RecycleTooOften { worker, reason } => tracing::warn!(
                pool = %worker.pool, slot = worker.slot, reason = reason.word(),
                "worker reaches its limit as soon as it serves and is not recycled for a minute: the limit is too low"
            ),
            Event::Hung(hung) => tracing::warn!(
                pool = %hung.worker.pool, slot = hung.worker.slot, pid = hung.pid, problem = hung.problem,
                evidence = %hung.evidence.join("\n"),
                "worker hangs and is killed"
            ),
            Event::HangGuard { pool, suspects, of, cause } => tracing::error!(
                %pool, suspects, of, cause,
                "too many workers do not answer for each to hang by itself: none is killed, all get requests"
            ),
            Event::HangGuardOver { pool } => {
                tracing::info!(%pool, "workers answer again: those that do not are replaced");
            }
            Event::PoolState { pool, from, to } => {
                tracing::info!(%pool, from = from.word(), to = to.word(), "pool");
                match to {
                    PoolState::Stopped => self.forget(&pool),
                    _ => self.foresee(&pool),
                }
            }
            Event::Fault { message } => tracing::error!(%message, "supervisor step failed"),
            Event::Stopped => tracing::info!("workers stopped"),
        }
    }

    /// How all workers get on. Never waits.
    pub(crate) fn progress(&self) -> ProgressBySpawn {
        let pools: Vec<_> = {
            let known = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            known.by_name.values().flatten().cloned().collect()
        };
        // Pools that follow one another share their workers' endpoints: either tells the same.
        pools.iter().flat_map(|pool| pool.endpoints()).filter_map(|endpoint| progress(&endpoint)).collect()
    }

    /// The pool that serves a name now.
    fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).by_name.get(name)?.last().cloned()
    }

    /// The pools that a worker may be part of, the newest last: one that took another one's place has its workers too.
    fn pools_of(&self, worker: &WorkerId) -> Vec<Arc<Pool>> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.by_name.get(worker.pool.as_ref()).cloned().unwrap_or_default()
    }

    /// Figures of the workers of a name that may have requests, by spawn number.
    pub(crate) fn endpoints(&self, name: &str) -> HashMap<u64, EndpointStatus> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned();
        let endpoints = pools.unwrap_or_default().into_iter().flat_map(|pool| pool.endpoints());
        let of_worker = |endpoint: Arc<Endpoint>| match endpoint.origin() {
            Origin::Worker { key, .. } => Some((key.spawn, endpoint.status())),
            Origin::Static => None,
        };
        endpoints.filter_map(of_worker).collect()
    }

    fn ready(&self, worker: &WorkerId, address: WorkerAddress) {
        let Some(pool) = self.pool(&worker.pool) else { return };
        let address = match address {
            WorkerAddress::Unix(path) => Address::Unix(path),
            WorkerAddress::Tcp(address) => Address::Tcp(address),
        };
        let pid = self.pid(worker).unwrap_or_default();
        let endpoint = pool.add_worker(key(worker), pid, address);
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.ready(&worker.pool, worker.slot, endpoint.clone());
        drop(tally);
        self.receipts().ready(&worker.pool, worker.generation, worker.spawn, endpoint.clone());
        self.trials().ready(&worker.pool, worker.generation, endpoint);
    }

    fn pid(&self, worker: &WorkerId) -> Option<u32> {
        let status = self.handle.get()?.status();
        let pool = status.iter().find(|pool| pool.name == worker.pool)?;
        pool.workers.iter().find(|status| status.id == *worker)?.pid
    }

    /// No new request, then tell the supervisor when the last one has ended and when nothing streams any more, and close idle
    /// connections at once: a worker would wait for them.
    fn drain(self: &Arc<Self>, worker: WorkerId) {
        let pools = self.pools_of(&worker);
        let having = |pool: Arc<Pool>| Some((worker_endpoint(&pool, key(&worker))?, pool));
        let having: Vec<_> = pools.into_iter().filter_map(having).collect();
        let Some(((endpoint, last), others)) = having.split_last() else {
            return self.send(Command::Drained { worker });
        };
        // Nobody gives it a request any more once all have heard of it; only then its last one counts.
        for (_, pool) in others {
            pool.drain_worker(key(&worker), Box::new(|| {}));
        }
        let (bridge, leaving) = (self.clone(), worker.clone());
        last.drain_worker(key(&worker), Box::new(move || bridge.send(Command::RequestsOver { worker: leaving })));
        let bridge = self.clone();
        endpoint.when_empty(Box::new(move || bridge.send(Command::Drained { worker })));
        if let Some(plane) = self.plane.get() {
            plane.forget(endpoint.id());
        }
    }

    /// The pool tells the log.
    fn rotate(&self, worker: &WorkerId, out: Option<String>) {
        for pool in self.pools_of(worker) {
            pool.rotate_worker(key(worker), out.clone(), Instant::now());
        }
    }

    fn gone(&self, worker: &WorkerId) {
        self.receipts().gone(&worker.pool, worker.spawn);
        let pools = self.pools_of(worker);
        let Some(endpoint) = pools.iter().find_map(|pool| worker_endpoint(pool, key(worker))) else { return };
        for pool in &pools {
            pool.remove_worker(key(worker));
        }
        if let Some(plane) = self.plane.get() {
            plane.forget(endpoint.id());
        }
    }

    /// Tells a pool which worker may be ready when.
    fn foresee(&self, name: &str) {
        let Some((pool, handle)) = self.pool(name).zip(self.handle.get()) else { return };
        let status = handle.status();
        // One that is over has told so with its last workers; a reload may have brought its name back since.
        let Some(status) = status.iter().find(|status| *status.name == *name) else { return };
        let next_start = status.next_start.map(from_now);
        pool.foresee(next_start.map(|next_start| Outlook { next_start, boot: status.boot.unwrap_or_default() }));
        pool.set_expecting(match status.state {
            PoolState::Crashloop => Expectation::Crashloop,
            PoolState::Empty | PoolState::Stopped => Expectation::Stopped,
            // It answers again, or another one takes its place.
            _ if status.workers.iter().any(|worker| worker.state == WorkerState::Suspect) => Expectation::Workers,
            _ if status.next_start.is_none() && status.ready == 0 => Expectation::Stopped,
            PoolState::Starting | PoolState::Healthy | PoolState::Degraded => Expectation::Workers,
        });
    }

    /// Forgets the pools of a name, unless a reload has brought it back before this was heard of.
    fn forget(&self, name: &str) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if !pools.wanted.contains(name) {
            pools.by_name.remove(name);
            self.receipts().forget(name);
            self.trials().end(name);
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).forget(name);
        }
    }

    /// Sends a command; before the bridge is connected there is nobody who could have asked for one.
    fn send(&self, command: Command) {
        if let Some(handle) = self.handle.get() {
            handle.send(command);
        }
    }
}

/// The same moment, by the clock that requests go by.
fn from_now(moment: SystemTime) -> Instant {
    let now = Instant::now();
    match moment.duration_since(SystemTime::now()) {
        Ok(later) => now + later,
        Err(before) => now.checked_sub(before.duration()).unwrap_or(now),
    }
}

fn key(worker: &WorkerId) -> WorkerKey {
    // Spawn numbers are never repeated, whatever the generation.
    WorkerKey { slot: worker.slot, spawn: worker.spawn }
}

fn progress(endpoint: &Endpoint) -> Option<(u64, Progress)> {
    let Origin::Worker { key, .. } = endpoint.origin() else { return None };
    let Vitals { requests, in_flight, streams, is_full, heard, unreachable, overdue, abandoned } = endpoint.vitals();
    Some((key.spawn, Progress { requests, in_flight, streams, is_full, heard, unreachable, overdue, abandoned }))
}

fn is_worker(endpoint: &Endpoint) -> bool {
    matches!(endpoint.origin(), Origin::Worker { .. })
}

fn worker_endpoint(pool: &Pool, worker: WorkerKey) -> Option<Arc<Endpoint>> {
    let is_worker = |endpoint: &Arc<Endpoint>| matches!(endpoint.origin(), Origin::Worker { key, .. } if key == worker);
    pool.endpoints().into_iter().find(is_worker)
}

/// What an operator waits for at info, every step at debug.
fn log_transition(change: &Transition) {
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                pool = %change.worker.pool,
                slot = change.worker.slot,
                generation = change.worker.generation,
                pid = change.pid,
                from = change.from.word(),
                to = change.to.word(),
                reason = change.reason.map(|reason| reason.word()),
                ms = u64::try_from(change.in_state.as_millis()).unwrap_or(u64::MAX),
                "worker"
            )
        };
    }
    match change.to {
        WorkerState::Ready => log!(info),
        WorkerState::Suspect => log!(warn),
        _ => log!(debug),
    }
}

fn log_failure(failure: &Failure) {
    tracing::warn!(
        pool = %failure.worker.pool,
        slot = failure.worker.slot,
        generation = failure.worker.generation,
        pid = failure.pid,
        reason = failure.reason.word(),
        status = %failure.status,
        message = failure.message.as_deref(),
        uptime_ms = u64::try_from(failure.uptime.as_millis()).unwrap_or(u64::MAX),
        last_lines = %failure.last_lines.join("\n"),
        "worker failed"
    );
}

fn log_hook_failure(failure: &HookFailure) {
    tracing::error!(
        pool = %failure.pool,
        generation = failure.generation,
        status = %failure.status,
        message = failure.message.as_deref(),
        last_lines = %failure.last_lines.join("\n"),
        "pre_start failed"
    );
}

fn log_plan(pool: &str, generation: u64, plan: &DeployPlan) {
    let DeployPlan { way, is_by_memory: _, count, old: _, each, spare } = plan;
    let (way, surge) = (way.word(), way.surge(*count));
    if plan.fits() && plan.way != Way::OneByOne {
        tracing::info!(%pool, generation, way, surge, each, spare, "deploy planned");
    } else {
        tracing::warn!(%pool, generation, way, surge, each, spare, "deploy planned: there is little memory");
    }
}

fn log_comparison(pool: &str, generation: u64, comparison: &Comparison) {
    let verdict = comparison.verdict.word();
    if comparison.verdict.is_against() {
        tracing::error!(%pool, generation, verdict, figures = %comparison, "first new worker compared");
    } else {
        tracing::info!(%pool, generation, verdict, figures = %comparison, "first new worker compared");
    }
}

fn log_deploy(end: &DeployEnd) {
    let DeployEnd { pool, generation, id: _, outcome, took, failure } = end;
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let reason = failure.as_ref().map(ToString::to_string);
    match outcome {
        Outcome::Done | Outcome::Superseded => {
            tracing::info!(%pool, generation, outcome = outcome.word(), ms, "deploy");
        }
        Outcome::Reverted | Outcome::Frozen | Outcome::Failed => {
            tracing::error!(%pool, generation, outcome = outcome.word(), ms, reason, "deploy");
        }
    }
}

/// The pools of workers that a model asks for.
pub(crate) fn pool_specs(model: &Model) -> Vec<PoolSpec> {
    let specs = model.upstreams.values().filter_map(|upstream| match &upstream.source {
        EndpointSource::Workers(spec) => Some(PoolSpec { name: upstream.name.clone(), spec: spec.clone() }),
        EndpointSource::Servers(_) => None,
    });
    specs.collect()
}
