//! No worker is ready: requests wait while one may come, and else hear why there is none and when to come again.

use std::time::{Duration, Instant};

use tidegate_tests::{
    client::{Answer, Ask, Kind},
    edge::{Edge, Home},
    every_client,
    process::{Signal, send_signal},
    site::Site,
    wait::wait_until,
};

every_client! {
    a_crash_loop_is_told_at_once,
    the_only_worker_is_waited_for,
    who_waited_in_vain_is_told_how_long_workers_take,
}

const LIMIT: Duration = Duration::from_secs(20);

fn told(answer: &Answer) -> (u16, &str, u64) {
    let seconds = answer.header("retry-after").and_then(|value| value.parse().ok()).unwrap_or_default();
    (answer.status.as_u16(), answer.header("x-tidegate-reason").unwrap_or_default(), seconds)
}

async fn a_crash_loop_is_told_at_once(kind: Kind) {
    let site = Site::proxy("workers: { command: [sh, -c, \"exit 7 # {socket}\"], count: 1 }");
    let edge = Edge::launch(Home::new(&site));
    wait_until("the crash loop", LIMIT, async || {
        let status = edge.admin().status().await.ok()?;
        (status["upstreams"][0]["state"] == "crashloop").then_some(())
    })
    .await;
    let client = edge.client(kind);
    for (accept, content_type) in [
        ("*/*", "text/plain; charset=utf-8"),
        ("application/json", "application/json"),
        ("text/html", "text/html; charset=utf-8"),
    ] {
        let asked = Instant::now();
        let answer = client.ask(Ask::get("/").header("accept", accept)).await;
        assert!(asked.elapsed() < Duration::from_secs(5), "nobody waits for it");
        let (status, reason, seconds) = told(&answer);
        assert_eq!((status, reason), (503, "crashloop"), "{answer:?}");
        assert!((1..=30).contains(&seconds), "{answer:?}");
        assert_eq!(
            (answer.header("cache-control"), answer.header("content-type")),
            (Some("no-store"), Some(content_type))
        );
    }
    let ready = edge.admin().get("/readyz").await.expect("an answer");
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert_eq!(edge.admin().get("/healthz").await.expect("an answer").status, 200, "no worker is needed to be alive");
}

async fn the_only_worker_is_waited_for(kind: Kind) {
    let edge = Edge::start(Site::demo_workers(1, &["--boot-delay", "700"])).await;
    let worker = edge.ready_workers("app", 1).await[0].clone();
    send_signal(worker.pid, Signal::SIGKILL);
    edge.workers_until("app", LIMIT, |workers| workers.iter().all(|now| now.pid != worker.pid)).await;
    let asked = Instant::now();
    edge.client(kind).get("/tiny").await.assert(200, b"hello, world\n");
    assert!(asked.elapsed() >= Duration::from_millis(300), "it was served before there was a worker");
}

async fn who_waited_in_vain_is_told_how_long_workers_take(kind: Kind) {
    let app = "workers: { command: [\"@demo@\", --uds, \"{socket}\", --boot-delay, \"4000\"], count: 1 }\nqueue: { hold: 500ms }";
    let edge = Edge::start(Site::proxy(app)).await;
    let worker = edge.ready_workers("app", 1).await[0].clone();
    send_signal(worker.pid, Signal::SIGKILL);
    edge.workers_until("app", LIMIT, |workers| workers.iter().all(|now| now.pid != worker.pid)).await;
    let asked = Instant::now();
    let answer = edge.client(kind).get("/tiny").await;
    let waited = asked.elapsed();
    let (status, reason, seconds) = told(&answer);
    assert_eq!((status, reason), (503, "not_ready_in_time"), "{answer:?}");
    assert!(waited >= Duration::from_millis(490) && waited < Duration::from_secs(3), "{waited:?}");
    // Four seconds for the boot, of which some are over, and up to two more so that not all come back at once.
    assert!((2..=7).contains(&seconds), "{answer:?}");
}
