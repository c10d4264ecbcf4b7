//! Checks of servers: who fails them gets nothing, who passes is back, and it can be read why.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tidegate_tests::{
    authority::Authority,
    client::{Ask, Kind},
    edge::{Edge, Home},
    every_client,
    h2_origin::{H2Answer, H2Origin, Reply},
    recorder::{OK, Recorder, Seen, Step},
    site::{Site, free_port},
    tls_origin::TlsOrigin,
    wait::wait_until,
};

const LIMIT: Duration = Duration::from_secs(10);
const EVERY: &str = "interval: 50ms, jitter: 0, rise: 1, fall: 1";

every_client! {
    a_server_whose_checks_fail_gets_nothing_until_they_pass,
    requests_are_refused_while_all_checks_fail,
}

/// The status that an origin's health page has.
#[derive(Clone)]
struct Page(Arc<AtomicU16>);

impl Page {
    fn new(status: u16) -> Self {
        Self(Arc::new(AtomicU16::new(status)))
    }

    fn set(&self, status: u16) {
        self.0.store(status, Ordering::SeqCst);
    }

    fn status(&self) -> u16 {
        self.0.load(Ordering::SeqCst)
    }

    fn answer(&self, seen: &Seen) -> Vec<Step> {
        match seen.target() {
            "/health" => {
                vec![Step::Send(format!("HTTP/1.1 {} x\r\ncontent-length: 0\r\n\r\n", self.status()).into_bytes())]
            }
            _ => vec![Step::Send(OK.into())],
        }
    }

    async fn origin(&self) -> Recorder {
        let page = self.clone();
        Recorder::start(move |seen| page.answer(seen)).await
    }
}

fn app(servers: &[SocketAddr], more: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|address| format!("{{ address: \"{address}\" }}")).collect();
    format!("servers: [{}]\n{more}", servers.join(", "))
}

fn checked_site(servers: &[SocketAddr]) -> Site {
    Site::proxy(&app(servers, &format!("health_check: {{ http: {{ path: /health }}, {EVERY} }}")))
}

/// Requests for pages, not for health.
fn pages(origin: &Recorder) -> usize {
    origin.requests().iter().filter(|seen| seen.target() == "/").count()
}

async fn endpoint(edge: &Edge, upstream: usize, place: usize) -> Value {
    edge.status().await["upstreams"][upstream]["endpoints"][place].clone()
}

async fn wait_for_state(edge: &Edge, place: usize, state: &str) -> Value {
    wait_until(&format!("server {place} to be {state}"), LIMIT, async || {
        let found = endpoint(edge, 0, place).await;
        (found["state"] == state && found["check"].is_object()).then_some(found)
    })
    .await
}

async fn a_server_whose_checks_fail_gets_nothing_until_they_pass(kind: Kind) {
    let (well, page) = (Page::new(200), Page::new(503));
    let (first, second) = (well.origin().await, page.origin().await);
    let edge = Edge::start(checked_site(&[first.socket_address(), second.socket_address()])).await;
    let found = wait_for_state(&edge, 1, "unhealthy").await;
    assert_eq!((&found["check"]["reason"], &found["check"]["last"]), (&"status 503".into(), &"status 503".into()));
    edge.wait_for_message("endpoint out of service, its checks fail", LIMIT).await;
    second.forget();
    let mut connection = edge.client(kind).connect().await.expect("the edge listens");
    for _ in 0..10 {
        connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"ok\n");
    }
    assert_eq!((pages(&first), pages(&second)), (10, 0));
    let table = edge.home().tidegate(&["status"]).await;
    assert!(table.stdout.contains(": checks fail since "), "{}", table.stdout);
    page.set(200);
    wait_for_state(&edge, 1, "ready").await;
    for _ in 0..10 {
        connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"ok\n");
    }
    assert_eq!((pages(&first), pages(&second)), (15, 5));
    edge.wait_for_message("endpoint back in service, its checks pass", LIMIT).await;
    let metrics = edge.admin().metrics().await.expect("metrics");
    for series in ["result=\"passed\"", "result=\"failed\""] {
        let series = format!("tidegate_upstream_checks_total{{{series},upstream=\"app\"}}");
        assert!(metrics.contains(&series), "no {series} in {metrics}");
    }
    assert!(metrics.contains("tidegate_upstream_endpoints{state=\"unhealthy\",upstream=\"app\"} 0"), "{metrics}");
}

async fn requests_are_refused_while_all_checks_fail(kind: Kind) {
    let page = Page::new(200);
    let origin = page.origin().await;
    let edge = Edge::start(checked_site(&[origin.socket_address()])).await;
    edge.client(kind).get("/").await.assert(200, b"ok\n");
    page.set(500);
    wait_for_state(&edge, 0, "unhealthy").await;
    let answer = edge.client(kind).get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (503, Some("no_endpoint")));
    let ready = edge.admin().get("/readyz").await.expect("an answer");
    assert_eq!(ready.status, 503, "{}", ready.text());
    page.set(204);
    wait_for_state(&edge, 0, "ready").await;
    edge.client(kind).get("/").await.assert(200, b"ok\n");
}

// Once: checks have no client.
#[tokio::test]
async fn two_upstreams_with_one_server_know_its_health_apart() {
    let origin = Page::new(503).origin().await;
    let server = origin.address();
    let site = Site::usual(
        "- { path: /, proxy: a }\n- { path: /b, proxy: b }",
        &format!(
            "a: {{ servers: [{{ address: \"{server}\" }}], health_check: {{ http: {{ path: /health }}, {EVERY} }} }}\n\
             b: {{ servers: [{{ address: \"{server}\" }}], health_check: {{ {EVERY} }} }}"
        ),
    );
    let edge = Edge::launch(Home::new(&site));
    let states = async || {
        edge.admin().status().await.ok()?;
        let (a, b) = (endpoint(&edge, 0, 0).await, endpoint(&edge, 1, 0).await);
        (a["check"]["passing"] == false && b["check"]["passing"] == true).then_some((a, b))
    };
    let (a, b) = wait_until("both checks", LIMIT, states).await;
    assert_eq!((&a["state"], &b["state"]), (&"unhealthy".into(), &"ready".into()));
    edge.client(Kind::Http1).get("/b").await.assert(200, b"ok\n");
}

// Once: checks have no client.
#[tokio::test]
async fn reloads_keep_what_is_known_begin_anew_what_changed_and_end_what_is_gone() {
    let page = Page::new(503);
    let origin = page.origin().await;
    let servers = [origin.socket_address(), ([127, 0, 0, 1], free_port(&Default::default())).into()];
    let mut edge = Edge::launch(Home::new(&checked_site(&servers)));
    wait_until("the status", LIMIT, async || edge.admin().status().await.ok()).await;
    let since = wait_for_state(&edge, 0, "unhealthy").await["check"]["since"].clone();
    let reload = async |edge: &mut Edge, site: &Site| {
        let reloaded = edge.reload(site).await;
        assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    };
    reload(&mut edge, &checked_site(&servers[..1])).await;
    assert_eq!(endpoint(&edge, 0, 0).await["check"]["since"], since, "an unchanged check goes on");
    let other = app(&servers[..1], &format!("health_check: {{ http: {{ path: /other }}, {EVERY} }}"));
    reload(&mut edge, &Site::proxy(&other)).await;
    wait_for_state(&edge, 0, "ready").await;
    reload(&mut edge, &Site::proxy(&app(&servers[..1], ""))).await;
    assert!(endpoint(&edge, 0, 0).await["check"].is_null());
    wait_until("the last check to have ended", LIMIT, async || (!origin.is_at_work()).then_some(())).await;
    origin.forget();
    // The pause is what is tested: six checks would fall into it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(origin.requests().len(), 0, "nobody asks any more");
}

// Once: checks have no client.
#[tokio::test]
async fn checks_speak_http2_where_requests_do() {
    let page = Page::new(200);
    let look = page.clone();
    let origin = H2Origin::start(move |_| Reply::Answer(H2Answer::new(look.status()).body("all is well\n"))).await;
    let more = format!("protocol: h2\nhealth_check: {{ http: {{ path: /health, body: is well }}, {EVERY} }}");
    let edge = Edge::start(Site::proxy(&app(&[origin.address()], &more))).await;
    wait_for_state(&edge, 0, "ready").await;
    let seen = origin.requests_at_least(1).await.remove(0);
    assert_eq!((seen.path.as_str(), seen.authority.as_deref()), ("/health", Some(&*origin.address().to_string())));
    page.set(500);
    assert_eq!(wait_for_state(&edge, 0, "unhealthy").await["check"]["reason"], "status 500");
}

// Once: checks have no client.
#[tokio::test]
async fn checks_speak_tls_where_requests_do() {
    let (right, other) = (Authority::new("right"), Authority::new("other"));
    let someone = right.issue(&["someone"]);
    let good = TlsOrigin::start(&right.issue(&["one.example"]), Some(&right)).await;
    let expired = TlsOrigin::start(&right.issue_expired(&["one.example"]), Some(&right)).await;
    let foreign = TlsOrigin::start(&other.issue(&["one.example"]), Some(&right)).await;
    let servers = [good.address(), expired.address(), foreign.address()];
    let known = "certificate: \"@dir@/someone.pem\", key: \"@dir@/someone.key\"";
    let tls = format!("tls: {{ ca: \"@dir@/right.pem\", server_name: one.example, {known} }}");
    for check in ["", "http: { path: /, body: ok }, "] {
        let more = format!("ejection: off\nretry: off\n{tls}\nhealth_check: {{ {check}{EVERY} }}");
        let home = Home::new(&Site::proxy(&app(&servers, &more)));
        right.write(&home.path().join("right.pem"));
        someone.write(home.path(), "someone");
        let edge = Edge::launch(home).ready().await;
        wait_for_state(&edge, 0, "ready").await;
        for (place, why) in [(1, "expired"), (2, "UnknownIssuer")] {
            let state = wait_for_state(&edge, place, "unhealthy").await;
            let reason = state["check"]["reason"].as_str().expect("a text");
            assert!(reason.contains(why), "{place}: {reason}");
        }
        for _ in 0..8 {
            edge.client(Kind::Http1).get("/").await.assert(200, b"ok");
        }
        assert_eq!(edge.status().await["upstreams"][0]["endpoints"][0]["requests"], 8, "checks are no requests");
    }
    for met in good.met() {
        assert_eq!(met.server_name.as_deref(), Some("one.example"));
        assert_eq!(met.certificate.as_ref(), Some(&someone.certificate));
    }
}

// Once: checks have no client.
#[tokio::test]
async fn of_a_long_page_over_http2_the_beginning_is_looked_at() {
    let page = ["all is well\n".to_owned(), "x".repeat(300_000)].concat();
    let origin = H2Origin::start(move |_| Reply::Answer(H2Answer::new(200).body(page.clone()))).await;
    let more = format!("protocol: h2\nhealth_check: {{ http: {{ path: /health, body: is well }}, {EVERY} }}");
    let edge = Edge::launch(Home::new(&Site::proxy(&app(&[origin.address()], &more))));
    wait_until("the status", LIMIT, async || edge.admin().status().await.ok()).await;
    let state = wait_until("a check", LIMIT, async || {
        let found = endpoint(&edge, 0, 0).await;
        found["check"].is_object().then_some(found)
    })
    .await;
    assert_eq!(state["check"]["last"], "passed", "{state}");
}

// Once: checks have no client.
#[tokio::test]
async fn checks_begin_with_a_proxy_header_that_names_nobody() {
    let origin = Recorder::start(|_| vec![Step::Send(OK.into())]).await;
    let more = format!("proxy_protocol: v1\nhealth_check: {{ http: {{ path: /health }}, {EVERY} }}");
    let edge = Edge::launch(Home::new(&Site::proxy(&app(&[origin.socket_address()], &more))));
    let first = wait_until("a check", LIMIT, async || {
        origin.connections().into_iter().find(|one| one.bytes.windows(4).any(|bytes| bytes == b"\r\n\r\n"))
    })
    .await;
    let text = String::from_utf8_lossy(&first.bytes);
    assert!(text.starts_with("PROXY UNKNOWN\r\nGET /health HTTP/1.1\r\n"), "{text}");
    drop(edge);
}

// Once: checks have no client.
#[tokio::test]
async fn grpc_servers_are_asked_by_their_own_protocol() {
    let serving = Page::new(1);
    let look = serving.clone();
    let origin = H2Origin::start(move |_| {
        let answer = H2Answer::new(200).header("content-type", "application/grpc");
        let message = vec![0, 0, 0, 0, 2, 8, look.status() as u8];
        Reply::Answer(answer.body(message).trailer("grpc-status", "0"))
    })
    .await;
    let more = format!("protocol: h2\nhealth_check: {{ grpc: {{ service: shop }}, {EVERY} }}");
    let edge = Edge::launch(Home::new(&Site::proxy(&app(&[origin.address()], &more))));
    wait_until("the status", LIMIT, async || edge.admin().status().await.ok()).await;
    let state = wait_until("a check", LIMIT, async || {
        let found = endpoint(&edge, 0, 0).await;
        found["check"].is_object().then_some(found)
    })
    .await;
    assert_eq!(state["check"]["last"], "passed");
    let seen = origin.requests_at_least(1).await.remove(0);
    assert_eq!(
        (seen.path.as_str(), &seen.body[..]),
        ("/grpc.health.v1.Health/Check", &b"\0\0\0\0\x06\x0a\x04shop"[..])
    );
    serving.set(2);
    assert_eq!(wait_for_state(&edge, 0, "unhealthy").await["check"]["reason"], "NOT_SERVING");
}
