//! Which site and route a request belongs to.
//!
//! Built once for a model and never changed. Every leaf route of every site has a dense [`RouteId`], so that
//! metrics are registered before the first request. Host and path are looked up in their canonical form only.

mod condition;
mod policies;
mod prefixes;
mod sites;
mod table;

use std::sync::Arc;
use std::time::Duration;

use tidegate_config::model::{self, Buffer, ErrorPages, FixedResponse, ForwardPath, Model, Retry, SiteTls};

use crate::concurrency::{ConcurrencyLimitId, ConcurrencyLimits};
use crate::head::{HeadView, HttpVersion};
use crate::limit::{LimitUse, Limits};
use crate::refusal::{Refusal, RefusalKind};
use crate::traffic::Identities;
use policies::Policies;
use sites::SiteIndex;
use table::Table;

/// Number of a leaf route, dense over all sites, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// Place of an upstream's pool in [`Traffic::pools`](crate::Traffic): the order of the model's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u32);

/// One leaf route.
#[derive(Debug, Clone)]
pub struct RouteInfo {
    /// Its place in [`Router::routes`].
    pub id: RouteId,
    /// Name of its site.
    pub site: Arc<str>,
    /// Its name; for an inner route the names on the way to it, joined by ` > `.
    pub name: Arc<str>,
    /// Where its requests go, when they go anywhere.
    pub upstream: Option<PoolId>,
    /// Longest request body in bytes.
    pub max_body: u64,
    /// What is held of both bodies.
    pub buffer: Buffer,
    /// Limits that must all admit a request.
    pub limits: Box<[LimitUse]>,
    /// Limits of requests under way that must all admit a request.
    pub concurrency: Box<[ConcurrencyLimitId]>,
    /// When a request is tried again.
    pub retry: Retry,
    /// The longest time to the end of an answer.
    pub deadline: Option<Duration>,
    /// In which form the path is forwarded.
    pub forward_path: ForwardPath,
    /// For its requests that are refused.
    pub error_pages: Arc<ErrorPages>,
    /// What becomes of a request.
    pub action: RouteAction,
    /// `Host` of a forwarded request that came without one (HTTP/1.0): the first exact host of the site.
    pub default_host: Option<Arc<str>>,
}

/// What becomes of a request of a leaf route.
#[derive(Debug, Clone)]
pub enum RouteAction {
    /// Forwarded to an endpoint of this pool.
    Proxy(PoolId),
    /// Answered with this.
    Respond(Arc<FixedResponse>),
}

/// Sites by listener and host, and their routes.
#[derive(Debug)]
pub struct Router {
    listeners: Vec<SiteIndex>,
    policies: Policies,
    sites: Vec<Site>,
    routes: Vec<RouteInfo>,
}

#[derive(Debug)]
struct Site {
    name: Arc<str>,
    tls: Option<SiteTls>,
    error_pages: Arc<ErrorPages>,
    table: Table,
}

impl Router {
    /// Lays out the lookup structures of a model.
    #[must_use]
    pub fn new(model: &Model, identities: &Identities) -> Self {
        let mut layout = Layout { model, routes: Vec::new() };
        let sites = model.sites.iter().map(|site| layout.site(site)).collect();
        let listeners = model.listeners.iter().map(|listener| SiteIndex::new(listener, &model.sites)).collect();
        Self { listeners, policies: Policies::new(model, identities), sites, routes: layout.routes }
    }

    /// All leaf routes; a route's id is its place.
    #[must_use]
    pub fn routes(&self) -> &[RouteInfo] {
        &self.routes
    }

    /// One leaf route.
    #[must_use]
    pub fn info(&self, id: RouteId) -> Option<&RouteInfo> {
        self.routes.get(id.0 as usize)
    }

    /// The route of a request: the site by listener and host, then the route by path and conditions.
    ///
    /// Refused: 404-like when no site has the host and the listener has no default ("misdirected" when the client's
    /// TLS server name was another host), or when the site has no route for the request. Never the first site.
    pub fn route(&self, head: &HeadView<'_>) -> Result<&RouteInfo, Refusal> {
        let site = self.site(head)?;
        site.table.find(head).and_then(|id| self.info(id)).ok_or_else(|| {
            Refusal::new(RefusalKind::NoRoute, format!("site: {}, path: {}", site.name, head.target.path()))
        })
    }

    /// The pages for a request that is refused: those of its route, or of its site where it has none. A request that is no
    /// site's has none.
    #[must_use]
    pub fn error_pages(&self, route: Option<RouteId>, head: &HeadView<'_>) -> Option<&ErrorPages> {
        match route {
            Some(route) => self.info(route).map(|route| &*route.error_pages),
            None => self.site(head).ok().map(|site| &*site.error_pages),
        }
    }

    fn site(&self, head: &HeadView<'_>) -> Result<&Site, Refusal> {
        let place = head.client.listener().0 as usize;
        let listener = self
            .listeners
            .get(place)
            .ok_or_else(|| Refusal::new(RefusalKind::Misdirected, "the listener was removed"))?;
        if head.host.is_none() && head.version > HttpVersion::Http10 {
            return Err(Refusal::bad_request("no host"));
        }
        let found = match head.host {
            Some(host) => listener.by_host(host.name()),
            None => listener.without_host(),
        };
        let found = found.ok_or_else(|| unknown_host(head))?;
        self.policies.check(place, found, head.client.tls(), policies::is_for_host(head))?;
        let site = &self.sites[found];
        self.check_certificate(listener, site, head)?;
        Ok(site)
    }

    /// A connection that was made for another site serves this one only if both present the same certificate (RFC 9110
    /// section 7.4). Names are compared only when they differ, which is rare.
    fn check_certificate(&self, listener: &SiteIndex, site: &Site, head: &HeadView<'_>) -> Result<(), Refusal> {
        let server_name = head.client.tls().and_then(|tls| tls.server_name.as_deref());
        let (Some(name), Some(host)) = (server_name, head.host) else { return Ok(()) };
        let name = name.trim_end_matches('.');
        if name.eq_ignore_ascii_case(host.name()) {
            return Ok(());
        }
        let asked = listener.by_host(&name.to_ascii_lowercase()).map(|place| &self.sites[place]);
        match asked {
            Some(asked) if asked.name != site.name && !same_certificate(&asked.tls, &site.tls) => {
                Err(Refusal::new(RefusalKind::Misdirected, format!("server name: {name}, host: {}", host.name())))
            }
            _ => Ok(()),
        }
    }
}

/// The local CA issues a certificate for each site; files are shared when they are the same files.
fn same_certificate(one: &Option<SiteTls>, other: &Option<SiteTls>) -> bool {
    one == other && *one != Some(SiteTls::Internal)
}

fn unknown_host(head: &HeadView<'_>) -> Refusal {
    let Some(host) = head.host else {
        return Refusal::bad_request("no host, and the listener has no default site");
    };
    let server_name = head.client.tls().and_then(|tls| tls.server_name.as_deref());
    match server_name {
        Some(name) if !name.trim_end_matches('.').eq_ignore_ascii_case(host.name()) => Refusal::new(
            RefusalKind::Misdirected,
            format!("host: {}, server name of the connection: \"{}\"", host.name(), name.escape_debug()),
        ),
        _ => Refusal::new(RefusalKind::UnknownHost, format!("host: {}", host.name())),
    }
}

/// Numbers the routes while the tables are built.
struct Layout<'m> {
    model: &'m Model,
    routes: Vec<RouteInfo>,
}

/// What the routes of one site have in common.
struct SiteContext {
    name: Arc<str>,
    default_host: Option<Arc<str>>,
}

impl Layout<'_> {
    fn site(&mut self, site: &model::Site) -> Site {
        let default_host = site.hosts.iter().find_map(|host| match host {
            model::HostPattern::Exact(name) => Some(Arc::from(name.as_str())),
            _ => None,
        });
        let context = SiteContext { name: Arc::from(site.name.as_str()), default_host };
        let table = self.table(&context, "", &site.routes);
        Site { name: context.name, tls: site.tls.clone(), error_pages: Arc::clone(&site.error_pages), table }
    }

    fn table(&mut self, site: &SiteContext, outer: &str, routes: &[model::Route]) -> Table {
        let mut table = table::Builder::default();
        for route in routes {
            let name = if outer.is_empty() { route.name.clone() } else { format!("{outer} > {}", route.name) };
            let target = match &route.action {
                model::RouteAction::Nested(inner) => table::Target::Nested(Box::new(self.table(site, &name, inner))),
                model::RouteAction::Proxy(upstream) => {
                    table::Target::Leaf(self.leaf(site, &name, route, RouteAction::Proxy(self.pool(upstream))))
                }
                model::RouteAction::Respond(response) => {
                    let action = RouteAction::Respond(Arc::new(response.clone()));
                    table::Target::Leaf(self.leaf(site, &name, route, action))
                }
            };
            table.push(route, target);
        }
        table.build()
    }

    fn leaf(&mut self, site: &SiteContext, name: &str, route: &model::Route, action: RouteAction) -> RouteId {
        let id = RouteId(u32::try_from(self.routes.len()).unwrap_or(u32::MAX));
        let upstream = match &action {
            RouteAction::Proxy(pool) => Some(*pool),
            RouteAction::Respond(_) => None,
        };
        self.routes.push(RouteInfo {
            id,
            site: Arc::clone(&site.name),
            name: Arc::from(name),
            upstream,
            max_body: route.max_body,
            buffer: route.buffer,
            limits: Limits::uses(self.model, &route.rate_limits),
            concurrency: ConcurrencyLimits::uses(self.model, &route.concurrency),
            retry: route.retry,
            deadline: route.deadline,
            forward_path: route.forward_path,
            error_pages: Arc::clone(&route.error_pages),
            action,
            default_host: site.default_host.clone(),
        });
        id
    }

    /// A checked model has the upstream. If one should not, its number names no pool and the exchange says so.
    fn pool(&self, upstream: &str) -> PoolId {
        let place = self.model.upstreams.keys().position(|name| name == upstream);
        PoolId(place.and_then(|place| u32::try_from(place).ok()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests;
