//! Workers that do not answer: found, spared where they live, replaced where they do not.

use std::{collections::BTreeSet, time::Duration};

use anyhow::ensure;
use serde_json::Value;
use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    drill::say,
    edge::{Edge, Worker},
    every_client,
    load::Load,
    process::{Signal, is_alive, send_signal},
    python,
    site::Site,
    wait::wait_until,
};
use tokio::time::{Instant, sleep};

every_client! {
    a_long_poll_is_never_ended,
    workers_that_are_all_stopped_are_left_alone,
}

const LIMIT: Duration = Duration::from_secs(20);

fn with(count: usize, hang: &str) -> Site {
    let number = format!("count: {count}");
    Site::demo_workers(count, &[]).replace(&number, &format!("{number}\n      hang: {{ {hang} }}"))
}

/// Process numbers of those who answer so many requests.
async fn who_serves(client: &Client, requests: usize) -> BTreeSet<i64> {
    let mut seen = BTreeSet::new();
    for _ in 0..requests {
        seen.insert(client.get("/count").await.json()["pid"].as_i64().expect("a number"));
    }
    seen
}

async fn served(client: &Client) -> u64 {
    client.get("/count").await.json()["count"].as_u64().expect("a number")
}

async fn in_state(edge: &Edge, pid: i32, state: &str) {
    let is_there = |workers: &[Worker]| workers.iter().any(|worker| worker.pid == pid && worker.state == state);
    edge.workers_until("app", LIMIT, is_there).await;
}

/// As many requests as workers, each of which waits at another one.
async fn occupy(edge: &Edge, client: &Client, count: usize, target: &str) -> Vec<tokio::task::JoinHandle<Answered>> {
    let mut waiting = Vec::new();
    for _ in 0..count {
        let (client, target) = (*client, target.to_owned());
        waiting.push(tokio::spawn(async move {
            client
                .send(Ask::get(&target).within(2 * LIMIT))
                .await
                .map_err(|error| format!("{error:#}"))
                .map(|answer| answer.status.as_u16())
        }));
    }
    wait_until("a request for each worker", LIMIT, async || {
        // In turn, so one for each.
        (edge.status().await["upstreams"][0]["in_flight"] == count).then_some(())
    })
    .await;
    waiting
}

/// The status of an answer.
type Answered = Result<u16, String>;

async fn a_long_poll_is_never_ended(kind: Kind) {
    let edge = Edge::start(with(1, "suspect_after: 300ms, tries: 2, try_timeout: 300ms")).await;
    let before = edge.ready_workers("app", 1).await;
    let client = edge.client(kind);
    let served_before = served(&client).await;
    // Ten times as long as a verdict would take.
    let answer = client.ask(Ask::get("/slow?ms=9000").within(LIMIT)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(edge.workers("app").await, before);
    let asked = served(&client).await - served_before - 2;
    assert!(asked >= 2, "it was asked whether it lives {asked} times only");
}

async fn workers_that_are_all_stopped_are_left_alone(kind: Kind) {
    let edge = Edge::start(with(3, "suspect_after: 300ms, tries: 2, try_timeout: 300ms, kill_interval: 300ms")).await;
    let before = edge.ready_workers("app", 3).await;
    let client = edge.client(kind);
    let waiting = occupy(&edge, &client, 3, "/slow?ms=8000").await;
    for worker in &before {
        send_signal(worker.pid, Signal::SIGSTOP);
    }
    let output = edge.output();
    let line = "too many workers do not answer";
    wait_until("the line in the log", LIMIT, async || output.both().contains(line).then_some(())).await;
    // Time for several verdicts, had they been drawn.
    sleep(Duration::from_secs(4)).await;
    let told = output.both();
    assert!(told.contains("they are all stopped, by a signal or a debugger"), "{told}");
    assert_eq!(told.matches(line).count(), 1, "{told}");
    assert!(before.iter().all(|worker| is_alive(worker.pid)), "one was killed");
    for worker in &before {
        send_signal(worker.pid, Signal::SIGCONT);
    }
    for answer in waiting {
        assert_eq!(answer.await.expect("no panic"), Ok(200));
    }
    let after = edge.ready_workers("app", 3).await;
    assert_eq!(after, before, "nobody was replaced");
    assert_eq!(who_serves(&client, 12).await.len(), 3);
}

// Once: all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_is_replaced_and_no_request_is_lost() {
    let hang = "suspect_after: 500ms, tries: 3, try_timeout: 1s";
    let slowest = stop_one_under_load(hang, Duration::from_secs(12)).await;
    assert!(slowest < Duration::from_secs(12), "the slowest answer took {slowest:?}");
}

// Once: all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn a_stopped_worker_is_replaced_within_half_a_minute_by_default() {
    stop_one_under_load("tries: 3", Duration::from_secs(30)).await;
}

/// Stops one of four under load; it is to be replaced in time. Returns the slowest answer.
async fn stop_one_under_load(hang: &str, time: Duration) -> Duration {
    let edge = Edge::start(with(4, hang)).await;
    let before = edge.ready_workers("app", 4).await;
    // Those that the stopped one has are answered when it is gone.
    let right = |answer: &Answer| {
        ensure!(answer.status == 200 && answer.body == "hello, world\n", "{}: {}", answer.status, answer.text());
        Ok(())
    };
    let load = Load::asking(&edge.clients(), 16, || Ask::get("/tiny").within(2 * LIMIT), right);
    wait_until("some load", LIMIT, async || (load.sent() > 200).then_some(())).await;
    let stopped = before[1].pid;
    let began = Instant::now();
    send_signal(stopped, Signal::SIGSTOP);
    in_state(&edge, stopped, "suspect").await;
    let out = began.elapsed();
    // Out of rotation, but not judged yet: others serve meanwhile.
    let client = edge.client(Kind::Http1);
    assert!(!who_serves(&client, 8).await.contains(&i64::from(stopped)));
    let replaced = |workers: &[Worker]| {
        let ready = workers.iter().filter(|worker| worker.is_ready());
        ready.clone().count() == 4 && ready.clone().all(|worker| worker.pid != stopped)
    };
    let after = edge.workers_until("app", time, replaced).await;
    say(format!("out of rotation after {out:?}, replaced after {:?}", began.elapsed()));
    assert!(began.elapsed() <= time, "replaced after {:?}", began.elapsed());
    assert_eq!(after.iter().filter(|worker| before.contains(worker)).count(), 3, "the others stay");
    wait_until("the end of the stopped one", LIMIT, async || (!is_alive(stopped)).then_some(())).await;
    let status = edge.status().await;
    let exit = status["upstreams"][0]["workers"][1]["last_exit"].as_str().unwrap_or_default().to_owned();
    assert!(exit.starts_with("hang"), "{exit}");
    let tally = load.stop().await;
    tally.assert_clean();
    assert!(edge.zombies().is_empty(), "{:?}", edge.zombies());
    tally.slowest
}

// Once: it is about processes.
#[tokio::test]
async fn a_request_that_takes_too_long_is_the_end_of_a_worker_of_threads() {
    let site = with(2, "suspect_after: 1h").replace("hang: {", "request_timeout: 500ms\n      cap: 1\n      hang: {");
    let edge = Edge::start(site).await;
    let before = edge.ready_workers("app", 2).await;
    let client = edge.client(Kind::Http1);
    let answer = client.ask(Ask::get("/slow?ms=60000").within(LIMIT)).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (504, Some("request_timeout")));
    let replaced = |workers: &[Worker]| {
        let ready = workers.iter().filter(|worker| worker.is_ready());
        let stay = ready.clone().filter(|worker| before.contains(worker)).count();
        (ready.count(), stay) == (2, 1)
    };
    edge.workers_until("app", LIMIT, replaced).await;
    let status = edge.status().await;
    let exits = status["upstreams"][0]["workers"].as_array().expect("workers").iter();
    let hung = exits.filter(|worker| worker["last_exit"].as_str().is_some_and(|exit| exit.starts_with("hang")));
    assert_eq!(hung.count(), 1);
    assert!(edge.output().both().contains("a request took longer than request_timeout"));
}

// Once: it is about places.
#[tokio::test]
async fn elsewhere_a_request_that_takes_too_long_costs_its_place_for_a_while() {
    let site = with(1, "suspect_after: 1h")
        .replace("hang: {", "request_timeout: 500ms\n      abandoned_hold: 3s\n      cap: 2\n      hang: {");
    let edge = Edge::start(site).await;
    let before = edge.ready_workers("app", 1).await;
    let client = edge.client(Kind::Http1);
    let late = [0; 2].map(|_| tokio::spawn(async move { client.ask(Ask::get("/slow?ms=60000").within(LIMIT)).await }));
    for answer in late {
        assert_eq!(answer.await.expect("no panic").status, 504);
    }
    let began = Instant::now();
    assert_eq!(client.ask(Ask::get("/tiny").within(LIMIT)).await.status, 200);
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(5), "it waited {waited:?} for a place");
    assert_eq!(edge.workers("app").await, before, "nobody was replaced");
}

// Once: it is about processes and the log.
#[tokio::test]
async fn a_python_worker_in_an_endless_loop_says_where_it_is() {
    let app = "workers:\n  command: [\"@uvicorn@\", \"main:app\", --uds, \"{socket}\", --no-access-log]\n  count: 2\n  cwd: \"@app@\"\n  \
               env: { PYTHONDONTWRITEBYTECODE: \"1\" }\n  ready: { http: /health }\n  \
               hang: { suspect_after: 300ms, tries: 2, try_timeout: 500ms }";
    let site = Site::proxy(app).with("uvicorn", python::program("uvicorn").display());
    let edge = Edge::start(site.with("app", python::fastapi_app().display())).await;
    let before = edge.ready_workers("app", 2).await;
    let client = edge.client(Kind::Http1);
    let spinning = tokio::spawn(async move { client.send(Ask::post("/spin", "").within(2 * LIMIT)).await });
    let output = edge.output();
    wait_until("its stack", LIMIT, async || {
        let told = output.both();
        let failure = told.lines().find(|line| line.contains("worker failed") && line.contains("hang"))?.to_owned();
        (failure.contains("in spin") && failure.contains("main.py")).then_some(())
    })
    .await;
    let answer = spinning.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status, 502, "a post is not sent again");
    let events = edge.home().tidegate(&["events", "--format", "json"]).await.stdout;
    let hung = events.lines().map(|line| serde_json::from_str(line).expect("an object"));
    let hung: Value = hung.into_iter().find(|event: &Value| event["event"] == "hung").expect("it was told");
    let (used, within) = (hung["cpu_ms"].as_u64().expect("a time"), hung["ms"].as_u64().expect("a time"));
    assert!(within >= 1_000 && used * 10 >= within, "{hung}");
    let after = edge.ready_workers("app", 2).await;
    assert_eq!(after.iter().filter(|worker| before.contains(worker)).count(), 1, "the other one stays");
}

// Once: it is about processes.
#[tokio::test]
async fn a_worker_that_stops_saying_that_it_lives_is_replaced() {
    let site = Site::proxy(
        "workers:\n  command: [\"@python@\", \"@apps@/watchdog.py\", \"{socket}\"]\n  count: 2\n  ready: notify\n  \
         env: { PYTHONDONTWRITEBYTECODE: \"1\" }\n  hang: { suspect_after: 1h, watchdog: 1500ms, tries: 2, try_timeout: 300ms, path: /alive }",
    );
    let site = site.with("python", python::program("python").display()).with("apps", python::preset_apps().display());
    let edge = Edge::start(site).await;
    let before = edge.ready_workers("app", 2).await;
    let client = edge.client(Kind::Http1);
    let asked = || edge.output().both().matches("GET /alive").count();
    // Twice as long as they may say nothing: that nobody is asked has no sign.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(asked(), 0, "{}", edge.output().both());

    // Nobody has a request under way, so nothing but this tells.
    let frozen: i32 = client.get("/freeze").await.text().parse().expect("a number");
    let replaced = |workers: &[Worker]| {
        let ready = workers.iter().filter(|worker| worker.is_ready());
        ready.clone().count() == 2 && ready.clone().all(|worker| worker.pid != frozen)
    };
    let after = edge.workers_until("app", LIMIT, replaced).await;
    assert_eq!(after.iter().filter(|worker| before.contains(worker)).count(), 1, "the other one stays");
    let told = edge.output().both();
    assert!(
        told.contains("it has not said that it lives (WATCHDOG=1) for ") && told.contains("\"reason\":\"hang\""),
        "{told}"
    );
    assert_eq!(asked(), 0, "it took no question");

    // One that says nothing and answers is left alone.
    assert_eq!(client.get("/mute").await.status, 200);
    wait_until("the question", LIMIT, async || (asked() > 0).then_some(())).await;
    // Time for a verdict, had one been drawn.
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(edge.workers("app").await, after, "nobody was replaced");
    assert_eq!(asked(), 1, "it is trusted");
}
