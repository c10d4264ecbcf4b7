//! How servers are asked whether they are well.

use std::time::Duration;

use super::{keep, route};
use crate::fault::Code;
use crate::model::{Address, CheckKind, HealthCheck, HttpCheck, ServerAddress, StaticServer, UpstreamProtocol};
use crate::pattern::parse_value;
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::Reason;

/// Compiles `health_check` of an upstream.
pub(super) fn health_check(
    raw: raw::HealthCheck,
    protocol: UpstreamProtocol,
    servers: &[StaticServer],
    upstream: Spot<'_>,
    report: &mut Report,
) -> Option<HealthCheck> {
    let spot = upstream.key("health_check");
    if upstream.has("workers") {
        let problem = "workers are watched by who starts them, not by checks";
        report
            .fault(spot.key_span(), Code::Conflict, problem)
            .hint("say when one may get requests: workers: { ready: { http: /healthz } }");
    }
    let raw::HealthCheck { http, grpc, interval, jitter, timeout, rise, fall, port } = raw;
    check_port(port, servers, spot, report);
    Some(HealthCheck {
        kind: kind(http, grpc, protocol, spot, report)?,
        interval: interval.map_or(Duration::from_secs(5), |time| time.0),
        jitter: jitter.map_or(Duration::from_millis(500), |time| time.0),
        timeout: timeout.map_or(Duration::from_secs(2), |time| time.0),
        rise: rise.unwrap_or(2),
        fall: fall.unwrap_or(3),
        port,
    })
}

fn kind(
    http: Option<raw::HttpCheck>,
    grpc: Option<raw::GrpcCheck>,
    protocol: UpstreamProtocol,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<CheckKind> {
    match (http, grpc) {
        (Some(_), Some(_)) => {
            let finding = report.fault(spot.key("grpc").key_span(), Code::Conflict, "a server is asked in one way");
            finding.related(spot.key("http").key_span(), "the other one is here").hint("remove one of both");
            None
        }
        (Some(raw), None) => http_check(raw, spot.key("http"), report).map(CheckKind::Http),
        (None, Some(raw::GrpcCheck { service })) => {
            if protocol != UpstreamProtocol::H2 {
                let problem = "gRPC is spoken over HTTP/2, and these servers are spoken to in HTTP/1.1";
                report
                    .fault(spot.key("grpc").key_span(), Code::Conflict, problem)
                    .hint("write protocol: h2, or use http");
            }
            Some(CheckKind::Grpc { service: service.unwrap_or_default() })
        }
        (None, None) => Some(CheckKind::Connect),
    }
}

fn http_check(raw: raw::HttpCheck, spot: Spot<'_>, report: &mut Report) -> Option<HttpCheck> {
    let raw::HttpCheck { method, path, host, headers, statuses, body } = raw;
    let method = checked(method.as_deref().unwrap_or("GET"), spot.key("method"), report, |text| {
        let token = text.bytes().all(|byte| byte.is_ascii_alphabetic() || b"-_".contains(&byte));
        token.then_some(()).ok_or(("is not a method", "write GET or HEAD"))
    });
    let path = checked(path.as_deref().unwrap_or("/"), spot.key("path"), report, |text| {
        let fits = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        fits.then_some(()).ok_or(("is not a path", "write it as it goes over the wire, from its first \"/\""))
    });
    let host = host.map(|host| {
        checked(&host, spot.key("host"), report, |text| {
            let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
            fits.then_some(()).ok_or(("is not a host", "write a name, with a port where it needs one"))
        })
    });
    let headers = headers.unwrap_or_default().0;
    let count = headers.len();
    let headers: Vec<_> = headers
        .into_iter()
        .filter_map(|(name, value)| route::field(name, value, spot.key("headers"), report))
        .collect();
    let body = match body {
        Some(text) if text.starts_with('~') => Some(keep(parse_value(&text), &text, spot.key("body"), report)?),
        Some(text) => Some(crate::model::ValuePattern::Exact(text)),
        None => None,
    };
    let host = match host {
        Some(host) => Some(host?),
        None => None,
    };
    let statuses = statuses.map_or_else(|| vec![200..=399], |ranges| ranges.into_iter().map(|range| range.0).collect());
    (headers.len() == count).then_some(())?;
    Some(HttpCheck { method: method?, path: path?, host, headers, statuses, body })
}

fn checked(
    text: &str,
    spot: Spot<'_>,
    report: &mut Report,
    check: impl Fn(&str) -> Result<(), (&'static str, &'static str)>,
) -> Option<String> {
    let checked = check(text).map_err(|(problem, hint)| Reason::new(problem, hint));
    keep(checked, text, spot, report).map(|()| text.to_owned())
}

/// The file of a socket has no port.
fn check_port(port: Option<u16>, servers: &[StaticServer], spot: Spot<'_>, report: &mut Report) {
    let portless = |server: &StaticServer| matches!(server.address, ServerAddress::Fixed(Address::Unix(_)));
    if port.is_some() && servers.iter().any(portless) {
        let problem = "a server on a unix socket has no other port";
        report
            .fault(spot.key("port").key_span(), Code::Conflict, problem)
            .hint("remove it, or make two upstreams of it");
    }
}
