//! Clients that take their time, or more connections than there are descriptors: each wait has an end, and others are
//! served meanwhile.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_tests::{
    certificates::{H2, curious_client},
    client::{Ask, Kind},
    connect::{client_hello, tcp, tcp_from, tls, tls_on},
    drill::say,
    edge::{Edge, Home},
    frames::{END_STREAM, Frames, get, kind},
    hole::Hole,
    process::run_to_end,
    raw::{End, Raw, status},
    recorder::{OK, Recorder, Step},
    site::Site,
    wait::{wait_for, wait_until},
};
use tokio::time::{sleep, timeout};

const GET: &str = "GET / HTTP/1.1\r\nhost: test.example\r\n\r\n";
/// Far above the deadlines that the sites below set, far below the defaults.
const PATIENCE: Duration = Duration::from_secs(6);
/// Between two bytes of a client that drips.
const DRIP: Duration = Duration::from_millis(40);
/// Longer than an idle connection of HTTP/2 and its leave-taking last together.
const PAST_FAREWELL: Duration = Duration::from_secs(6);
/// More than the buffers of all sockets in between.
const BIG: usize = 32 << 20;

/// The usual front with these deadlines on every listener.
fn with_timeouts(origin: &Recorder, timeouts: &str) -> Site {
    deadlines(Site::proxy_to(origin.address()), timeouts)
}

/// These deadlines on every listener.
fn deadlines(site: Site, timeouts: &str) -> Site {
    ["plain", "h2c", "tls"].iter().fold(site, |site, name| {
        site.replace(&format!("name: {name},"), &format!("name: {name}, timeouts: {{ {timeouts} }},"))
    })
}

/// Sends byte after byte until something comes back or the connection ends; what came, and after how long.
async fn drip(raw: &mut Raw, bytes: &[u8]) -> (String, Duration) {
    let started = Instant::now();
    for byte in bytes.iter().cycle().take(500) {
        raw.send([*byte]).await;
        let (read, end) = raw.read_to_end(DRIP).await;
        if !read.is_empty() || end != End::Open {
            let (rest, _) = raw.read_to_end(PATIENCE).await;
            return (String::from_utf8_lossy(&[read, rest].concat()).into_owned(), started.elapsed());
        }
    }
    panic!("still open after {:?}", started.elapsed());
}

#[tokio::test]
async fn a_dripped_head_ends_at_its_deadline_on_any_request() {
    let origin = Recorder::friendly().await;
    let edge = Edge::start(with_timeouts(&origin, "head: 700ms")).await;
    let head = format!("GET / HTTP/1.1\r\nhost: test.example\r\nx-long: {}", "x".repeat(500));
    for earlier in 0..3 {
        let mut raw = Raw::connect(edge.address("plain")).await;
        for _ in 0..earlier {
            raw.send(GET).await;
            assert_eq!(status(&raw.read_answer().await.0), 200);
        }
        let (answer, after) = drip(&mut raw, head.as_bytes()).await;
        assert_eq!(status(&answer), 408, "request {earlier}: {answer}");
        assert!((Duration::from_millis(600)..PATIENCE).contains(&after), "request {earlier}: {after:?}");
    }
    assert_eq!(origin.requests().len(), 3);
}

#[tokio::test]
async fn a_body_that_stops_or_creeps_is_refused() {
    let origin = Recorder::friendly().await;
    let rate = "body_idle: 700ms, body_rate: { rate: 1KiB/s, over: 900ms }";
    let edge = Edge::start(with_timeouts(&origin, rate)).await;
    for client in edge.clients() {
        for pause in [Duration::from_secs(20), DRIP] {
            let pieces = vec![Bytes::from_static(b"x"); 500];
            let started = Instant::now();
            // A client may see its stream end before it has read the answer.
            match client.send(Ask::post_slowly("/", pieces, pause).within(PATIENCE)).await {
                Ok(answer) => assert_eq!(answer.status, 408, "{}, {pause:?}", client.kind()),
                Err(error) => assert!(client.kind().is_h2(), "{}, {pause:?}: {error:#}", client.kind()),
            }
            assert!(started.elapsed() < PATIENCE, "{}, {pause:?}", client.kind());
        }
    }
    let metrics = edge.admin().get("/metrics").await.expect("metrics").text();
    assert!(metrics.contains("tidegate_refusals_total{reason=\"client_body_timeout\"} 8"), "{metrics}");
}

#[tokio::test]
async fn a_slow_endpoint_is_not_held_against_its_client() {
    // Reads nothing of the body for longer than the time over which the pace is measured.
    let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = origin.local_addr().expect("an address").to_string();
    const SLOWNESS: Duration = Duration::from_secs(2);
    let served = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = origin.accept().await.expect("a connection");
        sleep(SLOWNESS).await;
        let mut read = 0;
        let mut buffer = vec![0; 1 << 20];
        while read < BIG {
            read += stream.read(&mut buffer).await.expect("the body");
        }
        stream.write_all(OK.as_bytes()).await.expect("an answer");
        stream
    });
    let site = Site::usual(
        "- { path: /, proxy: app, max_body: 1GiB }",
        &format!("app: {{ servers: [{{ address: \"{address}\" }}] }}"),
    );
    let site = site
        .replace("name: plain,", "name: plain, timeouts: { body_idle: 1s, body_rate: { over: 500ms, rate: 1KiB/s } },");
    let edge = Edge::start(site).await;
    let answer = edge.client(Kind::Http1).ask(Ask::post("/", vec![b'x'; BIG])).await;
    answer.assert(200, b"ok\n");
    drop(served.await);
}

/// Between two attempts nobody takes the body, so a client that sends nothing then is not late with it.
#[tokio::test]
async fn a_failed_attempt_costs_its_client_no_time() {
    use tokio::io::AsyncReadExt;
    // Takes the head, and gives up before the body has come.
    let closing = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let first = closing.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = closing.accept().await.expect("a connection");
        let mut head = [0; 4_096];
        assert!(stream.read(&mut head).await.expect("a head") > 0);
        sleep(Duration::from_millis(600)).await;
    });
    let (hole, origin) = (Hole::open(), Recorder::friendly().await);
    let servers = [first.to_string(), hole.address().to_string(), origin.address().to_owned()];
    let servers = servers.map(|server| format!("{{ address: \"{server}\" }}")).join(", ");
    let site = Site::proxy(&format!("servers: [{servers}]\ntimeouts: {{ connect: 1s }}"))
        .replace("name: plain,", "name: plain, timeouts: { body_idle: 1s },");
    let edge = Edge::start(site).await;
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send("PUT / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 5\r\n\r\n").await;
    wait_for("the third attempt", PATIENCE, || (origin.connections().len() == 1).then_some(())).await;
    sleep(Duration::from_millis(200)).await;
    raw.send("hello").await;
    let (head, body) = raw.read_answer().await;
    assert_eq!((status(&head), body.as_slice()), (200, &b"ok\n"[..]), "{head}");
    assert_eq!(origin.only_request().body, b"hello");
    // From then on its silence counts again.
    raw.send("PUT / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 5\r\n\r\n").await;
    let answer = raw.read_until("\r\n\r\n", PATIENCE).await.expect("an answer");
    assert_eq!(status(&answer), 408, "{answer}");
}

/// Nobody reads a client whose endpoint takes nothing; that it leaves is noticed all the same.
#[tokio::test]
async fn a_client_that_leaves_a_blocked_upload_is_noticed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const LENGTH: &str = "content-length: 1000000000\r\n\r\n";
    const CHUNKED: &str = "transfer-encoding: chunked\r\n\r\n";
    // How it leaves: by a reset, or by ending its side, which is noticed where it can only mean that.
    for (listener, framing, resets) in
        [("plain", LENGTH, true), ("plain", CHUNKED, true), ("plain", LENGTH, false), ("strict", CHUNKED, false)]
    {
        let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = origin.local_addr().expect("an address");
        let (more, mut told) = tokio::sync::mpsc::channel::<()>(1);
        let holding = tokio::spawn(async move {
            let (mut stream, _) = origin.accept().await.expect("a connection");
            told.recv().await;
            // So that the end of the client's side gets past what fills the buffers.
            let _ = stream.read_exact(&mut vec![0; 1 << 20]).await;
            told.recv().await;
        });
        let site = Site::usual(
            "- { path: /, proxy: app, max_body: 1GiB }",
            &format!("app: {{ servers: [{{ address: \"{address}\" }}] }}"),
        );
        let strict = "- { name: strict, address: \"127.0.0.1:@port:strict@\", half_close: abort }";
        let edge = Edge::start(site.replace("listeners:\n", &format!("listeners:\n  {strict}\n"))).await;
        let mut client = tcp(edge.address(listener)).await.expect("a connection");
        socket2::SockRef::from(&client).set_send_buffer_size(64 << 10).expect("a size");
        let head = format!("POST / HTTP/1.1\r\nhost: test.example\r\n{framing}");
        client.write_all(head.as_bytes()).await.expect("sent");
        let piece = match framing {
            CHUNKED => [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat(),
            _ => vec![b'x'; 0x10000],
        };
        while timeout(Duration::from_millis(500), client.write_all(&piece)).await.is_ok() {}
        let open = async || edge.status().await["upstreams"][0]["endpoints"][0]["connections"].clone();
        assert_eq!(open().await, 1);
        if resets {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("set");
            drop(client);
        } else {
            client.shutdown().await.expect("ended");
            more.send(()).await.expect("it listens");
        }
        wait_until("the endpoint to be let go", PATIENCE, async || (open().await == 0).then_some(())).await;
        holding.abort();
    }
}

#[tokio::test]
async fn a_tls_handshake_ends_at_its_deadline_however_it_is_stretched() {
    let origin = Recorder::friendly().await;
    let edge = Edge::start(with_timeouts(&origin, "handshake: 900ms")).await;
    let hello = client_hello("test.example", curious_client(&[H2]));
    // Each byte of the handshake in a record of its own.
    let records: Vec<u8> = hello[5..].iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
    let mut raw = Raw::connect(edge.address("tls")).await;
    let (_, after) = drip(&mut raw, &records).await;
    assert!((Duration::from_millis(800)..PATIENCE).contains(&after), "{after:?}");
    for part in [&hello[..0], &hello[..1], &hello[..40], &hello[..]] {
        let started = Instant::now();
        let (_, end) = Raw::exchange(edge.address("tls"), part, PATIENCE).await;
        assert!(end != End::Open, "{} bytes: {:?}", part.len(), started.elapsed());
    }
    // Sent at once in such records it is a handshake like any other.
    let mut raw = Raw::connect(edge.address("tls")).await;
    raw.send(&records).await;
    assert_eq!(raw.read_exact(1).await, [0x16]);
}

#[tokio::test]
async fn a_silent_http2_client_is_let_go() {
    let origin = Recorder::friendly().await;
    let edge = Edge::start(with_timeouts(&origin, "head: 500ms, idle: 700ms, write_idle: 500ms")).await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = format!("{preface}\0\0\0\u{4}\0\0\0\0\0");
    // A head whose end never comes: HEADERS without END_HEADERS.
    let begun = format!("{settings}\0\0\u{1}\u{1}\u{1}\0\0\0\u{1}\u{2}");
    for sent in ["", "P", "PRI * HTTP/2.0\r\n\r\n", preface, &settings, &begun] {
        let started = Instant::now();
        let (_, end) = Raw::exchange(edge.address("h2c"), sent, PATIENCE).await;
        assert!(end != End::Open, "{sent:?}: {:?}", started.elapsed());
    }
    for kind in [Kind::H2c, Kind::H2Tls] {
        let mut connection = edge.client(kind).connect().await.expect("a connection");
        connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"ok\n");
        wait_for("the end of an idle connection", PATIENCE, || connection.is_closed().then_some(())).await;
    }
}

#[tokio::test]
async fn a_silent_http2_client_does_not_hold_up_the_end() {
    let origin = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(origin.address())).await;
    let stream = tcp(edge.address("tls")).await.expect("a connection");
    let stream = tls_on(stream, "test.example", curious_client(&[H2])).await.expect("TLS");
    let stopped = edge.stop().await;
    stopped.assert_clean();
    assert!(stopped.took < Duration::from_secs(4), "{:?}", stopped.took);
    // It was there to the end.
    drop(stream);
}

/// The session holds the ends of its answers; the exchanges behind them are over.
#[tokio::test]
async fn an_http2_client_that_reads_late_gets_whole_answers() {
    // Less than a stream may hold, so that each exchange ends; together more than a socket takes.
    let page = 40_000;
    let origin = Recorder::answering(
        [format!("HTTP/1.1 200 OK\r\ncontent-length: {page}\r\n\r\n").into_bytes(), vec![b'x'; page]].concat(),
    )
    .await;
    let edge = Edge::start(with_timeouts(&origin, "idle: 300ms")).await;
    let mut frames = Frames::connect_unread(edge.address("h2c")).await;
    let streams: Vec<u32> = (0..100).map(|number| 2 * number + 1).collect();
    frames.send(streams.iter().flat_map(|stream| get(*stream, "/")).collect::<Vec<_>>()).await;
    let served = async || {
        let counted = edge.status().await["upstreams"][0]["endpoints"][0]["in_flight"] == 0;
        (counted && origin.requests().len() == streams.len()).then_some(())
    };
    wait_until("answers for everything", PATIENCE, served).await;
    sleep(PAST_FAREWELL).await;
    let (until, mut ended, mut bytes) = (tokio::time::Instant::now() + PATIENCE, 0, 0);
    while ended < streams.len() {
        let frame = frames.next(until).await.expect("answers in time");
        let frame = frame.unwrap_or_else(|| panic!("the connection ended after {ended} answers, {bytes} bytes"));
        if frame.kind == kind::DATA {
            bytes += frame.payload.len();
            ended += usize::from(frame.flags & END_STREAM != 0);
        }
    }
    assert_eq!(bytes, streams.len() * page);
}

#[tokio::test]
async fn an_http2_client_without_a_window_loses_its_stream() {
    let origin = Recorder::answering(
        [format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n").into_bytes(), vec![b'x'; BIG]].concat(),
    )
    .await;
    let edge = Edge::start(with_timeouts(&origin, "write_idle: 600ms")).await;
    let stream = tcp(edge.address("h2c")).await.expect("a connection");
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut client = client.ready().await.expect("ready");
    let request = http::Request::get("http://test.example/").body(()).expect("a request");
    let (response, _) = client.send_request(request, true).expect("sent");
    let mut body = timeout(PATIENCE, response).await.expect("a head in time").expect("a head").into_body();
    let end = timeout(PATIENCE, body.data()).await.expect("an end in time");
    assert!(matches!(&end, Some(Err(error)) if error.is_reset()), "{end:?}");
    // The endpoint is let go with it.
    wait_until("the endpoint to be let go", PATIENCE, async || {
        (edge.status().await["upstreams"][0]["endpoints"][0]["connections"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_nothing_hold_little_and_not_for_long() {
    const CLIENTS: usize = 40;
    let answer = [format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n").into_bytes(), vec![b'x'; BIG]].concat();
    // With buffering, 128 KiB more may be held in memory for each.
    for (buffer, most) in [("off", 256), ("on", 256 + 128)] {
        let origin = Recorder::answering(answer.clone()).await;
        let site = with_timeouts(&origin, "write_idle: 3s")
            .replace("path: /, proxy: app", &format!("path: /, proxy: app, buffer: {{ response: {buffer} }}"));
        let edge = Edge::start(site).await;
        edge.client(Kind::Http1).ask(Ask::get("/")).await;
        let before = resident_kib(edge.pid());
        let stalled = join_all((0..CLIENTS).map(async |_| {
            let mut raw = Raw::connect_from(edge.address("plain"), |socket| socket.set_recv_buffer_size(4_096)).await;
            raw.send(GET).await;
            raw.read_head().await;
            raw
        }))
        .await;
        wait_for("all to be stuck", PATIENCE, || (origin.connections().len() >= CLIENTS).then_some(())).await;
        let held = settled_kib(edge.pid()).await.saturating_sub(before) / CLIENTS;
        say(format!("clients that read nothing, buffer {buffer}: {held} KiB each"));
        assert!(held <= most, "buffer {buffer}: {held} KiB held for each");
        wait_until("their end", PATIENCE * 2, async || (connections(&edge, "plain").await == 0).then_some(())).await;
        drop(stalled);
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_gets_its_answer_and_one_that_resets_is_dropped() {
    let origin = Recorder::start(|seen| match seen.target() {
        "/never" => vec![Step::Stall],
        _ => vec![Step::Pause(Duration::from_millis(300)), Step::Send(OK.into())],
    })
    .await;
    let edge = Edge::start(Site::proxy_to(origin.address())).await;
    let post = "POST /b HTTP/1.1\r\nhost: test.example\r\ncontent-length: 3\r\n\r\nabc";
    // Alone, with a body, and behind another one: all that were sent are answered.
    for (sent, answers) in [(GET.to_owned(), 1), (post.to_owned(), 1), (format!("{post}{GET}{GET}"), 3)] {
        let cpu = cpu_ticks(edge.pid());
        let mut raw = Raw::connect(edge.address("plain")).await;
        raw.send(&sent).await;
        raw.finish().await;
        let (read, end) = raw.read_to_end(PATIENCE).await;
        let text = String::from_utf8_lossy(&read);
        assert_eq!((text.matches("HTTP/1.1 200 OK").count(), end), (answers, End::Closed), "{sent}: {text}");
        let spent = cpu_ticks(edge.pid()) - cpu;
        assert!(spent < 10, "{spent} ticks of CPU for {answers} answers: the end of the stream is a busy loop");
    }
    // Half a body and the end: that is no request.
    let (read, _) = {
        let mut raw = Raw::connect(edge.address("plain")).await;
        raw.send(post.trim_end_matches("bc")).await;
        raw.finish().await;
        raw.read_to_end(PATIENCE).await
    };
    assert!(!read.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&read));
    // A reset takes the endpoint's connection with it.
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send("GET /never HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
    let asked =
        || origin.connections().into_iter().find(|one| one.requests.iter().any(|seen| seen.target() == "/never"));
    wait_for("the request", PATIENCE, asked).await;
    raw.reset();
    wait_for("the origin to be let go", PATIENCE, || asked().filter(|one| one.ended)).await;
}

/// Descriptors that are used up: the process neither spins nor drops whom it serves, and recovers at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_nobody_who_is_served_notices() {
    let origin = Recorder::friendly().await;
    let server = "server: { shards: 1, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }";
    let edge = Edge::start(Site::proxy_to(origin.address()).and(server)).await;
    let mut served = Raw::connect(edge.address("plain")).await;
    served.send(GET).await;
    assert_eq!(served.read_answer().await.1, b"ok\n");
    // Taken away at run time, so that no cap of the program's own comes first.
    let used = fs::read_dir(format!("/proc/{}/fd", edge.pid())).expect("the process is alive").count();
    let mut command = Command::new("prlimit");
    command.args(["--pid", &edge.pid().to_string(), &format!("--nofile={0}:{0}", used + 20)]);
    assert!(run_to_end(command, PATIENCE).await.status.success());
    let crowd = join_all((0..100_u8).map(|index| {
        Raw::connect_from(edge.address("plain"), move |socket| socket.bind((Ipv4Addr::new(127, 0, 2, index), 0).into()))
    }))
    .await;
    edge.wait_for_message("cannot accept connections", PATIENCE).await;
    let (cpu, started) = (cpu_ticks(edge.pid()), Instant::now());
    while started.elapsed() < Duration::from_secs(2) {
        served.send(GET).await;
        assert_eq!(served.read_answer().await.1, b"ok\n");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let spent = cpu_ticks(edge.pid()) - cpu;
    // A loop that spins spends 200 in these two seconds.
    assert!(spent <= 40, "{spent} ticks of CPU in {:?}", started.elapsed());
    assert!(edge.output().stderr().matches("cannot accept connections").count() <= 3, "{}", edge.output().stderr());
    drop(crowd);
    let recovered = Instant::now();
    let mut fresh = Raw::connect(edge.address("plain")).await;
    fresh.send(GET).await;
    assert_eq!(fresh.read_answer().await.1, b"ok\n");
    assert!(recovered.elapsed() < Duration::from_secs(2), "{:?}", recovered.elapsed());
}

/// The caps that follow from the descriptor limit hold with connections to endpoints in the count.
#[tokio::test]
async fn the_descriptor_limit_is_never_met() {
    let origin = Recorder::start(|_| vec![Step::Stall]).await;
    let server = "server: { shards: 1, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", connections: { fd_reserve: 84 } }";
    let edge =
        Edge::launch_with_descriptors(Home::new(&Site::proxy_to(origin.address()).and(server)), 100).ready().await;
    // Sixteen for connections, four of them for endpoints only. All clients are there before the first one asks.
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Raw::connect(edge.address("plain")).await);
    }
    wait_until("as many clients as may be here", PATIENCE, async || {
        (edge.status().await["listeners"][0]["connections"] == 12).then_some(())
    })
    .await;
    for raw in &mut clients {
        raw.send(GET).await;
    }
    let mut ends = [0; 3];
    for raw in &mut clients {
        let (read, end) = raw.read_to_end(Duration::from_millis(300)).await;
        let place = match (status(&String::from_utf8_lossy(&read)), end) {
            (0, End::Open) => 0,
            (500.., _) => 1,
            _ => 2,
        };
        ends[place] += 1;
    }
    let [waiting, refused, outside] = ends;
    // Whoever waits has two descriptors.
    assert_eq!(2 * waiting + refused, 16, "{ends:?}");
    assert!(waiting >= 4 && refused > 0 && outside > 0, "{ends:?}");
    assert!(!edge.output().stderr().contains("cannot accept"), "{}", edge.output().stderr());
}

/// Idle connections to endpoints are the first to go when descriptors are short.
#[tokio::test]
async fn idle_connections_to_endpoints_keep_nobody_out() {
    let (origin, other) = (gathering(8).await, Recorder::friendly().await);
    let routes = "- { path: /other, proxy: other }\n- { path: /, proxy: app }";
    let upstreams = format!(
        "app: {{ servers: [{{ address: \"{}\" }}] }}\nother: {{ servers: [{{ address: \"{}\" }}] }}",
        origin,
        other.address()
    );
    let server = "server: { shards: 2, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", connections: { fd_reserve: 84 } }";
    let home = Home::new(&Site::usual(routes, &upstreams).and(server));
    let edge = Edge::launch_with_descriptors(home, 100).ready().await;
    // Sixteen for connections: eight clients at once leave eight idle connections behind.
    let mut clients: Vec<Raw> = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::connect(edge.address("plain")).await;
        raw.send(GET).await;
        clients.push(raw);
    }
    for raw in &mut clients {
        assert_eq!(status(&raw.read_answer().await.0), 200);
    }
    // A connection to another endpoint finds room,
    clients[0].send("GET /other HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
    assert_eq!(status(&clients[0].read_answer().await.0), 200);
    // and so do other clients, as many as may be here.
    for number in 9..=12 {
        let mut raw = Raw::connect(edge.address("plain")).await;
        raw.send("GET /other HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
        assert_eq!(status(&raw.read_answer().await.0), 200, "client {number}");
        clients.push(raw);
    }
}

/// An HTTP/1.1 origin that answers each of so many first connections only when all of them are there.
async fn gathering(count: usize) -> SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(count));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let barrier = barrier.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4_096];
                let mut first = true;
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    if std::mem::take(&mut first) {
                        barrier.wait().await;
                    }
                    stream.write_all(OK.as_bytes()).await.expect("the edge reads");
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_lack_of_descriptors_is_ours_and_passes() {
    let origin = Recorder::start(|_| vec![Step::Stall]).await;
    let server = "server: { shards: 1, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", connections: { fd_reserve: 84 } }";
    let edge =
        Edge::launch_with_descriptors(Home::new(&Site::proxy_to(origin.address()).and(server)), 100).ready().await;
    // Sixteen for connections: twelve clients leave four to endpoints.
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(Raw::connect(edge.address("plain")).await);
    }
    wait_until("all clients", PATIENCE, async || (connections(&edge, "plain").await == 12).then_some(())).await;
    for raw in &mut clients {
        raw.send(GET).await;
    }
    let answers = join_all(clients.iter_mut().map(async |raw| {
        let (read, _) = raw.read_to_end(Duration::from_millis(500)).await;
        String::from_utf8_lossy(&read).into_owned()
    }));
    let refused: Vec<String> = answers.await.into_iter().filter(|answer| !answer.is_empty()).collect();
    assert_eq!(refused.len(), 8, "{refused:?}");
    let refused = &refused[0];
    assert_eq!(status(refused), 503, "{refused}");
    for field in ["x-tidegate-reason: out_of_resources\r\n", "retry-after: 1\r\n"] {
        assert!(refused.contains(field), "{refused}");
    }
    let endpoint = edge.status().await["upstreams"][0]["endpoints"][0].clone();
    assert_eq!(endpoint["failures"], 0, "{endpoint:#}");
}

/// Connections of the engine are in the budget too, and leave it when they close.
#[tokio::test]
async fn connections_to_http2_endpoints_count_like_others() {
    // Nobody takes a connection there, so that each request waits on one of its own.
    let mut listeners: Vec<_> = (0..12).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let server = |listener: &std::net::TcpListener| {
        format!("{{ address: \"{}\" }}", listener.local_addr().expect("it is bound"))
    };
    let servers: Vec<String> = listeners.iter().map(server).collect();
    let other = Recorder::start(|_| vec![Step::Stall]).await;
    let upstreams = format!(
        "app: {{ protocol: h2, servers: [{}] }}\nother: {{ servers: [{{ address: \"{}\" }}] }}",
        servers.join(", "),
        other.address()
    );
    let routes = "- { path: /other, proxy: other }\n- { path: /, proxy: app }";
    let server = "server: { shards: 1, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", connections: { fd_reserve: 84 } }";
    let edge =
        Edge::launch_with_descriptors(Home::new(&Site::usual(routes, &upstreams).and(server)), 100).ready().await;
    let before = sockets_of(edge.pid());
    // The others find what the first ones have given back.
    for target in ["/", "/other"] {
        if target == "/other" {
            // Resets what waits in their queues.
            listeners.clear();
            wait_for("their end", PATIENCE, || (sockets_of(edge.pid()) <= before).then_some(())).await;
        }
        let mut clients = Vec::new();
        for _ in 0..12 {
            clients.push(Raw::connect(edge.address("plain")).await);
        }
        wait_until("all clients", PATIENCE, async || (connections(&edge, "plain").await == 12).then_some(())).await;
        for raw in &mut clients {
            raw.send(format!("GET {target} HTTP/1.1\r\nhost: test.example\r\n\r\n")).await;
        }
        let answers = join_all(clients.iter_mut().map(async |raw| {
            let (read, _) = raw.read_to_end(Duration::from_secs(1)).await;
            String::from_utf8_lossy(&read).into_owned()
        }));
        let refused: Vec<String> = answers.await.into_iter().filter(|answer| !answer.is_empty()).collect();
        // The engine closes a client's connection with a refusal, so that each may let another request in.
        let expected = if target == "/" { 4..=8 } else { 8..=8 };
        assert!(expected.contains(&refused.len()), "{target}: {refused:?}");
        for answer in &refused {
            assert!(status(answer) == 503 && answer.contains("x-tidegate-reason: out_of_resources\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn finding_out_the_protocol_gives_a_head_no_more_time() {
    use tokio::io::AsyncReadExt;
    // Most of the time goes by before the protocol is known.
    const UNDECIDED: Duration = Duration::from_millis(1_400);
    let origin = Recorder::friendly().await;
    let edge = Edge::start(with_timeouts(&origin, "head: 2s")).await;
    let slow_method = async {
        let started = Instant::now();
        let mut raw = Raw::connect(edge.address("h2c")).await;
        // May still become HTTP/2.
        raw.send("P").await;
        sleep(UNDECIDED).await;
        raw.send("OST / HTTP/1.1\r\n").await;
        let answer = raw.read_until("\r\n\r\n", PATIENCE).await.expect("an answer");
        assert_eq!(status(&answer), 408, "{answer}");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    };
    let without_preface = async {
        let mut stream = tls(edge.address("tls"), "test.example", curious_client(&[H2])).await.expect("a handshake");
        let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "still open after {PATIENCE:?}");
    };
    tokio::join!(slow_method, without_preface);
}

#[tokio::test]
async fn clients_that_fall_silent_in_their_handshake_keep_nobody_out() {
    let origin = Recorder::friendly().await;
    let server = "server: { state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", connections: { handshakes: 1 } }";
    let edge = Edge::start(with_timeouts(&origin, "handshake: 60s").and(server)).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::connect(edge.address("tls")).await;
        raw.send(client_hello("test.example", curious_client(&[H2]))).await;
        silent.push(raw);
    }
    // Both were answered: their turns are over, or about to be.
    for raw in &mut silent {
        raw.read_exact(5).await;
    }
    let asked = Instant::now();
    edge.client(Kind::H2Tls).ask(Ask::get("/")).await.assert(200, b"ok\n");
    assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
}

/// A hundred and fifty clients that drip heads or bodies, or take nothing, from one address; another client is served all
/// the time, and they are gone at their deadlines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drippers_bother_nobody_and_are_gone_at_their_deadlines() {
    let answer = [format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n").into_bytes(), vec![b'x'; BIG]].concat();
    let origin =
        Recorder::start(move |seen| vec![Step::Send(if seen.target() == "/big" { answer.clone() } else { OK.into() })])
            .await;
    let timeouts = "head: 3s, body_idle: 2s, body_rate: { rate: 500B/s, over: 3s }, write_idle: 2s";
    let edge = Edge::start(with_timeouts(&origin, timeouts)).await;
    // What a client that has an edge to itself waits at the same time: the machine's share in it.
    let calm = Edge::start(Site::proxy_to(origin.address())).await;
    let address = edge.address("plain");
    let starts = [
        "GET / HTTP/1.1\r\nhost: test.example\r\nx-slow: ",
        "POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 100000\r\n\r\n",
        "GET /big HTTP/1.1\r\nhost: test.example\r\n\r\n",
    ];
    let drippers: Vec<_> = (0..150)
        .map(|index: usize| tokio::spawn(drip_from(Ipv4Addr::new(127, 0, 3, 1), address, starts[index % 3])))
        .collect();
    let started = Instant::now();
    while drippers.iter().any(|dripper| !dripper.is_finished()) {
        let ((waited, seen), (control, _)) = tokio::join!(timed_get(&edge), timed_get(&calm));
        assert_eq!(seen, 200);
        let bound = Duration::from_secs(1) + 4 * control;
        assert!(waited < bound, "another client waited {waited:?}, {control:?} where nobody drips");
        assert!(started.elapsed() < Duration::from_secs(20), "drippers are still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_until("their connections to be gone", PATIENCE, async || {
        (connections(&edge, "plain").await == 0).then_some(())
    })
    .await;
}

/// How long a request takes on a connection of its own, and the status it gets.
async fn timed_get(edge: &Edge) -> (Duration, u16) {
    let asked = Instant::now();
    let answer = edge.client(Kind::Http1).ask(Ask::get("/")).await;
    (asked.elapsed(), answer.status.as_u16())
}

/// Sends `start` and then a byte at a time, reading nothing, until the other side has had enough.
async fn drip_from(source: Ipv4Addr, address: SocketAddr, start: &str) {
    use tokio::io::AsyncWriteExt;
    let mut stream = tcp_from(source, address).await.expect("a connection");
    stream.write_all(start.as_bytes()).await.expect("written");
    // Once the other side has closed, a write is answered with a reset, and the next one fails.
    while stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn a_thousand_slow_heads() {
    slowhttptest(&["-H", "-i", "1"], "/").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn a_thousand_slow_bodies() {
    slowhttptest(&["-B", "-i", "1", "-s", "8192"], "/").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn a_thousand_slow_readers() {
    slowhttptest(&["-X", "-w", "10", "-y", "20", "-n", "3", "-z", "8", "-k", "1"], "/bytes?n=33554432").await;
}

/// Runs slowhttptest with a thousand connections; a client of another address is served all the time, and at the end
/// none of them is left.
async fn slowhttptest(mode: &[&str], path: &str) {
    let server =
        "server: { state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", connections: { per_address: 2000 } }";
    let timeouts = "head: 5s, body_idle: 5s, body_rate: { rate: 500B/s, over: 5s }, write_idle: 5s";
    // It asks for the host that it connects to. Its large answers come from workers that have nothing else to do, so that
    // what another client waits is the edge's doing.
    let origin = Recorder::friendly().await;
    let calm = format!("calm: {{ servers: [{{ address: \"{}\" }}] }}", origin.address());
    let site = deadlines(Site::demo_workers(2, &[]), timeouts)
        .replace("hosts: [localhost,", "hosts: [\"127.0.0.1\", localhost,")
        .replace("- { path: /, proxy: app }", "- { path: /bytes, proxy: app }\n      - { path: /, proxy: calm }")
        .replace("upstreams:\n", &format!("upstreams:\n  {calm}\n"));
    let edge = Edge::start(site.and(server)).await;
    edge.ready_workers("app", 2).await;
    let mut command = Command::new("slowhttptest");
    command.args(["-c", "1000", "-r", "500", "-l", "20", "-p", "3"]).args(mode);
    command.args(["-u", &format!("http://{}{path}", edge.address("plain"))]);
    let attack = tokio::spawn(run_to_end(command, Duration::from_secs(90)));
    let (mut most, mut slowest) = (0, Duration::ZERO);
    while !attack.is_finished() {
        let asked = Instant::now();
        let mut raw =
            Raw::connect_from(edge.address("plain"), |socket| socket.bind((Ipv4Addr::new(127, 0, 0, 9), 0).into()))
                .await;
        raw.send(GET).await;
        assert_eq!(status(&raw.read_answer().await.0), 200);
        slowest = slowest.max(asked.elapsed());
        most = most.max(connections(&edge, "plain").await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let finished = attack.await.expect("it ran");
    say(format!("{mode:?}: up to {most} connections, slowest answer to another client {slowest:?}"));
    assert!(most > 300, "{most} connections are no attack\n{}", finished.stdout);
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    wait_until("their connections to be gone", Duration::from_secs(20), async || {
        (connections(&edge, "plain").await == 0).then_some(())
    })
    .await;
}

/// Open sockets of a process.
fn sockets_of(pid: i32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is alive").flatten();
    open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))).count()
}

/// Open connections of a listener.
async fn connections(edge: &Edge, listener: &str) -> u64 {
    let status = edge.status().await;
    let found = status["listeners"].as_array().into_iter().flatten().find(|entry| entry["name"] == listener);
    found.and_then(|entry| entry["connections"].as_u64()).unwrap_or_default()
}

/// User and system time of a process so far, in ticks of 10 ms.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is alive");
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// Resident memory of a process, once it has stopped growing.
async fn settled_kib(pid: i32) -> usize {
    let (mut last, mut same) = (0, 0);
    wait_for("memory that stays as it is", PATIENCE, || {
        let now = resident_kib(pid);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same >= 30).then_some(now)
    })
    .await
}

/// Resident memory of a process.
fn resident_kib(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is alive");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
