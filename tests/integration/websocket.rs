//! WebSocket through the edge.

use std::{fs, future::Future, sync::Arc, time::Duration};

use tidegate_tests::{
    authority::Authority,
    certificates::install_crypto,
    client::{Client, Kind},
    connect::{Stream, tcp},
    edge::{Edge, Home},
    raw::{End, Raw, status},
    recorder::{OK, Recorder, Step},
    site::Site,
    websocket::WebSocket,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
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

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(10);
/// More than one read takes, less than a socket holds.
const LAST_WORDS: usize = 100_000;

/// Agrees to become a tunnel.
async fn agree(stream: &mut impl Stream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.expect("a request") > 0, "the edge has gone");
    }
    stream.write_all(SWITCHING.as_bytes()).await.expect("written");
    stream.flush().await.expect("flushed");
}

/// A client of a tunnel through the edge.
async fn tunnelled(edge: &Edge) -> Raw {
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send(format!("{HANDSHAKE}\r\n")).await;
    assert_eq!(status(&raw.read_head().await), 101);
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_of_an_endpoint_arrive_although_it_left_bytes_unread() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("endpoint");
    // On a unix socket, what was written before a close is with the other side whatever was left unread.
    let listener = UnixListener::bind(&path).expect("a socket");
    let edge = Edge::start(Site::proxy_to(format!("unix:{}", path.display()))).await;
    for round in 0..5 {
        let (leave, left) = oneshot::channel();
        let endpoint = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            agree(&mut stream).await;
            left.await.expect("a word");
            stream.write_all(&[b'x'; LAST_WORDS]).await.expect("written");
        };
        let client = async {
            let mut stream = tcp(edge.address("plain")).await.expect("a connection");
            stream.write_all(format!("{HANDSHAKE}\r\n").as_bytes()).await.expect("written");
            let mut read = vec![0; SWITCHING.len()];
            assert!(stream.read(&mut read).await.expect("an answer") > 0);
            // Until everything in between is full.
            let chunk = vec![b'y'; 64 << 10];
            while let Ok(written) = timeout(Duration::from_millis(300), stream.write(&chunk)).await {
                written.expect("the edge is there");
            }
            leave.send(()).expect("it waits");
            let mut read = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("an end in time");
            read.iter().filter(|byte| **byte == b'x').count()
        };
        let ((), read) = tokio::join!(endpoint, client);
        assert_eq!(read, LAST_WORDS, "round {round}");
    }
}

/// Hears a client out, and only then says its last words.
async fn last_word(mut stream: impl Stream) -> Vec<u8> {
    agree(&mut stream).await;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.expect("an orderly end");
    stream.write_all(&[b'x'; LAST_WORDS]).await.expect("written");
    stream.shutdown().await.expect("an end");
    heard
}

async fn check_last_word(edge: &Edge, endpoint: impl Future<Output = Vec<u8>>) {
    let client = async {
        let mut raw = tunnelled(edge).await;
        raw.send(vec![b'y'; LAST_WORDS]).await;
        raw.finish().await;
        raw.read_to_end(PATIENCE).await
    };
    let (heard, (read, end)) = tokio::join!(endpoint, client);
    assert_eq!((heard.len(), read.len(), end), (LAST_WORDS, LAST_WORDS, End::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_may_answer_a_client_that_has_ended_its_side() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let edge = Edge::start(Site::proxy_to(listener.local_addr().expect("it is bound"))).await;
    check_last_word(&edge, async { last_word(listener.accept().await.expect("a connection").0).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_on_tls_is_told_the_end_as_well() {
    install_crypto();
    let authority = Authority::new("tunnels");
    let identity = authority.issue(&["one.example"]);
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.clone()], identity.key())
        .expect("the key is the certificate's");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let home = Home::new(&Site::proxy(&format!(
        "servers: [{{ address: \"{address}\" }}]\ntls: {{ ca: \"@dir@/ca.pem\", server_name: one.example }}"
    )));
    authority.write(&home.path().join("ca.pem"));
    let edge = Edge::launch(home).ready().await;
    let endpoint = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        last_word(TlsAcceptor::from(Arc::new(config)).accept(stream).await.expect("a handshake")).await
    };
    check_last_word(&edge, endpoint).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_one_side_has_left_ends_soon_and_rests_until_then() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let edge = Edge::start(Site::proxy_to(listener.local_addr().expect("it is bound"))).await;
    let (mut raw, mut stream) = tokio::join!(tunnelled(&edge), async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        agree(&mut stream).await;
        stream
    });
    let before = cpu_ticks(edge.pid());
    raw.finish().await;
    assert_eq!(stream.read(&mut [0; 8]).await.expect("an end"), 0);
    // The endpoint hears the end and does nothing about it.
    let (read, end) = raw.read_to_end(PATIENCE).await;
    assert_eq!((read.len(), end), (0, End::Closed));
    let spent = cpu_ticks(edge.pid()) - before;
    assert!(spent < 50, "{spent} ticks of 10 ms for doing nothing");
}

/// User and system time of a process so far, in ticks of 10 ms.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is alive");
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}
