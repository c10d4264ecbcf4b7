//! What is tried again, what never is, and how long a request may take in all.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use tidegate_tests::{
    client::{Answer, Ask, Kind},
    edge::Edge,
    every_client,
    h2_origin::{Break, H2Answer, H2Origin, H2Seen, Reply},
    pattern::pattern,
    recorder::{OK, Recorder, Step},
    site::{Site, free_port},
    wait::{wait_for, wait_until},
    websocket::WebSocket,
};

every_client! {
    an_answer_gives_way_to_another_try,
    the_last_answer_is_passed_on,
    a_post_is_answered_as_it_was,
    what_could_not_be_delivered_goes_elsewhere_whole,
    a_server_that_hangs_costs_one_try,
    an_endpoint_is_asked_again_after_a_wait,
    an_endpoint_says_when,
    an_answer_that_is_none_is_tried_again_where_asked_for,
    a_deadline_ends_the_wait_for_an_answer,
    a_deadline_breaks_an_answer_off,
    http2_endpoints_give_way_too,
    http2_endpoints_are_asked_again_after_a_wait,
    a_body_goes_to_another_http2_endpoint_whole,
    a_call_that_ended_at_once_is_made_again,
    a_client_that_leaves_before_the_next_try_ends_it,
    a_deadline_holds_for_http2_endpoints,
}

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nx-from: origin\r\n\r\nbusy";
/// So that idle connections are found again.
const ONE_SHARD: &str = "server: { shards: 1, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }";
const LOGGING: &str =
    "logging: { access: { to: \"@dir@/access.log\", format: \"$status $upstream_tries $upstream_addr $reason\" } }";
const LIMIT: Duration = Duration::from_secs(10);

fn answering(answer: impl Into<Vec<u8>>) -> Vec<Step> {
    vec![Step::Send(answer.into())]
}

/// An address that refuses connections.
fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port(&Default::default())).into()
}

/// An edge before these servers; `more` stands in the upstream beside them.
async fn edge_before<A: ToString>(servers: &[A], more: &str) -> Edge {
    let servers: Vec<String> =
        servers.iter().map(|server| format!("{{ address: \"{}\" }}", server.to_string())).collect();
    let app = format!("servers: [{}]\n{more}", servers.join(", "));
    Edge::start(Site::proxy(&app).and(ONE_SHARD).and(LOGGING)).await
}

fn reason(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status.as_u16(), answer.header("x-tidegate-reason"))
}

/// The value of a counter, 0 where it is not there.
async fn metric(edge: &Edge, name: &str) -> u64 {
    let metrics = edge.admin().metrics().await.expect("the admin endpoint answers");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.unwrap_or(0)
}

async fn retries(edge: &Edge, reason: &str) -> u64 {
    metric(edge, &format!("tidegate_upstream_retries_total{{reason=\"{reason}\",upstream=\"app\"}}")).await
}

async fn an_answer_gives_way_to_another_try(kind: Kind) {
    let (busy, friendly) = (Recorder::start(|_| answering(BUSY)).await, Recorder::friendly().await);
    let edge = edge_before(&[busy.address(), friendly.address()], "retry: { on: [503] }").await;
    for _ in 0..8 {
        edge.client(kind).get("/").await.assert(200, b"ok\n");
    }
    assert_eq!((busy.requests().len(), friendly.requests().len()), (4, 8), "in turn, and every refused one again");
    assert_eq!(busy.connections().len(), 1, "an answer that was there whole leaves its connection in order");
    assert_eq!(retries(&edge, "status").await, 4);
    let log = edge.home().path().join("access.log");
    wait_for("the access log", LIMIT, || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let second = format!("200 2 {} -", friendly.address());
        (log.lines().filter(|line| **line == second).count() == 4).then_some(())
    })
    .await;
}

async fn the_last_answer_is_passed_on(kind: Kind) {
    let both = [Recorder::start(|_| answering(BUSY)).await, Recorder::start(|_| answering(BUSY)).await];
    let seen = || both[0].requests().len() + both[1].requests().len();
    for (count, more, tries) in [
        (2, "retry: { on: [503] }", 2),
        (2, "retry: { on: [503], tries: 4 }", 2),
        (1, "retry: { on: [503] }", 1),
        (2, "retry: { on: [502] }", 1),
        (2, "retry: off", 1),
        (2, "retry: { on: [503] }\nretry_budget: { share: 0%, floor: 1/d }", 1),
    ] {
        let before = seen();
        let addresses: Vec<_> = both[..count].iter().map(Recorder::address).collect();
        let edge = edge_before(&addresses, more).await;
        let answer = edge.client(kind).get("/").await;
        answer.assert(503, b"busy");
        assert_eq!((answer.header("x-from"), reason(&answer).1), (Some("origin"), None), "{more}");
        assert_eq!(seen() - before, tries, "{more}");
    }
}

async fn a_post_is_answered_as_it_was(kind: Kind) {
    let busy = [Recorder::start(|_| answering(BUSY)).await, Recorder::start(|_| vec![Step::Close]).await];
    let edge = edge_before(
        &[busy[0].address(), busy[1].address()],
        "retry: { on: [connect, closed, invalid, 503], tries: 9, backoff: {} }",
    )
    .await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(edge.client(kind).ask(Ask::post("/", "x")).await.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [502, 502, 503, 503]);
    assert_eq!(busy[0].requests().len() + busy[1].requests().len(), 4, "each POST was sent once");
}

async fn what_could_not_be_delivered_goes_elsewhere_whole(kind: Kind) {
    let origin = Recorder::friendly().await;
    let servers = [nobody().to_string(), nobody().to_string(), origin.address().to_owned()];
    let edge = edge_before(&servers, "retry: { tries: 1 }").await;
    for size in [0, 1, 1_000, 60_000, 600_000] {
        let (path, body) = (format!("/{size}"), pattern(size));
        edge.client(kind).ask(Ask::post(&path, body.clone())).await.assert(200, b"ok\n");
        let seen = origin.requests();
        let seen: Vec<_> = seen.iter().filter(|seen| seen.target() == path).collect();
        assert!(seen.len() == 1 && seen[0].body == body, "{size} bytes: {}", seen.len());
    }
    assert!(retries(&edge, "connect").await > 0);
    let edge = edge_before(&servers[..2], "retry: off").await;
    assert_eq!(reason(&edge.client(kind).ask(Ask::post("/", "x")).await), (502, Some("connect_failed")));
    assert_eq!(retries(&edge, "connect").await, 0, "not even where nothing was received");
}

async fn a_server_that_hangs_costs_one_try(kind: Kind) {
    let (hung, friendly) = (Recorder::start(|_| vec![Step::Stall]).await, Recorder::friendly().await);
    let more = "retry: { try_timeout: 300ms }\ntimeouts: { head: 1500ms }";
    let edge = edge_before(&[hung.address(), friendly.address()], more).await;
    let mut slow = 0;
    for _ in 0..4 {
        let asked = Instant::now();
        edge.client(kind).get("/").await.assert(200, b"ok\n");
        let took = asked.elapsed();
        slow += usize::from(took >= Duration::from_millis(290));
        assert!(took < Duration::from_millis(1_200), "{took:?}");
    }
    assert_eq!((slow, retries(&edge, "timeout").await), (2, 2));
    // What cannot be sent twice has the time of any answer.
    let mut refused = 0;
    for _ in 0..2 {
        let asked = Instant::now();
        let answer = edge.client(kind).ask(Ask::post("/", "x")).await;
        if answer.status == 504 {
            refused += 1;
            assert!(asked.elapsed() >= Duration::from_millis(1_490), "{:?}", asked.elapsed());
        }
    }
    assert_eq!((refused, retries(&edge, "timeout").await), (1, 2));
    // And so has what has nowhere else to go.
    let late = Recorder::start(|_| vec![Step::Pause(Duration::from_millis(600)), Step::Send(OK.into())]).await;
    let edge = edge_before(&[late.address()], more).await;
    edge.client(kind).get("/").await.assert(200, b"ok\n");
}

async fn an_endpoint_is_asked_again_after_a_wait(kind: Kind) {
    let asked = AtomicUsize::new(0);
    let origin = Recorder::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => vec![Step::Close],
        1 => answering(BUSY),
        _ => answering(OK),
    })
    .await;
    let more = "retry: { tries: 3, on: [closed, 503], backoff: { base: 20ms, max: 40ms } }";
    let edge = edge_before(&[origin.address()], more).await;
    edge.client(kind).get("/").await.assert(200, b"ok\n");
    assert_eq!(origin.requests().len(), 3);
    assert_eq!((retries(&edge, "closed").await, retries(&edge, "status").await), (1, 1));
    // An endpoint that comes back while a request waits for it.
    let server = nobody();
    let edge = edge_before(&[server], "retry: { tries: 10, backoff: { base: 300ms, max: 600ms } }").await;
    let client = edge.client(kind);
    let answer = tokio::spawn(async move { client.ask(Ask::post("/", "x")).await });
    let rounds = "tidegate_upstream_connections_failed_total{upstream=\"app\"}";
    let deadline = Instant::now() + LIMIT;
    while metric(&edge, rounds).await == 0 {
        assert!(Instant::now() < deadline, "no connect was tried");
    }
    let listener = tokio::net::TcpListener::bind(server).await.expect("the port is still free");
    let serving = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut read = vec![0; 4_096];
        let _ = stream.read(&mut read).await;
        stream.write_all(OK.as_bytes()).await.expect("the edge reads");
        let _ = stream.read(&mut read).await;
    });
    answer.await.expect("no panic").assert(200, b"ok\n");
    serving.abort();
}

async fn an_endpoint_says_when(kind: Kind) {
    let asked = AtomicUsize::new(0);
    let origin = Recorder::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => answering(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"),
        1 | 3 => answering(OK),
        // By the server's own clock, whatever ours says.
        2 => answering(
            b"HTTP/1.1 429 Too Many Requests\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            retry-after: Sun, 06 Nov 1994 08:49:38 GMT\r\ncontent-length: 0\r\n\r\n",
        ),
        _ => answering(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 9\r\ncontent-length: 4\r\n\r\nlate"),
    })
    .await;
    let edge = edge_before(&[origin.address()], "retry: { on: [429], backoff: {}, respect_retry_after: 2s }").await;
    for form in ["seconds", "a date"] {
        let started = Instant::now();
        edge.client(kind).get("/").await.assert(200, b"ok\n");
        assert!(started.elapsed() >= Duration::from_millis(990), "{form}: {:?}", started.elapsed());
    }
    let answer = edge.client(kind).get("/").await;
    answer.assert(429, b"late");
    assert_eq!(answer.header("retry-after"), Some("9"), "longer than the file allows, so the client decides");
    assert_eq!(origin.requests().len(), 5);
}

async fn an_answer_that_is_none_is_tried_again_where_asked_for(kind: Kind) {
    for (garbage, more, status) in [
        (&b"nonsense\r\n\r\n"[..], "", 502),
        (&b"nonsense\r\n\r\n"[..], "retry: { on: [invalid] }", 200),
        (&b"HTTP/1.1 200 OK\r\ncontent-le"[..], "", 502),
        (&b"HTTP/1.1 200 OK\r\ncontent-le"[..], "retry: { on: [invalid] }", 200),
    ] {
        let broken = Recorder::start(move |_| vec![Step::Send(garbage.to_vec()), Step::Close]).await;
        let friendly = Recorder::friendly().await;
        let edge = edge_before(&[broken.address(), friendly.address()], more).await;
        let mut worst = 200;
        for _ in 0..2 {
            worst = edge.client(kind).get("/").await.status.as_u16().max(worst);
        }
        assert_eq!(worst, status, "'{more}' after {}", String::from_utf8_lossy(garbage));
    }
}

/// Sites whose one route has a deadline of 400 ms.
fn site_with_deadline(upstreams: &str) -> Site {
    let logging = "logging: { access: { to: \"@dir@/access.log\", format: \"$status $reason\" } }";
    Site::usual("- { path: /, proxy: app, deadline: 400ms }", upstreams).and(logging)
}

async fn a_deadline_ends_the_wait_for_an_answer(kind: Kind) {
    let hung = [Recorder::start(|_| vec![Step::Stall]).await, Recorder::start(|_| vec![Step::Stall]).await];
    let servers =
        format!("servers: [{{ address: \"{}\" }}, {{ address: \"{}\" }}]", hung[0].address(), hung[1].address());
    let busy = Recorder::start(|_| answering(BUSY)).await;
    for (what, app) in [
        ("a silent endpoint", format!("app: {{ {servers} }}")),
        ("tries that time out", format!("app: {{ {servers}, retry: {{ try_timeout: 150ms, tries: 9 }} }}")),
        // The wait would pass the deadline, so that the answer is passed on at once.
        (
            "a wait",
            format!(
                "app: {{ servers: [{{ address: \"{}\" }}], retry: {{ on: [503], backoff: {{ base: 1h, max: 1h }} }} }}",
                busy.address()
            ),
        ),
    ] {
        let edge = Edge::start(site_with_deadline(&app)).await;
        for ask in [Ask::get("/"), Ask::post("/", "x")] {
            let asked = Instant::now();
            let answer = edge.client(kind).ask(ask).await;
            let took = asked.elapsed();
            if what == "a wait" {
                answer.assert(503, b"busy");
            } else {
                assert_eq!(reason(&answer), (504, Some("deadline")), "{what}");
                assert!(took >= Duration::from_millis(390), "{what}: {took:?}");
            }
            assert!(took < Duration::from_millis(1_500), "{what}: {took:?}");
        }
    }
}

async fn a_deadline_breaks_an_answer_off(kind: Kind) {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let origin = Recorder::start(|_| vec![Step::Send(half.to_vec()), Step::Stall]).await;
    let edge =
        Edge::start(site_with_deadline(&format!("app: {{ servers: [{{ address: \"{}\" }}] }}", origin.address())))
            .await;
    let asked = Instant::now();
    let answer = edge.client(kind).get("/").await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"half"[..]));
    assert!(!answer.is_complete());
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(390) && took < Duration::from_millis(1_500), "{took:?}");
    let log = edge.home().path().join("access.log");
    wait_for("the access log", LIMIT, || {
        std::fs::read_to_string(&log).unwrap_or_default().lines().any(|line| line == "200 deadline").then_some(())
    })
    .await;
    assert!(metric(&edge, "tidegate_refusals_total{reason=\"deadline\"}").await >= 1);
}

// Once: an upgrade is HTTP/1.1's alone.
#[tokio::test]
async fn a_websocket_has_no_deadline() {
    let edge = Edge::start(Site::demo_workers(1, &[]).replace("proxy: app", "proxy: app, deadline: 300ms")).await;
    edge.ready_workers("app", 1).await;
    let mut socket = WebSocket::connect(edge.client(Kind::Http1), "/ws").await.expect("a WebSocket");
    // The pause is what is tested.
    tokio::time::sleep(Duration::from_millis(700)).await;
    socket.assert_echo("still here").await;
}

// Once: the budget is the upstream's, and counts every client alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_ends_retries() {
    let (busy, friendly) = (Recorder::start(|_| answering(BUSY)).await, Recorder::friendly().await);
    let more = "retry: { on: [503] }\nretry_budget: { share: 10%, floor: 2 per 10s }";
    let edge = edge_before(&[busy.address(), friendly.address()], more).await;
    let client = edge.client(Kind::Http1);
    let mut answers = [0, 0];
    for _ in 0..100 {
        answers[usize::from(client.get("/").await.status == 503)] += 1;
    }
    let (made, denied) = (
        retries(&edge, "status").await,
        metric(&edge, "tidegate_upstream_retries_denied_total{reason=\"budget\",upstream=\"app\"}").await,
    );
    assert_eq!(busy.requests().len() as u64, made + answers[1] as u64, "each of them is tried again or passed on");
    // Two at once, and one for each ten requests; a slow machine may let the window move.
    assert!((8..=12).contains(&made), "{made} retries for a hundred requests");
    assert_eq!((answers[1], denied), (100 - answers[0], answers[1] as u64));
}

/// An edge before HTTP/2 servers; `more` stands in the upstream beside them.
async fn edge_before_h2(servers: &[SocketAddr], more: &str, route: &str) -> Edge {
    Edge::start(site_before_h2(servers, more, route)).await
}

fn site_before_h2(servers: &[SocketAddr], more: &str, route: &str) -> Site {
    let servers: Vec<String> = servers.iter().map(|address| format!("{{ address: \"{address}\" }}")).collect();
    let upstreams = format!("app: {{ protocol: h2, servers: [{}]{more} }}", servers.join(", "));
    Site::usual(&format!("- {{ path: /, proxy: app{route} }}"), &upstreams)
}

fn busy_h2() -> Reply {
    Reply::Answer(H2Answer::new(503).header("x-from", "origin").body("busy"))
}

async fn http2_endpoints_give_way_too(kind: Kind) {
    let (busy, friendly) = (H2Origin::start(|_| busy_h2()).await, H2Origin::named("second").await);
    let servers = [busy.address(), friendly.address()];
    let edge = edge_before_h2(&servers, ", retry: { on: [503] }", "").await;
    for _ in 0..4 {
        edge.client(kind).get("/").await.assert(200, b"second");
    }
    assert_eq!((busy.requests().len(), retries(&edge, "status").await), (2, 2));
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(edge.client(kind).ask(Ask::post("/", "x")).await.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503], "a POST is not sent twice");
    let edge = edge_before_h2(&servers[..1], ", retry: { on: [503] }", "").await;
    let answer = edge.client(kind).get("/").await;
    answer.assert(503, b"busy");
    assert_eq!((answer.header("x-from"), reason(&answer).1), (Some("origin"), None));
}

async fn http2_endpoints_are_asked_again_after_a_wait(kind: Kind) {
    let asked = AtomicUsize::new(0);
    let origin = H2Origin::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) % 3 {
        2 => Reply::Answer(H2Answer::new(200).body("third")),
        _ => busy_h2(),
    })
    .await;
    let more = ", retry: { on: [503], tries: 3, backoff: { base: 20ms } }";
    let edge = edge_before_h2(&[origin.address()], more, "").await;
    edge.client(kind).get("/").await.assert(200, b"third");
    assert_eq!(retries(&edge, "status").await, 2);
}

/// As long as the engine holds it.
async fn a_body_goes_to_another_http2_endpoint_whole(kind: Kind) {
    let (busy, echo) = (H2Origin::start(|_| busy_h2()).await, H2Origin::echo().await);
    let edge = edge_before_h2(&[busy.address(), echo.address()], ", retry: { on: [503] }", "").await;
    for (length, expected) in [(1, [200, 200]), (60_000, [200, 200]), (200_000, [200, 503])] {
        let mut statuses = [0; 2];
        for status in &mut statuses {
            let body = pattern(length);
            let answer = edge.client(kind).ask(Ask::put("/", body.clone())).await;
            assert!(answer.status == 503 || answer.body == body, "{length}");
            *status = answer.status.as_u16();
        }
        statuses.sort_unstable();
        assert_eq!(statuses, expected, "{length}");
    }
}

async fn a_call_that_ended_at_once_is_made_again(kind: Kind) {
    let ended = |code: &'static str| {
        move |_: &H2Seen| {
            let answer = H2Answer::new(200).header("content-type", "application/grpc");
            Reply::Answer(answer.header("grpc-status", code).header("grpc-message", "not now"))
        }
    };
    let echo = H2Origin::echo().await;
    let call = |length| Ask::post("/test.Echo/Each", pattern(length)).header("content-type", "application/grpc");
    for (code, retried) in [("14", true), ("13", false)] {
        let origin = H2Origin::start(ended(code)).await;
        let edge = edge_before_h2(&[origin.address(), echo.address()], ", retry: { grpc: [unavailable] }", "").await;
        for length in [5, 50_000] {
            let mut codes = Vec::new();
            for _ in 0..2 {
                let answer = edge.client(kind).ask(call(length)).await;
                match answer.header("grpc-status") {
                    Some(code) => codes.push(code.to_owned()),
                    None => answer.assert(200, &pattern(length)),
                }
            }
            assert_eq!(codes.len(), usize::from(!retried), "{code}, {length}: {codes:?}");
        }
        assert_eq!(retries(&edge, "grpc").await, if retried { 2 } else { 0 }, "{code}");
    }
    // The last answer is passed on as it is.
    let origin = H2Origin::start(ended("14")).await;
    let edge = edge_before_h2(&[origin.address()], ", retry: { grpc: [unavailable], backoff: {} }", "").await;
    let answer = edge.client(kind).ask(call(5)).await;
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, Some("14")));
    assert_eq!((answer.header("grpc-message"), origin.requests().len()), (Some("not now"), 2));
}

async fn a_client_that_leaves_before_the_next_try_ends_it(kind: Kind) {
    let busy = || Reply::Answer(H2Answer::new(503).header("retry-after", "8"));
    let retry = ", retry: { on: [503], backoff: {}, respect_retry_after: 1m }";
    for body in ["", "body"] {
        let origin = H2Origin::start(move |_| busy()).await;
        // Otherwise a client of HTTP/1.1 that leaves looks like one that has only said all it had to say.
        let site = ["plain", "h2c", "tls"].iter().fold(site_before_h2(&[origin.address()], retry, ""), |site, name| {
            site.replace(&format!("name: {name},"), &format!("name: {name}, half_close: abort,"))
        });
        let edge = Edge::start(site).await;
        let began = Instant::now();
        let client = edge.client(kind);
        let asking = tokio::spawn(async move { client.send(Ask::put("/", body)).await });
        origin.requests_at_least(1).await;
        asking.abort();
        let gone = "tidegate_refusals_total{reason=\"client_closed\"}";
        wait_until("its end", LIMIT, async || (metric(&edge, gone).await == 1).then_some(())).await;
        assert!(began.elapsed() < Duration::from_secs(7), "'{body}', not after the wait: {:?}", began.elapsed());
        assert_eq!(origin.requests().len(), 1);
    }
}

async fn a_deadline_holds_for_http2_endpoints(kind: Kind) {
    let hung = H2Origin::start(|_| Reply::Stall).await;
    let edge = edge_before_h2(&[hung.address()], "", ", deadline: 400ms").await;
    let asked = Instant::now();
    let answer = edge.client(kind).get("/").await;
    assert_eq!(reason(&answer), (504, Some("deadline")));
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(390) && took < Duration::from_millis(1_500), "{took:?}");
    let half = || Reply::Broken(H2Answer::new(200).header("content-length", "10").body("half"), Break::Stall);
    let origin = H2Origin::start(move |_| half()).await;
    let edge = edge_before_h2(&[origin.address()], "", ", deadline: 400ms").await;
    let asked = Instant::now();
    let answer = edge.client(kind).get("/").await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"half"[..]));
    assert!(!answer.is_complete());
    assert!(asked.elapsed() < Duration::from_millis(1_500), "{:?}", asked.elapsed());
}
