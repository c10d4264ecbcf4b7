//! Sites: hosts, the listeners they are on, and certificates.

use std::sync::Arc;

use super::buffer::Wishes;
use super::named_limits::Place;
use super::names::{Names, Unique};
use super::route::{self, Inherited};
use super::{Scene, error_pages, file_path, keep, retry};
use crate::fault::Code;
use crate::host::parse_host;
use crate::model::{ForwardPath, HostPattern, Site, SiteTls};
use crate::raw;
use crate::report::Report;
use crate::tree::Spot;

/// Longest body where nothing is said: nginx's `client_max_body_size`.
const DEFAULT_MAX_BODY: u64 = 1 << 20;

/// Compiles the sites; no two may have the same host on the same listener.
pub(crate) fn sites(
    raw: Vec<raw::Site>,
    spot: Spot<'_>,
    scene: &Scene<'_>,
    names: &mut Names,
    report: &mut Report,
) -> Vec<Site> {
    let mut hosts = Unique::default();
    super::each(raw, spot, report, |raw, spot, report| site(raw, spot, scene, names, &mut hosts, report))
}

fn site(
    raw: raw::Site,
    spot: Spot<'_>,
    scene: &Scene<'_>,
    names: &mut Names,
    known: &mut Unique,
    report: &mut Report,
) -> Option<Site> {
    let raw::Site {
        name,
        hosts,
        listeners,
        tls,
        tls_policy,
        max_body,
        buffer,
        rate_limit,
        concurrency,
        retry,
        deadline,
        error_pages,
        forward_path,
        routes,
    } = raw;
    let name = name.or_else(|| hosts.as_ref()?.first().cloned());
    let hosts_spot = spot.key("hosts");
    let listeners = site_listeners(listeners, spot.key("listeners"), names, report);
    let hosts = hosts.map(|hosts| {
        super::each(hosts, hosts_spot, report, |text, spot, report| {
            let host = keep(parse_host(&text), &text, spot, report)?;
            claim(&host, &listeners, spot, known, report);
            Some(host)
        })
    });
    let tls = certificate(tls, spot, report);
    if let Some(policy) = &tls_policy {
        names.use_tls_policy(policy, spot.key("tls_policy"), report);
    }
    check_tls(&listeners, tls.is_some(), spot, names, report);
    let place = Place::Site(name.as_deref().unwrap_or_default());
    let rate_limits = names.limits.chosen(rate_limit, &place, spot.key("rate_limit"), report);
    let concurrency = names.concurrency.chosen(concurrency, &place, spot.key("concurrency"), report);
    let pages_spot = spot.key("error_pages");
    let error_pages = error_pages::error_pages(&Arc::default(), error_pages, pages_spot, scene, report);
    let inherited = Inherited {
        scene,
        site: name.as_deref().unwrap_or_default(),
        way: None,
        rate_limits: rate_limits.unwrap_or_default(),
        concurrency: concurrency.unwrap_or_default(),
        max_body: max_body.map_or(DEFAULT_MAX_BODY, |size| size.0),
        buffer: Wishes::default().with(buffer, spot.key("buffer")),
        retry: retry::Wishes::default().with(retry, spot.key("retry"), report),
        deadline: retry::deadline(deadline, None, spot.key("deadline"), report),
        error_pages: Arc::clone(&error_pages),
        forward_path: forward_path.map_or(ForwardPath::Canonical, ForwardPath::from),
        outer: None,
    };
    let routes = routes.map(|routes| route::routes(routes, spot.key("routes"), &inherited, names, report));
    Some(Site {
        name: name?,
        hosts: hosts?,
        listeners,
        tls,
        tls_policy: tls_policy.map(String::from),
        error_pages,
        routes: routes?,
    })
}

/// The names of the listeners the site is on; all of them when it names none.
fn site_listeners(named: Option<Vec<String>>, spot: Spot<'_>, names: &Names, report: &mut Report) -> Vec<String> {
    let Some(named) = named else { return names.all_listeners() };
    let mut unique = Unique::default();
    super::each(named, spot, report, |name, spot, report| {
        names.listener(&name, spot, report)?;
        if let Some(first) = unique.first(name.clone(), spot.span()) {
            let finding =
                report.fault(spot.span(), Code::Duplicate, format!("the listener \"{name}\" stands here twice"));
            finding.related(first, "the first one is here").hint("remove one of them");
            return None;
        }
        Some(name)
    })
}

/// Takes a host on each listener, or reports who has it.
fn claim(host: &HostPattern, listeners: &[String], spot: Spot<'_>, known: &mut Unique, report: &mut Report) {
    for listener in listeners {
        let key = format!("{} {listener}", host.to_text());
        if let Some(first) = known.first(key, spot.span()) {
            let problem = format!("the host \"{}\" is taken on the listener \"{listener}\"", host.to_text());
            let finding = report.fault(spot.span(), Code::Duplicate, problem);
            finding
                .related(first, "it is taken here")
                .hint("join the routes of both sites, or put them on different listeners");
            return;
        }
    }
}

fn certificate(tls: Option<Box<raw::SiteTls>>, spot: Spot<'_>, report: &Report) -> Option<SiteTls> {
    let spot = spot.key("tls");
    match *tls? {
        raw::SiteTls::Word(raw::SiteTlsWord::Internal) => Some(SiteTls::Internal),
        raw::SiteTls::Files(raw::SiteTlsFiles { certificate, key }) => Some(SiteTls::Files {
            certificate: file_path(&certificate?, spot.key("certificate"), report),
            key: file_path(&key?, spot.key("key"), report),
        }),
    }
}

/// A certificate is needed exactly where a listener has TLS.
fn check_tls(listeners: &[String], has_certificate: bool, spot: Spot<'_>, names: &Names, report: &mut Report) {
    let mut own = names.listeners.iter().filter(|listener| listeners.contains(&listener.name));
    let with_tls = own.find(|listener| listener.has_tls);
    match with_tls {
        // What was there and faulty is reported already.
        Some(listener)
            if !has_certificate && !spot.is_damaged() && !spot.key("tls").is_damaged() && !spot.has("tls") =>
        {
            let problem =
                format!("this site is on the listener \"{}\", which has TLS, and needs the key \"tls\"", listener.name);
            let finding = report.fault(spot.span(), Code::MissingKey, problem);
            finding.related(listener.span, "the listener is here");
            finding
                .hint("write tls: { certificate: fullchain.pem, key: privkey.pem }, or tls: internal while developing");
        }
        None if spot.has("tls_policy") && names.knows_all_listeners() => {
            let problem = "this policy is never used: none of the site's listeners has TLS";
            let span = spot.key("tls_policy").key_span();
            report.fault(span, Code::Conflict, problem).hint("write tls: {} in the listener, or remove it here");
        }
        None if spot.has("tls") && names.knows_all_listeners() => {
            let problem = "this certificate is never used: none of the site's listeners has TLS";
            let span = spot.key("tls").key_span();
            report.fault(span, Code::Conflict, problem).hint("write tls: {} in the listener, or remove it here");
        }
        _ => {}
    }
}

impl From<raw::ForwardPath> for ForwardPath {
    fn from(raw: raw::ForwardPath) -> Self {
        match raw {
            raw::ForwardPath::Canonical => Self::Canonical,
            raw::ForwardPath::Raw => Self::Raw,
        }
    }
}
