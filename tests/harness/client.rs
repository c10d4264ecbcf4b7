//! Four HTTP clients in one enum, so that a test asks the same through all of them: HTTP/1.1 and HTTP/2, each on plain
//! TCP and on TLS.
//!
//! An answer that was cut short is an answer here, not an error: whether a client can see the cut is what many
//! tests are about.

use std::{convert::Infallible, fmt, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream as Items, StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, StatusCode, Uri, Version,
    body::{Body as HttpBody, Frame, Incoming},
    client::conn::{http1, http2},
    header::{HOST, HeaderMap, HeaderName, HeaderValue},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    certificates::{H2, HTTP1, trusting_client},
    connect::{self, Stream},
};

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1 on TCP.
    Http1,
    /// HTTP/1.1 on TLS.
    Http1Tls,
    /// HTTP/2 on TCP, by prior knowledge.
    H2c,
    /// HTTP/2 on TLS, by ALPN.
    H2Tls,
}

/// A client of one listener. It opens a connection for each request unless a test takes one by [`Client::connect`].
#[derive(Debug, Clone, Copy)]
pub struct Client {
    kind: Kind,
    address: SocketAddr,
}

/// An open connection.
pub struct Connection {
    sender: Sender,
    scheme: &'static str,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A request in the making. Its host is `test.example` unless said otherwise.
#[derive(Debug)]
pub struct Ask {
    method: Method,
    target: String,
    host: String,
    headers: HeaderMap,
    body: Body,
    limit: Duration,
}

/// The body of a request.
pub type Body = BoxBody<Bytes, Infallible>;

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The final status.
    pub status: StatusCode,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body as far as it came.
    pub body: Bytes,
    /// The trailer fields, if any came.
    pub trailers: Option<HeaderMap>,
    /// Whether the body came to its proper end.
    pub ending: Ending,
}

/// How a body ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// As its framing promised.
    Complete,
    /// Before that, and the client can tell.
    Cut(String),
}

/// An answer whose body is still coming.
pub struct Coming {
    /// The final status.
    pub status: StatusCode,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The header fields.
    pub headers: HeaderMap,
    body: Incoming,
}

impl Kind {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Http1, Self::Http1Tls, Self::H2c, Self::H2Tls];

    /// The listener of [`crate::site::LISTENERS`] that speaks it.
    pub fn listener(self) -> &'static str {
        match self {
            Self::Http1 => "plain",
            Self::H2c => "h2c",
            Self::Http1Tls | Self::H2Tls => "tls",
        }
    }

    /// Whether it is HTTP/2.
    pub fn is_h2(self) -> bool {
        matches!(self, Self::H2c | Self::H2Tls)
    }

    /// Whether it is on TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Http1Tls | Self::H2Tls)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http1Tls => "HTTP/1.1 on TLS",
            Self::H2c => "HTTP/2",
            Self::H2Tls => "HTTP/2 on TLS",
        })
    }
}

impl Client {
    /// A client of this kind for the listener at `address`.
    pub fn new(kind: Kind, address: SocketAddr) -> Self {
        Self { kind, address }
    }

    /// What it speaks.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it connects to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a connection. On TLS the server must have a certificate for `test.example` by the test CA, and speak
    /// what was asked for.
    pub async fn connect(&self) -> Result<Connection> {
        self.connect_as(DEFAULT_HOST).await
    }

    /// As [`Client::connect`], with `name` as the server name in the handshake.
    pub async fn connect_as(&self, name: &str) -> Result<Connection> {
        match self.kind {
            Kind::Http1 => Connection::http1(connect::tcp(self.address).await?).await,
            Kind::H2c => Connection::http2(connect::tcp(self.address).await?).await,
            Kind::Http1Tls => {
                let stream = connect::tls(self.address, name, trusting_client(&[HTTP1])).await?;
                Ok(Connection { scheme: "https", ..Connection::http1(stream).await? })
            }
            Kind::H2Tls => {
                let stream = connect::tls(self.address, name, trusting_client(&[H2])).await?;
                if stream.get_ref().1.alpn_protocol() != Some(H2) {
                    bail!("the server does not agree to HTTP/2");
                }
                Ok(Connection { scheme: "https", ..Connection::http2(stream).await? })
            }
        }
    }

    /// Sends one request on a connection of its own, and reads the answer to its end.
    pub async fn send(&self, ask: Ask) -> Result<Answer> {
        let name = self.name_for(&ask);
        self.connect_as(&name).await?.send(ask).await.with_context(|| format!("over {}", self.kind))
    }

    /// `GET target`.
    ///
    /// # Panics
    /// When there is no answer at all.
    pub async fn get(&self, target: &str) -> Answer {
        self.ask(Ask::get(target)).await
    }

    /// As [`Client::send`].
    ///
    /// # Panics
    /// When there is no answer at all.
    pub async fn ask(&self, ask: Ask) -> Answer {
        let what = ask.to_string();
        self.send(ask).await.unwrap_or_else(|error| panic!("no answer to {what}: {error:#}"))
    }

    /// The name for the handshake: that of the request where the certificate has it.
    fn name_for(&self, ask: &Ask) -> String {
        let host = ask.host.split(':').next().unwrap_or_default();
        let covered = ["localhost", DEFAULT_HOST].contains(&host) || host.ends_with(&format!(".{DEFAULT_HOST}"));
        if covered { host.to_owned() } else { DEFAULT_HOST.to_owned() }
    }
}

impl Connection {
    /// Speaks HTTP/1.1 on `stream`.
    pub async fn http1(stream: impl Stream) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender: Sender::Http1(sender), scheme: "http" })
    }

    /// Speaks HTTP/2 on `stream`.
    pub async fn http2(stream: impl Stream) -> Result<Self> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender: Sender::Http2(sender), scheme: "http" })
    }

    /// Sends a request and reads the answer to its end.
    pub async fn send(&mut self, ask: Ask) -> Result<Answer> {
        let (what, limit) = (ask.to_string(), ask.limit);
        let whole = async { Ok::<_, anyhow::Error>(self.start(ask).await?.rest().await) };
        timeout(limit, whole).await.with_context(|| format!("{what}: no whole answer within {limit:?}"))?
    }

    /// Sends a request and returns when the head of the answer is there.
    pub async fn start(&mut self, ask: Ask) -> Result<Coming> {
        let (what, limit) = (ask.to_string(), ask.limit);
        let response = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(ask.for_http1()?).await.map_err(anyhow::Error::from)
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(ask.for_http2(self.scheme)?).await.map_err(anyhow::Error::from)
                }
            }
        };
        let response = timeout(limit, response).await.with_context(|| format!("{what}: no head within {limit:?}"))?;
        let (head, body) = response.context(what)?.into_parts();
        Ok(Coming { status: head.status, version: head.version, headers: head.headers, body })
    }

    /// Whether the other side, or an error, has ended it.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Ask {
    /// A request with this method.
    ///
    /// # Panics
    /// When `method` is no token.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.parse().expect("the test names a method"),
            target: target.to_owned(),
            host: DEFAULT_HOST.to_owned(),
            headers: HeaderMap::new(),
            body: Full::default().boxed(),
            limit: ANSWER_LIMIT,
        }
    }

    /// `GET target`.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// `POST target` with a body of known length.
    pub fn post(target: &str, body: impl Into<Bytes>) -> Self {
        Self::new("POST", target).body(Full::new(body.into()))
    }

    /// `PUT target` with a body of known length.
    pub fn put(target: &str, body: impl Into<Bytes>) -> Self {
        Self::new("PUT", target).body(Full::new(body.into()))
    }

    /// `POST target` with a body that comes in pieces and does not say how long it will be.
    pub fn post_pieces(target: &str, pieces: Vec<Bytes>) -> Self {
        Self::post_stream(target, stream::iter(pieces))
    }

    /// As [`Ask::post_pieces`], with `pause` before each piece but the first.
    pub fn post_slowly(target: &str, pieces: Vec<Bytes>, pause: Duration) -> Self {
        let slow = stream::iter(pieces).enumerate().then(move |(index, piece)| async move {
            if index > 0 {
                sleep(pause).await;
            }
            piece
        });
        Self::post_stream(target, slow)
    }

    /// `POST target` with a body a test makes while the answer is read.
    pub fn post_stream(target: &str, pieces: impl Items<Item = Bytes> + Send + Sync + 'static) -> Self {
        Self::new("POST", target).body(StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))))
    }

    /// `POST target` with a body a test sends piece by piece; it ends when the sender is dropped.
    pub fn post_channel(target: &str) -> (Self, mpsc::Sender<Bytes>) {
        let (sender, mut receiver) = mpsc::channel(1);
        (Self::post_stream(target, stream::poll_fn(move |cx| receiver.poll_recv(cx))), sender)
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl HttpBody<Data = Bytes, Error = Infallible> + Send + Sync + 'static) -> Self {
        self.body = body.boxed();
        self
    }

    /// For this host, port included where there is one.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// With one more header field; the same name may stand twice.
    ///
    /// # Panics
    /// When it is no correct field: a test that sends wrong ones writes raw bytes.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("the test names a header");
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("the test gives a correct value");
        self.headers.append(name, value);
        self
    }

    /// How long the whole exchange may take.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    fn for_http1(self) -> Result<Request<Body>> {
        let uri: Uri = self.target.parse().with_context(|| format!("'{}' is no target", self.target))?;
        let mut request = Request::new(self.body);
        (*request.method_mut(), *request.uri_mut()) = (self.method, uri);
        request.headers_mut().insert(HOST, HeaderValue::from_str(&self.host)?);
        request.headers_mut().extend(self.headers);
        Ok(request)
    }

    fn for_http2(self, scheme: &str) -> Result<Request<Body>> {
        let uri = format!("{scheme}://{}{}", self.host, self.target);
        let mut request = Request::new(self.body);
        (*request.method_mut(), *request.uri_mut()) = (self.method, uri.parse().context(uri)?);
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        Ok(request)
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} for {}", self.method, self.target, self.host)
    }
}

impl Answer {
    /// The value of a header field, the first one where there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// Whether the body came to its proper end.
    pub fn is_complete(&self) -> bool {
        self.ending == Ending::Complete
    }

    /// # Panics
    /// When status or body differ, or the body was cut.
    pub fn assert(&self, status: u16, body: &[u8]) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.ending, Ending::Complete, "after {} bytes", self.body.len());
        if self.body != body {
            let same = self.body.iter().zip(body).take_while(|(ours, theirs)| ours == theirs).count();
            panic!("another body: {} bytes instead of {}, different from byte {same}", self.body.len(), body.len());
        }
    }
}

impl Coming {
    /// The next piece of the body; `None` at its proper end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = timeout(ANSWER_LIMIT, self.body.frame()).await.context("no more of the body")?;
            match frame.transpose()?.map(Frame::into_data) {
                None => return Ok(None),
                Some(Ok(data)) if !data.is_empty() => return Ok(Some(data)),
                // HTTP/2 ends with an empty frame, or with trailers.
                Some(_) => {}
            }
        }
    }

    /// Reads to the end, whichever that is.
    pub async fn rest(mut self) -> Answer {
        let mut body = BytesMut::new();
        let mut trailers = None;
        let ending = loop {
            match self.body.frame().await {
                None => break Ending::Complete,
                Some(Err(error)) => break Ending::Cut(error.to_string()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        };
        Answer {
            status: self.status,
            version: self.version,
            headers: self.headers,
            body: body.freeze(),
            trailers,
            ending,
        }
    }
}

/// The name requests ask for, covered by the test certificate.
pub const DEFAULT_HOST: &str = "test.example";

const ANSWER_LIMIT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::{
        Response,
        server::conn::{http1 as server1, http2 as server2},
        service::service_fn,
    };
    use rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, pem::PemObject},
    };
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::certificates::{self, install_crypto};

    /// A server that echoes, for clients of this kind.
    async fn echo_server(kind: Kind) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let tls = TlsAcceptor::from(server_config(kind));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    if !kind.is_tls() {
                        serve(kind, stream).await;
                    } else if let Ok(stream) = tls.accept(stream).await {
                        serve(kind, stream).await;
                    }
                });
            }
        });
        address
    }

    fn server_config(kind: Kind) -> Arc<ServerConfig> {
        install_crypto();
        let certificate = certificates::read(&certificates::file("server.pem"));
        let key = PrivateKeyDer::from_pem_file(certificates::file("server.key")).expect("the test key is correct");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        let mut config = config.expect("key and certificate belong together");
        config.alpn_protocols = vec![if kind.is_h2() { H2.to_vec() } else { HTTP1.to_vec() }];
        Arc::new(config)
    }

    async fn serve(kind: Kind, stream: impl Stream) {
        let service = service_fn(|request: Request<Incoming>| async move {
            let said = format!("{:?} {}", request.version(), request.uri().path());
            Response::builder().header("x-said", said).body(request.into_body())
        });
        let _ = if kind.is_h2() {
            server2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
        } else {
            server1::Builder::new().serve_connection(TokioIo::new(stream), service).await
        };
    }

    #[tokio::test]
    async fn each_client_speaks_its_protocol() {
        for (kind, version) in [
            (Kind::Http1, "HTTP/1.1"),
            (Kind::Http1Tls, "HTTP/1.1"),
            (Kind::H2c, "HTTP/2.0"),
            (Kind::H2Tls, "HTTP/2.0"),
        ] {
            let client = Client::new(kind, echo_server(kind).await);
            let answer = client.ask(Ask::post("/x?y", "hello")).await;
            answer.assert(200, b"hello");
            assert_eq!(answer.header("x-said"), Some(format!("{version} /x").as_str()), "{kind}");
            assert_eq!(format!("{:?}", answer.version), version, "{kind}");
            let (ask, sender) = Ask::post_channel("/");
            let mut answer = client.connect().await.expect("it listens").start(ask).await.expect("a head");
            for piece in ["one", "two"] {
                sender.send(Bytes::from(piece)).await.expect("the client reads");
                assert_eq!(answer.piece().await.expect("a piece").as_deref(), Some(piece.as_bytes()), "{kind}");
            }
            drop(sender);
            assert_eq!(answer.piece().await.expect("a proper end"), None, "{kind}");
        }
    }

    #[tokio::test]
    async fn a_client_on_tls_trusts_the_test_ca_alone() {
        let client = Client::new(Kind::Http1Tls, echo_server(Kind::Http1Tls).await);
        assert!(client.connect_as("a.test.example").await.is_ok());
        assert!(client.connect_as("other.example").await.is_err(), "the certificate has another name");
        let h2 = Client::new(Kind::H2Tls, client.address());
        assert!(h2.connect().await.is_err(), "the server does not speak HTTP/2");
    }

    #[tokio::test]
    async fn a_cut_body_is_an_answer_that_says_so() {
        use crate::{
            fault::{Fault, cut},
            recorder::Recorder,
        };
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789";
        let recorder = Recorder::start(|_| cut(answer, answer.len() - 3, &Fault::Fin)).await;
        let answer = Client::new(Kind::Http1, recorder.socket_address()).get("/").await;
        assert!(!answer.is_complete());
        assert_eq!(answer.body, "0123456");
    }
}
