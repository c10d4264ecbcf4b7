//! What of a request arrives at the endpoint, byte for byte.

use std::time::Duration;

use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    every_client,
    raw::{Raw, status},
    recorder::{Recorder, Step},
    site::Site,
};

every_client! {
    who_the_client_is_is_ours_to_say,
    each_request_has_one_id,
    the_canonical_path_is_forwarded,
    the_raw_path_is_forwarded_where_a_route_says_so,
    an_endpoint_on_a_unix_socket_is_as_good,
}

async fn who_the_client_is_is_ours_to_say(kind: Kind) {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let client = edge.client(kind);
    recorder.forget();
    let mut ask = Ask::get("/");
    for (name, value) in [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "7.7.7.7"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/evil"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
    ] {
        ask = ask.header(name, value);
    }
    client.ask(ask).await.assert(200, b"ok\n");
    let seen = recorder.only_request();
    let scheme = if client.kind().is_tls() { "https" } else { "http" };
    assert_eq!(seen.headers("x-forwarded-for"), ["127.0.0.1"], "{}", seen.head);
    assert_eq!(seen.headers("x-real-ip"), ["127.0.0.1"], "{}", seen.head);
    assert_eq!(seen.headers("x-forwarded-proto"), [scheme], "{}", seen.head);
    assert_eq!(seen.headers("x-forwarded-host"), ["test.example"], "{}", seen.head);
    assert_eq!(seen.headers("host"), ["test.example"], "{}", seen.head);
    for gone in ["x-forwarded-port", "x-forwarded-prefix", "forwarded"] {
        assert!(seen.header(gone).is_none(), "{}", seen.head);
    }
    for claim in ["6.6.6.6", "7.7.7.7", "evil", "gopher"] {
        assert!(!seen.head.contains(claim), "{}", seen.head);
    }
}

// Once: HTTP/2 has no such field.
#[tokio::test]
async fn a_connection_field_cannot_take_our_fields_away() {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let request = "GET / HTTP/1.1\r\nhost: test.example\r\nconnection: close, x-real-ip, X-Forwarded-For, x-request-id, x-mine\r\n\
                   x-mine: 1\r\n\r\n";
    let (answer, _) = Raw::exchange(edge.address("plain"), request, Duration::from_secs(5)).await;
    match status(&answer) {
        400 => assert!(recorder.requests().is_empty()),
        200 => {
            let seen = recorder.only_request();
            for kept in ["x-real-ip", "x-forwarded-for", "x-request-id"] {
                assert!(seen.header(kept).is_some(), "{kept} is gone: {}", seen.head);
            }
            assert!(seen.header("x-mine").is_none(), "{}", seen.head);
        }
        other => panic!("{other}: {answer}"),
    }
}

// Once: all that can have such fields, and both that cannot.
#[tokio::test]
async fn fields_of_the_connection_stay_on_it() {
    let answer = "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop\r\nkeep-alive: timeout=5\r\nx-hop: 1\r\n\
                  proxy-authenticate: Basic\r\nx-end: 1\r\nconnection: set-cookie\r\nset-cookie: a=1\r\n\
                  content-length: 3\r\n\r\nok\n";
    let recorder = Recorder::answering(answer).await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let request = "GET / HTTP/1.1\r\nhost: test.example\r\nConnection: keep-alive, X-Hop\r\nx-hop: 1\r\nkeep-alive: 5\r\n\
                   te: trailers\r\nproxy-connection: keep-alive\r\nx-end: 1\r\n\r\n";
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send(request).await;
    let (head, body) = raw.read_answer().await;
    assert_eq!((status(&head), body.as_slice()), (200, &b"ok\n"[..]));
    for gone in ["x-hop", "keep-alive:", "timeout=5"] {
        assert!(!head.to_ascii_lowercase().contains(gone), "{head}");
    }
    assert!(head.contains("x-end: 1"), "{head}");
    assert!(head.contains("set-cookie: a=1"), "it is no field of a connection, whoever says so: {head}");
    let seen = recorder.only_request();
    for gone in ["x-hop", "keep-alive", "proxy-connection", "te"] {
        assert!(seen.header(gone).is_none(), "{gone}: {}", seen.head);
    }
    assert_eq!(seen.header("x-end"), Some("1"));
    for client in [edge.client(Kind::H2c), edge.client(Kind::H2Tls)] {
        let answer = client.get("/").await;
        answer.assert(200, b"ok\n");
        for gone in ["x-hop", "keep-alive", "connection"] {
            assert!(answer.header(gone).is_none(), "{gone} over {}", client.kind());
        }
    }
}

async fn each_request_has_one_id(kind: Kind) {
    let mut ids = Vec::new();
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let client = edge.client(kind);
    for _ in 0..2 {
        recorder.forget();
        let answer = client.ask(Ask::get("/").header("x-request-id", "chosen-by-the-client")).await;
        let seen = recorder.only_request();
        assert_eq!(answer.header("x-request-id"), seen.header("x-request-id"), "over {}", client.kind());
        ids.push(seen.headers("x-request-id").join(","));
    }
    assert!(ids.iter().all(|id| id.len() >= 16 && !id.contains(',') && !id.contains("client")), "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2, "an id stood twice: {ids:?}");
}

async fn the_canonical_path_is_forwarded(kind: Kind) {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    for (asked, forwarded) in [
        ("/", "/"),
        ("/a/b?x=%20&y=/../z", "/a/b?x=%20&y=/../z"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a//b", "/a/b"),
        ("/%61%7e", "/a~"),
        ("/a%20b", "/a%20b"),
        ("/a?", "/a?"),
    ] {
        let client = edge.client(kind);
        recorder.forget();
        assert_eq!(client.get(asked).await.status, 200, "{asked} over {}", client.kind());
        assert_eq!(recorder.only_request().target(), forwarded, "{asked} over {}", client.kind());
    }
}

async fn the_raw_path_is_forwarded_where_a_route_says_so(kind: Kind) {
    let recorder = Recorder::friendly().await;
    let upstreams = format!("app: {{ servers: [{{ address: \"{}\" }}] }}", recorder.address());
    let edge = Edge::start(Site::usual("- { path: /, proxy: app, forward_path: raw }", &upstreams)).await;
    for path in ["/a/./b", "/a//b", "/%61%7e?x=%20", "/a/../b"] {
        let client = edge.client(kind);
        recorder.forget();
        assert_eq!(client.get(path).await.status, 200, "{path} over {}", client.kind());
        assert_eq!(recorder.only_request().target(), path, "over {}", client.kind());
    }
}

async fn an_endpoint_on_a_unix_socket_is_as_good(kind: Kind) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("origin.sock");
    let recorder = Recorder::start_unix(&path, |_| vec![Step::Send(tidegate_tests::recorder::OK.into())]).await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let client = edge.client(kind);
    client.get("/").await.assert(200, b"ok\n");
    assert_eq!(recorder.requests().len(), 1);
}

// Once: all clients share the connection.
#[tokio::test]
async fn connections_to_the_endpoint_are_kept() {
    let recorder = Recorder::friendly().await;
    let site = Site::proxy_to(recorder.address())
        .and("server: { shards: 1, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }");
    let edge = Edge::start(site).await;
    for client in edge.clients() {
        for _ in 0..5 {
            client.get("/").await.assert(200, b"ok\n");
        }
    }
    assert_eq!(recorder.requests().len(), 20);
    assert_eq!(recorder.connections().len(), 1, "each request after the first takes the idle connection");
}
