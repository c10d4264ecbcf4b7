//! Keys of workers. Each value has an upstream with a group of demo workers; what only shows when a worker starts or ends
//! has a program of its own.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use tidegate_tests::{
    binary::Binary,
    client::{Ask, Kind},
    edge::{Edge, Home, Worker},
    process::is_alive,
    site::Site,
    wait::{wait_for, wait_until},
    websocket::WebSocket,
};
use tokio::time::timeout;

use super::{Place, Row, check, mapping, value};

const ROWS: &[Row<Place>] = &[
    Row {
        key: "upstreams.<name>.workers.command",
        values: ["", "command: [\"@dir@/demo\", --uds, \"{socket}\", --threads, 3]"],
        observe: |place| Box::pin(word_in_command(place, "--threads")),
        expected: ["without", "with"],
    },
    Row {
        key: "upstreams.<name>.workers.count",
        values: ["count: 1", "count: 3"],
        observe: |place| Box::pin(how_many(place)),
        expected: ["1", "3"],
    },
    Row {
        key: "upstreams.<name>.workers.cost",
        values: ["", "cost: true"],
        observe: |place| Box::pin(costs(place)),
        expected: ["0 with costs", "1 with costs"],
    },
    Row {
        key: "upstreams.<name>.workers.cwd",
        values: ["", "cwd: /"],
        observe: |place| Box::pin(working_directory(place)),
        expected: ["ours", "/"],
    },
    Row {
        key: "upstreams.<name>.workers.env",
        values: ["", "env: { COLOR_OF_ROW: \"{pool}\" }"],
        observe: |place| Box::pin(variable(place, "COLOR_OF_ROW=row")),
        expected: ["without", "with"],
    },
    Row {
        key: "upstreams.<name>.workers.env_inherit",
        values: ["", "env_inherit: clean"],
        observe: |place| Box::pin(variable(place, "TIDEGATE_TEST_MARK=")),
        expected: ["with", "without"],
    },
    Row {
        key: "upstreams.<name>.workers.user",
        values: ["", "user: nobody"],
        observe: |place| Box::pin(user(place)),
        expected: ["ours", "nobody"],
    },
    Row {
        // Each transport has its own word in the command, so the command has to differ too.
        key: "upstreams.<name>.workers.transport",
        values: ["transport: unix", "transport: port, command: [\"@dir@/demo\", --port, \"{port}\"]"],
        observe: |place| Box::pin(kind_of_address(place)),
        expected: ["unix", "port"],
    },
    Row {
        key: "upstreams.<name>.workers.ready",
        values: ["", "ready: { http: /healthz }"],
        observe: |place| Box::pin(asked_when_starting(place)),
        expected: ["nothing", "/healthz"],
    },
    Row {
        key: "upstreams.<name>.workers.ready.http",
        values: ["ready: { http: /healthz }", "ready: { http: /tiny }"],
        observe: |place| Box::pin(asked_when_starting(place)),
        expected: ["/healthz", "/tiny"],
    },
    Row {
        key: "upstreams.<name>.workers.warmup",
        values: ["", "warmup: [\"/bytes?n=7\"]"],
        observe: |place| Box::pin(asked_when_starting(place)),
        expected: ["nothing", "/bytes?n=7"],
    },
];

const ENDS: &[Row<&str>] = &[
    Row {
        key: "upstreams.<name>.workers.boot_timeout",
        values: ["", "boot_timeout: 300ms"],
        observe: |value| Box::pin(slow_start(value)),
        expected: ["ready at once", "started again"],
    },
    Row {
        key: "upstreams.<name>.workers.warmup_timeout",
        values: ["warmup: [\"/slow?ms=1000\"]", "warmup: [\"/slow?ms=1000\"]\n      warmup_timeout: 200ms"],
        observe: |value| Box::pin(slow_start(value)),
        expected: ["ready at once", "started again"],
    },
    Row {
        key: "upstreams.<name>.workers.drain_timeout",
        values: ["", "drain_timeout: 200ms"],
        observe: |value| Box::pin(request_of_a_retired_worker(value)),
        expected: ["finished", "cut"],
    },
    Row {
        key: "upstreams.<name>.workers.stream_grace",
        values: ["", "stream_grace: 100ms"],
        observe: |value| Box::pin(tunnel_of_a_retired_worker(value)),
        expected: ["open", "closed"],
    },
    Row {
        key: "upstreams.<name>.workers.stop_timeout",
        values: ["", "stop_timeout: 200ms"],
        observe: |value| Box::pin(worker_that_ignores_its_signal(value)),
        expected: ["still there", "killed"],
    },
    Row {
        // The demo worker handles it as little as most programs do, so it ends.
        key: "upstreams.<name>.workers.stop_signal",
        values: ["", "stop_signal: USR1"],
        observe: |value| Box::pin(worker_that_ignores_its_signal(value)),
        expected: ["still there", "killed"],
    },
];

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).chain(ENDS.iter().map(|row| row.key)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_workers_act() {
    let home = Home::new(&site());
    // Another account has to reach the program and its socket.
    let program = home.path().join("demo");
    fs::copy(Binary::UpstreamDemo.path(), &program).expect("the directory is ours");
    for path in [home.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let edge = Arc::new(Edge::launch(home).ready().await);
    check(ROWS, 8, Place::of(&edge)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_how_workers_end_act() {
    check(ENDS, 6, |index, side| ENDS[index].values[side]).await;
}

fn site() -> Site {
    let mut upstreams = String::new();
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            if row.key.ends_with(".user") && !is_root() {
                tell("no other account without root: the row of workers.user proves nothing here");
                continue;
            }
            let workers = value(row, index, side);
            let defaults = ["count: 1", "command: [\"@dir@/demo\", --uds, \"{socket}\", --log-requests]"];
            let name = super::name(index, side);
            // The command may come second in a value.
            let defaults = if workers.contains("command:") { &defaults[..1] } else { &defaults[..] };
            upstreams.push_str(&format!("  {name}: {{ workers: {} }}\n", mapping(&workers, defaults)));
        }
    }
    Site::new(format!("listeners: [{{ address: \"127.0.0.1:@port:plain@\" }}]\nupstreams:\n{upstreams}"))
}

/// One worker behind everything, with this value beside what the test needs.
fn solo(value: &str, arguments: &[&str]) -> Site {
    let site = Site::demo_workers(1, arguments);
    if value.is_empty() { site } else { site.replace("count: 1", &format!("count: 1\n      {value}")) }
}

impl Place {
    async fn worker(&self) -> Worker {
        self.edge.ready_workers(&self.name, 1).await.remove(0)
    }

    /// A file of the worker's folder in `/proc`, zero bytes as spaces.
    async fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.worker().await.pid);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    }
}

async fn word_in_command(place: Place, word: &str) -> String {
    with_or_without(&place.proc("cmdline").await, word)
}

async fn variable(place: Place, start: &str) -> String {
    with_or_without(&place.proc("environ").await, start)
}

fn with_or_without(text: &str, start: &str) -> String {
    if text.split(' ').any(|word| word.starts_with(start)) { "with" } else { "without" }.to_owned()
}

async fn how_many(place: Place) -> String {
    place.edge.workers(&place.name).await.len().to_string()
}

async fn costs(place: Place) -> String {
    let told = place.edge.admin().get(&format!("/workers/cost?upstream={}", place.name)).await.expect("an answer");
    format!("{} with costs", told.json()["upstreams"].as_array().expect("a list").len())
}

async fn working_directory(place: Place) -> String {
    let of = |pid: i32| fs::read_link(format!("/proc/{pid}/cwd")).expect("it runs");
    let (theirs, ours) = (of(place.worker().await.pid), of(place.edge.pid()));
    if theirs == ours { "ours".to_owned() } else { theirs.display().to_string() }
}

async fn user(place: Place) -> String {
    let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("the system has a nobody");
    if !is_root() {
        return if place.name.ends_with('a') { "ours" } else { "nobody" }.to_owned();
    }
    let status = place.proc("status").await;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    match uid.split_whitespace().next().and_then(|uid| uid.parse().ok()) {
        Some(uid) if uid == nobody.uid.as_raw() => "nobody".to_owned(),
        Some(0) => "ours".to_owned(),
        _ => status,
    }
}

async fn kind_of_address(place: Place) -> String {
    place.worker().await;
    let status = place.edge.status().await;
    let upstream = status["upstreams"].as_array().into_iter().flatten().find(|entry| entry["name"] == place.name);
    let address = upstream.and_then(|upstream| upstream["endpoints"][0]["address"].as_str()).unwrap_or("none");
    let is_port = address.starts_with("127.0.0.1:");
    if is_port { "port" } else { address.split(':').next().unwrap_or_default() }.to_owned()
}

/// Which path the worker was asked for before it got requests; it prints each request.
async fn asked_when_starting(place: Place) -> String {
    place.worker().await;
    let output = place.edge.output();
    let asked = || {
        let errors = output.stderr();
        let ours = errors.lines().filter(|line| line.contains(&format!("\"{}\"", place.name)));
        let mut paths = ours.filter_map(|line| line.split("GET ").nth(1)?.split([' ', '"']).next().map(str::to_owned));
        paths.next()
    };
    match timeout(PATIENCE, wait_for("a request", LIMIT, asked)).await {
        Ok(path) => path,
        Err(_) => "nothing".to_owned(),
    }
}

async fn slow_start(value: &str) -> String {
    let edge = Edge::launch(Home::new(&solo(value, &["--boot-delay", "1500"])));
    let seen = async || {
        let status = edge.admin().status().await.ok()?;
        let worker = &status["upstreams"][0]["workers"][0];
        match (worker["restarts"].as_u64()?, worker["state"].as_str()?) {
            (0, "ready") => Some("ready at once"),
            (1.., _) => Some("started again"),
            _ => None,
        }
    };
    wait_until("a worker that is ready, or starts again", LIMIT, seen).await.to_owned()
}

/// What becomes of a request, one that may not be sent again, when its worker is replaced by one with another command.
async fn request_of_a_retired_worker(value: &str) -> String {
    let site = |more: &str| solo(value, &["--drain", "0", "--keep-alive", more]);
    let mut edge = Edge::start(site("75")).await;
    let client = edge.client(Kind::Http1);
    let request = tokio::spawn(async move { client.send(Ask::post("/slow?ms=4000", "")).await });
    wait_until("the request in flight", LIMIT, async || {
        (edge.status().await["upstreams"][0]["endpoints"][0]["in_flight"] == 1).then_some(())
    })
    .await;
    let finished = edge.reload(&site("74")).await;
    assert!(finished.status.success(), "{}", finished.stderr);
    match request.await.expect("no panic") {
        Ok(answer) if answer.status == 200 && answer.is_complete() => "finished",
        _ => "cut",
    }
    .to_owned()
}

/// Whether a WebSocket is open some time after its worker was replaced.
async fn tunnel_of_a_retired_worker(value: &str) -> String {
    let site = |more: &str| solo(value, &["--keep-alive", more]);
    let mut edge = Edge::start(site("75")).await;
    let pid = edge.ready_workers("app", 1).await[0].pid;
    let mut socket = WebSocket::connect(edge.client(Kind::Http1), "/ws").await.expect("a tunnel");
    let finished = edge.reload(&site("74")).await;
    assert!(finished.status.success(), "{}", finished.stderr);
    let leaves = |workers: &[Worker]| workers.iter().all(|worker| worker.pid != pid || !worker.is_ready());
    edge.workers_until("app", LIMIT, leaves).await;
    // The pause is what is measured: far above the one grace, far below the other.
    match timeout(PATIENCE, socket.receive()).await {
        Err(_) => "open",
        Ok(_) => "closed",
    }
    .to_owned()
}

/// Whether a worker that takes no notice of its signal is there some deadlines after it was replaced.
async fn worker_that_ignores_its_signal(value: &str) -> String {
    let site = |more: &str| solo(value, &["--ignore-term", "--keep-alive", more]);
    let mut edge = Edge::start(site("75")).await;
    let pid = edge.ready_workers("app", 1).await[0].pid;
    let finished = edge.reload(&site("74")).await;
    assert!(finished.status.success(), "{}", finished.stderr);
    let gone = wait_for("its end", LIMIT, || (!is_alive(pid)).then_some(()));
    // A new worker has to be ready first.
    let killed = timeout(2 * PATIENCE, gone).await.is_ok();
    if killed { "killed" } else { "still there" }.to_owned()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn tell(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
}

/// Several times the deadlines above, and far below the defaults.
const PATIENCE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);
