//! Slow clients hold no worker: answers are held for them, and their uploads are complete before a worker is chosen. And
//! no byte is lost, delayed or made up for it.

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use tidegate_tests::{
    client::{Ask, Ending, Kind},
    edge::Edge,
    fault::{Fault, FaultProxy, Plan},
    pattern::{hash, pattern},
    raw::{End, Raw, status},
    recorder::{Recorder, Step},
    site::Site,
    wait::wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);

/// A client that asks and takes the head of the answer and little more.
pub(crate) async fn slow_reader(edge: &Edge, target: &str) -> Raw {
    let mut raw = Raw::connect_from(edge.address("plain"), |socket| socket.set_recv_buffer_size(RECEIVE)).await;
    raw.send(format!("GET {target} HTTP/1.1\r\nhost: test.example\r\n\r\n")).await;
    assert_eq!(status(&raw.read_head().await), 200);
    raw
}

/// Whether no request is at an endpoint any more, soon.
pub(crate) async fn is_freed(edge: &Edge, limit: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < limit {
        if in_flight(edge).await == 0 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

async fn in_flight(edge: &Edge) -> u64 {
    let status = edge.status().await;
    let endpoints = status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    endpoints.iter().filter_map(|endpoint| endpoint["in_flight"].as_u64()).sum()
}

/// The value of a metric, its labels included in the name; 0 when it is not there.
async fn metric(edge: &Edge, name: &str) -> f64 {
    let metrics = edge.admin().metrics().await.expect("metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    line.unwrap_or_default()
}

async fn spool_is_empty(edge: &Edge) {
    wait_until("an empty spool", LIMIT, async || (metric(edge, "tidegate_spool_bytes").await == 0.0).then_some(()))
        .await;
}

fn single_slots(count: usize, route: &str) -> Site {
    let route = format!("{{ path: /, proxy: app{route} }}");
    Site::demo_workers(count, &["--concurrency", "1"]).replace("{ path: /, proxy: app }", &route)
}

const MIB: usize = 1 << 20;
/// Small, and not so small that the kernel sends in slow motion.
const RECEIVE: u32 = 32 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_hold_no_worker() {
    hold_no_worker(40, 4 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn slow_readers_hold_no_worker_long() {
    hold_no_worker(200, 16 * MIB).await;
}

async fn hold_no_worker(readers: usize, size: usize) {
    let total = format!(
        "server: {{ state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", spool: {{ total: {}MiB }} }}",
        readers * size / MIB + 16
    );
    let edge = Edge::start(single_slots(2, ", buffer: { response: 32m }").and(&total)).await;
    edge.ready_workers("app", 2).await;
    let target = format!("/bytes?n={size}");
    let started = Instant::now();
    edge.client(Kind::Http1).get(&target).await.assert(200, &pattern(size));
    let own_time = started.elapsed();
    let mut open = Vec::new();
    for number in 0..readers {
        let started = Instant::now();
        open.push(slow_reader(&edge, &target).await);
        assert!(is_freed(&edge, LIMIT).await, "reader {number} holds a worker");
        let took = started.elapsed();
        assert!(took < own_time + Duration::from_secs(1), "reader {number}: {took:?}, own time {own_time:?}");
        let started = Instant::now();
        edge.client(Kind::ALL[number % Kind::ALL.len()]).get("/tiny").await.assert(200, b"hello, world\n");
        assert!(started.elapsed() < Duration::from_secs(1), "beside {number} readers: {:?}", started.elapsed());
    }
    // The workers have long done other things; the answers are whole all the same.
    for reader in open.iter_mut().rev().take(2) {
        assert_eq!(hash(&reader.read_exact(size).await), hash(&pattern(size)));
    }
    drop(open);
    spool_is_empty(&edge).await;
}

#[tokio::test]
async fn slow_uploads_hold_no_worker() {
    let edge = Edge::start(single_slots(1, "")).await;
    let body = pattern(300_000);
    for client in edge.clients() {
        let (ask, sender) = Ask::post_channel("/echo");
        let uploading = {
            let client = edge.client(client.kind());
            tokio::spawn(async move { client.ask(ask).await })
        };
        sender.send(Bytes::copy_from_slice(&body[..200_000])).await.expect("the client reads");
        for _ in 0..3 {
            client.ask(Ask::get("/tiny").within(Duration::from_secs(5))).await.assert(200, b"hello, world\n");
            assert!(is_freed(&edge, LIMIT).await, "over {}", client.kind());
        }
        sender.send(Bytes::copy_from_slice(&body[200_000..])).await.expect("the client reads");
        drop(sender);
        let answer = uploading.await.expect("no panic");
        answer.assert(200, &body);
        assert_eq!(answer.header("content-length"), Some("300000"), "the worker was told a length");
    }
    spool_is_empty(&edge).await;
}

#[tokio::test]
async fn an_upload_of_known_length_is_asked_for_and_held() {
    let edge = Edge::start(single_slots(1, "")).await;
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send("POST /echo HTTP/1.1\r\nhost: test.example\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(status(&raw.read_head().await), 100);
    raw.send("01234").await;
    edge.client(Kind::Http1).get("/tiny").await.assert(200, b"hello, world\n");
    raw.send("56789GET /tiny HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
    assert_eq!(raw.read_answer().await.1, b"0123456789");
    assert_eq!(raw.read_answer().await.1, b"hello, world\n", "the request behind it was not touched");
}

#[tokio::test]
async fn limits_and_deadlines_hold_while_a_body_is_held() {
    let route = ", max_body: 1KiB";
    let site = single_slots(1, route).replace("name: plain,", "name: plain, timeouts: { body_idle: 300ms },");
    let edge = Edge::start(site).await;
    for client in edge.clients() {
        let pieces = vec![Bytes::from(vec![b'x'; 600]); 2];
        let answer = client.ask(Ask::post_pieces("/echo", pieces)).await;
        assert_eq!(answer.status, 413, "over {}", client.kind());
    }
    let (answer, end) = Raw::exchange(
        edge.address("plain"),
        "POST /echo HTTP/1.1\r\nhost: test.example\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        LIMIT,
    )
    .await;
    assert_eq!((status(&answer), end), (408, End::Closed));
    let served = edge.client(Kind::Http1).get("/count").await.json()["count"].as_u64();
    // The readiness probes of the supervisor, and this one.
    assert!(served.is_some_and(|count| count <= 3), "a worker saw what was refused: {served:?}");
}

#[tokio::test]
async fn a_held_body_is_sent_again_where_that_is_allowed() {
    for (method, status, times) in [("PUT", 200, 2), ("POST", 502, 1)] {
        // Both see the request whole; the one that is asked first ends without a word.
        let deaf = Recorder::start(|_| vec![Step::Close]).await;
        let kind = Recorder::friendly().await;
        let site = Site::usual(
            "- { path: /, proxy: app, buffer: { request: on } }",
            &format!("app:\n  servers: [{{ address: \"{}\" }}, {{ address: \"{}\" }}]", deaf.address(), kind.address()),
        );
        let edge = Edge::start(site).await;
        let body = pattern(400_000);
        let mut tries = 0;
        // In turn: one of the first two requests goes to the one that is deaf.
        for _ in 0..2 {
            deaf.forget();
            kind.forget();
            let ask = Ask::new(method, "/").body(Full::new(Bytes::from(body.clone())));
            let answer = edge.client(Kind::Http1).ask(ask).await;
            if deaf.requests().is_empty() {
                continue;
            }
            assert_eq!(answer.status, status, "{method}");
            let seen: Vec<_> = deaf.requests().into_iter().chain(kind.requests()).collect();
            assert_eq!(seen.len(), times, "{method}");
            assert!(seen.iter().all(|seen| hash(&seen.body) == hash(&body)), "{method}");
            tries += 1;
        }
        assert_eq!(tries, 1, "{method}");
    }
}

#[tokio::test]
async fn a_full_disk_costs_no_byte() {
    let full = "server: { state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", spool: { total: 200KiB } }";
    for (gone, reason, size) in [(false, "total", 3 * MIB), (true, "disk", 3 * MIB)] {
        let site = single_slots(1, ", max_body: 16MiB, buffer: { request: on, response: on }");
        let edge = Edge::start(if gone { site } else { site.and(full) }).await;
        if gone {
            fs::remove_dir(edge.home().path().join("state/spool")).expect("it is empty");
        }
        let (ask, body) = (Ask::post("/echo", pattern(size)), pattern(size));
        edge.client(Kind::Http1).ask(ask).await.assert(200, &body);
        let mut reader = slow_reader(&edge, &format!("/bytes?n={}", 12 * MIB)).await;
        assert!(!is_freed(&edge, Duration::from_secs(1)).await, "there is nowhere to hold it");
        assert_eq!(hash(&reader.read_exact(12 * MIB).await), hash(&pattern(12 * MIB)));
        assert!(is_freed(&edge, LIMIT).await);
        let name = format!("tidegate_spool_fallbacks_total{{reason=\"{reason}\"}}");
        assert!(metric(&edge, &name).await >= 2.0, "{name}");
        spool_is_empty(&edge).await;
    }
}

#[tokio::test]
async fn what_must_pass_at_once_is_not_held() {
    for field in ["content-type: text/event-stream", "x-accel-buffering: no"] {
        let answer = move |_: &_| {
            let head = format!("HTTP/1.1 200 OK\r\n{field}\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = [b"10000\r\n".to_vec(), pattern(0x10000), b"\r\n".to_vec()].concat();
            vec![Step::Send([head.into_bytes(), chunk.repeat(160), b"0\r\n\r\n".to_vec()].concat())]
        };
        let recorder = Recorder::start(answer).await;
        let edge = Edge::start(Site::proxy_to(recorder.address())).await;
        let mut raw = Raw::connect_from(edge.address("plain"), |socket| socket.set_recv_buffer_size(RECEIVE)).await;
        raw.send("GET / HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
        let head = raw.read_head().await.to_lowercase();
        assert!(!head.contains("x-accel"), "that field is for us: {head}");
        assert!(!is_freed(&edge, Duration::from_secs(1)).await, "{field}");
        assert_eq!(metric(&edge, "tidegate_spool_bodies_total").await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_answer_that_broke_off_ends_visibly_behind_its_last_byte() {
    let size = 12 * MIB;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
    let answer = [head.clone().into_bytes(), pattern(size)].concat();
    let recorder = Recorder::start(move |_| vec![Step::Send(answer.clone())]).await;
    let proxy = FaultProxy::start(recorder.socket_address()).await;
    let edge = Edge::start(Site::proxy_to(proxy.address())).await;
    let good = 10 * MIB;
    proxy.set(Some(Plan::answer(head.len() + good, Fault::Fin)));
    let mut reader = slow_reader(&edge, "/").await;
    assert!(is_freed(&edge, LIMIT).await);
    let (body, end) = reader.read_to_end(LIMIT).await;
    assert_eq!((body.len(), end), (good, End::Closed), "a length tells that it is short");
    assert_eq!(hash(&body), hash(&pattern(size)[..good]));
    let status = edge.status().await;
    assert_eq!(status["upstreams"][0]["endpoints"][0]["failures"], 1, "{status:#}");
    for client in edge.clients() {
        let Ok(answer) = client.send(Ask::get("/").within(LIMIT)).await else { continue };
        assert!(matches!(answer.ending, Ending::Cut(_)), "looks whole over {}", client.kind());
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_what_the_endpoint_does_for_it() {
    let endless = |_: &_| {
        let chunk = [b"10000\r\n".to_vec(), pattern(0x10000), b"\r\n".to_vec()].concat();
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        vec![Step::Send([head, chunk.repeat(600)].concat()), Step::Stall]
    };
    let recorder = Recorder::start(endless).await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let reader = slow_reader(&edge, "/").await;
    wait_until("a held body", LIMIT, async || (metric(&edge, "tidegate_spool_bytes").await > 0.0).then_some(())).await;
    drop(reader);
    wait_until("the end of the endpoint's connection", Duration::from_secs(2), async || {
        (edge.status().await["upstreams"][0]["endpoints"][0]["connections"] == 0).then_some(())
    })
    .await;
    spool_is_empty(&edge).await;
}
