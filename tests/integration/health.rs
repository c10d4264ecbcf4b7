//! Endpoints that fail: they are left alone, for a reason that can be read, and come back.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tidegate_tests::{
    client::{Ask, Connection, Kind},
    edge::Edge,
    every_client,
    h2_origin::{H2Answer, H2Origin, Reason, Reply},
    process::{Signal, send_signal},
    recorder::{OK, Recorder, Step},
    site::{Site, free_port},
    wait::wait_until,
};

const LIMIT: Duration = Duration::from_secs(10);

every_client! {
    a_server_that_refuses_is_left_alone_until_it_is_back,
    a_server_that_hangs_is_left_alone,
    statuses_take_a_server_out_where_the_file_says_so,
    an_http2_server_is_held_to_the_same,
    a_breaker_opens_refuses_and_closes,
    a_breaker_opens_by_statuses_without_ejection,
}

/// A switch that an origin looks at with each request.
#[derive(Clone, Default)]
struct Sick(Arc<AtomicBool>);

impl Sick {
    fn set(&self, sick: bool) {
        self.0.store(sick, Ordering::SeqCst);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The usual site before these servers, `more` beside them in the upstream.
fn site(servers: &[SocketAddr], more: &str) -> Site {
    let servers: Vec<String> = servers.iter().map(|address| format!("{{ address: \"{address}\" }}")).collect();
    Site::proxy(&format!("servers: [{}]\n{more}", servers.join(", ")))
}

fn nobody() -> SocketAddr {
    ([127, 0, 0, 1], free_port(&Default::default())).into()
}

/// On one connection, so that every request meets the same shard.
async fn connect(edge: &Edge, kind: Kind) -> Connection {
    edge.client(kind).connect().await.expect("the edge listens")
}

/// So many requests that all get an answer of the healthy server.
async fn all_is_well(connection: &mut Connection, count: usize) {
    for _ in 0..count {
        connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"ok\n");
    }
}

/// What the status says of an endpoint.
async fn endpoint(edge: &Edge, address: SocketAddr) -> Value {
    let status = edge.status().await;
    let all = status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|endpoint| endpoint["address"] == address.to_string());
    found.unwrap_or_else(|| panic!("no {address} in {status:#}"))
}

async fn wait_for_state(edge: &Edge, address: SocketAddr, state: &str) -> Value {
    wait_until(&format!("{address} to be {state}"), LIMIT, async || {
        let found = endpoint(edge, address).await;
        (found["state"] == state).then_some(found)
    })
    .await
}

async fn metric(edge: &Edge, series: &str) -> Option<u64> {
    let metrics = edge.admin().metrics().await.expect("metrics");
    let line = metrics.lines().find(|line| line.starts_with(series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

async fn a_server_that_refuses_is_left_alone_until_it_is_back(kind: Kind) {
    let (well, away) = (Recorder::friendly().await, nobody());
    let edge = Edge::start(site(&[well.socket_address(), away], "ejection: { fail_timeout: 1s }")).await;
    let mut connection = connect(&edge, kind).await;
    let began = Instant::now();
    all_is_well(&mut connection, 30).await;
    let failed = metric(&edge, "tidegate_upstream_connections_failed_total").await;
    if began.elapsed() < Duration::from_secs(1) {
        assert_eq!(failed, Some(3), "three failures, and then it is left alone");
    }
    let status = edge.home().tidegate(&["status"]).await;
    let found = endpoint(&edge, away).await;
    if found["state"] == "ejected" {
        assert_eq!(found["ejected"]["reason"], "3 failures, last: connection refused or lost");
        assert!(status.stdout.contains(&format!("{away}: out since ")), "{}", status.stdout);
    }
    let series = "tidegate_upstream_ejections_total{reason=\"connect_failed\",upstream=\"app\"}";
    assert_eq!(metric(&edge, series).await, Some(1));
    edge.wait_for_message("endpoint taken out of service", LIMIT).await;
    // It is there from now on, and gets its share again when its time is over.
    let back = Recorder::start_at(away, |_| vec![Step::Send(OK.into())]).await;
    wait_until("the server that is back", LIMIT, async || {
        all_is_well(&mut connection, 2).await;
        (!back.requests().is_empty()).then_some(())
    })
    .await;
    edge.wait_for_message("endpoint back in service", LIMIT).await;
    assert_eq!(endpoint(&edge, away).await["state"], "ready");
    let told = edge.output().stderr().matches("endpoint taken out of service").count();
    assert_eq!(Some(told as u64), metric(&edge, series).await, "a line for each time, not for each request");
}

async fn a_server_that_hangs_is_left_alone(kind: Kind) {
    let (well, stuck) = (Recorder::friendly().await, Recorder::start(|_| vec![Step::Stall]).await);
    let more = "timeouts: { head: 100ms }";
    let edge = Edge::start(site(&[well.socket_address(), stuck.socket_address()], more)).await;
    let mut connection = connect(&edge, kind).await;
    all_is_well(&mut connection, 30).await;
    assert_eq!(stuck.requests().len(), 3, "three of fifteen, and then it is left alone");
    let found = wait_for_state(&edge, stuck.socket_address(), "ejected").await;
    assert_eq!(found["ejected"]["times"], 1);
    assert_eq!(found["ejected"]["reason"], "3 failures, last: no answer in time");
}

async fn statuses_take_a_server_out_where_the_file_says_so(kind: Kind) {
    let sick = Sick::default();
    let look = sick.clone();
    let answer = move || match look.is_set() {
        true => vec![Step::Send(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".into())],
        false => vec![Step::Send(OK.into())],
    };
    let (well, poor) = (Recorder::friendly().await, Recorder::start(move |_| answer()).await);
    sick.set(true);
    let servers = [well.socket_address(), poor.socket_address()];
    let mut edge = Edge::start(site(&servers, "")).await;
    let mut connection = connect(&edge, kind).await;
    let statuses = async |connection: &mut Connection, count: usize| {
        let mut seen = Vec::new();
        for _ in 0..count {
            seen.push(connection.send(Ask::get("/")).await.expect("an answer").status.as_u16());
        }
        seen.iter().filter(|status| **status == 500).count()
    };
    assert_eq!(statuses(&mut connection, 20).await, 10, "without a word the application's errors are its own");
    let rule = "ejection: { statuses: [500], fail_timeout: 1s }";
    let reloaded = edge.reload(&site(&servers, rule)).await;
    assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    let mut connection = connect(&edge, kind).await;
    assert_eq!(statuses(&mut connection, 6).await, 3);
    let found = wait_for_state(&edge, servers[1], "ejected").await;
    assert_eq!(found["ejected"]["reason"], "3 failures, last: status 500");
    sick.set(false);
    wait_for_state(&edge, servers[1], "ready").await;
    poor.forget();
    all_is_well(&mut connection, 6).await;
    assert_eq!(poor.requests().len(), 3);
}

async fn an_http2_server_is_held_to_the_same(kind: Kind) {
    let sick = Sick::default();
    let look = sick.clone();
    let well = || Reply::Answer(H2Answer::new(200).body("ok\n"));
    let poor =
        H2Origin::start(move |_| if look.is_set() { Reply::Refuse(Reason::INTERNAL_ERROR) } else { well() }).await;
    let (fine, away) = (H2Origin::start(move |_| well()).await, nobody());
    let rule = "protocol: h2\nejection: { fail_timeout: 1s, max_ejected: 70% }";
    let edge = Edge::start(site(&[fine.address(), poor.address(), away], rule)).await;
    let mut connection = connect(&edge, kind).await;
    // Who refuses connections never costs a client anything.
    all_is_well(&mut connection, 12).await;
    assert_eq!(endpoint(&edge, away).await["failures"], 3);
    sick.set(true);
    let mut failed = 0;
    for _ in 0..12 {
        // An HTTP/1 connection ends with a refusal.
        let answer = edge.client(kind).send(Ask::get("/")).await;
        failed += u32::from(answer.map_or(true, |answer| answer.status != 200));
    }
    assert_eq!(failed, 3, "three failures, and then it is left alone");
    let found = endpoint(&edge, poor.address()).await;
    assert_eq!(found["failures"], 3, "{found}");
    sick.set(false);
    wait_for_state(&edge, poor.address(), "ready").await;
    all_is_well(&mut connect(&edge, kind).await, 6).await;
}

async fn a_breaker_opens_refuses_and_closes(kind: Kind) {
    let sick = Sick::default();
    let look = sick.clone();
    let answer = move || if look.is_set() { vec![Step::Close] } else { vec![Step::Send(OK.into())] };
    let server = Recorder::start(move |_| answer()).await;
    let rule = "breaker: { failures: 3, cool_down: 1s, probes: 1, successes: 2 }";
    let edge = Edge::start(site(&[server.socket_address()], rule)).await;
    all_is_well(&mut connect(&edge, kind).await, 5).await;
    sick.set(true);
    for _ in 0..3 {
        let answer = edge.client(kind).get("/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (502, Some("upstream_closed")));
    }
    let refused = wait_until("the breaker to open", LIMIT, async || {
        let answer = edge.client(kind).get("/").await;
        (answer.header("x-tidegate-reason") == Some("breaker_open")).then_some(answer)
    })
    .await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
    let met = server.requests().len();
    assert_eq!(edge.client(kind).get("/").await.status, 503);
    assert_eq!(server.requests().len(), met, "nobody is sent");
    let status = edge.status().await["upstreams"][0]["breaker"].clone();
    assert_eq!(status["state"], "open", "{status}");
    assert_eq!(status["reason"], "3 failures in a row");
    assert!(metric(&edge, "tidegate_upstream_breaker_trips_total{upstream=\"app\"}").await >= Some(1));
    edge.wait_for_message("breaker open, requests are refused", LIMIT).await;
    sick.set(false);
    wait_until("the breaker to close", LIMIT, async || {
        edge.client(kind).get("/").await;
        (edge.status().await["upstreams"][0]["breaker"]["state"] == "closed").then_some(())
    })
    .await;
    assert_eq!(metric(&edge, "tidegate_upstream_breaker_state{upstream=\"app\"}").await, Some(0));
    all_is_well(&mut connect(&edge, kind).await, 5).await;
}

async fn a_breaker_opens_by_statuses_without_ejection(kind: Kind) {
    let server = Recorder::start(|_| vec![Step::Send(OK.replacen("200 OK", "503 Busy", 1).into())]).await;
    let rule = "ejection: off\nbreaker: { failures: 3 }";
    let edge = Edge::start(site(&[server.socket_address()], rule)).await;
    for _ in 0..3 {
        let answer = edge.client(kind).get("/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (503, None), "the server's own");
    }
    wait_until("the breaker to open", LIMIT, async || {
        let answer = edge.client(kind).get("/").await;
        (answer.header("x-tidegate-reason") == Some("breaker_open")).then_some(())
    })
    .await;
}

// Once: workers and their signals are the same for every client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_stopped_is_left_alone_until_it_goes_on() {
    let site = Site::demo_workers(2, &[])
        .replace("app:\n", "app:\n    timeouts: { head: 200ms }\n    ejection: { fail_timeout: 1s }\n");
    let edge = Edge::start(site).await;
    let workers = edge.ready_workers("app", 2).await;
    let client = edge.client(Kind::Http1);
    send_signal(workers[0].pid, Signal::SIGSTOP);
    let ejected = async || {
        assert_eq!(client.get("/").await.status, 200, "the other one answers");
        let status = edge.status().await;
        let all = status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|endpoint| endpoint["state"] == "ejected")
    };
    let found = wait_until("the worker to be left alone", LIMIT, ejected).await;
    assert_eq!(found["ejected"]["reason"], "3 failures, last: no answer in time", "{found}");
    send_signal(workers[0].pid, Signal::SIGCONT);
    let ready = async || {
        assert_eq!(client.get("/").await.status, 200);
        (edge.status().await["upstreams"][0]["state"] == "ready").then_some(())
    };
    wait_until("the worker to be back", LIMIT, ready).await;
}

// Once: readiness has no client.
#[tokio::test]
async fn the_last_server_stays_however_it_fails() {
    let edge = Edge::start(site(&[nobody()], "ejection: { max_fails: 1, max_ejected: 100% }")).await;
    for _ in 0..5 {
        let answer = edge.client(Kind::Http1).get("/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (502, Some("connect_failed")));
    }
    let ready = edge.admin().get("/readyz").await.expect("an answer");
    assert_eq!(ready.status, 200);
}
