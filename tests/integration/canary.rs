//! `deploy.canary_hold`: the first worker of a new release takes requests for a while and is compared with those of before. A
//! release that fails or dawdles is gone before anybody has left for it, and everybody is told by how much it was worse.

use std::time::Duration;

use serde_json::Value;
use tidegate_tests::{
    client::{Answer, Ask},
    edge::{Edge, Worker},
    load::Load,
    process::{Finished, Signal, send_signal},
    site::Site,
    wait::{wait_for, wait_until},
};

const SOON: Duration = Duration::from_secs(20);

/// Workers with the faults that `faults` in their folder names when they start.
fn site(count: usize, deploy: &str, more: &str) -> Site {
    let script = "exec \\\"$0\\\" --uds \\\"$1\\\" $(cat faults)";
    Site::proxy(&format!(
        "workers:\n  command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"]\n  count: {count}\n  cwd: \"@dir@\"\n  \
         ready: {{ http: /healthz }}\n  drain_timeout: 2s\n  deploy: {{ {deploy} }}\n{more}"
    ))
}

async fn running(count: usize, deploy: &str, more: &str) -> Edge {
    let home = tidegate_tests::edge::Home::new(&site(count, deploy, more));
    std::fs::write(home.path().join("faults"), "").expect("the directory is ours");
    let edge = Edge::launch(home).ready().await;
    edge.ready_workers("app", count).await;
    edge
}

fn release(edge: &Edge, faults: &str) {
    std::fs::write(edge.home().path().join("faults"), faults).expect("the directory is ours");
}

async fn deploy(edge: &Edge) -> Finished {
    edge.home().tidegate(&["deploy", "app", "--wait"]).await
}

/// Some clients, each with one request after the other; any answer will do, and none as well.
fn load(edge: &Edge) -> Load {
    Load::asking(&edge.clients(), 8, || Ask::get("/slow?ms=5"), |_: &Answer| Ok(()))
}

async fn some_more(load: &Load) {
    let sent = load.sent();
    wait_for("more load", SOON, || (load.sent() > sent + 50).then_some(())).await;
}

async fn last_deploy(edge: &Edge) -> Value {
    let answer = edge.admin().get("/workers/deploys").await.expect("an answer");
    let known: Value = serde_json::from_slice(&answer.body).expect("JSON");
    known["upstreams"][0]["deploys"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default()
}

async fn held(edge: &Edge) {
    wait_until("the hold", SOON, async || (last_deploy(edge).await["phase"] == "holding").then_some(())).await;
}

fn pids(workers: &[Worker]) -> Vec<i32> {
    workers.iter().map(|worker| worker.pid).collect()
}

#[track_caller]
fn assert_ends(finished: &Finished, code: i32, shown: &[&str]) {
    let all = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.status.code(), Some(code), "{all}");
    for text in shown {
        assert!(all.contains(text), "no '{text}' in\n{all}");
    }
}

/// Deploys a release with these faults under load; what came of it, and the canary's part.
async fn deployed(edge: &Edge, faults: &str) -> (Finished, Value) {
    let load = load(edge);
    some_more(&load).await;
    release(edge, faults);
    let finished = deploy(edge).await;
    load.stop().await;
    (finished, last_deploy(edge).await["canary"].clone())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_fails_requests_is_reverted_with_the_figures() {
    let edge = running(2, "canary_hold: 2s, min_ready: 200ms", "").await;
    let before = pids(&edge.workers("app").await);
    let (finished, canary) = deployed(&edge, "--fail 30").await;
    let steps = [
        "app: the first new worker takes requests, and is compared with the old ones",
        "failed and reverted after",
        "canary: it fails more requests than the workers from before: ",
        "; before: 0 of ",
    ];
    assert_ends(&finished, 1, &steps);
    assert_eq!(pids(&edge.workers("app").await), before, "nobody was touched");
    assert_eq!(canary["verdict"], "more_errors", "{canary:#}");
    let (old, new) = (&canary["old"], &canary["new"]);
    assert_eq!(number(&old["failed"]), 0, "{canary:#}");
    let share = number(&new["failed"]) * 100 / number(&new["requests"]);
    assert!((25..=35).contains(&share), "{canary:#}");
    assert!(number(&old["requests"]) > 100, "{canary:#}");
    // The event has them as well.
    let events = edge.home().tidegate(&["events", "--format", "json"]).await.stdout;
    let event =
        events.lines().find(|line| line.contains("\"generation_failed\"")).unwrap_or_else(|| panic!("{events}"));
    assert!(event.contains(canary["what"].as_str().expect("a text")), "{event}");
    // What comes next is compared anew.
    let (finished, canary) = deployed(&edge, "").await;
    assert_ends(&finished, 0, &["done after", "canary: it is as good as the workers from before"]);
    assert_eq!((&canary["verdict"], number(&canary["new"]["failed"])), (&"fine".into(), 0), "{canary:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_is_slow_is_reverted_with_the_figures() {
    let edge = running(1, "canary_hold: 3s, min_ready: 200ms", "").await;
    let before = pids(&edge.workers("app").await);
    let (finished, canary) = deployed(&edge, "--delay 60").await;
    assert_ends(&finished, 1, &["failed and reverted", "canary: it is slower than the workers from before"]);
    assert_eq!(pids(&edge.workers("app").await), before);
    let p95 = |side: &str| number(&canary[side]["p95_us"]);
    assert!((65_000..200_000).contains(&p95("new")), "{canary:#}");
    assert!((5_000..60_000).contains(&p95("old")), "{canary:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_never_answers_is_reverted() {
    // Each of the clients gets stuck there once, and asks no more: requests that hang are few, and none may be missed.
    let edge = running(2, "canary_hold: 2s, min_ready: 0", "balance: round_robin").await;
    let load = load(&edge);
    some_more(&load).await;
    release(&edge, "--hang 100");
    let finished = deploy(&edge).await;
    assert_ends(&finished, 1, &["failed and reverted", "canary: it fails more requests"]);
    let canary = last_deploy(&edge).await["canary"].clone();
    assert_eq!(canary["new"]["failed"], canary["new"]["requests"], "{canary:#}");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_workers_the_new_one_gets_its_share_of_requests() {
    for balance in ["least_conn", "round_robin"] {
        let edge = running(1, "canary_hold: 2s, min_ready: 200ms", &format!("balance: {balance}")).await;
        let load = load(&edge);
        some_more(&load).await;
        let finished = deploy(&edge).await;
        load.stop().await.assert_clean();
        assert_ends(&finished, 0, &["done after"]);
        let canary = last_deploy(&edge).await["canary"].clone();
        let (old, new) = (number(&canary["old"]["requests"]), number(&canary["new"]["requests"]));
        assert!(new * 3 > old && old * 3 > new, "{balance}: {canary:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_requests_nothing_is_compared_and_that_is_said() {
    let edge = running(2, "canary_hold: 1s, min_ready: 200ms", "").await;
    release(&edge, "--fail 100");
    let finished = deploy(&edge).await;
    assert_ends(&finished, 0, &["done after", "canary: too few requests to compare: 0 of 0 requests failed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_crashes_meanwhile_or_is_overtaken_ends_as_ever() {
    let edge = running(2, "canary_hold: 60s, min_ready: 200ms", "").await;
    let before = pids(&edge.workers("app").await);
    let (finished, ()) = tokio::join!(deploy(&edge), async {
        held(&edge).await;
        let all = edge.workers("app").await;
        let canary = all.iter().find(|worker| !before.contains(&worker.pid)).expect("a canary");
        send_signal(canary.pid, Signal::SIGKILL);
    });
    assert_ends(&finished, 1, &["failed and reverted", "crash_signal: signal 9"]);
    assert_eq!(pids(&edge.workers("app").await), before);
    let (first, ()) = tokio::join!(deploy(&edge), async {
        held(&edge).await;
        assert_ends(&edge.home().tidegate(&["deploy", "app"]).await, 0, &[]);
        held(&edge).await;
    });
    assert_ends(&first, 5, &["superseded"]);
    assert_eq!(last_deploy(&edge).await["generation"], 4);
    for pid in &before {
        assert!(tidegate_tests::process::is_alive(*pid), "nobody has left");
    }
}
