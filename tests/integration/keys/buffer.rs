//! Keys about held bodies: `buffer` of sites and routes, and `server.spool`. Each value has a program of its own.

use std::{fs, time::Duration};

use bytes::Bytes;
use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    site::Site,
};

use super::{Row, check};
use crate::buffering::{is_freed, slow_reader};

const ROWS: &[Row<Value>] = &[
    Row {
        key: "sites[].buffer.request",
        values: ["", "buffer: { request: off }"],
        observe: |value| Box::pin(framing(value)),
        expected: ["length", "chunked"],
    },
    Row {
        key: "sites[].buffer.response",
        values: ["buffer: { response: on }", "buffer: { response: off }"],
        observe: |value| Box::pin(worker(value)),
        expected: ["free", "busy"],
    },
    Row {
        key: "sites[].routes[].buffer.request",
        values: ["", "buffer: { request: off }"],
        observe: |value| Box::pin(framing(value)),
        expected: ["length", "chunked"],
    },
    Row {
        key: "sites[].routes[].buffer.response",
        values: ["", "buffer: { response: 1MiB }"],
        observe: |value| Box::pin(worker(value)),
        expected: ["free", "busy"],
    },
    Row {
        key: "server.spool.dir",
        values: ["", "spool: { dir: \"@dir@/elsewhere\" }"],
        observe: |value| Box::pin(folder(value)),
        expected: ["state/spool", "elsewhere"],
    },
    Row {
        key: "server.spool.total",
        values: ["", "spool: { total: 1MiB }"],
        observe: |value| Box::pin(worker(value)),
        expected: ["free", "busy"],
    },
];

/// A value of a row, for the place that its key names.
struct Value {
    key: &'static str,
    value: &'static str,
}

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_held_bodies_act() {
    check(ROWS, 4, |index, side| Value { key: ROWS[index].key, value: ROWS[index].values[side] }).await;
}

impl Value {
    async fn start(&self) -> Edge {
        let own = if self.value.is_empty() { String::new() } else { format!(", {}", self.value) };
        let mut site = Site::demo_workers(1, &["--concurrency", "1"]);
        let mut server = String::new();
        match self.key {
            key if key.starts_with("server.") => server = own,
            key if key.starts_with("sites[].routes[].") => {
                site = site.replace("{ path: /, proxy: app }", &format!("{{ path: /, proxy: app{own} }}"));
            }
            _ => site = site.replace("  - name: main", &format!("  - name: main\n    {}", self.value)),
        }
        let server = format!("server: {{ state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\"{server} }}");
        Edge::start(site.and(&server)).await
    }
}

/// How a chunked request reaches the worker, which answers in the same way.
async fn framing(value: Value) -> String {
    let edge = value.start().await;
    let ask = Ask::post_pieces("/echo", vec![Bytes::from_static(b"abc"), Bytes::from_static(b"def")]);
    let answer = edge.client(Kind::Http1).ask(ask).await;
    answer.assert(200, b"abcdef");
    if answer.header("content-length").is_some() { "length" } else { "chunked" }.to_owned()
}

/// What becomes of a worker whose answer a client does not take.
async fn worker(value: Value) -> String {
    let edge = value.start().await;
    let _reader = slow_reader(&edge, "/bytes?n=12000000").await;
    if is_freed(&edge, Duration::from_secs(4)).await { "free" } else { "busy" }.to_owned()
}

/// Where the file is that has no name any more.
async fn folder(value: Value) -> String {
    let edge = value.start().await;
    let _reader = slow_reader(&edge, "/bytes?n=12000000").await;
    assert!(is_freed(&edge, Duration::from_secs(20)).await, "the worker stays busy");
    let descriptors = fs::read_dir(format!("/proc/{}/fd", edge.pid())).expect("it runs");
    let files = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let home = fs::canonicalize(edge.home().path()).expect("it is there");
    let inside = files.filter_map(|path| Some(path.strip_prefix(&home).ok()?.parent()?.display().to_string()));
    inside.filter(|folder| folder.contains("spool") || folder == "elsewhere").collect::<Vec<_>>().join(" ")
}
