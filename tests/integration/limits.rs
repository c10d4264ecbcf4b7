//! Limits, each just below and just above its edge.

use std::time::Duration;

use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    every_client,
    raw::{End, Raw, status},
    recorder::Recorder,
    site::Site,
};

every_client! {
    what_is_within_the_defaults_passes,
    a_target_too_long_is_a_414,
    a_head_too_large_is_refused,
}

async fn ask_raw(edge: &Edge, request: &str) -> u16 {
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send(request).await;
    status(&raw.read_head().await)
}

// Once: exact sizes of a head of HTTP/1.1.
#[tokio::test]
async fn fields_are_counted() {
    let recorder = Recorder::friendly().await;
    let site = Site::proxy_to(recorder.address()).replace("name: plain,", "name: plain, head_limits: { fields: 20 },");
    let edge = Edge::start(site).await;
    let request = |fields: usize| {
        let more: String = (1..fields).map(|index| format!("x-{index}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nhost: test.example\r\n{more}\r\n")
    };
    assert_eq!(ask_raw(&edge, &request(20)).await, 200);
    assert_eq!(ask_raw(&edge, &request(21)).await, 431);
}

// Once: exact sizes of a head of HTTP/1.1.
#[tokio::test]
async fn the_head_is_bounded() {
    let recorder = Recorder::friendly().await;
    let site = Site::proxy_to(recorder.address())
        .replace("name: plain,", "name: plain, head_limits: { bytes: 4KiB, target: 1KiB },");
    let edge = Edge::start(site).await;
    let of_size = |size: usize| {
        let start = "GET / HTTP/1.1\r\nhost: test.example\r\nx: ";
        format!("{start}{}\r\n\r\n", "x".repeat(size - start.len() - 4))
    };
    assert_eq!(ask_raw(&edge, &of_size(4_000)).await, 200);
    assert_eq!(ask_raw(&edge, &of_size(4_200)).await, 431);
    let to = |length: usize| format!("GET /{} HTTP/1.1\r\nhost: test.example\r\n\r\n", "a".repeat(length - 1));
    assert_eq!(ask_raw(&edge, &to(1_024)).await, 200);
    assert_eq!(ask_raw(&edge, &to(1_025)).await, 414);
    assert_eq!(recorder.requests().len(), 2);
}

async fn what_is_within_the_defaults_passes(kind: Kind) {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let client = edge.client(kind);
    client.ask(Ask::get(&format!("/{}", "a".repeat(8_000)))).await.assert(200, b"ok\n");
    client.ask(Ask::get("/").header("x", &"x".repeat(30_000))).await.assert(200, b"ok\n");
    client.ask(Ask::post("/", vec![b'x'; 1 << 20])).await.assert(200, b"ok\n");
}

async fn a_target_too_long_is_a_414(kind: Kind) {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let client = edge.client(kind);
    let answer = client.get(&format!("/{}", "a".repeat(9_000))).await;
    let got = (answer.status.as_u16(), answer.header("x-tidegate-reason"));
    assert_eq!(got, (414, Some("target_too_long")), "over {}", client.kind());
    assert!(recorder.requests().is_empty());
}

async fn a_head_too_large_is_refused(kind: Kind) {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let client = edge.client(kind);
    let fields = (0..200).fold(Ask::get("/"), |ask, index| ask.header(&format!("x-{index}"), "1"));
    for ask in [Ask::get("/").header("x", &"x".repeat(70_000)), fields] {
        // A client of HTTP/2 may also see its stream or connection refused (RFC 9113 section 10.5.1).
        match client.send(ask).await {
            Ok(answer) => assert_eq!(answer.status, 431, "over {}", client.kind()),
            Err(error) => assert!(client.kind().is_h2(), "over {}: {error:#}", client.kind()),
        }
    }
    client.get("/").await.assert(200, b"ok\n");
    assert_eq!(recorder.requests().len(), 1);
}

// Once: it is about connections, before any protocol.
#[tokio::test]
async fn one_address_has_so_many_connections() {
    let recorder = Recorder::friendly().await;
    let server = "server: { state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", connections: { per_address: 5 } }";
    let edge = Edge::start(Site::proxy_to(recorder.address()).and(server)).await;
    let request = "GET / HTTP/1.1\r\nhost: test.example\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::connect(edge.address("plain")).await;
        raw.send(request).await;
        assert_eq!(raw.read_answer().await.1, b"ok\n");
        open.push(raw);
    }
    let (answer, end) = Raw::exchange(edge.address("plain"), request, Duration::from_secs(2)).await;
    assert!(end != End::Open && status(&answer) != 200, "the sixth connection got {answer:?}");
    open[0].send(request).await;
    assert_eq!(open[0].read_answer().await.1, b"ok\n", "those that are open go on");
    drop(open);
    let client = edge.client(Kind::Http1);
    tidegate_tests::wait::wait_until("room for a connection", Duration::from_secs(5), async || {
        client.send(Ask::get("/")).await.ok()
    })
    .await;
}

// Once: the wait between two requests of HTTP/1.1.
#[tokio::test]
async fn an_idle_client_is_let_go() {
    let recorder = Recorder::friendly().await;
    let site = Site::proxy_to(recorder.address()).replace("name: plain,", "name: plain, timeouts: { idle: 300ms },");
    let edge = Edge::start(site).await;
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send("GET / HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
    raw.read_answer().await;
    let (rest, end) = raw.read_to_end(Duration::from_secs(5)).await;
    assert_eq!((rest.len(), end), (0, End::Closed));
}
