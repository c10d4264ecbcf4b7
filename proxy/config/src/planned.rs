//! Words that people will write although they are not part of this version: planned features, and nginx's words.
//!
//! Each gets a remedy of its own instead of a bare "unknown key". A feature that is built loses its line here.

/// Why a word is not accepted.
pub(crate) enum Refusal {
    /// Planned; the hint says what to do until then.
    NotAvailable(&'static str),
    /// It has another name here.
    Called(&'static str),
}

use Refusal::{Called, NotAvailable};

const LATER: &str = "not available in this version: remove it";

/// What is known about a key that is none, in the mapping of this raw type.
pub(crate) fn key(mapping: &str, key: &str) -> Option<Refusal> {
    Some(match (mapping, key) {
        ("SiteFile", "acme") => NotAvailable(
            "automatic certificates are not available in this version: use tls: internal or tls: { certificate: f, key: f } in the site",
        ),
        ("SiteFile", "limits" | "filters" | "defaults" | "tracing" | "metrics" | "cluster") => NotAvailable(LATER),
        ("SiteFile", "resolver" | "resolvers") => Called("dns"),
        ("SiteFile", "tls" | "tls_policy" | "ssl") => Called("tls_policies"),
        ("SiteFile", "listen" | "entrypoints" | "binds") => Called("listeners"),
        ("SiteFile", "hosts" | "servers" | "vhosts" | "routes") => Called("sites"),
        ("SiteFile", "backends" | "services" | "pools" | "clusters") => Called("upstreams"),
        ("SiteFile", "limit_req_zone" | "rate_limit" | "zones") => Called("rate_limits"),
        ("Site" | "Route", "limit_req" | "rate_limits" | "ratelimit") => Called("rate_limit"),
        ("SiteFile", "limit_conn_zone" | "concurrency" | "concurrency_limit") => Called("concurrency_limits"),
        ("Site" | "Route", "limit_conn" | "max_connections" | "max_conns" | "max_in_flight" | "in_flight")
        | ("Site" | "Route", "concurrency_limit" | "concurrency_limits") => Called("concurrency"),
        ("ConcurrencyLimit", "limit" | "amount" | "limit_conn" | "max_connections" | "max_in_flight") => Called("max"),
        ("ConcurrencyLimit", "zone" | "name") => {
            NotAvailable("a limit with a name stands in concurrency_limits; here write concurrency: NAME")
        }
        ("ConcurrencyLimit", "limit_conn_status" | "code") => Called("status"),
        ("ConcurrencyLimit", "limit_conn_dry_run") => Called("dry_run"),
        ("ConcurrencyLimit", "exempt" | "except" | "whitelist" | "allowlist") => Called("allow"),
        ("ConcurrencyLimit", "by") => Called("key"),
        ("ConcurrencyLimit", "rate" | "burst") => NotAvailable("it stands in rate_limits"),
        ("ConcurrencyLimit", "queue" | "wait" | "redis" | "shared") => NotAvailable(LATER),
        ("RateLimit", "zone" | "limit" | "cost" | "name") => NotAvailable(
            "a limit with a name stands in rate_limits; here write rate_limit: NAME, or rate_limit: [{ limit: NAME, cost: 5 }]",
        ),
        ("RateLimit", "limit_req_status" | "code") => Called("status"),
        ("RateLimit", "average" | "limit_req" | "requests" | "per") => Called("rate"),
        ("RateLimit", "exempt" | "except" | "whitelist" | "allowlist") => Called("allow"),
        ("RateLimit", "size" | "capacity") => Called("entries"),
        ("RateLimit", "by") => Called("key"),
        ("RateLimit", "redis" | "shared" | "deny" | "algorithm") => NotAvailable(LATER),
        ("RateLimitCost", "zone" | "name" | "rate_limit") => Called("limit"),
        ("SiteFile", "log" | "logs" | "access_log") => Called("logging"),
        ("Listener", "kind") => NotAvailable("not available in this version: every listener speaks HTTP, remove it"),
        ("Listener", "http3" | "quic" | "acme" | "protocols") => NotAvailable(LATER),
        ("Listener", "real_ip" | "set_real_ip_from") => Called("trusted_proxies"),
        ("Listener", "listen" | "bind" | "port" | "addr") => Called("address"),
        ("ListenerTls", "certificate" | "key" | "cert") => NotAvailable(
            "a listener has no certificate of its own: put it into its sites, tls: { certificate: f, key: f }",
        ),
        ("ListenerTls", "min_version" | "cipher_suites" | "alpn" | "client_certificates" | "tickets") => {
            NotAvailable("it stands in a policy: tls_policies: { NAME: { ... } }, and here tls: { policy: NAME }")
        }
        ("TlsPolicy", "ciphers" | "ssl_ciphers") => Called("cipher_suites"),
        ("TlsPolicy", "protocols" | "versions" | "ssl_protocols" | "version") => Called("min_version"),
        ("TlsPolicy", "curves" | "groups" | "ecdh_curve") => Called("key_exchange"),
        ("TlsPolicy", "client_auth" | "client_ca" | "mtls") => Called("client_certificates"),
        ("TlsPolicy", "max_version" | "early_data" | "ocsp" | "crl") => NotAvailable(LATER),
        ("ClientCertificates", "crl" | "depth" | "header") => NotAvailable(LATER),
        ("Site", "acme") => NotAvailable(
            "automatic certificates are not available in this version: use tls: internal or tls: { certificate: f, key: f }",
        ),
        ("Site", "files" | "redirect" | "auth" | "headers" | "cors" | "filters") => NotAvailable(LATER),
        ("Site", "server_name" | "server_names" | "host" | "domains" | "domain" | "names") => Called("hosts"),
        ("Site", "locations" | "location") => Called("routes"),
        ("Site" | "Route", "error_page" | "errors") => Called("error_pages"),
        ("Site" | "Route", "client_max_body_size") => Called("max_body"),
        ("Route", "files" | "root" | "alias" | "try_files") => {
            NotAvailable("not available in this version: let the app serve its files, or proxy to a server that does")
        }
        (
            "Route",
            "redirect" | "return" | "rewrite" | "strip_prefix" | "auth" | "basic_auth" | "forward_auth" | "cache"
            | "compress" | "cors" | "request_headers" | "response_headers" | "filters" | "timeouts" | "limits"
            | "allow" | "deny" | "internal",
        ) => NotAvailable(LATER),
        ("Route", "proxy_pass" | "upstream" | "backend") => Called("proxy"),
        ("Route", "location" | "match" | "prefix") => Called("path"),
        ("Site" | "Route", "buffering" | "proxy_buffering" | "proxy_request_buffering") => Called("buffer"),
        ("Upstream" | "Site" | "Route", "retries" | "proxy_next_upstream") => Called("retry"),
        ("Site" | "Route", "retry_budget") => {
            NotAvailable("all routes to an upstream share one budget: write retry_budget there")
        }
        ("Site" | "Route", "timeout" | "request_timeout") => Called("deadline"),
        ("Retry", "attempts" | "max" | "count" | "proxy_next_upstream_tries") => Called("tries"),
        ("Retry", "conditions" | "statuses" | "status" | "when") => Called("on"),
        ("Retry", "per_try_timeout" | "timeout" | "proxy_next_upstream_timeout") => Called("try_timeout"),
        ("Retry", "retry_after") => Called("respect_retry_after"),
        ("Retry", "budget") => NotAvailable("it stands in the upstream: retry_budget: { share: 20%, floor: 10/s }"),
        ("Retry", "hedge_after" | "hedging" | "hedge_on_per_try_timeout") => Called("hedge"),
        ("Retry", "non_idempotent") => {
            NotAvailable("a request that may have had an effect is never sent twice: remove it")
        }
        ("RetryBudget", "percent" | "ratio") => Called("share"),
        ("RetryBudget", "min" | "min_retries") => Called("floor"),
        ("Route", "method") => Called("methods"),
        ("Route", "locations") => Called("routes"),
        ("Upstream", "discovery" | "max_connections") => NotAvailable(LATER),
        ("Upstream", "hash" | "ip_hash" | "least_conn") => {
            NotAvailable("it stands in balance, for example balance: { hash: client_address }")
        }
        ("Upstream", "sticky" | "sticky_cookie" | "affinity" | "session_affinity") => {
            NotAvailable("it stands in balance, for example balance: { sticky: { cookie: NAME } }")
        }
        ("Sticky", "name" | "cookie_name") => Called("cookie"),
        ("Sticky", "key" | "keys" | "secrets" | "secret_file") => Called("secret"),
        ("Sticky", "fallback" | "balance" | "policy") => Called("by"),
        ("Sticky", "expires" | "ttl" | "maxlife" | "maxidle" | "maxage") => Called("max_age"),
        ("Sticky", "samesite") => Called("same_site"),
        ("Sticky", "httponly") => Called("http_only"),
        ("UpstreamTls", "sni" | "name" | "host") => Called("server_name"),
        ("UpstreamTls", "cert") => Called("certificate"),
        ("UpstreamTls", "insecure" | "insecure_skip_verify" | "skip_verify") => Called("verify"),
        ("UpstreamTls", "min_version" | "cipher_suites" | "alpn") => NotAvailable(LATER),
        ("Upstream", "max_conns" | "concurrency" | "cap" | "max_requests_in_flight") => {
            Called("max_in_flight_per_endpoint")
        }
        ("Upstream", "backlog" | "max_pending") => Called("queue"),
        ("Queue", "length" | "max" | "max_length" | "limit") => Called("size"),
        ("Queue", "timeout" | "max_wait") => Called("wait"),
        ("Upstream", "keepalive") => Called("idle_connections"),
        ("Upstream", "policy" | "lb" | "strategy") => Called("balance"),
        ("Upstream", "endpoints" | "targets" | "nodes") => Called("servers"),
        ("Upstream", "resolver" | "resolve") => Called("dns"),
        ("Dns", "nameservers" | "resolvers" | "addresses") => Called("servers"),
        ("Dns", "ttl" | "valid" | "refresh" | "interval") => Called("max_ttl"),
        ("Dns", "family" | "ipv4" | "ipv6" | "prefer" | "resolve_prefer") => Called("families"),
        ("Dns", "hold" | "keep") => Called("keep_missing"),
        ("Dns", "dnssec" | "search" | "ndots" | "tls" | "https") => NotAvailable(LATER),
        ("StaticServer", "service") => Called("srv"),
        ("Upstream", "max_fails" | "fail_timeout") => NotAvailable("it stands in ejection: ejection: { max_fails: 3 }"),
        ("Upstream", "outlier_detection" | "passive" | "passive_health_check") => Called("ejection"),
        ("Upstream", "health" | "healthcheck" | "active_health_check" | "check") => Called("health_check"),
        ("HealthCheck", "path" | "uri" | "statuses" | "status" | "method" | "host" | "headers" | "body") => {
            NotAvailable("it stands in http: health_check: { http: { path: /healthz } }")
        }
        ("HealthCheck", "passes" | "healthy_threshold") => Called("rise"),
        ("HealthCheck", "fails" | "unhealthy_threshold") => Called("fall"),
        ("HealthCheck", "inter") => Called("interval"),
        ("HealthCheck", "tcp" | "type" | "kind") => {
            NotAvailable("write health_check: {} for connections, or add http or grpc")
        }
        ("HttpCheck", "uri" | "url") => Called("path"),
        ("HttpCheck", "status" | "expect" | "match") => Called("statuses"),
        ("Upstream", "circuit_breaker" | "circuit") => Called("breaker"),
        ("EjectionRule", "base_time" | "window" | "time") => Called("fail_timeout"),
        ("EjectionRule", "consecutive_5xx" | "status") => Called("statuses"),
        ("StaticServer", "tls") => NotAvailable(LATER),
        ("StaticServer", "slow_start") => NotAvailable("it stands in the upstream, for all its servers"),
        ("StaticServer", "max_connections" | "maxconn") => Called("max_conns"),
        ("StaticServer", "host" | "name" | "url" | "server" | "addr") => Called("address"),
        ("Workers", "backoff" | "pre_start" | "hooks" | "min" | "max" | "autoscale" | "shell") => NotAvailable(LATER),
        ("Workers", "concurrency" | "max_in_flight" | "max_conns" | "max_in_flight_per_endpoint") => Called("cap"),
        ("Workers", "liveness" | "health_check") => {
            NotAvailable("workers that do not answer are found by hang: hang: { suspect_after: 10s }")
        }
        ("Workers", "watchdog" | "watchdog_sec") => NotAvailable("it stands in hang: hang: { watchdog: 10s }"),
        ("Hang", "watchdog_sec" | "WatchdogSec" | "heartbeat") => Called("watchdog"),
        ("Hang", "timeout" | "after" | "silence") => Called("suspect_after"),
        ("Hang", "probes" | "retries" | "attempts") => Called("tries"),
        ("Workers", "timeout" | "harakiri" | "worker_timeout") => Called("request_timeout"),
        ("Workers", "on_hang" | "suspect_after") => NotAvailable("it stands in hang: hang: { suspect_after: 10s }"),
        ("Hang", "command" | "hook" | "dump") => Called("on_hang"),
        ("Hang", "url" | "uri" | "http") => Called("path"),
        ("Workers", "application" | "target" | "module") => Called("app"),
        ("Workers", "arguments" | "options" | "extra_args") => Called("args"),
        ("Workers", "keepalive" | "keep_alive_timeout" | "timeout_keep_alive") => Called("keep_alive"),
        ("Workers", "server" | "kind" | "type") => Called("preset"),
        ("Workers", "max_requests" | "max_requests_jitter" | "max_lifetime" | "max_rss" | "hard_rss") => {
            NotAvailable("it stands in recycle: recycle: { max_requests: 10000, jitter: 20% }")
        }
        ("Workers", "stable_after" | "max_restarts" | "min_uptime" | "no_restart_codes" | "stop_exit_codes") => {
            NotAvailable("it stands in restart: restart: { stable_after: 30s, no_restart_codes: [3] }")
        }
        ("Restart", "min_uptime" | "startsecs" | "uptime") => Called("stable_after"),
        ("Restart", "max_backoff" | "backoff" | "delay") => Called("max_delay"),
        ("Restart", "max_restarts" | "startretries" | "burst" | "intensity") => Called("failures"),
        ("Restart", "interval" | "period") => Called("window"),
        ("Restart", "stop_exit_codes" | "exitcodes" | "codes") => Called("no_restart_codes"),
        ("Recycle", "max_requests_jitter") => {
            NotAvailable("it is a share of all limits here: write jitter: 10% for 100 of 1000 requests")
        }
        ("Recycle", "requests" | "limit_max_requests") => Called("max_requests"),
        ("Recycle", "lifetime" | "max_age" | "workers_lifetime") => Called("max_lifetime"),
        ("Recycle", "rss" | "memory" | "max_memory" | "memory_limit" | "workers_max_rss") => Called("max_rss"),
        ("Workers", "log" | "logging" | "log_file" | "stdout" | "stderr" | "output") => Called("logs"),
        ("WorkerLogFile", "path" | "to" | "filename") => Called("file"),
        ("WorkerLogFile", "size" | "maxsize" | "max_bytes") => Called("max_size"),
        ("WorkerLogFile", "age" | "max_days" | "interval" | "when") => Called("max_age"),
        ("WorkerLogFile", "count" | "rotate" | "backups" | "max_files" | "retain") => Called("keep"),
        ("WorkerLogFile", "gzip") => Called("compress"),
        ("Workers", "cmd" | "exec" | "argv" | "run") => Called("command"),
        ("Workers", "workers" | "processes" | "replicas" | "instances") => Called("count"),
        ("Workers", "working_dir" | "directory" | "chdir" | "workdir") => Called("cwd"),
        ("Workers", "environment") => Called("env"),
        ("Workers", "env_files" | "environment_file" | "EnvironmentFile" | "dotenv") => Called("env_file"),
        ("Workers", "nice" | "nofile" | "ulimit" | "rlimits" | "oom_score_adj" | "LimitNOFILE") => {
            NotAvailable("it stands in limits: limits: { nofile: 65536, nice: 5 }")
        }
        ("Workers", "reload" | "reload_dirs" | "reload_dir" | "autoreload" | "watch_dirs") => Called("watch"),
        ("Workers", "kill_signal" | "KillSignal" | "stopsignal" | "signal") => Called("stop_signal"),
        ("WorkerLimits", "open_files" | "files" | "LimitNOFILE") => Called("nofile"),
        ("WorkerLimits", "processes" | "LimitNPROC") => Called("nproc"),
        ("WorkerLimits", "as" | "memory" | "vmem" | "LimitAS") => Called("address_space"),
        ("WorkerLimits", "oom_score" | "oom" | "OOMScoreAdjust") => Called("oom_score_adj"),
        ("Workers", "warm_up" | "warmup_requests" | "warmup_paths" | "preheat") => Called("warmup"),
        ("Workers", "graceful_timeout") => Called("drain_timeout"),
        ("Admin", "address" | "bind") => Called("listen"),
        ("Admin", "tls" | "roles" | "dashboard" | "tokens") => NotAvailable(LATER),
        ("AccessLog", "path" | "file") => Called("to"),
        ("AccessLog", "sample" | "fields" | "buffer") => NotAvailable(LATER),
        ("Server", "worker_processes" | "threads") => Called("shards"),
        ("Server", "pid_file" | "reuse_port" | "watch" | "daemon") => NotAvailable(LATER),
        _ => return None,
    })
}

/// What is known about a word that is none, for the raw type of these words.
pub(crate) fn word(words: &str, word: &str) -> Option<&'static str> {
    Some(match (words, word) {
        ("SiteTls", "auto" | "acme" | "letsencrypt") => {
            "automatic certificates are not built yet: use internal or { certificate: f, key: f }"
        }
        ("UpstreamProtocol", "grpc") => "grpc is not available in this version: use h2, which carries it",
        ("UpstreamProtocol", "fastcgi" | "uwsgi" | "scgi" | "https" | "tcp" | "http3") => {
            "not available in this version: use http1 or h2"
        }
        ("UpstreamProtocol", "http" | "http/1.1" | "HTTP/1.1") => "write http1",
        ("UpstreamProtocol", "http2" | "h2c" | "HTTP/2") => "write h2",
        ("Balance", "hash" | "consistent" | "maglev" | "ketama" | "consistent_hash") => {
            "write what requests are told apart by, for example { consistent: client_address }"
        }
        ("Balance", "least_time" | "peak_ewma") => "write ewma",
        ("Balance", "p2c" | "random_two_choices") => "write random_two",
        ("Balance", "first") => "not available in this version: use { consistent: cookie:NAME }",
        ("Balance", "sticky") => "write the name of the cookie, for example { sticky: { cookie: NAME } }",
        ("CipherSuite", weak)
            if ["CBC", "RC4", "3DES", "NULL", "EXPORT", "TLS_RSA_", "DHE_RSA_"]
                .iter()
                .any(|word| weak.contains(word) && !weak.contains("GCM")) =>
        {
            "suites of this kind are not safe and not spoken here"
        }
        ("Balance", "least_connections" | "leastconn" | "least-conn") => "write least_conn",
        ("Balance", "roundrobin" | "rr" | "round-robin" | "weighted") => "write round_robin",
        ("WorkerTransport", "socket_activation" | "systemd" | "inherit") => "write fd",
        ("WorkerTransport", "tcp") => "write port",
        ("StopSignal", "SIGTERM" | "term" | "15") => "write TERM",
        ("StopSignal", "SIGINT" | "int" | "2") => "write INT",
        ("StopSignal", "SIGQUIT" | "quit" | "3") => "write QUIT",
        ("StopSignal", "SIGHUP" | "hup" | "1") => "write HUP",
        ("StopSignal", "SIGKILL" | "KILL" | "9") => {
            "what has not ended `stop_timeout` after its signal is killed anyway: write TERM"
        }
        _ => return None,
    })
}
