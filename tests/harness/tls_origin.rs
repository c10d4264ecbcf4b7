//! An HTTP/1.1 origin on TLS that tells whom it met, and ends its answers in good and bad ways.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    HandshakeKind, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    authority::{Authority, Identity},
    certificates::install_crypto,
};

/// See the module's text. It ends when it is dropped.
///
/// `/until-close` is a body that ends with the connection, `/cut` the same without a farewell, `/length` says how long the
/// request's body was; everything else is `ok`.
pub struct TlsOrigin {
    address: SocketAddr,
    met: Arc<Mutex<Vec<Met>>>,
    task: JoinHandle<()>,
}

/// A connection whose handshake was completed.
#[derive(Debug, Clone)]
pub struct Met {
    /// The name that was asked for.
    pub server_name: Option<String>,
    /// What the client showed.
    pub certificate: Option<CertificateDer<'static>>,
    /// Whether it resumed a session.
    pub resumed: bool,
}

impl TlsOrigin {
    /// Shows `identity`; asks for a certificate of `clients`, if given.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(identity: &Identity, clients: Option<&Authority>) -> Self {
        install_crypto();
        let builder = match clients {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let authority = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("it is PEM");
                roots.add(authority).expect("it is a CA");
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("there is a CA");
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
            None => ServerConfig::builder().with_no_client_auth(),
        };
        let config = builder.with_single_cert(vec![identity.certificate.clone()], identity.key());
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("the key is the certificate's")));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let met = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&met);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, Arc::clone(&seen)));
            }
        });
        Self { address, met, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its connections so far.
    pub fn met(&self) -> Vec<Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for TlsOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, met: Arc<Mutex<Vec<Met>>>) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let session = stream.get_ref().1;
    met.lock().unwrap_or_else(PoisonError::into_inner).push(Met {
        server_name: session.server_name().map(str::to_owned),
        certificate: session.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned()),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    });
    // A client that leaves ends this.
    while let Some((target, length)) = request(&mut stream).await {
        let until_close = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello";
        let answered = match target.as_str() {
            "/until-close" => {
                let _ = stream.write_all(until_close.as_bytes()).await;
                let _ = stream.shutdown().await;
                return;
            }
            "/cut" => {
                let _ = stream.write_all(until_close.as_bytes()).await;
                let _ = stream.flush().await;
                return;
            }
            "/length" => stream.write_all(ok(&length.to_string()).as_bytes()).await,
            _ => stream.write_all(ok("ok").as_bytes()).await,
        };
        if answered.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The target of the next request, and the length of its body, which is read and dropped.
async fn request(stream: &mut TlsStream<TcpStream>) -> Option<(String, usize)> {
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    let target = text.split(' ').nth(1)?.to_owned();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    let mut rest = head + length - read.len().min(head + length);
    let mut buffer = vec![0; 64 << 10];
    while rest > 0 {
        let part = rest.min(buffer.len());
        rest -= stream.read(&mut buffer[..part]).await.ok().filter(|count| *count > 0)?;
    }
    Some((target, length))
}
