//! A worker that leaves: what streams through it goes on for a while and no longer, and requests beside it finish.

use std::time::Duration;

use anyhow::ensure;
use tidegate_tests::{
    client::{Answer, Ask, Kind},
    edge::Edge,
    every_client,
    load::Load,
    process::is_alive,
    raw::Raw,
    site::Site,
    wait::{wait_for, wait_until},
    websocket::WebSocket,
};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

every_client! {
    an_event_stream_does_not_hold_its_worker_and_a_request_does,
}

const GRACE: Duration = Duration::from_millis(700);
const STOP: Duration = Duration::from_millis(500);
/// A new worker starts, and shows for as long as `min_ready` that it stays.
const TAKEOVER: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(20);

fn site(count: usize, more: &str) -> Site {
    Site::proxy(&format!(
        "workers:\n  command: [\"@demo@\", --uds, \"{{socket}}\", {more}]\n  count: {count}\n  stream_grace: 700ms\n  \
         stop_timeout: 500ms\n  deploy: {{ min_ready: 200ms }}"
    ))
}

/// Takes the worker out.
async fn drain(edge: &Edge) {
    let drained = edge.home().tidegate(&["drain", "app", "0", "--no-wait"]).await;
    assert!(drained.status.success(), "{}", drained.stderr);
}

// Once: an upgrade is HTTP/1.1; the load asks with all clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_ends_websockets_in_good_manners_and_loses_no_request() {
    let mut edge = Edge::start(site(2, "--keep-alive, 75")).await;
    let old = edge.ready_workers("app", 2).await;
    let check = |answer: &Answer| {
        ensure!(answer.status == 200 && answer.is_complete(), "{}: {}", answer.status, answer.text());
        Ok(())
    };
    // A post is not sent again once a worker may have seen it, so a retry cannot hide a request that was lost.
    let load = Load::asking(&edge.clients(), 8, || Ask::post("/slow?ms=300", ""), check);
    let mut sockets = Vec::new();
    for kind in [Kind::Http1, Kind::Http1Tls].into_iter().cycle().take(6) {
        sockets.push(WebSocket::connect(edge.client(kind), "/ws").await.expect("a tunnel"));
    }
    // As long as several graces, and sent before anybody leaves.
    let client = edge.client(Kind::Http1);
    let slow = tokio::spawn(async move { client.send(Ask::post("/slow?ms=3000", "")).await });
    let reloaded = edge.reload(&site(2, "--keep-alive, 74")).await;
    assert!(reloaded.status.success(), "{}", reloaded.stderr);
    let begun = Instant::now();
    for socket in &mut sockets {
        let closed = timeout(LIMIT, socket.receive()).await.expect("a close in time");
        match closed {
            Ok(Some(Message::Close(Some(frame)))) => assert_eq!(frame.code, CloseCode::Away),
            other => panic!("instead of a close: {other:?}"),
        }
    }
    let took = begun.elapsed();
    assert!(took >= GRACE && took <= 2 * (TAKEOVER + GRACE + STOP), "{took:?}");
    let slow = slow.await.expect("no panic").expect("an answer");
    assert_eq!((slow.status.as_u16(), slow.is_complete()), (200, true));
    wait_for("the old workers' end", LIMIT, || old.iter().all(|worker| !is_alive(worker.pid)).then_some(())).await;
    load.stop().await.assert_clean();
}

// Once: an upgrade is HTTP/1.1, and so is the request.
#[tokio::test]
async fn a_shutdown_lets_workers_end_websockets_and_loses_no_request() {
    let edge = Edge::start(site(2, "--keep-alive, 75")).await;
    edge.ready_workers("app", 2).await;
    let mut sockets = Vec::new();
    for kind in [Kind::Http1, Kind::Http1Tls] {
        sockets.push(WebSocket::connect(edge.client(kind), "/ws").await.expect("a tunnel"));
    }
    // A request that has begun, and comes to its end some graces later.
    let mut late = Raw::connect(edge.client(Kind::Http1).address()).await;
    late.send("GET /tiny HTTP/1.1\r\nhost: localhost\r\n").await;
    // The head's first bytes have to be there before the signal is.
    edge.client(Kind::Http1).get("/tiny").await.assert(200, b"hello, world\n");
    let stopped = tokio::spawn(edge.stop());
    // The pause is the point: workers that had been told to stop by now would be gone.
    tokio::time::sleep(3 * GRACE).await;
    late.send("\r\n").await;
    let (head, _) = late.read_answer().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for socket in &mut sockets {
        match timeout(LIMIT, socket.receive()).await.expect("a close in time") {
            Ok(Some(Message::Close(Some(frame)))) => assert_eq!(frame.code, CloseCode::Away),
            other => panic!("instead of a close: {other:?}"),
        }
    }
    drop((late, sockets));
    let stopped = stopped.await.expect("no panic");
    stopped.assert_clean();
    // Not the 30 s that connections may take.
    assert!(stopped.took < Duration::from_secs(10), "{:?}", stopped.took);
}

/// `drain_timeout` is the default of 30 s, so nobody mistakes it for the grace.
async fn an_event_stream_does_not_hold_its_worker_and_a_request_does(kind: Kind) {
    let edge = Edge::start(site(1, "")).await;
    let worker = edge.ready_workers("app", 1).await.remove(0);
    let mut connection = edge.client(kind).connect().await.expect("a connection");
    let events = Ask::get("/stream?n=1000&ms=50").header("accept", "text/event-stream");
    let mut events = connection.start(events).await.expect("a head");
    assert!(events.piece().await.expect("a piece").is_some());
    let client = edge.client(kind);
    let request = tokio::spawn(async move { client.send(Ask::post("/slow?ms=2500", "")).await });
    wait_until("both under way", LIMIT, async || {
        (edge.status().await["upstreams"][0]["endpoints"][0]["in_flight"] == 2).then_some(())
    })
    .await;
    let begun = Instant::now();
    drain(&edge).await;
    let answer = request.await.expect("no panic").expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.is_complete()), (200, true), "the grace is not for requests");
    assert!(begun.elapsed() > GRACE, "the request was to outlast it");
    wait_for("the worker's end", LIMIT, || (!is_alive(worker.pid)).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    while matches!(events.piece().await, Ok(Some(_))) {}
}

// Once: nothing is asked but over one connection.
#[tokio::test]
async fn a_stream_that_ends_in_its_grace_ends_the_drain() {
    let app = "workers:\n  command: [\"@demo@\", --uds, \"{socket}\"]\n  count: 1\n  stream_grace: 25s";
    let edge = Edge::start(Site::proxy(app)).await;
    let worker = edge.ready_workers("app", 1).await.remove(0);
    let mut socket = WebSocket::connect(edge.client(Kind::Http1), "/ws").await.expect("a tunnel");
    drain(&edge).await;
    edge.workers_until("app", LIMIT, |workers| workers.iter().any(|one| one.state == "draining")).await;
    socket.assert_echo(Message::text("still here")).await;
    assert!(is_alive(worker.pid));
    let begun = Instant::now();
    socket.close().await.expect("a close");
    wait_for("the worker's end", LIMIT, || (!is_alive(worker.pid)).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
