//! Keys of `recycle`. Each value has a program of its own with one worker, which is asked or made to grow; what is seen is
//! why the worker before the present one ended.

use std::time::Duration;

use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    site::Site,
    wait::wait_until,
};
use tokio::time::timeout;

use super::{Row, check};

const ROWS: &[Row<&str>] = &[
    Row {
        key: "upstreams.<name>.workers.recycle.max_requests",
        values: ["recycle: { max_requests: 4, jitter: 0% }", "recycle: { max_requests: 3, jitter: 0% }"],
        observe: |value| Box::pin(after_requests(value, 3)),
        expected: ["-", "recycle_requests"],
    },
    Row {
        // One in a thousand workers draws nothing at all.
        key: "upstreams.<name>.workers.recycle.jitter",
        values: ["recycle: { max_requests: 1000, jitter: 100% }", "recycle: { max_requests: 1000, jitter: 0% }"],
        observe: |value| Box::pin(after_requests(value, 1_000)),
        expected: ["-", "recycle_requests"],
    },
    Row {
        key: "upstreams.<name>.workers.recycle.max_lifetime",
        values: ["recycle: { max_lifetime: 1h }", "recycle: { max_lifetime: 500ms }"],
        observe: |value| Box::pin(after_requests(value, 1)),
        expected: ["-", "recycle_lifetime"],
    },
    Row {
        key: "upstreams.<name>.workers.recycle.max_rss",
        values: ["recycle: { max_rss: 1GiB }", "recycle: { max_rss: 100MiB }"],
        observe: |value| Box::pin(after_growth(value)),
        expected: ["-", "recycle_rss"],
    },
    Row {
        key: "upstreams.<name>.workers.recycle.hard_rss",
        values: ["recycle: { hard_rss: 1GiB }", "recycle: { hard_rss: 100MiB }"],
        observe: |value| Box::pin(after_growth(value)),
        expected: ["-", "memory_hard"],
    },
];

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_recycling_act() {
    check(ROWS, 12, |index, side| ROWS[index].values[side]).await;
}

async fn after_requests(value: &str, count: u32) -> String {
    let edge = start(value).await;
    let client = edge.client(Kind::Http1);
    for _ in 0..count {
        client.get("/tiny").await.assert(200, b"hello, world\n");
    }
    end(&edge, SOON).await
}

async fn after_growth(value: &str) -> String {
    let edge = start(value).await;
    let answer = edge.client(Kind::Http1).ask(Ask::get("/leak?mb=200")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    end(&edge, SAMPLES).await
}

async fn start(value: &str) -> Edge {
    let site = Site::demo_workers(1, &[]);
    let site = if value.is_empty() { site } else { site.replace("count: 1", &format!("count: 1\n      {value}")) };
    let edge = Edge::start(site).await;
    edge.ready_workers("app", 1).await;
    edge
}

/// Why a worker has ended within that time, `-` if none has.
async fn end(edge: &Edge, patience: Duration) -> String {
    let ended = wait_until("the end of a worker", 2 * patience, async || {
        let status = edge.admin().status().await.ok()?;
        let workers = status["upstreams"][0]["workers"].as_array()?.clone();
        workers.iter().find_map(|worker| worker["last_exit"].as_str().map(str::to_owned))
    });
    let exit = timeout(patience, ended).await.unwrap_or_else(|_| "-".to_owned());
    // The reason comes first, then how the process ended.
    exit.split([' ', ',', ':']).next().unwrap_or_default().to_owned()
}

/// The data plane is asked once a second.
const SOON: Duration = Duration::from_secs(5);
/// Memory is looked at every ten seconds, and twice.
const SAMPLES: Duration = Duration::from_secs(32);
