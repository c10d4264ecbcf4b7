//! Small models for the tests of this folder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::model::*;

const SECOND: Duration = Duration::from_secs(1);

/// A site that answers on the listener `tls`.
pub(crate) fn site(name: &str, hosts: &[&str], tls: SiteTls) -> Site {
    let response = FixedResponse { status: 200, headers: Vec::new(), body: Arc::from(&b""[..]) };
    Site {
        name: name.to_owned(),
        hosts: hosts.iter().map(|host| pattern(host)).collect(),
        listeners: vec!["tls".to_owned()],
        tls: Some(tls),
        tls_policy: None,
        error_pages: Arc::default(),
        routes: vec![Route {
            name: "/".to_owned(),
            path: PathPattern::Prefix("/".to_owned()),
            conditions: Vec::new(),
            action: RouteAction::Respond(response),
            max_body: 0,
            buffer: Buffer { request: 0, response: 0 },
            rate_limits: Vec::new(),
            concurrency: Vec::new(),
            retry: Retry::OFF,
            deadline: None,
            forward_path: ForwardPath::Canonical,
            error_pages: Arc::default(),
        }],
    }
}

fn pattern(host: &str) -> HostPattern {
    match host.strip_prefix("*.") {
        Some(parent) => HostPattern::Wildcard(parent.to_owned()),
        None if host == "*" => HostPattern::Any,
        None => HostPattern::Exact(host.to_owned()),
    }
}

/// One TLS listener named `tls` and these sites.
pub(crate) fn model(sites: Vec<Site>, default_site: Option<&str>) -> Model {
    Model {
        listeners: vec![Listener {
            name: "tls".to_owned(),
            address: Address::Tcp(([127, 0, 0, 1], 0).into()),
            transport: Transport::Tls,
            tls_policy: DEFAULT_TLS_POLICY.to_owned(),
            default_site: default_site.map(str::to_owned),
            max_connections: None,
            proxy_protocol: None,
            trusted_proxies: None,
            half_close: HalfClose::Serve,
            timeouts: ClientTimeouts {
                handshake: SECOND,
                head: SECOND,
                idle: SECOND,
                body_idle: SECOND,
                body_rate: None,
                write_idle: SECOND,
                tunnel_idle: SECOND,
            },
            head_limits: HeadLimits { bytes: 1, fields: 1, target: 1 },
            http2: Http2 { streams: 1, resets: 1, stream_window: 1, connection_window: 1 },
            parsing: Parsing::Strict,
        }],
        sites,
        upstreams: BTreeMap::new(),
        tls_policies: BTreeMap::from([(DEFAULT_TLS_POLICY.to_owned(), TlsPolicy::default())]),
        rate_limits: BTreeMap::new(),
        concurrency_limits: BTreeMap::new(),
        admin: Admin { listen: Address::Unix("/nowhere".into()), token: None },
        logging: Logging { level: LogLevel::Info, format: LogFormat::Text, access: None },
        server: Server {
            shards: ShardCount::Auto,
            user: None,
            state_dir: None,
            runtime_dir: None,
            connections: ConnectionLimits { total: None, per_address: 1, handshakes: 1, fd_reserve: 1 },
            spool: SpoolSettings { dir: None, total: 0 },
            drain_timeout: SECOND,
            shutdown_timeout: SECOND,
            fail_fast: None,
        },
    }
}
