//! What requests of each route cost their workers, against what the demo's requests are known to cost.

use std::time::Duration;

use serde_json::Value;
use tidegate_tests::{
    client::{Client, Kind},
    edge::Edge,
    site::Site,
    wait::wait_until,
};

const LIMIT: Duration = Duration::from_secs(90);
/// CPU time of a dear request.
const BURNT_MS: f64 = 20.0;
/// What a leaky one leaves.
const LEAKED: f64 = 1_048_576.0;
/// The demo parses, routes and answers besides, without optimisation.
const ANSWER_MS: f64 = 1.5;

fn site(cost: bool) -> Site {
    let routes = "- { name: dear, path: /cpu, proxy: app }\n- { name: leaky, path: /leak, proxy: app }\n\
                  - { name: cheap, path: /, proxy: app }";
    let command = "[\"@demo@\", --uds, \"{socket}\"]";
    Site::usual(
        routes,
        &format!(
            "app:\n  workers:\n    command: {command}\n    count: 2\n    ready: {{ http: /healthz }}\n    cost: {cost}"
        ),
    )
}

async fn costs(edge: &Edge) -> Value {
    edge.admin().get("/workers/cost?upstream=app").await.expect("an answer").json()["upstreams"][0].clone()
}

fn route<'a>(costs: &'a Value, name: &str) -> &'a Value {
    let mut routes = costs["routes"].as_array().into_iter().flatten();
    routes.find(|route| route["route"] == name).unwrap_or(&Value::Null)
}

/// Value and error.
fn number(figure: &Value) -> Option<(f64, f64)> {
    Some((figure["value"].as_f64()?, figure["error"].as_f64()?))
}

/// The most that it may be.
fn most(figure: &Value) -> Option<f64> {
    number(figure).map(|(value, error)| value + error).or(figure["at_most"].as_f64())
}

/// Bursts of another size for each route each time, and a look at what they cost.
async fn bursts(edge: &Edge, client: &Client, turn: usize) -> Value {
    let (dear, leaky, cheap) = (turn * 5 % 7, turn * 3 % 5, turn * 11 % 13 * 3);
    for (count, target) in [(dear, "/cpu?ms=20"), (leaky, "/leak?mb=1"), (cheap, "/tiny")] {
        for _ in 0..count {
            assert_eq!(client.get(target).await.status, 200);
        }
    }
    let before = costs(edge).await["intervals"].as_u64();
    // Who asks again at once is told what was known.
    wait_until("another look", LIMIT, async || {
        let costs = costs(edge).await;
        (costs["intervals"].as_u64() > before).then_some(costs)
    })
    .await
}

#[tokio::test]
async fn routes_are_told_apart_by_what_their_requests_cost() {
    let mut edge = Edge::start(site(false)).await;
    let pids = |workers: Vec<tidegate_tests::edge::Worker>| workers.iter().map(|one| one.pid).collect::<Vec<_>>();
    let old = pids(edge.ready_workers("app", 2).await);
    let client = edge.client(Kind::Http1);
    client.get("/tiny").await.assert(200, b"hello, world\n");
    assert_eq!(costs(&edge).await, Value::Null);
    let shown = edge.home().tidegate(&["workers", "--cost"]).await;
    assert!(shown.stdout.contains("no costs are known"), "{}", shown.stdout);

    let finished = edge.reload(&site(true)).await;
    assert!(finished.status.success() && !finished.stdout.contains("replace"), "{}", finished.stdout);
    let mut turn = 0;
    let costs = wait_until("numbers", LIMIT, async || {
        turn += 1;
        let costs = bursts(&edge, &client, turn).await;
        let (dear, leaky) = (number(&route(&costs, "dear")["cpu_ms"])?, number(&route(&costs, "leaky")["rss_bytes"])?);
        let cheap = most(&route(&costs, "cheap")["cpu_ms"])?;
        let are_narrow = dear.1 < BURNT_MS / 5.0 && leaky.1 < LEAKED / 5.0 && cheap < BURNT_MS / 5.0;
        are_narrow.then_some(costs)
    })
    .await;
    println!("{costs:#}");

    let (value, error) = number(&route(&costs, "dear")["cpu_ms"]).expect("it is known");
    assert!(value - 2.0 * error < BURNT_MS + ANSWER_MS && value + 2.0 * error > BURNT_MS, "{value} +- {error}");
    let (value, error) = number(&route(&costs, "leaky")["rss_bytes"]).expect("it is known");
    assert!((value - LEAKED).abs() < 2.0 * error + LEAKED / 50.0, "{value} +- {error}");
    // What others burn and leak is not told of who does neither.
    for name in ["cheap", "dear"] {
        let grown = most(&route(&costs, name)["rss_bytes"]).expect("an interval");
        assert!(grown < LEAKED / 5.0, "{name}: {:#}", route(&costs, name));
    }
    let share = route(&costs, "dear")["cpu_share"].as_f64().expect("it is known");
    assert!((0.5..1.1).contains(&share), "{share}");
    let held = route(&costs, "dear")["held_ms"].as_f64().expect("it is known");
    assert!((BURNT_MS..50.0 * BURNT_MS).contains(&held), "{held}");

    assert_eq!(pids(edge.ready_workers("app", 2).await), old, "nobody was replaced to know this");
    let shown = edge.home().tidegate(&["workers", "app", "--cost"]).await;
    for text in ["UPSTREAM app: generation", "CPU/REQUEST", "dear", "leaky", " \u{b1} "] {
        assert!(shown.stdout.contains(text), "no '{text}' in\n{}", shown.stdout);
    }
    let json = edge.home().tidegate(&["workers", "--cost", "--format", "json"]).await;
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["upstreams"][0]["routes"].as_array().map(Vec::len), Some(3), "{json:#}");

    let finished = edge.reload(&site(false)).await;
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(self::costs(&edge).await, Value::Null, "and it is off again");
    edge.stop().await.assert_clean();
}

#[tokio::test]
async fn routes_that_always_come_together_have_no_number() {
    let edge = Edge::start(site(true).replace("count: 2", "count: 1")).await;
    let client = edge.client(Kind::Http1);
    let mut turn = 0;
    let costs = wait_until("enough looks", LIMIT, async || {
        turn += 1;
        for _ in 0..20 + turn * 7 % 11 {
            assert_eq!(client.get("/cpu?ms=5").await.status, 200);
            client.get("/tiny").await.assert(200, b"hello, world\n");
        }
        let costs = costs(&edge).await;
        (costs["intervals"].as_u64() > Some(20)).then_some(costs)
    })
    .await;
    for name in ["dear", "cheap"] {
        for figure in ["cpu_ms", "rss_bytes"] {
            assert_eq!(route(&costs, name)[figure], serde_json::json!({ "unknown": "together" }), "{costs:#}");
        }
    }
    let shown = edge.home().tidegate(&["workers", "app", "--cost"]).await;
    assert!(shown.stdout.contains("not told apart yet"), "{}", shown.stdout);
    edge.stop().await.assert_clean();
}
