//! A byte stream to a peer, plain or in TLS.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketType};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup, SignatureScheme,
    StreamOwned,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::workload::{Connections, HOST, Protocol, Workload};

/// The stream. On a socket that does not wait, reads and writes fail with `WouldBlock`, and go on with a handshake
/// that is not finished.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Whether the peer's signature in a handshake is checked. It is the dearest part of a handshake, so that a load of
/// handshakes does it only before it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signatures {
    Checked,
    Trusted,
}

impl Transport {
    /// Connects a socket that waits, but not for ever.
    pub(crate) fn connect(port: u16) -> Result<TcpStream> {
        let socket = TcpStream::connect(("127.0.0.1", port)).context("cannot connect")?;
        Self::prepare(&socket)?;
        Ok(socket)
    }

    /// The same from the given address of loopback.
    pub(crate) fn connect_from(source: Ipv4Addr, port: u16) -> Result<TcpStream> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).context("no socket")?;
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))
            .with_context(|| format!("cannot use the address {source}"))?;
        rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).context("cannot connect")?;
        let socket = TcpStream::from(socket);
        Self::prepare(&socket)?;
        Ok(socket)
    }

    /// Lays TLS over the socket when there is a configuration. The handshake happens with the first read and write.
    pub(crate) fn new(socket: TcpStream, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let Some(tls) = tls else { return Ok(Self::Plain(socket)) };
        let name = ServerName::try_from(HOST).context("bad host name")?;
        let session = ClientConnection::new(tls, name).context("cannot start TLS")?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    /// The socket without the state of TLS above it.
    pub(crate) fn into_socket(self) -> TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.into_parts().1,
        }
    }

    /// Whether the peer took up an earlier session. In TLS 1.3 it says so in its first message.
    pub(crate) fn resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Protocol, cipher and key exchange.
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
        let protocol = String::from_utf8_lossy(stream.conn.alpn_protocol().unwrap_or(b"no protocol"));
        Some(format!("{protocol}: {cipher}, {exchange}"))
    }

    fn prepare(socket: &TcpStream) -> Result<()> {
        socket.set_nodelay(true).context("cannot set up a socket")?;
        socket.set_read_timeout(Some(PATIENCE)).context("cannot set up a socket")?;
        socket.set_write_timeout(Some(PATIENCE)).context("cannot set up a socket")
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

/// TLS 1.3 with the one cipher and key exchange that all tables use; `None` for a protocol without TLS. Each call makes
/// a store of tickets of its own, which is used when the workload resumes sessions.
pub(crate) fn client_config(
    workload: Workload,
    certificate: &Path,
    signatures: Signatures,
) -> Result<Option<Arc<ClientConfig>>> {
    let alpn: &[u8] = match workload.protocol() {
        Protocol::Http1 | Protocol::Http2Plain | Protocol::WebSocket => return Ok(None),
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
    let verifier = Pinned { expected, provider: provider.clone(), signatures };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("cannot set up TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = match workload.connections() {
        Connections::Resumed => Resumption::in_memory_sessions(4),
        Connections::Kept | Connections::Fresh => Resumption::disabled(),
    };
    Ok(Some(Arc::new(config)))
}

/// Accepts the certificate the bench made, and no other: it is self-signed, so that no authority can vouch for it.
#[derive(Debug)]
struct Pinned {
    expected: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
    signatures: Signatures,
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
        if self.signatures == Signatures::Trusted {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
