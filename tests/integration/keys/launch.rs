//! Keys of what the process of a worker is given. Each value has an upstream with one demo worker, and what it was given is
//! seen in `/proc`.

use std::{fs, sync::Arc, time::Duration};

use tidegate_tests::{
    edge::{Edge, Home, Worker},
    site::Site,
};
use tokio::time::timeout;

use super::{Place, Row, check, mapping, value};

const ROWS: &[Row<Place>] = &[
    Row {
        key: "upstreams.<name>.workers.env_file",
        values: ["", "env_file: [one.env, two.env]"],
        observe: |place| Box::pin(variable(place, "COLOR_OF_FILE=")),
        expected: ["none", "COLOR_OF_FILE=light blue"],
    },
    Row {
        key: "upstreams.<name>.workers.umask",
        values: ["", "umask: 0027"],
        observe: |place| Box::pin(line(place, "status", "Umask:")),
        expected: ["0022", "0027"],
    },
    Row {
        key: "upstreams.<name>.workers.limits.nofile",
        values: ["limits: { nofile: 256 }", "limits: { nofile: 512 }"],
        observe: |place| Box::pin(is_limit(place, "Max open files", "512 512")),
        expected: ["no", "yes"],
    },
    Row {
        key: "upstreams.<name>.workers.limits.nproc",
        values: ["", "limits: { nproc: 4000 }"],
        observe: |place| Box::pin(is_limit(place, "Max processes", "4000 4000")),
        expected: ["no", "yes"],
    },
    Row {
        key: "upstreams.<name>.workers.limits.core",
        values: ["limits: { core: 1MiB }", "limits: { core: off }"],
        observe: |place| Box::pin(line(place, "limits", "Max core file size")),
        expected: ["1048576 1048576 bytes", "0 0 bytes"],
    },
    Row {
        key: "upstreams.<name>.workers.limits.address_space",
        values: ["", "limits: { address_space: 16GiB }"],
        observe: |place| Box::pin(is_limit(place, "Max address space", "17179869184 17179869184")),
        expected: ["no", "yes"],
    },
    Row {
        key: "upstreams.<name>.workers.limits.nice",
        values: ["limits: { nice: 3 }", "limits: { nice: 9 }"],
        observe: |place| Box::pin(nice(place)),
        expected: ["3", "9"],
    },
    Row {
        key: "upstreams.<name>.workers.limits.oom_score_adj",
        values: ["limits: { oom_score_adj: 700 }", "limits: { oom_score_adj: 800 }"],
        observe: |place| Box::pin(line(place, "oom_score_adj", "")),
        expected: ["700", "800"],
    },
    Row {
        key: "upstreams.<name>.workers.watch",
        values: ["", "watch: [watched]"],
        observe: |place| Box::pin(after_a_change(place)),
        expected: ["the same", "replaced"],
    },
];

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_what_workers_are_given_act() {
    let home = Home::new(&site());
    for (file, text) in [("one.env", "COLOR_OF_FILE=red\n"), ("two.env", "# later wins\nCOLOR_OF_FILE='light blue'\n")]
    {
        fs::write(home.path().join(file), text).expect("the directory is ours");
    }
    fs::create_dir(home.path().join("watched")).expect("the directory is ours");
    let edge = Arc::new(Edge::launch(home).ready().await);
    check(ROWS, 8, Place::of(&edge)).await;
}

fn site() -> Site {
    let mut upstreams = String::new();
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let defaults = ["count: 1", "command: [\"@demo@\", --uds, \"{socket}\"]"];
            let name = super::name(index, side);
            let workers = mapping(&value(row, index, side), &defaults);
            upstreams.push_str(&format!("  {name}: {{ workers: {workers} }}\n"));
        }
    }
    Site::new(format!("listeners: [{{ address: \"127.0.0.1:@port:plain@\" }}]\nupstreams:\n{upstreams}"))
}

/// What becomes of the worker when a file changes.
async fn after_a_change(place: Place) -> String {
    let before = place.edge.ready_workers(&place.name, 1).await;
    let file = place.edge.home().path().join("watched/main");
    fs::write(file, &place.name).expect("the directory is ours");
    let others = |workers: &[Worker]| workers.iter().all(|worker| worker.is_ready() && worker.pid != before[0].pid);
    match timeout(PATIENCE, place.edge.workers_until(&place.name, LIMIT, others)).await {
        Ok(_) => "replaced",
        Err(_) => "the same",
    }
    .to_owned()
}

async fn proc(place: &Place, file: &str) -> String {
    let pid = place.edge.ready_workers(&place.name, 1).await[0].pid;
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What follows this beginning of a line, each blank once.
async fn line(place: Place, file: &str, start: &str) -> String {
    let text = proc(&place, file).await;
    let rest = text.lines().find_map(|line| line.strip_prefix(start)).unwrap_or("none");
    rest.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn is_limit(place: Place, name: &str, expected: &str) -> String {
    let found = line(place, "limits", name).await;
    if found.starts_with(expected) { "yes" } else { "no" }.to_owned()
}

async fn variable(place: Place, start: &str) -> String {
    let text = proc(&place, "environ").await;
    text.split('\0').find(|one| one.starts_with(start)).unwrap_or("none").to_owned()
}

async fn nice(place: Place) -> String {
    let stat = proc(&place, "stat").await;
    let fields = stat.rsplit_once(") ").map(|(_, tail)| tail).unwrap_or_default();
    fields.split(' ').nth(16).unwrap_or("none").to_owned()
}

/// Several looks at files and a start.
const PATIENCE: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(10);
