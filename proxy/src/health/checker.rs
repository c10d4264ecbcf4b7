//! Asks servers whether they are well, on the control runtime, and tells their pools.
//!
//! One loop owns all checks: one for each endpoint of a pool whose upstream has a check, so two upstreams with one server
//! have two. What a reload leaves as it is goes on; a check whose definition or way to its server has changed begins anew.

use super::probe::{Probe, Target};
use crate::edge::shard::Shared;
use crate::snapshot::Snapshot;
use pingora::lb::health_check::HealthCheck as _;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_config::model::{HealthCheck, ProxyHeader, UpstreamProtocol};
use tidegate_traffic::pool::Pool;
use tidegate_traffic::pool::check::CheckResult;
use tidegate_traffic::pool::endpoint::{Endpoint, EndpointId};
use tidegate_traffic::{PoolId, TransportId};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

/// How often is looked whether a pool has other endpoints than before.
const LOOK: Duration = Duration::from_millis(500);

/// See the module's text.
pub(crate) struct Checker {
    shared: Arc<Shared>,
    wake: Notify,
    /// Guards what serves; taken by a reload and by the loop.
    serving: Mutex<Option<Arc<Snapshot>>>,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

/// A check that runs.
struct Running {
    way: Way,
    task: AbortHandle,
}

/// What makes two checks of an endpoint the same.
#[derive(PartialEq)]
struct Way {
    definition: Arc<HealthCheck>,
    transport: TransportId,
    protocol: UpstreamProtocol,
    proxy_protocol: Option<ProxyHeader>,
}

impl Checker {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, wake: Notify::new(), serving: Mutex::new(None) }
    }

    /// This configuration serves from now on.
    pub(crate) fn adopt(&self, snapshot: &Arc<Snapshot>) {
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(snapshot));
        self.wake.notify_one();
    }

    /// Never ends; dropping it ends all checks.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut running: HashMap<EndpointId, Running> = HashMap::new();
        loop {
            self.adjust(&mut running, &mut tasks);
            // Those that were ended.
            while tasks.try_join_next().is_some() {}
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Begins the checks that are missing and ends those that are not wanted any more.
    fn adjust(&self, running: &mut HashMap<EndpointId, Running>, tasks: &mut JoinSet<()>) {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut wanted: HashMap<EndpointId, Running> = HashMap::new();
        for (pool, target, way) in serving.iter().flat_map(wanted_checks) {
            let id = target.endpoint.id();
            let kept = running.remove(&id).filter(|known| known.way == way);
            let kept = kept.unwrap_or_else(|| {
                let probe = Probe::new(Arc::clone(&way.definition), target.clone());
                let task = tasks.spawn(check(Arc::clone(&self.shared), pool, target.endpoint, probe));
                Running { way, task }
            });
            wanted.insert(id, kept);
        }
        // What is left is not wanted; a definition that changed ended above, when it was filtered out.
        running.drain().for_each(|(_, ended)| ended.task.abort());
        *running = wanted;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Every endpoint with a check, as this configuration has it.
fn wanted_checks(snapshot: &Arc<Snapshot>) -> Vec<(Arc<Pool>, Target, Way)> {
    let mut wanted = Vec::new();
    let upstreams = (0..).zip(snapshot.model.upstreams.values());
    for (place, upstream) in upstreams {
        let (Some(definition), Some((pool, settings))) =
            (&upstream.health_check, snapshot.traffic.upstream(PoolId(place)))
        else {
            continue;
        };
        let definition = Arc::new(definition.clone());
        for endpoint in pool.endpoints().into_iter().filter(|endpoint| endpoint.is_ready()) {
            let way = Way {
                definition: Arc::clone(&definition),
                transport: settings.transport,
                protocol: settings.protocol,
                proxy_protocol: settings.proxy_protocol,
            };
            let target = Target {
                endpoint,
                protocol: settings.protocol,
                proxy_protocol: settings.proxy_protocol,
                tls: snapshot.shared_upstream_tls(pool),
            };
            wanted.push((Arc::clone(pool), target, way));
        }
    }
    wanted
}

/// Asks one endpoint again and again.
async fn check(shared: Arc<Shared>, pool: Arc<Pool>, endpoint: Arc<Endpoint>, probe: Probe) {
    let random = RandomState::new();
    let definition = Arc::clone(probe.definition());
    for round in 0_u64.. {
        // Without a descriptor there is nothing to tell: clients have them all.
        match shared.descriptor() {
            Some(descriptor) => {
                let result = ask(&probe).await;
                drop(descriptor);
                let word = if result.failure.is_none() { "passed" } else { "failed" };
                shared.metrics.health().checked(pool.name(), word);
                pool.checked(endpoint.id(), &definition, result, Instant::now());
            }
            None => shared.metrics.health().checked(pool.name(), "skipped"),
        }
        let share = random.hash_one(round) as f64 / u64::MAX as f64;
        tokio::time::sleep(definition.interval + definition.jitter.mul_f64(share.clamp(0.0, 1.0))).await;
    }
}

/// One check, within its time.
async fn ask(probe: &Probe) -> CheckResult {
    let (began, limit) = (Instant::now(), probe.definition().timeout);
    let Some(backend) = probe.backend() else {
        return CheckResult { failure: Some("no address to ask".to_owned()), took: Duration::ZERO };
    };
    let failure = match tokio::time::timeout(limit, probe.check(&backend)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            Some(error.context.as_ref().map_or_else(|| error.to_string(), |context| context.as_str().to_owned()))
        }
        Err(_) => Some(format!("no result within {limit:?}")),
    };
    CheckResult { failure, took: began.elapsed() }
}
