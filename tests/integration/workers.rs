//! Supervised workers: they come back, and nothing of them stays behind.

use std::time::Duration;

use tidegate_tests::{
    client::{Ask, Kind},
    edge::{Edge, Worker},
    every_client,
    load::Load,
    process::{Signal, is_alive, send_signal},
    site::Site,
    wait::wait_for,
};

every_client! {
    each_worker_has_its_slot_and_serves,
    a_crashing_request_costs_one_worker,
    a_worker_gets_no_request_before_it_is_ready,
    workers_on_ports_serve_too,
    workers_on_sockets_that_they_inherit_serve_too,
}

const BACK: Duration = Duration::from_secs(10);

fn all_ready(count: usize) -> impl Fn(&[Worker]) -> bool {
    move |workers| workers.iter().filter(|worker| worker.is_ready()).count() == count
}

async fn each_worker_has_its_slot_and_serves(kind: Kind) {
    let edge = Edge::start(Site::demo_workers(3, &[])).await;
    let workers = edge.ready_workers("app", 3).await;
    assert_eq!(workers.iter().map(|worker| worker.slot).collect::<Vec<_>>(), [0, 1, 2]);
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..12 {
        let facts = edge.client(kind).get("/").await.json();
        let slot: u64 = facts["slot"].as_str().expect("the worker knows its slot").parse().expect("a number");
        seen.insert(slot, facts["pid"].as_i64().expect("a pid") as i32);
    }
    let expected = workers.iter().map(|worker| (worker.slot, worker.pid)).collect();
    assert_eq!(seen, expected, "every worker serves, under the pid the status shows");
}

// Once: load of all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_is_back_and_the_others_serve() {
    let edge = Edge::start(Site::demo_workers(3, &[])).await;
    let before = edge.ready_workers("app", 3).await;
    let load = Load::start(&edge.clients(), 8, "/tiny", b"hello, world\n".to_vec());
    wait_for("some load", BACK, || (load.sent() > 100).then_some(())).await;
    send_signal(before[1].pid, Signal::SIGKILL);
    let back = |workers: &[Worker]| all_ready(3)(workers) && workers[1].pid != before[1].pid;
    let after = edge.workers_until("app", BACK, back).await;
    let sent = load.sent();
    wait_for("more load", BACK, || (load.sent() > sent + 100).then_some(())).await;
    // A GET that a dying worker had not begun to answer is sent again.
    load.stop().await.assert_clean();
    assert_eq!(after[1].restarts, 1);
    assert_eq!((after[0].pid, after[2].pid), (before[0].pid, before[2].pid));
    assert!(edge.zombies().is_empty(), "{:?}", edge.zombies());
}

async fn a_crashing_request_costs_one_worker(kind: Kind) {
    let edge = Edge::start(Site::demo_workers(2, &[])).await;
    let before = edge.ready_workers("app", 2).await;
    let answer = edge.client(kind).ask(Ask::post("/crash", "")).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (502, Some("upstream_closed")));
    let restarted =
        |workers: &[Worker]| all_ready(2)(workers) && workers.iter().map(|worker| worker.restarts).sum::<u64>() == 1;
    let after = edge.workers_until("app", BACK, restarted).await;
    assert_eq!(after.iter().filter(|worker| before.contains(worker)).count(), 1, "{before:?} {after:?}");
}

async fn a_worker_gets_no_request_before_it_is_ready(kind: Kind) {
    let edge = Edge::start(Site::demo_workers(1, &["--boot-delay", "700"])).await;
    edge.client(kind).get("/tiny").await.assert(200, b"hello, world\n");
    let pid = edge.workers("app").await[0].pid;
    send_signal(pid, Signal::SIGKILL);
    // Meanwhile there is nobody: the request waits or is refused, and is never sent into the void.
    let answer = edge.client(kind).get("/tiny").await;
    assert!(matches!(answer.status.as_u16(), 200 | 502 | 503), "{}", answer.text());
    // The status may still show the worker that was killed.
    edge.workers_until("app", BACK, |workers| all_ready(1)(workers) && workers[0].pid != pid).await;
    edge.client(kind).get("/tiny").await.assert(200, b"hello, world\n");
}

async fn workers_on_ports_serve_too(kind: Kind) {
    let site = Site::proxy("workers: { command: [\"@demo@\", --port, \"{port}\"], count: 2, transport: port }");
    let edge = Edge::start(site).await;
    edge.ready_workers("app", 2).await;
    let client = edge.client(kind);
    client.get("/tiny").await.assert(200, b"hello, world\n");
}

async fn workers_on_sockets_that_they_inherit_serve_too(kind: Kind) {
    // The program can only listen on what it was given.
    let site = Site::proxy("workers: { command: [\"@demo@\", --fd, \"{fd}\"], count: 2, transport: fd }");
    let edge = Edge::start(site).await;
    let workers = edge.ready_workers("app", 2).await;
    let client = edge.client(kind);
    client.get("/tiny").await.assert(200, b"hello, world\n");
    send_signal(workers[0].pid, Signal::SIGKILL);
    let is_back = |found: &[Worker]| all_ready(2)(found) && found.iter().all(|worker| worker.pid != workers[0].pid);
    edge.workers_until("app", BACK, is_back).await;
    client.get("/tiny").await.assert(200, b"hello, world\n");
}

// Once: it is about processes.
#[tokio::test]
async fn workers_do_not_fork_pools_of_their_own() {
    let script = "echo web=$WEB_CONCURRENCY slot=$WORKER_SLOT; exec \\\"$0\\\" --uds \\\"$1\\\"";
    let site =
        Site::proxy(&format!("workers: {{ command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"], count: 1 }}"));
    let edge = Edge::start(site).await;
    let output = edge.output();
    wait_for("the worker's line in the log", BACK, || {
        let both = output.both();
        (both.contains("web=1") && both.contains("slot=0")).then_some(())
    })
    .await;
}

/// Each worker keeps a grandchild that ignores every polite signal.
fn with_stubborn_grandchildren() -> Site {
    let script =
        "(trap '' TERM INT HUP QUIT; while :; do sleep 100; done) & exec \\\"$0\\\" --uds \\\"$1\\\" --ignore-term";
    Site::proxy(&format!(
        "workers: {{ command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"], count: 2, drain_timeout: 1s, stop_timeout: 1s }}"
    ))
}

// Once: it is about processes.
#[tokio::test]
async fn nothing_is_left_one_second_after_sigterm() {
    let edge = Edge::start(with_stubborn_grandchildren()).await;
    let stopped = edge.stop().await;
    stopped.assert_clean();
    assert!(stopped.took < Duration::from_secs(10), "{:?}", stopped.took);
}

// Once: it is about processes.
#[tokio::test]
async fn nothing_is_left_one_second_after_sigkill() {
    let edge = Edge::start(with_stubborn_grandchildren()).await;
    let workers = edge.ready_workers("app", 2).await;
    let stopped = edge.kill().await;
    assert!(stopped.left.is_empty(), "alive one second after the kill: {:?}", stopped.left);
    assert!(workers.iter().all(|worker| !is_alive(worker.pid)), "{workers:?}");
}

// Once: it is about processes.
#[tokio::test]
async fn a_killed_workers_grandchildren_die_with_it() {
    let edge = Edge::start(with_stubborn_grandchildren()).await;
    let before = edge.ready_workers("app", 2).await;
    for worker in &before {
        send_signal(worker.pid, Signal::SIGKILL);
    }
    let back = |workers: &[Worker]| {
        all_ready(2)(workers) && workers.iter().all(|worker| before.iter().all(|old| old.pid != worker.pid))
    };
    edge.workers_until("app", BACK, back).await;
    // Two workers, and two grandchildren with a sleep each; none of the first generation.
    let count = || edge.living().values().filter(|command| command.contains("sleep 100")).count();
    wait_for("the old grandchildren's end", BACK, || (count() <= 4).then_some(())).await;
    assert!(edge.zombies().is_empty());
}

// Once: all clients at once.
#[tokio::test]
async fn requests_in_flight_are_finished_before_the_end() {
    let edge = Edge::start(Site::demo_workers(1, &[])).await;
    let slow: Vec<_> = edge
        .clients()
        .into_iter()
        .map(|client| tokio::spawn(async move { client.send(Ask::get("/slow?ms=1500")).await }))
        .collect();
    tidegate_tests::wait::wait_until("the requests in flight", BACK, async || {
        let status = edge.status().await;
        let endpoints = status["upstreams"][0]["endpoints"].as_array()?.clone();
        (endpoints.iter().filter_map(|endpoint| endpoint["in_flight"].as_u64()).sum::<u64>() == 4).then_some(())
    })
    .await;
    let stopped = edge.stop().await;
    stopped.assert_clean();
    for answer in slow {
        let answer = answer.await.expect("the client does not panic").expect("the request is answered");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(stopped.took < Duration::from_secs(8), "{:?}", stopped.took);
}
