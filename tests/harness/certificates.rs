//! The test certificates of `certs/`, and TLS clients that trust them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::{authority::Identity, binary::repository};

/// A protocol a client offers in the handshake.
pub const H2: &[u8] = b"h2";
/// The other one.
pub const HTTP1: &[u8] = b"http/1.1";

/// Makes aws-lc-rs the crypto provider of this process. To be called first; again is no harm.
pub fn install_crypto() {
    // An error says that somebody installed one before, and in the tests that was us.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// A file of `certs/`.
pub fn file(name: &str) -> PathBuf {
    repository().join("certs").join(name)
}

/// The first certificate of a PEM file.
///
/// # Panics
/// When the file holds none.
pub fn read(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path)
        .unwrap_or_else(|error| panic!("no certificate in '{}': {error}", path.display()))
}

/// Copies `certs/` into `dir`, keys readable for their owner alone: a checkout does not keep that mode.
///
/// # Panics
/// When a file cannot be copied.
pub fn copy_into(dir: &Path) {
    for entry in fs::read_dir(repository().join("certs")).expect("the repository has certs/").flatten() {
        let to = dir.join(entry.file_name());
        fs::copy(entry.path(), &to).expect("the temporary directory takes files");
        let mode = if to.extension().is_some_and(|extension| extension == "key") { 0o600 } else { 0o644 };
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).expect("the copy is ours");
    }
}

/// A client that trusts the test CA and nobody else.
///
/// # Panics
/// When `certs/ca.pem` is not readable.
pub fn trusting_client(protocols: &[&[u8]]) -> Arc<ClientConfig> {
    install_crypto();
    let mut roots = RootCertStore::empty();
    roots.add(read(&file("ca.pem"))).expect("the test CA is a correct certificate");
    offering(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth(), protocols)
}

/// A client that takes any certificate, for tests that look at it themselves.
pub fn curious_client(protocols: &[&[u8]]) -> Arc<ClientConfig> {
    install_crypto();
    let builder = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate));
    offering(builder.with_no_client_auth(), protocols)
}

/// A client of the test CA in every detail: versions, protocols, its own certificate, algorithms.
///
/// # Panics
/// When what it is to speak does not fit together.
pub fn client_speaking(
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
    identity: Option<&Identity>,
    change: impl FnOnce(&mut CryptoProvider),
) -> Arc<ClientConfig> {
    install_crypto();
    let mut provider = aws_lc_rs::default_provider();
    change(&mut provider);
    let mut roots = RootCertStore::empty();
    roots.add(read(&file("ca.pem"))).expect("the test CA is a correct certificate");
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions);
    let builder = builder.expect("the provider speaks these versions").with_root_certificates(roots);
    let config = match identity {
        Some(identity) => {
            let chain = vec![identity.certificate.clone()];
            builder.with_client_auth_cert(chain, identity.key()).expect("the key is the certificate's")
        }
        None => builder.with_no_client_auth(),
    };
    offering(config, protocols)
}

fn offering(mut config: ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = CryptoProvider::get_default();
        provider.map_or_else(Vec::new, |provider| provider.signature_verification_algorithms.supported_schemes())
    }
}
