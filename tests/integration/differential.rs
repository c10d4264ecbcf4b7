//! The same request through every client, to endpoints of either protocol: what the endpoint and the client see differs in
//! nothing but what the table allows.
//!
//! Requests are drawn from the seed of the run and their number, with the answer that their endpoint gives. Each goes eight
//! ways, and two ways that differ in one thing (TLS, the client's protocol, the endpoint's protocol) are compared. An
//! allowance that a run never needs fails it too, so that none outlives its reason.

mod request;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use tidegate_tests::{
    client::{Client, Connection, Kind},
    drill::{amount, say, seed},
    edge::Edge,
    h2_origin::{H2Origin, H2Seen, Reply},
    recorder::{Recorder, Seen},
    site::Site,
};
use tokio::task::JoinSet;

use request::Case;
use view::{APART, Difference, Side, View};

/// A difference that is as it should be, or that is known.
struct Allowance {
    /// Between which ways.
    steps: &'static [Step],
    side: Side,
    what: &'static str,
    /// Which values, by each way; empty where there is none.
    holds: fn(&str, &str) -> bool,
    reason: &'static str,
}

/// The one thing in which two ways differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// TCP, and TLS on it.
    Tls,
    /// A client of HTTP/1.1, and one of HTTP/2.
    Client,
    /// An endpoint of HTTP/1.1, and one of HTTP/2.
    Endpoint,
}

const EVERY: &[Step] = &[Step::Tls, Step::Client, Step::Endpoint];

const ALLOWED: &[Allowance] = &[
    Allowance {
        steps: EVERY,
        side: Side::Origin,
        what: "x-request-id",
        holds: is_id,
        reason: "each request has an id of its own",
    },
    Allowance {
        steps: EVERY,
        side: Side::Client,
        what: "x-request-id",
        holds: is_id,
        reason: "the answer has the request's id",
    },
    Allowance {
        steps: &[Step::Tls],
        side: Side::Origin,
        what: "x-forwarded-proto",
        holds: |tcp, tls| (tcp, tls) == ("http", "https"),
        reason: "the endpoint must know whether its client has TLS",
    },
    Allowance {
        steps: &[Step::Client],
        side: Side::Origin,
        what: "cookie",
        holds: |apart, joined| !joined.contains(APART) && same_cookies(apart, joined),
        reason: "cookies that HTTP/2 has apart are joined for HTTP/1.1 (RFC 9113 section 8.2.3); HTTP/1.1's pass as they come",
    },
    Allowance {
        steps: &[Step::Endpoint],
        side: Side::Origin,
        what: "cookie",
        holds: |joined, apart| !joined.contains(APART) && same_cookies(apart, joined),
        reason: "between HTTP/2 and HTTP/2 cookies may stay apart",
    },
    Allowance {
        steps: &[Step::Endpoint],
        side: Side::Origin,
        what: "te",
        holds: |http1, h2| (http1, h2) == ("", "trailers"),
        reason: "gRPC wants it; in HTTP/1.1 it is about one connection",
    },
    Allowance {
        steps: &[Step::Client],
        side: Side::Origin,
        what: "<framing>",
        holds: |http1, h2| (http1, h2) == ("none", "length 0"),
        reason: "the test's own client announces an empty body over HTTP/2 alone",
    },
    Allowance {
        steps: &[Step::Endpoint],
        side: Side::Origin,
        what: "<framing>",
        holds: |http1, h2| (http1, h2) == ("unknown length", "none"),
        reason: "a body of unknown length that turns out empty: HTTP/2 sends no piece of it",
    },
    Allowance {
        steps: &[Step::Client],
        side: Side::Client,
        what: "connection",
        holds: |http1, h2| ["close", "keep-alive"].contains(&http1) && h2.is_empty(),
        reason: "HTTP/2 has no such field (RFC 9113 section 8.2.2)",
    },
    Allowance {
        steps: &[Step::Endpoint],
        side: Side::Client,
        what: "connection",
        holds: |http1, h2| http1.is_empty() && h2 == "keep-alive",
        reason: "before HTTP/2 endpoints the engine writes HTTP/1.1 heads, and says what is the default",
    },
    Allowance {
        steps: &[Step::Client],
        side: Side::Client,
        what: "<trailers>",
        holds: |http1, h2| http1.is_empty() && !h2.is_empty(),
        reason: "trailers of HTTP/2 endpoints reach HTTP/2 clients; HTTP/1.1 clients did not ask for any",
    },
    Allowance {
        steps: &[Step::Endpoint],
        side: Side::Client,
        what: "<trailers>",
        holds: |http1, h2| http1.is_empty() && !h2.is_empty(),
        reason: "trailers of HTTP/1.1 endpoints end at the edge (RFC 9110 section 6.5.1)",
    },
];

fn is_id(one: &str, other: &str) -> bool {
    one != other && [one, other].iter().all(|id| id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn same_cookies(apart: &str, joined: &str) -> bool {
    let pairs = |cookies: &str| -> Vec<String> {
        let pairs = cookies.split(APART).flat_map(|line| line.split(';')).map(|pair| pair.trim().to_owned());
        pairs.filter(|pair| !pair.is_empty()).collect()
    };
    pairs(apart) == pairs(joined)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_hundred_requests_look_the_same_from_every_side() {
    run(1, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn many_requests_look_the_same_from_every_side() {
    run(seed(), amount("TIDEGATE_DRILL_CASES", 2_500) as u64).await;
}

async fn run(seed: u64, cases: u64) {
    let started = Instant::now();
    let (mut needed, mut wrong, mut sent, mut refused) = (BTreeSet::new(), BTreeMap::<String, usize>::new(), 0, 0);
    for first in (0..cases).step_by(BATCH as usize) {
        let batch = first..cases.min(first + BATCH);
        let views = Batch::start(seed).await.ask(batch.clone()).await;
        sent += views.len();
        refused += views.values().filter(|view| view.is_refused()).count();
        for id in batch {
            for (step, one, other) in pairs() {
                let (Some(one_view), Some(other_view)) = (views.get(&(id, one)), views.get(&(id, other))) else {
                    panic!("seed {seed}: case {id} was not asked")
                };
                for difference in one_view.differences(other_view) {
                    match allowance(step, &difference) {
                        Some(index) => drop(needed.insert(index)),
                        None => {
                            let place = format!("{one:?} and {other:?} differ in {difference}");
                            let count =
                                wrong.entry(format!("{step:?} {:?} {}", difference.side, difference.what)).or_default();
                            if *count < 3 {
                                say(format_args!("case {id} of seed {seed}, {}: {place}", Case::draw(seed, id)));
                            }
                            *count += 1;
                        }
                    }
                }
            }
        }
    }
    say(format_args!(
        "{sent} requests ({cases} cases) in {:.1?}, seed {seed}: {refused} refused, {} of {} allowances needed",
        started.elapsed(),
        needed.len(),
        ALLOWED.len()
    ));
    assert!(wrong.is_empty(), "seed {seed}: differences that nothing allows: {wrong:#?}");
    for (index, allowance) in ALLOWED.iter().enumerate() {
        let Allowance { steps, side, what, reason, .. } = allowance;
        assert!(needed.contains(&index), "never needed: {steps:?} {side:?} {what} ({reason})");
    }
}

fn allowance(step: Step, difference: &Difference) -> Option<usize> {
    ALLOWED.iter().position(|allowed| {
        let [one, other] = difference.values.each_ref().map(|value| value.as_deref().unwrap_or_default());
        let is_meant = allowed.side == difference.side && allowed.what == difference.what;
        is_meant && allowed.steps.contains(&step) && (allowed.holds)(one, other)
    })
}

/// From which client to which endpoint.
type Way = (usize, Endpoint);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Endpoint {
    Http1,
    H2,
}

/// Index in [`Kind::ALL`].
const HTTP1: usize = 0;
const HTTP1_TLS: usize = 1;
const H2C: usize = 2;
const H2_TLS: usize = 3;

/// Ways that differ in one thing.
fn pairs() -> Vec<(Step, Way, Way)> {
    let mut pairs = Vec::new();
    for endpoint in [Endpoint::Http1, Endpoint::H2] {
        pairs.push((Step::Tls, (HTTP1, endpoint), (HTTP1_TLS, endpoint)));
        pairs.push((Step::Tls, (H2C, endpoint), (H2_TLS, endpoint)));
        pairs.push((Step::Client, (HTTP1, endpoint), (H2C, endpoint)));
    }
    for kind in 0..Kind::ALL.len() {
        pairs.push((Step::Endpoint, (kind, Endpoint::Http1), (kind, Endpoint::H2)));
    }
    pairs
}

/// Two edges, one before each origin.
struct Batch {
    seed: u64,
    http1: (Recorder, Edge),
    h2: (H2Origin, Edge),
}

impl Batch {
    async fn start(seed: u64) -> Self {
        let recorder = Recorder::start(move |seen: &Seen| match request::number(seen.header("x-case")) {
            Some(id) => Case::draw(seed, id).answer.http1_steps(seen.line().starts_with("HEAD ")),
            None => Vec::new(),
        })
        .await;
        let origin = H2Origin::start(move |seen: &H2Seen| match request::number(seen.header("x-case")) {
            Some(id) => Reply::Answer(Case::draw(seed, id).answer.h2_answer(seen.method == "HEAD")),
            None => Reply::Stall,
        })
        .await;
        let site = |server: String, more: &str| {
            Site::proxy(&format!("servers: [{{ address: \"{server}\" }}]\n{more}")).and("logging: { access: off }")
        };
        let before_recorder = Edge::start(site(recorder.address().to_owned(), "")).await;
        let before_origin = Edge::start(site(origin.address().to_string(), "protocol: h2\n")).await;
        Self { seed, http1: (recorder, before_recorder), h2: (origin, before_origin) }
    }

    /// Sends each case all ways, and returns what was seen of each.
    async fn ask(self, ids: std::ops::Range<u64>) -> BTreeMap<(u64, Way), View> {
        let ids = Arc::new(std::sync::Mutex::new(ids));
        let mut clients = JoinSet::new();
        let ways = [(Endpoint::Http1, &self.http1.1), (Endpoint::H2, &self.h2.1)];
        for _ in 0..CLIENTS {
            let ways: Vec<(Way, Client)> = ways
                .iter()
                .flat_map(|(endpoint, edge)| {
                    Kind::ALL.into_iter().enumerate().map(|(index, kind)| ((index, *endpoint), edge.client(kind)))
                })
                .collect();
            clients.spawn(ask_in_turn(self.seed, ways, Arc::clone(&ids)));
        }
        let mut views = BTreeMap::new();
        while let Some(ended) = clients.join_next().await {
            views.extend(ended.expect("a client does not panic"));
        }
        for seen in self.http1.0.requests() {
            note(&mut views, seen.header("x-case"), Endpoint::Http1, |view| view.add_http1(&seen));
        }
        for seen in self.h2.0.requests() {
            note(&mut views, seen.header("x-case"), Endpoint::H2, |view| view.add_h2(&seen));
        }
        views
    }
}

fn note(views: &mut BTreeMap<(u64, Way), View>, name: Option<&str>, endpoint: Endpoint, add: impl FnOnce(&mut View)) {
    let way = name.and_then(|name| name.split_once('.')?.1.parse().ok()).expect("the clients name each request");
    let id = request::number(name).expect("the clients name each request");
    add(views.get_mut(&(id, (way, endpoint))).expect("only what was asked arrives"));
}

async fn ask_in_turn(
    seed: u64,
    ways: Vec<(Way, Client)>,
    ids: Arc<std::sync::Mutex<std::ops::Range<u64>>>,
) -> Vec<((u64, Way), View)> {
    let mut connections: BTreeMap<Way, Connection> = BTreeMap::new();
    let mut views = Vec::new();
    let next = || ids.lock().ok()?.next();
    while let Some(id) = next() {
        let case = Case::draw(seed, id);
        for (way, client) in &ways {
            let connection = match connections.remove(way).filter(|connection| !connection.is_closed()) {
                Some(open) => Ok(open),
                None => client.connect().await,
            };
            let answer = match connection {
                Ok(mut connection) => {
                    let answer = connection.send(case.ask(way.0)).await;
                    // An error of ours ends an HTTP/1.1 connection, which its client may not have noticed yet.
                    if answer
                        .as_ref()
                        .is_ok_and(|answer| answer.is_complete() && answer.header("x-tidegate-reason").is_none())
                    {
                        connections.insert(*way, connection);
                    }
                    answer
                }
                Err(error) => Err(error),
            };
            views.push(((id, *way), View::of_client(&answer)));
        }
    }
    views
}

/// Cases for one pair of edges; what they left is compared, and forgotten with them.
const BATCH: u64 = 500;
/// At once, each with a connection for each way.
const CLIENTS: usize = 8;
