//! Workers are killed at a high rate of requests: no GET fails for it, requests stop going to the dead one at once, and the
//! successor serves as soon as its program does.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;
use tidegate_tests::{
    client::{Answer, Ask},
    drill::{amount, say},
    edge::{Edge, Worker},
    process::{Signal, send_signal},
    rate::Rate,
    site::Site,
    wait::wait_until,
};

const SOON: Duration = Duration::from_secs(20);
const WORKERS: usize = 4;

/// What became of one that was killed.
#[derive(Debug, Clone, Copy)]
struct Death {
    /// From the signal until requests go elsewhere.
    noticed: Duration,
    /// From the signal until as many serve as before.
    made_good: Duration,
    /// Of these, what the program took from its start to its first answer.
    boot: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_workers_cost_no_get() {
    // How fast it goes is for the long form on a machine that does nothing else.
    deaths(300, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn dead_workers_cost_no_get_at_a_high_rate() {
    let deaths = deaths(amount("TIDEGATE_DRILL_RATE", 2_000) as u64, amount("TIDEGATE_DRILL_KILLS", 100)).await;
    let noticed = sorted(deaths.iter().map(|death| death.noticed));
    let beyond = sorted(deaths.iter().map(|death| death.made_good.saturating_sub(death.boot)));
    say(format_args!(
        "until no request goes to a dead worker: median {:.1?}, p99 {:.1?}; until another serves, beyond its own start: median \
         {:.1?}, most {:.1?}",
        at(&noticed, 0.5),
        at(&noticed, 0.99),
        at(&beyond, 0.5),
        at(&beyond, 1.0),
    ));
    assert!(at(&noticed, 0.99) <= Duration::from_millis(50), "{noticed:?}");
    assert!(at(&beyond, 1.0) <= Duration::from_millis(200), "{beyond:?}");
}

async fn deaths(rate: u64, count: usize) -> Vec<Death> {
    let number = format!("count: {WORKERS}");
    // Each counts as stable at once and there are as many as it takes, so that none has to wait for its next start.
    let patient = format!("{number}\n      restart: {{ stable_after: 1ms, failures: 10000 }}");
    let edge =
        Edge::start(Site::demo_workers(WORKERS, &[]).replace(&number, &patient).and("logging: { access: off }")).await;
    edge.ready_workers("app", WORKERS).await;
    let load = Rate::start(&edge.clients(), rate, || Ask::get("/tiny"), right);
    let mut deaths = Vec::new();
    for turn in 0..count {
        let workers = edge.ready_workers("app", WORKERS).await;
        deaths.push(one_dies(&edge, &workers[turn % WORKERS]).await);
    }
    let outcomes = load.stop().await;
    let [half, most, slowest] = [0.5, 0.99, 1.0].map(|share| outcomes.within(share));
    say(format_args!(
        "{count} kills at {rate}/s: {} of {} failed, p50 {half:.1?}, p99 {most:.1?}, slowest {slowest:.1?}",
        outcomes.failed.len(),
        outcomes.sent()
    ));
    outcomes.assert_clean();
    deaths
}

async fn one_dies(edge: &Edge, victim: &Worker) -> Death {
    let killed = Instant::now();
    send_signal(victim.pid, Signal::SIGKILL);
    let noticed = wait_until("requests to go elsewhere", SOON, async || {
        let ready = ready(&edge.status().await);
        (!ready.contains(&i64::from(victim.pid))).then(|| killed.elapsed())
    })
    .await;
    let made_good = wait_until("as many as before", SOON, async || {
        let ready = ready(&edge.status().await);
        (ready.len() == WORKERS && !ready.contains(&i64::from(victim.pid))).then(|| killed.elapsed())
    })
    .await;
    Death { noticed, made_good, boot: last_boot(edge).await }
}

/// Processes that requests go to.
fn ready(status: &Value) -> Vec<i64> {
    let workers = status["upstreams"][0]["workers"].as_array().into_iter().flatten();
    workers.filter(|worker| worker["state"] == "ready").filter_map(|worker| worker["pid"].as_i64()).collect()
}

/// What the last start took.
async fn last_boot(edge: &Edge) -> Duration {
    let told = edge.home().tidegate(&["events", "app", "--format", "json"]).await;
    let events = told.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let boots = events.filter(|event| event["to"] == "ready" && event["from"] == "starting");
    let last = boots.filter_map(|event| event["ms"].as_u64()).next_back();
    Duration::from_millis(last.expect("a worker has become ready"))
}

fn right(answer: &Answer) -> anyhow::Result<()> {
    ensure!(answer.status == 200 && answer.is_complete(), "{} {}", answer.status, answer.text());
    Ok(())
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len());
    sorted[place - 1]
}
