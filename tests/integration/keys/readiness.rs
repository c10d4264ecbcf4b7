//! Keys of when workers may get requests. Each value has a program of its own.

use std::time::Duration;

use tidegate_tests::{
    edge::{Edge, Home},
    site::Site,
    wait::{wait_for, wait_until},
};
use tokio::time::timeout;

use super::{Row, check};

const ROWS: &[Row<&str>] = &[
    Row {
        key: "upstreams.<name>.workers.ready.log",
        values: ["{ log: \"^going up$\" }", "{ log: never }"],
        observe: |value| Box::pin(gets_ready(value)),
        expected: ["ready", "not ready"],
    },
    Row {
        key: "upstreams.<name>.workers.ready.delay",
        values: ["{ delay: 0s }", "{ delay: 1h }"],
        observe: |value| Box::pin(gets_ready(value)),
        expected: ["ready", "not ready"],
    },
    Row {
        key: "upstreams.<name>.workers.ready.all_of",
        values: ["{ all_of: [connect] }", "{ all_of: [connect, notify] }"],
        observe: |value| Box::pin(gets_ready(value)),
        expected: ["ready", "not ready"],
    },
    Row {
        key: "upstreams.<name>.workers.ready.interval",
        values: ["{ http: /healthz }", "{ http: /healthz, interval: 100ms }"],
        observe: |value| Box::pin(questions(value)),
        expected: ["once", "again"],
    },
];

const PATIENCE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_readiness_act() {
    check(ROWS, 4, |index, side| ROWS[index].values[side]).await;
}

fn launch(value: &str) -> Edge {
    let script = "echo going up; exec \\\"$0\\\" --uds \\\"$1\\\" --log-requests";
    let site =
        format!("workers: {{ count: 1, command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"], ready: {value} }}");
    Edge::launch(Home::new(&Site::proxy(&site)))
}

/// Whether it does within a time that is long for a worker and short for a delay.
async fn gets_ready(value: &str) -> String {
    let edge = launch(value);
    let ready = wait_until("a ready worker", LIMIT, async || {
        let status = edge.admin().status().await.ok()?;
        (status["upstreams"][0]["workers"][0]["state"] == "ready").then_some(())
    });
    if timeout(PATIENCE, ready).await.is_ok() { "ready" } else { "not ready" }.to_owned()
}

async fn questions(value: &str) -> String {
    let edge = launch(value).ready().await;
    let output = edge.output();
    let again = wait_for("more questions", LIMIT, || (output.both().matches("GET /healthz").count() > 2).then_some(()));
    if timeout(PATIENCE, again).await.is_ok() { "again" } else { "once" }.to_owned()
}
