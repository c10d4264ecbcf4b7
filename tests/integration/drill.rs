//! The bar of the whole: 500 keep-alive clients, 125 of each kind, while the edge is reloaded twenty times.

use std::time::Duration;

use tidegate_tests::{
    drill::{amount, say},
    edge::Edge,
    load::Load,
    site::Site,
};
use tokio::time::{Instant, sleep_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_and_twenty_reloads() {
    reloads_under_load(5.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn five_hundred_clients_and_twenty_reloads_for_a_minute() {
    reloads_under_load(amount("TIDEGATE_DRILL_SECONDS", 60) as f64).await;
}

async fn reloads_under_load(seconds: f64) {
    let site = |number: usize| Site::demo_workers(2, &[]).replace("name: main", &format!("name: main-{number}"));
    let mut edge = Edge::start(site(0)).await;
    let workers = edge.ready_workers("app", 2).await;
    let load = Load::start(&edge.clients(), 500, "/tiny", b"hello, world\n".to_vec());
    let started = Instant::now();
    for number in 1..=20 {
        // Spread over the time, so that each reload meets load in full swing.
        sleep_until(started + Duration::from_secs_f64(seconds).mul_f64(number as f64 / 21.0)).await;
        let finished = edge.reload(&site(number)).await;
        assert!(finished.status.success(), "reload {number}: {}{}", finished.stdout, finished.stderr);
    }
    sleep_until(started + Duration::from_secs_f64(seconds)).await;
    let tally = load.stop().await;
    say(format!("{} right answers, {} wrong, slowest {:?}", tally.right, tally.errors.len(), tally.slowest));
    tally.assert_clean();
    assert!(tally.right >= 500, "{} answers for 500 clients", tally.right);
    assert_eq!(edge.workers("app").await, workers);
}
