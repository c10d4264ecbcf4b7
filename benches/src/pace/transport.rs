//! A non-blocking byte stream to a peer, plain or in TLS.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::{load::HOST, workload::Protocol};

/// The stream; reads and writes fail with `WouldBlock` instead of waiting.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Transport {
    /// Connects, and finishes the handshake when there is a TLS configuration.
    pub(crate) fn open(port: u16, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).context("cannot connect")?;
        socket.set_nodelay(true).context("cannot set up a socket")?;
        socket.set_read_timeout(Some(HANDSHAKE_LIMIT)).context("cannot set up a socket")?;
        let Some(tls) = tls else {
            socket.set_nonblocking(true).context("cannot set up a socket")?;
            return Ok(Self::Plain(socket));
        };
        let name = ServerName::try_from(HOST).context("bad host name")?;
        let mut session = ClientConnection::new(tls.clone(), name).context("cannot start TLS")?;
        while session.is_handshaking() {
            session.complete_io(&mut socket).context("the TLS handshake failed")?;
        }
        if session.alpn_protocol() != tls.alpn_protocols.first().map(Vec::as_slice) {
            bail!("the peer did not choose the offered protocol");
        }
        socket.set_nonblocking(true).context("cannot set up a socket")?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Cipher and key exchange in h2load's words, so that both tables compare.
    pub(crate) fn negotiated(&self) -> Option<String> {
        let Self::Tls(stream) = self else { return None };
        let cipher = match stream.conn.negotiated_cipher_suite()?.suite() {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256".to_owned(),
            other => format!("{other:?}"),
        };
        let exchange = match stream.conn.negotiated_key_exchange_group()?.name() {
            NamedGroup::X25519 => "X25519 253 bits".to_owned(),
            other => format!("{other:?}"),
        };
        Some(format!("{cipher}, {exchange}"))
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// TLS 1.3 with the one cipher and key exchange that all tables use; `None` for a protocol without TLS.
pub(crate) fn client_config(protocol: Protocol, certificate: &Path) -> Result<Option<Arc<ClientConfig>>> {
    let alpn: &[u8] = match protocol {
        Protocol::Http1 | Protocol::Http2Plain => return Ok(None),
        Protocol::Http1Tls => b"http/1.1",
        Protocol::Http2Tls => b"h2",
    };
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    });
    let expected = CertificateDer::from_pem_file(certificate)
        .with_context(|| format!("cannot read the certificate '{}'", certificate.display()))?;
    let verifier = Pinned { expected, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("cannot set up TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Some(Arc::new(config)))
}

/// Accepts the certificate the bench made, and no other: it is self-signed, so that no authority can vouch for it.
#[derive(Debug)]
struct Pinned {
    expected: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _stapled: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *presented == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("another certificate than the one of the bench".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
