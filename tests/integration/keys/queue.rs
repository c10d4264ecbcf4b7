//! Keys of what an upstream takes at a time, and of its queue. Each value has an upstream of its own and a site that forwards
//! to it; all have one server, which works on `/stall` for ever and on `/slow` for a while.

use std::{sync::Arc, time::Duration};

use tidegate_tests::{
    client::{Answer, Ask},
    edge::{Edge, Home},
    recorder::{OK, Recorder, Step},
    site::Site,
    wait::wait_until,
};
use tokio::{task::JoinHandle, time::timeout};

use super::{Place, Row, check, value};

const ROWS: &[Row<Origin>] = &[
    Row {
        key: "upstreams.<name>.max_in_flight",
        values: ["", "max_in_flight: 1"],
        observe: |origin| Box::pin(beside_others(origin, 1)),
        expected: ["200", "waiting"],
    },
    Row {
        key: "upstreams.<name>.max_in_flight_per_endpoint",
        values: ["", "max_in_flight_per_endpoint: 1"],
        observe: |origin| Box::pin(beside_others(origin, 1)),
        expected: ["200", "waiting"],
    },
    Row {
        key: "upstreams.<name>.queue",
        values: ["max_in_flight: 1", "max_in_flight: 1, queue: off"],
        observe: |origin| Box::pin(beside_others(origin, 1)),
        expected: ["waiting", "503 queue_full"],
    },
    Row {
        key: "upstreams.<name>.queue.size",
        values: ["max_in_flight: 1", "max_in_flight: 1, queue: { size: 1 }"],
        observe: |origin| Box::pin(beside_others(origin, 2)),
        expected: ["waiting", "503 queue_full"],
    },
    Row {
        key: "upstreams.<name>.queue.wait",
        values: ["max_in_flight: 1", "max_in_flight: 1, queue: { wait: 300ms }"],
        observe: |origin| Box::pin(beside_others(origin, 1)),
        expected: ["waiting", "503 queue_timeout"],
    },
    Row {
        key: "upstreams.<name>.queue.hold",
        values: [SLEEPER, "workers: { command: [sh, -c, \"sleep 99 # {socket}\"], count: 1 }, queue: { hold: 300ms }"],
        observe: |origin| Box::pin(patiently(origin.ask("/"))),
        expected: ["waiting", "503 not_ready_in_time"],
    },
    Row {
        key: "upstreams.<name>.required",
        values: [SLEEPER, "workers: { command: [sh, -c, \"sleep 99 # {socket}\"], count: 1 }, required: false"],
        observe: |origin| Box::pin(readiness(origin)),
        expected: ["asked for", "not asked for"],
    },
    Row {
        key: "upstreams.<name>.queue.order",
        values: ["max_in_flight: 1, queue: { order: fifo }", "max_in_flight: 1, queue: { order: adaptive }"],
        observe: |origin| Box::pin(twelve_at_once(origin)),
        expected: ["all", "some"],
    },
    Row {
        key: "upstreams.<name>.queue.target",
        values: ["max_in_flight: 1", "max_in_flight: 1, queue: { target: 4s }"],
        observe: |origin| Box::pin(twelve_at_once(origin)),
        expected: ["some", "all"],
    },
];

/// Never ready.
const SLEEPER: &str = "workers: { command: [sh, -c, \"sleep 99 # {socket}\"], count: 1 }";
/// Longer than the short waits of the rows and shorter than those by default.
const PATIENCE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);

/// A place, and the server behind all of them.
struct Origin {
    place: Place,
    server: Arc<Recorder>,
}

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_queues_act() {
    let server = Recorder::start(|seen| match seen.target() {
        "/stall" => vec![Step::Stall],
        "/slow" => vec![Step::Pause(Duration::from_millis(100)), Step::Send(OK.into())],
        _ => vec![Step::Send(OK.into())],
    });
    let server = Arc::new(server.await);
    // Not all of it ever becomes ready.
    let edge = Arc::new(Edge::launch(Home::new(&site(server.address()))));
    wait_until("the program", LIMIT, async || edge.admin().status().await.ok()).await;
    let mut places = Place::of(&edge);
    check(ROWS, 4, |index, side| Origin { place: places(index, side), server: Arc::clone(&server) }).await;
}

fn site(server: &str) -> Site {
    let (mut sites, mut upstreams) = (String::new(), String::new());
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let (name, value) = (super::name(index, side), value(row, index, side));
            let host = format!("{name}.test.example");
            sites.push_str(&format!("  - {{ hosts: [{host}], routes: [{{ path: /, proxy: {name} }}] }}\n"));
            let comma = if value.is_empty() { "" } else { ", " };
            let servers = format!("{comma}servers: [{{ address: \"{server}\" }}]");
            let servers = if value.contains("workers:") { "" } else { servers.as_str() };
            upstreams.push_str(&format!("  {name}: {{ {value}{servers} }}\n"));
        }
    }
    let listeners = "listeners: [{ name: plain, address: \"127.0.0.1:@port:plain@\" }]";
    Site::new(format!("{listeners}\nsites:\n{sites}upstreams:\n{upstreams}"))
}

impl Origin {
    fn ask(&self, target: &str) -> JoinHandle<Answer> {
        let ask = Ask::get(target).host(&self.place.host()).header("x-place", &self.place.name);
        let client = self.place.client();
        tokio::spawn(async move { client.send(ask).await.expect("an answer") })
    }

    async fn upstream(&self) -> serde_json::Value {
        let status = self.place.edge.status().await;
        let ours = |one: &&serde_json::Value| one["name"] == self.place.name.as_str();
        status["upstreams"].as_array().and_then(|all| all.iter().find(ours)).expect("the upstream").clone()
    }

    /// How many requests of this place there are, at the server and in the queue.
    async fn busy(&self) -> u64 {
        let upstream = self.upstream().await;
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        number(&upstream["in_flight"]) + number(&upstream["queue"]["waiting"])
    }
}

/// What becomes of a request while so many are under way or wait.
async fn beside_others(origin: Origin, others: u64) -> String {
    let mut asked = Vec::new();
    for count in 1..=others {
        asked.push(origin.ask("/stall"));
        wait_until("a busy server", LIMIT, async || (origin.busy().await == count).then_some(())).await;
    }
    let outcome = patiently(origin.ask("/")).await;
    asked.iter().for_each(JoinHandle::abort);
    outcome
}

async fn patiently(asked: JoinHandle<Answer>) -> String {
    match timeout(PATIENCE, asked).await {
        Err(_) => "waiting".to_owned(),
        Ok(answer) => word(&answer.expect("it was sent")),
    }
}

fn word(answer: &Answer) -> String {
    let reason = answer.header("x-tidegate-reason").map_or_else(String::new, |reason| format!(" {reason}"));
    format!("{}{reason}", answer.status.as_u16())
}

/// Whether the program says that it is not ready for want of this upstream.
async fn readiness(origin: Origin) -> String {
    let answer = origin.place.edge.admin().get("/readyz").await.expect("an answer");
    let named = answer.text().contains(&format!("upstream \\\"{}\\\"", origin.place.name));
    if named { "asked for" } else { "not asked for" }.to_owned()
}

/// How many of twelve requests are served that come at once and take a tenth of a second each.
async fn twelve_at_once(origin: Origin) -> String {
    let asked: Vec<_> = (0..12).map(|_| origin.ask("/slow")).collect();
    let mut served = 0;
    for answer in asked {
        match word(&answer.await.expect("it was sent")).as_str() {
            "200" => served += 1,
            "503 queue_late" => {}
            other => return other.to_owned(),
        }
    }
    let ours =
        origin.server.requests().iter().filter(|seen| seen.header("x-place") == Some(&origin.place.name)).count();
    assert_eq!(ours, served, "who was refused met no server");
    if served == 12 { "all" } else { "some" }.to_owned()
}
