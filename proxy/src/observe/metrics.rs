//! The numbers of `/metrics`: handles that cost a request a few atomics, and their rendering.
//!
//! Handles are looked up once per configuration, never per request; labels are names from the configuration. There is no
//! global registry: whoever counts was given its handle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry, TextEncoder,
};

use super::health::HealthMetrics;
use super::line_writer::LossCounters;
use super::names::{self, Metric, label};
use super::process::ProcessNumbers;
use super::worker_life::WorkerLife;
use super::worker_sample::{self, GroupSample};
use super::workers::WorkerMetrics;
use tidegate_traffic::Hedged;
use tidegate_traffic::retry::Reason;

/// Seconds; from a cached answer of an app to a long poll.
const BUCKETS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Status classes by their first digit; the first stands for a status that is none.
const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Why a retry was not made.
const BUDGET: &str = "budget";
const ROUTE_LABELS: [&str; 3] = [label::SITE, label::ROUTE, label::UPSTREAM];

/// All metrics of the program.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    response_head: HistogramVec,
    request_bytes: IntCounterVec,
    response_bytes: IntCounterVec,
    connections_open: IntGaugeVec,
    connections_accepted: IntCounterVec,
    connections_refused: IntCounterVec,
    tls_handshakes: IntCounterVec,
    upstream_opened: IntCounterVec,
    upstream_reused: IntCounterVec,
    upstream_failed: IntCounterVec,
    retries: IntCounterVec,
    resolutions: IntCounterVec,
    retries_denied: IntCounterVec,
    hedges: IntCounterVec,
    waits: HistogramVec,
    refusals: IntCounterVec,
    health: HealthMetrics,
    workers: WorkerMetrics,
    life: WorkerLife,
    generation: IntGauge,
    last_reload_ok: IntGauge,
    last_reload_time: Gauge,
    reloads: IntCounterVec,
    spool: SpoolMetrics,
    access_log: LossCounters,
    program_log: LossCounters,
    /// Guards the handles given out, so that a name that comes back counts on. Never taken by a request.
    handles: Mutex<Handles>,
}

#[derive(Default)]
struct Handles {
    routes: BTreeMap<RouteKey, Arc<RouteMetrics>>,
    listeners: BTreeMap<String, Arc<ListenerMetrics>>,
    upstreams: BTreeMap<String, Arc<UpstreamMetrics>>,
}

/// Which series a request counts into; names of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// Name of the site.
    pub site: String,
    /// Name of the route.
    pub route: String,
    /// Name of the upstream; empty for an answer of our own.
    pub upstream: String,
}

/// The counters of one site, route and upstream.
#[derive(Debug)]
pub struct RouteMetrics {
    requests: [IntCounter; CLASSES.len()],
    duration: Histogram,
    /// Where an endpoint answers.
    response_head: Option<Histogram>,
    request_bytes: IntCounter,
    response_bytes: IntCounter,
}

impl RouteMetrics {
    /// An endpoint took so long from the beginning of the last try to the head of its answer. Only atomics.
    pub fn answered_after(&self, time: Duration) {
        if let Some(response_head) = &self.response_head {
            response_head.observe(time.as_secs_f64());
        }
    }

    /// One exchange is over: its status, time, and body bytes received and sent. Only atomics.
    pub fn observe(&self, status: u16, elapsed: Duration, bytes_in: u64, bytes_out: u64) {
        let class = usize::from(status / 100);
        self.requests[if class < CLASSES.len() { class } else { 0 }].inc();
        self.duration.observe(elapsed.as_secs_f64());
        self.request_bytes.inc_by(bytes_in);
        self.response_bytes.inc_by(bytes_out);
    }
}

/// The counters of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// Connections right now.
    pub open: IntGauge,
    /// Connections accepted.
    pub accepted: IntCounter,
    /// Handshakes that ended well.
    pub handshakes_full: IntCounter,
    /// TLS handshakes that resumed a session.
    pub handshakes_resumed: IntCounter,
    /// Handshakes that did not.
    pub handshakes_failed: IntCounter,
    name: String,
    refused: IntCounterVec,
}

impl ListenerMetrics {
    /// A connection closed before its first request; `reason` is a constant of the program, never from a client.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[self.name.as_str(), reason]).inc();
    }
}

/// The counters of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// Connections opened.
    pub opened: IntCounter,
    /// Requests on a connection that was idle.
    pub reused: IntCounter,
    /// Connections that could not be opened.
    pub failed: IntCounter,
    /// Resolutions of names with addresses.
    pub names_resolved: IntCounter,
    /// Resolutions of names that do not exist.
    pub names_missing: IntCounter,
    /// Resolutions that nobody answered.
    pub names_failed: IntCounter,
    /// Requests that were not tried again because the budget did not pay for it.
    pub denied: IntCounter,
    retries: [IntCounter; Reason::ALL.len()],
    hedges: [IntCounter; Hedged::ALL.len()],
    waits: Histogram,
}

impl UpstreamMetrics {
    /// A request is tried again.
    pub fn retried(&self, reason: Reason) {
        self.retries[reason as usize].inc();
    }

    /// A request was slow enough to be sent to a second endpoint.
    pub fn hedged(&self, hedged: Hedged) {
        self.hedges[hedged as usize].inc();
    }

    /// A request begins to wait for an endpoint. When the timer is dropped the wait is over.
    pub fn queued(&self) -> HistogramTimer {
        self.waits.start_timer()
    }
}

/// The numbers of bodies in temporary files.
#[derive(Debug, Clone)]
pub struct SpoolMetrics {
    /// Bytes right now.
    pub bytes: IntGauge,
    /// Bodies that needed a file.
    pub bodies: IntCounter,
    fallbacks: IntCounterVec,
}

impl SpoolMetrics {
    /// A body was passed on as it came; `reason` is a constant of the program.
    pub fn fell_back(&self, reason: &'static str) {
        self.fallbacks.with_label_values(&[reason]).inc();
    }
}

/// What a pool looks like when somebody asks.
#[derive(Debug, Clone, Default)]
pub struct PoolSample {
    /// Name of the upstream.
    pub upstream: String,
    /// Requests at its endpoints.
    pub in_flight: u64,
    /// Requests that wait for one of them.
    pub waiting: u64,
    /// Most requests that ever waited at a time.
    pub peak: u64,
    /// Number of requests that did not get an endpoint in time, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Its breaker: 0 is closed, 1 half-open, 2 open; `None` for an upstream without one.
    pub breaker: Option<u64>,
    /// Number of endpoints by state.
    pub endpoints: Vec<(&'static str, u64)>,
    /// Number of workers by state; empty for static servers.
    pub workers: Vec<(&'static str, u64)>,
    /// Starts of workers after their first; `None` for static servers.
    pub restarts: Option<u64>,
    /// Answers by what the client's cookie named; empty where clients do not stay with endpoints.
    pub sticky: Vec<(&'static str, u64)>,
}

/// What a rate limit has counted when somebody asks.
#[derive(Debug, Clone, Default)]
pub struct LimitSample {
    /// Its name, or where it stands.
    pub limit: String,
    /// Number of requests by what became of them.
    pub requests: Vec<(&'static str, u64)>,
}

/// What a limit of requests under way has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConcurrencySample {
    /// Its name.
    pub limit: String,
    /// Requests under way.
    pub in_flight: u64,
    /// Requests by what became of them.
    pub requests: Vec<(&'static str, u64)>,
}

/// What things look like right now.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// All upstreams.
    pub pools: Vec<PoolSample>,
    /// Limits of rates.
    pub limits: Vec<LimitSample>,
    /// Limits of requests under way.
    pub concurrency: Vec<ConcurrencySample>,
    /// Workers of upstreams that have some.
    pub workers: Vec<GroupSample>,
}

impl Metrics {
    /// All metrics at zero. `version` is that of the program.
    ///
    /// # Errors
    /// Never for the names declared in `names`, which a test proves.
    pub fn new(version: &str) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let listener = [label::LISTENER];
        let upstream = [label::UPSTREAM];
        let build = gauges(&registry, names::BUILD, &[label::VERSION])?;
        build.with_label_values(&[version]).set(1);
        let metrics = Self {
            requests: counters(
                &registry,
                names::REQUESTS,
                &[label::SITE, label::ROUTE, label::UPSTREAM, label::STATUS],
            )?,
            duration: histograms(&registry, names::REQUEST_DURATION, &ROUTE_LABELS, &BUCKETS)?,
            response_head: histograms(&registry, names::RESPONSE_HEAD, &ROUTE_LABELS, &BUCKETS)?,
            request_bytes: counters(&registry, names::REQUEST_BYTES, &ROUTE_LABELS)?,
            response_bytes: counters(&registry, names::RESPONSE_BYTES, &ROUTE_LABELS)?,
            connections_open: gauges(&registry, names::CONNECTIONS_OPEN, &listener)?,
            connections_accepted: counters(&registry, names::CONNECTIONS_ACCEPTED, &listener)?,
            connections_refused: counters(&registry, names::CONNECTIONS_REFUSED, &[label::LISTENER, label::REASON])?,
            tls_handshakes: counters(&registry, names::TLS_HANDSHAKES, &[label::LISTENER, label::RESULT])?,
            upstream_opened: counters(&registry, names::UPSTREAM_OPENED, &upstream)?,
            upstream_reused: counters(&registry, names::UPSTREAM_REUSED, &upstream)?,
            upstream_failed: counters(&registry, names::UPSTREAM_FAILED, &upstream)?,
            resolutions: counters(&registry, names::RESOLUTIONS, &[label::UPSTREAM, label::RESULT])?,
            retries: counters(&registry, names::RETRIES, &[label::UPSTREAM, label::REASON])?,
            retries_denied: counters(&registry, names::RETRIES_DENIED, &[label::UPSTREAM, label::REASON])?,
            hedges: counters(&registry, names::HEDGES, &[label::UPSTREAM, label::RESULT])?,
            waits: histograms(&registry, names::QUEUE_WAIT, &upstream, &BUCKETS)?,
            refusals: counters(&registry, names::REFUSALS, &[label::REASON])?,
            health: HealthMetrics::new(&registry)?,
            workers: WorkerMetrics::new(&registry)?,
            life: WorkerLife::new(&registry)?,
            generation: gauge(&registry, names::CONFIG_GENERATION)?,
            last_reload_ok: gauge(&registry, names::CONFIG_LAST_RELOAD_OK)?,
            last_reload_time: registered(&registry, Gauge::with_opts(names::CONFIG_LAST_RELOAD_TIME.opts())?)?,
            reloads: counters(&registry, names::CONFIG_RELOADS, &[label::RESULT])?,
            spool: SpoolMetrics {
                bytes: gauge(&registry, names::SPOOL_BYTES)?,
                bodies: counter(&registry, names::SPOOL_BODIES)?,
                fallbacks: counters(&registry, names::SPOOL_FALLBACKS, &[label::REASON])?,
            },
            access_log: losses(&registry, names::ACCESS_LOG_DROPPED, names::ACCESS_LOG_ERRORS)?,
            program_log: losses(&registry, names::PROGRAM_LOG_DROPPED, names::PROGRAM_LOG_ERRORS)?,
            handles: Mutex::default(),
            registry,
        };
        for result in ["applied", "refused"] {
            metrics.reloads.with_label_values(&[result]);
        }
        Ok(metrics)
    }

    /// The counters of a route; the same ones for the same key. For building a snapshot, not for a request.
    #[must_use]
    pub fn route(&self, key: &RouteKey) -> Arc<RouteMetrics> {
        let mut handles = self.handles();
        if let Some(route) = handles.routes.get(key) {
            return Arc::clone(route);
        }
        let labels = key.labels();
        let [site, route, upstream] = labels;
        let metrics = Arc::new(RouteMetrics {
            requests: CLASSES.map(|class| self.requests.with_label_values(&[site, route, upstream, class])),
            duration: self.duration.with_label_values(&labels),
            response_head: (!upstream.is_empty()).then(|| self.response_head.with_label_values(&labels)),
            request_bytes: self.request_bytes.with_label_values(&labels),
            response_bytes: self.response_bytes.with_label_values(&labels),
        });
        handles.routes.insert(key.clone(), Arc::clone(&metrics));
        metrics
    }

    /// The counters of a listener; the same ones for the same name.
    #[must_use]
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let mut handles = self.handles();
        let listener = handles.listeners.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(ListenerMetrics {
                open: self.connections_open.with_label_values(&[name]),
                accepted: self.connections_accepted.with_label_values(&[name]),
                handshakes_full: self.tls_handshakes.with_label_values(&[name, "full"]),
                handshakes_resumed: self.tls_handshakes.with_label_values(&[name, "resumed"]),
                handshakes_failed: self.tls_handshakes.with_label_values(&[name, "failed"]),
                name: name.to_owned(),
                refused: self.connections_refused.clone(),
            })
        });
        Arc::clone(listener)
    }

    /// The counters of an upstream; the same ones for the same name.
    #[must_use]
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        let mut handles = self.handles();
        let upstream = handles.upstreams.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(UpstreamMetrics {
                opened: self.upstream_opened.with_label_values(&[name]),
                reused: self.upstream_reused.with_label_values(&[name]),
                failed: self.upstream_failed.with_label_values(&[name]),
                names_resolved: self.resolutions.with_label_values(&[name, "resolved"]),
                names_missing: self.resolutions.with_label_values(&[name, "missing"]),
                names_failed: self.resolutions.with_label_values(&[name, "failed"]),
                denied: self.retries_denied.with_label_values(&[name, BUDGET]),
                retries: Reason::ALL.map(|reason| self.retries.with_label_values(&[name, reason.name()])),
                hedges: Hedged::ALL.map(|hedged| self.hedges.with_label_values(&[name, hedged.name()])),
                waits: self.waits.with_label_values(&[name]),
            })
        });
        Arc::clone(upstream)
    }

    /// A counter of refusals; `reason` is a constant of the program. Keep the handle where refusals are frequent.
    #[must_use]
    pub fn refusals(&self, reason: &'static str) -> IntCounter {
        self.refusals.with_label_values(&[reason])
    }

    /// What is counted of the health of endpoints.
    #[must_use]
    pub fn health(&self) -> &HealthMetrics {
        &self.health
    }

    /// What is counted of workers.
    #[must_use]
    pub fn workers(&self) -> WorkerMetrics {
        self.workers.clone()
    }

    /// What is counted of what happens to workers.
    #[must_use]
    pub fn life(&self) -> &WorkerLife {
        &self.life
    }

    /// The numbers of bodies in temporary files.
    #[must_use]
    pub fn spool(&self) -> SpoolMetrics {
        self.spool.clone()
    }

    /// Where the access log counts its losses.
    #[must_use]
    pub fn access_log_losses(&self) -> LossCounters {
        self.access_log.clone()
    }

    /// Where the program log counts its losses.
    #[must_use]
    pub fn program_log_losses(&self) -> LossCounters {
        self.program_log.clone()
    }

    /// The configuration of this number is in use since `now`; the first one is no reload.
    pub fn config_applied(&self, generation: u64, now: SystemTime) {
        if self.generation.get() != 0 {
            self.reloads.with_label_values(&["applied"]).inc();
        }
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.last_reload_ok.set(1);
        self.last_reload_time.set(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }

    /// A reload was refused.
    pub fn config_refused(&self) {
        self.reloads.with_label_values(&["refused"]).inc();
        self.last_reload_ok.set(0);
    }

    /// Forgets the series of names that a new configuration no longer has. What still runs under an old name counts into
    /// nothing.
    pub fn retain(&self, routes: &BTreeSet<RouteKey>, listeners: &BTreeSet<String>, upstreams: &BTreeSet<String>) {
        let mut handles = self.handles();
        handles.routes.retain(|key, _| routes.contains(key) || self.forget_route(key));
        handles.upstreams.retain(|name, _| upstreams.contains(name) || self.forget_upstream(name));
        self.health.retain(upstreams);
        self.workers.retain(upstreams);
        self.life.retain(upstreams);
        // A listener's open connections may live on: it goes once the last one is closed.
        handles
            .listeners
            .retain(|name, listener| listeners.contains(name) || listener.open.get() > 0 || self.forget_listener(name));
    }

    /// The text of `/metrics` (Prometheus text format 0.0.4), with what is sampled.
    #[must_use]
    pub fn render(&self, samples: &Samples) -> String {
        let mut families = self.registry.gather();
        families.extend(sampled(samples).map(|samples| samples.gather()).unwrap_or_default());
        let mut text = Vec::new();
        match TextEncoder::new().encode(&families, &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# metrics cannot be rendered: {error}\n"),
        }
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Always `false`, for `retain`.
    fn forget_route(&self, key: &RouteKey) -> bool {
        let [site, route, upstream] = key.labels();
        for class in CLASSES {
            let _ = self.requests.remove_label_values(&[site, route, upstream, class]);
        }
        let _ = self.duration.remove_label_values(&key.labels());
        let _ = self.response_head.remove_label_values(&key.labels());
        for bytes in [&self.request_bytes, &self.response_bytes] {
            let _ = bytes.remove_label_values(&key.labels());
        }
        false
    }

    /// Always `false`, for `retain`.
    fn forget_upstream(&self, name: &str) -> bool {
        for counters in [&self.upstream_opened, &self.upstream_reused, &self.upstream_failed] {
            let _ = counters.remove_label_values(&[name]);
        }
        for result in ["resolved", "missing", "failed"] {
            let _ = self.resolutions.remove_label_values(&[name, result]);
        }
        for reason in Reason::ALL {
            let _ = self.retries.remove_label_values(&[name, reason.name()]);
        }
        let _ = self.retries_denied.remove_label_values(&[name, BUDGET]);
        for hedged in Hedged::ALL {
            let _ = self.hedges.remove_label_values(&[name, hedged.name()]);
        }
        let _ = self.waits.remove_label_values(&[name]);
        false
    }

    /// Always `false`, for `retain`. Refusals stay: their reasons are not kept here.
    fn forget_listener(&self, name: &str) -> bool {
        let _ = self.connections_open.remove_label_values(&[name]);
        let _ = self.connections_accepted.remove_label_values(&[name]);
        for result in ["full", "resumed", "failed"] {
            let _ = self.tls_handshakes.remove_label_values(&[name, result]);
        }
        false
    }
}

impl RouteKey {
    fn labels(&self) -> [&str; 3] {
        [&self.site, &self.route, &self.upstream]
    }
}

/// What is read only when somebody asks: pools, limits, workers and the process itself.
fn sampled(samples: &Samples) -> prometheus::Result<Registry> {
    let Samples { pools, limits, concurrency, workers } = samples;
    let registry = Registry::new();
    worker_sample::sample(&registry, workers)?;
    let endpoints = gauges(&registry, names::ENDPOINTS, &[label::UPSTREAM, label::STATE])?;
    let in_flight = gauges(&registry, names::IN_FLIGHT, &[label::UPSTREAM])?;
    let waiting = gauges(&registry, names::QUEUE_LENGTH, &[label::UPSTREAM])?;
    let peak = gauges(&registry, names::QUEUE_PEAK, &[label::UPSTREAM])?;
    let refused = counters(&registry, names::QUEUE_REFUSED, &[label::UPSTREAM, label::REASON])?;
    let workers = gauges(&registry, names::WORKERS, &[label::UPSTREAM, label::STATE])?;
    let restarts = counters(&registry, names::WORKER_RESTARTS, &[label::UPSTREAM])?;
    let breakers = gauges(&registry, names::BREAKER_STATE, &[label::UPSTREAM])?;
    for pool in pools {
        let name = pool.upstream.as_str();
        if let Some(state) = pool.breaker {
            breakers.with_label_values(&[name]).set(whole(state));
        }
        in_flight.with_label_values(&[name]).set(whole(pool.in_flight));
        waiting.with_label_values(&[name]).set(whole(pool.waiting));
        peak.with_label_values(&[name]).set(whole(pool.peak));
        for (reason, count) in &pool.refused {
            refused.with_label_values(&[name, *reason]).inc_by(*count);
        }
        for (states, gauges) in [(&pool.endpoints, &endpoints), (&pool.workers, &workers)] {
            for (state, count) in states {
                gauges.with_label_values(&[name, *state]).set(whole(*count));
            }
        }
        if let Some(count) = pool.restarts {
            restarts.with_label_values(&[name]).inc_by(count);
        }
    }
    let sticky = counters(&registry, names::STICKY, &[label::UPSTREAM, label::RESULT])?;
    for pool in pools {
        for (result, count) in &pool.sticky {
            sticky.with_label_values(&[pool.upstream.as_str(), result]).inc_by(*count);
        }
    }
    let limited = counters(&registry, names::RATE_LIMITED, &[label::LIMIT, label::RESULT])?;
    for limit in limits {
        for (result, count) in &limit.requests {
            limited.with_label_values(&[limit.limit.as_str(), result]).inc_by(*count);
        }
    }
    let limited = counters(&registry, names::CONCURRENCY_LIMITED, &[label::LIMIT, label::RESULT])?;
    let in_flight = gauges(&registry, names::CONCURRENCY_IN_FLIGHT, &[label::LIMIT])?;
    for ConcurrencySample { limit, in_flight: under_way, requests } in concurrency {
        in_flight.with_label_values(&[limit]).set(whole(*under_way));
        for (result, count) in requests {
            limited.with_label_values(&[limit.as_str(), result]).inc_by(*count);
        }
    }
    sample_process(&registry)?;
    Ok(registry)
}

fn sample_process(registry: &Registry) -> prometheus::Result<()> {
    let numbers = ProcessNumbers::read();
    for (metric, value) in [
        (names::PROCESS_RSS, numbers.rss_bytes),
        (names::PROCESS_FDS, numbers.open_fds),
        (names::PROCESS_MAX_FDS, numbers.max_fds),
    ] {
        if let Some(value) = value {
            gauge(registry, metric)?.set(whole(value));
        }
    }
    if let Some(start) = numbers.start_time_seconds {
        registered(registry, Gauge::with_opts(names::PROCESS_START.opts())?)?.set(start);
    }
    if let Some(cpu) = numbers.cpu_seconds {
        registered(registry, prometheus::Counter::with_opts(names::PROCESS_CPU.opts())?)?.inc_by(cpu);
    }
    Ok(())
}

pub(super) fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

pub(super) fn counters(registry: &Registry, metric: Metric, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(metric.opts(), labels)?)
}

pub(super) fn gauges(registry: &Registry, metric: Metric, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    registered(registry, IntGaugeVec::new(metric.opts(), labels)?)
}

fn gauge(registry: &Registry, metric: Metric) -> prometheus::Result<IntGauge> {
    registered(registry, IntGauge::with_opts(metric.opts())?)
}

pub(super) fn counter(registry: &Registry, metric: Metric) -> prometheus::Result<IntCounter> {
    registered(registry, IntCounter::with_opts(metric.opts())?)
}

pub(super) fn histograms(
    registry: &Registry,
    metric: Metric,
    labels: &[&str],
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let opts = HistogramOpts::from(metric.opts()).buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(opts, labels)?)
}

fn losses(registry: &Registry, dropped: Metric, errors: Metric) -> prometheus::Result<LossCounters> {
    Ok(LossCounters { dropped_lines: counter(registry, dropped)?, errors: counter(registry, errors)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(site: &str, route: &str, upstream: &str) -> RouteKey {
        RouteKey { site: site.to_owned(), route: route.to_owned(), upstream: upstream.to_owned() }
    }

    fn metrics() -> Metrics {
        Metrics::new("0.1.0").unwrap()
    }

    fn check(text: &str, line: &str) {
        assert!(text.lines().any(|candidate| candidate == line), "no line {line:?} in\n{text}");
    }

    #[test]
    fn a_request_counts_into_its_series() {
        let metrics = metrics();
        let route = metrics.route(&key("api", "/v1/", "app"));
        route.observe(204, Duration::from_millis(3), 5, 7);
        route.observe(503, Duration::from_secs(90), 0, 1);
        route.observe(0, Duration::ZERO, 0, 0);
        route.observe(999, Duration::ZERO, 0, 0);
        metrics.route(&key("api", "/v1/", "app")).observe(200, Duration::ZERO, 0, 0);
        let text = metrics.render(&Samples::default());
        let labels = r#"route="/v1/",site="api",upstream="app""#;
        for (status, count) in [("2xx", 2), ("5xx", 1), ("other", 2), ("4xx", 0)] {
            let labels = format!(r#"route="/v1/",site="api",status="{status}",upstream="app""#);
            check(&text, &format!("tidegate_requests_total{{{labels}}} {count}"));
        }
        let rows = [
            format!(r#"tidegate_request_duration_seconds_bucket{{{labels},le="0.0025"}} 3"#),
            format!(r#"tidegate_request_duration_seconds_bucket{{{labels},le="0.005"}} 4"#),
            format!(r#"tidegate_request_duration_seconds_bucket{{{labels},le="60"}} 4"#),
            format!(r#"tidegate_request_duration_seconds_count{{{labels}}} 5"#),
            format!(r#"tidegate_request_body_bytes_total{{{labels}}} 5"#),
            format!(r#"tidegate_response_body_bytes_total{{{labels}}} 8"#),
        ];
        rows.iter().for_each(|row| check(&text, row));
    }

    #[test]
    fn listeners_upstreams_refusals_and_reloads_count() {
        let metrics = metrics();
        let listener = metrics.listener(":443");
        listener.open.inc();
        listener.refused("per_address");
        listener.handshakes_failed.inc();
        metrics.upstream("app").retried(Reason::Status);
        metrics.upstream("app").denied.inc();
        metrics.upstream("app").hedged(Hedged::NoBudget);
        metrics.refusals("no_endpoint").inc();
        let at = UNIX_EPOCH + Duration::from_secs(1_000);
        metrics.config_applied(1, at);
        metrics.config_applied(2, at);
        metrics.config_refused();
        let text = metrics.render(&Samples::default());
        for line in [
            r#"tidegate_connections_open{listener=":443"} 1"#,
            r#"tidegate_connections_refused_total{listener=":443",reason="per_address"} 1"#,
            r#"tidegate_tls_handshakes_total{listener=":443",result="failed"} 1"#,
            r#"tidegate_tls_handshakes_total{listener=":443",result="full"} 0"#,
            r#"tidegate_upstream_retries_total{reason="status",upstream="app"} 1"#,
            r#"tidegate_upstream_retries_total{reason="closed",upstream="app"} 0"#,
            r#"tidegate_upstream_retries_denied_total{reason="budget",upstream="app"} 1"#,
            r#"tidegate_upstream_hedges_total{result="no_budget",upstream="app"} 1"#,
            r#"tidegate_upstream_hedges_total{result="won",upstream="app"} 0"#,
            r#"tidegate_refusals_total{reason="no_endpoint"} 1"#,
            "tidegate_config_generation 2",
            "tidegate_config_last_reload_successful 0",
            "tidegate_config_last_reload_success_timestamp_seconds 1000",
            r#"tidegate_config_reloads_total{result="applied"} 1"#,
            r#"tidegate_config_reloads_total{result="refused"} 1"#,
            r#"tidegate_build_info{version="0.1.0"} 1"#,
            "# TYPE tidegate_connections_open gauge",
        ] {
            check(&text, line);
        }
    }

    #[test]
    fn pools_and_the_process_are_sampled() {
        let pool = PoolSample {
            upstream: "app".to_owned(),
            in_flight: 3,
            waiting: 2,
            peak: 9,
            refused: vec![("full", 1), ("late", 0)],
            breaker: Some(2),
            endpoints: vec![("ready", 2), ("ejected", 1)],
            workers: vec![("ready", 2), ("starting", 1)],
            restarts: Some(4),
            sticky: vec![("kept", 5)],
        };
        let limit =
            LimitSample { limit: "site a, route /".to_owned(), requests: vec![("delayed", 7), ("rejected", 0)] };
        let pools = [pool, PoolSample { upstream: "static".to_owned(), ..PoolSample::default() }];
        let concurrency = ConcurrencySample {
            limit: "per_user".to_owned(),
            in_flight: 6,
            requests: vec![("rejected", 8), ("dry_run", 0)],
        };
        let (pools, limits, concurrency) = (pools.to_vec(), vec![limit], vec![concurrency]);
        let text = metrics().render(&Samples { pools, limits, concurrency, workers: Vec::new() });
        for line in [
            r#"tidegate_workers{state="starting",upstream="app"} 1"#,
            r#"tidegate_worker_restarts_total{upstream="app"} 4"#,
            r#"tidegate_upstream_endpoints{state="ejected",upstream="app"} 1"#,
            r#"tidegate_upstream_in_flight{upstream="app"} 3"#,
            r#"tidegate_upstream_breaker_state{upstream="app"} 2"#,
            r#"tidegate_upstream_in_flight{upstream="static"} 0"#,
            r#"tidegate_upstream_queue_length{upstream="app"} 2"#,
            r#"tidegate_upstream_queue_peak{upstream="app"} 9"#,
            r#"tidegate_upstream_queue_refused_total{reason="full",upstream="app"} 1"#,
            r#"tidegate_upstream_queue_refused_total{reason="late",upstream="app"} 0"#,
            "# TYPE tidegate_worker_restarts_total counter",
            r#"tidegate_sticky_requests_total{result="kept",upstream="app"} 5"#,
            r#"tidegate_rate_limit_requests_total{limit="site a, route /",result="delayed"} 7"#,
            r#"tidegate_rate_limit_requests_total{limit="site a, route /",result="rejected"} 0"#,
            r#"tidegate_concurrency_limit_in_flight{limit="per_user"} 6"#,
            r#"tidegate_concurrency_limit_requests_total{limit="per_user",result="rejected"} 8"#,
            r#"tidegate_concurrency_limit_requests_total{limit="per_user",result="dry_run"} 0"#,
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            check(&text, line);
        }
        assert!(!text.contains(r#"restarts_total{upstream="static"}"#));
        assert!(text.lines().any(|line| line.starts_with("process_open_fds ")));
    }

    #[test]
    fn names_that_a_reload_drops_disappear_and_others_count_on() {
        let metrics = metrics();
        for name in ["old", "kept"] {
            metrics.route(&key(name, "/", name)).observe(200, Duration::ZERO, 0, 0);
            metrics.upstream(name).opened.inc();
            metrics.listener(name).accepted.inc();
        }
        let draining = metrics.listener("draining");
        draining.open.inc();
        let only = |name: &str| BTreeSet::from([name.to_owned()]);
        let retain = || metrics.retain(&BTreeSet::from([key("kept", "/", "kept")]), &only("kept"), &only("kept"));
        retain();
        let text = metrics.render(&Samples::default());
        assert!(!text.contains("\"old\""), "{text}");
        check(&text, r#"tidegate_connections_open{listener="draining"} 1"#);
        check(&text, r#"tidegate_upstream_connections_opened_total{upstream="kept"} 1"#);
        draining.open.dec();
        retain();
        assert!(!metrics.render(&Samples::default()).contains("draining"));
        metrics.route(&key("kept", "/", "kept")).observe(200, Duration::ZERO, 0, 0);
        let line = r#"tidegate_requests_total{route="/",site="kept",status="2xx",upstream="kept"} 2"#;
        check(&metrics.render(&Samples::default()), line);
    }

    #[test]
    fn odd_names_are_escaped() {
        let metrics = metrics();
        let _ = metrics.upstream("a\"b\\c\nd");
        check(
            &metrics.render(&Samples::default()),
            r#"tidegate_upstream_connections_opened_total{upstream="a\"b\\c\nd"} 0"#,
        );
    }
}
