//! Bodies of all sizes and framings, both ways, through all clients.

use std::time::Duration;

use bytes::Bytes;
use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    every_client,
    pattern::{hash, pattern},
    raw::{Raw, field},
    recorder::{Recorder, Step},
    site::Site,
};

every_client! {
    echoed_bodies_of_known_length_come_back,
    echoed_bodies_of_unknown_length_come_back,
    what_arrives_has_the_framing_that_was_sent,
    pieces_go_both_ways_as_they_come,
    a_stream_arrives_line_by_line,
    answers_without_a_body_end_at_once,
    an_endpoint_that_ends_its_body_by_closing_is_understood,
    a_client_over_its_limit_is_no_failure_of_the_endpoint,
}

const SIZES: [usize; 10] = [0, 1, 100, 4_095, 16_384, 16_385, 65_536, 1 << 20, (1 << 20) + 1, 5 << 20];

async fn demo() -> Edge {
    demo_that_buffers("on").await
}

async fn demo_that_buffers(requests: &str) -> Edge {
    let route = format!("{{ path: /, proxy: app, max_body: 16MiB, buffer: {{ request: {requests} }} }}");
    Edge::start(Site::demo_workers(1, &[]).replace("{ path: /, proxy: app }", &route)).await
}

async fn echoed_bodies_of_known_length_come_back(kind: Kind) {
    let edge = demo().await;
    let client = edge.client(kind);
    for size in SIZES {
        let body = pattern(size);
        let answer = client.send(Ask::post("/echo", body.clone())).await;
        let answer = answer.unwrap_or_else(|error| panic!("{size} bytes over {}: {error:#}", client.kind()));
        answer.assert(200, &body);
        assert_eq!(answer.header("content-length"), Some(size.to_string().as_str()), "over {}", client.kind());
    }
}

async fn echoed_bodies_of_unknown_length_come_back(kind: Kind) {
    for requests in ["on", "off", "100KiB"] {
        unknown_lengths_come_back(&demo_that_buffers(requests).await, kind).await;
    }
}

async fn unknown_lengths_come_back(edge: &Edge, kind: Kind) {
    let client = edge.client(kind);
    for size in SIZES {
        let body = pattern(size);
        let pieces = body.chunks(7_001).map(Bytes::copy_from_slice).collect();
        let answer = client.send(Ask::post_pieces("/echo", pieces)).await;
        answer.unwrap_or_else(|error| panic!("{size} bytes over {}: {error:#}", client.kind())).assert(200, &body);
    }
}

async fn what_arrives_has_the_framing_that_was_sent(kind: Kind) {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let client = edge.client(kind);
    recorder.forget();
    client.ask(Ask::post("/", pattern(1_000))).await.assert(200, b"ok\n");
    let known = recorder.only_request();
    assert_eq!((known.header("content-length"), known.header("transfer-encoding")), (Some("1000"), None));
    assert_eq!(hash(&known.body), hash(&pattern(1_000)));
    recorder.forget();
    let pieces = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"def")];
    client.ask(Ask::post_slowly("/", pieces, Duration::from_millis(20))).await.assert(200, b"ok\n");
    let unknown = recorder.only_request();
    assert_eq!((unknown.header("content-length"), unknown.header("transfer-encoding")), (None, Some("chunked")));
    assert_eq!(unknown.body, b"abcdef");
    recorder.forget();
    client.get("/").await.assert(200, b"ok\n");
    let none = recorder.only_request();
    assert!(none.header("transfer-encoding").is_none() && none.header("content-length").is_none(), "{}", none.head);
}

async fn pieces_go_both_ways_as_they_come(kind: Kind) {
    let edge = demo_that_buffers("off").await;
    let client = edge.client(kind);
    let mut connection = client.connect().await.expect("the edge listens");
    let (ask, sender) = Ask::post_channel("/echo");
    sender.send(Bytes::from_static(b"piece 0")).await.expect("the client reads");
    let mut answer = connection.start(ask).await.unwrap_or_else(|error| panic!("{}: {error:#}", client.kind()));
    for index in 0..5 {
        // The next piece is sent only after this one came back: nobody may hold it.
        let mut piece = Vec::new();
        while piece.len() < 7 {
            let more =
                answer.piece().await.unwrap_or_else(|error| panic!("{} piece {index}: {error:#}", client.kind()));
            piece.extend_from_slice(&more.expect("the body goes on"));
        }
        assert_eq!(String::from_utf8_lossy(&piece), format!("piece {index}"));
        if index < 4 {
            sender.send(Bytes::from(format!("piece {}", index + 1))).await.expect("the client reads");
        }
    }
    drop(sender);
    assert_eq!(answer.piece().await.expect("a proper end"), None, "{}", client.kind());
}

async fn a_stream_arrives_line_by_line(kind: Kind) {
    let edge = demo().await;
    let client = edge.client(kind);
    let mut connection = client.connect().await.expect("the edge listens");
    let started = std::time::Instant::now();
    let ask = Ask::get("/stream?n=3&ms=300").header("accept", "text/event-stream");
    let mut answer = connection.start(ask).await.expect("a head");
    let first = answer.piece().await.expect("a line").expect("a line");
    assert_eq!(&first[..], b"id: 0\ndata: line 0\n\n", "{}", client.kind());
    assert!(started.elapsed() < Duration::from_millis(300), "the first line was held over {}", client.kind());
    let rest = answer.rest().await;
    assert!(rest.is_complete() && rest.text().ends_with("data: line 2\n\n"), "{rest:?}");
}

async fn answers_without_a_body_end_at_once(kind: Kind) {
    let edge = demo().await;
    let client = edge.client(kind);
    let mut connection = client.connect().await.expect("the edge listens");
    for (ask, status, length) in [
        (Ask::new("HEAD", "/10k"), 200, Some("10240")),
        (Ask::get("/status/204"), 204, None),
        (Ask::get("/status/304"), 304, None),
        (Ask::get("/bytes?n=0"), 200, Some("0")),
        (Ask::get("/tiny"), 200, Some("13")),
    ] {
        let what = ask.to_string();
        let answer = connection.send(ask).await.unwrap_or_else(|error| panic!("{}: {error:#}", client.kind()));
        assert_eq!((answer.status.as_u16(), answer.header("content-length")), (status, length), "{what}");
        assert!(answer.is_complete(), "{what} over {}", client.kind());
        assert_eq!(answer.body.is_empty(), length != Some("13"), "{what} over {}", client.kind());
    }
}

async fn an_endpoint_that_ends_its_body_by_closing_is_understood(kind: Kind) {
    let steps =
        |_: &_| vec![Step::Send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end".to_vec()), Step::Close];
    let recorder = Recorder::start(steps).await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let client = edge.client(kind);
    client.get("/").await.assert(200, b"until the end");
}

// Once: bytes of HTTP/1.1.
#[tokio::test]
async fn expect_continue_is_honoured() {
    let edge = demo().await;
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send("POST /echo HTTP/1.1\r\nhost: test.example\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").await;
    assert!(raw.read_head().await.starts_with("HTTP/1.1 100 "));
    raw.send("hello").await;
    assert_eq!(raw.read_answer().await.1, b"hello");
}

// Once: bytes of HTTP/1.1.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let edge = demo().await;
    let mut raw = Raw::connect(edge.address("plain")).await;
    let requests: String =
        (1..=10).map(|size| format!("GET /bytes?n={size} HTTP/1.1\r\nhost: test.example\r\n\r\n")).collect();
    raw.send(requests).await;
    for size in 1..=10 {
        let (head, body) = raw.read_answer().await;
        assert_eq!(body, pattern(size), "{head}");
        assert_eq!(field(&head, "content-length"), Some(size.to_string().as_str()));
    }
}

// Once: bytes of HTTP/1.0.
#[tokio::test]
async fn http_1_0_gets_an_answer_it_can_read() {
    let edge = demo().await;
    let request = "GET /stream?n=3&ms=0 HTTP/1.0\r\nhost: test.example\r\n\r\n";
    let (answer, end) = Raw::exchange(edge.address("plain"), request, Duration::from_secs(5)).await;
    assert!(field(&answer, "transfer-encoding").is_none(), "{answer}");
    assert!(answer.ends_with("\r\n\r\nline 0\nline 1\nline 2\n"), "{answer}");
    assert_eq!(end, tidegate_tests::raw::End::Closed);
}

// Once: streams are of HTTP/2.
#[tokio::test]
async fn large_answers_come_whole_to_many_streams_at_once() {
    let edge = demo().await;
    let body = pattern(1 << 20);
    for kind in [Kind::H2c, Kind::H2Tls] {
        let asks = (0..16).map(|_| async { edge.client(kind).get("/1m").await });
        for answer in futures_util::future::join_all(asks).await {
            answer.assert(200, &body);
        }
    }
}

async fn a_client_over_its_limit_is_no_failure_of_the_endpoint(kind: Kind) {
    // The endpoint answers while the body comes, so the answer has begun when the limit is met.
    let limited = "{ path: /, proxy: app, max_body: 64KiB }";
    let site = Site::demo_workers(1, &[]).replace("{ path: /, proxy: app }", limited);
    let edge = Edge::start(site).await;
    let client = edge.client(kind);
    let pieces = (0..8).map(|_| Bytes::from(vec![b'x'; 16 * 1024])).collect();
    let sent = client.send(Ask::post_slowly("/echo", pieces, Duration::from_millis(30))).await;
    let complete = sent.is_ok_and(|answer| answer.status == 200 && answer.is_complete());
    assert!(!complete, "over {}", client.kind());
    let endpoint = &edge.status().await["upstreams"][0]["endpoints"][0];
    assert_eq!((&endpoint["requests"], &endpoint["failures"]), (&1.into(), &0.into()), "{endpoint}");
}
