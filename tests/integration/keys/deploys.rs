//! Keys of how a new generation of workers takes over. Each value has a program of its own with three workers; what is seen
//! is what the status shows at short intervals while a changed version takes over.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_tests::{
    client::Ask,
    edge::{Edge, Home},
    load::Load,
    process::Signal,
    site::Site,
    wait::wait_until,
};

use super::{Row, check};

const ROWS: &[Row<&str>] = &[
    Row {
        key: "upstreams.<name>.workers.pre_start",
        values: ["", "pre_start: [sh, -c, \"echo migrated $0\", \"{pool}\"]"],
        observe: |value| Box::pin(before_the_first_worker(value)),
        expected: ["nothing", "migrated app"],
    },
    Row {
        key: "upstreams.<name>.workers.pre_start_timeout",
        values: ["pre_start: [sleep, \"1\"]", "pre_start: [sleep, \"1\"]\n  pre_start_timeout: 300ms"],
        observe: |value| Box::pin(before_the_first_worker(value)),
        expected: ["nothing", "failed"],
    },
    Row {
        key: "upstreams.<name>.workers.deploy.strategy",
        // What `auto` makes of memory has tests of its own.
        values: ["deploy: { strategy: rolling, min_ready: 500ms }", "deploy: { strategy: green, min_ready: 500ms }"],
        observe: |value| Box::pin(most_ready(value)),
        expected: ["4", "6"],
    },
    Row {
        key: "upstreams.<name>.workers.deploy.surge",
        values: ["deploy: { surge: 30%, min_ready: 500ms }", "deploy: { surge: 3, min_ready: 500ms }"],
        observe: |value| Box::pin(most_booting(value)),
        expected: ["1", "2"],
    },
    Row {
        key: "upstreams.<name>.workers.deploy.max_unavailable",
        values: ["deploy: { strategy: rolling, min_ready: 100ms }", "deploy: { min_ready: 100ms, max_unavailable: 2 }"],
        observe: |value| Box::pin(least_ready(value)),
        expected: ["3", "1"],
    },
    Row {
        key: "upstreams.<name>.workers.deploy.min_ready",
        values: ["deploy: { strategy: rolling }", "deploy: { strategy: rolling, min_ready: 0 }"],
        observe: |value| Box::pin(overlap(value)),
        expected: ["long", "short"],
    },
    Row {
        key: "upstreams.<name>.workers.deploy.canary_hold",
        values: ["deploy: { min_ready: 0 }", "deploy: { min_ready: 0, canary_hold: 5s }"],
        observe: |value| Box::pin(how_long(value)),
        expected: ["short", "long"],
    },
    Row {
        key: "upstreams.<name>.workers.deploy.canary_max_delta.errors",
        values: [
            "deploy: { min_ready: 0, canary_hold: 1500ms, canary_max_delta: { errors: 1%, p95: off } }",
            "deploy: { min_ready: 0, canary_hold: 1500ms, canary_max_delta: { errors: 60% } }",
        ],
        observe: |value| Box::pin(compared(value, "--fail 30")),
        expected: ["more_errors", "fine"],
    },
    Row {
        key: "upstreams.<name>.workers.deploy.canary_max_delta.p95",
        values: [
            "deploy: { min_ready: 0, canary_hold: 3s, canary_max_delta: { p95: 300% } }",
            "deploy: { min_ready: 0, canary_hold: 3s, canary_max_delta: { p95: off } }",
        ],
        observe: |value| Box::pin(compared(value, "--delay 100")),
        expected: ["slower", "fine"],
    },
    Row {
        key: "upstreams.<name>.workers.deploy.on_failure",
        values: [
            "deploy: { strategy: rolling, min_ready: 0 }",
            "deploy: { strategy: rolling, min_ready: 0, on_failure: rollback }",
        ],
        observe: |value| Box::pin(after_a_failure(value)),
        expected: ["[2, 1, 1]", "[1, 1, 1]"],
    },
    Row {
        key: "upstreams.<name>.workers.on_hup",
        values: ["deploy: { min_ready: 0 }", "deploy: { min_ready: 0 }\n  on_hup: deploy"],
        observe: |value| Box::pin(after_a_hup(value)),
        expected: ["reloaded", "deployed"],
    },
];

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_deploys_act() {
    check(ROWS, 4, |index, side| ROWS[index].values[side]).await;
}

/// What a start shows of `pre_start`, until a worker is ready or it has failed.
async fn before_the_first_worker(value: &str) -> String {
    let edge = Edge::launch(Home::new(&site(value, "1", 3)));
    wait_until("a worker, or a failure", LIMIT, async || {
        let log = edge.output().stderr();
        let failed = log.contains("pre_start failed").then_some("failed");
        let is_ready = || log.contains("\"to\":\"ready\"");
        let printed = || if log.contains("migrated app") { "migrated app" } else { "nothing" };
        failed.or_else(|| is_ready().then(printed)).map(str::to_owned)
    })
    .await
}

/// Whether a deploy takes as long as a hold, by its receipt.
async fn how_long(value: &str) -> String {
    let mut edge = Edge::start(site(value, "1", 3)).await;
    edge.ready_workers("app", 3).await;
    let changed = edge.reload(&site(value, "2", 3)).await;
    assert!(changed.status.success(), "{}", changed.stderr);
    let took = wait_until("the end of the deploy", LIMIT, async || {
        let deploy = last_deploy(&edge).await?;
        deploy["ms"].as_u64().filter(|_| deploy["phase"] == "over")
    })
    .await;
    if took >= 5_000 { "long" } else { "short" }.to_owned()
}

/// The second deploy; the first one is the start.
async fn last_deploy(edge: &Edge) -> Option<Value> {
    let answer = edge.admin().get("/workers/deploys").await.ok()?;
    let known: Value = serde_json::from_slice(&answer.body).ok()?;
    known["upstreams"][0]["deploys"].get(1).cloned()
}

/// What the comparison of a new release with these faults comes to.
async fn compared(value: &str, faults: &str) -> String {
    let script = "exec \\\"$0\\\" --uds \\\"$1\\\" $FAULTS";
    let site = |faults: &str| {
        Site::proxy(&format!(
            "workers:\n  command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"]\n  count: 1\n  \
             env: {{ FAULTS: \"{faults}\" }}\n  {value}"
        ))
    };
    let mut edge = Edge::start(site("--threads 1")).await;
    edge.ready_workers("app", 1).await;
    let load = Load::asking(&edge.clients(), 8, || Ask::get("/slow?ms=5"), |_| Ok(()));
    let changed = edge.reload(&site(faults)).await;
    assert!(changed.status.success(), "{}", changed.stderr);
    let verdict = wait_until("the verdict", LIMIT, async || {
        last_deploy(&edge).await?["canary"]["verdict"].as_str().map(str::to_owned)
    })
    .await;
    load.stop().await;
    verdict
}

/// What a SIGHUP with an unchanged file brings about. A deploy begins right after the reload.
async fn after_a_hup(value: &str) -> String {
    let mut edge = Edge::start(site(value, "1", 3)).await;
    edge.ready_workers("app", 3).await;
    edge.signal(Signal::SIGHUP);
    wait_until("the reload", LIMIT, async || edge.status().await["last_reload"]["applied"].as_bool()).await;
    let until = Instant::now() + Duration::from_secs(1);
    let found = wait_until("a deploy, or a second without one", LIMIT, async || {
        let is_new = look(&edge).await.iter().any(|(generation, _)| *generation == 2);
        (is_new || Instant::now() > until).then_some(is_new)
    })
    .await;
    if found { "deployed" } else { "reloaded" }.to_owned()
}

/// Three workers that take a moment to boot; those of another release than "1" fail in slots from `broken` on.
fn site(value: &str, release: &str, broken: u32) -> Site {
    let script = format!(
        "test $RELEASE = 1 || test $WORKER_SLOT -lt {broken} || exit 7; exec \\\"$0\\\" --uds \\\"$1\\\" --boot-delay 300"
    );
    Site::proxy(&format!(
        "workers:\n  command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"]\n  count: 3\n  \
         env: {{ RELEASE: \"{release}\" }}\n  {value}"
    ))
}

/// A worker as the status shows it: its generation and its state.
type Seen = Vec<(u64, String)>;

async fn look(edge: &Edge) -> Seen {
    let status = edge.status().await;
    let workers = status["upstreams"][0]["workers"].as_array().cloned().unwrap_or_default();
    let seen = |worker: &Value| Some((worker["generation"].as_u64()?, worker["state"].as_str()?.to_owned()));
    workers.iter().filter_map(seen).collect()
}

fn count(seen: &Seen, state: &str) -> usize {
    seen.iter().filter(|(_, found)| found == state).count()
}

/// Everything that was seen, until `is_over`.
async fn deploy(value: &str, broken: u32, is_over: impl Fn(&Edge, &Seen) -> bool) -> Vec<Seen> {
    let mut edge = Edge::start(site(value, "1", 3)).await;
    edge.ready_workers("app", 3).await;
    let changed = edge.reload(&site(value, "2", broken)).await;
    assert!(changed.status.success(), "{}", changed.stderr);
    let mut all = Vec::new();
    wait_until("the end of the deploy", LIMIT, async || {
        all.push(look(&edge).await);
        all.last().is_some_and(|seen| is_over(&edge, seen)).then_some(())
    })
    .await;
    all
}

fn is_done(_: &Edge, seen: &Seen) -> bool {
    seen.len() == 3 && seen.iter().all(|(generation, state)| *generation == 2 && state == "ready")
}

async fn most_ready(value: &str) -> String {
    let all = deploy(value, 3, is_done).await;
    all.iter().map(|seen| count(seen, "ready")).max().unwrap_or_default().to_string()
}

async fn most_booting(value: &str) -> String {
    let all = deploy(value, 3, is_done).await;
    all.iter().map(|seen| count(seen, "starting")).max().unwrap_or_default().to_string()
}

async fn least_ready(value: &str) -> String {
    let all = deploy(value, 3, is_done).await;
    all.iter().map(|seen| count(seen, "ready")).min().unwrap_or_default().to_string()
}

/// Whether old and new workers of a slot serve beside each other for a good part of what was seen.
async fn overlap(value: &str) -> String {
    let all = deploy(value, 3, is_done).await;
    let both = all.iter().filter(|seen| count(seen, "ready") > 3).count();
    if both * 2 > all.len() { "long" } else { "short" }.to_owned()
}

/// Generations in service when the second slot of a new one has failed.
async fn after_a_failure(value: &str) -> String {
    let is_over = |edge: &Edge, seen: &Seen| {
        let log = edge.output().stderr();
        let has_ended = ["frozen", "reverted"].iter().any(|word| log.contains(&format!("\"outcome\":\"{word}\"")));
        has_ended && seen.len() == 3 && count(seen, "ready") == 3
    };
    let all = deploy(value, 1, is_over).await;
    let generations: Vec<u64> = all.last().into_iter().flatten().map(|(generation, _)| *generation).collect();
    format!("{generations:?}")
}

const LIMIT: Duration = Duration::from_secs(30);
