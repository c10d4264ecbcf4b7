//! gRPC without generated code: messages are texts, and one origin whose methods each show one thing.
//!
//! Client and server are tonic's; between them is whatever a test puts there.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BufMut};
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, task::AbortHandle, task::JoinSet, time::sleep};
use tonic::{
    Request, Response, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    server::StreamingService,
    transport::{Channel, Endpoint},
};

use crate::{
    certificates::{H2, trusting_client},
    client::Kind,
    connect,
};

/// Messages are texts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Text;

/// A gRPC origin. It stops, connections included, when it is dropped.
pub struct GrpcOrigin {
    address: SocketAddr,
    cancelled: Arc<AtomicUsize>,
    serving: AbortHandle,
}

/// What a method answers with.
type Messages = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

impl GrpcOrigin {
    /// Listens on a free loopback port. Its methods, all of the service `test.Echo`:
    ///
    /// - `Each` gives each message back as it comes;
    /// - `Join` gives all of them back in one, once the last has come;
    /// - `Count` counts up to the number in the first message;
    /// - `Metadata` gives back what the caller said beside its messages;
    /// - `Refuse` and `Midway` fail, at once and after two messages;
    /// - `Endless` never stops, and `Silent` never starts.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let cancelled: Arc<AtomicUsize> = Arc::default();
        let counter = Arc::clone(&cancelled);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    let method = Method { path: request.uri().path().to_owned(), cancelled: Arc::clone(&counter) };
                    async move { Ok::<_, Infallible>(tonic::server::Grpc::new(Text).streaming(method, request).await) }
                });
                connections.spawn(async move {
                    // An error is the other side's end of the connection.
                    let _ =
                        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, cancelled, serving: serving.abort_handle() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many answers of `Endless` were given up by their callers.
    pub fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::SeqCst)
    }
}

impl Drop for GrpcOrigin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A client of the edge, over HTTP/2 of either kind.
///
/// # Panics
/// When the edge does not listen, or `kind` is not HTTP/2.
pub async fn client(kind: Kind, address: SocketAddr) -> Grpc<Channel> {
    let scheme = if kind.is_tls() { "https" } else { "http" };
    let origin = format!("{scheme}://test.example").parse().expect("an address");
    // The scheme of the endpoint is what tonic connects by; TLS is ours.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address").origin(origin);
    let connector = tower::service_fn(move |_| async move {
        match kind {
            Kind::H2c => connect::tcp(address).await.map(|stream| Box::new(stream) as Box<dyn connect::Stream>),
            Kind::H2Tls => {
                let stream = connect::tls(address, "test.example", trusting_client(&[H2])).await;
                stream.map(|stream| Box::new(stream) as Box<dyn connect::Stream>)
            }
            Kind::Http1 | Kind::Http1Tls => panic!("gRPC is spoken over HTTP/2"),
        }
        .map(TokioIo::new)
    });
    let channel = endpoint.connect_with_connector(connector).await.expect("the edge listens");
    let mut client = Grpc::new(channel);
    client.ready().await.expect("a connection");
    client
}

/// The path of a method of the origin.
pub fn method(name: &str) -> hyper::http::uri::PathAndQuery {
    format!("/test.Echo/{name}").parse().expect("a path")
}

struct Method {
    path: String,
    cancelled: Arc<AtomicUsize>,
}

impl StreamingService<String> for Method {
    type Response = String;
    type ResponseStream = Messages;
    type Future = BoxFuture<'static, Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        let (name, cancelled) = (self.path.trim_start_matches("/test.Echo/").to_owned(), Arc::clone(&self.cancelled));
        Box::pin(async move {
            let metadata = request.metadata().clone();
            let mut asked = request.into_inner();
            let messages: Messages = match name.as_str() {
                "Each" => Box::pin(asked.map(|message| message.map(|text| format!("echo {text}")))),
                "Join" => {
                    let mut all = Vec::new();
                    while let Some(text) = asked.message().await? {
                        all.push(text);
                    }
                    Box::pin(stream::iter([Ok(all.join(","))]))
                }
                "Count" => {
                    let count = asked.message().await?.and_then(|text| text.parse::<usize>().ok()).unwrap_or_default();
                    Box::pin(stream::iter((0..count).map(|number| Ok(number.to_string()))))
                }
                "Metadata" => Box::pin(stream::iter([Ok(told(&metadata))])),
                "Refuse" => return Err(refusal("not now")),
                "Midway" => {
                    Box::pin(stream::iter([Ok("0".to_owned()), Ok("1".to_owned()), Err(Status::aborted("half way"))]))
                }
                "Endless" => Box::pin(stream::unfold(Cancelled(cancelled), |cancelled| async move {
                    sleep(Duration::from_millis(10)).await;
                    Some((Ok("tick".to_owned()), cancelled))
                })),
                "Silent" => std::future::pending().await,
                _ => {
                    while asked.message().await?.is_some() {}
                    return Err(Status::unimplemented("no such method"));
                }
            };
            Ok(Response::new(messages))
        })
    }
}

/// What the caller said beside its messages.
fn told(metadata: &MetadataMap) -> String {
    let value = |name| metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    format!("timeout {} te {} own {}", value("grpc-timeout"), value("te"), value("x-own"))
}

fn refusal(message: &str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-detail", "spelled out".parse().expect("a value"));
    Status::with_metadata(tonic::Code::FailedPrecondition, message, metadata)
}

struct Cancelled(Arc<AtomicUsize>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, item: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        String::from_utf8(bytes.into()).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
