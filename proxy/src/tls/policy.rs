//! TLS policies at run time: what a handshake may agree on, whom it asks for a certificate, and what it resumes.
//!
//! A policy's ticket keys and sessions belong to its name and content: they survive reloads and renewals as long as
//! both stay, and no other policy can resume them. There is one `ServerConfig` for each pair of certificate and policy
//! on a listener, so that one look at the server name decides both and they cannot come apart.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, StoresServerSessions,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite, SupportedProtocolVersion, version};
use tidegate_config::model::{self, Alpn, CipherSuite, ClientCertificates, KeyExchange, Model, TlsVersion};
use tidegate_traffic::{Identities, TlsPolicyId, TlsPolicyRef};

use super::credentials::{read_chain, roots_of};
use super::fault::{Problem, TlsFault};
use super::sessions::Sessions;
use super::sni::ServerNames;
use super::store::CertificateStore;
use super::ticketer::Ticketer;

/// How long a ticket key seals; it opens for as long again.
const TICKET_LIFE: Duration = Duration::from_secs(12 * 3_600);
/// The same where a session stands for a client certificate, which is verified in full handshakes only.
const VERIFIED_TICKET_LIFE: Duration = Duration::from_secs(3_600);

/// One policy: immutable, but for its ticket keys and sessions.
#[derive(Debug)]
pub struct Policy {
    reference: TlsPolicyRef,
    settings: model::TlsPolicy,
    /// Who may issue client certificates, as read; part of the content.
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    ticketer: Option<Arc<dyn ProducesTickets>>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl Policy {
    fn new(
        reference: TlsPolicyRef,
        settings: &model::TlsPolicy,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, Problem> {
        let provider = Arc::new(provider(settings));
        let verifier = match &settings.client_certificates {
            Some(asked) => verifier(asked, &authorities, &provider)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let life = if settings.client_certificates.is_some() { VERIFIED_TICKET_LIFE } else { TICKET_LIFE };
        let ticketer = if settings.tickets {
            Some(Arc::new(Ticketer::new(life, Instant::now()).map_err(|error| unusable(&error))?) as Arc<_>)
        } else {
            None
        };
        let sessions: Arc<dyn StoresServerSessions> = match settings.session_cache {
            0 => Arc::new(NoServerSessionStorage {}),
            count => Arc::new(Sessions::new(count, life * 2)),
        };
        Ok(Self { reference, settings: settings.clone(), authorities, provider, verifier, ticketer, sessions })
    }

    /// The configuration of handshakes that present one certificate under this policy.
    fn config(&self, certificate: &Arc<CertifiedKey>) -> Result<Arc<ServerConfig>, rustls::Error> {
        const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
        let versions = match self.settings.min_version {
            TlsVersion::V1_2 => BOTH,
            TlsVersion::V1_3 => &BOTH[..1],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(Arc::clone(&self.verifier))
            .with_cert_resolver(Arc::new(Only(Arc::clone(certificate))));
        config.alpn_protocols = self.settings.alpn.iter().map(|protocol| wire_name(*protocol).to_vec()).collect();
        if let Some(ticketer) = &self.ticketer {
            config.ticketer = Arc::clone(ticketer);
        }
        config.session_storage = Arc::clone(&self.sessions);
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }
}

/// Presents one certificate, whatever is asked for.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// What a server name leads to on one listener.
#[derive(Debug)]
pub struct Presented {
    /// For the handshake.
    pub config: Arc<ServerConfig>,
    policy: Arc<Policy>,
}

impl Presented {
    /// Identity of the policy.
    #[must_use]
    pub fn policy(&self) -> &TlsPolicyRef {
        &self.policy.reference
    }

    /// Whether a connection without ALPN, which speaks HTTP/1.1, is served.
    #[must_use]
    pub fn speaks_http1(&self) -> bool {
        self.policy.settings.alpn.contains(&Alpn::Http1)
    }

    /// Whether a client whose session was resumed would still be let in by a full handshake. Resuming gives new
    /// tickets, so a client could go on for ever with a certificate that was verified once.
    #[must_use]
    pub fn still_trusts(&self, session: &ServerConnection, now: UnixTime) -> bool {
        let Some(asked) = &self.policy.settings.client_certificates else { return true };
        match session.peer_certificates().and_then(<[_]>::split_first) {
            Some((leaf, others)) => self.policy.verifier.verify_client_cert(leaf, others, now).is_ok(),
            None => !asked.required,
        }
    }

    /// Whether endpoints are told of the client's certificate.
    #[must_use]
    pub fn forwards_certificate(&self) -> bool {
        self.policy.settings.client_certificates.as_ref().is_some_and(|asked| asked.forward)
    }
}

/// Server names of one listener.
pub type ListenerNames = ServerNames<Arc<Presented>>;

/// The TLS side of one listener, kept over reloads: each handshake reads its current names.
#[derive(Debug)]
pub struct ListenerTls {
    names: ArcSwap<ListenerNames>,
}

impl ListenerTls {
    /// What a handshake with this server name presents; `None` when nobody serves that name.
    #[must_use]
    pub fn choose(&self, server_name: Option<&str>) -> Option<Arc<Presented>> {
        self.names.load().find(server_name).cloned()
    }
}

/// The policies of one configuration, and what its TLS listeners present.
#[derive(Debug, Default)]
pub struct TlsPolicies {
    policies: BTreeMap<String, Arc<Policy>>,
    listeners: BTreeMap<String, Entry>,
    /// Number of the next policy.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    tls: Arc<ListenerTls>,
    names: Arc<ListenerNames>,
}

impl TlsPolicies {
    /// Policies and listeners of a model. What `previous` has with the same content is the same one; its listeners
    /// present what they did until [`TlsPolicies::activate`]. Blocks on files.
    ///
    /// # Errors
    /// Every policy that cannot be made: a CA file that is missing, unreadable or empty is never passed over.
    pub fn build(previous: Option<&Self>, model: &Model, store: &CertificateStore) -> Result<Self, Vec<TlsFault>> {
        let mut built = Self { next: previous.map_or(0, |previous| previous.next), ..Self::default() };
        let mut faults = Vec::new();
        for (name, settings) in &model.tls_policies {
            let known = previous.and_then(|previous| previous.policies.get(name));
            match built.policy(name, settings, known) {
                Ok(policy) => drop(built.policies.insert(name.clone(), policy)),
                Err(problem) => faults.push(problem.of_policy(name)),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        built.present(previous, model, store).map_err(|fault| vec![fault])?;
        Ok(built)
    }

    /// The same policies with other certificates.
    ///
    /// # Errors
    /// A certificate that cannot be presented.
    pub fn renewed(&self, model: &Model, store: &CertificateStore) -> Result<Self, TlsFault> {
        let mut renewed = Self { policies: self.policies.clone(), listeners: BTreeMap::new(), next: self.next };
        renewed.present(Some(self), model, store)?;
        Ok(renewed)
    }

    /// What [`TlsPolicies::build`] would complain about, as far as policies go.
    #[must_use]
    pub fn check(model: &Model) -> Vec<TlsFault> {
        let mut scratch = Self::default();
        let mut fault = |(name, settings): (&String, _)| {
            let problem = scratch.policy(name, settings, None).err()?;
            Some(problem.of_policy(name))
        };
        model.tls_policies.iter().filter_map(&mut fault).collect()
    }

    /// Handshakes from now on present what these policies were built with.
    pub fn activate(&self) {
        for Entry { tls, names } in self.listeners.values() {
            tls.names.store(Arc::clone(names));
        }
    }

    /// The TLS side of a listener; `None` when it has none.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Arc<ListenerTls>> {
        self.listeners.get(name).map(|entry| &entry.tls)
    }

    /// What requests are held against.
    #[must_use]
    pub fn identities(&self) -> Identities {
        let policies = self.policies.iter().map(|(name, policy)| (name.clone(), policy.reference.id)).collect();
        Identities { policies, ..Identities::default() }
    }

    fn policy(
        &mut self,
        name: &str,
        settings: &model::TlsPolicy,
        known: Option<&Arc<Policy>>,
    ) -> Result<Arc<Policy>, Problem> {
        let authorities = match &settings.client_certificates {
            Some(asked) => read_chain(&asked.ca)?,
            None => Vec::new(),
        };
        if let Some(known) = known
            && known.settings == *settings
            && known.authorities == authorities
        {
            return Ok(Arc::clone(known));
        }
        let reference = TlsPolicyRef { id: TlsPolicyId(self.next), name: Arc::from(name) };
        self.next += 1;
        Ok(Arc::new(Policy::new(reference, settings, authorities)?))
    }

    /// Lays out the server names of every TLS listener.
    fn present(&mut self, previous: Option<&Self>, model: &Model, store: &CertificateStore) -> Result<(), TlsFault> {
        for listener in store.listeners() {
            let mut made: HashMap<(*const CertifiedKey, TlsPolicyId), Arc<Presented>> = HashMap::new();
            let mut presented = |site: &str| -> Result<Option<Arc<Presented>>, TlsFault> {
                let (Some(certificate), Some(policy)) = (store.site(site), self.policy_of(model, listener, site))
                else {
                    return Ok(None);
                };
                let certificate = &certificate.credentials.key;
                let key = (Arc::as_ptr(certificate), policy.reference.id);
                if let Some(known) = made.get(&key) {
                    return Ok(Some(Arc::clone(known)));
                }
                let config = policy.config(certificate).map_err(|error| unusable(&error).of_site(site))?;
                let new = Arc::new(Presented { config, policy: Arc::clone(policy) });
                made.insert(key, Arc::clone(&new));
                Ok(Some(new))
            };
            let mut hosts = Vec::new();
            for (host, site) in store.hosts(listener) {
                hosts.extend(presented(site)?.map(|presented| (host, presented)));
            }
            let default = store.default_site(listener).map(presented).transpose()?.flatten();
            let names = Arc::new(ServerNames::new(hosts, default, Arc::ptr_eq));
            let kept = previous.and_then(|previous| previous.listener(listener)).cloned();
            let tls = kept.unwrap_or_else(|| Arc::new(ListenerTls { names: ArcSwap::new(Arc::clone(&names)) }));
            self.listeners.insert(listener.to_owned(), Entry { tls, names });
        }
        Ok(())
    }

    fn policy_of(&self, model: &Model, listener: &str, site: &str) -> Option<&Arc<Policy>> {
        let own = model.sites.iter().find(|known| known.name == site).and_then(|site| site.tls_policy.as_ref());
        let shared = || model.listeners.iter().find(|known| known.name == listener).map(|known| &known.tls_policy);
        self.policies.get(own.or_else(shared)?)
    }
}

fn verifier(
    asked: &ClientCertificates,
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
    let roots: RootCertStore = roots_of(authorities, &asked.ca)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if asked.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| {
        Problem::error(&asked.ca, format!("cannot verify clients: {error}"), "give the CA's own certificate")
    })
}

fn provider(settings: &model::TlsPolicy) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: settings.cipher_suites.iter().map(|suite| cipher_suite(*suite)).collect(),
        kx_groups: settings.key_exchange.iter().map(|group| key_exchange(*group)).collect(),
        ..aws_lc_rs::default_provider()
    }
}

fn cipher_suite(suite: CipherSuite) -> SupportedCipherSuite {
    use aws_lc_rs::cipher_suite as known;
    match suite {
        CipherSuite::Aes256Gcm => known::TLS13_AES_256_GCM_SHA384,
        CipherSuite::Aes128Gcm => known::TLS13_AES_128_GCM_SHA256,
        CipherSuite::Chacha20Poly1305 => known::TLS13_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheEcdsaAes256Gcm => known::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheEcdsaAes128Gcm => known::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheEcdsaChacha20Poly1305 => known::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheRsaAes256Gcm => known::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheRsaAes128Gcm => known::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheRsaChacha20Poly1305 => known::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn key_exchange(group: KeyExchange) -> &'static dyn SupportedKxGroup {
    use aws_lc_rs::kx_group as known;
    match group {
        KeyExchange::X25519 => known::X25519,
        KeyExchange::Secp256r1 => known::SECP256R1,
        KeyExchange::Secp384r1 => known::SECP384R1,
        KeyExchange::X25519MlKem768 => known::X25519MLKEM768,
    }
}

const fn wire_name(protocol: Alpn) -> &'static [u8] {
    match protocol {
        Alpn::H2 => b"h2",
        Alpn::Http1 => b"http/1.1",
    }
}

fn unusable(error: &rustls::Error) -> Problem {
    Problem::general(format!("TLS cannot be set up: {error}"), "check the system's random source")
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
