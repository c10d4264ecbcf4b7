//! Keys about breakers. Each value has an upstream with a server that breaks off while its path says so; what is seen is how many
//! requests it meets.

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
        key: "upstreams.<name>.breaker.statuses",
        values: ["ejection: off, breaker: { failures: 2 }", "ejection: off, breaker: { failures: 2, statuses: [418] }"],
        observe: |origins| Box::pin(met(origins, &["teapot"; 10])),
        expected: ["10", "2"],
    },
    Row {
        key: "upstreams.<name>.breaker.failures",
        values: ["breaker: { failures: 2 }", "breaker: { failures: 4 }"],
        observe: |origins| Box::pin(met(origins, &["bad"; 10])),
        expected: ["2", "4"],
    },
    Row {
        key: "upstreams.<name>.breaker.share",
        values: [
            "breaker: { failures: 0, min_requests: 4, share: 50% }",
            "breaker: { failures: 0, min_requests: 4, share: 51% }",
        ],
        observe: |origins| Box::pin(met(origins, &["good", "good", "bad", "bad", "good", "good"])),
        expected: ["4", "6"],
    },
    Row {
        key: "upstreams.<name>.breaker.min_requests",
        values: ["breaker: { failures: 0, min_requests: 4 }", "breaker: { failures: 0, min_requests: 5 }"],
        observe: |origins| Box::pin(met(origins, &["bad"; 10])),
        expected: ["4", "5"],
    },
    Row {
        key: "upstreams.<name>.breaker.window",
        values: ["breaker: { failures: 0, min_requests: 4 }", "breaker: { failures: 0, min_requests: 4, window: 1s }"],
        observe: |origins| Box::pin(met(origins, &["bad", "bad", "", "bad", "bad", "bad", "bad", "bad"])),
        expected: ["4", "6"],
    },
    Row {
        key: "upstreams.<name>.breaker.cool_down",
        values: ["breaker: { failures: 2 }", "breaker: { failures: 2, cool_down: 1s }"],
        observe: |origins| Box::pin(met(origins, &["bad", "bad", "", "good"])),
        expected: ["2", "3"],
    },
    Row {
        key: "upstreams.<name>.breaker.max_cool_down",
        values: [
            "breaker: { failures: 2, cool_down: 1s }",
            "breaker: { failures: 2, cool_down: 1s, max_cool_down: 1h }",
        ],
        observe: |origins| Box::pin(met(origins, &["bad", "bad", "", "bad", "", "good"])),
        expected: ["4", "3"],
    },
    Row {
        key: "upstreams.<name>.breaker.successes",
        values: [
            "breaker: { failures: 2, cool_down: 1s, successes: 1 }",
            "breaker: { failures: 2, cool_down: 1s, successes: 2 }",
        ],
        observe: |origins| Box::pin(met(origins, &["bad", "bad", "", "good", "bad", "good"])),
        expected: ["5", "4"],
    },
    Row {
        key: "upstreams.<name>.breaker.probes",
        values: [
            "breaker: { failures: 2, cool_down: 1s, probes: 1 }",
            "breaker: { failures: 2, cool_down: 1s, probes: 3 }",
        ],
        observe: |origins| Box::pin(probing(origins)),
        expected: ["1", "3"],
    },
];

/// Longer than the shortest of the times.
const PAUSE: Duration = Duration::from_millis(1_200);

/// A place, and the server behind it.
struct Origins {
    place: Place,
    server: Arc<Recorder>,
}

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_breakers_act() {
    let answer = |seen: &Seen| match seen.target() {
        "/bad" => vec![Step::Close],
        "/teapot" => vec![Step::Send(OK.replacen("200 OK", "418 I'm a teapot", 1).into())],
        "/slow" => vec![Step::Pause(Duration::from_secs(1)), Step::Send(OK.into())],
        _ => vec![Step::Send(OK.into())],
    };
    let server = Arc::new(Recorder::start(answer).await);
    let edge = Arc::new(Edge::start(site().with("server", server.address())).await);
    let mut places = Place::of(&edge);
    check(ROWS, 8, |index, side| Origins { place: places(index, side), server: Arc::clone(&server) }).await;
}

fn site() -> Site {
    let (mut sites, mut upstreams) = (String::new(), String::new());
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let name = super::name(index, side);
            sites
                .push_str(&format!("  - {{ hosts: [{name}.test.example], routes: [{{ path: /, proxy: {name} }}] }}\n"));
            let value = value(row, index, side);
            upstreams.push_str(&format!(
                "  {name}: {{ servers: [{{ address: \"@server@\" }}], idle_connections: 0, {value} }}\n"
            ));
        }
    }
    let listeners = "listeners: [{ name: plain, address: \"127.0.0.1:@port:plain@\" }]";
    Site::new(format!("{listeners}\nsites:\n{sites}upstreams:\n{upstreams}"))
}

impl Origins {
    fn ask(&self, what: &str) -> Ask {
        Ask::get(&format!("/{what}")).host(&self.place.host()).header("x-place", &self.place.name)
    }

    fn count(&self) -> usize {
        let ours = |seen: &&Seen| seen.header("x-place") == Some(&self.place.name);
        self.server.requests().iter().filter(ours).count()
    }

    /// Requests in turn; an empty word is a pause.
    async fn send(&self, words: &[&str]) {
        for word in words {
            match *word {
                "" => sleep(PAUSE).await,
                word => drop(self.place.client().send(self.ask(word)).await),
            }
        }
    }
}

async fn met(origins: Origins, words: &[&str]) -> String {
    origins.send(words).await;
    origins.count().to_string()
}

/// How many of five at a time are let through after the cool-down.
async fn probing(origins: Origins) -> String {
    origins.send(&["bad", "bad", ""]).await;
    let before = origins.count();
    let client = origins.place.client();
    let all = (0..5).map(|_| client.send(origins.ask("slow")));
    futures_util::future::join_all(all).await;
    (origins.count() - before).to_string()
}
