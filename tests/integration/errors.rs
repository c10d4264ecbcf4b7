//! Errors: which one, whose fault, and in which words.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    edge::{Edge, Home},
    fault::{Fault, cut},
    raw::{End, Raw, field, status},
    recorder::{OK, Recorder, Step},
    site::{Site, free_port},
    wait::wait_until,
};

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, reason: &str, client: Client) {
    let got = (answer.status.as_u16(), answer.header("x-tidegate-reason"));
    assert_eq!(got, (status, Some(reason)), "over {}: {}", client.kind(), answer.text());
    assert!(answer.is_complete(), "over {}", client.kind());
}

/// What the edge says when its one endpoint does this with each request.
async fn assert_upstream_fault(script: impl Fn() -> Vec<Step> + Send + Sync + 'static, code: u16, reason: &str) {
    let recorder = Recorder::start(move |_| script()).await;
    let app = format!("servers: [{{ address: \"{}\" }}]\ntimeouts: {{ head: 300ms, read: 300ms }}", recorder.address());
    let edge = Edge::start(Site::proxy(&app)).await;
    for client in edge.clients() {
        let started = Instant::now();
        let answer = client.ask(Ask::post("/", "x")).await;
        assert_refused(&answer, code, reason, client);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?} over {}", started.elapsed(), client.kind());
    }
}

#[tokio::test]
async fn nobody_listens_is_a_502() {
    let edge = Edge::start(Site::proxy_to(format!("127.0.0.1:{}", free_port(&Default::default())))).await;
    for client in edge.clients() {
        assert_refused(&client.get("/").await, 502, "connect_failed", client);
    }
}

#[tokio::test]
async fn garbage_is_a_502() {
    assert_upstream_fault(|| vec![Step::Send(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n".to_vec())], 502, "upstream_bad_response")
        .await;
}

#[tokio::test]
async fn two_lengths_are_a_502() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nok\n";
    assert_upstream_fault(move || vec![Step::Send(answer.into())], 502, "upstream_bad_response").await;
}

#[tokio::test]
async fn an_end_before_the_head_is_a_502() {
    assert_upstream_fault(|| vec![Step::Close], 502, "upstream_closed").await;
    assert_upstream_fault(|| cut(OK.as_bytes(), 20, &Fault::Reset), 502, "upstream_closed").await;
}

#[tokio::test]
async fn silence_is_a_504() {
    assert_upstream_fault(|| vec![Step::Stall], 504, "head_timeout").await;
}

#[tokio::test]
async fn half_a_head_and_then_silence_is_a_504() {
    assert_upstream_fault(|| cut(OK.as_bytes(), 20, &Fault::Stall), 504, "head_timeout").await;
}

#[tokio::test]
async fn no_worker_is_a_503() {
    let site = Site::proxy("workers: { command: [\"@demo@\", --uds, \"{socket}\", --fail-boot], count: 1 }");
    let edge = Edge::launch(Home::new(&site));
    let client = edge.client(Kind::Http1);
    let answer = wait_until("an answer", Duration::from_secs(15), async || client.send(Ask::get("/")).await.ok()).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(matches!(answer.header("x-tidegate-reason"), Some("no_endpoint" | "not_ready_in_time")), "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

#[tokio::test]
async fn an_error_is_json_for_who_asks_for_json() {
    let edge = Edge::start(Site::proxy_to(format!("127.0.0.1:{}", free_port(&Default::default())))).await;
    for client in edge.clients() {
        let plain = client.get("/").await;
        assert!(plain.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{plain:?}");
        assert!(plain.text().contains("502"), "{}", plain.text());
        let answer = client.ask(Ask::get("/").header("accept", "application/json")).await;
        let body = answer.json();
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!((&body["status"], &body["reason"]), (&502.into(), &"connect_failed".into()), "{body}");
        // What the client gets is its own: no address of ours.
        assert!(!answer.text().contains("127.0.0.1") && !plain.text().contains("127.0.0.1"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_body_too_large_is_a_413_without_reading_it() {
    let recorder = Recorder::friendly().await;
    let upstreams = format!("app: {{ servers: [{{ address: \"{}\" }}] }}", recorder.address());
    let edge = Edge::start(Site::usual("- { path: /, proxy: app, max_body: 1KiB }", &upstreams)).await;
    for client in edge.clients() {
        client.ask(Ask::post("/", vec![b'x'; 1024])).await.assert(200, b"ok\n");
        recorder.forget();
        assert_refused(&client.ask(Ask::post("/", vec![b'x'; 1025])).await, 413, "body_too_large", client);
        assert!(recorder.requests().is_empty(), "a refused body reached the endpoint over {}", client.kind());
        let pieces = vec![Bytes::from(vec![b'x'; 600]); 3];
        assert_refused(&client.ask(Ask::post_pieces("/", pieces)).await, 413, "body_too_large", client);
        assert!(recorder.requests().is_empty(), "a refused body looked complete over {}", client.kind());
    }
    let head = "POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 1000000000\r\n\r\n";
    let (answer, _) = Raw::exchange(edge.address("plain"), head, Duration::from_secs(5)).await;
    assert_eq!(status(&answer), 413, "before a single byte of the body: {answer}");
}

#[tokio::test]
async fn a_413_reaches_a_client_that_is_still_sending() {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    for client in edge.clients() {
        // One byte above the default, and far more than socket buffers hold: closing at once would reset the client
        // before it has read why.
        for size in [(1 << 20) + 1, 8 << 20] {
            assert_refused(&client.ask(Ask::post("/", vec![b'x'; size])).await, 413, "body_too_large", client);
        }
    }
    assert!(recorder.requests().is_empty());
}

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
