//! What endpoints and clients are told of times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    every_client,
    recorder::{OK, Recorder, Step},
    site::Site,
    wait::wait_for,
};

every_client! {
    workers_hear_when_a_request_began,
    what_waited_in_the_queue_is_counted_from_its_beginning,
}

/// Microseconds since 1970.
fn micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_micros()
}

async fn workers_hear_when_a_request_began(kind: Kind) {
    for (more, told) in [("", true), ("\nrequest_start: false", false)] {
        let app = format!("workers: {{ command: [\"@demo@\", --uds, \"{{socket}}\"], count: 1 }}{more}");
        let edge = Edge::start(Site::proxy(&app)).await;
        edge.ready_workers("app", 1).await;
        let before = micros();
        let facts = edge.client(kind).ask(Ask::get("/").header("X-Request-Start", "t=1")).await.json();
        let fields = facts["headers"].as_array().cloned().unwrap_or_default();
        let starts: Vec<_> = fields
            .iter()
            .filter(|pair| pair[0].as_str().is_some_and(|name| name.eq_ignore_ascii_case("x-request-start")))
            .filter_map(|pair| pair[1].as_str())
            .collect();
        match (told, starts[..].first().and_then(|value| value.strip_prefix("t=")?.parse::<u128>().ok())) {
            (true, Some(start)) => assert!(starts.len() == 1 && (before..=micros()).contains(&start), "{starts:?}"),
            (false, Some(1)) => assert_eq!(starts.len(), 1),
            _ => panic!("{starts:?}, {more}"),
        }
    }
}

async fn what_waited_in_the_queue_is_counted_from_its_beginning(kind: Kind) {
    const WORK: Duration = Duration::from_millis(500);
    let origin = Recorder::start(|seen| match seen.target() {
        "/slow" => vec![Step::Pause(WORK), Step::Send(OK.into())],
        _ => vec![Step::Send(OK.replacen("\r\n", "\r\nserver-timing: db;dur=1\r\n", 1).into())],
    })
    .await;
    let app = format!(
        "servers: [{{ address: \"{}\" }}]\nmax_in_flight: 1\nrequest_start: true\nserver_timing: true",
        origin.address()
    );
    let edge = Edge::start(Site::proxy(&app)).await;
    let client = edge.client(kind);
    let slow = tokio::spawn(async move { client.get("/slow").await });
    origin.requests_at_least(1).await;
    let before = micros();
    let answer = client.get("/").await;
    answer.assert(200, b"ok\n");
    let after = micros();
    slow.await.expect("no panic").assert(200, b"ok\n");
    let told: Vec<_> = answer.headers.get_all("server-timing").iter().filter_map(|value| value.to_str().ok()).collect();
    assert!(told.len() == 2 && told[0] == "db;dur=1", "{told:?}");
    let queued: f64 = told[1].strip_prefix("queue;dur=").and_then(|text| text.parse().ok()).expect("a number");
    let whole = Duration::from_micros((after - before) as u64).as_secs_f64() * 1_000.0;
    assert!(queued > 100.0 && queued <= whole, "{queued} ms of {whole} ms");
    let seen = wait_for("the request", Duration::from_secs(5), || {
        origin.requests().into_iter().find(|seen| seen.target() == "/")
    })
    .await;
    let start: u128 =
        seen.header("x-request-start").and_then(|value| value.strip_prefix("t=")?.parse().ok()).unwrap_or(0);
    let wait = (queued * 1_000.0) as u128;
    assert!((before..after - wait + 1_000).contains(&start), "{start} is after the wait, {before} to {after}");
}
