//! Keys about servers that fail. Each value has an upstream with a server that is well, one that breaks off and one that
//! answers 418, as far as it names them.

use std::{sync::Arc, time::Duration};

use tidegate_tests::{
    client::Ask,
    edge::Edge,
    recorder::{OK, Recorder, Seen, Step},
    site::Site,
};
use tokio::time::sleep;

use super::{Place, Row, check, value};

const ROWS: &[Row<Origins>] = &[
    Row {
        key: "upstreams.<name>.ejection",
        values: [SICK, "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: off"],
        observe: |origins| Box::pin(rounds(origins, 1)),
        expected: ["3", "many"],
    },
    Row {
        key: "upstreams.<name>.ejection.max_fails",
        values: [SICK, "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: { max_fails: 5 }"],
        observe: |origins| Box::pin(rounds(origins, 1)),
        expected: ["3", "5"],
    },
    Row {
        key: "upstreams.<name>.ejection.fail_timeout",
        values: [SICK, "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: { fail_timeout: 1s }"],
        observe: |origins| Box::pin(rounds(origins, 2)),
        expected: ["3", "4"],
    },
    Row {
        key: "upstreams.<name>.ejection.max_time",
        values: [
            "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: { fail_timeout: 1s }",
            "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: { fail_timeout: 1s, max_time: 1s }",
        ],
        observe: |origins| Box::pin(rounds(origins, 3)),
        expected: ["4", "5"],
    },
    Row {
        key: "upstreams.<name>.ejection.statuses",
        values: [
            "servers: [{ address: \"@well@\" }, { address: \"@teapot@\" }]",
            "servers: [{ address: \"@well@\" }, { address: \"@teapot@\" }], ejection: { statuses: [418] }",
        ],
        observe: |origins| Box::pin(rounds(origins, 1)),
        expected: ["many", "3"],
    },
    Row {
        key: "upstreams.<name>.ejection.max_ejected",
        values: [SICK, "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: { max_ejected: 49% }"],
        observe: |origins| Box::pin(rounds(origins, 1)),
        expected: ["3", "many"],
    },
    Row {
        key: "upstreams.<name>.ejection.success_rate.interval",
        values: [
            COMPARED,
            "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: { max_fails: 0, success_rate: { interval: 1h, min_endpoints: 2, min_requests: 2, deviations: 0.5 } }",
        ],
        observe: |origins| Box::pin(last_round(origins)),
        expected: ["0", "many"],
    },
    Row {
        key: "upstreams.<name>.ejection.success_rate.min_endpoints",
        values: [
            COMPARED,
            "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: { max_fails: 0, success_rate: { interval: 1s, min_endpoints: 3, min_requests: 2, deviations: 0.5 } }",
        ],
        observe: |origins| Box::pin(last_round(origins)),
        expected: ["0", "many"],
    },
    Row {
        key: "upstreams.<name>.ejection.success_rate.min_requests",
        values: [
            COMPARED,
            "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: { max_fails: 0, success_rate: { interval: 1s, min_endpoints: 2, deviations: 0.5 } }",
        ],
        observe: |origins| Box::pin(last_round(origins)),
        expected: ["0", "many"],
    },
    Row {
        key: "upstreams.<name>.ejection.success_rate.deviations",
        values: [
            COMPARED,
            "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: { max_fails: 0, success_rate: { interval: 1s, min_endpoints: 2, min_requests: 2, deviations: 1.5 } }",
        ],
        observe: |origins| Box::pin(last_round(origins)),
        expected: ["0", "many"],
    },
    Row {
        key: "upstreams.<name>.servers[].max_fails",
        values: [SICK, "servers: [{ address: \"@well@\" }, { address: \"@sick@\", max_fails: 1 }]"],
        observe: |origins| Box::pin(rounds(origins, 1)),
        expected: ["3", "1"],
    },
    Row {
        key: "upstreams.<name>.servers[].fail_timeout",
        values: [SICK, "servers: [{ address: \"@well@\" }, { address: \"@sick@\", fail_timeout: 1s }]"],
        observe: |origins| Box::pin(rounds(origins, 2)),
        expected: ["3", "4"],
    },
];

const SICK: &str = "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }]";
/// A half and a half: the mean is 50, and so is the deviation.
const COMPARED: &str = "servers: [{ address: \"@well@\" }, { address: \"@sick@\" }], ejection: { max_fails: 0, success_rate: { interval: 1s, min_endpoints: 2, min_requests: 2, deviations: 0.5 } }";

/// Longer than the first time out, shorter than the second.
const PAUSE: Duration = Duration::from_millis(1_200);

/// A place, and the servers that are not well.
struct Origins {
    place: Place,
    poor: [Arc<Recorder>; 2],
}

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_ejection_act() {
    let well = Recorder::friendly().await;
    let sick = Arc::new(Recorder::start(|_| vec![Step::Close]).await);
    let teapot = OK.replacen("200 OK", "418 I'm a teapot", 1);
    let teapot = Arc::new(Recorder::start(move |_: &Seen| vec![Step::Send(teapot.clone().into())]).await);
    let site = site().with("well", well.address()).with("sick", sick.address()).with("teapot", teapot.address());
    let edge = Arc::new(Edge::start(site).await);
    let mut places = Place::of(&edge);
    let origins = |index, side| Origins { place: places(index, side), poor: [Arc::clone(&sick), Arc::clone(&teapot)] };
    check(ROWS, 8, origins).await;
}

fn site() -> Site {
    let (mut sites, mut upstreams) = (String::new(), String::new());
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let name = super::name(index, side);
            sites
                .push_str(&format!("  - {{ hosts: [{name}.test.example], routes: [{{ path: /, proxy: {name} }}] }}\n"));
            upstreams.push_str(&format!("  {name}: {{ {} }}\n", value(row, index, side)));
        }
    }
    let listeners = "listeners: [{ name: plain, address: \"127.0.0.1:@port:plain@\" }]";
    Site::new(format!("{listeners}\nsites:\n{sites}upstreams:\n{upstreams}"))
}

impl Origins {
    /// Twenty requests, and how many of this place's the servers that are not well have met so far.
    async fn round(&self) -> usize {
        let mut connection = self.place.client().connect().await.expect("the edge listens");
        for _ in 0..20 {
            let ask = Ask::get("/").host(&self.place.host()).header("x-place", &self.place.name);
            connection.send(ask).await.expect("an answer");
        }
        let ours = |seen: &&Seen| seen.header("x-place") == Some(&self.place.name);
        self.poor.iter().map(|poor| poor.requests().iter().filter(ours).count()).sum()
    }
}

async fn rounds(origins: Origins, count: usize) -> String {
    let mut met = origins.round().await;
    for _ in 1..count {
        sleep(PAUSE).await;
        met = origins.round().await;
    }
    words(met)
}

/// What they meet of a round after they could be compared.
async fn last_round(origins: Origins) -> String {
    let before = origins.round().await;
    sleep(PAUSE).await;
    words(origins.round().await - before)
}

fn words(met: usize) -> String {
    if met > 5 { "many".to_owned() } else { met.to_string() }
}
