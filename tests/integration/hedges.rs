//! Requests that go to a second endpoint when the first one is slow to answer.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_tests::{
    client::{Answer, Ask, Kind},
    edge::Edge,
    every_client,
    fault::{Fault, FaultProxy, Plan},
    ledger::Ledger,
    pattern::pattern,
    raw::Raw,
    recorder::{Recorder, Step},
    site::Site,
    wait::{wait_for, wait_until},
};

every_client! {
    a_slow_server_is_overtaken_and_let_go,
    a_server_that_is_a_little_slow_answers_all_the_same,
    a_post_is_never_hedged,
    a_body_that_is_at_hand_goes_to_both,
    a_budget_ends_hedges,
    a_server_that_is_full_is_not_waited_for,
    a_failure_waits_for_the_other_leg,
    when_both_legs_fail_tries_go_on_as_ever,
    a_server_that_hangs_is_found_out,
    a_client_that_leaves_ends_both_legs,
    a_deadline_ends_both_legs,
}

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";
const SLOW: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow";
/// So that idle connections are found again.
const ONE_SHARD: &str = "server: { shards: 1, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }";
const LOGGING: &str =
    "logging: { access: { to: \"@dir@/access.log\", format: \"$status $upstream_tries $upstream_addr\" } }";
const LIMIT: Duration = Duration::from_secs(10);
/// Longer than anything that must not wait for a slow server takes, and half of what that one takes.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(2);
/// For tests in which every request may be hedged.
const UNLIMITED: &str = "retry_budget: off";

/// A server that does nothing for a time, and then this.
async fn after(pause: Duration, answer: &[u8]) -> Recorder {
    let answer = answer.to_vec();
    Recorder::start(move |_| vec![Step::Pause(pause), Step::Send(answer.clone())]).await
}

async fn hung() -> Recorder {
    Recorder::start(|_| vec![Step::Stall]).await
}

/// An edge before these servers; `more` stands in the upstream beside them.
async fn edge_before(servers: &[&Recorder], more: &str) -> Edge {
    Edge::start(site(servers, more)).await
}

fn site<'a>(servers: impl IntoIterator<Item = &'a &'a Recorder>, more: &str) -> Site {
    let servers: Vec<_> =
        servers.into_iter().map(|server| format!("{{ address: \"{}\" }}", server.address())).collect();
    let app = format!("servers: [{}]\n{more}", servers.join(", "));
    let site = Site::proxy(&app).and(ONE_SHARD).and(LOGGING);
    // Otherwise a client of HTTP/1.1 that leaves looks like one that has only said all it had to say.
    ["plain", "h2c", "tls"].iter().fold(site, |site, listener| {
        site.replace(&format!("name: {listener},"), &format!("name: {listener}, half_close: abort,"))
    })
}

async fn timed(edge: &Edge, kind: Kind, ask: Ask) -> (Answer, Duration) {
    let asked = Instant::now();
    let answer = edge.client(kind).ask(ask).await;
    (answer, asked.elapsed())
}

/// Counters of hedges: won, lost, no endpoint, no budget. An answer is counted when it has been sent.
async fn hedges(edge: &Edge, expected: [u64; 4]) {
    let counted = async || {
        let metrics = edge.admin().metrics().await.expect("the admin endpoint answers");
        let value = |result: &str| {
            let name = format!("tidegate_upstream_hedges_total{{result=\"{result}\",upstream=\"app\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).expect("a counter")
        };
        ["won", "lost", "no_endpoint", "no_budget"].map(value)
    };
    let what = format!("hedges to be {expected:?}");
    wait_until(&what, LIMIT, async || (counted().await == expected).then_some(())).await;
}

async fn endpoint(edge: &Edge, server: &Recorder) -> Value {
    let status = edge.status().await;
    let all = status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|endpoint| endpoint["address"] == server.address());
    found.unwrap_or_else(|| panic!("no {} in {status:#}", server.address()))
}

/// Waits until nothing is under way at these servers.
async fn all_given_back(edge: &Edge, servers: &[&Recorder]) {
    for server in servers {
        wait_until("the end of a lease", LIMIT, async || {
            (endpoint(edge, server).await["in_flight"] == 0).then_some(())
        })
        .await;
    }
}

async fn all_closed(server: &Recorder, count: usize) {
    wait_for("closed connections", LIMIT, || {
        let connections = server.connections();
        (connections.len() >= count && connections.iter().all(|one| one.ended)).then_some(())
    })
    .await;
}

async fn a_slow_server_is_overtaken_and_let_go(kind: Kind) {
    let (slow, friendly) = (after(LATE, SLOW).await, Recorder::friendly().await);
    let more = format!(
        "retry: {{ hedge: 50ms }}\n{UNLIMITED}\nejection: {{ max_fails: 1 }}\nbreaker: {{ failures: 1, share: 1%, min_requests: 1 }}"
    );
    let edge = edge_before(&[&slow, &friendly], &more).await;
    let started = Instant::now();
    for _ in 0..12 {
        let (answer, took) = timed(&edge, kind, Ask::get("/")).await;
        answer.assert(200, b"ok\n");
        assert!(took < SOON, "{took:?}");
    }
    assert!(started.elapsed() < LATE, "the slow one has not answered by now: {:?}", started.elapsed());
    assert_eq!((slow.requests().len(), friendly.requests().len()), (6, 12));
    hedges(&edge, [6, 0, 0, 0]).await;
    let found = endpoint(&edge, &slow).await;
    assert_eq!((&found["overtaken"], &found["failures"], &found["state"]), (&6.into(), &0.into(), &"ready".into()));
    assert_eq!(edge.status().await["upstreams"][0]["breaker"]["state"], "closed");
    all_given_back(&edge, &[&slow, &friendly]).await;
    assert_eq!(slow.connections().len(), 6, "none of them carries another request");
    all_closed(&slow, 6).await;
    let (log, second) = (edge.home().path().join("access.log"), format!("200 2 {}", friendly.address()));
    wait_for("the access log", LIMIT, || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        (log.lines().filter(|line| **line == second).count() == 6).then_some(())
    })
    .await;
}

async fn a_server_that_is_a_little_slow_answers_all_the_same(kind: Kind) {
    let (slow, hung) = (after(Duration::from_millis(300), SLOW).await, hung().await);
    let edge = edge_before(&[&slow, &hung], &format!("retry: {{ hedge: 50ms }}\n{UNLIMITED}")).await;
    let (answer, took) = timed(&edge, kind, Ask::get("/")).await;
    answer.assert(200, b"slow");
    assert!(took < LATE, "{took:?}");
    hedges(&edge, [0, 1, 0, 0]).await;
    all_closed(&hung, 1).await;
    let first = format!("200 2 {}", slow.address());
    let log = edge.home().path().join("access.log");
    wait_for("the access log", LIMIT, || {
        std::fs::read_to_string(&log).unwrap_or_default().lines().any(|line| line == first).then_some(())
    })
    .await;
    assert_eq!(slow.connections().iter().filter(|one| one.ended).count(), 0, "the winner's connection is kept");
}

async fn a_post_is_never_hedged(kind: Kind) {
    let ledger = Ledger::open().await;
    let slow = FaultProxy::start(ledger.address()).await;
    slow.set(Some(Plan::answer(0, Fault::Delay(Duration::from_millis(300)))));
    let servers = format!("servers: [{{ address: \"{}\" }}, {{ address: \"{}\" }}]", slow.address(), ledger.address());
    let more = "retry: { hedge: 20ms }\nidle_connections: 0\nretry_budget: off";
    let site = Site::proxy(&format!("{servers}\n{more}")).and(ONE_SHARD);
    // What is at hand whole could be sent twice.
    let edge = Edge::start(site.replace("proxy: app }", "proxy: app, buffer: { request: 1m } }")).await;
    for number in 0..8 {
        let (entry, ask) = if number < 4 { ledger.post(2_000, 1_000) } else { ledger.get(1_000) };
        let answer = edge.client(kind).send(ask).await;
        ledger.close(&entry, &answer);
    }
    ledger.report().assert_clean();
    hedges(&edge, [2, 0, 0, 0]).await;
}

async fn a_body_that_is_at_hand_goes_to_both(kind: Kind) {
    let (slow, friendly) = (after(LATE, SLOW).await, Recorder::friendly().await);
    let more = format!("retry: {{ hedge: 50ms }}\n{UNLIMITED}");
    let buffered = site(&[&slow, &friendly], &more).replace("proxy: app }", "proxy: app, buffer: { request: 4m } }");
    let edge = Edge::start(buffered.replace("path: /,", "path: /, max_body: 4m,")).await;
    // From memory, and from a file.
    for size in [0, 3_000, 700_000] {
        for _ in 0..2 {
            let path = format!("/{size}");
            let ask = Ask::new("PUT", &path).body(http_body_util::Full::from(pattern(size)));
            let (answer, took) = timed(&edge, kind, ask).await;
            answer.assert(200, b"ok\n");
            assert!(took < SOON, "{size} bytes: {took:?}");
        }
    }
    for server in [&slow, &friendly] {
        for seen in server.requests() {
            let size: usize = seen.target()[1..].parse().expect("a size");
            assert!(seen.body == pattern(size), "{size} bytes, of which {} came", seen.body.len());
        }
    }
    assert_eq!((slow.requests().len(), friendly.requests().len()), (3, 6));
    // One that is passed on as it comes is not held anywhere.
    let slow = after(Duration::from_millis(300), SLOW).await;
    let edge = edge_before(&[&slow, &friendly], &more).await;
    let ask = Ask::new("PUT", "/800000").body(http_body_util::Full::from(pattern(800_000)));
    timed(&edge, kind, ask).await.0.assert(200, b"slow");
    hedges(&edge, [0; 4]).await;
}

async fn a_budget_ends_hedges(kind: Kind) {
    let (slow, friendly) = (after(Duration::from_millis(300), SLOW).await, Recorder::friendly().await);
    let more = "retry: { hedge: 50ms }\nretry_budget: { share: 0%, floor: 1 per 10s }";
    let edge = edge_before(&[&slow, &friendly], more).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        let (answer, _) = timed(&edge, kind, Ask::get("/")).await;
        answers.push(answer.text());
    }
    assert_eq!(answers, ["ok\n", "ok\n", "slow", "ok\n", "slow", "ok\n"]);
    hedges(&edge, [1, 0, 0, 2]).await;
    let denied = "tidegate_upstream_retries_denied_total{reason=\"budget\",upstream=\"app\"} 0";
    let metrics = edge.admin().metrics().await.expect("the admin endpoint answers");
    assert!(metrics.lines().any(|line| line == denied), "a hedge is no retry: {metrics}");
}

async fn a_server_that_is_full_is_not_waited_for(kind: Kind) {
    let (slow, hung) = (after(Duration::from_millis(300), SLOW).await, hung().await);
    let more = "retry: { hedge: 50ms, try_timeout: off }\nmax_in_flight_per_endpoint: 1";
    let edge = edge_before(&[&slow, &hung], &format!("{more}\n{UNLIMITED}")).await;
    timed(&edge, kind, Ask::get("/")).await.0.assert(200, b"slow");
    hedges(&edge, [0, 1, 0, 0]).await;
    // The second server has a request that it never answers.
    let client = edge.client(kind);
    let held = tokio::spawn(async move { client.send(Ask::post("/held", "x")).await });
    wait_until("a busy server", LIMIT, async || (endpoint(&edge, &hung).await["in_flight"] == 1).then_some(())).await;
    timed(&edge, kind, Ask::get("/")).await.0.assert(200, b"slow");
    hedges(&edge, [0, 1, 1, 0]).await;
    let queue = edge.status().await["upstreams"][0]["queue"].clone();
    assert_eq!((&queue["waiting"], &queue["peak"], &queue["full"]), (&0.into(), &0.into(), &0.into()), "{queue}");
    held.abort();
}

async fn a_failure_waits_for_the_other_leg(kind: Kind) {
    // The hedge fails at once, in whichever way, and the first leg answers in its time.
    for (what, steps) in [
        ("a status that is tried again", vec![Step::Send(BUSY.to_vec())]),
        ("a close", vec![Step::Close]),
        ("nonsense", vec![Step::Send(b"nonsense\r\n\r\n".to_vec())]),
    ] {
        let slow = after(Duration::from_millis(300), SLOW).await;
        let broken = Recorder::start(move |_| steps.clone()).await;
        let more = format!("retry: {{ hedge: 50ms, on: [connect, closed, 503] }}\n{UNLIMITED}");
        let edge = edge_before(&[&slow, &broken], &more).await;
        let (answer, _) = timed(&edge, kind, Ask::get("/")).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"slow"[..]), "{what}");
        hedges(&edge, [0, 1, 0, 0]).await;
        all_given_back(&edge, &[&slow, &broken]).await;
        let failures = u64::from(what != "a status that is tried again");
        assert_eq!(endpoint(&edge, &broken).await["failures"], failures, "{what}");
    }
    // The first leg fails, and the hedge is there already.
    let closes = Recorder::start(|_| vec![Step::Pause(Duration::from_millis(200)), Step::Close]).await;
    let slow = after(Duration::from_millis(300), SLOW).await;
    let edge = edge_before(&[&closes, &slow], &format!("retry: {{ hedge: 50ms }}\n{UNLIMITED}")).await;
    timed(&edge, kind, Ask::get("/")).await.0.assert(200, b"slow");
    hedges(&edge, [1, 0, 0, 0]).await;
}

async fn when_both_legs_fail_tries_go_on_as_ever(kind: Kind) {
    let pause = Duration::from_millis(150);
    for (tries, count, status) in [(2, 3, 503), (3, 3, 200), (3, 2, 503)] {
        let (one, other, friendly) = (after(pause, BUSY).await, after(pause, BUSY).await, Recorder::friendly().await);
        let more = format!("retry: {{ hedge: 50ms, on: [503], tries: {tries} }}\n{UNLIMITED}");
        let edge = edge_before(&[&one, &other, &friendly][..count], &more).await;
        let (answer, _) = timed(&edge, kind, Ask::get("/")).await;
        assert_eq!(answer.status.as_u16(), status, "{tries} tries before {count} servers");
        assert_eq!((one.requests().len(), other.requests().len()), (1, 1));
        assert_eq!(friendly.requests().len(), usize::from(status == 200));
        // Without a third server to ask, the second one's answer is passed on.
        hedges(&edge, if status == 200 { [0, 1, 0, 0] } else { [1, 0, 0, 0] }).await;
        all_given_back(&edge, &[&one, &other]).await;
    }
    // Both close.
    let closing = || vec![Step::Pause(Duration::from_millis(150)), Step::Close];
    let (one, other) = (Recorder::start(move |_| closing()).await, Recorder::start(move |_| closing()).await);
    let edge = edge_before(&[&one, &other], &format!("retry: {{ hedge: 50ms }}\n{UNLIMITED}")).await;
    let (answer, _) = timed(&edge, kind, Ask::get("/")).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (502, Some("upstream_closed")));
    assert_eq!((one.requests().len(), other.requests().len()), (1, 1));
}

async fn a_server_that_hangs_is_found_out(kind: Kind) {
    let (stuck, friendly) = (hung().await, Recorder::friendly().await);
    let more = format!("retry: {{ hedge: 20ms, try_timeout: 300ms }}\n{UNLIMITED}");
    let edge = edge_before(&[&stuck, &friendly], &more).await;
    let found = wait_until("the hung server to be left alone", LIMIT, async || {
        let (answer, took) = timed(&edge, kind, Ask::get("/")).await;
        answer.assert(200, b"ok\n");
        assert!(took < SOON, "{took:?}");
        let found = endpoint(&edge, &stuck).await;
        (found["state"] == "ejected").then_some(found)
    })
    .await;
    assert_eq!(found["ejected"]["reason"], "3 failures, last: no answer in time", "{found}");
    assert!(found["overtaken"].as_u64() >= Some(3), "each by itself was none: {found}");
}

async fn a_client_that_leaves_ends_both_legs(kind: Kind) {
    let (one, other) = (hung().await, hung().await);
    let edge = edge_before(&[&one, &other], &format!("retry: {{ hedge: 20ms, try_timeout: off }}\n{UNLIMITED}")).await;
    let client = edge.client(kind);
    let asking = tokio::spawn(async move { client.send(Ask::get("/")).await });
    for server in [&one, &other] {
        server.requests_at_least(1).await;
    }
    asking.abort();
    all_given_back(&edge, &[&one, &other]).await;
    for server in [&one, &other] {
        all_closed(server, 1).await;
        let found = endpoint(&edge, server).await;
        assert_eq!((&found["failures"], &found["overtaken"], &found["connections"]), (&0.into(), &0.into(), &0.into()));
    }
    hedges(&edge, [0, 1, 0, 0]).await;
}

/// An interim head is no answer: it is passed on, and the other leg may win all the same.
// Once: the client of HTTP/2 does not show interim heads.
#[tokio::test]
async fn interim_heads_come_through_a_race() {
    let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n";
    let hinting = Recorder::start(|_| {
        vec![
            Step::Send(hints.to_vec()),
            Step::Pause(Duration::from_millis(100)),
            Step::Send(hints.to_vec()),
            Step::Stall,
        ]
    })
    .await;
    let slow = after(Duration::from_millis(200), SLOW).await;
    let edge = edge_before(&[&hinting, &slow], &format!("retry: {{ hedge: 50ms }}\n{UNLIMITED}")).await;
    let mut client = Raw::connect(edge.address("plain")).await;
    client.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    for _ in 0..2 {
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 103 ") && head.contains("link: </style.css>"), "{head}");
    }
    let (head, body) = client.read_answer().await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body == b"slow", "{head}");
    hedges(&edge, [1, 0, 0, 0]).await;
}

/// A head that waits for its body is an answer.
// Once: it has nothing to do with the client.
#[tokio::test]
async fn who_has_begun_to_answer_is_not_overtaken() {
    let (head, body) = (&b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"[..], &b"slow"[..]);
    let steps = [Step::Send(head.to_vec()), Step::Pause(Duration::from_millis(200)), Step::Send(body.to_vec())];
    let halting = Recorder::start(move |_| steps.to_vec()).await;
    let hung = hung().await;
    // On a busy machine the head may be late; not every time.
    wait_until("an answer without a hedge", LIMIT, async || {
        let edge = edge_before(&[&halting, &hung], &format!("retry: {{ hedge: 30ms }}\n{UNLIMITED}")).await;
        timed(&edge, Kind::Http1, Ask::get("/")).await.0.assert(200, b"slow");
        let metrics = edge.admin().metrics().await.expect("the admin endpoint answers");
        let none = "tidegate_upstream_retries_total{reason=\"hedge\",upstream=\"app\"} 0";
        metrics.lines().any(|line| line == none).then_some(())
    })
    .await;
}

async fn a_deadline_ends_both_legs(kind: Kind) {
    let (one, other) = (hung().await, hung().await);
    let more = format!("retry: {{ hedge: 20ms }}\n{UNLIMITED}");
    let edge = Edge::start(site(&[&one, &other], &more).replace("proxy: app }", "proxy: app, deadline: 400ms }")).await;
    let (answer, took) = timed(&edge, kind, Ask::get("/")).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (504, Some("deadline")));
    assert!(took >= Duration::from_millis(390) && took < LATE, "{took:?}");
    assert_eq!((one.requests().len(), other.requests().len()), (1, 1));
    all_given_back(&edge, &[&one, &other]).await;
    for server in [&one, &other] {
        all_closed(server, 1).await;
    }
}
