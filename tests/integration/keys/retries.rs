//! Keys about tries and deadlines, wherever they may stand. Each value has an upstream, and a site that forwards to it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_tests::{
    client::Ask,
    edge::Edge,
    recorder::{Recorder, Seen, Step},
    site::{CERTIFICATE, LISTENERS, Site},
};

use super::{Place, Row, check, mapping, value};

/// Asked again as long as the file says so.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// A gRPC call that did not happen.
const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 14\r\ncontent-length: 0\r\n\r\n";

/// The keys of `retry` under this one. What a value leaves out is as in [`DEFAULTS`].
macro_rules! retry {
    ($prefix:literal) => {
        &[
            Row {
                key: $prefix,
                values: ["retry: { on: [503], backoff: {} }", "retry: off"],
                observe: |place| Box::pin(times_asked(place)),
                expected: ["2", "1"],
            },
            Row {
                key: concat!($prefix, ".tries"),
                values: ["", "tries: 3"],
                observe: |place| Box::pin(times_asked(place)),
                expected: ["2", "3"],
            },
            Row {
                key: concat!($prefix, ".on"),
                values: ["", "on: [closed, 502]"],
                observe: |place| Box::pin(times_asked(place)),
                expected: ["2", "1"],
            },
            Row {
                key: concat!($prefix, ".grpc"),
                values: ["", "grpc: [unavailable]"],
                observe: |place| Box::pin(times_called(place)),
                expected: ["1", "2"],
            },
            Row {
                key: concat!($prefix, ".try_timeout"),
                values: ["on: [timeout], try_timeout: 200ms", "on: [timeout], try_timeout: off"],
                observe: |place| Box::pin(pace(place)),
                expected: ["soon", "late"],
            },
            Row {
                key: concat!($prefix, ".hedge"),
                values: ["on: [timeout], hedge: 100ms", "on: [timeout], hedge: off"],
                observe: |place| Box::pin(pace(place)),
                expected: ["soon", "late"],
            },
            Row {
                key: concat!($prefix, ".backoff.base"),
                values: [
                    "tries: 10, backoff: { base: 1ms, max: 600ms }",
                    "tries: 10, backoff: { base: 600ms, max: 600ms }",
                ],
                observe: |place| Box::pin(pace(place)),
                expected: ["soon", "late"],
            },
            Row {
                key: concat!($prefix, ".backoff.max"),
                values: ["tries: 10, backoff: { max: 1ms }", "tries: 10, backoff: { base: 600ms, max: 600ms }"],
                observe: |place| Box::pin(pace(place)),
                expected: ["soon", "late"],
            },
            Row {
                key: concat!($prefix, ".respect_retry_after"),
                values: ["", "respect_retry_after: 2s"],
                observe: |place| Box::pin(pace(place)),
                expected: ["soon", "late"],
            },
        ]
    };
}

const DEFAULTS: [&str; 2] = ["on: [503]", "backoff: { base: 1ms }"];

/// The longest time of a request.
macro_rules! deadline {
    ($key:literal) => {
        &[Row {
            key: $key,
            values: ["", "deadline: 300ms"],
            observe: |place| Box::pin(reason(place)),
            expected: ["head_timeout", "deadline"],
        }]
    };
}

const BUDGET: &[Row<Asked>] = &[
    Row {
        key: "upstreams.<name>.retry_budget",
        values: ["retry_budget: { share: 0%, floor: 1/d }", "retry_budget: off"],
        observe: |place| Box::pin(times_asked(place)),
        expected: ["1", "2"],
    },
    Row {
        key: "upstreams.<name>.retry_budget.share",
        values: ["share: 0%, floor: 1/d", "share: 500%, floor: 1/d"],
        observe: |place| Box::pin(times_asked(place)),
        expected: ["1", "2"],
    },
    Row {
        key: "upstreams.<name>.retry_budget.floor",
        values: ["share: 0%, floor: 1/d", "share: 0%, floor: 10/s"],
        observe: |place| Box::pin(times_asked(place)),
        expected: ["1", "2"],
    },
];

const TABLES: [&[Row<Asked>]; 6] = [
    retry!("upstreams.<name>.retry"),
    retry!("sites[].retry"),
    retry!("sites[].routes[].retry"),
    deadline!("sites[].deadline"),
    deadline!("sites[].routes[].deadline"),
    BUDGET,
];

pub(super) fn keys() -> Vec<&'static str> {
    TABLES.iter().flat_map(|rows| rows.iter().map(|row| row.key)).collect()
}

/// A place, and the server behind it that is never of use.
struct Asked {
    place: Place,
    busy: Arc<Recorder>,
}

impl Asked {
    fn count(&self) -> String {
        let asked = |seen: &&Seen| seen.header("x-place") == Some(self.place.name.as_str());
        self.busy.requests().iter().filter(asked).count().to_string()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_retries_act() {
    let (hung, friendly) = (Recorder::start(|_| vec![Step::Stall]).await, Recorder::friendly().await);
    for rows in TABLES {
        let answer = |seen: &Seen| if seen.target() == "/call" { UNAVAILABLE } else { BUSY };
        let busy = Arc::new(Recorder::start(move |seen| vec![Step::Send(answer(seen).to_vec())]).await);
        let site =
            site(rows).with("busy", busy.address()).with("hung", hung.address()).with("friendly", friendly.address());
        let edge = Arc::new(Edge::start(site).await);
        let mut place = Place::of(&edge);
        check(rows, 8, |index, side| Asked { place: place(index, side), busy: Arc::clone(&busy) }).await;
    }
}

/// A site and an upstream for each value, which stands where the key of its row says.
fn site(rows: &[Row<Asked>]) -> Site {
    let (mut upstreams, mut sites) = (String::new(), String::new());
    for (index, row) in rows.iter().enumerate() {
        for side in [0, 1] {
            let (name, value) = (super::name(index, side), value(row, index, side));
            let value = match row.key {
                key if key.contains("retry_budget.") => format!("retry_budget: {{ {value} }}"),
                key if key.contains("retry.") => format!("retry: {}", mapping(&value, &missing(&value))),
                _ => value,
            };
            let with = |prefix: &str| {
                let is_here = !value.is_empty() && row.key.starts_with(prefix);
                let is_here = is_here && (prefix != "sites[]." || !row.key.starts_with("sites[].routes[]."));
                if is_here { format!(", {value}") } else { String::new() }
            };
            let servers = match row.key {
                key if key.ends_with("deadline") => "{ address: \"@hung@\" }",
                key if key.ends_with("try_timeout") || key.ends_with("hedge") => {
                    "{ address: \"@hung@\" }, { address: \"@friendly@\" }"
                }
                _ => "{ address: \"@busy@\" }",
            };
            let own_retry = if row.key.contains("retry_budget") { ", retry: { on: [503], backoff: {} }" } else { "" };
            upstreams.push_str(&format!(
                "  {name}: {{ servers: [{servers}], timeouts: {{ head: 1s }}{own_retry}{} }}\n",
                with("upstreams.")
            ));
            sites.push_str(&format!(
                "  - {{ name: {name}, hosts: [{name}.test.example], tls: {CERTIFICATE}{}, \
                 routes: [{{ path: /, proxy: {name}{} }}] }}\n",
                with("sites[]."),
                with("sites[].routes[].")
            ));
        }
    }
    Site::new(format!("{LISTENERS}\nsites:\n{sites}upstreams:\n{upstreams}"))
}

/// The defaults whose keys a value does not have, wherever in it.
fn missing(value: &str) -> Vec<&'static str> {
    let key = |default: &str| format!("{}:", default.split(':').next().unwrap_or_default());
    DEFAULTS.into_iter().filter(|default| !value.contains(&key(default))).collect()
}

/// How often the busy server is asked for one request.
async fn times_asked(asked: Asked) -> String {
    asked.place.ask(Ask::get("/")).await.assert(503, b"");
    asked.count()
}

/// How often it is called for one call.
async fn times_called(asked: Asked) -> String {
    asked.place.ask(Ask::post("/call", "x")).await.assert(200, b"");
    asked.count()
}

/// Whether an answer comes at once.
async fn pace(Asked { place, .. }: Asked) -> String {
    let asked = Instant::now();
    place.ask(Ask::get("/")).await;
    if asked.elapsed() >= Duration::from_millis(600) { "late" } else { "soon" }.to_owned()
}

async fn reason(Asked { place, .. }: Asked) -> String {
    let answer = place.ask(Ask::get("/")).await;
    answer.header("x-tidegate-reason").unwrap_or("none").to_owned()
}
