//! What lasts, WebSockets and long streams, counts apart from requests; and an endpoint never has more connections than places.

use std::{
    collections::HashMap,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tidegate_tests::{
    client::{Answer, Ask, Client, Coming, Kind},
    drill::{amount, say, seed},
    edge::{Edge, Home},
    every_client,
    random::Random,
    recorder::{OK, Recorder, Step},
    site::Site,
    wait::{wait_for, wait_until},
    websocket::WebSocket,
};
use tokio::{task::JoinSet, time::timeout};

every_client! {
    a_long_stream_lets_others_pass,
    a_stream_without_a_place_of_its_own_keeps_that_of_a_request,
    a_worker_streams_and_serves,
}

const LIMIT: Duration = Duration::from_secs(10);
const STREAM_AFTER: Duration = Duration::from_millis(400);

/// A server whose `/stream` goes on for a minute, and which answers the rest at once.
async fn streaming() -> Recorder {
    Recorder::start(|seen| match seen.target() {
        "/stream" => {
            let begin = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
            // It goes on, so that a client that has left is noticed.
            vec![Step::Send(begin.to_vec()), Step::Drip(b"1\r\nx\r\n".repeat(2_000), Duration::from_millis(5))]
        }
        _ => vec![Step::Send(OK.into())],
    })
    .await
}

async fn edge_before(origin: &Recorder, more: &str) -> Edge {
    let app = format!("servers: [{{ address: \"{}\" }}]\nmax_in_flight_per_endpoint: 1\n{more}", origin.address());
    Edge::start(Site::proxy(&app)).await
}

/// Opens a stream, and has its first bytes.
async fn open_stream(client: Client, target: &str) -> Coming {
    let mut connection = client.connect().await.expect("a connection");
    let mut coming = connection.start(Ask::get(target)).await.expect("a head");
    assert!(coming.piece().await.expect("a piece").is_some());
    coming
}

/// What the status says of the only endpoint: in flight, and tunnels.
async fn counts(edge: &Edge) -> (u64, u64) {
    let status = edge.status().await;
    let endpoint = &status["upstreams"][0]["endpoints"][0];
    (endpoint["in_flight"].as_u64().unwrap_or(99), endpoint["tunnels"].as_u64().unwrap_or(99))
}

async fn until_counts(edge: &Edge, wanted: (u64, u64)) {
    wait_until(&format!("{wanted:?}"), LIMIT, async || (counts(edge).await == wanted).then_some(())).await;
}

async fn a_long_stream_lets_others_pass(kind: Kind) {
    let origin = streaming().await;
    let edge = edge_before(&origin, "max_tunnels: 1\nstream_after: 400ms").await;
    let asked = Instant::now();
    let stream = open_stream(edge.client(kind), "/stream").await;
    assert_eq!(counts(&edge).await, (1, 0));
    edge.client(kind).get("/").await.assert(200, b"ok\n");
    assert!(asked.elapsed() >= STREAM_AFTER, "the one place was taken until then: {:?}", asked.elapsed());
    assert_eq!(counts(&edge).await, (0, 1));
    edge.client(kind).get("/").await.assert(200, b"ok\n");
    drop(stream);
    until_counts(&edge, (0, 0)).await;
}

async fn a_stream_without_a_place_of_its_own_keeps_that_of_a_request(kind: Kind) {
    let origin = streaming().await;
    let edge = edge_before(&origin, "max_tunnels: 1\nstream_after: 400ms\nqueue: { wait: 1500ms }").await;
    let first = open_stream(edge.client(kind), "/stream").await;
    until_counts(&edge, (0, 1)).await;
    let second = open_stream(edge.client(kind), "/stream").await;
    let waited = edge.client(kind).get("/").await;
    assert_eq!((waited.status.as_u16(), waited.header("x-tidegate-reason")), (503, Some("queue_timeout")));
    assert_eq!(counts(&edge).await, (1, 1));
    // It moves once there is room.
    drop(first);
    edge.client(kind).get("/").await.assert(200, b"ok\n");
    until_counts(&edge, (0, 1)).await;
    drop(second);
    until_counts(&edge, (0, 0)).await;
}

async fn a_worker_streams_and_serves(kind: Kind) {
    let app = "workers:\n  command: [\"@demo@\", --uds, \"{socket}\"]\n  count: 1\n  cap: 1\nstream_after: 500ms";
    let edge = Edge::start(Site::proxy(app)).await;
    edge.ready_workers("app", 1).await;
    let mut stream = open_stream(edge.client(kind), "/stream?n=1000&ms=30").await;
    for _ in 0..3 {
        edge.client(kind).get("/tiny").await.assert(200, b"hello, world\n");
    }
    assert!(stream.piece().await.expect("it goes on").is_some());
    drop(stream);
    until_counts(&edge, (0, 0)).await;
}

// Once: an upgrade is HTTP/1.1, here on TCP and on TLS.
#[tokio::test]
async fn websockets_have_places_of_their_own() {
    let app = "workers:\n  command: [\"@demo@\", --uds, \"{socket}\"]\n  count: 2\n  cap: 1\nmax_tunnels: 1";
    let edge = Edge::start(Site::proxy(app)).await;
    edge.ready_workers("app", 2).await;
    for kind in [Kind::Http1, Kind::Http1Tls] {
        let client = edge.client(kind);
        let mut sockets = Vec::new();
        for _ in 0..2 {
            sockets.push(WebSocket::connect(client, "/ws").await.expect("each worker takes one"));
        }
        let refused = client.ask(upgrade()).await;
        assert_eq!((refused.status.as_u16(), refused.header("x-tidegate-reason")), (503, Some("tunnels_full")));
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        client.get("/tiny").await.assert(200, b"hello, world\n");
        for socket in &mut sockets {
            socket.assert_echo("still there").await;
        }
        sockets.pop();
        let again = async || WebSocket::connect(client, "/ws").await.ok();
        sockets.push(wait_until("a place", LIMIT, again).await);
        drop(sockets);
        wait_until("no tunnel", LIMIT, async || {
            let status = edge.status().await;
            let endpoints = status["upstreams"][0]["endpoints"].as_array()?;
            endpoints.iter().all(|endpoint| endpoint["tunnels"] == 0).then_some(())
        })
        .await;
    }
}

fn upgrade() -> Ask {
    [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    .into_iter()
    .fold(Ask::get("/ws"), |ask, (name, value)| ask.header(name, value))
}

// Once: all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_never_exceed_the_places() {
    connections_are_counted(Duration::from_secs(3)).await;
}

// Once: all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn connections_never_exceed_the_places_for_a_minute() {
    connections_are_counted(Duration::from_secs(amount("TIDEGATE_DRILL_SECONDS", 60) as u64)).await;
}

/// Requests, streams, WebSockets and clients that leave, on two shards, before a server that counts its connections.
async fn connections_are_counted(time: Duration) {
    const CAP: usize = 3;
    const TUNNELS: usize = 2;
    let home = tempfile();
    let origin = Counting::start(&home.path().join("origin.sock"));
    let app = format!(
        "servers: [{{ address: \"unix:{}\" }}]\nmax_in_flight_per_endpoint: {CAP}\nmax_tunnels: {TUNNELS}\nstream_after: 20ms\n\
         queue: {{ wait: 30s, order: fifo }}\nejection: off",
        origin.path.display()
    );
    let server = "server: { shards: 2, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }";
    let edge = Arc::new(Edge::start(Site::proxy(&app).and(server)).await);
    let seed = seed();
    let until = Instant::now() + time;
    let mut clients = JoinSet::new();
    for number in 0..24 {
        let (edge, random) = (Arc::clone(&edge), Random::of(seed, number));
        clients.spawn(async move { visit(&edge, random, until).await });
    }
    let (mut served, mut wrong) = (0, Vec::new());
    while let Some(visited) = clients.join_next().await {
        let (count, problems) = visited.expect("no panic");
        served += count;
        wrong.extend(problems);
    }
    let most = origin.most();
    say(format_args!("seed {seed}: {served} answers, {} wrong, {most} connections at the most", wrong.len()));
    assert!(wrong.is_empty(), "seed {seed}: {} wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(served > 100, "{served}");
    // One for each place, and one that is closing.
    assert!((CAP..=CAP + TUNNELS + 1).contains(&most), "seed {seed}: {most} connections");
    wait_until("nothing under way", LIMIT, async || (counts(&edge).await == (0, 0)).then_some(())).await;
    wait_for("the connections to close", LIMIT, || (origin.open() <= CAP + TUNNELS + 1).then_some(())).await;
}

/// One client after another, until it is time.
async fn visit(edge: &Edge, mut random: Random, until: Instant) -> (u64, Vec<String>) {
    let (mut served, mut wrong) = (0, Vec::new());
    while Instant::now() < until {
        let client = edge.client(Kind::ALL[random.within(0..4)]);
        match random.within(0..10) {
            // It leaves in the middle.
            0 => drop(
                timeout(Duration::from_millis(random.within(0..40) as u64), client.send(Ask::get("/stream"))).await,
            ),
            1 if !client.kind().is_h2() => drop(client.send(upgrade()).await),
            2 => match client.send(Ask::get("/stream")).await {
                Ok(answer) if is_right(&answer, b"streamed") => served += 1,
                other => wrong.push(format!("stream: {other:?}")),
            },
            _ => match client.send(Ask::get("/")).await {
                Ok(answer) if is_right(&answer, b"ok\n") => served += 1,
                other => wrong.push(format!("{other:?}")),
            },
        }
    }
    (served, wrong)
}

fn is_right(answer: &Answer, body: &[u8]) -> bool {
    answer.status == 200 && answer.is_complete() && answer.body == body
}

/// A directory of its own.
fn tempfile() -> Home {
    Home::new(&Site::proxy_to("127.0.0.1:9"))
}

/// A server on one thread that knows at each moment how many connections are open: before it takes one it looks at all others.
struct Counting {
    path: PathBuf,
    most: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a connection has sent, and what it is owed.
#[derive(Default)]
struct Conversation {
    read: Vec<u8>,
    /// Bytes that are due then.
    owed: Vec<(Instant, Vec<u8>)>,
    upgraded: bool,
}

impl Counting {
    fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("the path is free");
        listener.set_nonblocking(true).expect("a socket");
        let (most, open, stop) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        let told = (Arc::clone(&most), Arc::clone(&open), Arc::clone(&stop));
        let thread = thread::spawn(move || serve(&listener, &told.0, &told.1, &told.2));
        Self { path: path.to_owned(), most, open, stop, thread: Some(thread) }
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

fn serve(listener: &UnixListener, most: &AtomicUsize, count: &AtomicUsize, stop: &AtomicBool) {
    let mut open: HashMap<u64, (UnixStream, Conversation)> = HashMap::new();
    let mut next = 0;
    while !stop.load(Ordering::SeqCst) {
        let taken = listener.accept().ok().map(|(stream, _)| stream);
        // Whoever has closed did so before the next one was made.
        open.retain(|_, (stream, conversation)| conversation.go_on(stream));
        if let Some(stream) = taken {
            stream.set_nonblocking(true).expect("a socket");
            next += 1;
            open.insert(next, (stream, Conversation::default()));
            most.fetch_max(open.len(), Ordering::SeqCst);
        } else {
            thread::sleep(Duration::from_micros(200));
        }
        count.store(open.len(), Ordering::SeqCst);
    }
}

impl Conversation {
    /// False when the other side has left.
    fn go_on(&mut self, stream: &mut UnixStream) -> bool {
        let mut piece = [0; 4_096];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(count) => self.read.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        let now = Instant::now();
        if !self.upgraded
            && let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
            self.read.drain(..end + 4);
            self.answer(&head, now);
        }
        while let Some((due, bytes)) = self.owed.first()
            && *due <= now
        {
            let sent = stream.write_all(bytes).is_ok();
            self.owed.remove(0);
            if !sent || (self.upgraded && self.owed.is_empty()) {
                return false;
            }
        }
        true
    }

    fn answer(&mut self, head: &str, now: Instant) {
        let after = |ms| now + Duration::from_millis(ms);
        if head.contains("upgrade: websocket") {
            self.upgraded = true;
            let accepted = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                            sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            self.owed = vec![(now, accepted.into()), (after(60), b"\x88\x00".to_vec())];
        } else if head.starts_with("get /stream") {
            let begin = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nstream\r\n";
            self.owed = vec![(now, begin.into()), (after(60), b"2\r\ned\r\n0\r\n\r\n".to_vec())];
        } else {
            self.owed = vec![(after(2), OK.into())];
        }
    }
}
