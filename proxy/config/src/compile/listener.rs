//! Listeners: addresses, TLS and limits of a client's connection.

use std::time::Duration;

use super::keep;
use super::names::Names;
use crate::address::{Use, overlap, parse_address};
use crate::fault::Code;
use crate::model::{Address, ClientTimeouts, HeadLimits, Listener, Transport};
use crate::raw;
use crate::report::Report;
use crate::source::Span;
use crate::tree::Spot;
use crate::units::format_size;

/// Compiles the listeners and compares their addresses.
pub(crate) fn listeners(raw: Vec<raw::Listener>, spot: Spot<'_>, names: &Names, report: &mut Report) -> Vec<Listener> {
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

fn listener(raw: raw::Listener, spot: Spot<'_>, names: &Names, report: &mut Report) -> Option<Listener> {
    let raw::Listener { name, address, tls, h2c, default_site, timeouts, head_limits } = raw;
    let name = name.or_else(|| address.clone());
    if let (Some(site), Some(name)) = (&default_site, &name) {
        names.check_default_site(site, name, spot.key("default_site"), report);
    }
    let transport = transport(tls, h2c, spot, report);
    let timeouts = client_timeouts(timeouts.unwrap_or_default());
    let head_limits = limits(head_limits.unwrap_or_default(), spot.key("head_limits"), report);
    let text = address?;
    let address = keep(parse_address(&text, Use::Listen), &text, spot.key("address"), report)?;
    Some(Listener { name: name?, address, transport: transport?, default_site, timeouts, head_limits: head_limits? })
}

fn transport(
    tls: Option<raw::ListenerTls>,
    h2c: Option<bool>,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<Transport> {
    match (tls, h2c) {
        (Some(raw::ListenerTls {}), Some(true)) => {
            let problem = "h2c is HTTP/2 without TLS, and this listener has TLS";
            report
                .fault(spot.key("h2c").span(), Code::Conflict, problem)
                .hint("remove h2c: with TLS, HTTP/2 is always on");
            None
        }
        (Some(raw::ListenerTls {}), _) => Some(Transport::Tls),
        (None, h2c) => Some(Transport::Plain { h2c: h2c.unwrap_or(false) }),
    }
}

fn client_timeouts(raw: raw::ClientTimeouts) -> ClientTimeouts {
    let raw::ClientTimeouts { handshake, head, idle, body_idle, write_idle, tunnel_idle } = raw;
    let or = |time: Option<raw::PositiveTime>, seconds| time.map_or(Duration::from_secs(seconds), |time| time.0);
    ClientTimeouts {
        handshake: or(handshake, 10),
        head: or(head, 10),
        idle: or(idle, 60),
        body_idle: or(body_idle, 30),
        write_idle: or(write_idle, 30),
        tunnel_idle: or(tunnel_idle, 3600),
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
