//! Workers that are replaced although they serve well: nobody notices.

use std::{collections::BTreeSet, time::Duration};

use anyhow::ensure;
use tidegate_tests::{
    client::{Answer, Ask},
    drill::{amount, say},
    edge::{Edge, Worker},
    load::Load,
    process::{is_alive, resident_memory},
    site::Site,
    wait::wait_until,
};
use tokio::time::{Instant, sleep_until};

// Once: all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recycling_every_200_requests_loses_none() {
    recycle_under_load(3, Until::Replaced(3)).await;
}

// Once: all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn recycling_every_200_requests_loses_none_for_ten_minutes() {
    let seconds = amount("TIDEGATE_DRILL_SECONDS", 600);
    recycle_under_load(4, Until::Passed(Duration::from_secs(seconds as u64))).await;
}

/// When there was enough of it.
enum Until {
    /// So many workers were replaced.
    Replaced(usize),
    /// So much time has passed.
    Passed(Duration),
}

async fn recycle_under_load(count: usize, until: Until) {
    let edge = Edge::start(with(count, "recycle: { max_requests: 200, jitter: 20% }")).await;
    let before = pids(&edge.ready_workers("app", count).await);
    // A post is not sent again once a worker may have seen it, so a retry cannot hide a request that was lost.
    let check = |answer: &Answer| {
        ensure!(answer.status == 200 && answer.is_complete(), "{}: {}", answer.status, answer.text());
        ensure!(answer.body == "effect", "another body: {}", answer.text());
        Ok(())
    };
    let load = Load::asking(&edge.clients(), 16, || Ask::post("/echo", "effect"), check);
    let mut seen = before.clone();
    let mut fewest = count;
    let end = match until {
        Until::Passed(time) => Instant::now() + time,
        Until::Replaced(_) => Instant::now() + Duration::from_secs(60),
    };
    loop {
        let workers = edge.workers("app").await;
        seen.extend(pids(&workers));
        fewest = fewest.min(workers.iter().filter(|worker| worker.is_ready()).count());
        let enough = matches!(until, Until::Replaced(least) if seen.len() >= count + least);
        if enough || Instant::now() >= end {
            break;
        }
        sleep_until(Instant::now() + Duration::from_millis(100)).await;
    }
    let tally = load.stop().await;
    let replaced = seen.len() - before.len();
    say(format!("{} right answers, {replaced} workers replaced, slowest answer {:?}", tally.right, tally.slowest));
    tally.assert_clean();
    assert!(replaced >= 3, "only {replaced} workers were replaced");
    assert_eq!(fewest, count, "a worker left before its replacement was ready");
    assert!(edge.zombies().is_empty(), "{:?}", edge.zombies());
}

// Once: it is about processes.
#[tokio::test]
async fn a_request_under_way_ends_on_the_old_worker() {
    let edge = Edge::start(with(1, "recycle: { max_requests: 1, jitter: 0% }")).await;
    let old = edge.ready_workers("app", 1).await[0].pid;
    let client = edge.clients().remove(0);
    let slow = tokio::spawn(async move { client.send(Ask::post("/slow?ms=4000", "")).await });
    let another = |workers: &[Worker]| workers.iter().any(|worker| worker.is_ready() && worker.pid != old);
    edge.workers_until("app", Duration::from_secs(10), another).await;
    assert!(is_alive(old), "it drains");
    let facts = edge.clients()[0].get("/").await.json();
    assert_ne!(facts["pid"], old, "new requests go to the new worker");
    let answer = slow.await.expect("no panic").expect("it is answered");
    assert_eq!(answer.status, 200);
    wait_until("the end of the old one", Duration::from_secs(10), async || (!is_alive(old)).then_some(())).await;
}

// Once: it is about processes.
#[tokio::test]
async fn a_leaking_worker_is_replaced_and_the_leak_is_gone() {
    let edge = Edge::start(with(2, "recycle: { max_rss: 150MiB }")).await;
    let before = edge.ready_workers("app", 2).await;
    let facts = edge.clients()[0].get("/leak?mb=300").await.json();
    let leaky = facts["pid"].as_i64().expect("a pid") as i32;
    assert!(resident_memory(leaky) > 300 << 20);
    let gone = |workers: &[Worker]| workers.len() == 2 && workers.iter().all(|one| one.is_ready() && one.pid != leaky);
    let after = edge.workers_until("app", Duration::from_secs(40), gone).await;
    assert_eq!(after.iter().filter(|worker| before.contains(worker)).count(), 1, "the other one stays");
    assert!(after.iter().all(|worker| resident_memory(worker.pid) < 150 << 20));
}

fn with(count: usize, recycle: &str) -> Site {
    let number = format!("count: {count}");
    Site::demo_workers(count, &[]).replace(&number, &format!("{number}\n      {recycle}"))
}

fn pids(workers: &[Worker]) -> BTreeSet<i32> {
    workers.iter().map(|worker| worker.pid).filter(|pid| *pid != 0).collect()
}
