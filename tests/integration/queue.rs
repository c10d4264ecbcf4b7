//! Requests that find every endpoint full: they wait in order, within bounds, and no limit is exceeded.
//!
//! A request for `/stall` has its endpoint to itself until its client leaves.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use h2::Reason;
use serde_json::Value;
use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    edge::Edge,
    every_client,
    h2_origin::{H2Answer, H2Origin, H2Seen, Reply},
    recorder::{OK, Recorder, Seen, Step},
    site::Site,
    wait::wait_until,
    websocket::WebSocket,
};
use tokio::task::JoinHandle;

every_client! {
    who_came_first_is_served_first,
    a_client_that_leaves_the_queue_bothers_nobody,
    beyond_its_bounds_the_queue_refuses,
    the_limit_of_all_endpoints_holds,
    a_retry_waits_for_the_endpoint_that_it_has_not_tried,
    an_endpoint_that_comes_back_serves_who_waits,
    under_overload_late_requests_are_refused_and_new_ones_served,
}

const LIMIT: Duration = Duration::from_secs(10);
/// How long the endpoint of the overload takes: a pause that is the load.
const SERVICE: Duration = Duration::from_millis(150);

/// An endpoint of either protocol, and what it was asked for, in order.
struct Origin {
    address: String,
    targets: Arc<Mutex<Vec<String>>>,
    /// Serves as long as it is here.
    _server: Server,
}

enum Server {
    Http1 { _origin: Recorder },
    H2 { _origin: H2Origin },
}

impl Origin {
    const PROTOCOLS: [&str; 2] = ["http1", "h2"];

    /// Answers but for `/stall`, and `/failing` if it is `broken`.
    async fn start(protocol: &str, broken: bool) -> Self {
        let targets: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&targets);
        let note = move |target: &str| log.lock().expect("not poisoned").push(target.to_owned());
        if protocol == "http1" {
            let script = move |seen: &Seen| {
                note(seen.target());
                match seen.target() {
                    "/stall" => vec![Step::Stall],
                    "/failing" if broken => vec![Step::Reset],
                    _ => vec![Step::Send(OK.into())],
                }
            };
            let origin = Recorder::start(script).await;
            return Self { address: origin.address().to_owned(), targets, _server: Server::Http1 { _origin: origin } };
        }
        let script = move |seen: &H2Seen| {
            note(&seen.path);
            match seen.path.as_str() {
                "/stall" => Reply::Stall,
                "/failing" if broken => Reply::Refuse(Reason::REFUSED_STREAM),
                _ => Reply::Answer(H2Answer::new(200).body("ok\n")),
            }
        };
        let origin = H2Origin::start(script).await;
        Self { address: origin.address().to_string(), targets, _server: Server::H2 { _origin: origin } }
    }

    fn targets(&self) -> Vec<String> {
        self.targets.lock().expect("not poisoned").clone()
    }
}

/// An edge before endpoints, all clients of one kind.
struct Scene {
    origins: Vec<Origin>,
    edge: Edge,
    client: Client,
}

impl Scene {
    /// `extra` goes into the upstream; `weights` says how many endpoints there are.
    async fn start(kind: Kind, protocol: &str, weights: &[u32], extra: &str) -> Self {
        let mut origins = Vec::new();
        for place in 0..weights.len() {
            origins.push(Origin::start(protocol, place > 0).await);
        }
        let edge = Edge::start(Self::site(&origins, protocol, weights, extra)).await;
        let client = edge.client(kind);
        Self { origins, edge, client }
    }

    fn site(origins: &[Origin], protocol: &str, weights: &[u32], extra: &str) -> Site {
        let server =
            |(origin, weight): (&Origin, &u32)| format!("{{ address: \"{}\", weight: {weight} }}", origin.address);
        let servers: Vec<_> = origins.iter().zip(weights).map(server).collect();
        let site = Site::proxy(&format!("protocol: {protocol}\n{extra}\nservers: [{}]", servers.join(", ")));
        // Otherwise a client of HTTP/1.1 that leaves looks like one that has only said all it had to say.
        ["plain", "h2c", "tls"].iter().fold(site, |site, listener| {
            site.replace(&format!("name: {listener},"), &format!("name: {listener}, half_close: abort,"))
        })
    }

    /// A request on a connection of its own.
    fn send(&self, target: &str) -> JoinHandle<Answer> {
        let (client, ask) = (self.client, Ask::get(target));
        tokio::spawn(async move { client.send(ask).await.expect("an answer") })
    }

    /// A request that keeps its endpoint busy.
    async fn occupy(&self) -> JoinHandle<Answer> {
        let before = self.count("/stall");
        let held = self.send("/stall");
        wait_until("a busy endpoint", LIMIT, async || (self.count("/stall") > before).then_some(())).await;
        held
    }

    fn count(&self, target: &str) -> usize {
        self.origins.iter().flat_map(Origin::targets).filter(|seen| seen == target).count()
    }

    async fn upstream(&self) -> Value {
        self.edge.status().await["upstreams"][0].clone()
    }

    async fn waiting(&self, count: u64) {
        let what = format!("{count} that wait");
        wait_until(&what, LIMIT, async || (self.upstream().await["queue"]["waiting"] == count).then_some(())).await;
    }
}

fn assert_refused(answer: &Answer, reason: &str) {
    assert_eq!(answer.status, 503, "{reason}: {}", answer.text());
    assert_eq!(answer.header("x-tidegate-reason"), Some(reason));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let seconds: u64 = answer.header("retry-after").and_then(|value| value.parse().ok()).expect("a time to come back");
    assert!((1..=30).contains(&seconds), "{reason}: {seconds} s");
}

async fn who_came_first_is_served_first(kind: Kind) {
    for protocol in Origin::PROTOCOLS {
        let scene = Scene::start(kind, protocol, &[1], "max_in_flight_per_endpoint: 1").await;
        let held = scene.occupy().await;
        let mut asked = Vec::new();
        for number in 1..=5 {
            asked.push(scene.send(&format!("/{number}")));
            scene.waiting(number).await;
        }
        assert_eq!(scene.upstream().await["in_flight"], 1);
        held.abort();
        for answer in asked {
            answer.await.expect("it was sent").assert(200, b"ok\n");
        }
        assert_eq!(scene.origins[0].targets(), ["/stall", "/1", "/2", "/3", "/4", "/5"], "{protocol}");
        let status = scene.upstream().await;
        assert_eq!((&status["queue"]["waiting"], &status["queue"]["peak"]), (&0.into(), &5.into()));
        let metrics = scene.edge.admin().metrics().await.expect("metrics");
        assert!(metrics.contains("tidegate_upstream_queue_wait_seconds_count{upstream=\"app\"} 5"), "{metrics}");
    }
}

async fn a_client_that_leaves_the_queue_bothers_nobody(kind: Kind) {
    for protocol in Origin::PROTOCOLS {
        let scene = Scene::start(kind, protocol, &[1], "max_in_flight_per_endpoint: 1").await;
        let held = scene.occupy().await;
        let gone = scene.send("/gone");
        scene.waiting(1).await;
        gone.abort();
        scene.waiting(0).await;
        let stays = scene.send("/stays");
        scene.waiting(1).await;
        held.abort();
        stays.await.expect("it was sent").assert(200, b"ok\n");
        assert_eq!(scene.origins[0].targets(), ["/stall", "/stays"], "{protocol}");
    }
}

async fn beyond_its_bounds_the_queue_refuses(kind: Kind) {
    for protocol in Origin::PROTOCOLS {
        let extra = "max_in_flight_per_endpoint: 1\nqueue: { size: 1, wait: 1s }";
        let scene = Scene::start(kind, protocol, &[1], extra).await;
        let held = scene.occupy().await;
        let began = Instant::now();
        let late = scene.send("/late");
        scene.waiting(1).await;
        assert_refused(&scene.client.get("/too-many").await, "queue_full");
        assert_refused(&late.await.expect("it was sent"), "queue_timeout");
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        let queue = scene.upstream().await["queue"].clone();
        assert_eq!((&queue["full"], &queue["late"], &queue["timeout"]), (&1.into(), &0.into(), &1.into()), "{queue}");
        for line in [
            "tidegate_upstream_queue_refused_total{reason=\"full\",upstream=\"app\"} 1",
            "tidegate_upstream_queue_refused_total{reason=\"timeout\",upstream=\"app\"} 1",
            "tidegate_refusals_total{reason=\"queue_full\"} 1",
            "tidegate_refusals_total{reason=\"queue_timeout\"} 1",
        ] {
            // An answer is counted when it has been sent.
            wait_until(line, LIMIT, async || {
                let metrics = scene.edge.admin().metrics().await.expect("metrics");
                metrics.lines().any(|known| known == line).then_some(())
            })
            .await;
        }
        assert_eq!(scene.origins[0].targets(), ["/stall"], "{protocol}");
        held.abort();
    }
}

async fn the_limit_of_all_endpoints_holds(kind: Kind) {
    for protocol in Origin::PROTOCOLS {
        let extra = "max_in_flight: 2\nmax_in_flight_per_endpoint: 2";
        let scene = Scene::start(kind, protocol, &[1, 1, 1], extra).await;
        let held = [scene.occupy().await, scene.occupy().await];
        let third = scene.send("/third");
        scene.waiting(1).await;
        let status = scene.upstream().await;
        assert_eq!((&status["in_flight"], &status["max_in_flight"]), (&2.into(), &2.into()));
        let [one, _two] = held;
        one.abort();
        third.await.expect("it was sent").assert(200, b"ok\n");
    }
}

async fn a_retry_waits_for_the_endpoint_that_it_has_not_tried(kind: Kind) {
    for protocol in Origin::PROTOCOLS {
        let scene = Scene::start(kind, protocol, &[2, 1], "max_in_flight_per_endpoint: 1").await;
        let held = scene.occupy().await;
        assert_eq!(scene.origins[0].targets(), ["/stall"], "the heavier one comes first");
        let failing = scene.send("/failing");
        scene.waiting(1).await;
        assert_eq!(scene.origins[1].targets(), ["/failing"]);
        // The one that failed it is free, for others.
        scene.client.get("/other").await.assert(200, b"ok\n");
        assert_eq!(scene.origins[1].targets(), ["/failing", "/other"], "{protocol}");
        held.abort();
        failing.await.expect("it was sent").assert(200, b"ok\n");
        assert_eq!(scene.origins[0].targets(), ["/stall", "/failing"], "{protocol}");
    }
}

async fn an_endpoint_that_comes_back_serves_who_waits(kind: Kind) {
    for protocol in Origin::PROTOCOLS {
        let extra = "max_in_flight_per_endpoint: 1\nejection: { max_fails: 1, fail_timeout: 2s }\nqueue: { wait: 20s }";
        let scene = Scene::start(kind, protocol, &[2, 1], extra).await;
        let held = scene.occupy().await;
        let failing = scene.send("/failing");
        scene.waiting(1).await;
        let began = Instant::now();
        let waits = scene.send("/waits");
        scene.waiting(2).await;
        // Nothing happens but that time passes: not even a look at the status, which would do what is due.
        waits.await.expect("it was sent").assert(200, b"ok\n");
        assert!(began.elapsed() < LIMIT, "before anybody's wait was over: {:?}", began.elapsed());
        assert_eq!(scene.origins[1].targets(), ["/failing", "/waits"], "{protocol}");
        held.abort();
        failing.await.expect("it was sent").assert(200, b"ok\n");
    }
}

async fn under_overload_late_requests_are_refused_and_new_ones_served(kind: Kind) {
    for order in ["adaptive", "fifo"] {
        let origin = Recorder::start(|_| vec![Step::Pause(SERVICE), Step::Send(OK.into())]).await;
        let site = Site::proxy(&format!(
            "max_in_flight_per_endpoint: 1\nqueue: {{ order: {order} }}\nservers: [{{ address: \"{}\" }}]",
            origin.address()
        ));
        let edge = Edge::start(site).await;
        let client = edge.client(kind);
        let send =
            |target: String| tokio::spawn(async move { client.send(Ask::get(&target)).await.expect("an answer") });
        let old: Vec<_> = (0..12).map(|number| send(format!("/old/{number}"))).collect();
        // The queue has stood for longer than an interval, or is about to: who comes is served before those who are late.
        wait_until("two served", LIMIT, async || (origin.requests().len() >= 2).then_some(())).await;
        let new = send("/new".to_owned()).await.expect("it was sent");
        new.assert(200, b"ok\n");
        let mut late = 0;
        for answer in old {
            let answer = answer.await.expect("it was sent");
            if answer.status == 503 {
                assert_refused(&answer, "queue_late");
                late += 1;
            } else {
                answer.assert(200, b"ok\n");
            }
        }
        let status = edge.status().await["upstreams"][0]["queue"].clone();
        assert_eq!(status["late"], late, "{status}");
        if order == "fifo" {
            assert_eq!(late, 0, "{status}");
        } else {
            assert!(late >= 4, "{late} of 12 were late");
        }
    }
}

// Once: reloads know no clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_raises_the_limit_serves_those_who_wait() {
    let mut scene = Scene::start(Kind::Http1, "http1", &[1], "max_in_flight_per_endpoint: 1").await;
    let _held = scene.occupy().await;
    let waits = scene.send("/waits");
    scene.waiting(1).await;
    let site = Scene::site(&scene.origins, "http1", &[1], "max_in_flight_per_endpoint: 2");
    let reloaded = scene.edge.reload(&site).await;
    assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    assert!(reloaded.stdout.contains("max_in_flight_per_endpoint: 1 -> 2"), "{}", reloaded.stdout);
    waits.await.expect("it was sent").assert(200, b"ok\n");
}

// Once: reloads know no clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_takes_the_queue_away_leaves_those_who_wait() {
    let mut scene = Scene::start(Kind::Http1, "http1", &[1], "max_in_flight_per_endpoint: 1").await;
    let held = scene.occupy().await;
    let waits = scene.send("/waits");
    scene.waiting(1).await;
    let site = Scene::site(&scene.origins, "http1", &[1], "max_in_flight_per_endpoint: 1\nqueue: off");
    let reloaded = scene.edge.reload(&site).await;
    assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    assert_refused(&scene.client.get("/refused").await, "queue_full");
    held.abort();
    waits.await.expect("it was sent").assert(200, b"ok\n");
    assert_eq!(scene.origins[0].targets(), ["/stall", "/waits"]);
}

// Once: WebSockets come over HTTP/1.1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_and_workers_have_places_too() {
    let site = Site::demo_workers(1, &[]).replace("workers:", "max_in_flight_per_endpoint: 1\n    workers:");
    let edge = Edge::start(site).await;
    let client = edge.client(Kind::Http1);
    // Each one gives its place back once it is established.
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(WebSocket::connect(client, "/ws").await.expect("a place"));
    }
    let status = edge.status().await["upstreams"][0].clone();
    let endpoint = &status["endpoints"][0];
    assert_eq!((&endpoint["max_conns"], &endpoint["tunnels"]), (&1.into(), &3.into()), "{status}");
    assert_eq!((&status["in_flight"], &status["max_in_flight"]), (&0.into(), &1.into()), "{status}");
    let asked: Vec<_> = (0..4).map(|_| tokio::spawn(async move { client.get("/healthz").await })).collect();
    for answer in asked {
        assert_eq!(answer.await.expect("it was sent").status, 200);
    }
}
