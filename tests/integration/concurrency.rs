//! How many requests of a client may be under way: the same for every client protocol and every upstream protocol.
//!
//! A request for `/stall` is under way until its client leaves.

use std::time::Duration;

use serde_json::Value;
use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    edge::Edge,
    every_client,
    h2_origin::{H2Answer, H2Origin, Reply},
    recorder::{OK, Recorder, Step},
    site::Site,
    wait::wait_until,
    websocket::WebSocket,
};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

every_client! {
    what_is_too_much_is_refused_until_a_request_ends,
    an_upload_is_under_way_from_its_head,
    several_limits_must_all_admit,
    routes_share_a_limit_by_name,
    what_is_under_way_counts_on_after_a_reload,
    a_dry_run_refuses_nobody,
    who_is_allowed_is_never_limited,
    a_refusal_has_the_form_that_suits_the_client,
}

const LIMIT: Duration = Duration::from_secs(10);

enum Server {
    Http1(Recorder),
    H2(H2Origin),
}

impl Server {
    const PROTOCOLS: [&str; 2] = ["http1", "h2"];

    /// Answers but for `/stall`.
    async fn start(protocol: &str) -> Self {
        if protocol == "h2" {
            let script = |path: &str| match path {
                "/stall" => Reply::Stall,
                _ => Reply::Answer(H2Answer::new(200).body("ok\n")),
            };
            return Self::H2(H2Origin::start(move |seen| script(&seen.path)).await);
        }
        let script = |target: &str| match target {
            "/stall" => vec![Step::Stall],
            _ => vec![Step::Send(OK.into())],
        };
        Self::Http1(Recorder::start(move |seen| script(seen.target())).await)
    }

    fn upstream(&self) -> String {
        match self {
            Self::Http1(server) => format!("app: {{ servers: [{{ address: \"{}\" }}] }}", server.address()),
            Self::H2(server) => format!("app: {{ protocol: h2, servers: [{{ address: \"{}\" }}] }}", server.address()),
        }
    }

    fn requests(&self) -> usize {
        match self {
            Self::Http1(server) => server.requests().len(),
            Self::H2(server) => server.requests().len(),
        }
    }
}

/// An edge before one server, all clients of one kind.
struct Scene {
    server: Server,
    edge: Edge,
    client: Client,
}

impl Scene {
    async fn start(kind: Kind, protocol: &str, limits: &str, routes: &str) -> Self {
        let server = Server::start(protocol).await;
        let edge = Edge::start(site(limits, routes, &server.upstream())).await;
        let client = edge.client(kind);
        Self { server, edge, client }
    }

    /// A request that is under way until it is aborted, on a connection of its own.
    async fn occupy(&self, user: &str) -> JoinHandle<Answer> {
        let before = self.server.requests();
        let (client, ask) = (self.client, Ask::get("/stall").header("x-user", user));
        let held = tokio::spawn(async move { client.send(ask).await.expect("an answer") });
        wait_until("a busy server", LIMIT, async || (self.server.requests() > before).then_some(())).await;
        held
    }

    async fn ask(&self, target: &str, user: &str) -> Answer {
        self.client.ask(Ask::get(target).header("x-user", user)).await
    }

    /// What status says of a limit.
    async fn limit(&self, name: &str) -> Value {
        let status = self.edge.status().await;
        let all = status["concurrency_limits"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|limit| limit["name"] == name).expect("the limit")
    }

    /// Waits for so many requests under way: an answer may be there a moment before its place is free.
    async fn under_way(&self, name: &str, count: u64) {
        let what = format!("{count} under way");
        wait_until(&what, LIMIT, async || (self.limit(name).await["in_flight"] == count).then_some(())).await;
    }

    /// What `/metrics` says of a limit, as `in_flight rejected dry_run`.
    async fn counted(&self, limit: &str) -> String {
        let metrics = self.edge.admin().metrics().await.expect("metrics");
        let count =
            |name: String| metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("none").to_owned();
        let requests = |result: &str| {
            count(format!("tidegate_concurrency_limit_requests_total{{limit=\"{limit}\",result=\"{result}\"}} "))
        };
        let in_flight = count(format!("tidegate_concurrency_limit_in_flight{{limit=\"{limit}\"}} "));
        format!("{in_flight} {} {}", requests("rejected"), requests("dry_run"))
    }
}

/// The usual front with these limits and routes.
fn site(limits: &str, routes: &str, upstream: &str) -> Site {
    let site = Site::usual(routes, upstream).and(&format!("concurrency_limits:\n{limits}"));
    // Otherwise a client of HTTP/1.1 that leaves looks like one that has only said all it had to say.
    ["plain", "h2c", "tls"].iter().fold(site, |site, listener| {
        site.replace(&format!("name: {listener},"), &format!("name: {listener}, half_close: abort,"))
    })
}

fn assert_refused(answer: &Answer, status: u16) {
    assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (status, Some("concurrency_limited")));
    assert_eq!((answer.header("retry-after"), answer.header("cache-control")), (Some("1"), Some("no-store")));
}

async fn what_is_too_much_is_refused_until_a_request_ends(kind: Kind) {
    for protocol in Server::PROTOCOLS {
        let limits = "  few: { max: 2, key: [header:x-user, client_address] }";
        let scene = Scene::start(kind, protocol, limits, "- { path: /, concurrency: few, proxy: app }").await;
        let first = scene.occupy("ann").await;
        let second = scene.occupy("ann").await;
        let refused = scene.ask("/", "ann").await;
        assert_refused(&refused, 503);
        assert!(refused.text().contains("too many requests at a time"), "{}", refused.text());
        scene.ask("/", "bob").await.assert(200, b"ok\n");
        scene.client.get("/").await.assert(200, b"ok\n");
        scene.under_way("few", 2).await;
        assert_eq!(scene.counted("few").await, "2 1 0", "{protocol}");
        let limit = scene.limit("few").await;
        let shown = [&limit["max"], &limit["clients"], &limit["rejected"]].map(ToString::to_string);
        assert_eq!(shown, ["2", "1", "1"]);
        // A client that leaves frees its place.
        first.abort();
        scene.under_way("few", 1).await;
        scene.ask("/", "ann").await.assert(200, b"ok\n");
        second.abort();
        scene.under_way("few", 0).await;
        assert_eq!(scene.limit("few").await["clients"], 0);
        assert_eq!(scene.server.requests(), 5, "the server does not see who is refused");
    }
}

async fn an_upload_is_under_way_from_its_head(kind: Kind) {
    for (protocol, buffer) in [("http1", "on"), ("http1", "off"), ("h2", "off")] {
        let routes = format!("- {{ path: /, concurrency: one, buffer: {{ request: {buffer} }}, proxy: app }}");
        let scene = Scene::start(kind, protocol, "  one: { max: 1 }", &routes).await;
        let (ask, body) = Ask::post_channel("/");
        let client = scene.client;
        let upload = tokio::spawn(async move { client.send(ask).await.expect("an answer") });
        scene.under_way("one", 1).await;
        assert_refused(&scene.client.get("/").await, 503);
        body.send("all".into()).await.expect("somebody takes it");
        drop(body);
        upload.await.expect("it was sent").assert(200, b"ok\n");
        scene.under_way("one", 0).await;
        scene.client.get("/").await.assert(200, b"ok\n");
    }
}

async fn several_limits_must_all_admit(kind: Kind) {
    let scene = Scene::start(
        kind,
        "http1",
        "  all: { max: 2 }\n  user: { max: 1, key: header:x-user, status: 429 }",
        "- { path: /, concurrency: [all, user], proxy: app }",
    )
    .await;
    let _ann = scene.occupy("ann").await;
    for _ in 0..3 {
        assert_refused(&scene.ask("/", "ann").await, 429);
    }
    // What one limit refused holds no place in the other.
    let _bob = scene.occupy("bob").await;
    assert_refused(&scene.ask("/", "cid").await, 503);
    assert_eq!((scene.counted("all").await, scene.counted("user").await), ("2 1 0".into(), "2 3 0".into()));
}

async fn routes_share_a_limit_by_name(kind: Kind) {
    let scene = Scene::start(
        kind,
        "http1",
        "  one: { max: 1 }",
        "- { path: /stall, concurrency: one, proxy: app }\n- { path: /b, concurrency: one, respond: {} }\n\
         - path: /in\n  concurrency: one\n  routes:\n    - { path: /in/a, respond: {} }\n    \
         - { path: /in/off, concurrency: off, respond: {} }\n    - { path: /in/own, concurrency: { max: 1 }, respond: {} }",
    )
    .await;
    let held = scene.occupy("ann").await;
    for (target, status) in [("/b", 503), ("/in/a", 503), ("/in/off", 200), ("/in/own", 200)] {
        assert_eq!(scene.client.get(target).await.status, status, "{target}");
    }
    assert_eq!(scene.counted("site main, route /in > /in/own").await.split_once(' ').expect("three").1, "0 0");
    held.abort();
    scene.under_way("one", 0).await;
    scene.client.get("/b").await.assert(200, b"");
}

async fn what_is_under_way_counts_on_after_a_reload(kind: Kind) {
    for protocol in Server::PROTOCOLS {
        let routes = "- { path: /, concurrency: one, proxy: app }";
        let mut scene = Scene::start(kind, protocol, "  one: { max: 1 }", routes).await;
        let held = scene.occupy("ann").await;
        let upstream = scene.server.upstream();
        let reloaded = scene.edge.reload(&site("  one: { max: 1, status: 429 }", routes, &upstream)).await;
        assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
        assert!(reloaded.stdout.contains("concurrency_limit one: status: 503 -> 429"), "{}", reloaded.stdout);
        assert_refused(&scene.client.get("/").await, 429);
        let reloaded = scene.edge.reload(&site("  one: { max: 2 }", routes, &upstream)).await;
        assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
        let second = scene.occupy("ann").await;
        assert_refused(&scene.client.get("/").await, 503);
        assert_eq!(scene.counted("one").await, "2 2 0");
        held.abort();
        second.abort();
        scene.under_way("one", 0).await;
    }
}

async fn a_dry_run_refuses_nobody(kind: Kind) {
    let limits = "  trial: { max: 1, dry_run: true }";
    let scene = Scene::start(kind, "http1", limits, "- { path: /, concurrency: trial, proxy: app }").await;
    let _held = scene.occupy("ann").await;
    for _ in 0..3 {
        scene.client.get("/").await.assert(200, b"ok\n");
    }
    assert_eq!(scene.counted("trial").await, "1 0 3");
}

async fn who_is_allowed_is_never_limited(kind: Kind) {
    let limits = "  ours: { max: 1, allow: [loopback] }";
    let scene = Scene::start(kind, "http1", limits, "- { path: /, concurrency: ours, proxy: app }").await;
    let _held = [scene.occupy("ann").await, scene.occupy("ann").await];
    scene.client.get("/").await.assert(200, b"ok\n");
    assert_eq!(scene.counted("ours").await, "0 0 0");
}

async fn a_refusal_has_the_form_that_suits_the_client(kind: Kind) {
    let routes = "- { path: /, concurrency: { max: 1, status: 429 }, proxy: app }";
    let scene = Scene::start(kind, "http1", "  {}", routes).await;
    let _held = scene.occupy("ann").await;
    let json = scene.client.ask(Ask::get("/").header("accept", "application/json")).await;
    assert_refused(&json, 429);
    let body = json.json();
    let told = (&body["status"], &body["reason"], &body["retryable"]);
    assert_eq!(told, (&429.into(), &"concurrency_limited".into(), &true.into()));
    let call = scene.client.ask(Ask::post("/", "").header("content-type", "application/grpc")).await;
    if kind.is_h2() {
        assert_eq!((call.status.as_u16(), call.header("grpc-status")), (200, Some("8")), "RESOURCE_EXHAUSTED");
        assert_eq!(call.header("retry-after"), Some("1"));
    } else {
        assert_refused(&call, 429);
    }
}

// Once: WebSockets come over HTTP/1.1, with and without TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_is_under_way_until_it_ends() {
    for kind in [Kind::Http1, Kind::Http1Tls] {
        let site = |limit: &str| {
            let site = Site::demo_workers(1, &[]).replace("{ path: /,", "{ path: /, concurrency: one,");
            site.and(&format!("concurrency_limits: {{ one: {{ {limit} }} }}"))
        };
        let mut edge = Edge::start(site("max: 1")).await;
        let mut socket = WebSocket::connect(edge.client(kind), "/ws").await.expect("a place");
        socket.assert_echo(Message::text("one")).await;
        assert_refused(&edge.client(kind).get("/").await, 503);
        assert!(WebSocket::connect(edge.client(kind), "/ws").await.is_err(), "a second one");
        let reloaded = edge.reload(&site("max: 1, status: 429")).await;
        assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
        socket.assert_echo(Message::text("two")).await;
        assert_refused(&edge.client(kind).get("/").await, 429);
        socket.close().await.expect("an end in order");
        drop(socket);
        wait_until("a free place", LIMIT, async || {
            (edge.status().await["concurrency_limits"][0]["in_flight"] == 0).then_some(())
        })
        .await;
        WebSocket::connect(edge.client(kind), "/ws").await.expect("a place");
    }
}
