//! The decision part of a snapshot: routes that never change, and the pools that outlive it.
//!
//! A reload builds a new one beside the old one, which changes nothing that the old one uses; only when the reload is
//! accepted does `commit` bring the shared pools into line with the new model.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_config::model::{
    Balance, EndpointSource, FixedResponse, Model, Parsing, ProxyHeader, Timing, Upstream, UpstreamProtocol,
    UpstreamTimeouts,
};

use crate::concurrency::ConcurrencyLimits;
use crate::head::TlsPolicyId;
use crate::limit::Limits;
use crate::pool::charges::{Column, Columns};
use crate::pool::sticky::Seals;
use crate::pool::transition::Observer;
use crate::pool::{EndpointIds, Pool};
use crate::router::{PoolId, RouteId, Router};
use crate::sticky_cookie::{Stickiness, StickyCookie};

/// Routes and pools of one model.
#[derive(Debug)]
pub struct Traffic {
    /// Which route a request takes.
    pub router: Router,
    /// By [`PoolId`]: in the order of the model's upstreams.
    pub pools: Vec<Arc<Pool>>,
    /// How often routes may be asked for.
    pub limits: Limits,
    /// How many requests to routes may be under way.
    pub concurrency: ConcurrencyLimits,
    settings: Vec<PoolSettings>,
    balances: Vec<Balance>,
    sticky: Vec<Option<Stickiness>>,
    /// By [`PoolId`], of pools whose requests are counted by route.
    columns: Vec<Option<Arc<Columns>>>,
    /// By [`RouteId`].
    column_of: Vec<Option<Column>>,
    /// Guards pools that take the place of others of their name, until `commit` has told them; no request takes it.
    successions: Mutex<Vec<Succession>>,
    ids: EndpointIds,
    options: Arc<FixedResponse>,
}

/// A pool of workers that takes another one's place.
#[derive(Debug)]
struct Succession {
    old: Arc<Pool>,
    new: Arc<Pool>,
}

/// What the adapters made of the model, by name: things that are equal in the model may differ in the files it names.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    /// TLS policies.
    pub policies: HashMap<String, TlsPolicyId>,
    /// How the endpoints of upstreams are spoken to, where not in plaintext.
    pub transports: HashMap<String, TransportId>,
    /// Who hears of changes of the service of pools.
    pub observer: Option<Observer>,
    /// What endpoints are named with, for upstreams whose clients stay with them.
    pub seals: HashMap<String, Seals>,
    /// What keys of limits are hashed with; that of the first snapshot stays.
    pub secret: RandomState,
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
    /// Whether the balance goes by the times of answers.
    pub timed: bool,
    /// What endpoints and clients are told of times.
    pub timing: Timing,
    /// An answer that streams for longer counts as a tunnel.
    pub stream_after: Option<Duration>,
}

impl Traffic {
    /// Routes and pools for a model. Upstreams that `previous` has by name keep their pools, unchanged for now, as long
    /// as their endpoints are spoken to in the same way: a request that has taken its settings from `previous` must
    /// never meet an endpoint that is spoken to in another one.
    #[must_use]
    pub fn build(model: &Model, previous: Option<&Self>, identities: &Identities) -> Self {
        let ids = previous.map(|traffic| traffic.ids.clone()).unwrap_or_default();
        let known: HashMap<&str, (&Arc<Pool>, &PoolSettings)> =
            previous.into_iter().flat_map(Self::pools_by_name).collect();
        let mut successions = Vec::new();
        let mut all_sticky = Vec::new();
        let (mut pools, mut all_settings) = (Vec::new(), Vec::new());
        for upstream in model.upstreams.values() {
            let settings = PoolSettings::of(upstream, identities);
            pools.push(match known.get(upstream.name.as_str()) {
                Some((pool, before)) if settings.speaks_like(before) => Arc::clone(pool),
                Some((old, _)) if matches!(upstream.source, EndpointSource::Workers(_)) => {
                    let new = old.after(upstream);
                    successions.push(Succession { old: Arc::clone(old), new: Arc::clone(&new) });
                    new
                }
                Some(_) | None => Pool::new(ids.clone(), upstream),
            });
            all_settings.push(settings);
            let seals = identities.seals.get(&upstream.name);
            all_sticky.push(upstream.sticky.as_ref().zip(seals).map(|(sticky, seals)| Stickiness {
                cookie: Arc::new(StickyCookie::new(sticky)),
                seals: Arc::clone(seals),
            }));
        }
        if let Some(observer) = &identities.observer {
            pools.iter().for_each(|pool: &Arc<Pool>| pool.observe(observer.clone()));
        }
        let router = Router::new(model, identities);
        let columns = columns(model, &router, previous);
        let column_of = router.routes().iter().map(|route| {
            let columns = columns.get(route.upstream?.0 as usize)?.as_ref()?;
            Some(columns.of(&(Arc::clone(&route.site), Arc::clone(&route.name))))
        });
        Self {
            column_of: column_of.collect(),
            columns,
            router,
            pools,
            limits: Limits::new(model, previous.map(|traffic| &traffic.limits), &identities.secret),
            concurrency: ConcurrencyLimits::new(
                model,
                previous.map(|traffic| &traffic.concurrency),
                &identities.secret,
            ),
            settings: all_settings,
            balances: model.upstreams.values().map(|upstream| upstream.balance.clone()).collect(),
            sticky: all_sticky,
            successions: Mutex::new(successions),
            ids,
            options: Arc::new(options_response()),
        }
    }

    /// Brings the pools into line with the model this was built from. Until then a pool that was carried over serves
    /// as its old model says. Running it again changes nothing.
    pub fn commit(&self, model: &Model) {
        let successions = std::mem::take(&mut *self.successions.lock().unwrap_or_else(PoisonError::into_inner));
        for Succession { old, new } in successions {
            new.succeed(&old);
        }
        for ((pool, upstream), sticky) in self.pools.iter().zip(model.upstreams.values()).zip(&self.sticky) {
            pool.reconfigure(upstream);
            pool.name_by(sticky.as_ref().map(|sticky| &sticky.seals));
        }
        for (pool, columns) in self.pools.iter().zip(&self.columns) {
            pool.count_in(columns.clone());
        }
    }

    fn pools_by_name(&self) -> impl Iterator<Item = (&str, (&Arc<Pool>, &PoolSettings))> {
        self.pools.iter().zip(&self.settings).map(|(pool, settings)| (pool.name().as_ref(), (pool, settings)))
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

    /// Where requests of a route are counted, if somebody wants to know what they cost.
    pub(crate) fn column(&self, route: RouteId) -> Option<Column> {
        *self.column_of.get(route.0 as usize)?
    }

    /// How an upstream of this snapshot chooses its endpoints; without one in turn.
    pub(crate) fn balance(&self, id: PoolId) -> &Balance {
        self.balances.get(id.0 as usize).unwrap_or(&Balance::RoundRobin)
    }

    /// The cookie by which an upstream's clients stay with an endpoint, if they do.
    pub(crate) fn sticky_cookie(&self, id: PoolId) -> Option<&Arc<StickyCookie>> {
        Some(&self.sticky.get(id.0 as usize)?.as_ref()?.cookie)
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
            timed: upstream.balance == Balance::Ewma,
            timing: upstream.timing,
            stream_after: upstream.capacity.stream_after,
        }
    }

    /// Whether a connection made by these settings is one as the others want it.
    fn speaks_like(&self, other: &Self) -> bool {
        let how = |settings: &Self| (settings.protocol, settings.transport, settings.proxy_protocol);
        how(self) == how(other)
    }
}

/// Where requests are counted, by [`PoolId`]. A route keeps its column of the snapshot before.
fn columns(model: &Model, router: &Router, previous: Option<&Traffic>) -> Vec<Option<Arc<Columns>>> {
    let before = |name: &str| {
        let previous = previous?;
        let place = previous.pools.iter().position(|pool| pool.name().as_ref() == name)?;
        previous.columns.get(place)?.as_deref()
    };
    let of = |(place, upstream): (usize, &Upstream)| {
        let own = router.routes().iter().filter(|route| route.upstream.is_some_and(|pool| pool.0 as usize == place));
        let names: BTreeSet<_> = own.map(|route| (Arc::clone(&route.site), Arc::clone(&route.name))).collect();
        upstream.cost.then(|| Arc::new(Columns::after(before(&upstream.name), &names)))
    };
    model.upstreams.values().enumerate().map(of).collect()
}

fn options_response() -> FixedResponse {
    let allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    FixedResponse { status: 204, headers: vec![("allow".into(), allow.into())], body: Arc::from([]) }
}

#[cfg(test)]
mod tests;
