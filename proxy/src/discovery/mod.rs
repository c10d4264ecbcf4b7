//! Servers that have a name: what it resolves to, kept up to date beside the requests.
//!
//! One loop on the control runtime asks for what is due and tells the pools. Whom it asks for follows the configuration
//! that serves; what was found outlives changes of it, so a pool that takes another one's place has its addresses at once.

pub(crate) mod entry;
mod resolver;
mod system;

use crate::observe::metrics::UpstreamMetrics;
use crate::plane::Plane;
use crate::snapshot::Snapshot;
use entry::{Answer, Entry, News, Settled, State};
use resolver::Resolver;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_config::model::{Address, EndpointSource, Model, ServerAddress};
use tidegate_traffic::mix::mix;
use tidegate_traffic::pool::Pool;
use tidegate_traffic::pool::servers::Resolved;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A name of an upstream.
type Key = (String, ServerAddress);

/// Resolves names and tells the pools; see the module's text.
pub(crate) struct Discovery {
    resolver: Resolver,
    plane: Arc<Plane>,
    wake: Notify,
    seed: u64,
    /// Guards the names; held while one answer or one configuration is taken over. Never taken by a request.
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    by_key: BTreeMap<Key, Watched>,
    /// Number of the last question.
    questions: u64,
    /// Where no name may lead: our own admin endpoint.
    forbidden: Option<SocketAddr>,
}

/// One name with who wants to know.
struct Watched {
    entry: Entry,
    pool: Arc<Pool>,
    metrics: Option<Arc<UpstreamMetrics>>,
    /// The question that is under way; answers to earlier ones are too late.
    asking: Option<u64>,
}

/// A resolution that has ended.
struct Done {
    key: Key,
    question: u64,
    answer: Answer,
}

/// One name, for people.
#[derive(Debug, Clone)]
pub(crate) struct NameStatus {
    /// As in the file.
    pub(crate) name: ServerAddress,
    /// How its last resolution ended.
    pub(crate) state: State,
    /// What is wrong with it, or with one of its hosts.
    pub(crate) trouble: Option<String>,
    /// Its addresses.
    pub(crate) addresses: usize,
    /// Until it is asked for again; zero while it is.
    pub(crate) next: Duration,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").finish_non_exhaustive()
    }
}

impl Discovery {
    /// Without names. `seed` is random.
    pub(crate) fn new(plane: Arc<Plane>, seed: u64) -> Self {
        Self { resolver: Resolver::default(), plane, wake: Notify::new(), seed, names: Mutex::default() }
    }

    /// Takes over the names of a configuration that is about to serve, and has all of them asked for at once. What is known
    /// of a name that stays is told to the upstream's pool where it is another one. Never waits.
    pub(crate) fn adopt(&self, snapshot: &Snapshot) {
        self.resolver.forget_files();
        let now = Instant::now();
        let mut names = self.lock();
        let mut before = std::mem::take(&mut names.by_key);
        names.forbidden = match &snapshot.model.admin.listen {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        };
        for (key, pool) in wanted(&snapshot.model, &snapshot.traffic.pools) {
            let Some(dns) = snapshot.model.upstreams.get(&key.0).and_then(|upstream| upstream.dns.as_ref()) else {
                continue;
            };
            let dns = if let Some(known) = before.get(&key).filter(|known| **known.entry.dns() == *dns) {
                Arc::clone(known.entry.dns())
            } else {
                Arc::new(dns.clone())
            };
            let metrics = snapshot.upstream_metrics(pool).cloned();
            let watched = match before.remove(&key) {
                Some(known) => known.adopted(pool, dns, metrics, &key.1, now),
                None => Watched { entry: Entry::new(dns, now), pool: Arc::clone(pool), metrics, asking: None },
            };
            names.by_key.insert(key, watched);
        }
        drop(names);
        self.wake.notify_one();
    }

    /// Asks for names when they are due, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut resolutions = JoinSet::new();
        loop {
            let next = self.ask_for_what_is_due(&mut resolutions);
            let until = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                Some(ended) = resolutions.join_next() => match ended {
                    Ok(done) => self.settle(done),
                    Err(error) => tracing::error!(%error, "a resolution failed"),
                },
                () = until => {}
            }
        }
    }

    /// The names of an upstream.
    pub(crate) fn status(&self, upstream: &str) -> Vec<NameStatus> {
        let (now, names) = (Instant::now(), self.lock());
        let of_upstream = names.by_key.iter().filter(|((of, _), _)| of == upstream);
        let status = |((_, name), watched): (&Key, &Watched)| NameStatus {
            name: name.clone(),
            state: watched.entry.state().clone(),
            trouble: watched.entry.trouble(),
            addresses: watched.entry.set().len(),
            next: watched.next(now),
        };
        of_upstream.map(status).collect()
    }

    /// Starts what is due; returns when something will be.
    fn ask_for_what_is_due(self: &Arc<Self>, resolutions: &mut JoinSet<Done>) -> Option<Instant> {
        let now = Instant::now();
        let mut guard = self.lock();
        let Names { by_key, questions, .. } = &mut *guard;
        let mut next: Option<Instant> = None;
        for (key, watched) in by_key {
            if watched.asking.is_some() {
                continue;
            }
            let due = watched.entry.due();
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
                continue;
            }
            *questions += 1;
            let question = *questions;
            watched.asking = Some(question);
            let (discovery, key, dns) = (Arc::clone(self), key.clone(), Arc::clone(watched.entry.dns()));
            resolutions.spawn(async move {
                let answer = discovery.resolver.resolve(&key.1, &dns).await;
                Done { key, question, answer }
            });
        }
        next
    }

    fn settle(&self, done: Done) {
        let Done { key, question, answer } = done;
        let now = Instant::now();
        let mut names = self.lock();
        let forbidden = names.forbidden;
        let Some(watched) = names.by_key.get_mut(&key).filter(|watched| watched.asking == Some(question)) else {
            return;
        };
        watched.asking = None;
        let answer = without(answer, forbidden);
        let known_before = !matches!(watched.entry.state(), State::Unknown);
        let before = addresses(watched.entry.set());
        let settled = watched.entry.settle(answer, now, mix(self.seed.wrapping_add(question)));
        watched.count();
        // The first answer is told even when it is none: nobody waits for it any more.
        let gone = if settled.changed || !known_before {
            watched.pool.resolve(&key.1, watched.entry.set().to_vec())
        } else {
            Vec::new()
        };
        watched.log(&key, settled, &before, now);
        if settled.changed {
            // Whichever of two names was answered first: the one that stands behind in the file has no endpoint of its own.
            let of_upstream = names.by_key.iter().filter(|((upstream, _), _)| *upstream == key.0);
            of_upstream.for_each(|(key, watched)| watched.log_shared(key));
        }
        drop(names);
        gone.into_iter().for_each(|endpoint| self.plane.forget(endpoint));
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of all upstreams, each once.
fn wanted<'a>(model: &'a Model, pools: &'a [Arc<Pool>]) -> impl Iterator<Item = (Key, &'a Arc<Pool>)> {
    // Pools are in the order of the upstreams.
    model.upstreams.values().zip(pools).flat_map(|(upstream, pool)| {
        let servers = match &upstream.source {
            EndpointSource::Servers(servers) => servers.as_slice(),
            EndpointSource::Workers(_) => &[],
        };
        let names = servers.iter().map(|server| &server.address).filter(|address| address.is_name());
        names.map(move |name| ((upstream.name.clone(), name.clone()), pool))
    })
}

/// An answer that does not lead to `forbidden`.
fn without(mut answer: Answer, forbidden: Option<SocketAddr>) -> Answer {
    let (Answer::Targets(targets, _), Some(forbidden)) = (&mut answer, forbidden) else { return answer };
    for target in targets.iter_mut().filter(|target| target.port == forbidden.port()) {
        for lookup in [&mut target.answer.ipv4, &mut target.answer.ipv6].into_iter().flatten() {
            if let entry::Lookup::Found(addresses, _) = lookup {
                addresses.retain(|ip| *ip != forbidden.ip());
                if addresses.is_empty() {
                    *lookup = entry::Lookup::Failed("it leads to our own admin endpoint".to_owned());
                }
            }
        }
    }
    answer
}

fn addresses(set: &[Resolved]) -> BTreeSet<SocketAddr> {
    set.iter().map(|one| one.address).collect()
}

fn list<'a>(addresses: impl Iterator<Item = &'a SocketAddr>) -> String {
    addresses.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

impl Watched {
    /// Itself in a new configuration.
    fn adopted(
        mut self,
        pool: &Arc<Pool>,
        dns: Arc<tidegate_config::model::Dns>,
        metrics: Option<Arc<UpstreamMetrics>>,
        name: &ServerAddress,
        now: Instant,
    ) -> Self {
        let is_known = !matches!(self.entry.state(), State::Unknown);
        if !Arc::ptr_eq(&self.pool, pool) && is_known {
            // It is new, so nobody has gone.
            pool.resolve(name, self.entry.set().to_vec());
        }
        self.entry.renew(dns, now);
        Self { entry: self.entry, pool: Arc::clone(pool), metrics, asking: None }
    }

    fn next(&self, now: Instant) -> Duration {
        if self.asking.is_some() { Duration::ZERO } else { self.entry.due().saturating_duration_since(now) }
    }

    fn count(&self) {
        let Some(metrics) = &self.metrics else { return };
        match self.entry.state() {
            State::Unknown => {}
            State::Resolved => metrics.names_resolved.inc(),
            State::Missing(..) => metrics.names_missing.inc(),
            State::Failed(_) => metrics.names_failed.inc(),
        }
    }

    fn log(&self, key: &Key, settled: Settled, before: &BTreeSet<SocketAddr>, now: Instant) {
        let (upstream, name) = key;
        let reason = self.entry.trouble();
        let next_try_ms = u64::try_from(self.next(now).as_millis()).unwrap_or(u64::MAX);
        let kept = self.entry.set().len();
        match (settled.news, &reason) {
            (News::Lost, Some(reason)) => {
                tracing::warn!(%upstream, %name, %reason, next_try_ms, kept, "name does not resolve");
            }
            (News::Doubtful, Some(reason)) => {
                tracing::warn!(%upstream, %name, %reason, next_try_ms, "name resolves in part");
            }
            (News::Back, _) => tracing::info!(%upstream, %name, "name resolves again"),
            (_, Some(reason)) => {
                tracing::debug!(%upstream, %name, %reason, next_try_ms, kept, "name still does not resolve well");
            }
            (_, None) => tracing::debug!(%upstream, %name, next_try_ms, "name resolved"),
        }
        if settled.changed {
            let after = addresses(self.entry.set());
            let (added, removed) = (list(after.difference(before)), list(before.difference(&after)));
            tracing::info!(%upstream, %name, added, removed, "addresses of a name have changed");
        }
    }

    /// What another server of the upstream has already is its endpoint, with its settings.
    fn log_shared(&self, (upstream, name): &Key) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let endpoints = self.pool.endpoints();
        for one in self.entry.set() {
            let address = Address::Tcp(one.address);
            let other = |host: Option<&Arc<str>>| host.is_none_or(|host| *host != one.host);
            if endpoints.iter().any(|endpoint| *endpoint.address() == address && other(endpoint.host())) {
                tracing::debug!(%upstream, %name, address = %one.address, "another server has this address already");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::entry::{HostAnswer, Lookup, Target};
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn no_name_leads_to_the_admin_endpoint() {
        let found = |last: &[u8]| {
            let addresses = last.iter().map(|last| IpAddr::from([127, 0, 0, *last])).collect();
            Some(Lookup::Found(addresses, Duration::ZERO))
        };
        let answer = |port, last: &[u8]| {
            let answer = HostAnswer { ipv4: found(last), ipv6: None };
            let target = Target { host: "a".into(), port, share: None, answer };
            Answer::Targets(vec![target], Duration::ZERO)
        };
        let admin = Some(SocketAddr::from(([127, 0, 0, 1], 9_000)));
        assert_eq!(without(answer(9_000, &[1, 2]), admin), answer(9_000, &[2]));
        assert_eq!(without(answer(9_001, &[1, 2]), admin), answer(9_001, &[1, 2]));
        assert_eq!(without(answer(9_000, &[1]), None), answer(9_000, &[1]));
        let Answer::Targets(targets, _) = without(answer(9_000, &[1]), admin) else { panic!("hosts") };
        assert!(matches!(&targets[0].answer.ipv4, Some(Lookup::Failed(why)) if why.contains("admin")));
    }
}
