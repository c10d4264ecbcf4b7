//! Keys about checks of servers. Each value has an upstream, and what is seen is what the status says of its server once it
//! was asked.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tidegate_tests::{
    edge::Edge,
    h2_origin::{H2Answer, H2Origin, H2Seen, Reply},
    recorder::{OK, Recorder, Seen, Step},
    site::Site,
    wait::wait_until,
};
use tokio::time::sleep;

use super::{Place, Row, check, mapping, value};

const ROWS: &[Row<Origins>] = &[
    Row {
        key: "upstreams.<name>.health_check.http.method",
        values: ["health_check: { http: {} }", "health_check: { http: { method: HEAD } }"],
        observe: |origins| Box::pin(first_verdict(origins)),
        expected: ["ready", "unhealthy"],
    },
    Row {
        key: "upstreams.<name>.health_check.http.path",
        values: ["health_check: { http: {} }", "health_check: { http: { path: /sick } }"],
        observe: |origins| Box::pin(first_verdict(origins)),
        expected: ["ready", "unhealthy"],
    },
    Row {
        key: "upstreams.<name>.health_check.http.host",
        values: ["health_check: { http: {} }", "health_check: { http: { host: sick.example } }"],
        observe: |origins| Box::pin(first_verdict(origins)),
        expected: ["ready", "unhealthy"],
    },
    Row {
        key: "upstreams.<name>.health_check.http.headers",
        values: ["health_check: { http: {} }", "health_check: { http: { headers: { x-sick: 1 } } }"],
        observe: |origins| Box::pin(first_verdict(origins)),
        expected: ["ready", "unhealthy"],
    },
    Row {
        key: "upstreams.<name>.health_check.http.statuses",
        values: ["health_check: { http: {} }", "health_check: { http: { statuses: [100-199, 201-399] } }"],
        observe: |origins| Box::pin(first_verdict(origins)),
        expected: ["ready", "unhealthy"],
    },
    Row {
        key: "upstreams.<name>.health_check.http.body",
        values: ["health_check: { http: { body: \"~ ^o.\" } }", "health_check: { http: { body: well } }"],
        observe: |origins| Box::pin(first_verdict(origins)),
        expected: ["ready", "unhealthy"],
    },
    Row {
        key: "upstreams.<name>.health_check.port",
        values: ["health_check: {}", "health_check: { port: 1 }"],
        observe: |origins| Box::pin(first_verdict(origins)),
        expected: ["ready", "unhealthy"],
    },
    Row {
        key: "upstreams.<name>.health_check.timeout",
        values: ["health_check: { http: { path: /slow } }", "health_check: { http: { path: /slow }, timeout: 200ms }"],
        observe: |origins| Box::pin(first_verdict(origins)),
        expected: ["ready", "unhealthy"],
    },
    Row {
        key: "upstreams.<name>.health_check.interval",
        values: [
            "health_check: { http: { path: /PLACE } }",
            "health_check: { http: { path: /PLACE }, interval: 50ms, jitter: 0 }",
        ],
        observe: |origins| Box::pin(checks_in_a_second(origins)),
        expected: ["1", "many"],
    },
    Row {
        key: "upstreams.<name>.health_check.jitter",
        values: [
            "health_check: { http: { path: /PLACE }, interval: 50ms, jitter: 0 }",
            "health_check: { http: { path: /PLACE }, interval: 50ms, jitter: 1000h }",
        ],
        observe: |origins| Box::pin(checks_in_a_second(origins)),
        expected: ["many", "1"],
    },
    Row {
        key: "upstreams.<name>.health_check.rise",
        values: [
            "health_check: { http: { path: /PLACE?bad=1 }, interval: 50ms }",
            "health_check: { http: { path: /PLACE?bad=1 }, interval: 50ms, rise: 1000 }",
        ],
        observe: |origins| Box::pin(later_verdict(origins)),
        expected: ["ready", "unhealthy"],
    },
    Row {
        key: "upstreams.<name>.health_check.fall",
        values: [
            "health_check: { http: { path: /PLACE?good=1 }, interval: 50ms }",
            "health_check: { http: { path: /PLACE?good=1 }, interval: 50ms, fall: 1000 }",
        ],
        observe: |origins| Box::pin(later_verdict(origins)),
        expected: ["unhealthy", "ready"],
    },
    Row {
        key: "upstreams.<name>.health_check.grpc.service",
        values: [
            "servers: [{ address: \"@grpc@\" }], protocol: h2, health_check: { grpc: {} }",
            "servers: [{ address: \"@orders@\" }], protocol: h2, health_check: { grpc: { service: shop.Orders } }",
        ],
        observe: |origins| Box::pin(asked_for(origins)),
        expected: ["", "shop.Orders"],
    },
];

const LIMIT: Duration = Duration::from_secs(10);

/// A place, and the server that is asked.
struct Origins {
    place: Place,
    origin: Arc<Recorder>,
    /// Servers of gRPC, one for either value.
    grpc: Arc<[H2Origin; 2]>,
    side: usize,
}

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_checks_act() {
    let flipped = Mutex::new(Vec::new());
    let origin = Arc::new(Recorder::start(move |seen| answer(seen, &flipped)).await);
    let grpc = Arc::new([H2Origin::start(health).await, H2Origin::start(health).await]);
    let site = site().with("origin", origin.address());
    let site = site.with("grpc", grpc[0].address()).with("orders", grpc[1].address());
    let edge = Arc::new(Edge::launch(tidegate_tests::edge::Home::new(&site)));
    wait_until("the status", LIMIT, async || edge.admin().status().await.ok()).await;
    let mut places = Place::of(&edge);
    let origins = |index, side| Origins {
        place: places(index, side),
        origin: Arc::clone(&origin),
        grpc: Arc::clone(&grpc),
        side,
    };
    check(ROWS, 8, origins).await;
}

fn site() -> Site {
    let (mut sites, mut upstreams) = (String::new(), String::new());
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let name = super::name(index, side);
            sites
                .push_str(&format!("  - {{ hosts: [{name}.test.example], routes: [{{ path: /, proxy: {name} }}] }}\n"));
            let defaults = ["servers: [{ address: \"@origin@\" }]"];
            upstreams.push_str(&format!("  {name}: {}\n", mapping(&value(row, index, side), &defaults)));
        }
    }
    let listeners = "listeners: [{ name: plain, address: \"127.0.0.1:@port:plain@\" }]";
    Site::new(format!("{listeners}\nsites:\n{sites}upstreams:\n{upstreams}"))
}

fn answer(seen: &Seen, flipped: &Mutex<Vec<String>>) -> Vec<Step> {
    let well = vec![Step::Send(OK.into())];
    let sick = vec![Step::Send(b"HTTP/1.1 503 Oh\r\ncontent-length: 0\r\n\r\n".into())];
    let target = seen.target();
    if target == "/slow" {
        return vec![Step::Pause(Duration::from_millis(700)), Step::Send(OK.into())];
    }
    if let Some((_, first)) = target.split_once('?') {
        let mut flipped = flipped.lock().expect("nobody panics");
        let is_first = !flipped.iter().any(|known| known == target);
        flipped.push(target.to_owned());
        return if is_first == (first == "good=1") { well } else { sick };
    }
    let signs = [target == "/sick", seen.line().starts_with("HEAD"), seen.header("x-sick").is_some()];
    if signs.contains(&true) || seen.header("host") == Some("sick.example") { sick } else { well }
}

fn health(_: &H2Seen) -> Reply {
    let answer = H2Answer::new(200).header("content-type", "application/grpc");
    Reply::Answer(answer.body(&b"\0\0\0\0\x02\x08\x01"[..]).trailer("grpc-status", "0"))
}

impl Origins {
    /// What the status says of the place's server, once it was asked.
    async fn verdict(&self) -> String {
        wait_until("the first check", LIMIT, async || {
            let status = self.place.edge.status().await;
            let all = status["upstreams"].as_array().cloned().unwrap_or_default();
            let ours = all.into_iter().find(|upstream| upstream["name"] == self.place.name)?;
            let endpoint = &ours["endpoints"][0];
            let state = endpoint["state"].as_str()?.to_owned();
            endpoint["check"].is_object().then_some(state)
        })
        .await
    }

    fn checks(&self) -> usize {
        let path = format!("/{}", self.place.name);
        self.origin.requests().iter().filter(|seen| seen.target().starts_with(&path)).count()
    }
}

async fn first_verdict(origins: Origins) -> String {
    origins.verdict().await
}

/// The service that a check asks for, behind the lengths of the message and of its own.
async fn asked_for(origins: Origins) -> String {
    assert_eq!(origins.verdict().await, "ready");
    let asked = origins.grpc[origins.side].requests_at_least(1).await.remove(0);
    String::from_utf8_lossy(asked.body.get(7..).unwrap_or_default()).into_owned()
}

/// After it was asked often enough for every default.
async fn later_verdict(origins: Origins) -> String {
    wait_until("six checks", LIMIT, async || (origins.checks() > 6).then_some(())).await;
    origins.verdict().await
}

async fn checks_in_a_second(origins: Origins) -> String {
    origins.verdict().await;
    sleep(Duration::from_secs(1)).await;
    match origins.checks() {
        0..5 => origins.checks().to_string(),
        _ => "many".to_owned(),
    }
}
