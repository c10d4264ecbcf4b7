//! When workers may get requests, and what becomes of those that fail later.

use std::{collections::BTreeSet, time::Duration};

use tidegate_tests::{
    client::{Client, Kind},
    edge::Edge,
    every_client,
    process::{Signal, send_signal},
    site::Site,
    wait::wait_until,
};

every_client! {
    a_worker_that_fails_later_gets_no_requests_until_it_passes,
}

const LIMIT: Duration = Duration::from_secs(15);

/// Process numbers of those who answer twelve requests.
async fn who_serves(client: &Client) -> BTreeSet<i64> {
    let mut seen = BTreeSet::new();
    for _ in 0..12 {
        seen.insert(client.get("/count").await.json()["pid"].as_i64().expect("a number"));
    }
    seen
}

async fn a_worker_that_fails_later_gets_no_requests_until_it_passes(kind: Kind) {
    let site =
        Site::demo_workers(2, &[]).replace("ready: { http: /healthz }", "ready: { http: /healthz, interval: 200ms }");
    let edge = Edge::start(site).await;
    let workers = edge.ready_workers("app", 2).await;
    let pids = BTreeSet::from([i64::from(workers[0].pid), i64::from(workers[1].pid)]);
    let client = edge.client(kind);
    assert_eq!(who_serves(&client).await, pids);
    // It neither answers nor ends.
    send_signal(workers[0].pid, Signal::SIGSTOP);
    let out = wait_until("the worker out of rotation", LIMIT, async || {
        let status = edge.status().await;
        status["upstreams"][0]["workers"][0]["out"].as_str().map(str::to_owned)
    })
    .await;
    assert!(out.ends_with("no answer in time"), "{out}");
    assert_eq!(who_serves(&client).await, BTreeSet::from([i64::from(workers[1].pid)]));
    let printed = edge.home().tidegate(&["status"]).await;
    assert!(printed.stdout.contains("out of rotation: "), "{}", printed.stdout);
    send_signal(workers[0].pid, Signal::SIGCONT);
    wait_until("the worker back in rotation", LIMIT, async || {
        edge.status().await["upstreams"][0]["workers"][0]["out"].is_null().then_some(())
    })
    .await;
    assert_eq!(who_serves(&client).await, pids);
    assert_eq!(edge.workers("app").await, workers, "nobody was ended");
}

// Once: it is about processes and the log.
#[tokio::test]
async fn a_boot_that_takes_too_long_says_what_was_missing() {
    let workers = "workers: { command: [\"@demo@\", --uds, \"{socket}\"], count: 1, boot_timeout: 500ms, \
                   ready: { all_of: [notify, { log: \"cache filled\" }] } }";
    let edge = Edge::launch(tidegate_tests::edge::Home::new(&Site::proxy(workers)));
    let output = edge.output();
    wait_until("the failure in the log", LIMIT, async || {
        let told = output.both();
        (told.contains("no line of its output has matched") && told.contains("it has not sent READY=1")).then_some(())
    })
    .await;
}
