//! What is told of the requests at each worker: how old the oldest is, and which were given up.

use std::time::Duration;

use serde_json::Value;
use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    every_client,
    site::Site,
    wait::wait_until,
};

every_client! {
    a_request_that_is_held_grows_old_and_is_forgotten,
    a_place_that_was_given_up_shows_and_goes,
}

const LIMIT: Duration = Duration::from_secs(20);

/// One worker; `more` stands in its settings.
async fn edge(more: &str) -> Edge {
    let command = "[\"@demo@\", --uds, \"{socket}\"]";
    let workers =
        format!("workers:\n  command: {command}\n  count: 1\n  ready: {{ http: /healthz }}\n  {more}\nretry: off");
    Edge::start(Site::proxy(&workers)).await
}

/// What is said of its requests.
#[derive(Debug)]
struct Said {
    in_flight: u64,
    oldest_ms: Option<u64>,
    abandoned: u64,
    /// The same as metrics have it, in seconds.
    oldest: f64,
    abandoned_places: f64,
}

async fn said(edge: &Edge) -> Said {
    let answer = edge.admin().get("/workers").await.expect("an answer").json();
    let worker = &answer["upstreams"][0]["workers"][0];
    let metrics = edge.admin().metrics().await.expect("metrics");
    let series = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{")));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"));
        assert!(line.contains("slot=\"0\",upstream=\"app\""), "{line}");
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    };
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {worker:#}"));
    Said {
        in_flight: number(&worker["in_flight"]),
        oldest_ms: worker["oldest_ms"].as_u64(),
        abandoned: number(&worker["abandoned"]),
        oldest: series("tidegate_worker_oldest_request_seconds"),
        abandoned_places: series("tidegate_worker_abandoned_places"),
    }
}

async fn said_until(edge: &Edge, what: &str, is_it: impl Fn(&Said) -> bool) -> Said {
    wait_until(what, LIMIT, async || {
        let said = said(edge).await;
        is_it(&said).then_some(said)
    })
    .await
}

async fn a_request_that_is_held_grows_old_and_is_forgotten(kind: Kind) {
    let edge = edge("").await;
    let client = edge.client(kind);
    client.get("/tiny").await.assert(200, b"hello, world\n");
    let idle = said_until(&edge, "an idle worker", |said| said.in_flight == 0).await;
    assert!(idle.oldest_ms.is_none() && idle.oldest == 0.0, "{idle:?}");

    let held = tokio::spawn(async move { client.ask(Ask::get("/slow?ms=5000").within(LIMIT)).await });
    let young = said_until(&edge, "a request under way", |said| said.oldest_ms.is_some()).await;
    // Younger ones come and go meanwhile, and are not what is told of.
    let others = edge.client(kind);
    let older = said_until(&edge, "an older request", |said| said.oldest_ms > Some(2_000)).await;
    others.get("/tiny").await.assert(200, b"hello, world\n");
    let oldest = said(&edge).await;
    assert!(older.oldest_ms > young.oldest_ms && oldest.oldest_ms >= older.oldest_ms, "{young:?} {older:?} {oldest:?}");
    assert!(oldest.oldest >= 2.0 && oldest.oldest < 20.0 && oldest.abandoned == 0, "{oldest:?}");
    let shown = edge.home().tidegate(&["workers"]).await.stdout;
    assert!(shown.contains(", oldest "), "{shown}");

    assert_eq!(held.await.expect("no panic").status, 200);
    let over = said_until(&edge, "an idle worker", |said| said.in_flight == 0).await;
    assert!(over.oldest_ms.is_none() && over.oldest == 0.0, "{over:?}");
}

async fn a_place_that_was_given_up_shows_and_goes(kind: Kind) {
    let edge = edge("request_timeout: 300ms\n  abandoned_hold: 3s").await;
    let client = edge.client(kind);
    let late = client.ask(Ask::get("/slow?ms=60000").within(LIMIT)).await;
    assert_eq!((late.status.as_u16(), late.header("x-tidegate-reason")), (504, Some("request_timeout")));
    let given_up = said(&edge).await;
    assert_eq!((given_up.in_flight, given_up.abandoned, given_up.abandoned_places), (1, 1, 1.0), "{given_up:?}");
    // It is nobody's request any more.
    assert!(given_up.oldest_ms.is_none() && given_up.oldest == 0.0, "{given_up:?}");
    let shown = edge.home().tidegate(&["workers"]).await.stdout;
    assert!(shown.contains("1, 1 abandoned"), "{shown}");
    let over = said_until(&edge, "a free place", |said| said.in_flight == 0).await;
    assert_eq!((over.abandoned, over.abandoned_places), (0, 0.0), "{over:?}");
}
