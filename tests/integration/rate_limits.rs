//! How often a client may ask: the same for every client protocol, every kind of answer and every upstream protocol.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    edge::Edge,
    every_client,
    h2_origin::{H2Answer, H2Origin, Reply},
    raw::Raw,
    recorder::Recorder,
    site::Site,
    wait::wait_until,
};

use crate::vectors::origins;

every_client! {
    what_is_too_much_is_refused_with_a_time,
    what_is_ahead_of_the_rate_waits,
    routes_share_a_limit_by_name,
    levels_survive_a_reload,
    several_limits_must_all_admit,
    a_request_may_cost_more,
    clients_are_told_apart_by_what_they_send,
    who_is_allowed_is_never_limited,
    a_dry_run_refuses_nobody,
    every_answer_tells_what_is_left,
    requests_for_http2_servers_are_limited_too,
    a_refusal_has_the_form_that_suits_the_client,
    a_body_that_waits_arrives_whole,
}

/// The usual front with these limits and routes before one server.
fn site(limits: &str, routes: &str, server: &Recorder) -> Site {
    let app = format!("app: {{ servers: [{{ address: \"{}\" }}] }}", server.address());
    Site::usual(routes, &app).and(&format!("rate_limits:\n{limits}"))
}

async fn start(limits: &str, routes: &str) -> (Edge, Recorder) {
    let server = Recorder::friendly().await;
    (Edge::start(site(limits, routes, &server)).await, server)
}

async fn statuses(client: &Client, targets: &[&str]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for target in targets {
        statuses.push(client.get(target).await.status.as_u16());
    }
    statuses
}

/// What `/metrics` says of a limit, as `delayed rejected dry_run`.
async fn counted(edge: &Edge, limit: &str) -> String {
    let metrics = edge.admin().metrics().await.expect("metrics");
    let count = |result: &str| {
        let name = format!("tidegate_rate_limit_requests_total{{limit=\"{limit}\",result=\"{result}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("none").to_owned()
    };
    format!("{} {} {}", count("delayed"), count("rejected"), count("dry_run"))
}

async fn what_is_too_much_is_refused_with_a_time(kind: Kind) {
    let (edge, server) = start(
        "  few: { rate: 1/h, burst: 1, nodelay: true }",
        "- { path: /, rate_limit: few, proxy: app }\n- { path: /free, proxy: app }",
    )
    .await;
    let mut connection = edge.client(kind).connect().await.expect("the edge listens");
    for _ in 0..2 {
        connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"ok\n");
    }
    for _ in 0..3 {
        let refused = connection.send(Ask::get("/")).await.expect("an answer");
        assert_eq!((refused.status.as_u16(), refused.header("x-tidegate-reason")), (429, Some("rate_limited")));
        let after: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((3_590..=3_600).contains(&after), "{after}");
        assert!(refused.text().contains("too many requests"), "{}", refused.text());
    }
    connection.send(Ask::get("/free")).await.expect("the connection goes on").assert(200, b"ok\n");
    assert_eq!(server.requests().len(), 3, "the server is not asked");
    assert_eq!(counted(&edge, "few").await, "0 3 0");
    let status = edge.status().await;
    let limit = &status["rate_limits"][0];
    let shown = [&limit["name"], &limit["rate"], &limit["in_use"], &limit["rejected"]].map(ToString::to_string);
    assert_eq!(shown, ["\"few\"", "\"1 per 1h\"", "1", "3"]);
    let wait = Duration::from_secs(5);
    wait_until("the refusals in the access log", wait, async || {
        (edge.output().stdout().matches("\" 429 ").count() == 3).then_some(())
    })
    .await;
}

async fn what_is_ahead_of_the_rate_waits(kind: Kind) {
    let limits = "  paced: { rate: 4/s, burst: 2 }";
    let (edge, server) = start(limits, "- { path: /, rate_limit: paced, proxy: app }").await;
    let client = edge.client(kind);
    let begun = Instant::now();
    // Delays are whole milliseconds.
    for (number, least) in [0, 249, 499].into_iter().enumerate() {
        client.get("/").await.assert(200, b"ok\n");
        let passed = begun.elapsed();
        assert!(passed >= Duration::from_millis(least), "request {number} after {passed:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // All at once: the first of them is on time, or one place behind those before.
    let many = at_once(&client, 8).await;
    let refused = many.iter().filter(|answer| answer.status == 429).count();
    assert!((3..=6).contains(&refused), "{refused} of 8 are refused");
    assert_eq!(server.requests().len(), 3 + 8 - refused);
}

/// The answers to requests that begin together.
async fn at_once(client: &Client, count: usize) -> Vec<Answer> {
    let asked: Vec<_> = (0..count)
        .map(|_| {
            let client = *client;
            tokio::spawn(async move { client.get("/").await })
        })
        .collect();
    let mut answers = Vec::new();
    for one in asked {
        answers.push(one.await.expect("an answer"));
    }
    answers
}

async fn routes_share_a_limit_by_name(kind: Kind) {
    let (edge, _server) = start(
        "  one: { rate: 1/h }",
        "- { path: /a, rate_limit: one, proxy: app }\n- { path: /b, rate_limit: one, respond: { body: b } }\n\
         - { path: /c, rate_limit: { rate: 1/h }, proxy: app }\n- { path: /d, rate_limit: { rate: 1/h }, respond: {} }\n\
         - path: /in\n  rate_limit: { rate: 1/h }\n  routes:\n    - { path: /in/a, respond: {} }\n    \
         - { path: /in/b, respond: {} }\n    - { path: /in/c, rate_limit: off, respond: {} }",
    )
    .await;
    let client = edge.client(kind);
    assert_eq!(statuses(&client, &["/a", "/b", "/a", "/b"]).await, [200, 429, 429, 429]);
    assert_eq!(statuses(&client, &["/c", "/d", "/c", "/d"]).await, [200, 200, 429, 429]);
    assert_eq!(statuses(&client, &["/in/a", "/in/b", "/in/c", "/in/c"]).await, [200, 429, 200, 200]);
    assert_eq!(counted(&edge, "site main, route /in").await, "0 1 0");
}

async fn levels_survive_a_reload(kind: Kind) {
    let routes = "- { path: /a, rate_limit: one, proxy: app }\n- { path: /b, rate_limit: { rate: 1/h }, proxy: app }";
    let server = Recorder::friendly().await;
    let mut edge = Edge::start(site("  one: { rate: 1/h }", routes, &server)).await;
    let client = edge.client(kind);
    assert_eq!(statuses(&client, &["/a", "/a", "/b", "/b"]).await, [200, 429, 200, 429]);
    let reloaded = edge.reload(&site("  one: { rate: 2/h, status: 503 }", routes, &server)).await;
    assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    assert!(reloaded.stdout.contains("rate_limit one: rate: 1 per 1h -> 2 per 1h"), "{}", reloaded.stdout);
    assert_eq!(statuses(&client, &["/a", "/b"]).await, [503, 429]);
    assert_eq!(counted(&edge, "one").await, "0 2 0");
    let reloaded = edge.reload(&site("  one: { rate: 2/h, key: host }", routes, &server)).await;
    assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    assert_eq!(statuses(&client, &["/a", "/a"]).await, [200, 429], "another key is another account");
}

async fn several_limits_must_all_admit(kind: Kind) {
    let (edge, server) = start(
        "  many: { rate: 1/h, burst: 3, nodelay: true }\n  few: { rate: 1/h, burst: 1, nodelay: true }",
        "- { path: /both, rate_limit: [many, few], proxy: app }\n- { path: /other, rate_limit: [few, many], proxy: app }\n\
         - { path: /many, rate_limit: many, proxy: app }",
    )
    .await;
    let client = edge.client(kind);
    assert_eq!(statuses(&client, &["/both", "/other", "/both", "/other", "/both"]).await, [200, 200, 429, 429, 429]);
    // Two of the four are left: what the other limit refused is on no account.
    assert_eq!(statuses(&client, &["/many", "/many", "/many"]).await, [200, 200, 429]);
    assert_eq!(server.requests().len(), 4);
    assert_eq!((counted(&edge, "few").await.as_str(), counted(&edge, "many").await.as_str()), ("0 3 0", "0 1 0"));
}

async fn a_request_may_cost_more(kind: Kind) {
    let (edge, _server) = start(
        "  ten: { rate: 1/h, burst: 9, nodelay: true }",
        "- { path: /dear, rate_limit: [{ limit: ten, cost: 4 }], proxy: app }\n\
         - { path: /cheap, rate_limit: ten, proxy: app }",
    )
    .await;
    let client = edge.client(kind);
    let targets = ["/dear", "/dear", "/cheap", "/cheap", "/cheap", "/dear"];
    assert_eq!(statuses(&client, &targets).await, [200, 200, 200, 200, 429, 429]);
}

async fn clients_are_told_apart_by_what_they_send(kind: Kind) {
    let (edge, _server) = start(
        "  users: { rate: 1/h, key: [header:x-user-id, cookie:sid] }",
        "- { path: /, rate_limit: users, proxy: app }",
    )
    .await;
    let client = edge.client(kind);
    for (name, value, status) in [
        ("x-user-id", "ann", 200),
        ("x-user-id", "ann", 429),
        ("x-user-id", "bob", 200),
        ("cookie", "sid=ann", 200),
        ("cookie", "a=b; sid=ann", 429),
        ("x-other", "1", 200),
        ("x-other", "2", 429),
        ("x-user-id", "", 429),
    ] {
        let answer = client.ask(Ask::get("/").header(name, value)).await;
        assert_eq!(answer.status, status, "{name}: {value}");
    }
}

async fn who_is_allowed_is_never_limited(kind: Kind) {
    let (edge, _server) = start(
        "  ours: { rate: 1/h, allow: [10.0.0.0/8, loopback], headers: all }\n  theirs: { rate: 1/h, allow: [10.0.0.0/8] }",
        "- { path: /ours, rate_limit: ours, proxy: app }\n- { path: /theirs, rate_limit: theirs, proxy: app }",
    )
    .await;
    let client = edge.client(kind);
    assert_eq!(statuses(&client, &["/ours", "/ours", "/theirs", "/theirs"]).await, [200, 200, 200, 429]);
    assert_eq!(client.get("/ours").await.header("ratelimit"), None);
}

async fn a_dry_run_refuses_nobody(kind: Kind) {
    let (edge, server) =
        start("  trial: { rate: 1/h, burst: 1, dry_run: true }", "- { path: /, rate_limit: trial, proxy: app }").await;
    let client = edge.client(kind);
    assert_eq!(statuses(&client, &["/", "/", "/", "/"]).await, [200; 4]);
    assert_eq!(server.requests().len(), 4);
    assert_eq!(counted(&edge, "trial").await, "0 0 3");
}

async fn every_answer_tells_what_is_left(kind: Kind) {
    let server = Recorder::answering("HTTP/1.1 200 OK\r\nx-ratelimit-limit: 99\r\ncontent-length: 3\r\n\r\nok\n").await;
    let site = site(
        "  told: { rate: 1/h, burst: 2, nodelay: true, headers: all }",
        "- { path: /, rate_limit: told, proxy: app }\n- { path: /own, rate_limit: told, respond: { body: own } }\n\
         - { path: /free, proxy: app }",
        &server,
    );
    let edge = Edge::start(site).await;
    let client = edge.client(kind);
    for (target, left, reset) in [("/", 2, 3_600), ("/own", 1, 7_200), ("/", 0, 10_800), ("/", 0, 10_800)] {
        let answer = client.get(target).await;
        let field = |name: &str| answer.header(name).unwrap_or_default().to_owned();
        let number = |name: &str| field(name).parse::<u64>().unwrap_or(u64::MAX);
        assert_eq!(field("ratelimit-policy"), "\"told\";q=3;w=10800");
        assert_eq!((number("x-ratelimit-limit"), number("x-ratelimit-remaining")), (3, left), "{target}");
        assert!((reset - 30..=reset).contains(&number("x-ratelimit-reset")), "{}", field("x-ratelimit-reset"));
        assert_eq!(field("ratelimit"), format!("\"told\";r={left};t={}", number("x-ratelimit-reset")));
        assert_eq!(answer.headers.get_all("x-ratelimit-limit").iter().count(), 1, "the server's own is replaced");
    }
    let free = client.get("/free").await;
    assert_eq!((free.header("ratelimit"), free.header("x-ratelimit-limit")), (None, Some("99")));
}

async fn requests_for_http2_servers_are_limited_too(kind: Kind) {
    let server = H2Origin::start(|_| Reply::Answer(H2Answer::new(200).body("two"))).await;
    let site = Site::usual(
        "- { path: /, rate_limit: h2, proxy: app }\n- { path: /slow, rate_limit: { rate: 4/s, burst: 1 }, proxy: app }",
        &format!("app: {{ protocol: h2, servers: [{{ address: \"{}\" }}] }}", server.address()),
    )
    .and("rate_limits: { h2: { rate: 1/h, headers: legacy } }");
    let edge = Edge::start(site).await;
    let client = edge.client(kind);
    let answer = client.get("/").await;
    answer.assert(200, b"two");
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
    let refused = client.get("/").await;
    assert_eq!((refused.status.as_u16(), refused.header("x-ratelimit-remaining")), (429, Some("0")));
    let begun = Instant::now();
    assert_eq!(statuses(&client, &["/slow", "/slow"]).await, [200, 200]);
    assert!(begun.elapsed() >= Duration::from_millis(249), "{:?}", begun.elapsed());
    assert_eq!(server.requests().len(), 3);
}

async fn a_refusal_has_the_form_that_suits_the_client(kind: Kind) {
    let (edge, _server) = start("  one: { rate: 1/h }", "- { path: /, rate_limit: one, respond: {} }").await;
    let client = edge.client(kind);
    client.get("/").await.assert(200, b"");
    let json = client.ask(Ask::get("/").header("accept", "application/json")).await;
    assert_eq!(json.status, 429);
    let body = json.json();
    assert_eq!(
        (&body["status"], &body["reason"], &body["retryable"]),
        (&429.into(), &"rate_limited".into(), &true.into())
    );
    let call = client.ask(Ask::post("/", "").header("content-type", "application/grpc")).await;
    if kind.is_h2() {
        assert_eq!((call.status.as_u16(), call.header("grpc-status")), (200, Some("8")), "RESOURCE_EXHAUSTED");
        assert!(call.header("retry-after").is_some());
    } else {
        assert_eq!(call.status, 429);
    }
}

async fn a_body_that_waits_arrives_whole(kind: Kind) {
    let server = Recorder::friendly().await;
    let edge = Edge::start(site(
        "  paced: { rate: 4/s, burst: 9 }",
        "- { path: /, rate_limit: paced, max_body: 16MiB, proxy: app }\n\
         - { path: /held, rate_limit: paced, max_body: 16MiB, buffer: { request: on }, proxy: app }",
        &server,
    ))
    .await;
    let client = edge.client(kind);
    let body: Vec<u8> = (0..700_000_u32).map(|number| number as u8).collect();
    for target in ["/", "/held", "/"] {
        client.ask(Ask::post(target, body.clone())).await.assert(200, b"ok\n");
    }
    assert!(server.requests().iter().all(|seen| seen.body == body));
}

// Once: the end of a connection of HTTP/1.1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_waiting_asks_nobody() {
    let server = Recorder::friendly().await;
    let site = site("  slow: { rate: 30/m, burst: 5 }", "- { path: /, rate_limit: slow, proxy: app }", &server)
        .replace("name: plain,", "name: plain, half_close: abort,");
    let edge = Edge::start(site).await;
    edge.client(Kind::Http1).get("/").await.assert(200, b"ok\n");
    let mut leaving = Raw::connect(edge.address("plain")).await;
    leaving.send("GET /left HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
    wait_until("a request that waits", Duration::from_secs(5), async || {
        counted(&edge, "slow").await.starts_with('1').then_some(())
    })
    .await;
    leaving.reset();
    // It was due after two seconds, and this one is after four.
    edge.client(Kind::Http1).get("/next").await.assert(200, b"ok\n");
    let targets: Vec<_> = server.requests().iter().map(|seen| seen.target().to_owned()).collect();
    assert_eq!(targets, ["/", "/next"]);
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Served,
    Delayed,
    Refused,
}

use Fate::{Delayed, Refused, Served};

/// When requests come, in milliseconds, and what becomes of them at 150 in a minute with a burst of 2 of which one waits:
/// no decision is nearer than 100 ms to another one.
const ARRIVALS: [(u64, Fate); 10] = [
    (0, Served),
    (100, Served),
    (200, Delayed),
    (300, Refused),
    (600, Delayed),
    (700, Refused),
    (1_000, Delayed),
    (2_200, Served),
    (2_300, Served),
    (2_400, Delayed),
];

// Once: nginx and we decide by the times of arrival, whatever carries them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_decides_the_same() {
    let nginx = origins::nginx_limiting(
        "limit_req_zone $http_x_key zone=a:1m rate=150r/m;",
        "limit_req zone=a burst=2 delay=1; limit_req_status 429;",
    )
    .await;
    let (edge, _server) = start(
        "  a: { rate: 150r/m, burst: 2, delay: 1, key: header:x-key }",
        "- { path: /, rate_limit: a, respond: { body: \"ok\\n\" } }",
    )
    .await;
    let nginx = nginx.address.parse().expect("an address");
    for round in 0..5 {
        let key = format!("round-{round}");
        let (theirs, ours) = tokio::join!(pattern(nginx, &key), pattern(edge.address("plain"), &key));
        // A machine that was busy elsewhere has sent something else than the pattern: once more, with a key that is new.
        if let (Some(theirs), Some(ours)) = (theirs, ours) {
            let expected: Vec<Fate> = ARRIVALS.iter().map(|(_, fate)| *fate).collect();
            assert_eq!(theirs, expected, "nginx");
            assert_eq!(ours, expected, "tidegate");
            return;
        }
    }
    panic!("the machine was never at rest for three seconds");
}

/// Sends the pattern; `None` when it was late with a request.
async fn pattern(address: SocketAddr, key: &str) -> Option<Vec<Fate>> {
    let mut ready = Vec::new();
    for _ in ARRIVALS {
        ready.push(Raw::connect(address).await);
    }
    let begun = Instant::now();
    let asked: Vec<_> = ready
        .into_iter()
        .zip(ARRIVALS)
        .map(|(mut raw, (at, _))| {
            let request =
                format!("GET /file HTTP/1.1\r\nhost: test.example\r\nx-key: {key}\r\nconnection: close\r\n\r\n");
            tokio::spawn(async move {
                tokio::time::sleep_until((begun + Duration::from_millis(at)).into()).await;
                raw.send(request).await;
                let sent = Instant::now();
                let late = sent - begun > Duration::from_millis(at + 50);
                let status = tidegate_tests::raw::status(&raw.read_head().await);
                let fate = match (status, sent.elapsed().as_millis()) {
                    (429, _) => Refused,
                    (200, 0..100) => Served,
                    // 200 ms, whoever delays it.
                    (200, 100..400) => Delayed,
                    (status, took) => panic!("{status} after {took} ms"),
                };
                (!late).then_some(fate)
            })
        })
        .collect();
    let mut fates = Vec::new();
    for one in asked {
        fates.push(one.await.expect("an answer"));
    }
    fates.into_iter().collect()
}
