//! Listeners: addresses, TLS and limits of a client's connection.

use std::time::Duration;

use super::keep;
use super::names::Names;
use crate::address::{Use, overlap, parse_address};
use crate::fault::Code;
use crate::model::{
    Address, BodyRate, ClientTimeouts, DEFAULT_TLS_POLICY, ForwardedHeader, HalfClose, HeadLimits, Http2, Listener,
    Parsing, ProxyProtocol, Transport, TrustedProxies,
};
use crate::network::Networks;
use crate::raw;
use crate::report::Report;
use crate::source::Span;
use crate::tree::Spot;
use crate::units::format_size;

/// Compiles the listeners and compares their addresses.
pub(crate) fn listeners(
    raw: Vec<raw::Listener>,
    spot: Spot<'_>,
    names: &mut Names,
    report: &mut Report,
) -> Vec<Listener> {
    let mut known: Vec<(Address, Span)> = Vec::new();
    super::each(raw, spot, report, |raw, spot, report| {
        let listener = listener(raw, spot, names, report)?;
        let span = spot.key("address").span();
        if let Some((other, first)) = known.iter().find(|(other, _)| overlap(other, &listener.address)) {
            let problem = format!("two listeners share the address {other}");
            let finding = report.fault(span, Code::Duplicate, problem);
            finding.related(*first, "the first one is here").hint("one listener serves any number of sites: keep one");
        }
        known.push((listener.address.clone(), span));
        Some(listener)
    })
}

fn listener(raw: raw::Listener, spot: Spot<'_>, names: &mut Names, report: &mut Report) -> Option<Listener> {
    let raw::Listener {
        name,
        address,
        tls,
        h2c,
        default_site,
        max_connections,
        proxy_protocol,
        trusted_proxies,
        half_close,
        timeouts,
        head_limits,
        http2,
        parsing,
    } = raw;
    let name = name.or_else(|| address.clone());
    if let (Some(site), Some(name)) = (&default_site, &name) {
        names.check_default_site(site, name, spot.key("default_site"), report);
    }
    let policy = tls.as_ref().and_then(|raw::ListenerTls { policy }| policy.clone());
    if let Some(policy) = &policy {
        names.use_tls_policy(policy, spot.key("tls").key("policy"), report);
    }
    let transport = transport(tls.is_some(), h2c, spot, report);
    let proxy_protocol = proxy_protocol.map(|raw| self::proxy_protocol(raw, spot.key("proxy_protocol"), report));
    let trusted_proxies = trusted_proxies.map(|raw| self::trusted_proxies(raw, spot.key("trusted_proxies"), report));
    let half_close = match half_close {
        None | Some(raw::HalfClose::Serve) => HalfClose::Serve,
        Some(raw::HalfClose::Abort) => HalfClose::Abort,
    };
    let timeouts = client_timeouts(timeouts.unwrap_or_default());
    let head_limits = limits(head_limits.unwrap_or_default(), spot.key("head_limits"), report);
    let http2 = http2_limits(http2, transport, spot, report);
    let text = address?;
    let address = keep(parse_address(&text, Use::Listen), &text, spot.key("address"), report)?;
    Some(Listener {
        name: name?,
        address,
        transport: transport?,
        tls_policy: policy.unwrap_or_else(|| DEFAULT_TLS_POLICY.to_owned()),
        default_site,
        max_connections,
        proxy_protocol: all_or_none(proxy_protocol)?,
        trusted_proxies: all_or_none(trusted_proxies)?,
        half_close,
        timeouts,
        head_limits: head_limits?,
        http2: http2?,
        parsing: parsing.map_or(Parsing::Strict, Parsing::from),
    })
}

/// A setting that is absent is fine, one that is faulty is not.
fn all_or_none<T>(setting: Option<Option<T>>) -> Option<Option<T>> {
    match setting {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}

fn proxy_protocol(raw: raw::ProxyProtocol, spot: Spot<'_>, report: &mut Report) -> Option<ProxyProtocol> {
    let raw::ProxyProtocol { from, timeout } = raw;
    let timeout = timeout.map_or(Duration::from_secs(5), |time| time.0);
    Some(ProxyProtocol { from: speakers(from?, "balancers", spot.key("from"), report)?, timeout })
}

fn trusted_proxies(raw: raw::TrustedProxies, spot: Spot<'_>, report: &mut Report) -> Option<TrustedProxies> {
    let raw::TrustedProxies { from, header } = raw;
    let header = match header {
        None | Some(raw::ForwardedHeader::XForwardedFor) => ForwardedHeader::XForwardedFor,
        Some(raw::ForwardedHeader::Forwarded) => ForwardedHeader::Forwarded,
    };
    Some(TrustedProxies { from: speakers(from?, "proxies", spot.key("from"), report)?, header })
}

/// The networks of those who speak for clients; `who` they are, for the operator.
fn speakers(texts: Vec<String>, who: &str, spot: Spot<'_>, report: &mut Report) -> Option<Networks> {
    let networks = networks(texts, spot, report)?;
    if networks.hold_everybody() {
        let problem = "every client is trusted to name its own address";
        report.warning(spot.span(), Code::Suspicious, problem).hint(format!("name the networks of your {who}"));
    }
    Some(networks)
}

pub(super) fn networks(texts: Vec<String>, spot: Spot<'_>, report: &mut Report) -> Option<Networks> {
    let mut networks = Networks::default();
    let mut sound = true;
    for (index, text) in texts.iter().enumerate() {
        sound &= keep(networks.add(text), text, spot.item(index), report).is_some();
    }
    sound.then_some(networks)
}

fn transport(tls: bool, h2c: Option<bool>, spot: Spot<'_>, report: &mut Report) -> Option<Transport> {
    match (tls, h2c) {
        (true, Some(true)) => {
            let problem = "h2c is HTTP/2 without TLS, and this listener has TLS";
            report
                .fault(spot.key("h2c").span(), Code::Conflict, problem)
                .hint("remove h2c: with TLS, HTTP/2 is always on");
            None
        }
        (true, _) => Some(Transport::Tls),
        (false, h2c) => Some(Transport::Plain { h2c: h2c.unwrap_or(false) }),
    }
}

fn client_timeouts(raw: raw::ClientTimeouts) -> ClientTimeouts {
    let raw::ClientTimeouts { handshake, head, idle, body_idle, body_rate, write_idle, tunnel_idle } = raw;
    let or = |time: Option<raw::PositiveTime>, seconds| time.map_or(Duration::from_secs(seconds), |time| time.0);
    ClientTimeouts {
        handshake: or(handshake, 10),
        head: or(head, 10),
        idle: or(idle, 60),
        body_idle: or(body_idle, 30),
        body_rate: self::body_rate(body_rate.unwrap_or_else(|| raw::BodyRate::Least(raw::LeastRate::default()))),
        write_idle: or(write_idle, 30),
        tunnel_idle: or(tunnel_idle, 3600),
    }
}

fn body_rate(raw: raw::BodyRate) -> Option<BodyRate> {
    match raw {
        raw::BodyRate::Word(raw::BodyRateWord::Off) => None,
        raw::BodyRate::Least(raw::LeastRate { rate, over }) => Some(BodyRate {
            rate: rate.map_or(500, |rate| rate.0),
            over: over.map_or(Duration::from_secs(30), |over| over.0),
        }),
    }
}

fn limits(raw: raw::HeadLimits, spot: Spot<'_>, report: &mut Report) -> Option<HeadLimits> {
    let raw::HeadLimits { bytes, fields, target } = raw;
    let target_default = 8 << 10;
    let bytes = within(bytes, 32 << 10, (4 << 10, 1 << 20), spot.key("bytes"), report)?;
    let target_spot = spot.key("target");
    // A small head takes a small target along, unless the file says otherwise.
    let default = if bytes <= target_default { bytes / 2 } else { target_default };
    let target = within(target, default, (256, 64 << 10), target_spot, report)?;
    if target >= bytes {
        let problem = format!("the target ({target} bytes) is part of the head, which has only {bytes} bytes");
        report.fault(target_spot.span(), Code::Conflict, problem).hint("make it smaller, or raise head_limits.bytes");
        return None;
    }
    Some(HeadLimits { bytes, fields: fields.unwrap_or(100), target })
}

fn http2_limits(
    raw: Option<raw::Http2>,
    transport: Option<Transport>,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<Http2> {
    let spot = spot.key("http2");
    if raw.is_some() && transport == Some(Transport::Plain { h2c: false }) {
        let problem = "this listener speaks HTTP/1.1 only";
        report.fault(spot.span(), Code::Conflict, problem).hint("add tls or h2c: true to it, or remove http2");
        return None;
    }
    let raw::Http2 { streams, resets, stream_window, connection_window } = raw.unwrap_or_default();
    let stream_window = within(stream_window, 256 << 10, (16 << 10, 16 << 20), spot.key("stream_window"), report)?;
    let together = spot.key("connection_window");
    let default = (1 << 20).max(4 * stream_window);
    let connection_window = within(connection_window, default, (64 << 10, 64 << 20), together, report)?;
    if connection_window < stream_window {
        let problem = "all streams together have less room than one of them";
        report.fault(together.span(), Code::Conflict, problem).hint("make it at least stream_window");
        return None;
    }
    Some(Http2 {
        streams: streams.unwrap_or(100),
        resets: resets.unwrap_or(100),
        stream_window: u32::try_from(stream_window).ok()?,
        connection_window: u32::try_from(connection_window).ok()?,
    })
}

fn within(
    size: Option<raw::PositiveSize>,
    default: usize,
    (least, most): (u64, u64),
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<usize> {
    let Some(raw::PositiveSize(size)) = size else { return Some(default) };
    if (least..=most).contains(&size) {
        return usize::try_from(size).ok();
    }
    let problem =
        format!("{} is out of range: expected {} to {}", format_size(size), format_size(least), format_size(most));
    report.fault(spot.span(), Code::BadValue, problem);
    None
}

impl From<raw::Parsing> for Parsing {
    fn from(raw: raw::Parsing) -> Self {
        match raw {
            raw::Parsing::Strict => Self::Strict,
            raw::Parsing::Lenient => Self::Lenient,
        }
    }
}
