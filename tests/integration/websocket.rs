//! WebSocket through the edge.

use std::time::Duration;

use tidegate_tests::{
    client::{Client, Kind},
    edge::Edge,
    raw::{Raw, status},
    recorder::{OK, Recorder, Step},
    site::Site,
    websocket::WebSocket,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nhost: test.example\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn upgrading(edge: &Edge) -> [Client; 2] {
    [Kind::Http1, Kind::Http1Tls].map(|kind| edge.client(kind))
}

async fn open(client: Client) -> WebSocket {
    WebSocket::connect(client, "/ws").await.unwrap_or_else(|error| panic!("over {}: {error:#}", client.kind()))
}

#[tokio::test]
async fn messages_of_all_kinds_and_sizes_come_back() {
    let edge = Edge::start(Site::demo_workers(1, &[])).await;
    for client in upgrading(&edge) {
        let mut socket = open(client).await;
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            socket.assert_echo(Message::text("x".repeat(size))).await;
            socket.assert_echo(Message::binary(vec![0xff; size])).await;
        }
        socket.close().await.unwrap_or_else(|error| panic!("over {}: {error:#}", client.kind()));
    }
}

#[tokio::test]
async fn conversations_do_not_mix() {
    let edge = Edge::start(Site::demo_workers(2, &[])).await;
    let mut sockets = Vec::new();
    for index in 0..20 {
        sockets.push(open(upgrading(&edge)[index % 2]).await);
    }
    for round in 0..3 {
        for (index, socket) in sockets.iter_mut().enumerate() {
            socket.assert_echo(Message::text(format!("{round} of {index}"))).await;
        }
    }
}

#[tokio::test]
async fn bytes_sent_right_after_the_answer_are_not_lost() {
    let frame = b"\x81\x05hello";
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let recorder = Recorder::start(move |_| vec![Step::Send([&answer[..], frame].concat()), Step::Stall]).await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send(format!("{HANDSHAKE}\r\n")).await;
    assert_eq!(status(&raw.read_head().await), 101);
    assert_eq!(raw.read_exact(frame.len()).await, frame);
    let seen = recorder.only_request();
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert_eq!(seen.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(seen.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{}", seen.head);
}

#[tokio::test]
async fn nothing_is_tunnelled_before_the_endpoint_agrees() {
    let recorder = Recorder::answering(OK).await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: test.example\r\n\r\n";
    let (answer, _) =
        Raw::exchange(edge.address("plain"), format!("{HANDSHAKE}\r\n{smuggled}"), Duration::from_secs(2)).await;
    // The endpoint said 200: what follows is the next request, routed as such, or nothing.
    assert_ne!(status(&answer), 101, "{answer}");
    for recorded in recorder.connections() {
        for seen in &recorded.requests {
            assert!(seen.header("x-request-id").is_some(), "a request that was not routed: {}", seen.head);
        }
    }
}

#[tokio::test]
async fn other_upgrades_are_not_passed_on() {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let request = "GET / HTTP/1.1\r\nhost: test.example\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n";
    let (answer, _) = Raw::exchange(edge.address("plain"), request, Duration::from_secs(1)).await;
    assert_ne!(status(&answer), 101, "{answer}");
    for seen in recorder.requests() {
        assert!(seen.header("upgrade").is_none() && seen.header("http2-settings").is_none(), "{}", seen.head);
    }
}

#[tokio::test]
async fn a_path_without_websocket_says_so() {
    let edge = Edge::start(Site::demo_workers(1, &[])).await;
    for client in upgrading(&edge) {
        assert!(WebSocket::connect(client, "/tiny").await.is_err());
        client
            .get("/ws")
            .await
            .assert(426, b"this path speaks WebSocket (RFC 6455, version 13): send the upgrade headers\n");
        open(client).await.assert_echo(Message::text("still here")).await;
    }
}

#[tokio::test]
async fn a_worker_that_stops_says_goodbye() {
    let edge = Edge::start(Site::demo_workers(1, &[])).await;
    let mut socket = open(edge.client(Kind::Http1)).await;
    socket.assert_echo(Message::text("hello")).await;
    let pid = edge.workers("app").await[0].pid;
    tidegate_tests::process::send_signal(pid, tidegate_tests::process::Signal::SIGTERM);
    match socket.receive().await {
        Ok(Some(Message::Close(Some(frame)))) => assert_eq!(frame.code, CloseCode::Away),
        other => panic!("instead of a close: {other:?}"),
    }
}
