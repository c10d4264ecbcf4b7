//! Between the supervisor and the pools: a worker that is ready becomes an endpoint, one that drains stops being one.
//!
//! The supervisor's event sink runs on its thread and must not wait; everything here is a short lock or a send that
//! cannot block.

use crate::plane::Plane;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tidegate_config::model::{Address, EndpointSource, Model};
use tidegate_supervisor::{Command, Event, Failure, Handle, PoolSpec, PoolState, WorkerAddress, WorkerId};
use tidegate_traffic::pool::endpoint::{Endpoint, Origin, WorkerKey};
use tidegate_traffic::pool::{Expectation, Pool};

/// Passes events of the supervisor on to the pools.
#[derive(Default)]
pub(crate) struct WorkerBridge {
    /// Pools by name. One that left the configuration stays until its last worker has gone.
    pools: Mutex<HashMap<String, Arc<Pool>>>,
    handle: OnceLock<Handle>,
    plane: OnceLock<Arc<Plane>>,
}

impl WorkerBridge {
    /// Completes the bridge once both sides exist.
    pub(crate) fn connect(&self, handle: Handle, plane: Arc<Plane>) {
        // Connected once, by the assembly.
        let _ = self.handle.set(handle);
        let _ = self.plane.set(plane);
    }

    /// Pools of workers of a configuration that is about to serve.
    pub(crate) fn adopt<'a>(&self, pools: impl Iterator<Item = &'a Arc<Pool>>) {
        let mut known = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in pools {
            known.insert(pool.name().to_string(), pool.clone());
        }
    }

    /// Takes one event. Never waits.
    pub(crate) fn event(self: &Arc<Self>, event: Event) {
        match event {
            Event::Ready { worker, address } => self.ready(&worker, address),
            Event::Drain { worker } => self.drain(worker),
            Event::Gone { worker } => self.gone(&worker),
            Event::Transition(change) => tracing::info!(
                pool = %change.worker.pool,
                slot = change.worker.slot,
                generation = change.worker.generation,
                pid = change.pid,
                from = change.from.word(),
                to = change.to.word(),
                reason = change.reason.map(|reason| reason.word()),
                ms = u64::try_from(change.in_state.as_millis()).unwrap_or(u64::MAX),
                "worker"
            ),
            Event::Failure(failure) => log_failure(&failure),
            Event::GenerationActive { pool, generation } => tracing::info!(%pool, generation, "generation serves"),
            Event::GenerationFailed { generation, failure } => {
                tracing::error!(pool = %failure.worker.pool, generation, "generation given up, the old one keeps serving");
                log_failure(&failure);
            }
            Event::PoolState { pool, from, to } => {
                tracing::info!(%pool, from = from.word(), to = to.word(), "pool");
                self.pool_state(&pool, to);
            }
            Event::Fault { message } => tracing::error!(%message, "supervisor step failed"),
            Event::Stopped => tracing::info!("workers stopped"),
        }
    }

    fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn ready(&self, worker: &WorkerId, address: WorkerAddress) {
        let Some(pool) = self.pool(&worker.pool) else { return };
        let address = match address {
            WorkerAddress::Unix(path) => Address::Unix(path),
            WorkerAddress::Tcp(address) => Address::Tcp(address),
        };
        let pid = self.pid(worker).unwrap_or_default();
        pool.add_worker(key(worker), pid, address);
    }

    fn pid(&self, worker: &WorkerId) -> Option<u32> {
        let status = self.handle.get()?.status();
        let pool = status.iter().find(|pool| pool.name == worker.pool)?;
        pool.workers.iter().find(|status| status.id == *worker)?.pid
    }

    /// No new request, then tell the supervisor when the last one has ended, and close idle connections at once: a
    /// worker would wait for them.
    fn drain(self: &Arc<Self>, worker: WorkerId) {
        let Some(pool) = self.pool(&worker.pool) else { return self.send(Command::Drained { worker }) };
        let worker_key = key(&worker);
        let endpoint = worker_endpoint(&pool, worker_key);
        let bridge = self.clone();
        pool.drain_worker(worker_key, Box::new(move || bridge.send(Command::Drained { worker })));
        if let (Some(endpoint), Some(plane)) = (endpoint, self.plane.get()) {
            plane.forget(endpoint.id());
        }
    }

    fn gone(&self, worker: &WorkerId) {
        let Some(pool) = self.pool(&worker.pool) else { return };
        let endpoint = worker_endpoint(&pool, key(worker));
        pool.remove_worker(key(worker));
        if let (Some(endpoint), Some(plane)) = (endpoint, self.plane.get()) {
            plane.forget(endpoint.id());
        }
    }

    fn pool_state(&self, name: &str, state: PoolState) {
        let Some(pool) = self.pool(name) else { return };
        let expectation = match state {
            PoolState::Starting | PoolState::Healthy | PoolState::Degraded => Expectation::Workers,
            PoolState::Crashloop | PoolState::Empty | PoolState::Stopped => Expectation::Nothing,
        };
        pool.set_expecting(expectation);
        if state == PoolState::Stopped {
            self.pools.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        }
    }

    /// Sends a command; before the bridge is connected there is nobody who could have asked for one.
    fn send(&self, command: Command) {
        if let Some(handle) = self.handle.get() {
            handle.send(command);
        }
    }
}

fn key(worker: &WorkerId) -> WorkerKey {
    // Spawn numbers are never repeated, whatever the generation.
    WorkerKey { slot: worker.slot, spawn: worker.spawn }
}

fn worker_endpoint(pool: &Pool, worker: WorkerKey) -> Option<Arc<Endpoint>> {
    let is_worker = |endpoint: &Arc<Endpoint>| matches!(endpoint.origin(), Origin::Worker { key, .. } if key == worker);
    pool.endpoints().into_iter().find(is_worker)
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

/// The pools of workers that a model asks for.
pub(crate) fn pool_specs(model: &Model) -> Vec<PoolSpec> {
    let specs = model.upstreams.values().filter_map(|upstream| match &upstream.source {
        EndpointSource::Workers(spec) => Some(PoolSpec { name: upstream.name.clone(), spec: spec.clone() }),
        EndpointSource::Servers(_) => None,
    });
    specs.collect()
}
