//! Keys of logs of workers. Each value has an upstream with one worker, which prints a few lines before it serves.

use std::{fs, sync::Arc, time::Duration};

use tidegate_tests::{
    edge::{Edge, Home},
    site::Site,
    wait::wait_for,
};

use super::{Place, Row, check, mapping, value};

const ROWS: &[Row<Place>] = &[
    Row {
        key: "upstreams.<name>.workers.logs",
        values: ["logs: inherit", "logs: { file: PLACE.log }"],
        observe: |place| Box::pin(where_it_is(place)),
        expected: ["program log", "file"],
    },
    Row {
        key: "upstreams.<name>.workers.logs.file",
        values: ["logs: { file: PLACE.log }", "logs: { file: \"@dir@/PLACE-other.log\" }"],
        observe: |place| Box::pin(which_file(place)),
        expected: ["PLACE.log", "PLACE-other.log"],
    },
    Row {
        key: "upstreams.<name>.workers.logs.max_size",
        values: ["logs: { file: PLACE.log }", "logs: { file: PLACE.log, max_size: 200B }"],
        observe: |place| Box::pin(how_many_files(place)),
        expected: ["1", "6"],
    },
    Row {
        key: "upstreams.<name>.workers.logs.keep",
        values: [
            "logs: { file: PLACE.log, max_size: 200B, keep: 2 }",
            "logs: { file: PLACE.log, max_size: 200B, keep: 4 }",
        ],
        observe: |place| Box::pin(how_many_files(place)),
        expected: ["3", "5"],
    },
    Row {
        // The last line comes half a second after the first.
        key: "upstreams.<name>.workers.logs.max_age",
        values: ["logs: { file: PLACE.log }", "logs: { file: PLACE.log, max_age: 100ms }"],
        observe: |place| Box::pin(how_many_files(place)),
        expected: ["1", "2"],
    },
    Row {
        key: "upstreams.<name>.workers.logs.compress",
        values: [
            "logs: { file: PLACE.log, max_size: 200B }",
            "logs: { file: PLACE.log, max_size: 200B, compress: gzip }",
        ],
        observe: |place| Box::pin(kind_of_old_files(place)),
        expected: ["plain", "compressed"],
    },
    Row {
        key: "upstreams.<name>.workers.logs.format",
        values: ["logs: { file: PLACE.log }", "logs: { file: PLACE.log, format: json }"],
        observe: |place| Box::pin(shape(place)),
        expected: ["text", "json"],
    },
];

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_logs_of_workers_act() {
    let edge = Arc::new(Edge::launch(Home::new(&site())).ready().await);
    check(ROWS, 4, Place::of(&edge)).await;
}

fn site() -> Site {
    // Twenty lines of some 50 bytes with time and name, and later what the demo itself says.
    let script = "i=0; while test $i -lt 20; do i=$((i+1)); echo this is line $i of it; done; sleep 0.5; exec \\\"$0\\\" --uds \\\"$1\\\"";
    let command = format!("command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"]");
    let mut upstreams = String::new();
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let workers = mapping(&value(row, index, side), &[&command, "count: 1"]);
            upstreams.push_str(&format!("  {}: {{ workers: {workers} }}\n", super::name(index, side)));
        }
    }
    Site::new(format!("listeners: [{{ address: \"127.0.0.1:@port:plain@\" }}]\nupstreams:\n{upstreams}"))
}

impl Place {
    /// Names of the files that begin with the place's name, once its worker has printed everything.
    async fn files(&self) -> Vec<String> {
        self.edge.ready_workers(&self.name, 1).await;
        let is_ours = |name: &String| {
            name.starts_with(&format!("{}.", self.name)) || name.starts_with(&format!("{}-", self.name))
        };
        let list = || -> Vec<String> {
            let entries = fs::read_dir(self.edge.home().path()).expect("the directory is ours").flatten();
            let mut names: Vec<String> =
                entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(is_ours).collect();
            names.sort();
            names
        };
        let is_complete = |names: &[String]| names.iter().any(|name| self.read(name).contains("listens on"));
        let complete =
            || Some(list()).filter(|names| is_complete(names) && names.iter().all(|name| !name.ends_with(".part")));
        wait_for("the last line", LIMIT, complete).await
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.edge.home().path().join(name)).unwrap_or_default()).into_owned()
    }
}

async fn where_it_is(place: Place) -> String {
    let name = place.name.clone();
    if name.ends_with('a') {
        let output = place.edge.output();
        let told =
            || output.stderr().lines().any(|line| line.contains(&format!("\"{name}\"")) && line.contains("listens on"));
        wait_for("the last line", LIMIT, || told().then_some(())).await;
        return "program log".to_owned();
    }
    place.files().await;
    "file".to_owned()
}

async fn which_file(place: Place) -> String {
    place.files().await.remove(0).replace(&place.name, "PLACE")
}

async fn how_many_files(place: Place) -> String {
    place.files().await.len().to_string()
}

async fn kind_of_old_files(place: Place) -> String {
    let is_compressed = |name: &&String| name.ends_with(".gz");
    let compressed = async || place.files().await.iter().filter(is_compressed).count();
    if place.name.ends_with('a') {
        return if compressed().await == 0 { "plain" } else { "compressed" }.to_owned();
    }
    tidegate_tests::wait::wait_until("compressed files", LIMIT, async || (compressed().await > 0).then_some(())).await;
    "compressed".to_owned()
}

async fn shape(place: Place) -> String {
    let files = place.files().await;
    if place.read(&files[0]).starts_with('{') { "json" } else { "text" }.to_owned()
}

const LIMIT: Duration = Duration::from_secs(15);
