//! Upstreams: who the endpoints are and how they are spoken to.

use std::time::Duration;

use super::names::Unique;
use super::{
    Scene, balance, breaker, capacity, dns, ejection, file_path, health_check, keep, keep_alive, request_timeout,
    retry as retries, timing, tunnels, worker,
};
use crate::fault::Code;
use crate::model::{
    Address, Balance, Capacity, CertificateFiles, EndpointSource, HostPattern, Parsing, ProxyHeader, ServerAddress,
    StaticServer, Upstream, UpstreamProtocol, UpstreamTimeouts, UpstreamTls,
};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::{Reason, format_duration};

/// Compiles the upstreams, with their names.
pub(crate) fn upstreams(
    raw: raw::Named<raw::Upstream>,
    spot: Spot<'_>,
    file_dns: &dns::Settings,
    scene: &Scene<'_>,
    report: &mut Report,
) -> Vec<(String, Upstream)> {
    let mut upstreams = Vec::new();
    for (name, raw) in raw.0 {
        let spot = spot.key(&name);
        super::check_name(&name, "an upstream", spot, report);
        upstreams.extend(upstream(&name, raw, spot, file_dns, scene, report).map(|upstream| (name, upstream)));
    }
    upstreams
}

fn upstream(
    name: &str,
    raw: raw::Upstream,
    spot: Spot<'_>,
    file_dns: &dns::Settings,
    scene: &Scene<'_>,
    report: &mut Report,
) -> Option<Upstream> {
    let raw::Upstream {
        protocol,
        tls,
        proxy_protocol,
        balance,
        slow_start,
        max_in_flight,
        max_in_flight_per_endpoint,
        max_tunnels,
        stream_after,
        queue,
        servers,
        dns,
        workers,
        timeouts,
        idle_connections,
        parsing,
        ejection,
        health_check,
        retry,
        retry_budget,
        breaker,
        required,
        request_start,
        server_timing,
    } = raw;
    // Of the routes that use it.
    drop(retry);
    let has_workers = spot.has("workers");
    let protocol = protocol.map_or(UpstreamProtocol::Http1, UpstreamProtocol::from);
    let workers_spot = spot.key("workers");
    check_one_cap(spot, report);
    let max_tunnels = tunnels::max_tunnels(max_tunnels, has_workers, spot, report);
    tunnels::check_h2(protocol, spot, report);
    let given = worker::Given { cap: max_in_flight_per_endpoint, max_tunnels };
    let workers = workers.and_then(|raw| worker::workers(raw, given, workers_spot, scene, report));
    let holds_threads = workers.as_ref().is_some_and(|workers| workers.holds_threads);
    let stream_after = tunnels::stream_after(stream_after, has_workers, holds_threads, spot, report);
    let keep_alive = workers.as_ref().and_then(|workers| workers.spec.program.keep_alive);
    let request_times = workers.as_ref().map_or(request_timeout::RequestTimes::NONE, |workers| workers.request_times);
    let idle = keep_alive::idle_default(has_workers, keep_alive);
    let timeouts = upstream_timeouts(timeouts.unwrap_or_default(), idle, request_times, spot.key("timeouts"), report);
    keep_alive::check_idle(keep_alive, timeouts.as_ref(), spot, report);
    check_source(spot, report);
    check_protocol(protocol, spot, report);
    if let Some(timeouts) = &timeouts {
        check_h2(protocol, timeouts, spot, report);
    }
    let tls = match tls {
        Some(tls) => Some(upstream_tls(tls, protocol, spot, report)?),
        None => None,
    };
    let servers = servers.and_then(|servers| static_servers(servers, protocol, spot.key("servers"), report));
    let dns = dns::of_upstream(dns, file_dns, servers.as_deref(), spot, report);
    if let (Some(tls), Some(servers)) = (&tls, &servers) {
        check_server_name(tls, servers, spot, report);
    }
    let (balance, sticky) = match balance {
        Some(balance) => balance::balance(balance, spot.key("balance"), report)?,
        None => (Balance::RoundRobin, None),
    };
    let slow_start = slow_start.map_or(Duration::ZERO, |time| time.0);
    balance::check_slow_start(&balance, slow_start, spot, report);
    let health_check = match health_check {
        Some(raw) => {
            let servers = servers.as_deref().unwrap_or_default();
            Some(health_check::health_check(raw, protocol, servers, spot, report)?)
        }
        None => None,
    };
    let ejection = ejection::ejection(ejection, servers.as_deref().unwrap_or_default(), spot, report);
    let cap = workers.as_ref().and_then(|workers| workers.cap);
    let capacity = capacity::capacity(max_in_flight, max_in_flight_per_endpoint, cap, queue, spot, report);
    let capacity = Capacity { max_tunnels, stream_after, ..capacity };
    let (mut worker_log, mut watch, mut cost) = (None, Vec::new(), false);
    let workers = workers.map(|workers| {
        (worker_log, watch, cost) = (workers.log, workers.watch, workers.cost);
        EndpointSource::Workers(workers.spec)
    });
    let source = servers.map(EndpointSource::Servers).or(workers);
    Some(Upstream {
        name: name.to_owned(),
        protocol,
        tls,
        proxy_protocol: proxy_protocol.map(ProxyHeader::from),
        balance,
        sticky,
        slow_start,
        capacity,
        source: source?,
        dns,
        timeouts: timeouts?,
        idle_connections: idle_connections.unwrap_or(32),
        parsing: parsing.map_or(Parsing::Strict, Parsing::from),
        ejection,
        health_check,
        retry_budget: retries::budget(retry_budget, spot.key("retry_budget"), report),
        breaker: breaker.map(|raw| breaker::breaker(raw, spot.key("breaker"), report)),
        required: required.unwrap_or(true),
        timing: timing::timing(request_start, server_timing, has_workers),
        worker_log,
        watch,
        cost,
    })
}

fn check_source(spot: Spot<'_>, report: &mut Report) {
    if spot.has("servers") && spot.has("workers") {
        let problem = "an upstream has either servers or workers, and this one has both";
        let finding = report.fault(spot.key("workers").key_span(), Code::Conflict, problem);
        finding.related(spot.key("servers").key_span(), "the servers are here").hint("make two upstreams of it");
    } else if !spot.has("servers") && !spot.has("workers") && !spot.is_damaged() {
        let problem = "an upstream needs one of the keys \"servers\" and \"workers\"";
        let hint = "for example servers: [{ address: \"127.0.0.1:8000\" }]";
        report.fault(spot.span(), Code::MissingKey, problem).hint(hint);
    }
}

/// The limit of a worker has two names, for it stands where an operator looks for it.
fn check_one_cap(spot: Spot<'_>, report: &mut Report) {
    let cap = spot.key("workers").key("cap");
    if spot.key("workers").has("cap") && spot.has("max_in_flight_per_endpoint") {
        let problem = "\"cap\" and \"max_in_flight_per_endpoint\" are the same limit";
        let finding = report.fault(cap.key_span(), Code::Conflict, problem);
        let other = spot.key("max_in_flight_per_endpoint").key_span();
        finding.related(other, "the other one is here").hint("remove one of both");
    }
}

fn check_protocol(protocol: UpstreamProtocol, spot: Spot<'_>, report: &mut Report) {
    if protocol == UpstreamProtocol::H2 && spot.has("workers") {
        let problem = "workers are spoken to in HTTP/1.1 in this version";
        report
            .fault(spot.key("protocol").span(), Code::NotAvailable, problem)
            .hint("write protocol: http1, or remove it");
    }
}

/// What the engine behind HTTP/2 endpoints does not tell apart or cannot do is refused, not ignored.
fn check_h2(protocol: UpstreamProtocol, timeouts: &UpstreamTimeouts, spot: Spot<'_>, report: &mut Report) {
    if protocol != UpstreamProtocol::H2 {
        return;
    }
    let times = spot.key("timeouts");
    if timeouts.head != timeouts.read {
        let problem = "towards HTTP/2 endpoints \"head\" and \"read\" are one deadline in this version";
        let key = if times.has("head") { "head" } else { "read" };
        report.fault(times.key(key).span(), Code::Conflict, problem).hint("write both, with the same time");
    }
    if spot.has("proxy_protocol") {
        let problem = "a connection to an HTTP/2 endpoint carries requests of many clients, and the header names one";
        report
            .fault(spot.key("proxy_protocol").key_span(), Code::Conflict, problem)
            .hint("write protocol: http1, or remove it");
    }
    if spot.has("idle_connections") {
        let problem = "idle connections to HTTP/2 endpoints cannot be counted in this version";
        let hint = "remove the key: few connections carry many requests";
        report.fault(spot.key("idle_connections").key_span(), Code::NotAvailable, problem).hint(hint);
    }
    if spot.has("parsing") {
        let problem = "\"parsing\" is about HTTP/1.1 answers, and these endpoints speak HTTP/2";
        let hint = "remove the key: frames have one form";
        report.fault(spot.key("parsing").key_span(), Code::Conflict, problem).hint(hint);
    }
}

fn upstream_tls(
    raw: raw::UpstreamTls,
    protocol: UpstreamProtocol,
    upstream: Spot<'_>,
    report: &mut Report,
) -> Option<UpstreamTls> {
    let raw::UpstreamTls { ca, server_name, verify, certificate, key } = raw;
    let spot = upstream.key("tls");
    if upstream.has("workers") {
        let problem = "workers are on this machine and spoken to without TLS";
        report.fault(spot.key_span(), Code::NotAvailable, problem).hint("remove tls");
    }
    if protocol == UpstreamProtocol::H2 {
        let problem = "towards HTTP/2 endpoints there is no TLS in this version: its engine would read CA and key anew for \
                       each connection";
        report.fault(spot.key_span(), Code::NotAvailable, problem).hint("write protocol: http1, or remove tls");
    }
    let verify = verify.unwrap_or(true);
    if !verify {
        let problem = "certificates of these servers are not verified: anybody in between can be them";
        report
            .warning(spot.key("verify").span(), Code::Suspicious, problem)
            .hint("name their CA instead: tls: { ca: FILE }");
        if ca.is_some() {
            let problem = "this CA is never used: verify is false";
            report.fault(spot.key("ca").span(), Code::Conflict, problem).hint("remove one of both");
        }
    }
    let server_name = match server_name {
        Some(name) => Some(keep(parse_server_name(&name), &name, spot.key("server_name"), report)?),
        None => None,
    };
    let file = |path: String, key: &str| file_path(&path, spot.key(key), report);
    let ca = ca.map(|path| file(path, "ca"));
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            Some(CertificateFiles { certificate: file(certificate, "certificate"), key: file(key, "key") })
        }
        (None, None) => None,
        (certificate, _) => {
            let (has, lacks) = if certificate.is_some() { ("certificate", "key") } else { ("key", "certificate") };
            let problem = format!("\"{has}\" needs \"{lacks}\" beside it");
            report.fault(spot.key(has).key_span(), Code::MissingKey, problem).hint("write both, or none");
            return None;
        }
    };
    Some(UpstreamTls { ca, server_name, verify, identity })
}

/// A DNS name without wildcard, or an IP address.
fn parse_server_name(text: &str) -> Result<String, Reason> {
    match crate::host::parse_host(text)? {
        HostPattern::Exact(name) => Ok(name),
        HostPattern::Wildcard(_) | HostPattern::Any => {
            Err(Reason::new("is not one name", "write the name that the servers' certificate has"))
        }
    }
}

/// The file of a socket is no name that a certificate could have.
fn check_server_name(tls: &UpstreamTls, servers: &[StaticServer], spot: Spot<'_>, report: &mut Report) {
    let nameless = servers.iter().any(|server| matches!(server.address, ServerAddress::Fixed(Address::Unix(_))));
    if nameless && tls.server_name.is_none() {
        let problem = "a server on a unix socket has no address that its certificate could name";
        report.fault(spot.key("tls").span(), Code::MissingKey, problem).hint("write tls: { server_name: NAME }");
    }
}

fn static_servers(
    raw: Vec<raw::StaticServer>,
    protocol: UpstreamProtocol,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<Vec<StaticServer>> {
    let count = raw.len();
    let mut known = Unique::default();
    let servers = super::each(raw, spot, report, |raw, spot, report| {
        let raw::StaticServer { address, srv, weight, backup, priority, max_conns, down, max_fails, fail_timeout } =
            raw;
        let priority = balance::priority(backup, priority, spot, report);
        let address = dns::server(address, srv, spot, report)?;
        let spot = spot.key(if matches!(address, ServerAddress::Service { .. }) { "srv" } else { "address" });
        if let Some(first) = known.first(address.to_string(), spot.span()) {
            let finding = report.fault(spot.span(), Code::Duplicate, format!("the server {address} stands here twice"));
            finding.related(first, "the first one is here").hint("give one entry a higher weight instead");
        }
        if protocol == UpstreamProtocol::H2 && matches!(address, ServerAddress::Fixed(Address::Unix(_))) {
            let reason = Reason::new("cannot be spoken to in HTTP/2", "use an address with a port, or protocol: http1");
            keep::<()>(Err(reason), &address.to_string(), spot, report);
        }
        let down = down.unwrap_or(false);
        let fail_timeout = fail_timeout.map(|time| time.0);
        Some(StaticServer { address, weight: weight.unwrap_or(1), priority, max_conns, down, max_fails, fail_timeout })
    });
    if !servers.is_empty() && servers.iter().all(|server| server.down) {
        let problem = "every server is down: requests to this upstream are refused";
        report.warning(spot.key_span(), Code::Suspicious, problem).hint("remove \"down\" from one of them");
    }
    (servers.len() == count).then_some(servers)
}

fn upstream_timeouts(
    raw: raw::UpstreamTimeouts,
    idle_default: Duration,
    request_times: request_timeout::RequestTimes,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<UpstreamTimeouts> {
    let raw::UpstreamTimeouts { connect, total_connect, head, read, write, idle } = raw;
    let or = |time: Option<raw::PositiveTime>, seconds| time.map_or(Duration::from_secs(seconds), |time| time.0);
    let timeouts = UpstreamTimeouts {
        connect: or(connect, 2),
        total_connect: or(total_connect, 5),
        head: or(head, 60),
        read: or(read, 60),
        write: or(write, 60),
        idle: idle.map_or(idle_default, |time| time.0),
        request: request_times.timeout,
        abandoned_hold: request_times.hold,
    };
    if timeouts.connect > timeouts.total_connect {
        let total = format_duration(timeouts.total_connect);
        let problem = format!("one attempt may not take longer than all together: total_connect is {total}");
        let key = if spot.has("connect") { "connect" } else { "total_connect" };
        report.fault(spot.key(key).span(), Code::Conflict, problem).hint("raise total_connect, or lower connect");
        return None;
    }
    Some(timeouts)
}

impl From<raw::UpstreamProtocol> for UpstreamProtocol {
    fn from(raw: raw::UpstreamProtocol) -> Self {
        match raw {
            raw::UpstreamProtocol::Http1 => Self::Http1,
            raw::UpstreamProtocol::H2 => Self::H2,
        }
    }
}

impl From<raw::ProxyHeader> for ProxyHeader {
    fn from(raw: raw::ProxyHeader) -> Self {
        match raw {
            raw::ProxyHeader::V1 => Self::V1,
            raw::ProxyHeader::V2 => Self::V2,
        }
    }
}
