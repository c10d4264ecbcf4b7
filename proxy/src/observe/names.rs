//! Names of all metrics and log fields, in one place, because dashboards and alerts are built on them.

/// A metric's name and its documentation text.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Name, with its unit at the end.
    pub name: &'static str,
    /// One sentence for the operator.
    pub help: &'static str,
}

impl Metric {
    /// For whoever registers it.
    pub(super) fn opts(self) -> prometheus::Opts {
        prometheus::Opts::new(self.name, self.help)
    }
}

const fn metric(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help }
}

/// `{site, route, upstream, status}`, status as `2xx`
pub const REQUESTS: Metric = metric("tidegate_requests_total", "Requests answered, by status class");
/// `{site, route, upstream}`
pub const REQUEST_DURATION: Metric =
    metric("tidegate_request_duration_seconds", "Time from the request's head to the last byte of its answer");
/// `{site, route, upstream}`
pub const RESPONSE_HEAD: Metric = metric(
    "tidegate_upstream_response_head_seconds",
    "Time from the beginning of the last try to the head of its answer, for HTTP/1.1 endpoints",
);
/// `{site, route, upstream}`
pub const REQUEST_BYTES: Metric = metric("tidegate_request_body_bytes_total", "Bytes of request bodies received");
/// `{site, route, upstream}`
pub const RESPONSE_BYTES: Metric = metric("tidegate_response_body_bytes_total", "Bytes of response bodies sent");
/// `{listener}`
pub const CONNECTIONS_OPEN: Metric = metric("tidegate_connections_open", "Connections of clients that are open");
/// `{listener}`
pub const CONNECTIONS_ACCEPTED: Metric =
    metric("tidegate_connections_accepted_total", "Connections of clients accepted");
/// `{listener, reason}`
pub const CONNECTIONS_REFUSED: Metric =
    metric("tidegate_connections_refused_total", "Connections of clients closed before their first request");
/// `{listener, result}`, result as `ok` or `failed`
pub const TLS_HANDSHAKES: Metric = metric("tidegate_tls_handshakes_total", "TLS handshakes with clients");
/// `{upstream}`
pub const UPSTREAM_OPENED: Metric =
    metric("tidegate_upstream_connections_opened_total", "Connections opened to endpoints");
/// `{upstream}`
pub const UPSTREAM_REUSED: Metric =
    metric("tidegate_upstream_connections_reused_total", "Requests sent on an idle connection");
/// `{upstream}`
pub const UPSTREAM_FAILED: Metric =
    metric("tidegate_upstream_connections_failed_total", "Connections to endpoints that could not be opened");
/// `{upstream, reason}`, reason as `connect`, `stale`, `closed`, `timeout`, `invalid`, `status`, `grpc` or `hedge`
pub const RETRIES: Metric = metric("tidegate_upstream_retries_total", "Requests tried again, by what had happened");
/// `{upstream, reason}`, reason as `budget`
pub const RETRIES_DENIED: Metric = metric(
    "tidegate_upstream_retries_denied_total",
    "Requests that were not tried again although the file asks for it",
);
/// `{upstream, result}`, result as `won`, `lost`, `no_endpoint` or `no_budget`; the last two were not sent
pub const HEDGES: Metric =
    metric("tidegate_upstream_hedges_total", "Requests slow enough for a second endpoint, by what came of that");
/// `{upstream, result}`, result as `resolved`, `missing` or `failed`
pub const RESOLUTIONS: Metric = metric("tidegate_dns_resolutions_total", "Resolutions of names of servers");
/// `{upstream, result}`, result as `passed`, `failed` or `skipped`
pub const CHECKS: Metric = metric("tidegate_upstream_checks_total", "Health checks of endpoints");
/// `{upstream}`
pub const BREAKER_TRIPS: Metric = metric("tidegate_upstream_breaker_trips_total", "How often the breaker opened");
/// `{upstream}`
pub const BREAKER_STATE: Metric =
    metric("tidegate_upstream_breaker_state", "Breaker right now: 0 is closed, 1 half-open, 2 open");
/// `{upstream, reason}`
pub const EJECTIONS: Metric =
    metric("tidegate_upstream_ejections_total", "Endpoints taken out of service for a time, by the last failure");
/// `{reason}`
pub const REFUSALS: Metric = metric("tidegate_refusals_total", "Requests answered by tidegate itself, by reason");
/// `{upstream, result}`, result as `new`, `kept`, `moved` or `unknown`
pub const STICKY: Metric = metric(
    "tidegate_sticky_requests_total",
    "Answers by whether the client's cookie named their endpoint, another one, nobody, or was not there",
);
/// `{limit, result}`, result as `delayed`, `rejected` or `dry_run`
pub const RATE_LIMITED: Metric =
    metric("tidegate_rate_limit_requests_total", "Requests that a rate limit delayed or refused, or would have");
/// `{limit, result}`, result as `rejected` or `dry_run`
pub const CONCURRENCY_LIMITED: Metric =
    metric("tidegate_concurrency_limit_requests_total", "Requests that a concurrency limit refused, or would have");
/// `{limit}`
pub const CONCURRENCY_IN_FLIGHT: Metric =
    metric("tidegate_concurrency_limit_in_flight", "Requests under way that a concurrency limit counts");
/// no labels
pub const ACCESS_LOG_DROPPED: Metric = metric(
    "tidegate_access_log_lines_dropped_total",
    "Access log lines lost because the target was too slow or failed",
);
/// no labels
pub const ACCESS_LOG_ERRORS: Metric =
    metric("tidegate_access_log_write_errors_total", "Failed writes of the access log");
/// no labels
pub const PROGRAM_LOG_DROPPED: Metric = metric(
    "tidegate_program_log_lines_dropped_total",
    "Program log lines lost because standard error was too slow or failed",
);
/// no labels
pub const PROGRAM_LOG_ERRORS: Metric =
    metric("tidegate_program_log_write_errors_total", "Failed writes of the program log");
/// `{upstream, slot}`
pub const WORKER_LOG_DROPPED: Metric = metric(
    "tidegate_worker_log_lines_dropped_total",
    "Lines of workers lost because they came too fast or their log was too slow or failed",
);
/// no labels
pub const WORKER_LOG_ERRORS: Metric =
    metric("tidegate_worker_log_errors_total", "Failed writes, reopens and rotations of logs of workers");
/// no labels
pub const CONFIG_GENERATION: Metric = metric("tidegate_config_generation", "Number of the configuration in use");
/// no labels
pub const CONFIG_LAST_RELOAD_OK: Metric =
    metric("tidegate_config_last_reload_successful", "1 when the last reload was applied, 0 when it was refused");
/// no labels
pub const CONFIG_LAST_RELOAD_TIME: Metric = metric(
    "tidegate_config_last_reload_success_timestamp_seconds",
    "When a configuration was last applied, in seconds since 1970",
);
/// `{result}`, result as `applied` or `refused`
pub const CONFIG_RELOADS: Metric = metric("tidegate_config_reloads_total", "Reloads asked for");
/// no labels
pub const SPOOL_BYTES: Metric = metric("tidegate_spool_bytes", "Bytes of bodies in temporary files right now");
/// no labels
pub const SPOOL_BODIES: Metric = metric("tidegate_spool_bodies_total", "Bodies that needed a temporary file");
/// `{reason}`, as `total`, `disk` or `descriptors`
pub const SPOOL_FALLBACKS: Metric = metric(
    "tidegate_spool_fallbacks_total",
    "Bodies passed on as they came because no temporary file took more of them",
);
/// `{upstream, state}`
pub const WORKERS: Metric = metric("tidegate_workers", "Workers by state");
/// `{upstream}`
pub const WORKER_RESTARTS: Metric = metric("tidegate_worker_restarts_total", "Starts of workers after their first");
/// `{upstream, state}`, state as `starting`, `healthy`, `degraded`, `crashloop`, `empty` or `stopped`
pub const WORKERS_STATE: Metric =
    metric("tidegate_workers_state", "1 for the state of an upstream's workers as a whole");
/// `{upstream}`
pub const WORKERS_TARGET: Metric = metric("tidegate_workers_target", "How many workers there should be");
/// `{upstream}`
pub const WORKERS_READY: Metric = metric("tidegate_workers_ready", "Workers that get requests");
/// `{upstream, slot, state}`
pub const WORKER_STATE: Metric = metric("tidegate_worker_state", "Workers of a slot by state");
/// `{upstream, slot}`
pub const WORKER_GENERATION: Metric =
    metric("tidegate_worker_generation", "Number of the specification that the worker was started from");
/// `{upstream, slot}`
pub const WORKER_START_TIME: Metric =
    metric("tidegate_worker_start_time_seconds", "Start of the worker since 1970 in seconds");
/// `{upstream, slot}`
pub const WORKER_IN_FLIGHT: Metric = metric("tidegate_worker_in_flight", "Requests at workers of the slot right now");
/// `{upstream, slot}`
pub const WORKER_OLDEST: Metric = metric(
    "tidegate_worker_oldest_request_seconds",
    "Age of the oldest request at workers of the slot right now, 0 without any; tunnels are none",
);
/// `{upstream, slot}`
pub const WORKER_ABANDONED: Metric = metric(
    "tidegate_worker_abandoned_places",
    "Places of requests that took too long and were given up, whose handlers may still be at them, right now",
);
/// `{upstream, slot}`
pub const WORKER_MAX_IN_FLIGHT: Metric =
    metric("tidegate_worker_max_in_flight", "Most requests at the worker at a time, where there is a limit");
/// `{upstream, slot}`
pub const WORKER_TUNNELS: Metric =
    metric("tidegate_worker_tunnels", "WebSockets and long streams through workers of the slot right now");
/// `{upstream, slot, state}`, state as `active` or `idle`
pub const WORKER_CONNECTIONS: Metric = metric("tidegate_worker_connections", "Connections to workers of the slot");
/// `{upstream, slot}`
pub const WORKER_RSS: Metric = metric(
    "tidegate_worker_resident_memory_bytes",
    "Resident memory of the slot's workers and of what they started, in bytes",
);
/// `{upstream, slot}`
pub const WORKER_PSS: Metric = metric(
    "tidegate_worker_proportional_memory_bytes",
    "The same with shared pages divided among those that share them, where the kernel tells; looked at once a minute",
);
/// `{upstream, slot}`
pub const WORKER_CPU: Metric = metric(
    "tidegate_worker_cpu_seconds_total",
    "CPU time that the worker and what it started have spent, from 0 for each start",
);
/// `{upstream, slot}`
pub const WORKER_THREADS: Metric =
    metric("tidegate_worker_threads", "Threads of the slot's workers and of what they started");
/// `{upstream, slot}`
pub const WORKER_FDS: Metric =
    metric("tidegate_worker_open_fds", "Open descriptors of the slot's workers and of what they started");
/// `{upstream, slot, result}`, result as `answered`, `failed`, `abandoned`, `cancelled` or `overtaken`
pub const WORKER_REQUESTS: Metric =
    metric("tidegate_worker_requests_total", "Requests that workers of the slot were given, by what became of them");
/// `{upstream, slot, reason}`
pub const WORKER_FAILURES: Metric =
    metric("tidegate_worker_failures_total", "Requests that workers of the slot failed, by what they did");
/// `{upstream, slot}`
pub const WORKER_SERVER_ERRORS: Metric =
    metric("tidegate_worker_server_errors_total", "Answers of workers of the slot with a status of 500 or more");
/// `{upstream, reason}`, reason as `first`, `deploy`, `replace` or `restart`
pub const WORKER_STARTS: Metric = metric("tidegate_worker_starts_total", "Starts of workers, by what they follow");
/// `{upstream, reason}`
pub const WORKER_EXITS: Metric = metric("tidegate_worker_exits_total", "Ends of workers, by reason");
/// `{upstream, reason}`
pub const WORKER_RECYCLES: Metric =
    metric("tidegate_worker_recycles_total", "Workers that left because they had reached a limit, by the limit");
/// `{upstream, reason}`
pub const WORKER_KILLS: Metric =
    metric("tidegate_worker_kills_total", "Workers that were sent SIGKILL, by why they were to end");
/// `{upstream, direction, reason}`, direction as `up` or `down`, reason as `file` or `operator`
pub const WORKER_SCALED: Metric =
    metric("tidegate_worker_scale_events_total", "Changes of the number of workers, by who wanted them");
/// `{upstream, result}`
pub const WORKER_DEPLOYS: Metric = metric("tidegate_worker_deploys_total", "Deploys that ended, by what they came to");
/// `{upstream}`
pub const WORKER_BOOT: Metric =
    metric("tidegate_worker_boot_seconds", "Time from the start of a worker to its first request, warm-up included");
/// `{upstream}`
pub const WORKER_DRAIN: Metric =
    metric("tidegate_worker_drain_seconds", "Time from the last request that a worker was given to its stop signal");
/// `{upstream, state}`
pub const ENDPOINTS: Metric = metric("tidegate_upstream_endpoints", "Endpoints by state");
/// `{upstream}`
pub const IN_FLIGHT: Metric = metric("tidegate_upstream_in_flight", "Requests at endpoints right now");
/// `{upstream}`
pub const QUEUE_LENGTH: Metric =
    metric("tidegate_upstream_queue_length", "Requests that wait for an endpoint right now");
/// `{upstream}`
pub const QUEUE_PEAK: Metric = metric("tidegate_upstream_queue_peak", "Most requests that ever waited at a time");
/// `{upstream}`
pub const QUEUE_WAIT: Metric = metric(
    "tidegate_upstream_queue_wait_seconds",
    "Time that requests waited for an endpoint, those that waited at all",
);
/// `{upstream, reason}`, reason as `full`, `late` or `timeout`
pub const QUEUE_REFUSED: Metric =
    metric("tidegate_upstream_queue_refused_total", "Requests that did not get an endpoint in time, by reason");
/// `{version}`
pub const BUILD: Metric = metric("tidegate_build_info", "1, with the version as label");

// The names every Prometheus client library uses, so that existing dashboards work.
/// no labels
pub const PROCESS_RSS: Metric = metric("process_resident_memory_bytes", "Resident memory size in bytes");
/// no labels
pub const PROCESS_FDS: Metric = metric("process_open_fds", "Number of open file descriptors");
/// no labels
pub const PROCESS_MAX_FDS: Metric = metric("process_max_fds", "Maximum number of open file descriptors");
/// no labels
pub const PROCESS_START: Metric =
    metric("process_start_time_seconds", "Start time of the process since 1970 in seconds");
/// no labels
pub const PROCESS_CPU: Metric = metric("process_cpu_seconds_total", "User and system CPU time spent in seconds");

/// Names of labels.
pub mod label {
    /// Name of a site.
    pub const SITE: &str = "site";
    /// Name of a route.
    pub const ROUTE: &str = "route";
    /// Name of an upstream; empty for an answer of our own.
    pub const UPSTREAM: &str = "upstream";
    /// Status class.
    pub const STATUS: &str = "status";
    /// Name of a listener.
    pub const LISTENER: &str = "listener";
    /// Why.
    pub const REASON: &str = "reason";
    /// How it ended.
    pub const RESULT: &str = "result";
    /// Slot of a worker.
    pub const SLOT: &str = "slot";
    /// Where to.
    pub const DIRECTION: &str = "direction";
    /// State of a worker or endpoint.
    pub const STATE: &str = "state";
    /// Name of a rate limit, or where it stands.
    pub const LIMIT: &str = "limit";
    /// Version of the program.
    pub const VERSION: &str = "version";
}

/// Names of fields in the program log.
pub mod field {
    /// Name of a listener.
    pub const LISTENER: &str = "listener";
    /// Name of a site.
    pub const SITE: &str = "site";
    /// Name of an upstream.
    pub const UPSTREAM: &str = "upstream";
    /// Address of an endpoint.
    pub const ENDPOINT: &str = "endpoint";
    /// Slot of a worker.
    pub const SLOT: &str = "slot";
    /// Process number.
    pub const PID: &str = "pid";
    /// `stdout` or `stderr` of a worker.
    pub const STREAM: &str = "stream";
    /// A line of a worker that is JSON itself.
    pub const JSON: &str = "json";
    /// Number of a configuration, or of a worker's specification.
    pub const GENERATION: &str = "generation";
    /// Id of a request, 32 hexadecimal digits.
    pub const REQUEST_ID: &str = "request_id";
    /// What went wrong, with its causes.
    pub const ERROR: &str = "error";
    /// Why.
    pub const REASON: &str = "reason";
    /// A file.
    pub const PATH: &str = "path";
    /// An address.
    pub const ADDRESS: &str = "address";
    /// Name of a server, as the file has it.
    pub const NAME: &str = "name";
    /// Until the next try.
    pub const NEXT_TRY: &str = "next_try_ms";
    /// Addresses that stay although they were not confirmed.
    pub const KEPT: &str = "kept";
    /// Addresses that are new.
    pub const ADDED: &str = "added";
    /// Addresses that are gone.
    pub const REMOVED: &str = "removed";
    /// A signal by name.
    pub const SIGNAL: &str = "signal";
}
