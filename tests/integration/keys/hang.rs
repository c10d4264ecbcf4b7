//! Keys of `hang`. Each value has a program of its own, whose workers get a request that nothing comes back for, or are
//! stopped; what is seen is how many of them were killed for that.

use std::time::Duration;

use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    process::{Signal, send_signal},
    site::Site,
    wait::wait_until,
};
use tokio::time::timeout;

use super::{Row, check, mapping};

/// Times that a test can wait for; the row's own value takes the place of its default.
const FAST: &[&str] = &[
    "suspect_after: 300ms",
    "tries: 2",
    "try_timeout: 300ms",
    "guard: 100%",
    "kill_interval: 100ms",
    "path: /healthz",
];

const ROWS: &[Row<&str>] = &[
    one_of_five("upstreams.<name>.workers.hang", ["hang: off", "hang: {}"]),
    one_of_five("upstreams.<name>.workers.hang.suspect_after", ["suspect_after: 1h", "suspect_after: 400ms"]),
    one_of_five("upstreams.<name>.workers.hang.tries", ["tries: 100", "tries: 1"]),
    one_of_five("upstreams.<name>.workers.hang.try_timeout", ["try_timeout: 1h", "try_timeout: 200ms"]),
    Row {
        // What is asked for there never comes.
        key: "upstreams.<name>.workers.hang.path",
        values: ["path: /healthz", "path: /hang"],
        observe: |value| Box::pin(stopped(value, 1, 0)),
        expected: ["0 killed", "1 killed"],
    },
    Row {
        // Two of four.
        key: "upstreams.<name>.workers.hang.guard",
        values: ["guard: 50%", "guard: 51%"],
        observe: |value| Box::pin(stopped(value, 4, 2)),
        expected: ["0 killed", "2 killed"],
    },
    Row {
        key: "upstreams.<name>.workers.hang.kill_interval",
        values: ["kill_interval: 1h", "kill_interval: 200ms"],
        observe: |value| Box::pin(stopped(value, 5, 2)),
        expected: ["1 killed", "2 killed"],
    },
    Row {
        // The demo never says that it lives.
        key: "upstreams.<name>.workers.hang.watchdog",
        values: ["", "watchdog: 400ms"],
        observe: |value| Box::pin(stopped_in_peace(value)),
        expected: ["0 killed", "1 killed"],
    },
    Row {
        key: "upstreams.<name>.workers.hang.on_hang",
        values: ["", "on_hang: [sh, -c, \"echo looked at $WORKER_PID $0\", \"{pid}/{slot}\"]"],
        observe: |value| Box::pin(looked_at(value)),
        expected: ["-", "looked at"],
    },
    Row {
        key: "upstreams.<name>.workers.request_timeout",
        values: ["", "request_timeout: 500ms"],
        observe: |value| Box::pin(late_and_next(value)),
        expected: ["200, at once", "504, at once"],
    },
    Row {
        key: "upstreams.<name>.workers.abandoned_hold",
        values: ["abandoned_hold: 0", "abandoned_hold: 3s"],
        observe: |value| Box::pin(late_and_next(value)),
        expected: ["504, at once", "504, later"],
    },
];

/// One of five workers is stopped, and killed for it with the second value alone.
const fn one_of_five(key: &'static str, values: [&'static str; 2]) -> Row<&'static str> {
    Row { key, values, observe: |value| Box::pin(stopped(value, 5, 1)), expected: ["0 killed", "1 killed"] }
}

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_hanging_act() {
    check(ROWS, 4, |index, side| ROWS[index].values[side]).await;
}

/// The answer to a request that takes 1.5s, and whether the next one has to wait for its place.
async fn late_and_next(value: &str) -> String {
    let defaults = if value.starts_with("abandoned") { "request_timeout: 500ms" } else { "abandoned_hold: 0" };
    let text = format!("count: 1\n      cap: 1\n      hang: off\n      {defaults}\n      {value}");
    let edge = Edge::start(Site::demo_workers(1, &[]).replace("count: 1", &text)).await;
    edge.ready_workers("app", 1).await;
    let client = edge.client(Kind::Http1);
    let late = client.ask(Ask::get("/slow?ms=1500").within(4 * PATIENCE)).await.status.as_u16();
    let began = tokio::time::Instant::now();
    client.ask(Ask::get("/tiny").within(4 * PATIENCE)).await.assert(200, b"hello, world\n");
    let next = if began.elapsed() < Duration::from_secs(2) { "at once" } else { "later" };
    format!("{late}, {next}")
}

/// What a command says of a worker that was stopped.
async fn looked_at(value: &str) -> String {
    let site = Site::demo_workers(1, &[]);
    let edge = Edge::start(site.replace("count: 1", &format!("count: 1\n      hang: {}", mapping(value, FAST)))).await;
    let pid = edge.ready_workers("app", 1).await[0].pid;
    let client = edge.client(Kind::Http1);
    let waiting = tokio::spawn(async move { client.send(Ask::get("/hang").within(4 * PATIENCE)).await });
    send_signal(pid, Signal::SIGSTOP);
    let output = edge.output();
    let hung = wait_until("the event", 2 * PATIENCE, async || {
        let told = output.both();
        told.lines().find(|line| line.contains("worker hangs and is killed")).map(str::to_owned)
    });
    let hung = hung.await;
    waiting.abort();
    assert!(hung.contains(&format!("process {pid} (")) && hung.contains("T (stopped)"), "{hung}");
    assert!(hung.contains("its processes used 0.00 s of CPU in "), "{hung}");
    let found = hung.contains(&format!("on_hang: looked at {pid} {pid}/0"));
    if found { "looked at".to_owned() } else { "-".to_owned() }
}

/// How many of `count` workers are killed when each has a request that nothing comes back for, and so many are stopped.
async fn stopped(value: &str, count: usize, stopped: usize) -> String {
    let hang = match value {
        "hang: off" => "off".to_owned(),
        "hang: {}" => mapping("", FAST),
        value => mapping(value, FAST),
    };
    let number = format!("count: {count}");
    let site = Site::demo_workers(count, &[]).replace(&number, &format!("{number}\n      hang: {hang}"));
    let edge = Edge::start(site).await;
    let workers = edge.ready_workers("app", count).await;
    let client = edge.client(Kind::Http1);
    let waiting =
        (0..count).map(|_| tokio::spawn(async move { client.send(Ask::get("/hang").within(4 * PATIENCE)).await }));
    let waiting: Vec<_> = waiting.collect();
    wait_until("a request for each", PATIENCE, async || {
        // In turn, so one for each.
        (edge.status().await["upstreams"][0]["in_flight"] == count).then_some(())
    })
    .await;
    for worker in &workers[..stopped] {
        send_signal(worker.pid, Signal::SIGSTOP);
    }
    let killed = killed_of(&edge, stopped.max(1)).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    killed
}

/// Whether a worker is killed that is stopped while no request is under way.
async fn stopped_in_peace(value: &str) -> String {
    let hang = mapping(value, FAST);
    let edge =
        Edge::start(Site::demo_workers(1, &[]).replace("count: 1", &format!("count: 1\n      hang: {hang}"))).await;
    send_signal(edge.ready_workers("app", 1).await[0].pid, Signal::SIGSTOP);
    killed_of(&edge, 1).await
}

/// How many are killed, once that is `most`; else after a time that is long enough for all that is to happen, because what
/// is not to happen has no sign.
async fn killed_of(edge: &Edge, most: usize) -> String {
    let all = wait_until("the last of them", 2 * PATIENCE, async || (killed(edge).await == most).then_some(()));
    let _ = timeout(PATIENCE, all).await;
    format!("{} killed", killed(edge).await)
}

async fn killed(edge: &Edge) -> usize {
    let status = edge.status().await;
    let exits = status["upstreams"][0]["workers"].as_array().expect("workers").iter();
    let killed = exits.filter(|worker| worker["last_exit"].as_str().is_some_and(|exit| exit.starts_with("hang")));
    // By slot, where a successor may stand beside the one it follows.
    let slots: std::collections::BTreeSet<_> = killed.map(|worker| worker["slot"].as_u64()).collect();
    slots.len()
}

/// The data plane is asked once a second.
const PATIENCE: Duration = Duration::from_secs(6);
