//! Keys of workers that are a known program. Each value has a program of its own in front of demo workers, which pass
//! here for a Node application in a shell.

use std::{
    fs,
    time::{Duration, Instant},
};

use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    site::Site,
    wait::wait_until,
};

use super::{Row, check};

const ROWS: &[Row<&str>] = &[
    Row {
        key: "upstreams.<name>.workers.preset",
        values: [
            "preset: custom, command: [sh, -c, \"exec @demo@ --uds {socket}\"]",
            "preset: node, command: [sh, -c], app: \"exec @demo@ --port $$PORT\"",
        ],
        observe: |value| Box::pin(kind_of_address(value)),
        expected: ["unix", "127.0.0.1"],
    },
    Row {
        key: "upstreams.<name>.workers.app",
        values: [
            "preset: node, command: [sh, -c], app: \"exec @demo@ --port $$PORT\"",
            "preset: node, command: [sh, -c], app: \"exec @demo@ --port $$PORT --threads 3\"",
        ],
        observe: |value| Box::pin(with_threads(value)),
        expected: ["without", "with"],
    },
    Row {
        key: "upstreams.<name>.workers.args",
        values: [
            "preset: node, command: [sh, -c], app: \"exec @demo@ --port $$PORT \\\"$$@\\\"\"",
            "preset: node, command: [sh, -c], app: \"exec @demo@ --port $$PORT \\\"$$@\\\"\", args: [sh, --threads, 3]",
        ],
        observe: |value| Box::pin(with_threads(value)),
        expected: ["without", "with"],
    },
    Row {
        key: "upstreams.<name>.workers.keep_alive",
        values: [DEMO, "command: [\"@demo@\", --uds, \"{socket}\"], keep_alive: 1s"],
        observe: |value| Box::pin(connections_after_a_request(value)),
        expected: ["1", "0"],
    },
    Row {
        key: "upstreams.<name>.workers.cap",
        values: [DEMO, "command: [\"@demo@\", --uds, \"{socket}\"], cap: 1"],
        observe: |value| Box::pin(two_requests(value)),
        expected: ["2 under way", "1 under way, 1 waits"],
    },
];

const DEMO: &str = "command: [\"@demo@\", --uds, \"{socket}\"]";
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_presets_act() {
    check(ROWS, 4, |index, side| ROWS[index].values[side]).await;
}

async fn edge(value: &str) -> Edge {
    Edge::start(Site::proxy(&format!("workers: {{ count: 1, {value} }}"))).await
}

async fn kind_of_address(value: &str) -> String {
    let status = edge(value).await.status().await;
    let address = status["upstreams"][0]["endpoints"][0]["address"].as_str().unwrap_or("none");
    address.split(':').next().unwrap_or_default().to_owned()
}

async fn with_threads(value: &str) -> String {
    let edge = edge(value).await;
    let pid = edge.ready_workers("app", 1).await[0].pid;
    let words = fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
    if words.split(|byte| *byte == 0).any(|word| word == b"--threads") { "with" } else { "without" }.to_owned()
}

async fn connections_after_a_request(value: &str) -> String {
    let edge = edge(value).await;
    edge.client(Kind::Http1).get("/tiny").await.assert(200, b"hello, world\n");
    let asked = Instant::now();
    // A connection that is not kept is closed right after the answer, one that is kept is there half a second later too.
    wait_until("connections to settle", LIMIT, async || {
        let connections = edge.status().await["upstreams"][0]["endpoints"][0]["connections"].to_string();
        (connections == "0" || asked.elapsed() > KEPT).then_some(connections)
    })
    .await
}

const KEPT: Duration = Duration::from_millis(500);

async fn two_requests(value: &str) -> String {
    let edge = edge(value).await;
    for _ in 0..2 {
        let client = edge.client(Kind::Http1);
        tokio::spawn(async move { client.send(Ask::get("/slow?ms=3000")).await });
    }
    wait_until("both requests", LIMIT, async || {
        let status = edge.status().await;
        let upstream = &status["upstreams"][0];
        match (upstream["endpoints"][0]["in_flight"].as_u64()?, upstream["queue"]["waiting"].as_u64()?) {
            (2, 0) => Some("2 under way"),
            (1, 1) => Some("1 under way, 1 waits"),
            _ => None,
        }
    })
    .await
    .to_owned()
}
