//! The receipt of a deploy: what became of every request while it went on, by the generation whose workers were given them.
//! The figures are held against what the clients got and what the workers wrote down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tidegate_tests::{
    client::{Answer, Ask, Kind},
    edge::Edge,
    load::{Load, Tally},
    process::{Finished, Signal, send_signal},
    site::Site,
    wait::{wait_for, wait_until},
};

const SOON: Duration = Duration::from_secs(20);

/// Workers that write each request into a file of their generation before they answer.
fn site() -> Site {
    let script = "exec \\\"$0\\\" --uds \\\"$1\\\" --log-requests >> served.$WORKER_GENERATION 2>&1";
    Site::proxy(&format!(
        "workers:\n  command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"]\n  count: 2\n  cwd: \"@dir@\"\n  \
         ready: {{ http: /healthz }}\n  deploy: {{ min_ready: 4s }}"
    ))
}

/// Requests that workers of a generation have begun.
fn begun(edge: &Edge, generation: u64) -> u64 {
    let written = std::fs::read_to_string(edge.home().path().join(format!("served.{generation}"))).expect("a file");
    written.lines().filter(|line| line.contains("/slow")).count() as u64
}

/// GET and POST in turn; only GETs may be sent again.
fn load(edge: &Edge) -> Load {
    let turn = Arc::new(AtomicU64::new(0));
    let question = move || match turn.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => Ask::get("/slow?ms=40"),
        _ => Ask::post("/slow?ms=40", "x"),
    };
    let check = |answer: &Answer| {
        anyhow::ensure!(answer.status == 200 && answer.is_complete(), "status {}", answer.status);
        Ok(())
    };
    Load::asking(&edge.clients(), 24, question, check)
}

async fn some_more(load: &Load) {
    let sent = load.sent();
    wait_for("more load", SOON, || (load.sent() > sent + 100).then_some(())).await;
}

async fn last_deploy(edge: &Edge) -> Value {
    let answer = edge.admin().get("/workers/deploys").await.expect("an answer");
    let known: Value = serde_json::from_slice(&answer.body).expect("JSON");
    known["upstreams"][0]["deploys"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default()
}

/// Clients come and go while the first new worker proves itself, and an old one is killed among their requests.
async fn killed_in_between(edge: &Edge) -> Tally {
    wait_until("the first new worker", SOON, async || {
        let deploy = last_deploy(edge).await;
        (deploy["generation"] == 2 && deploy["serving"] == 1).then_some(())
    })
    .await;
    let old = edge.workers("app").await[0].pid;
    let load = load(edge);
    some_more(&load).await;
    send_signal(old, Signal::SIGKILL);
    some_more(&load).await;
    load.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_is_what_clients_and_workers_counted() {
    let edge = Edge::start(site()).await;
    edge.ready_workers("app", 2).await;
    // What was before is not on it.
    let before = load(&edge);
    some_more(&before).await;
    let before = before.stop().await;
    before.assert_clean();
    let begun_before = begun(&edge, 1);
    let (deployed, tally): (Finished, Tally) =
        tokio::join!(edge.home().tidegate(&["deploy", "app", "--wait", "--format", "json"]), killed_in_between(&edge));
    assert!(deployed.status.success(), "{}{}", deployed.stdout, deployed.stderr);
    let told: Value = serde_json::from_str(&deployed.stdout).expect("JSON and nothing else");
    let receipt = &told["upstreams"][0]["deploys"][0]["receipt"];
    let generations = receipt["generations"].as_array().expect("generations");
    let sum = |field: &str| generations.iter().filter_map(|one| one[field].as_u64()).sum::<u64>();
    assert_eq!(sum("answered"), tally.right, "{receipt:#}");
    assert_eq!(sum("failed"), tally.errors.len() as u64, "{receipt:#}");
    assert!(sum("failed") + sum("retried") >= 1, "nobody was hit: {receipt:#}");
    assert_eq!((sum("server_errors"), sum("abandoned"), sum("cancelled")), (0, 0, 0), "{receipt:#}");
    let [old, new] = &generations[..] else { panic!("{receipt:#}") };
    assert_eq!((&old["generation"], &new["generation"]), (&1.into(), &2.into()));
    // A worker that was killed may have had requests before it could write them down.
    let number = |one: &Value, field: &str| one[field].as_u64().expect("a number");
    let (answered, lost) = (number(old, "answered"), number(old, "failed") + number(old, "retried"));
    let old_begun = begun(&edge, 1) - begun_before;
    assert!((answered..=answered + lost).contains(&old_begun), "{old_begun} begun: {receipt:#}");
    assert_eq!(number(new, "answered"), begun(&edge, 2), "{receipt:#}");
    let causes = old["causes"].as_object().expect("causes");
    assert_eq!(causes.values().filter_map(Value::as_u64).sum::<u64>(), lost, "{receipt:#}");
    assert_eq!((&receipt["lost"], &receipt["boots"]["count"]), (&1.into(), &2.into()), "{receipt:#}");
    assert!(receipt["longest_drain_ms"].is_u64(), "{receipt:#}");
    let text = edge.home().tidegate(&["deploy", "app", "--last"]).await.stdout;
    let line = format!("generation 2: {} answered, 0 failed", number(new, "answered"));
    assert!(text.contains(&line) && text.contains("1 workers lost"), "no '{line}' in\n{text}");
}

#[tokio::test]
async fn who_waited_and_how_long_an_old_worker_took_is_on_the_receipt() {
    let edge = Edge::start(Site::proxy(
        "workers:\n  command: [\"@demo@\", --uds, \"{socket}\"]\n  count: 1\n  ready: { http: /healthz }\n  \
         deploy: { min_ready: 500ms }\nmax_in_flight_per_endpoint: 1",
    ))
    .await;
    edge.ready_workers("app", 1).await;
    let client = edge.client(Kind::Http1);
    let ask = |target| tokio::spawn(async move { client.get(target).await.status });
    let slow = ask("/slow?ms=3000");
    wait_until("the one place to be taken", SOON, async || {
        (edge.status().await["upstreams"][0]["in_flight"] == 1).then_some(())
    })
    .await;
    let waiting = [ask("/slow?ms=1"), ask("/slow?ms=1"), ask("/slow?ms=1")];
    wait_until("three to wait", SOON, async || {
        (edge.status().await["upstreams"][0]["queue"]["waiting"] == 3).then_some(())
    })
    .await;
    let deployed = edge.home().tidegate(&["deploy", "app", "--wait"]).await;
    let receipt = last_deploy(&edge).await["receipt"].clone();
    assert_eq!(slow.await.expect("no panic"), 200);
    for one in waiting {
        assert_eq!(one.await.expect("no panic"), 200);
    }
    assert_eq!(receipt["queue"]["peak"], 3, "{receipt:#}");
    let drain = receipt["longest_drain_ms"].as_u64().expect("a drain");
    assert!((1..3_000).contains(&drain), "{receipt:#}");
    assert!(
        deployed.stdout.contains("longest drain") && deployed.stdout.contains("at most 3 waited"),
        "{}",
        deployed.stdout
    );
}
