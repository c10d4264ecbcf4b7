//! One configuration change: read, compare, build beside, swap, retire.
//!
//! Everything that can fail happens before the swap, so a refused change leaves no trace but its report.

use crate::admin::control::Control;
use crate::config_source::ConfigSource;
use crate::desk::Desk;
use crate::discovery::Discovery;
use crate::edge::admission::{Admission, Caps};
use crate::edge::listener::ListenerKey;
use crate::exchange::spool::Spool;
use crate::expansion;
use crate::folders::Folders;
use crate::health::checker::Checker;
use crate::health::news;
use crate::logs::Logs;
use crate::observe::metrics::{Metrics, RouteKey};
use crate::plane::{ListenerPlan, Plane};
use crate::privileges::Account;
use crate::snapshot::Snapshot;
use crate::sticky;
use crate::tls::fault::TlsFault;
use crate::tls::policy::TlsPolicies;
use crate::tls::store::CertificateStore;
use crate::tls::upstream::UpstreamTlsSet;
use crate::workers::{WorkerBridge, pool_specs};
use caps::{CapSet, Capability};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime};
use tidegate_config::diff::{Diff, diff};
use tidegate_config::model::{ConnectionLimits, EndpointSource, Model};
use tidegate_config::{Fault, Faults};
use tidegate_supervisor::{Command, Handle};
use tidegate_traffic::{Identities, Traffic};

/// Between two tries to renew a certificate of the local CA.
const RENEWAL_PAUSE: Duration = Duration::from_secs(3_600);

/// Why a change was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The file is faulty.
    #[error("{0}")]
    Faults(Faults),
    /// It changes something that a running process cannot change.
    #[error("{}", errors(.0))]
    NeedsRestart(Vec<String>),
    /// Certificates cannot be used.
    #[error("{}", texts(.0))]
    Tls(Vec<TlsFault>),
    /// Listeners, logs, the admin endpoint: the file is right, the system is not.
    #[error("{}", errors(.0))]
    Environment(Vec<String>),
}

fn texts(faults: &[TlsFault]) -> String {
    let line = |fault: &TlsFault| format!("{}: {fault}", fault.severity.word());
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn errors(texts: &[String]) -> String {
    texts.iter().map(|text| format!("error: {text}")).collect::<Vec<_>>().join("\n")
}

/// An accepted change.
#[derive(Debug)]
pub(crate) struct Applied {
    /// Number of the configuration.
    pub(crate) generation: u64,
    /// What changed.
    pub(crate) diff: Diff,
    /// What is doubtful, as text.
    pub(crate) warnings: Vec<String>,
}

/// How the last reload went, for status.
#[derive(Debug, Clone)]
pub(crate) struct LastReload {
    /// When.
    pub(crate) at: SystemTime,
    /// Why it was refused; `None` when it was applied.
    pub(crate) refused: Option<String>,
}

/// What a change replaces.
#[derive(Debug)]
pub(crate) struct Current {
    /// What serves now.
    pub(crate) snapshot: Arc<Snapshot>,
    /// TLS state of its listeners.
    pub(crate) policies: TlsPolicies,
    /// TLS with its upstreams.
    pub(crate) upstream_tls: UpstreamTlsSet,
    /// Certificates of its sites.
    pub(crate) certificates: CertificateStore,
    /// How the last reload went.
    pub(crate) last_reload: Option<LastReload>,
}

/// Everything that a configuration is applied to.
pub(crate) struct Reloader {
    pub(crate) source: ConfigSource,
    pub(crate) environment: tidegate_config::System,
    pub(crate) folders: Folders,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) plane: Arc<Plane>,
    pub(crate) bridge: Arc<WorkerBridge>,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) checker: Arc<Checker>,
    pub(crate) supervisor: Handle,
    pub(crate) logs: Arc<Logs>,
    pub(crate) desk: Desk,
    pub(crate) listener_keys: AtomicU64,
    /// Guards one change at a time; never taken by a request.
    pub(crate) current: Mutex<Current>,
    /// Guards what status reads while a change is under way.
    pub(crate) serving: arc_swap::ArcSwap<Snapshot>,
}

/// A configuration that was built beside the one that serves.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) policies: TlsPolicies,
    pub(crate) upstream_tls: UpstreamTlsSet,
    pub(crate) certificates: CertificateStore,
    pub(crate) plan: ListenerPlan,
    pub(crate) warnings: Vec<String>,
}

impl Reloader {
    /// Reads the configuration again and applies it, or changes nothing. Blocks on files.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub(crate) fn reload(&self, control: &Arc<dyn Control>) -> Result<Applied, Refused> {
        let mut current = self.lock();
        let applied = self.change(&mut current, control);
        let refused = applied.as_ref().err().map(ToString::to_string);
        match &applied {
            Ok(applied) => {
                self.metrics.config_applied(applied.generation, SystemTime::now());
                tracing::info!(
                    generation = applied.generation,
                    changes = applied.diff.to_string().trim_end(),
                    "configuration applied"
                );
            }
            Err(refused) => {
                self.metrics.config_refused();
                // What was registered for it on the way.
                retain_metrics(&self.metrics, &current.snapshot);
                tracing::error!(%refused, "configuration refused, the old one keeps serving");
            }
        }
        current.last_reload = Some(LastReload { at: SystemTime::now(), refused });
        applied
    }

    /// What was built last, and how the last reload went.
    pub(crate) fn last_reload(&self) -> Option<LastReload> {
        self.peek().and_then(|current| current.last_reload.clone())
    }

    /// When the certificates of sites end.
    pub(crate) fn certificate_expiry(&self) -> BTreeMap<String, SystemTime> {
        let Some(current) = self.peek() else { return BTreeMap::new() };
        current.certificates.sites().map(|(name, site)| (name.to_owned(), site.credentials.not_after)).collect()
    }

    /// Issues what ages of the local CA's leaves anew and presents it from now on; returns when to come again.
    pub(crate) fn renew_internal(&self) -> Option<SystemTime> {
        let mut current = self.lock();
        let due = current.certificates.next_internal_renewal()?;
        if due > SystemTime::now() {
            return Some(due);
        }
        let model = &current.snapshot.model;
        let renewed = current.certificates.renewed_internal(model, &self.folders.state, SystemTime::now());
        let renewed = renewed.and_then(|certificates| {
            let policies = current.policies.renewed(model, &certificates).map_err(|fault| vec![fault])?;
            Ok((certificates, policies))
        });
        match renewed {
            Ok((certificates, policies)) => {
                policies.activate();
                current.policies = policies;
                current.certificates = certificates;
                tracing::info!("certificates of the local CA renewed");
            }
            Err(faults) => tracing::error!(error = %texts(&faults), "certificates of the local CA cannot be renewed"),
        }
        Some(current.certificates.next_internal_renewal()?.max(SystemTime::now() + RENEWAL_PAUSE))
    }

    /// What serves, unless a change is under way.
    fn peek(&self) -> Option<MutexGuard<'_, Current>> {
        match self.current.try_lock() {
            Ok(current) => Some(current),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, current: &mut Current, control: &Arc<dyn Control>) -> Result<Applied, Refused> {
        if self.plane.is_draining() {
            return Err(Refused::Environment(vec!["the program is shutting down".to_owned()]));
        }
        let loaded = self.source.load(&self.environment).map_err(Refused::Faults)?;
        let old = &current.snapshot;
        let diff = diff(&old.model, &loaded.model);
        let refusals: Vec<_> = diff.refusals().iter().map(ToString::to_string).collect();
        if !refusals.is_empty() {
            return Err(Refused::NeedsRestart(refusals));
        }
        // Before listeners are bound: those take connections at once, which a refusal would reset.
        let model = Arc::new(loaded.model);
        let logs = self.logs.prepare(&model).map_err(|text| Refused::Environment(vec![text]))?;
        let desk = self.desk.prepare(&model.admin).map_err(|text| Refused::Environment(vec![text]))?;
        let prepared = prepare(
            model.clone(),
            &loaded.warnings,
            Some((old, &current.policies, &current.upstream_tls)),
            &Surroundings {
                folders: &self.folders,
                metrics: &self.metrics,
                listeners: &self.plane.listeners(),
                shards: self.plane.shards().len(),
                keys: &self.listener_keys,
            },
        )?;
        let generation = prepared.snapshot.generation;
        let warnings = self.apply(current, prepared);
        let changed: Vec<&String> = diff.upstreams.changed.iter().map(|change| &change.name).collect();
        expansion::log(&model, |name| diff.upstreams.added.contains(name) || changed.contains(&name));
        self.logs.apply(&model, logs, self.plane.shards());
        self.desk.apply(&model.admin, desk, control);
        Ok(Applied { generation, diff, warnings })
    }

    /// Applies the first configuration.
    pub(crate) fn begin(&self, prepared: Prepared) {
        expansion::log(&prepared.snapshot.model, |_| true);
        self.apply(&mut self.lock(), prepared);
    }

    /// From here on nothing can fail.
    pub(crate) fn apply(&self, current: &mut Current, prepared: Prepared) -> Vec<String> {
        let Prepared { snapshot, policies, upstream_tls, certificates, plan, warnings } = prepared;
        if worker_users(&snapshot.model).next().is_some()
            && let Err(error) = self.folders.let_workers_through()
        {
            tracing::error!(%error, "workers of other users may not reach their sockets");
        }
        self.bridge.adopt(snapshot.traffic.pools.iter(), snapshot.model.server.fail_fast);
        self.bridge.watch_of(&snapshot.model);
        self.discovery.adopt(&snapshot);
        self.checker.adopt(&snapshot);
        let room = set_connection_limits(&self.admission, &snapshot.model.server.connections);
        self.spool.set_limits(snapshot.model.server.spool.total, room);
        self.plane.swap(&snapshot, plan, &policies);
        self.supervisor.send(Command::SetPools(pool_specs(&snapshot.model)));
        retain_metrics(&self.metrics, &snapshot);
        self.serving.store(snapshot.clone());
        current.snapshot = snapshot;
        current.policies = policies;
        current.upstream_tls = upstream_tls;
        current.certificates = certificates;
        warnings
    }
}

/// What building a configuration needs besides the model.
pub(crate) struct Surroundings<'a> {
    pub(crate) folders: &'a Folders,
    pub(crate) metrics: &'a Arc<Metrics>,
    pub(crate) listeners: &'a [Arc<crate::edge::listener::Listener>],
    pub(crate) shards: usize,
    pub(crate) keys: &'a AtomicU64,
}

/// Builds everything that a model needs, beside what serves.
///
/// # Errors
///
/// Everything that the system refuses: certificates and listeners.
pub(crate) fn prepare(
    model: Arc<Model>,
    config_warnings: &[Fault],
    previous: Option<(&Arc<Snapshot>, &TlsPolicies, &UpstreamTlsSet)>,
    around: &Surroundings<'_>,
) -> Result<Prepared, Refused> {
    let mut refused = Vec::new();
    check_worker_users(&model).map_err(|text| Refused::Environment(vec![text]))?;
    let mut warnings: Vec<String> = config_warnings.iter().map(ToString::to_string).collect();
    let built = match CertificateStore::build(&model, &around.folders.state, SystemTime::now()) {
        Ok(built) => built,
        Err(faults) => return Err(Refused::Tls(faults)),
    };
    warnings.extend(built.warnings.iter().map(ToString::to_string));
    let policies =
        TlsPolicies::build(previous.map(|(_, policies, _)| policies), &model, &built.store).map_err(Refused::Tls)?;
    let upstream_tls = UpstreamTlsSet::build(previous.map(|(.., known)| known), &model).map_err(Refused::Tls)?;
    let seals = sticky::seals(&model, &around.folders.state).map_err(Refused::Tls)?;
    let mut key = || ListenerKey(around.keys.fetch_add(1, Ordering::Relaxed));
    let plan = ListenerPlan::prepare(&model, around.listeners, &policies, around.shards, around.metrics, &mut key);
    let plan = plan.unwrap_or_else(|faults| {
        refused.extend(faults.iter().map(ToString::to_string));
        ListenerPlan::default()
    });
    if !refused.is_empty() {
        return Err(Refused::Environment(refused));
    }
    let generation = previous.map_or(1, |(snapshot, ..)| snapshot.generation + 1);
    let transports = upstream_tls.ids().map(|(name, id)| (name.to_owned(), id)).collect();
    let observer = Some(news::observer(around.metrics));
    let identities = Identities { transports, observer, seals, ..policies.identities() };
    let traffic = Traffic::build(&model, previous.map(|(snapshot, ..)| &snapshot.traffic), &identities);
    let snapshot = Snapshot::new(generation, model, traffic, plan.keys(), &upstream_tls, around.metrics);
    Ok(Prepared { snapshot: Arc::new(snapshot), policies, upstream_tls, certificates: built.store, plan, warnings })
}

/// Upstreams whose workers run as an account of their own, with that account.
pub(crate) fn worker_users(model: &Model) -> impl Iterator<Item = (&str, &str)> {
    model.upstreams.values().filter_map(|upstream| match &upstream.source {
        EndpointSource::Workers(spec) => Some((upstream.name.as_str(), spec.user.as_deref()?)),
        EndpointSource::Servers(_) => None,
    })
}

/// Workers of other accounts need those accounts, and our right to become them.
fn check_worker_users(model: &Model) -> Result<(), String> {
    let Some((upstream, user)) = worker_users(model).next() else { return Ok(()) };
    let may_switch = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETUID).unwrap_or(false);
    if !may_switch {
        return Err(format!(
            "upstream \"{upstream}\": workers cannot run as user \"{user}\" because this process may not change users; \
             start it as root (with `server.user` it drops its other rights), restart it if it dropped them already, or \
             remove `user`"
        ));
    }
    worker_users(model).try_for_each(|(upstream, user)| match Account::find(user) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("upstream \"{upstream}\": {error}")),
    })
}

/// Caps connections by the configuration and by what the descriptor limit leaves; the latter is the result.
pub(crate) fn set_connection_limits(admission: &Admission, limits: &ConnectionLimits) -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let room = descriptors.saturating_sub(limits.fd_reserve).max(1);
    let ConnectionLimits { total, per_address, handshakes, fd_reserve: _ } = *limits;
    admission.set_caps(Caps { total, per_address, handshakes, room });
    room
}

fn retain_metrics(metrics: &Metrics, snapshot: &Snapshot) {
    let mut routes: BTreeSet<RouteKey> = snapshot.route_keys().collect();
    routes.insert(Snapshot::unrouted_key());
    let listeners = snapshot.model.listeners.iter().map(|listener| listener.name.clone()).collect();
    let upstreams = snapshot.model.upstreams.keys().cloned().collect();
    metrics.retain(&routes, &listeners, &upstreams);
}
