//! What each site presents: certificates read from files or issued by the local CA, checked before anything is swapped.
//!
//! A store is immutable. A reload builds a whole new one beside the old; a renewal makes a copy with one site replaced.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_config::model::{HostPattern, Listener, Model, Site, SiteTls, Transport};

use super::credentials::{Checked, Credentials, read_pair};
use super::fault::{Problem, Severity, TlsFault};
use super::internal::{self, InternalCa, names_for, renewal_time};

/// The certificates of all sites, and which listener presents which.
#[derive(Debug, Clone)]
pub struct CertificateStore {
    sites: BTreeMap<String, SiteCertificate>,
    listeners: BTreeMap<String, TlsListener>,
}

/// What one site presents.
#[derive(Debug, Clone)]
pub struct SiteCertificate {
    /// The chain with its key.
    pub credentials: Arc<Credentials>,
    /// Whether the local CA issued it, so that we renew it ourselves.
    pub internal: bool,
}

/// A TLS listener with the hosts of its sites, in the order of the file.
#[derive(Debug, Clone)]
struct TlsListener {
    default_site: Option<String>,
    hosts: Vec<(HostPattern, String)>,
}

/// A store that can be served, with what is doubtful about it.
#[derive(Debug)]
pub struct Built {
    /// The store.
    pub store: CertificateStore,
    /// Never errors.
    pub warnings: Vec<TlsFault>,
}

impl CertificateStore {
    /// Reads every certificate of a model. `tls: internal` makes the local CA and leaves below `state_dir` as needed.
    ///
    /// Blocks on files; never call it on a shard.
    ///
    /// # Errors
    /// Every fault of every site, warnings among them.
    pub fn build(model: &Model, state_dir: &Path, now: SystemTime) -> Result<Built, Vec<TlsFault>> {
        let mut reader = Reader { now, pairs: HashMap::new(), faults: Vec::new() };
        let mut sites = reader.issued(model, state_dir);
        for site in &model.sites {
            if let Some(credentials) = reader.with_files(site) {
                sites.insert(site.name.clone(), SiteCertificate { credentials, internal: false });
            }
        }
        let warnings = reader.finish()?;
        let listeners = model.listeners.iter().filter(|listener| has_tls(listener));
        let listeners = listeners.map(|listener| (listener.name.clone(), TlsListener::new(listener, model))).collect();
        Ok(Built { store: Self { sites, listeners }, warnings })
    }

    /// This store with leaves of the local CA that are due issued anew. Certificates from files stay as they were read: their
    /// files are the operator's to change, at a reload.
    ///
    /// Blocks on files; never call it on a shard.
    ///
    /// # Errors
    /// Every fault of the local CA.
    pub fn renewed_internal(&self, model: &Model, state_dir: &Path, now: SystemTime) -> Result<Self, Vec<TlsFault>> {
        let mut reader = Reader { now, pairs: HashMap::new(), faults: Vec::new() };
        let issued = reader.issued(model, state_dir);
        reader.finish()?;
        let mut next = self.clone();
        next.sites.extend(issued);
        Ok(next)
    }

    /// What [`CertificateStore::build`] would complain about, without writing anything: no local CA, no leaf.
    ///
    /// A local CA that this account may not read is not checked.
    #[must_use]
    pub fn check(model: &Model, state_dir: &Path, now: SystemTime) -> Vec<TlsFault> {
        let mut reader = Reader { now, pairs: HashMap::new(), faults: Vec::new() };
        if let Some(first) = internal_sites(model).next()
            && std::fs::read_dir(state_dir.join("internal-ca")).is_ok()
        {
            reader.keep(&first.name, internal::check_existing(state_dir));
        }
        for site in &model.sites {
            reader.with_files(site);
        }
        reader.faults
    }

    /// What a site presents; `None` when it has no certificate.
    #[must_use]
    pub fn site(&self, name: &str) -> Option<&SiteCertificate> {
        self.sites.get(name)
    }

    /// Every site with a certificate, by name.
    pub fn sites(&self) -> impl Iterator<Item = (&str, &SiteCertificate)> {
        self.sites.iter().map(|(name, certificate)| (name.as_str(), certificate))
    }

    /// Names of the listeners with TLS.
    pub fn listeners(&self) -> impl Iterator<Item = &str> {
        self.listeners.keys().map(String::as_str)
    }

    /// The hosts of a TLS listener with the names of their sites, in the order of the file.
    pub fn hosts(&self, listener: &str) -> impl Iterator<Item = (&HostPattern, &str)> {
        let hosts = self.listeners.get(listener).into_iter().flat_map(|listener| &listener.hosts);
        hosts.map(|(host, site)| (host, site.as_str()))
    }

    /// Name of the site of a TLS listener that answers where no host matches.
    #[must_use]
    pub fn default_site(&self, listener: &str) -> Option<&str> {
        self.listeners.get(listener)?.default_site.as_deref()
    }

    /// This store with another certificate for one site.
    #[must_use]
    pub fn with_site(&self, name: &str, certificate: SiteCertificate) -> Self {
        let mut next = self.clone();
        next.sites.insert(name.to_owned(), certificate);
        next
    }

    /// When [`CertificateStore::renewed_internal`] should run because a leaf of the local CA ages; `None` without any.
    #[must_use]
    pub fn next_internal_renewal(&self) -> Option<SystemTime> {
        let internal = self.sites.values().filter(|certificate| certificate.internal);
        internal.map(|certificate| renewal_time(&certificate.credentials)).min()
    }
}

impl TlsListener {
    fn new(listener: &Listener, model: &Model) -> Self {
        let here = model.sites.iter().filter(|site| site.listeners.contains(&listener.name));
        let hosts = here.flat_map(|site| site.hosts.iter().map(|host| (host.clone(), site.name.clone()))).collect();
        Self { default_site: listener.default_site.clone(), hosts }
    }
}

/// The credentials of a pair of files with their warnings, or what is wrong with them.
type Pair = Result<(Arc<Credentials>, Vec<Problem>), Vec<Problem>>;

/// Reads certificate files once, however many sites share them, and collects faults.
struct Reader {
    now: SystemTime,
    pairs: HashMap<(PathBuf, PathBuf), Pair>,
    faults: Vec<TlsFault>,
}

impl Reader {
    /// What the local CA issues for a model: leaves that are kept, and new ones where there is none or it ages.
    fn issued(&mut self, model: &Model, state_dir: &Path) -> BTreeMap<String, SiteCertificate> {
        let internal: Vec<&Site> = internal_sites(model).collect();
        let Some(first) = internal.first() else { return BTreeMap::new() };
        let authority = InternalCa::open_or_create(state_dir, self.now);
        let Some(authority) = self.keep(&first.name, authority) else { return BTreeMap::new() };
        let mut issued = BTreeMap::new();
        for site in internal {
            let names = names_for(&site.hosts, &all_hosts(model));
            let leaf = authority.leaf(&site.name, &names, self.now);
            if let Some(credentials) = self.keep(&site.name, leaf) {
                let credentials = Arc::new(credentials);
                issued.insert(site.name.clone(), SiteCertificate { credentials, internal: true });
            }
        }
        issued
    }

    /// The certificate of a site with files; `None` for another kind, and after a fault.
    fn with_files(&mut self, site: &Site) -> Option<Arc<Credentials>> {
        let Some(SiteTls::Files { certificate, key }) = &site.tls else { return None };
        let now = self.now;
        let pair = self.pairs.entry((certificate.clone(), key.clone())).or_insert_with(|| {
            let Checked { credentials, warnings } = read_pair(certificate, key, now)?;
            Ok((Arc::new(credentials), warnings))
        });
        match pair {
            Ok((credentials, warnings)) => {
                let credentials = Arc::clone(credentials);
                self.faults.extend(warnings.iter().map(|problem| problem.of_site(&site.name)));
                self.faults.extend(uncovered_hosts(site, &credentials, certificate));
                Some(credentials)
            }
            Err(problems) => {
                self.faults.extend(problems.iter().map(|problem| problem.of_site(&site.name)));
                None
            }
        }
    }

    /// The value; a problem becomes a fault of the site.
    fn keep<T>(&mut self, site: &str, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.faults.push(problem.of_site(site))).ok()
    }

    /// The warnings, unless there is an error.
    fn finish(self) -> Result<Vec<TlsFault>, Vec<TlsFault>> {
        if self.faults.iter().any(|fault| fault.severity == Severity::Error) {
            return Err(self.faults);
        }
        Ok(self.faults)
    }
}

/// Clients refuse a certificate that does not name the host they asked for.
fn uncovered_hosts(site: &Site, credentials: &Credentials, certificate: &Path) -> Option<TlsFault> {
    let mut names: Vec<String> = names_for(&site.hosts, &[]).into_iter().collect();
    if site.hosts.contains(&HostPattern::Any) {
        names.clear();
    }
    names.retain(|name| !credentials.covers(name));
    let problem = format!("certificate is not valid for {}", names.join(", "));
    let warning = Problem::warning(certificate, problem, "clients refuse it there: get one with all hosts of the site");
    (!names.is_empty()).then(|| warning.of_site(&site.name))
}

/// Sites whose certificate the local CA issues and a listener needs.
fn internal_sites(model: &Model) -> impl Iterator<Item = &Site> {
    let needed = |site: &Site| {
        model.listeners.iter().any(|listener| has_tls(listener) && site.listeners.contains(&listener.name))
    };
    model.sites.iter().filter(move |site| site.tls == Some(SiteTls::Internal) && needed(site))
}

fn all_hosts(model: &Model) -> Vec<HostPattern> {
    model.sites.iter().flat_map(|site| site.hosts.iter().cloned()).collect()
}

fn has_tls(listener: &Listener) -> bool {
    listener.transport == Transport::Tls
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
