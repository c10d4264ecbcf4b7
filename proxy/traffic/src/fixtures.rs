//! Models and heads for the tests of this package.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::model::{
    Address, Admin, Backoff, Balance, Buffer, Capacity, ClientTimeouts, ConnectionLimits, DEFAULT_TLS_POLICY, Ejection,
    EndpointSource, FixedResponse, ForwardPath, GrpcCodes, HalfClose, HeadLimits, HostPattern, Http2, Listener,
    LogFormat, LogLevel, Logging, Model, Parsing, PathPattern, Retry, RetryOn, Route, RouteAction, Server, ShardCount,
    Site, SpoolSettings, StaticServer, Statuses, Timing, TlsPolicy, Transport, Upstream, UpstreamProtocol,
    UpstreamTimeouts, WorkerCount, WorkerSpec,
};

use crate::edits::HeadEdits;
use crate::head::{
    BodyLength, Client, Fields, HeadView, HttpVersion, ListenerId, TlsClient, TlsPolicyId, TlsPolicyRef,
};
use crate::host::Host;
use crate::refusal::Refusal;
use crate::target::Target;

/// Fields in their order and spelling, as a driver keeps them.
pub(crate) struct FieldList(Vec<(String, String)>);

pub(crate) fn fields(list: &[(&str, &str)]) -> FieldList {
    FieldList(list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

impl Fields for FieldList {
    fn first(&self, name_lower: &str) -> Option<&[u8]> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(name_lower)).map(|(_, value)| value.as_bytes())
    }

    fn all(&self, name_lower: &str, visit: &mut dyn FnMut(&[u8])) {
        for (name, value) in &self.0 {
            if name.eq_ignore_ascii_case(name_lower) {
                visit(value.as_bytes());
            }
        }
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        self.0.iter().for_each(|(name, value)| visit(name, value.as_bytes()));
    }
}

/// `name=value` of every field of an edited head.
pub(crate) fn rendered(edits: &HeadEdits<'_>, fields: &dyn Fields) -> String {
    let mut out = Vec::new();
    edits.apply(fields, &mut |name, value| out.push(format!("{name}={}", String::from_utf8_lossy(value))));
    out.join(" ")
}

/// A request to be viewed.
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) host: Option<String>,
    pub(crate) version: HttpVersion,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) upgrade: bool,
    pub(crate) body: BodyLength,
    pub(crate) listener: u32,
    pub(crate) server_name: Option<&'static str>,
}

pub(crate) fn get(host: &str, target: &str) -> Request {
    Request {
        method: "GET",
        target: target.to_owned(),
        host: Some(host.to_owned()),
        version: HttpVersion::Http11,
        fields: Vec::new(),
        upgrade: false,
        body: BodyLength::None,
        listener: 0,
        server_name: None,
    }
}

impl Request {
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Shows the head to `look`; a target or host that is refused is the result.
    pub(crate) fn view<T>(&self, look: impl FnOnce(&HeadView<'_>) -> T) -> Result<T, Refusal> {
        let target = Target::parse(&self.target)?;
        let host = self.host.as_deref().map(|host| Host::parse(host.as_bytes())).transpose()?;
        let mut list = self.fields.clone();
        if let Some(host) = self.host.clone().filter(|_| self.version < HttpVersion::Http2) {
            list.insert(0, ("Host".to_owned(), host));
        }
        let list = FieldList(list);
        let tls = self.server_name.map(|name| TlsClient {
            server_name: Some(name.into()),
            policy: default_policy(),
            certificate: None,
            identity: None,
        });
        let client = Client::new(IpAddr::from([192, 0, 2, 7]), 40_000, ListenerId(self.listener), tls);
        Ok(look(&HeadView {
            method: self.method,
            raw_target: &self.target,
            target: &target,
            host: host.as_ref(),
            version: self.version,
            fields: &list,
            upgrade: self.upgrade,
            body: self.body,
            client: &client,
        }))
    }
}

/// The policy of connections that name none.
pub(crate) fn default_policy() -> TlsPolicyRef {
    TlsPolicyRef { id: TlsPolicyId(0), name: Arc::from(DEFAULT_TLS_POLICY) }
}

pub(crate) fn tcp(port: u16) -> Address {
    Address::Tcp(([127, 0, 0, 1], port).into())
}

pub(crate) fn listener(name: &str, default_site: Option<&str>) -> Listener {
    let second = Duration::from_secs(1);
    Listener {
        name: name.to_owned(),
        address: tcp(80),
        transport: Transport::Plain { h2c: false },
        tls_policy: DEFAULT_TLS_POLICY.to_owned(),
        default_site: default_site.map(str::to_owned),
        max_connections: None,
        proxy_protocol: None,
        trusted_proxies: None,
        half_close: HalfClose::Serve,
        timeouts: ClientTimeouts {
            handshake: second,
            head: second,
            idle: second,
            body_idle: second,
            body_rate: None,
            write_idle: second,
            tunnel_idle: second,
        },
        head_limits: HeadLimits { bytes: 1 << 15, fields: 100, target: 1 << 13 },
        http2: Http2 { streams: 100, resets: 100, stream_window: 1 << 18, connection_window: 1 << 20 },
        parsing: Parsing::Strict,
    }
}

/// A site on listener `main`; hosts as in the file.
pub(crate) fn site(name: &str, hosts: &[&str], routes: Vec<Route>) -> Site {
    let pattern = |host: &&str| match host.strip_prefix("*.") {
        _ if *host == "*" => HostPattern::Any,
        Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
        None => HostPattern::Exact((*host).to_owned()),
    };
    Site {
        name: name.to_owned(),
        hosts: hosts.iter().map(pattern).collect(),
        listeners: vec!["main".to_owned()],
        tls: None,
        tls_policy: None,
        error_pages: Arc::default(),
        routes,
    }
}

/// A route by its pattern as in the file (`= /a`, `^~ /a`, `~ regex`, `/a`), which is its name too.
pub(crate) fn route(pattern: &str, action: RouteAction) -> Route {
    let path = match pattern.split_once(' ') {
        Some(("=", path)) => PathPattern::Exact(path.to_owned()),
        Some(("^~", path)) => PathPattern::PrefixStop(path.to_owned()),
        Some(("~", regex)) => PathPattern::Regex(Arc::new(regex::Regex::new(regex).unwrap())),
        _ => PathPattern::Prefix(pattern.to_owned()),
    };
    Route {
        name: pattern.to_owned(),
        path,
        conditions: Vec::new(),
        action,
        max_body: 1 << 20,
        buffer: Buffer { request: 0, response: 0 },
        rate_limits: Vec::new(),
        concurrency: Vec::new(),
        retry: RETRY,
        deadline: None,
        forward_path: ForwardPath::Canonical,
        error_pages: Arc::default(),
    }
}

/// What a file says that says nothing, for servers.
pub(crate) const RETRY: Retry = Retry {
    tries: 2,
    on: RetryOn { connect: true, closed: true, timeout: true, invalid: false, statuses: Statuses::NONE },
    grpc: GrpcCodes::NONE,
    try_timeout: Some(Duration::from_secs(2)),
    hedge: None,
    backoff: Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) },
    start_over: false,
    retry_after: None,
};

pub(crate) fn proxy(upstream: &str) -> RouteAction {
    RouteAction::Proxy(upstream.to_owned())
}

pub(crate) fn respond(body: &str) -> RouteAction {
    RouteAction::Respond(FixedResponse { status: 200, headers: Vec::new(), body: Arc::from(body.as_bytes()) })
}

pub(crate) fn upstream(name: &str, source: EndpointSource) -> Upstream {
    let second = Duration::from_secs(1);
    Upstream {
        name: name.to_owned(),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        proxy_protocol: None,
        balance: Balance::RoundRobin,
        sticky: None,
        slow_start: Duration::ZERO,
        capacity: Capacity::default(),
        source,
        timeouts: UpstreamTimeouts {
            connect: 2 * second,
            total_connect: 5 * second,
            head: 60 * second,
            read: 60 * second,
            write: 60 * second,
            idle: 50 * second,
            request: None,
            abandoned_hold: 30 * second,
        },
        idle_connections: 8,
        dns: None,
        parsing: Parsing::Strict,
        ejection: Some(Ejection::default()),
        health_check: None,
        retry_budget: None,
        breaker: None,
        required: true,
        timing: Timing::default(),
        worker_log: None,
        watch: Vec::new(),
        cost: false,
    }
}

/// Static servers on the given ports, with weights.
pub(crate) fn servers(list: &[(u16, u32)]) -> EndpointSource {
    EndpointSource::Servers(
        list.iter()
            .map(|(port, weight)| StaticServer {
                address: tcp(*port).into(),
                weight: *weight,
                priority: 0,
                max_conns: None,
                down: false,
                max_fails: None,
                fail_timeout: None,
            })
            .collect(),
    )
}

pub(crate) fn worker_spec() -> WorkerSpec {
    WorkerSpec { count: WorkerCount::Fixed(1), ..WorkerSpec::new(vec!["true".to_owned()]) }
}

pub(crate) fn model(sites: Vec<Site>, upstreams: Vec<Upstream>) -> Model {
    let second = Duration::from_secs(1);
    Model {
        listeners: vec![listener("main", None)],
        sites,
        upstreams: upstreams.into_iter().map(|upstream| (upstream.name.clone(), upstream)).collect(),
        tls_policies: BTreeMap::from([(DEFAULT_TLS_POLICY.to_owned(), TlsPolicy::default())]),
        rate_limits: BTreeMap::new(),
        concurrency_limits: BTreeMap::new(),
        admin: Admin { listen: tcp(1), token: None },
        logging: Logging { level: LogLevel::Info, format: LogFormat::Auto, access: None },
        server: Server {
            shards: ShardCount::Auto,
            user: None,
            state_dir: None,
            runtime_dir: None,
            connections: ConnectionLimits { total: None, per_address: 1024, handshakes: 100, fd_reserve: 128 },
            spool: SpoolSettings { dir: None, total: 1 << 30 },
            drain_timeout: second,
            shutdown_timeout: second,
            fail_fast: None,
        },
    }
}
