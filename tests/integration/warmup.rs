//! A new worker is asked for what is slow the first time before clients are served by it.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tidegate_tests::{
    client::{Answer, Ask},
    edge::{Edge, Worker},
    load::Load,
    site::Site,
    wait::{wait_for, wait_until},
};

const SOON: Duration = Duration::from_secs(20);

fn site(count: usize, more: &str) -> Site {
    Site::proxy(&format!(
        "workers:\n  command: [\"@demo@\", --uds, \"{{socket}}\", --log-requests]\n  count: {count}\n  \
         deploy: {{ min_ready: 0 }}\n  {more}"
    ))
}

/// Clients that go on until they are stopped.
fn load(edge: &Edge, target: &str) -> Load {
    let check = |answer: &Answer| {
        ensure!(answer.status == 200 && answer.is_complete(), "{}: {}", answer.status, answer.text());
        Ok(())
    };
    let target = target.to_owned();
    Load::asking(&edge.clients(), 8, move || Ask::get(&target), check)
}

/// Paths that a worker was asked for, as it printed them.
fn asked(edge: &Edge, pid: i32) -> Vec<String> {
    let errors = edge.output().stderr();
    let lines = errors.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines = lines.filter(|line| line["pid"] == pid).map(|line| line.to_string());
    lines.filter_map(|line| Some(line.split("GET ").nth(1)?.split([' ', '"', '\\']).next()?.to_owned())).collect()
}

// Once: the load asks with all clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_warm_before_it_gets_requests() {
    let mut edge = Edge::start(site(2, "")).await;
    let old = edge.ready_workers("app", 2).await;
    let load = load(&edge, "/tiny");
    let reloaded = edge.reload(&site(2, "warmup: [\"/slow?ms=400\", /status/404, \"/bytes?n=300000\"]")).await;
    assert!(reloaded.status.success(), "{}", reloaded.stderr);
    let is_new = |pid| old.iter().all(|worker| worker.pid != pid);
    edge.workers_until("app", SOON, |workers| workers.iter().any(|worker| worker.state == "warming")).await;
    let replaced =
        |workers: &[Worker]| workers.len() == 2 && workers.iter().all(|worker| worker.is_ready() && is_new(worker.pid));
    let new = edge.workers_until("app", SOON, replaced).await;
    let begun = async || new.iter().all(|worker| asked(&edge, worker.pid).len() > 3).then_some(());
    wait_until("requests for both", SOON, begun).await;
    load.stop().await.assert_clean();
    for worker in new {
        let first: Vec<_> = asked(&edge, worker.pid).into_iter().take(4).collect();
        assert_eq!(first, ["/slow?ms=400", "/status/404", "/bytes?n=300000", "/tiny"]);
    }
}

// Once: the load asks with all clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_whose_warm_up_fails_changes_nothing_and_says_why() {
    for (warmup, why) in [
        ("warmup: [/tiny, /status/503]", "warm-up of /status/503: "),
        ("warmup: [\"/slow?ms=60000\"], warmup_timeout: 700ms", "no answer in time"),
    ] {
        let mut edge = Edge::start(site(2, "")).await;
        let old: Vec<_> = edge.ready_workers("app", 2).await.iter().map(|worker| worker.pid).collect();
        let load = load(&edge, "/tiny");
        let reloaded = edge.reload(&site(2, &warmup.replace("], ", "]\n  "))).await;
        assert!(reloaded.status.success(), "{}", reloaded.stderr);
        let last = wait_until("the end of the deploy", SOON, async || {
            let last = edge.home().tidegate(&["deploy", "app", "--last"]).await;
            last.stdout.contains("reverted").then_some(last)
        })
        .await;
        assert!(last.stdout.contains(why), "{}", last.stdout);
        let now: Vec<_> = edge.workers("app").await.iter().map(|worker| worker.pid).collect();
        assert_eq!(now, old);
        load.stop().await.assert_clean();
        wait_for("the end of the failed worker", SOON, || (edge.zombies().is_empty()).then_some(())).await;
    }
}
