//! Errors: which one, whose fault, and in which words.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    edge::{Edge, Home},
    every_client,
    fault::{Fault, cut},
    raw::{End, Raw, field, status},
    recorder::{OK, Recorder, Step},
    site::{Site, free_port},
    wait::wait_until,
};

every_client! {
    nobody_listens_is_a_502,
    garbage_is_a_502,
    two_lengths_are_a_502,
    an_end_before_the_head_is_a_502,
    silence_is_a_504,
    half_a_head_and_then_silence_is_a_504,
    an_error_is_json_for_who_asks_for_json,
    an_error_for_head_has_no_body,
    a_body_too_large_is_a_413_without_reading_it,
    a_413_reaches_a_client_that_is_still_sending,
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, reason: &str, client: Client) {
    let got = (answer.status.as_u16(), answer.header("x-tidegate-reason"));
    assert_eq!(got, (status, Some(reason)), "over {}: {}", client.kind(), answer.text());
    assert!(answer.is_complete(), "over {}", client.kind());
}

/// What the edge says when its one endpoint does this with each request.
async fn assert_upstream_fault(
    kind: Kind,
    script: impl Fn() -> Vec<Step> + Send + Sync + 'static,
    code: u16,
    reason: &str,
) {
    let recorder = Recorder::start(move |_| script()).await;
    let app = format!("servers: [{{ address: \"{}\" }}]\ntimeouts: {{ head: 300ms, read: 300ms }}", recorder.address());
    let edge = Edge::start(Site::proxy(&app)).await;
    let client = edge.client(kind);
    let started = Instant::now();
    let answer = client.ask(Ask::post("/", "x")).await;
    assert_refused(&answer, code, reason, client);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?} over {}", started.elapsed(), client.kind());
}

async fn nobody_listens_is_a_502(kind: Kind) {
    let edge = Edge::start(Site::proxy_to(format!("127.0.0.1:{}", free_port(&Default::default())))).await;
    let client = edge.client(kind);
    assert_refused(&client.get("/").await, 502, "connect_failed", client);
}

async fn garbage_is_a_502(kind: Kind) {
    assert_upstream_fault(
        kind,
        || vec![Step::Send(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n".to_vec())],
        502,
        "upstream_bad_response",
    )
    .await;
}

async fn two_lengths_are_a_502(kind: Kind) {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nok\n";
    assert_upstream_fault(kind, move || vec![Step::Send(answer.into())], 502, "upstream_bad_response").await;
}

async fn an_end_before_the_head_is_a_502(kind: Kind) {
    assert_upstream_fault(kind, || vec![Step::Close], 502, "upstream_closed").await;
    assert_upstream_fault(kind, || cut(OK.as_bytes(), 20, &Fault::Reset), 502, "upstream_closed").await;
}

async fn silence_is_a_504(kind: Kind) {
    assert_upstream_fault(kind, || vec![Step::Stall], 504, "head_timeout").await;
}

async fn half_a_head_and_then_silence_is_a_504(kind: Kind) {
    assert_upstream_fault(kind, || cut(OK.as_bytes(), 20, &Fault::Stall), 504, "head_timeout").await;
}

// Once: it is about workers; answers of our own go through every client above.
#[tokio::test]
async fn no_worker_is_a_503() {
    let site = Site::proxy("workers: { command: [\"@demo@\", --uds, \"{socket}\", --fail-boot], count: 1 }");
    let edge = Edge::launch(Home::new(&site));
    let client = edge.client(Kind::Http1);
    let answer = wait_until("an answer", Duration::from_secs(15), async || client.send(Ask::get("/")).await.ok()).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(
        matches!(answer.header("x-tidegate-reason"), Some("no_worker" | "crashloop" | "not_ready_in_time")),
        "{answer:?}"
    );
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

async fn an_error_is_json_for_who_asks_for_json(kind: Kind) {
    let edge = Edge::start(Site::proxy_to(format!("127.0.0.1:{}", free_port(&Default::default())))).await;
    let client = edge.client(kind);
    let plain = client.get("/").await;
    assert!(plain.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{plain:?}");
    assert!(plain.text().contains("502"), "{}", plain.text());
    let answer = client.ask(Ask::get("/").header("accept", "application/json")).await;
    let body = answer.json();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!((&body["status"], &body["reason"]), (&502.into(), &"connect_failed".into()), "{body}");
    let page = client.ask(Ask::get("/").header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("<title>502 Bad Gateway</title>"), "{}", page.text());
    // What the client gets is its own: no address of ours.
    for answer in [answer, plain, page] {
        assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
    }
}

async fn a_body_too_large_is_a_413_without_reading_it(kind: Kind) {
    let recorder = Recorder::friendly().await;
    let upstreams = format!("app: {{ servers: [{{ address: \"{}\" }}] }}", recorder.address());
    let edge = Edge::start(Site::usual("- { path: /, proxy: app, max_body: 1KiB }", &upstreams)).await;
    let client = edge.client(kind);
    client.ask(Ask::post("/", vec![b'x'; 1024])).await.assert(200, b"ok\n");
    recorder.forget();
    assert_refused(&client.ask(Ask::post("/", vec![b'x'; 1025])).await, 413, "body_too_large", client);
    assert!(recorder.requests().is_empty(), "a refused body reached the endpoint over {}", client.kind());
    let pieces = vec![Bytes::from(vec![b'x'; 600]); 3];
    assert_refused(&client.ask(Ask::post_pieces("/", pieces)).await, 413, "body_too_large", client);
    assert!(recorder.requests().is_empty(), "a refused body looked complete over {}", client.kind());
}

// Once: bytes of HTTP/1.1.
#[tokio::test]
async fn a_413_comes_before_the_body() {
    let edge = Edge::start(Site::proxy_to("127.0.0.1:9")).await;
    let head = "POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 1000000000\r\n\r\n";
    let (answer, _) = Raw::exchange(edge.address("plain"), head, Duration::from_secs(5)).await;
    assert_eq!(status(&answer), 413, "before a single byte of the body: {answer}");
}

async fn a_413_reaches_a_client_that_is_still_sending(kind: Kind) {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let client = edge.client(kind);
    // One byte above the default, and far more than socket buffers hold: closing at once would reset the client
    // before it has read why.
    for size in [(1 << 20) + 1, 8 << 20] {
        assert_refused(&client.ask(Ask::post("/", vec![b'x'; size])).await, 413, "body_too_large", client);
    }
    assert!(recorder.requests().is_empty());
}

// Once: bytes of HTTP/1.1.
#[tokio::test]
async fn a_head_that_does_not_come_is_a_408() {
    let site = Site::proxy_to("127.0.0.1:9").replace("name: plain,", "name: plain, timeouts: { head: 400ms },");
    let edge = Edge::start(site).await;
    let started = Instant::now();
    let (answer, end) = Raw::exchange(edge.address("plain"), "GET / HTTP/1.1\r\nhost:", Duration::from_secs(5)).await;
    assert_eq!((status(&answer), end), (408, End::Closed), "{answer}");
    assert_eq!(field(&answer, "x-tidegate-reason"), Some("client_head_timeout"), "{answer}");
    let took = started.elapsed();
    assert!((Duration::from_millis(350)..Duration::from_secs(2)).contains(&took), "{took:?}");
}

// Once: bytes of HTTP/1.1.
#[tokio::test]
async fn a_dripped_head_has_the_same_deadline_on_every_request() {
    let recorder = Recorder::friendly().await;
    let site = Site::proxy_to(recorder.address()).replace("name: plain,", "name: plain, timeouts: { head: 500ms },");
    let edge = Edge::start(site).await;
    let mut raw = Raw::connect(edge.address("plain")).await;
    raw.send("GET / HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
    raw.read_answer().await;
    let started = Instant::now();
    let drip = async {
        for byte in "GET / HTTP/1.1\r\nhost: test.example\r\nx: ".bytes().chain(std::iter::repeat(b'x')) {
            raw.send([byte]).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            if started.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
        raw.read_to_end(Duration::from_secs(1)).await
    };
    let (_, end) = drip.await;
    assert_ne!(end, End::Open, "a head dripped for {:?} is still awaited", started.elapsed());
    assert_eq!(recorder.requests().len(), 1);
}

// Once: bytes of HTTP/1.1.
#[tokio::test]
async fn a_body_that_does_not_come_is_a_408() {
    let recorder = Recorder::friendly().await;
    let site =
        Site::proxy_to(recorder.address()).replace("name: plain,", "name: plain, timeouts: { body_idle: 300ms },");
    let edge = Edge::start(site).await;
    let request = "POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 10\r\n\r\nabc";
    let (answer, end) = Raw::exchange(edge.address("plain"), request, Duration::from_secs(5)).await;
    assert_eq!((status(&answer), end), (408, End::Closed), "{answer}");
    assert_eq!(field(&answer, "x-tidegate-reason"), Some("client_body_timeout"), "{answer}");
    assert!(recorder.requests().is_empty(), "half a body looked complete");
}

async fn an_error_for_head_has_no_body(kind: Kind) {
    let edge = Edge::start(Site::proxy_to(format!("127.0.0.1:{}", free_port(&Default::default())))).await;
    let client = edge.client(kind);
    // Refused before a route was found, and after.
    for (target, status, reason) in [("/%zz", 400, "bad_request"), ("/", 502, "connect_failed")] {
        let answer = client.ask(Ask::new("HEAD", target)).await;
        assert_refused(&answer, status, reason, client);
        assert!(answer.body.is_empty(), "{target} over {kind}: {}", answer.text());
        let length = answer.header("content-length").map(|length| length.parse::<u64>().unwrap_or(0));
        assert_ne!(length, Some(0), "{target} over {kind}: GET would have a body");
    }
}

// Once: bytes of HTTP/1.1.
#[tokio::test]
async fn nothing_follows_the_head_of_an_error_for_head() {
    let edge = Edge::start(Site::proxy_to("127.0.0.1:9")).await;
    let request = "HEAD /%zz HTTP/1.1\r\nhost: test.example\r\n\r\n";
    let (answer, end) = Raw::exchange(edge.address("plain"), request, Duration::from_secs(5)).await;
    assert_eq!((status(&answer), end), (400, End::Closed), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}
