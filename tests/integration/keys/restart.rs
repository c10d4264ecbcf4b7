//! Keys of `restart`. Each value has a program of its own with one worker, which ends in some way; what is seen is what
//! follows.

use std::time::Duration;

use tidegate_tests::{
    client::{Ask, Kind},
    edge::{Edge, Home, Worker},
    site::Site,
    wait::wait_until,
};
use tokio::time::timeout;

use super::{Row, check};

const ROWS: &[Row<&str>] = &[
    Row {
        // Three failures, which cost 0.1, 0.2 and 0.4 s where the worker was not stable.
        key: "upstreams.<name>.workers.restart.stable_after",
        values: ["restart: { stable_after: 1h, max_delay: 1h, failures: 1000 }", "restart: { stable_after: 1ms }"],
        observe: |value| Box::pin(after_crashes(value, 7)),
        expected: ["waits", "back at once"],
    },
    Row {
        key: "upstreams.<name>.workers.restart.max_delay",
        values: ["restart: { failures: 1000 }", "restart: { failures: 1000, max_delay: 10ms }"],
        observe: |value| Box::pin(after_crashes(value, 7)),
        expected: ["waits", "back at once"],
    },
    Row {
        key: "upstreams.<name>.workers.restart.failures",
        values: ["restart: { failures: 100 }", "restart: { failures: 3 }"],
        observe: |value| Box::pin(state_after_crashes(value, 3)),
        expected: ["no crash loop", "crash loop"],
    },
    Row {
        key: "upstreams.<name>.workers.restart.window",
        values: ["restart: { failures: 3, window: 1ms }", "restart: { failures: 3, window: 1h }"],
        observe: |value| Box::pin(state_after_crashes(value, 3)),
        expected: ["no crash loop", "crash loop"],
    },
    Row {
        key: "upstreams.<name>.workers.restart.no_restart_codes",
        values: ["restart: { no_restart_codes: [133] }", "restart: { no_restart_codes: [134] }"],
        observe: |value| Box::pin(slot_after_its_end(value)),
        expected: ["ready", "ended crash_code: exit code 134"],
    },
];

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_restarting_act() {
    check(ROWS, 6, |index, side| ROWS[index].values[side]).await;
}

async fn start(value: &str) -> Edge {
    let site = Site::demo_workers(1, &[]).replace("count: 1", &format!("count: 1\n      {value}"));
    Edge::launch(Home::new(&site)).ready().await
}

/// Has the worker crash, each time once it is ready.
async fn crash(edge: &Edge, times: u64) {
    for before in 0..times {
        let ready = |workers: &[Worker]| workers.iter().any(|one| one.is_ready() && one.restarts == before);
        edge.workers_until("app", LIMIT, ready).await;
        edge.client(Kind::Http1).ask(Ask::post("/crash", "")).await;
        let gone = |workers: &[Worker]| workers.iter().any(|one| one.restarts > before);
        edge.workers_until("app", LIMIT, gone).await;
    }
}

/// Whether the worker is ready again soon after its last crash; after seven in a row the wait is 6.4 s.
async fn after_crashes(value: &str, times: u64) -> String {
    let edge = start(value).await;
    crash(&edge, times).await;
    let back = edge.workers_until("app", LIMIT, |workers| workers.iter().any(Worker::is_ready));
    if timeout(SOON, back).await.is_ok() { "back at once" } else { "waits" }.to_owned()
}

async fn state_after_crashes(value: &str, times: u64) -> String {
    let edge = start(value).await;
    crash(&edge, times).await;
    let state = wait_until("the state of the pool", LIMIT, async || {
        let status = edge.status().await;
        status["upstreams"][0]["state"].as_str().map(str::to_owned)
    });
    let text = format!("{} {}", state.await, edge.output().both());
    if text.contains("crashloop") { "crash loop" } else { "no crash loop" }.to_owned()
}

async fn slot_after_its_end(value: &str) -> String {
    let edge = start(value).await;
    edge.client(Kind::Http1).ask(Ask::post("/crash", "")).await;
    wait_until("the slot's fate", LIMIT, async || {
        let status = edge.status().await;
        let slot = &status["upstreams"][0]["workers"][0];
        let (state, exit) = (slot["state"].as_str()?, slot["last_exit"].as_str()?);
        match state {
            "ready" => Some("ready".to_owned()),
            "ended" => Some(format!("ended {}", exit.split(',').next()?)),
            _ => None,
        }
    })
    .await
}

const SOON: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(30);
