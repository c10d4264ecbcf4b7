//! An origin that speaks HTTP/2 by prior knowledge, keeps the requests it got and answers by a script.
//!
//! It works on streams and frames (the `h2` crate), not on whole messages, so that it can break off where no correct
//! server would: before the head, inside the body, with or without the connection.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::poll_fn;
pub use h2::Reason;
use h2::{RecvStream, SendStream, server};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::wait::wait_for;

/// A recording HTTP/2 origin. It stops, connections included, when it is dropped.
pub struct H2Origin {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    serving: AbortHandle,
}

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct H2Seen {
    /// `:method`.
    pub method: String,
    /// `:path`.
    pub path: String,
    /// `:authority`.
    pub authority: Option<String>,
    /// `:scheme`.
    pub scheme: Option<String>,
    /// The fields.
    pub headers: HeaderMap,
    /// The body, as far as it came before the answer began; an echoed one is not kept.
    pub body: Bytes,
}

/// What an origin does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The request's body back, piece by piece as it comes.
    Echo,
    /// An answer after the whole request.
    Answer(H2Answer),
    /// No answer, and the stream stays open.
    Stall,
    /// A reset in place of an answer.
    Refuse(Reason),
    /// The answer up to the end of its body, then something else than the end.
    Broken(H2Answer, Break),
}

/// How an answer breaks off after its body, where its end should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The stream is reset.
    Reset(Reason),
    /// The whole connection ends.
    Connection,
    /// Nothing more comes.
    Stall,
}

/// An answer in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct H2Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

#[derive(Default)]
struct Kept {
    connections: usize,
    ended: usize,
    requests: Vec<H2Seen>,
}

type Script = dyn Fn(&H2Seen) -> Reply + Send + Sync;

impl H2Origin {
    /// Listens on a free loopback port; `script` says what to do with each request.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(script: impl Fn(&H2Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), script).await
    }

    /// As [`H2Origin::start`], at an address.
    ///
    /// # Panics
    /// When somebody else is there.
    pub async fn start_at(address: SocketAddr, script: impl Fn(&H2Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let (script, shelf): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&kept));
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                lock(&shelf).connections += 1;
                let (shelf, script) = (Arc::clone(&shelf), Arc::clone(&script));
                connections.spawn(async move {
                    serve(stream, &shelf, script).await;
                    lock(&shelf).ended += 1;
                });
            }
        });
        Self { address, kept, serving: serving.abort_handle() }
    }

    /// An origin that says 200 and `name` to everything.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |_| Reply::Answer(H2Answer::new(200).body(name))).await
    }

    /// An origin that gives each body back.
    pub async fn echo() -> Self {
        Self::start(|_| Reply::Echo).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it got.
    pub fn connections(&self) -> usize {
        lock(&self.kept).connections
    }

    /// How many of them have not ended.
    pub fn open_connections(&self) -> usize {
        let kept = lock(&self.kept);
        kept.connections - kept.ended
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<H2Seen> {
        lock(&self.kept).requests.clone()
    }

    /// Waits for the `count`-th request, and returns all.
    ///
    /// # Panics
    /// When it does not come within ten seconds.
    pub async fn requests_at_least(&self, count: usize) -> Vec<H2Seen> {
        let what = format!("request {count} at the HTTP/2 origin");
        wait_for(&what, Duration::from_secs(10), || Some(self.requests()).filter(|seen| seen.len() >= count)).await
    }

    /// The one request that came.
    ///
    /// # Panics
    /// When there was none, or more than one.
    pub fn only_request(&self) -> H2Seen {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "the HTTP/2 origin saw {requests:#?}");
        requests.remove(0)
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl H2Seen {
    fn of(request: &Request<RecvStream>) -> Self {
        let uri = request.uri();
        Self {
            method: request.method().to_string(),
            path: uri.path_and_query().map_or_else(String::new, ToString::to_string),
            authority: uri.authority().map(ToString::to_string),
            scheme: uri.scheme_str().map(str::to_owned),
            headers: request.headers().clone(),
            body: Bytes::new(),
        }
    }

    /// The value of a field, the first one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl H2Answer {
    /// An answer with this status and no body.
    ///
    /// # Panics
    /// When it is no status.
    pub fn new(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("the test names a status");
        Self { status, headers: HeaderMap::new(), body: Bytes::new(), trailers: None }
    }

    /// With one more field.
    ///
    /// # Panics
    /// When it is no correct field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        append(&mut self.headers, name, value);
        self
    }

    /// With this body; nothing says how long it is.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// With one more trailer field.
    ///
    /// # Panics
    /// When it is no correct field.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        append(self.trailers.get_or_insert_default(), name, value);
        self
    }

    fn head(&self) -> Response<()> {
        let mut head = Response::new(());
        *head.status_mut() = self.status;
        *head.headers_mut() = self.headers.clone();
        head
    }
}

fn append(headers: &mut HeaderMap, name: &str, value: &str) {
    let name: HeaderName = name.parse().expect("the test names a header");
    headers.append(name, HeaderValue::from_str(value).expect("the test gives a correct value"));
}

/// Serves one connection until it ends, or until an answer that breaks it.
async fn serve(stream: TcpStream, kept: &Arc<Mutex<Kept>>, script: Arc<Script>) {
    let Ok(mut connection) = server::handshake(stream).await else { return };
    let broken = Arc::new(Notify::new());
    let mut streams = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = broken.notified() => break,
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let (kept, script, broken) = (Arc::clone(kept), Arc::clone(&script), Arc::clone(&broken));
        streams.spawn(async move {
            // An error is the other side's end of the stream, which the test sees there.
            let _ = answer(request, respond, &kept, &*script, &broken).await;
        });
    }
    // What was sent has to leave before the connection is dropped.
    let _ = timeout(FLUSH, connection.accept()).await;
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    kept: &Mutex<Kept>,
    script: &Script,
    broken: &Notify,
) -> Result<(), h2::Error> {
    let mut seen = H2Seen::of(&request);
    let reply = script(&seen);
    let mut body = request.into_body();
    if reply == Reply::Echo {
        lock(kept).requests.push(seen);
        let mut sending = respond.send_response(Response::new(()), false)?;
        while let Some(piece) = next(&mut body).await? {
            send(&mut sending, piece).await?;
        }
        return sending.send_data(Bytes::new(), true);
    }
    let mut whole = Vec::new();
    if reply != Reply::Stall {
        while let Some(piece) = next(&mut body).await? {
            whole.extend_from_slice(&piece);
        }
    }
    seen.body = whole.into();
    lock(kept).requests.push(seen);
    match reply {
        Reply::Echo => unreachable!("answered above"),
        Reply::Stall => std::future::pending().await,
        Reply::Refuse(reason) => respond.send_reset(reason),
        Reply::Answer(answer) => finish(respond, answer).await?,
        Reply::Broken(answer, how) => {
            let mut sending = respond.send_response(answer.head(), false)?;
            send(&mut sending, answer.body).await?;
            match how {
                Break::Reset(reason) => {
                    // A reset overtakes bytes of the same stream that have not left yet.
                    tokio::time::sleep(FLUSH).await;
                    sending.send_reset(reason);
                }
                Break::Connection => {
                    broken.notify_one();
                    std::future::pending::<()>().await;
                }
                Break::Stall => std::future::pending().await,
            }
        }
    }
    Ok(())
}

/// Sends an answer to its end.
async fn finish(mut respond: server::SendResponse<Bytes>, answer: H2Answer) -> Result<(), h2::Error> {
    let is_last = answer.body.is_empty() && answer.trailers.is_none();
    let mut sending = respond.send_response(answer.head(), is_last)?;
    if is_last {
        return Ok(());
    }
    send(&mut sending, answer.body).await?;
    match answer.trailers {
        Some(trailers) => sending.send_trailers(trailers),
        None => sending.send_data(Bytes::new(), true),
    }
}

/// The next piece of a request's body, its window given back.
async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(piece) = body.data().await.transpose()? else { return Ok(None) };
    body.flow_control().release_capacity(piece.len())?;
    Ok(Some(piece))
}

/// Sends bytes as the other side's window allows.
async fn send(sending: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        sending.reserve_capacity(bytes.len());
        let Some(room) = poll_fn(|cx| sending.poll_capacity(cx)).await.transpose()? else { return Ok(()) };
        sending.send_data(bytes.split_to(room.min(bytes.len())), false)?;
    }
    Ok(())
}

// Guards the records only; held while they are copied or added to.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets frames leave before what follows them cuts them off.
const FLUSH: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Ask, Client, Kind};

    async fn script() -> H2Origin {
        H2Origin::start(|seen| match seen.path.as_str() {
            "/echo" => Reply::Echo,
            "/refuse" => Reply::Refuse(Reason::REFUSED_STREAM),
            "/reset" => Reply::Broken(H2Answer::new(200).body("half"), Break::Reset(Reason::INTERNAL_ERROR)),
            "/gone" => Reply::Broken(H2Answer::new(200).body("half"), Break::Connection),
            _ => Reply::Answer(H2Answer::new(203).header("x-by", "origin").body("all").trailer("x-end", "1")),
        })
        .await
    }

    #[tokio::test]
    async fn it_answers_and_keeps_what_it_saw() {
        let origin = script().await;
        let client = Client::new(Kind::H2c, origin.address());
        let answer = client.ask(Ask::post("/a?b", "body").header("x-a", "1")).await;
        answer.assert(203, b"all");
        assert_eq!(answer.header("x-by"), Some("origin"));
        assert_eq!(answer.trailers.expect("trailers")["x-end"], "1");
        let seen = origin.only_request();
        assert_eq!((seen.method.as_str(), seen.path.as_str(), seen.header("x-a")), ("POST", "/a?b", Some("1")));
        assert_eq!((seen.authority.as_deref(), &seen.body[..]), (Some("test.example"), &b"body"[..]));
        let body = vec![b'x'; 1 << 20];
        client.ask(Ask::post("/echo", body.clone())).await.assert(200, &body);
        assert_eq!((origin.connections(), origin.requests().len()), (2, 2));
        let ended =
            wait_for("the end of both", Duration::from_secs(5), || (origin.open_connections() == 0).then_some(()));
        ended.await;
    }

    #[tokio::test]
    async fn it_breaks_off_where_it_is_told() {
        let origin = script().await;
        let client = Client::new(Kind::H2c, origin.address());
        for path in ["/reset", "/gone"] {
            let answer = client.get(path).await;
            assert_eq!((&answer.body[..], answer.is_complete()), (&b"half"[..], false), "{path}");
        }
        assert!(client.send(Ask::get("/refuse")).await.is_err());
        client.get("/").await.assert(203, b"all");
    }
}
