//! A new worker gets more requests as time passes, while others take the load.

use std::time::Duration;

use anyhow::ensure;
use tidegate_tests::{
    client::{Answer, Ask},
    edge::Edge,
    load::Load,
    site::Site,
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(20);

// Once: the load asks with all clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_grows_into_its_places() {
    const CAP: u64 = 10;
    let app = |count: usize| {
        let workers =
            format!("workers:\n  command: [\"@demo@\", --uds, \"{{socket}}\"]\n  count: {count}\n  cap: {CAP}");
        Site::proxy(&format!("{workers}\nslow_start: 3s\nqueue: {{ wait: 30s, order: fifo }}"))
    };
    let mut edge = Edge::start(app(1)).await;
    edge.ready_workers("app", 1).await;
    // More than both take together, so that weights alone would fill the new one at once.
    let check = |answer: &Answer| {
        ensure!(answer.status == 200 && answer.is_complete(), "{}: {}", answer.status, answer.text());
        Ok(())
    };
    let load = Load::asking(&edge.clients(), 40, || Ask::get("/slow?ms=100"), check);
    // The first one is seasoned when its slow start is over; nobody else could have taken the load.
    wait_until("a busy worker", SOON, async || {
        let status = edge.status().await;
        let first = &status["upstreams"][0]["endpoints"][0];
        assert_eq!(first["max_conns"], CAP, "alone it takes all there is");
        (first["requests"].as_u64()? > 400).then_some(())
    })
    .await;
    let reloaded = edge.reload(&app(2)).await;
    assert!(reloaded.status.success(), "{}", reloaded.stderr);
    let mut steps = Vec::new();
    wait_until("all its places", SOON, async || {
        let status = edge.status().await;
        let new = &status["upstreams"][0]["endpoints"][1];
        let (places, busy) = (new["max_conns"].as_u64()?, new["in_flight"].as_u64()?);
        // Read one after the other, so that a step may come between both.
        assert!(busy <= places + 1, "{new}");
        if steps.last() != Some(&places) {
            steps.push(places);
        }
        (places == CAP).then_some(())
    })
    .await;
    load.stop().await.assert_clean();
    assert!(steps.len() >= 5 && steps[0] <= 2 && steps.is_sorted(), "{steps:?}");
}
