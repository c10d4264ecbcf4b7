//! One `ServerConfig` for each TLS listener, kept over reloads together with its ticket keys and session store.
//!
//! TLS 1.2 and 1.3, ALPN `h2` and `http/1.1`, stateless tickets, no early data. A reload changes only what the resolver
//! of a kept policy presents, so that clients can still resume.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::ServerSessionMemoryCache;

use super::fault::{Severity, TlsFault};
use super::sni::{ListenerCertificates, SniResolver};
use super::store::CertificateStore;

/// Sessions of clients that cannot keep a ticket.
const SESSIONS: usize = 8_192;

/// The TLS side of one listener.
#[derive(Debug, Clone)]
pub struct TlsPolicy {
    /// For every handshake of the listener.
    pub config: Arc<ServerConfig>,
    /// Which certificates it presents; part of `config`.
    pub resolver: Arc<SniResolver>,
}

impl TlsPolicy {
    /// A new policy with new ticket keys.
    ///
    /// # Errors
    /// When the system gives no randomness for ticket keys or the provider has no usable suites.
    pub fn new(certificates: Arc<ListenerCertificates>) -> Result<Self, rustls::Error> {
        let resolver = Arc::new(SniResolver::new(certificates));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&resolver) as Arc<_>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), resolver })
    }
}

/// The policies of all TLS listeners of one configuration.
#[derive(Debug, Default)]
pub struct TlsPolicies {
    by_listener: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    policy: TlsPolicy,
    certificates: Arc<ListenerCertificates>,
}

impl TlsPolicies {
    /// Policies for a store: those of listeners that `previous` has are the same, and present the old certificates until
    /// [`TlsPolicies::activate`].
    ///
    /// # Errors
    /// A policy that cannot be made, see [`TlsPolicy::new`].
    pub fn build(previous: Option<&Self>, store: &CertificateStore) -> Result<Self, TlsFault> {
        let mut by_listener = BTreeMap::new();
        for listener in store.listeners() {
            let certificates = Arc::new(store.view(listener).unwrap_or_default());
            let kept = previous.and_then(|previous| previous.policy(listener)).cloned();
            let policy = match kept {
                Some(policy) => policy,
                None => TlsPolicy::new(Arc::clone(&certificates)).map_err(|error| not_made(listener, &error))?,
            };
            by_listener.insert(listener.to_owned(), Entry { policy, certificates });
        }
        Ok(Self { by_listener })
    }

    /// Handshakes from now on present the certificates these policies were built with.
    pub fn activate(&self) {
        for Entry { policy, certificates } in self.by_listener.values() {
            policy.resolver.replace(Arc::clone(certificates));
        }
    }

    /// The policy of a listener; `None` when it has no TLS.
    #[must_use]
    pub fn policy(&self, listener: &str) -> Option<&TlsPolicy> {
        self.by_listener.get(listener).map(|entry| &entry.policy)
    }
}

fn not_made(listener: &str, error: &rustls::Error) -> TlsFault {
    TlsFault {
        severity: Severity::Error,
        site: listener.to_owned(),
        path: None,
        problem: format!("TLS of the listener cannot be set up: {error}"),
        remedy: "check the system's random source".to_owned(),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
