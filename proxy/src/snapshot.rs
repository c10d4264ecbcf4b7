//! The run-time view of one accepted configuration.
//!
//! Built whole beside the old one and swapped in by one function (`plane.rs`); a request takes it once. Pools,
//! listeners and TLS state are shared with the snapshot before it, by identity.

use crate::edge::listener::ListenerKey;
use crate::observe::metrics::{Metrics, RouteKey, RouteMetrics, UpstreamMetrics};
use crate::tls::upstream::{UpstreamTls, UpstreamTlsSet};
use std::sync::Arc;
use tidegate_config::model::Model;
use tidegate_traffic::pool::Pool;
use tidegate_traffic::{ListenerId, RouteId, Traffic};

/// One accepted configuration at run time.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Number of the configuration; 1 is the first.
    pub(crate) generation: u64,
    /// What the file says.
    pub(crate) model: Arc<Model>,
    /// Routes and pools.
    pub(crate) traffic: Traffic,
    listeners: Vec<ListenerKey>,
    routes: Vec<Arc<RouteMetrics>>,
    upstreams: Vec<Arc<UpstreamMetrics>>,
    upstream_tls: Vec<Option<Arc<UpstreamTls>>>,
    unrouted: Arc<RouteMetrics>,
}

impl Snapshot {
    /// `listeners` holds the run-time identity of each of the model's listeners, in the model's order.
    pub(crate) fn new(
        generation: u64,
        model: Arc<Model>,
        traffic: Traffic,
        listeners: Vec<ListenerKey>,
        upstream_tls: &UpstreamTlsSet,
        metrics: &Metrics,
    ) -> Self {
        let routes = route_keys(&traffic).map(|key| metrics.route(&key)).collect();
        let upstream_tls = traffic.pools.iter().map(|pool| upstream_tls.of(pool.name()).cloned()).collect();
        let upstreams = traffic.pools.iter().map(|pool| metrics.upstream(pool.name())).collect();
        Self {
            generation,
            model,
            traffic,
            listeners,
            routes,
            upstreams,
            upstream_tls,
            unrouted: metrics.route(&Self::unrouted_key()),
        }
    }

    /// Which series the routes of this configuration count into.
    pub(crate) fn route_keys(&self) -> impl Iterator<Item = RouteKey> + '_ {
        route_keys(&self.traffic)
    }

    /// The series of requests that met no route.
    pub(crate) fn unrouted_key() -> RouteKey {
        RouteKey { site: String::new(), route: String::new(), upstream: String::new() }
    }

    /// Place of a listener in this configuration; one that is not part of it any more gets a place without sites.
    pub(crate) fn listener_id(&self, key: ListenerKey) -> ListenerId {
        let place = self.listeners.iter().position(|listener| *listener == key).unwrap_or(usize::MAX);
        ListenerId(u32::try_from(place).unwrap_or(u32::MAX))
    }

    /// Counters of a route; those of unrouted requests for `None`.
    pub(crate) fn route_metrics(&self, route: Option<RouteId>) -> &Arc<RouteMetrics> {
        route.and_then(|route| self.routes.get(route.0 as usize)).unwrap_or(&self.unrouted)
    }

    /// Counters of an upstream.
    pub(crate) fn upstream_metrics(&self, pool: &Arc<Pool>) -> Option<&Arc<UpstreamMetrics>> {
        let place = self.traffic.pools.iter().position(|known| Arc::ptr_eq(known, pool))?;
        self.upstreams.get(place)
    }

    /// As [`Self::upstream_tls`], for whoever outlives the snapshot.
    pub(crate) fn shared_upstream_tls(&self, pool: &Arc<Pool>) -> Option<Arc<UpstreamTls>> {
        let place = self.traffic.pools.iter().position(|known| Arc::ptr_eq(known, pool))?;
        self.upstream_tls.get(place)?.clone()
    }

    /// TLS with the endpoints of an upstream; `None` is plaintext.
    pub(crate) fn upstream_tls(&self, pool: &Arc<Pool>) -> Option<&UpstreamTls> {
        let place = self.traffic.pools.iter().position(|known| Arc::ptr_eq(known, pool))?;
        self.upstream_tls.get(place)?.as_deref()
    }
}

fn route_keys(traffic: &Traffic) -> impl Iterator<Item = RouteKey> + '_ {
    traffic.router.routes().iter().map(|route| {
        let upstream = route.upstream.and_then(|id| traffic.upstream(id)).map(|(pool, _)| pool.name().to_string());
        RouteKey { site: route.site.to_string(), route: route.name.to_string(), upstream: upstream.unwrap_or_default() }
    })
}
