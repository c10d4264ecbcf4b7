//! TLS with the servers of upstreams: whom we trust, whom we ask for, what we show.
//!
//! Without a CA of its own an upstream trusts the system's CAs, as read at load: they are kept by the system's updates, hold
//! what an operator added for a company's own CA, and need no release of ours when a CA falls. Certificates built into
//! a program grow old with it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tidegate_config::model::{self, Address, CertificateFiles, Model};
use tidegate_traffic::TransportId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::credentials::{read_chain, read_key_der, roots_of};
use super::fault::{Problem, TlsFault};

/// Sessions kept for one upstream; its servers share a name, or each has its own.
const SESSIONS: usize = 256;
/// Between two lines in the log about one upstream's failing handshakes.
const QUIET: Duration = Duration::from_secs(10);

/// TLS with the servers of one upstream; kept over reloads, with its sessions, as long as its content stays.
#[derive(Debug)]
pub struct UpstreamTls {
    id: TransportId,
    content: Content,
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    /// Guards when a failure was last logged; taken when a handshake fails.
    told: Mutex<Option<Instant>>,
}

/// What makes two of them the same.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    settings: model::UpstreamTls,
    authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
}

impl UpstreamTls {
    /// Identity for pools of connections.
    #[must_use]
    pub fn id(&self) -> TransportId {
        self.id
    }

    /// The client's side of a handshake with a server at `address`, which is asked for as `server_name` of the file, else
    /// as the `host` whose address it is, else as its address. Not cancelled by anything but being dropped.
    ///
    /// # Errors
    /// `InvalidData` when the server is not whom we trust, other kinds when the connection fails.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
        address: &Address,
        host: Option<&str>,
    ) -> io::Result<TlsStream<S>> {
        let name = match (&self.server_name, host, address) {
            (Some(name), ..) => name.clone(),
            (None, Some(host), _) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
            (None, None, Address::Tcp(address)) => ServerName::from(address.ip()),
            // Compile asks for a name where there is no address.
            (None, None, Address::Unix(_)) => return Err(io::Error::other("no server name for a unix socket")),
        };
        TlsConnector::from(Arc::clone(&self.config)).connect(name, socket).await
    }

    /// Whether a failure at `now` is news: many requests meet the same one.
    #[must_use]
    pub fn is_news(&self, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let news = told.is_none_or(|told| now.saturating_duration_since(told) >= QUIET);
        if news {
            *told = Some(now);
        }
        news
    }
}

/// TLS with the servers of all upstreams that have it.
#[derive(Debug, Default)]
pub struct UpstreamTlsSet {
    by_name: BTreeMap<String, Arc<UpstreamTls>>,
    /// Number of the last one.
    last: u64,
}

impl UpstreamTlsSet {
    /// What a model needs; equal content of `previous` is kept. Blocks on files.
    ///
    /// # Errors
    /// Every upstream whose files cannot be used, and a system without CAs where they are needed.
    pub fn build(previous: Option<&Self>, model: &Model) -> Result<Self, Vec<TlsFault>> {
        let mut set = Self { by_name: BTreeMap::new(), last: previous.map_or(0, |previous| previous.last) };
        let mut faults = Vec::new();
        for (name, settings) in with_tls(model) {
            let made = content(settings).and_then(|content| {
                let known = previous.and_then(|previous| previous.by_name.get(name));
                match known.filter(|known| known.content == content) {
                    Some(known) => Ok(Arc::clone(known)),
                    None => set.make(content),
                }
            });
            match made {
                Ok(made) => drop(set.by_name.insert(name.to_owned(), made)),
                Err(problem) => faults.push(problem.of_upstream(name)),
            }
        }
        if faults.is_empty() { Ok(set) } else { Err(faults) }
    }

    /// What [`UpstreamTlsSet::build`] would complain about.
    #[must_use]
    pub fn check(model: &Model) -> Vec<TlsFault> {
        Self::build(None, model).err().unwrap_or_default()
    }

    /// That of an upstream; `None` is plaintext.
    #[must_use]
    pub fn of(&self, upstream: &str) -> Option<&Arc<UpstreamTls>> {
        self.by_name.get(upstream)
    }

    /// Identities by the upstreams' names.
    pub fn ids(&self) -> impl Iterator<Item = (&str, TransportId)> {
        self.by_name.iter().map(|(name, tls)| (name.as_str(), tls.id))
    }

    fn make(&mut self, content: Content) -> Result<Arc<UpstreamTls>, Problem> {
        let config = Arc::new(config(&content)?);
        let server_name = match &content.settings.server_name {
            Some(name) => Some(server_name(name)?),
            None => None,
        };
        self.last += 1;
        let id = TransportId(self.last);
        Ok(Arc::new(UpstreamTls { id, content, config, server_name, told: Mutex::default() }))
    }
}

fn with_tls(model: &Model) -> impl Iterator<Item = (&str, &model::UpstreamTls)> {
    model.upstreams.values().filter_map(|upstream| Some((upstream.name.as_str(), upstream.tls.as_ref()?)))
}

/// Reads the files.
fn content(settings: &model::UpstreamTls) -> Result<Content, Problem> {
    let authorities = match (&settings.ca, settings.verify) {
        (Some(path), true) => read_chain(path)?,
        (None, true) => system_authorities()?,
        (_, false) => Vec::new(),
    };
    let (chain, key) = match &settings.identity {
        Some(CertificateFiles { certificate, key }) => (read_chain(certificate)?, Some(read_key_der(key)?)),
        None => (Vec::new(), None),
    };
    Ok(Content { settings: settings.clone(), authorities, chain, key })
}

fn system_authorities() -> Result<Vec<CertificateDer<'static>>, Problem> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        let problem = format!("this system has no CA certificates to verify servers with{why}");
        return Err(Problem::general(problem, "install ca-certificates, or name the servers' CA: tls: { ca: FILE }"));
    }
    Ok(found.certs)
}

fn config(content: &Content) -> Result<ClientConfig, Problem> {
    let Content { settings, authorities, chain, key } = content;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let unusable = |error: rustls::Error| {
        Problem::general(format!("TLS cannot be set up: {error}"), "check the certificate and its key")
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match (&settings.ca, settings.verify) {
        (_, false) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        (Some(path), true) => builder.with_root_certificates(roots_of(authorities, path)?),
        (None, true) => {
            let mut roots = RootCertStore::empty();
            // A system's store may hold what no verifier takes.
            roots.add_parsable_certificates(authorities.iter().cloned());
            builder.with_root_certificates(roots)
        }
    };
    let mut config = match key {
        Some(key) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(unusable)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

fn server_name(name: &str) -> Result<ServerName<'static>, Problem> {
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if let Ok(address) = address {
        return Ok(ServerName::from(address));
    }
    ServerName::try_from(name.to_owned())
        .map_err(|_| Problem::general(format!("\"{name}\" is no name for TLS"), "write a DNS name or an IP address"))
}

/// Takes every certificate: `verify: false`. That the server holds its key is still verified.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
