//! The decision part of a snapshot: routes that never change, and the pools that outlive it.
//!
//! A reload builds a new one beside the old one, which changes nothing that the old one uses; only when the reload is
//! accepted does `commit` bring the shared pools into line with the new model.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_config::model::{
    FixedResponse, Model, Parsing, ProxyHeader, Upstream, UpstreamProtocol, UpstreamTimeouts,
};

use crate::head::TlsPolicyId;
use crate::pool::{EndpointIds, Pool};
use crate::router::{PoolId, Router};

/// Routes and pools of one model.
#[derive(Debug)]
pub struct Traffic {
    /// Which route a request takes.
    pub router: Router,
    /// By [`PoolId`]: in the order of the model's upstreams.
    pub pools: Vec<Arc<Pool>>,
    settings: Vec<PoolSettings>,
    ids: EndpointIds,
    options: Arc<FixedResponse>,
}

/// What the adapters made of the model, by name: things that are equal in the model may differ in the files it names.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    /// TLS policies.
    pub policies: HashMap<String, TlsPolicyId>,
    /// How the endpoints of upstreams are spoken to, where not in plaintext.
    pub transports: HashMap<String, TransportId>,
}

/// How endpoints are spoken to: TLS with one CA, name and certificate has one number, plaintext is 0. Connections of
/// different transports are never taken for one another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransportId(pub u64);

impl TransportId {
    /// Without TLS.
    pub const PLAIN: Self = Self(0);
}

/// What an upstream's attempts go by. Of the snapshot, not of the pool: a request sees one set from start to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// What the endpoints speak.
    pub protocol: UpstreamProtocol,
    /// Deadlines towards an endpoint.
    pub timeouts: UpstreamTimeouts,
    /// How the endpoints are spoken to.
    pub transport: TransportId,
    /// Which header tells the endpoints of the client.
    pub proxy_protocol: Option<ProxyHeader>,
    /// Idle connections kept, for each endpoint and shard.
    pub idle_connections: usize,
    /// How HTTP/1.1 answers are read.
    pub parsing: Parsing,
}

impl Traffic {
    /// Routes and pools for a model. Upstreams that `previous` has by name keep their pools, unchanged for now.
    #[must_use]
    pub fn build(model: &Model, previous: Option<&Self>, identities: &Identities) -> Self {
        let ids = previous.map(|traffic| traffic.ids.clone()).unwrap_or_default();
        let known: HashMap<&str, &Arc<Pool>> =
            previous.into_iter().flat_map(|traffic| &traffic.pools).map(|pool| (pool.name().as_ref(), pool)).collect();
        let pool = |upstream: &Upstream| match known.get(upstream.name.as_str()) {
            Some(pool) => Arc::clone(pool),
            None => Pool::new(ids.clone(), upstream),
        };
        Self {
            router: Router::new(model, identities),
            pools: model.upstreams.values().map(pool).collect(),
            settings: model.upstreams.values().map(|upstream| PoolSettings::of(upstream, identities)).collect(),
            ids,
            options: Arc::new(options_response()),
        }
    }

    /// Brings the pools into line with the model this was built from. Until then a pool that was carried over serves
    /// as its old model says. Running it again changes nothing.
    pub fn commit(&self, model: &Model) {
        for (pool, upstream) in self.pools.iter().zip(model.upstreams.values()) {
            pool.reconfigure(upstream);
        }
    }

    /// The pool of an upstream.
    #[must_use]
    pub fn pool_named(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| pool.name().as_ref() == name)
    }

    /// A pool and what its attempts go by.
    #[must_use]
    pub fn upstream(&self, id: PoolId) -> Option<(&Arc<Pool>, &PoolSettings)> {
        let place = id.0 as usize;
        Some((self.pools.get(place)?, self.settings.get(place)?))
    }

    /// The answer to `OPTIONS *`, which asks about the server and not about a resource (RFC 9110 section 9.3.7).
    pub(crate) fn options_response(&self) -> &Arc<FixedResponse> {
        &self.options
    }
}

impl PoolSettings {
    fn of(upstream: &Upstream, identities: &Identities) -> Self {
        Self {
            protocol: upstream.protocol,
            timeouts: upstream.timeouts,
            idle_connections: upstream.idle_connections,
            proxy_protocol: upstream.proxy_protocol,
            transport: identities.transports.get(&upstream.name).copied().unwrap_or_default(),
            parsing: upstream.parsing,
        }
    }
}

fn options_response() -> FixedResponse {
    let allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    FixedResponse { status: 204, headers: vec![("allow".into(), allow.into())], body: Arc::from([]) }
}

#[cfg(test)]
mod tests;
