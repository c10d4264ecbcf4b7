//! Reloads: all or nothing, and nobody notices.

use std::time::Duration;

use tidegate_tests::{
    client::{Client, Kind},
    edge::Edge,
    every_client,
    ledger::Ledger,
    load::Load,
    process::{Signal, send_signal},
    raw::{Raw, status},
    recorder::Recorder,
    site::Site,
    wait::{wait_for, wait_until},
    websocket::WebSocket,
};
use tokio_tungstenite::tungstenite::Message;

every_client! {
    a_bad_file_changes_nothing_and_says_why,
    connections_outlive_reloads,
    an_upstream_is_exchanged,
}

/// The usual front before one demo worker, with a route that says which edition this is.
fn edition(number: usize) -> Site {
    let routes = format!("- {{ path: = /edition, respond: {{ body: \"{number}\" }} }}\n- {{ path: /, proxy: app }}");
    let app = "app:\n  workers: { command: [\"@demo@\", --uds, \"{socket}\"], count: 2, ready: { http: /healthz } }";
    Site::usual(&routes, app)
}

async fn assert_edition(client: Client, number: usize) {
    client.get("/edition").await.assert(200, number.to_string().as_bytes());
}

// Once: load of all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_reloads_under_load_lose_nothing() {
    let mut edge = Edge::start(edition(0)).await;
    let workers = edge.ready_workers("app", 2).await;
    let load = Load::start(&edge.clients(), 16, "/tiny", b"hello, world\n".to_vec());
    for number in 1..=20 {
        let sent = load.sent();
        let finished = edge.reload(&edition(number)).await;
        assert!(finished.status.success(), "reload {number}: {}{}", finished.stdout, finished.stderr);
        for client in edge.clients() {
            assert_edition(client, number).await;
        }
        wait_for("load after the reload", Duration::from_secs(10), || (load.sent() > sent + 50).then_some(())).await;
    }
    load.stop().await.assert_clean();
    assert_eq!(edge.workers("app").await, workers, "unchanged workers are untouched");
}

// Once: load of all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_balances_over_reloads() {
    let ledger = Ledger::open().await;
    let site = |number: usize| {
        let routes =
            format!("- {{ path: = /edition, respond: {{ body: \"{number}\" }} }}\n- {{ path: /, proxy: app }}");
        Site::usual(&routes, &format!("app: {{ servers: [{{ address: \"{}\" }}] }}", ledger.address()))
    };
    let mut edge = Edge::start(site(0)).await;
    let load = Load::ledger(&edge.clients(), 8, &ledger, 3_000);
    for number in 1..=5 {
        let sent = load.sent();
        let finished = edge.reload(&site(number)).await;
        assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
        wait_for("load after the reload", Duration::from_secs(10), || (load.sent() > sent + 50).then_some(())).await;
    }
    load.stop().await.assert_clean();
    ledger.report().assert_clean();
}

async fn a_bad_file_changes_nothing_and_says_why(kind: Kind) {
    let mut edge = Edge::start(edition(1)).await;
    let client = edge.client(kind);
    let generation = edge.status().await["generation"].clone();
    for (from, to, named) in [
        ("proxy: app", "proxy: ap", "ap"),
        ("path: /,", "pathh: /,", "pathh"),
        ("server.pem", "garbage.pem", "garbage.pem"),
        ("hosts:", "hosts: [", "site.yaml"),
    ] {
        let finished = edge.reload(&edition(2).replace(from, to)).await;
        let told = format!("{}{}", finished.stdout, finished.stderr);
        assert_eq!(finished.status.code(), Some(1), "{to}: {told}");
        assert!(told.contains(named), "{to}: {told}");
        assert_edition(client, 1).await;
    }
    let status = edge.status().await;
    assert_eq!(status["generation"], generation);
    assert_eq!(status["last_reload"]["applied"], false, "{status:#}");
    assert!(edge.reload(&edition(3)).await.status.success());
    assert_edition(client, 3).await;
}

// Once: both clients that can upgrade.
#[tokio::test]
async fn a_websocket_outlives_reloads() {
    let mut edge = Edge::start(edition(0)).await;
    let mut sockets = Vec::new();
    for kind in [Kind::Http1, Kind::Http1Tls] {
        sockets.push(WebSocket::connect(edge.client(kind), "/ws").await.expect("a conversation"));
    }
    for number in 1..=5 {
        assert!(edge.reload(&edition(number)).await.status.success());
        for socket in &mut sockets {
            socket.assert_echo(Message::text(format!("after reload {number}"))).await;
        }
    }
}

async fn connections_outlive_reloads(kind: Kind) {
    let mut edge = Edge::start(edition(0)).await;
    let mut connections = Vec::new();
    let client = edge.client(kind);
    connections.push(client.connect().await.expect("the edge listens"));
    for number in 1..=3 {
        assert!(edge.reload(&edition(number)).await.status.success());
        for connection in &mut connections {
            let answer =
                connection.send(tidegate_tests::client::Ask::get("/edition")).await.expect("the same connection");
            answer.assert(200, number.to_string().as_bytes());
        }
    }
}

// Once: it is about the signal.
#[tokio::test]
async fn sighup_reloads() {
    let mut edge = Edge::start(edition(1)).await;
    let client = edge.client(Kind::Http1);
    edge.rewrite(&edition(2));
    edge.signal(Signal::SIGHUP);
    wait_until("the second edition", Duration::from_secs(10), async || {
        (client.get("/edition").await.text() == "2").then_some(())
    })
    .await;
    edge.rewrite(&edition(3).replace("proxy: app", "proxy: gone"));
    edge.signal(Signal::SIGHUP);
    edge.wait_for_message("gone", Duration::from_secs(10)).await;
    assert_edition(client, 2).await;
}

// Once: it is about the socket.
#[tokio::test]
async fn a_listener_comes_and_goes() {
    let mut edge = Edge::start(edition(1)).await;
    let more =
        edition(2).replace("listeners:\n", "listeners:\n  - { name: extra, address: \"127.0.0.1:@port:extra@\" }\n");
    assert!(edge.reload(&more).await.status.success());
    assert_edition(Client::new(Kind::Http1, edge.address("extra")), 2).await;
    assert!(edge.reload(&edition(3)).await.status.success());
    edge.wait_until_refused("extra").await;
    assert_edition(edge.client(Kind::Http1), 3).await;
}

async fn an_upstream_is_exchanged(kind: Kind) {
    let (old, new) = (Recorder::friendly().await, Recorder::friendly().await);
    let mut edge = Edge::start(Site::proxy_to(old.address())).await;
    edge.client(kind).get("/").await.assert(200, b"ok\n");
    let finished = edge.reload(&Site::proxy_to(new.address())).await;
    let told = format!("{}{}", finished.stdout, finished.stderr);
    assert!(finished.status.success() && told.contains(new.address()), "the change is named: {told}");
    let client = edge.client(kind);
    client.get("/").await.assert(200, b"ok\n");
    assert_eq!((old.requests().len(), new.requests().len()), (1, 1));
}

// Once: it is about the endpoint's side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_the_old_file_meets_no_server_that_is_spoken_to_otherwise() {
    let route = "- { path: /, proxy: app, buffer: { request: on } }";
    let site = |server: &Recorder, how: &str| {
        Site::usual(route, &format!("app: {{ servers: [{{ address: \"{}\" }}]{how} }}", server.address()))
    };
    let tls = ", tls: { verify: false, server_name: one.example }";
    for how in [tls, ", proxy_protocol: v1", ", protocol: h2"] {
        let (old, new) = (Recorder::friendly().await, Recorder::friendly().await);
        let mut edge = Edge::start(site(&old, "")).await;
        let mut raw = Raw::connect(edge.address("plain")).await;
        raw.send("POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").await;
        assert_eq!(status(&raw.read_head().await), 100, "its body is being held");
        let changed = site(&new, how);
        // The engine of HTTP/2 endpoints holds no body.
        let changed = if how.contains("h2") { changed.replace(", buffer: { request: on }", "") } else { changed };
        let finished = edge.reload(&changed).await;
        assert!(finished.status.success(), "{how}: {}{}", finished.stdout, finished.stderr);
        raw.send("hello").await;
        assert_eq!(raw.read_answer().await.1, b"ok\n", "{how}");
        assert_eq!(old.only_request().body, b"hello", "{how}");
        assert!(new.connections().is_empty(), "{how}: it was spoken to as the old file says");
    }
}

// Once: it is about workers.
#[tokio::test]
async fn workers_stay_when_they_are_spoken_to_otherwise() {
    let mut edge = Edge::start(edition(0)).await;
    let workers = edge.ready_workers("app", 2).await;
    let client = edge.client(Kind::Http1);
    client.get("/tiny").await.assert(200, b"hello, world\n");
    let told = edition(1).replace("app:\n", "app:\n    proxy_protocol: v1\n");
    assert!(edge.reload(&told).await.status.success());
    // They do not know the header, but they are there.
    assert_ne!(client.get("/tiny").await.status, 200);
    assert_eq!(edge.workers("app").await, workers);
    assert!(edge.reload(&edition(2)).await.status.success());
    client.get("/tiny").await.assert(200, b"hello, world\n");
    assert_eq!(edge.workers("app").await, workers);
    // The supervisor still tells the pool of them.
    send_signal(workers[0].pid, Signal::SIGKILL);
    edge.workers_until("app", Duration::from_secs(10), |now| {
        now.iter().filter(|worker| worker.is_ready()).count() == 2 && now != workers
    })
    .await;
    for _ in 0..4 {
        client.get("/tiny").await.assert(200, b"hello, world\n");
    }
}

// Once: it is about the file.
#[tokio::test]
async fn what_cannot_change_live_is_refused_by_name() {
    let server = |shards: usize| {
        format!("server: {{ shards: {shards}, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }}")
    };
    let mut edge = Edge::start(edition(1).and(&server(1))).await;
    let finished = edge.reload(&edition(2).and(&server(2))).await;
    let told = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.status.code(), Some(1), "{told}");
    assert!(told.contains("shards"), "{told}");
    assert_edition(edge.client(Kind::Http1), 1).await;
}
