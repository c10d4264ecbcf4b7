//! The names a file defines, collected before anything refers to them.

use std::collections::{BTreeSet, HashMap};

use super::named_limits::NamedLimits;
use super::retry::Wishes;
use crate::fault::Code;
use crate::model::{ConcurrencyLimit, DEFAULT_TLS_POLICY, RateLimit};
use crate::raw;
use crate::report::Report;
use crate::source::Span;
use crate::suggest::{did_you_mean, one_of};
use crate::tree::Spot;

/// Where each listener, site and upstream is defined.
pub(crate) struct Names {
    pub(crate) listeners: Vec<ListenerName>,
    sites: Vec<SiteName>,
    upstreams: Vec<(String, Span)>,
    kinds: HashMap<String, EndpointKind>,
    used_upstreams: BTreeSet<String>,
    tls_policies: Vec<(String, Span)>,
    used_tls_policies: BTreeSet<String>,
    pub(super) limits: NamedLimits<RateLimit>,
    pub(super) concurrency: NamedLimits<ConcurrencyLimit>,
    /// What the upstreams say of tries.
    pub(crate) retries: HashMap<String, Wishes>,
    /// Some entries were faulty and are missing here, so that an unknown name is no news.
    listeners_damaged: bool,
    sites_damaged: bool,
    upstreams_damaged: bool,
    tls_policies_damaged: bool,
}

/// What sites need to know of a listener.
pub(crate) struct ListenerName {
    pub(crate) name: String,
    pub(crate) span: Span,
    pub(crate) has_tls: bool,
}

/// What routes need to know of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointKind {
    /// A process that we start.
    Worker,
    /// A fixed address that speaks HTTP/1.1.
    Server,
    /// One that speaks HTTP/2.
    H2,
}

/// What listeners need to know of a site.
struct SiteName {
    name: String,
    span: Span,
    /// `None` is all listeners.
    listeners: Option<Vec<String>>,
}

impl EndpointKind {
    fn of(raw: &raw::Upstream) -> Self {
        match raw.protocol {
            Some(raw::UpstreamProtocol::H2) => Self::H2,
            _ if raw.workers.is_some() => Self::Worker,
            _ => Self::Server,
        }
    }
}

impl Names {
    /// Collects the names and reports those that are defined twice.
    pub(crate) fn collect(
        spot: Spot<'_>,
        listeners: &[raw::Listener],
        sites: &[raw::Site],
        upstreams: &raw::Named<raw::Upstream>,
        tls_policies: &raw::Named<raw::TlsPolicy>,
        report: &mut Report,
    ) -> Self {
        let root_damaged = spot.is_damaged();
        let (listeners_spot, sites_spot, upstreams_spot) =
            (spot.key("listeners"), spot.key("sites"), spot.key("upstreams"));
        let mut names = Self {
            listeners: Vec::new(),
            sites: Vec::new(),
            upstreams: Vec::new(),
            kinds: HashMap::new(),
            used_upstreams: BTreeSet::new(),
            tls_policies: Vec::new(),
            // Used where nothing is said.
            used_tls_policies: BTreeSet::from([DEFAULT_TLS_POLICY.to_owned()]),
            limits: NamedLimits::default(),
            concurrency: NamedLimits::default(),
            retries: HashMap::new(),
            listeners_damaged: root_damaged || listeners_spot.is_damaged(),
            sites_damaged: root_damaged || sites_spot.is_damaged(),
            upstreams_damaged: root_damaged || upstreams_spot.is_damaged(),
            tls_policies_damaged: root_damaged || spot.key("tls_policies").is_damaged(),
        };
        let mut unique = Unique::default();
        for (index, listener) in listeners.iter().enumerate() {
            let spot = listeners_spot.item(index);
            let Some(name) = listener.name.as_ref().or(listener.address.as_ref()) else {
                names.listeners_damaged = true;
                continue;
            };
            let key = if listener.name.is_some() { "name" } else { "address" };
            let span = spot.key(key).span();
            unique.insert("listener", name, span, report);
            names.listeners.push(ListenerName { name: name.clone(), span, has_tls: listener.tls.is_some() });
            // A listener whose `tls` was faulty cannot be told from one without.
            names.listeners_damaged |= spot.is_damaged();
        }
        names.collect_sites(sites, sites_spot, report);
        let entries = upstreams.0.iter().map(|(name, _)| (name.clone(), upstreams_spot.key(name).key_span()));
        names.upstreams = entries.collect();
        names.kinds = upstreams.0.iter().map(|(name, raw)| (name.clone(), EndpointKind::of(raw))).collect();
        let policies_spot = spot.key("tls_policies");
        let entries = tls_policies.0.iter().map(|(name, _)| (name.clone(), policies_spot.key(name).key_span()));
        names.tls_policies = entries.collect();
        names
    }

    fn collect_sites(&mut self, sites: &[raw::Site], sites_spot: Spot<'_>, report: &mut Report) {
        let mut unique = Unique::default();
        for (index, site) in sites.iter().enumerate() {
            let spot = sites_spot.item(index);
            let first_host = site.hosts.iter().flatten().next();
            let Some(name) = site.name.as_ref().or(first_host) else {
                self.sites_damaged = true;
                continue;
            };
            let span = if site.name.is_some() { spot.key("name").span() } else { spot.key("hosts").item(0).span() };
            // Two unnamed sites with one first host: on a common listener the host itself is reported.
            let same_host = site.name.is_none()
                && self
                    .sites
                    .iter()
                    .any(|known| known.name == *name && share_listener(&known.listeners, &site.listeners));
            if !same_host {
                unique.insert("site", name, span, report);
            }
            self.sites.push(SiteName { name: name.clone(), span, listeners: site.listeners.clone() });
        }
    }

    /// The listener of this name; reports when there is none.
    pub(crate) fn listener(&self, name: &str, spot: Spot<'_>, report: &mut Report) -> Option<&ListenerName> {
        let found = self.listeners.iter().find(|listener| listener.name == name);
        if found.is_none() && !self.listeners_damaged {
            let known: Vec<&str> = self.listeners.iter().map(|listener| listener.name.as_str()).collect();
            unknown("listener", name, &known, spot, report);
        }
        found
    }

    /// The names of all listeners, each once.
    pub(crate) fn all_listeners(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for listener in &self.listeners {
            if !names.contains(&listener.name) {
                names.push(listener.name.clone());
            }
        }
        names
    }

    /// Where a listener is defined.
    pub(crate) fn listener_span(&self, name: &str) -> Option<Span> {
        self.listeners.iter().find(|listener| listener.name == name).map(|listener| listener.span)
    }

    /// Whether it is known of every listener if it has TLS.
    pub(crate) const fn knows_all_listeners(&self) -> bool {
        !self.listeners_damaged
    }

    /// Checks that a listener's default site exists and is on it.
    pub(crate) fn check_default_site(&self, site: &str, listener: &str, spot: Spot<'_>, report: &mut Report) {
        match self.sites.iter().find(|known| known.name == site) {
            None if self.sites_damaged => {}
            None => {
                let known: Vec<&str> = self.sites.iter().map(|site| site.name.as_str()).collect();
                unknown("site", site, &known, spot, report);
            }
            Some(SiteName { listeners: Some(on), .. }) if !on.iter().any(|on| on == listener) => {
                let problem = format!("the site \"{site}\" is not on the listener \"{listener}\"");
                let hint = format!("add \"{listener}\" to the listeners of that site");
                report.fault(spot.span(), Code::Conflict, problem).hint(hint);
            }
            Some(_) => {}
        }
    }

    /// Notes that an upstream is used; reports when there is none of this name.
    pub(crate) fn use_upstream(&mut self, name: &str, spot: Spot<'_>, report: &mut Report) -> bool {
        self.used_upstreams.insert(name.to_owned());
        let exists = self.upstreams.iter().any(|(known, _)| known == name);
        if !exists && !self.upstreams_damaged {
            let known: Vec<&str> = self.upstreams.iter().map(|(name, _)| name.as_str()).collect();
            let is_address = name.contains("://") || name.contains(':');
            if is_address {
                let problem = format!("\"{}\" is an address, and a route names an upstream", spot.shown(name));
                let hint = "define it: upstreams: { app: { servers: [{ address: \"127.0.0.1:8000\" }] } }, and write proxy: app";
                report.fault(spot.span(), Code::UnknownName, problem).hint(hint);
            } else {
                unknown("upstream", name, &known, spot, report);
            }
        }
        exists
    }

    /// What the endpoints of an upstream are; `None` when there is none of this name.
    pub(crate) fn endpoint_kind(&self, upstream: &str) -> Option<EndpointKind> {
        self.kinds.get(upstream).copied()
    }

    /// Where a site is defined.
    pub(crate) fn site_span(&self, name: &str) -> Option<Span> {
        self.sites.iter().find(|site| site.name == name).map(|site| site.span)
    }

    /// Notes that a TLS policy is used; reports when there is none of this name.
    pub(crate) fn use_tls_policy(&mut self, name: &str, spot: Spot<'_>, report: &mut Report) {
        self.used_tls_policies.insert(name.to_owned());
        let mut known: Vec<&str> = self.tls_policies.iter().map(|(name, _)| name.as_str()).collect();
        if !known.contains(&DEFAULT_TLS_POLICY) {
            known.push(DEFAULT_TLS_POLICY);
        }
        if !known.contains(&name) && !self.tls_policies_damaged {
            unknown("TLS policy", name, &known, spot, report);
        }
    }

    /// Warns of what is defined and never used.
    pub(crate) fn report_unused(&self, spot: Spot<'_>, report: &mut Report) {
        for (name, span) in self.upstreams.iter().filter(|(name, _)| !self.used_upstreams.contains(name)) {
            let problem = format!("no route uses the upstream \"{name}\"");
            report.warning(*span, Code::Unused, problem).hint("use it in a route (proxy:), or remove it");
        }
        for (name, span) in self.tls_policies.iter().filter(|(name, _)| !self.used_tls_policies.contains(name)) {
            let problem = format!("no listener or site uses the TLS policy \"{name}\"");
            report.warning(*span, Code::Unused, problem).hint("write tls_policy in a site, or remove it");
        }
        self.limits.report_unused(report);
        self.concurrency.report_unused(report);
        if self.sites.is_empty() && !self.sites_damaged {
            let problem = "there are no sites: every request is refused";
            report.warning(spot.key("listeners").key_span(), Code::Unused, problem);
            return;
        }
        let is_used =
            |name: &String| self.sites.iter().any(|site| site.listeners.as_ref().is_none_or(|on| on.contains(name)));
        for ListenerName { name, span, has_tls: _ } in self.listeners.iter().filter(|listener| !is_used(&listener.name))
        {
            let problem = format!("no site is on the listener \"{name}\": it refuses every request");
            report.warning(*span, Code::Unused, problem);
        }
    }
}

fn share_listener(a: &Option<Vec<String>>, b: &Option<Vec<String>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.iter().any(|name| b.contains(name)),
        _ => true,
    }
}

pub(super) fn unknown(kind: &str, name: &str, known: &[&str], spot: Spot<'_>, report: &mut Report) {
    let hint = did_you_mean(name, known.iter().copied()).unwrap_or_else(|| match known {
        [] => format!("no {kind} is defined"),
        known if known.len() <= 12 => format!("defined are {}", one_of(known.iter().copied())),
        known => format!("{} are defined", known.len()),
    });
    let problem = format!("there is no {kind} \"{}\"", spot.shown(name));
    report.fault(spot.span(), Code::UnknownName, problem).hint(hint);
}

/// Finds what stands twice, and where it stood first.
#[derive(Default)]
pub(crate) struct Unique(HashMap<String, Span>);

impl Unique {
    /// Reports a name that was there before.
    pub(crate) fn insert(&mut self, kind: &str, name: &str, span: Span, report: &mut Report) {
        if let Some(&first) = self.0.get(name) {
            report
                .fault(span, Code::Duplicate, format!("a second {kind} is called \"{}\"", crate::walk::shorten(name)))
                .related(first, "the first one is here")
                .hint("give one of them another name");
        } else {
            self.0.insert(name.to_owned(), span);
        }
    }

    /// Where this stood first; notes it when it is new.
    pub(crate) fn first(&mut self, key: String, span: Span) -> Option<Span> {
        match self.0.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => Some(*known.get()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(span);
                None
            }
        }
    }
}
