//! What the program tells about itself: its own state in the words of the admin endpoint.

mod logs;
mod worker_sample;
mod workers;

use crate::admin::control::Control;
use crate::admin::follow::Feed;
use crate::admin::order::{NotTaken, Order};
use crate::admin::view::{self, Readiness, ReloadReport, Status};
use crate::app::Program;
use crate::discovery::{Discovery, NameStatus};
use crate::edge::bind;
use crate::observe::metrics::{ConcurrencySample, LimitSample, PoolSample, Samples};
use crate::reload::{Applied, Refused};
use crate::snapshot::Snapshot;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tidegate_config::model::{HostPattern, Transport, UpstreamProtocol};
use tidegate_supervisor::{
    GenerationState, LastExit, PoolState, PoolStatus, Roots, WorkerState, WorkerStatus, tree_rss,
};
use tidegate_traffic::concurrency::ConcurrencyLimit;
use tidegate_traffic::limit::Limit;
use tidegate_traffic::pool::breaker::{BreakerState, BreakerStatus};
use tidegate_traffic::pool::check::CheckStatus;
use tidegate_traffic::pool::ejection::Ejected;
use tidegate_traffic::pool::endpoint::{EndpointState, EndpointStatus, Origin};
use tidegate_traffic::pool::{Pool, QueueCounts, QueueStatus};

/// How long an order about workers may take to be taken; it is a matter of microseconds.
const ORDER_PATIENCE: Duration = Duration::from_secs(2);

#[async_trait]
impl Control for Program {
    async fn status(&self) -> Status {
        status(self)
    }

    async fn metrics(&self) -> String {
        let snapshot = self.reloader().serving.load_full();
        let workers = self.reloader().supervisor.status();
        self.reloader().metrics.render(&Samples {
            pools: snapshot.traffic.pools.iter().map(|pool| sample(pool, &workers)).collect(),
            limits: snapshot.traffic.limits.iter().map(limit_sample).collect(),
            concurrency: snapshot.traffic.concurrency.iter().map(concurrency_sample).collect(),
            workers: workers.iter().map(|group| worker_sample::group(&self.reloader().bridge, group)).collect(),
        })
    }

    async fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.is_stopping() {
            reasons.push("the program is shutting down".to_owned());
        }
        let snapshot = self.reloader().serving.load_full();
        let required =
            |pool: &&Arc<Pool>| snapshot.model.upstreams.get(&**pool.name()).is_none_or(|model| model.required);
        for pool in snapshot.traffic.pools.iter().filter(required) {
            let endpoints = status_of(pool).endpoints;
            // What the file itself takes out is as the operator wants it.
            let wanted = endpoints.iter().any(|endpoint| !endpoint.down) || endpoints.is_empty();
            if wanted && !endpoints.iter().any(EndpointStatus::is_in_service) {
                let names = self.reloader().discovery.status(pool.name());
                let names =
                    names.iter().filter_map(|name| Some(format!(", {}: {}", name.name, name.trouble.as_ref()?)));
                let why: String = names.collect();
                reasons.push(format!("upstream \"{}\": no endpoint is ready{why}", pool.name()));
            }
        }
        Readiness { ready: reasons.is_empty(), reasons }
    }

    async fn reload(&self) -> ReloadReport {
        let program = self.shared();
        // On a thread of its own: it reads files, and must go on when the client who asked has left.
        let reloaded = tokio::task::spawn_blocking(move || report(&program)).await;
        reloaded.unwrap_or_else(|error| ReloadReport {
            message: format!("reload failed: {error}"),
            ..ReloadReport::default()
        })
    }

    async fn stop(&self) {
        self.ask_to_stop();
    }

    async fn workers(&self, upstream: Option<&str>) -> Result<view::Workers, NotTaken> {
        let reloader = self.reloader();
        reloader.bridge.figures.clone().refresh(&reloader.supervisor).await;
        workers::workers(self, upstream)
    }

    async fn costs(&self, upstream: Option<&str>) -> Result<view::Costs, NotTaken> {
        let reloader = self.reloader();
        reloader.bridge.clone().look_at_costs(&reloader.supervisor).await;
        reloader.bridge.costs(upstream)
    }

    async fn order(&self, order: Order) -> Result<view::Ordered, NotTaken> {
        if self.is_stopping() {
            return Err(NotTaken::Stopping);
        }
        let ordered = self.reloader().bridge.order(&order)?;
        let supervisor = self.reloader().supervisor.clone();
        // Who looks next sees what came of it. Whether it could be waited for or not, the order was given.
        let _ = tokio::task::spawn_blocking(move || supervisor.settle(ORDER_PATIENCE)).await;
        Ok(ordered)
    }

    fn deploys(&self, upstream: Option<&str>) -> Result<view::Deploys, NotTaken> {
        self.reloader().bridge.deploys(upstream)
    }

    async fn plans(&self, upstream: Option<&str>) -> Result<view::Plans, NotTaken> {
        let snapshot = self.reloader().serving.load_full();
        let planned = self.reloader().bridge.planned(upstream, &snapshot.model)?;
        // On a thread of its own: the kernel walks the pages of every worker. It fails by a panic only.
        let look = tokio::task::spawn_blocking(move || planned.look(&Roots::default()));
        Ok(look.await.unwrap_or_default())
    }

    fn events(&self, upstream: Option<&str>) -> Result<Arc<dyn Feed>, NotTaken> {
        workers::events(self, upstream)
    }

    fn logs(&self, upstream: Option<&str>, slot: Option<u32>) -> Result<Arc<dyn Feed>, NotTaken> {
        logs::logs(self, upstream, slot)
    }
}

fn report(program: &Arc<Program>) -> ReloadReport {
    match program.reload() {
        Ok(Applied { generation, diff, warnings }) => ReloadReport {
            applied: true,
            generation,
            message: if diff.is_empty() { "nothing changed".to_owned() } else { String::new() },
            changes: diff.to_string().lines().map(str::to_owned).collect(),
            diff: serde_json::to_value(&diff).unwrap_or_default(),
            faults: warnings.iter().map(|text| plain_fault("warning", text)).collect(),
        },
        Err(refused) => ReloadReport {
            applied: false,
            generation: program.reloader().serving.load().generation,
            faults: faults(&refused),
            ..ReloadReport::default()
        },
    }
}

fn faults(refused: &Refused) -> Vec<view::Fault> {
    match refused {
        Refused::Faults(faults) => faults.as_slice().iter().map(view::Fault::from).collect(),
        Refused::Tls(faults) => faults.iter().map(view::Fault::from).collect(),
        Refused::NeedsRestart(texts) | Refused::Environment(texts) => {
            texts.iter().map(|text| plain_fault("error", text)).collect()
        }
    }
}

fn plain_fault(severity: &str, text: &str) -> view::Fault {
    view::Fault {
        severity: severity.to_owned(),
        place: None,
        problem: text.to_owned(),
        hint: None,
        text: format!("{severity}: {text}\n"),
    }
}

fn status(program: &Program) -> Status {
    let reloader = program.reloader();
    let snapshot = reloader.serving.load_full();
    let workers = reloader.supervisor.status();
    let pools = snapshot.traffic.pools.iter();
    Status {
        version: crate::VERSION.to_owned(),
        pid: std::process::id(),
        generation: snapshot.generation,
        started: view::time(program.started()),
        uptime_seconds: since(program.started()).as_secs(),
        stopping: program.is_stopping(),
        listeners: listeners(program, &snapshot),
        sites: sites(program, &snapshot),
        rate_limits: rate_limits(&snapshot),
        concurrency_limits: snapshot.traffic.concurrency.iter().map(concurrency_limit).collect(),
        upstreams: pools.map(|pool| upstream(pool, &snapshot, &workers, &reloader.discovery)).collect(),
        last_reload: reloader.last_reload().map(|last| view::LastReload {
            at: view::time(last.at),
            age_seconds: since(last.at).as_secs(),
            applied: last.refused.is_none(),
            message: last.refused.unwrap_or_else(|| "applied".to_owned()),
        }),
    }
}

fn since(time: SystemTime) -> Duration {
    // A clock that was set back makes it now.
    time.elapsed().unwrap_or_default()
}

fn listeners(program: &Program, snapshot: &Snapshot) -> Vec<view::Listener> {
    let running = program.reloader().plane.listeners();
    let of_model = snapshot.model.listeners.iter().filter_map(|model| {
        let listener = running.iter().find(|listener| listener.is_for(model))?;
        Some(view::Listener {
            name: model.name.clone(),
            address: bind::display(&listener.actual),
            transport: match model.transport {
                Transport::Plain { h2c: false } => "http".to_owned(),
                Transport::Plain { h2c: true } => "h2c".to_owned(),
                Transport::Tls => "tls".to_owned(),
            },
            connections: u64::try_from(listener.settings().metrics.open.get()).unwrap_or_default(),
        })
    });
    of_model.collect()
}

fn sites(program: &Program, snapshot: &Snapshot) -> Vec<view::Site> {
    let expiry = program.reloader().certificate_expiry();
    let site = |site: &tidegate_config::model::Site| view::Site {
        name: site.name.clone(),
        hosts: site.hosts.iter().map(host).collect(),
        listeners: site.listeners.clone(),
        certificate_expires: expiry.get(&site.name).copied().map(view::time),
    };
    snapshot.model.sites.iter().map(site).collect()
}

fn rate_limits(snapshot: &Snapshot) -> Vec<view::RateLimit> {
    let limit = |limit: &Limit| view::RateLimit {
        name: limit.name().to_string(),
        rate: snapshot.model.rate_limits.get(&**limit.name()).map_or_else(String::new, |model| model.rate.to_string()),
        entries: limit.entries() as u64,
        in_use: limit.in_use(Instant::now()) as u64,
        delayed: limit.counts().delayed(),
        rejected: limit.counts().rejected(),
        dry_run: limit.counts().dry_run(),
    };
    snapshot.traffic.limits.iter().map(limit).collect()
}

fn limit_sample(limit: &Limit) -> LimitSample {
    let counts = limit.counts();
    LimitSample {
        limit: limit.name().to_string(),
        requests: vec![("delayed", counts.delayed()), ("rejected", counts.rejected()), ("dry_run", counts.dry_run())],
    }
}

fn concurrency_limit(limit: &ConcurrencyLimit) -> view::ConcurrencyLimit {
    view::ConcurrencyLimit {
        name: limit.name().to_string(),
        max: limit.max(),
        in_flight: limit.table().requests(),
        clients: limit.table().clients() as u64,
        rejected: limit.counts().rejected(),
        dry_run: limit.counts().dry_run(),
    }
}

fn concurrency_sample(limit: &ConcurrencyLimit) -> ConcurrencySample {
    let counts = limit.counts();
    ConcurrencySample {
        limit: limit.name().to_string(),
        in_flight: limit.table().requests(),
        requests: vec![("rejected", counts.rejected()), ("dry_run", counts.dry_run())],
    }
}

/// A host as the file writes it.
pub(crate) fn host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(name) => format!("*.{name}"),
        HostPattern::Any => "*".to_owned(),
    }
}

fn upstream(pool: &Pool, snapshot: &Snapshot, workers: &[PoolStatus], discovery: &Discovery) -> view::Upstream {
    let names = discovery.status(pool.name());
    let status = status_of(pool);
    let mut endpoints = status.endpoints;
    endpoints.sort_by_key(|endpoint| match endpoint.origin {
        Origin::Worker { key, .. } => (key.slot, key.spawn),
        // Static servers keep the order of the file.
        Origin::Static => (0, 0),
    });
    let ready = endpoints.iter().filter(|endpoint| endpoint.is_in_service() || endpoint.down).count();
    let supervised = workers.iter().find(|status| status.name == *pool.name());
    let wanted = supervised.map_or(endpoints.len(), |status| status.slots.len() - status.held.len());
    let state = match ready {
        0 => "down",
        _ if ready < wanted || names.iter().any(|name| name.addresses == 0) => "degraded",
        _ => "ready",
    };
    let state = match supervised.map(|status| status.state) {
        Some(PoolState::Crashloop) => "crashloop",
        Some(PoolState::Starting) if ready == 0 => "starting",
        _ => state,
    };
    let model = snapshot.model.upstreams.get(pool.name().as_ref());
    view::Upstream {
        name: pool.name().to_string(),
        protocol: model.map_or("", |model| protocol(model.protocol)).to_owned(),
        balance: model.map_or_else(String::new, |model| model.balance.to_string()),
        state: state.to_owned(),
        breaker: status.breaker.as_ref().map(breaker),
        in_flight: status.in_flight.into(),
        max_in_flight: status.places,
        queue: queue(status.queue),
        endpoints: endpoints.iter().map(endpoint).collect(),
        names: names.iter().map(name).collect(),
        workers: supervised.map(workers::of_group).unwrap_or_default(),
        target: supervised.map(|status| status.target),
        failed_generation: supervised.and_then(failed_generation),
    }
}

fn queue(status: QueueStatus) -> view::Queue {
    let QueueStatus { waiting, size, peak, recent_peak: _, overloaded, counts } = status;
    let QueueCounts { full, late, timeout } = counts;
    view::Queue { waiting: waiting as u64, size: size as u64, peak: peak as u64, overloaded, full, late, timeout }
}

/// The newest generation, when it was given up: what serves is older than the configuration.
fn failed_generation(pool: &PoolStatus) -> Option<u64> {
    let newest = pool.generations.last()?;
    (newest.state == GenerationState::Failed).then_some(newest.number)
}

const fn protocol(protocol: UpstreamProtocol) -> &'static str {
    match protocol {
        UpstreamProtocol::Http1 => "http1",
        UpstreamProtocol::H2 => "h2",
    }
}

fn endpoint_state(status: &EndpointStatus) -> &'static str {
    match status.state {
        EndpointState::Ready if status.down => "down",
        EndpointState::Ready if status.is_failing() => "unhealthy",
        EndpointState::Ready if status.ejected.is_some() => "ejected",
        EndpointState::Ready => "ready",
        EndpointState::Draining => "draining",
        EndpointState::Gone => "gone",
    }
}

fn name(status: &NameStatus) -> view::Name {
    view::Name {
        name: status.name.to_string(),
        state: status.state.word().to_owned(),
        addresses: status.addresses as u64,
        next_ms: u64::try_from(status.next.as_millis()).unwrap_or(u64::MAX),
        reason: status.trouble.clone(),
    }
}

fn endpoint(status: &EndpointStatus) -> view::Endpoint {
    view::Endpoint {
        address: bind::display(&status.address),
        name: status.host.as_ref().map(ToString::to_string),
        state: endpoint_state(status).to_owned(),
        ejected: status.ejected.as_ref().map(ejected),
        check: status.check.as_ref().map(check),
        weight: status.weight,
        priority: status.priority,
        max_conns: status.max_conns,
        in_flight: status.in_flight.into(),
        tunnels: status.tunnels.into(),
        connections: status.connections.into(),
        requests: status.requests,
        failures: status.failures,
        overtaken: status.overtaken,
    }
}

fn breaker(breaker: &BreakerStatus) -> view::Breaker {
    let left = breaker.until.map(|until| until.saturating_duration_since(Instant::now()));
    view::Breaker {
        state: breaker.state.word().to_owned(),
        since: breaker.since.map(|since| view::time(SystemTime::now() - since.elapsed())),
        seconds_left: left.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0)),
        reason: breaker.reason.clone(),
        trips: breaker.trips,
    }
}

fn breaker_number(breaker: &BreakerStatus) -> u64 {
    match breaker.state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}

fn ejected(ejected: &Ejected) -> view::Ejected {
    let left = ejected.until.saturating_duration_since(Instant::now());
    view::Ejected {
        since: view::time(SystemTime::now() - ejected.since.elapsed()),
        until: view::time(SystemTime::now() + left),
        seconds_left: left.as_secs() + u64::from(left.subsec_nanos() > 0),
        times: ejected.times,
        reason: ejected.reason.to_string(),
    }
}

fn check(check: &CheckStatus) -> view::Check {
    view::Check {
        passing: check.passing,
        since: view::time(SystemTime::now() - check.since.elapsed()),
        reason: check.failure.clone(),
        last: check.last.to_string(),
        last_at: view::time(SystemTime::now() - check.last_at.elapsed()),
        last_ms: u64::try_from(check.last.took.as_millis()).unwrap_or(u64::MAX),
    }
}

/// A pool as it is now: what time alone brings has come.
fn status_of(pool: &Pool) -> tidegate_traffic::pool::PoolStatus {
    pool.refresh(Instant::now());
    pool.status()
}

fn worker(status: &WorkerStatus) -> view::Worker {
    view::Worker {
        slot: status.id.slot,
        pid: status.pid,
        state: status.state.word().to_owned(),
        restarts: status.restarts,
        rss_bytes: status.pid.map(tree_rss),
        generation: status.id.generation,
        uptime_seconds: status.started.map(|started| since(started).as_secs()),
        last_exit: status.last_exit.as_ref().map(last_exit),
        says: status.says.clone(),
        alive_seconds: status.alive.map(|alive| since(alive).as_secs()),
        out: status.out.clone(),
    }
}

fn last_exit(exit: &LastExit) -> String {
    format!("{}: {}, {} ago", exit.reason.word(), exit.status, view::span(since(exit.at)))
}

fn sample(pool: &Pool, workers: &[PoolStatus]) -> PoolSample {
    let status = status_of(pool);
    let supervised = workers.iter().find(|workers| workers.name == *pool.name());
    let mut endpoints: BTreeMap<&'static str, u64> =
        BTreeMap::from([("ready", 0), ("ejected", 0), ("unhealthy", 0), ("down", 0), ("draining", 0)]);
    for endpoint in &status.endpoints {
        *endpoints.entry(endpoint_state(endpoint)).or_default() += 1;
    }
    let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
    for worker in supervised.iter().flat_map(|supervised| &supervised.workers) {
        *states.entry(worker.state.word()).or_default() += 1;
    }
    if supervised.is_some() {
        states.entry(WorkerState::Ready.word()).or_default();
    }
    PoolSample {
        upstream: pool.name().to_string(),
        breaker: status.breaker.as_ref().map(breaker_number),
        in_flight: status.endpoints.iter().map(|endpoint| u64::from(endpoint.in_flight)).sum(),
        waiting: status.queue.waiting as u64,
        peak: status.queue.peak as u64,
        refused: refused(status.queue.counts),
        endpoints: endpoints.into_iter().collect(),
        workers: states.into_iter().collect(),
        restarts: supervised.map(restarts),
        sticky: pool.bonds().map(|bonds| bonds.all().to_vec()).unwrap_or_default(),
    }
}

/// Requests that a queue lost, by reason.
fn refused(counts: QueueCounts) -> Vec<(&'static str, u64)> {
    let QueueCounts { full, late, timeout } = counts;
    vec![("full", full), ("late", late), ("timeout", timeout)]
}

/// A slot that is being replaced has two workers with one count.
fn restarts(pool: &PoolStatus) -> u64 {
    let mut by_slot: BTreeMap<u32, u64> = BTreeMap::new();
    for worker in &pool.workers {
        let count = by_slot.entry(worker.id.slot).or_default();
        *count = (*count).max(worker.restarts);
    }
    by_slot.values().sum()
}
