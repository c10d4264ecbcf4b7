//! Names of servers, and how they are resolved.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{each, keep};
use crate::address::{parse_server, parse_service};
use crate::fault::Code;
use crate::model::{Dns, Families, ServerAddress, StaticServer};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;
use crate::units::{Reason, format_duration};

/// The port that name servers listen on.
const PORT: u16 = 53;
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(300);

/// What one mapping says; what it leaves out, another one may say.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    servers: Option<Vec<SocketAddr>>,
    min_ttl: Option<Duration>,
    max_ttl: Option<Duration>,
    timeout: Option<Duration>,
    families: Option<Families>,
    keep_missing: Option<Duration>,
}

/// Compiles one mapping.
pub(super) fn settings(raw: raw::Dns, spot: Spot<'_>, report: &mut Report) -> Settings {
    let raw::Dns { servers, min_ttl, max_ttl, timeout, families, keep_missing } = raw;
    let servers = servers.map(|servers| {
        each(servers, spot.key("servers"), report, |text, spot, report| {
            keep(parse_name_server(&text), &text, spot, report)
        })
    });
    let settings = Settings {
        servers,
        min_ttl: min_ttl.map(|time| time.0),
        max_ttl: max_ttl.map(|time| time.0),
        timeout: timeout.map(|time| time.0),
        families: families.map(Families::from),
        keep_missing: keep_missing.map(|time| time.0),
    };
    check_times(&settings.clone().complete(), spot, report);
    settings
}

/// How the names among `servers` are resolved: as the upstream says, else as the file says. `None` where there is none.
pub(super) fn of_upstream(
    own: Option<raw::Dns>,
    file: &Settings,
    servers: Option<&[StaticServer]>,
    upstream: Spot<'_>,
    report: &mut Report,
) -> Option<Dns> {
    let spot = upstream.key("dns");
    let is_given = own.is_some();
    let own = own.map(|own| settings(own, spot, report)).unwrap_or_default();
    let has_names = servers.is_some_and(|servers| servers.iter().any(|server| server.address.is_name()));
    if !has_names {
        if is_given && !upstream.is_damaged() && (servers.is_some() || upstream.has("workers")) {
            let problem = "no server of this upstream has a name";
            report.fault(spot.key_span(), Code::Conflict, problem).hint("remove dns");
        }
        return None;
    }
    let file = file.clone();
    let dns = Settings {
        servers: own.servers.or(file.servers),
        min_ttl: own.min_ttl.or(file.min_ttl),
        max_ttl: own.max_ttl.or(file.max_ttl),
        timeout: own.timeout.or(file.timeout),
        families: own.families.or(file.families),
        keep_missing: own.keep_missing.or(file.keep_missing),
    };
    let dns = dns.complete();
    if own.min_ttl.is_some() != own.max_ttl.is_some() {
        check_times(&dns, spot, report);
    }
    Some(dns)
}

/// Where a server is: it has an address or the name of a service.
pub(super) fn server(
    address: Option<String>,
    srv: Option<String>,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<ServerAddress> {
    match (address, srv) {
        (Some(text), None) => keep(parse_server(&text), &text, spot.key("address"), report),
        (None, Some(text)) => {
            if spot.has("weight") {
                let problem = "the SRV records say the weight of each server";
                report.fault(spot.key("weight").key_span(), Code::Conflict, problem).hint("remove weight");
            }
            keep(parse_service(&text), &text, spot.key("srv"), report)
        }
        (Some(_), Some(_)) => {
            let problem = "a server has either an address or SRV records that say it";
            let finding = report.fault(spot.key("srv").key_span(), Code::Conflict, problem);
            finding.related(spot.key("address").key_span(), "the address is here").hint("make two servers of it");
            None
        }
        (None, None) => {
            if !spot.has("address") && !spot.has("srv") && !spot.is_damaged() {
                let problem = "a server needs one of the keys \"address\" and \"srv\"";
                let hint = "for example { address: \"127.0.0.1:8000\" }";
                report.fault(spot.span(), Code::MissingKey, problem).hint(hint);
            }
            None
        }
    }
}

impl Settings {
    fn complete(self) -> Dns {
        Dns {
            servers: self.servers.unwrap_or_default(),
            min_ttl: self.min_ttl.unwrap_or(MIN_TTL),
            max_ttl: self.max_ttl.unwrap_or(MAX_TTL),
            timeout: self.timeout,
            families: self.families.unwrap_or(Families::PreferIpv4),
            keep_missing: self.keep_missing,
        }
    }
}

fn check_times(dns: &Dns, spot: Spot<'_>, report: &mut Report) {
    if dns.min_ttl > dns.max_ttl && !spot.is_damaged() {
        let max = format_duration(dns.max_ttl);
        let problem = format!("the shortest time may not be longer than the longest: max_ttl is {max}");
        let key = if spot.has("min_ttl") { "min_ttl" } else { "max_ttl" };
        report.fault(spot.key(key).span(), Code::Conflict, problem).hint("raise max_ttl, or lower min_ttl");
    }
}

fn parse_name_server(text: &str) -> Result<SocketAddr, Reason> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = match bare.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, PORT)),
        Err(_) => text.parse().ok(),
    };
    match address {
        Some(address) if address.port() != 0 && !address.ip().is_unspecified() => Ok(address),
        _ => {
            let hint = "write an IP address, with a port if it is not 53: 10.0.0.2 or \"10.0.0.2:5353\"";
            Err(Reason::new("is not the address of a name server", hint))
        }
    }
}

impl From<raw::Families> for Families {
    fn from(raw: raw::Families) -> Self {
        match raw {
            raw::Families::Both => Self::Both,
            raw::Families::Ipv4 => Self::Ipv4,
            raw::Families::Ipv6 => Self::Ipv6,
            raw::Families::PreferIpv4 => Self::PreferIpv4,
            raw::Families::PreferIpv6 => Self::PreferIpv6,
        }
    }
}
