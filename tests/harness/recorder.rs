//! An origin that keeps the exact bytes of each connection and answers by a script.
//!
//! It reads requests itself, with as little understanding as finds their ends: a head up to the empty line, then a
//! body by content length or chunks. What it did not understand is still in the bytes it kept.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinHandle,
    time::sleep,
};

use crate::{
    raw::{field, fields, find},
    wait::wait_for,
};

/// A recording origin. It stops when it is dropped.
pub struct Recorder {
    address: String,
    kept: Arc<Mutex<Vec<Recorded>>>,
    accepting: JoinHandle<()>,
}

/// What one connection brought so far.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Every byte, in order.
    pub bytes: Vec<u8>,
    /// The requests that were understood.
    pub requests: Vec<Seen>,
    /// Whether the other side has ended the connection.
    pub ended: bool,
    /// Whether the script of the last request is still being followed.
    pub at_work: bool,
}

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Request line and header fields, up to and including the empty line.
    pub head: String,
    /// The body without its framing.
    pub body: Vec<u8>,
}

/// One thing an origin does in answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes one by one with this pause between them.
    Drip(Vec<u8>, Duration),
    /// Waits.
    Pause(Duration),
    /// Does nothing any more but read, and leaves the connection open.
    Stall,
    /// As [`Step::Stall`], and does not even read.
    Deaf,
    /// Ends its direction and reads on.
    HalfClose,
    /// Ends the connection in order.
    Close,
    /// Ends the connection by a reset.
    Reset,
}

/// A free port of loopback.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

type Script = dyn Fn(&Seen) -> Vec<Step> + Send + Sync;

/// When a script is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// When the request is complete.
    Patient,
    /// When its head is; the body is read afterwards.
    Eager,
}

impl Recorder {
    /// Listens on a free loopback port; `script` says what to do with each request. After its last step the
    /// connection takes the next request.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::listen(Manner::Patient, LOOPBACK, script).await
    }

    /// As [`Recorder::start`], at an address.
    ///
    /// # Panics
    /// When somebody else is there.
    pub async fn start_at(address: SocketAddr, script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::listen(Manner::Patient, address, script).await
    }

    /// As [`Recorder::start`], but it follows the script as soon as it has a request's head, and reads the body after the
    /// last step: the script sees none, and [`Seen::body`] stays empty.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start_eager(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::listen(Manner::Eager, LOOPBACK, script).await
    }

    async fn listen(
        manner: Manner,
        address: SocketAddr,
        script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let kept: Arc<Mutex<Vec<Recorded>>> = Arc::default();
        let (script, shelf): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&kept));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(Conversation::new(stream, &shelf, &script).run(manner));
            }
        });
        Self { address, kept, accepting }
    }

    /// As [`Recorder::start`], on a unix socket.
    ///
    /// # Panics
    /// When the path cannot be listened on.
    pub async fn start_unix(path: &Path, script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener =
            UnixListener::bind(path).unwrap_or_else(|error| panic!("cannot listen on '{}': {error}", path.display()));
        let kept: Arc<Mutex<Vec<Recorded>>> = Arc::default();
        let (script, shelf): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&kept));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Conversation::new(stream, &shelf, &script).run(Manner::Patient));
            }
        });
        Self { address: format!("unix:{}", path.display()), kept, accepting }
    }

    /// An origin that gives the same answer to everything.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_| vec![Step::Send(answer.clone())]).await
    }

    /// An origin that says 200 and "ok" to everything.
    pub async fn friendly() -> Self {
        Self::answering(OK).await
    }

    /// Where it listens, as a site file names it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it listens, for a connection of the test's own.
    ///
    /// # Panics
    /// When it listens on a unix socket.
    pub fn socket_address(&self) -> SocketAddr {
        self.address.parse().expect("a TCP recorder has an address")
    }

    /// The connections so far.
    pub fn connections(&self) -> Vec<Recorded> {
        lock(&self.kept).clone()
    }

    /// The bytes of each connection behind the first `marks` of them, and whether it has ended. A connection without a
    /// mark has all of its bytes.
    pub fn bytes_behind(&self, marks: &[usize]) -> Vec<(Vec<u8>, bool)> {
        let marks = marks.iter().copied().chain(std::iter::repeat(0));
        lock(&self.kept).iter().zip(marks).map(|(kept, mark)| (kept.bytes[mark..].to_vec(), kept.ended)).collect()
    }

    /// Whether a script is still being followed on any connection.
    pub fn is_at_work(&self) -> bool {
        lock(&self.kept).iter().any(|kept| kept.at_work)
    }

    /// Targets of the requests that came on the same connection behind the one for `target`.
    pub fn targets_behind(&self, target: &str) -> Vec<String> {
        let kept = lock(&self.kept);
        let behind = kept.iter().find_map(|one| {
            let at = one.requests.iter().position(|seen| seen.target() == target)?;
            Some(one.requests[at + 1..].iter().map(|seen| seen.target().to_owned()).collect())
        });
        behind.unwrap_or_default()
    }

    /// The requests so far, by connection and then in order.
    pub fn requests(&self) -> Vec<Seen> {
        self.connections().into_iter().flat_map(|recorded| recorded.requests).collect()
    }

    /// Waits for the `count`-th request, and returns all.
    ///
    /// # Panics
    /// When it does not come within ten seconds.
    pub async fn requests_at_least(&self, count: usize) -> Vec<Seen> {
        let what = format!("request {count} at the recorder");
        wait_for(&what, Duration::from_secs(10), || Some(self.requests()).filter(|seen| seen.len() >= count)).await
    }

    /// The one request that came.
    ///
    /// # Panics
    /// When there was none, or more than one.
    pub fn only_request(&self) -> Seen {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "the recorder saw {requests:#?}");
        requests.remove(0)
    }

    /// Forgets what came so far; connections that are open go on in the dark.
    pub fn forget(&self) {
        for recorded in lock(&self.kept).iter_mut() {
            recorded.requests.clear();
            recorded.bytes.clear();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Seen {
    /// The first line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The target of the first line.
    pub fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a header field, the first one.
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// All values of a header field.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        fields(&self.head, name).collect()
    }
}

/// One connection of the recorder.
struct Conversation<S> {
    stream: S,
    index: usize,
    kept: Arc<Mutex<Vec<Recorded>>>,
    script: Arc<Script>,
    // Read, and not yet part of a request.
    ahead: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Resettable> Conversation<S> {
    fn new(stream: S, kept: &Arc<Mutex<Vec<Recorded>>>, script: &Arc<Script>) -> Self {
        let index = {
            let mut all = lock(kept);
            all.push(Recorded::default());
            all.len() - 1
        };
        Self { stream, index, kept: Arc::clone(kept), script: Arc::clone(script), ahead: Vec::new() }
    }

    async fn run(mut self, manner: Manner) {
        while let Some(head) = self.head().await {
            let body = if manner == Manner::Patient { self.body(&head).await } else { Some(Vec::new()) };
            let Some(body) = body else { return };
            let seen = Seen { head, body };
            self.note(|recorded| {
                recorded.requests.push(seen.clone());
                recorded.at_work = true;
            });
            let goes_on = self.follow((self.script)(&seen)).await;
            let goes_on = goes_on && (manner == Manner::Patient || self.body(&seen.head).await.is_some());
            self.note(|recorded| recorded.at_work = false);
            if !goes_on {
                return;
            }
        }
    }

    /// Does all steps. False when the conversation is over.
    async fn follow(&mut self, steps: Vec<Step>) -> bool {
        for step in steps {
            if !self.perform(step).await {
                return false;
            }
        }
        true
    }

    /// Does one step. False when the conversation is over.
    async fn perform(&mut self, step: Step) -> bool {
        match step {
            Step::Send(bytes) => return self.stream.write_all(&bytes).await.is_ok(),
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    if self.stream.write_all(&[byte]).await.is_err() {
                        return false;
                    }
                    sleep(pause).await;
                }
            }
            Step::Pause(pause) => sleep(pause).await,
            Step::Stall => {
                while self.more().await {}
                return false;
            }
            Step::Deaf => std::future::pending().await,
            Step::HalfClose => drop(self.stream.shutdown().await),
            Step::Close => {
                let _ = self.stream.shutdown().await;
                return false;
            }
            Step::Reset => {
                self.stream.reset_on_close();
                return false;
            }
        }
        true
    }

    /// The head of the next request; `None` when the connection ends before it is complete.
    async fn head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head: Vec<u8> = self.ahead.drain(..end).collect();
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    /// The body behind `head`; `None` when the connection ends before it is complete.
    async fn body(&mut self, head: &str) -> Option<Vec<u8>> {
        let chunked = field(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        if chunked {
            return self.chunks().await;
        }
        let length = field(head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        self.exactly(length).await
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Some(body);
            }
            body.extend(self.exactly(size).await?);
            self.exactly(2).await?;
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).ok();
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.ahead.drain(..length).collect())
    }

    /// Reads once, and keeps what came. False at the end.
    async fn more(&mut self) -> bool {
        let before = self.ahead.len();
        let read = self.stream.read_buf(&mut self.ahead).await.unwrap_or(0);
        let new = self.ahead[before..].to_vec();
        self.note(|recorded| {
            recorded.bytes.extend_from_slice(&new);
            recorded.ended |= read == 0;
        });
        read > 0
    }

    fn note(&self, change: impl FnOnce(&mut Recorded)) {
        change(&mut lock(&self.kept)[self.index]);
    }
}

// Guards the records only; held while they are copied or added to.
fn lock(kept: &Mutex<Vec<Recorded>>) -> MutexGuard<'_, Vec<Recorded>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream whose close can be made a reset.
trait Resettable {
    fn reset_on_close(&self);
}

impl Resettable for TcpStream {
    fn reset_on_close(&self) {
        let _ = self.set_zero_linger();
    }
}

impl Resettable for tokio::net::UnixStream {
    // A unix socket resets its peer when it is closed with unread bytes, and cannot be asked to otherwise.
    fn reset_on_close(&self) {}
}

/// A whole answer for who does not care.
pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::{End, Raw};

    #[tokio::test]
    async fn it_keeps_the_exact_bytes() {
        let recorder = Recorder::friendly().await;
        let mut raw = Raw::connect(recorder.socket_address()).await;
        let bytes = "POST /x HTTP/1.1\r\nHoSt:  a\r\nX: 1\r\nx: 2\r\nContent-Length: 2\r\n\r\nhi";
        raw.send(bytes).await;
        assert_eq!(raw.read_answer().await.1, b"ok\n");
        let connections = recorder.connections();
        assert_eq!(connections.len(), 1);
        assert_eq!(String::from_utf8_lossy(&connections[0].bytes), bytes);
        let seen = recorder.only_request();
        assert_eq!((seen.target(), seen.header("host"), seen.headers("x")), ("/x", Some("a"), vec!["1", "2"]));
        assert_eq!(seen.body, b"hi");
        assert!(!connections[0].ended);
    }

    #[tokio::test]
    async fn it_finds_the_ends_of_pipelined_bodies() {
        let recorder = Recorder::friendly().await;
        let mut raw = Raw::connect(recorder.socket_address()).await;
        raw.send("PUT /1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nt: 1\r\n\r\n")
            .await;
        raw.send("GET /2 HTTP/1.1\r\n\r\n").await;
        raw.finish().await;
        assert_eq!(raw.read_to_end(Duration::from_secs(5)).await.0, OK.repeat(2).into_bytes());
        let requests = recorder.requests();
        let seen: Vec<_> = requests.iter().map(|seen| (seen.target(), seen.body.as_slice())).collect();
        assert_eq!(seen, [("/1", &b"abcd"[..]), ("/2", b"")]);
        wait_for("the end", Duration::from_secs(5), || recorder.connections()[0].ended.then_some(())).await;
    }

    #[tokio::test]
    async fn it_follows_the_script() {
        let request = "GET / HTTP/1.1\r\n\r\n";
        let second = Duration::from_secs(5);
        for (last, end) in [(Step::Close, End::Closed), (Step::Reset, End::Reset), (Step::HalfClose, End::Closed)] {
            let steps = vec![Step::Drip(b"drip".to_vec(), Duration::from_millis(1)), last.clone()];
            let recorder = Recorder::start(move |_| steps.clone()).await;
            let (read, ended) = Raw::exchange(recorder.socket_address(), request, second).await;
            assert_eq!((read.as_str(), ended), ("drip", end), "{last:?}");
        }
        let recorder = Recorder::start(|_| vec![Step::Stall]).await;
        let ended = Raw::exchange(recorder.socket_address(), request, Duration::from_millis(100)).await;
        assert_eq!(ended, (String::new(), End::Open));
    }

    #[tokio::test]
    async fn an_eager_one_answers_before_the_body() {
        let recorder = Recorder::start_eager(|_| vec![Step::Send(OK.into())]).await;
        let mut raw = Raw::connect(recorder.socket_address()).await;
        raw.send("POST /1 HTTP/1.1\r\ncontent-length: 5\r\n\r\n").await;
        assert_eq!(raw.read_answer().await.1, b"ok\n");
        raw.send("helloGET /2 HTTP/1.1\r\n\r\n").await;
        assert_eq!(raw.read_answer().await.1, b"ok\n");
        let targets: Vec<_> = recorder.requests().iter().map(|seen| seen.target().to_owned()).collect();
        assert_eq!(targets, ["/1", "/2"]);
    }

    #[tokio::test]
    async fn it_listens_on_a_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("origin");
        let recorder = Recorder::start_unix(&path, |_| vec![Step::Send(OK.into()), Step::Close]).await;
        let mut stream = tokio::net::UnixStream::connect(&path).await.expect("somebody listens");
        stream.write_all(b"GET /u HTTP/1.1\r\n\r\n").await.expect("the recorder reads");
        let mut read = String::new();
        stream.read_to_string(&mut read).await.expect("the recorder answers");
        assert_eq!((read.as_str(), recorder.only_request().target()), (OK, "/u"));
    }
}
