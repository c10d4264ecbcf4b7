//! The admin endpoint, and the log of accesses.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use bytes::Bytes;
use tidegate_tests::{
    client::{Ask, Client, Kind},
    edge::{Edge, Home},
    raw::Raw,
    recorder::{Recorder, Step},
    site::Site,
    wait::{wait_for, wait_until},
};

#[tokio::test]
async fn the_socket_is_for_its_owner_alone() {
    let edge = Edge::start(Site::demo_workers(1, &[])).await;
    let mode = edge.home().path().join("admin.sock").metadata().expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn the_status_names_everything() {
    let edge = Edge::start(Site::demo_workers(2, &[])).await;
    edge.ready_workers("app", 2).await;
    let status = edge.status().await;
    let names: Vec<_> = status["listeners"].as_array().expect("listeners").iter().map(|entry| &entry["name"]).collect();
    assert_eq!(names, ["plain", "h2c", "tls"]);
    assert_eq!(status["listeners"][0]["address"], edge.address("plain").to_string());
    assert_eq!(status["sites"][0]["name"], "main");
    assert_eq!(status["upstreams"][0]["name"], "app");
    assert_eq!(status["pid"], edge.pid());
    for worker in status["upstreams"][0]["workers"].as_array().expect("workers") {
        assert_eq!(worker["state"], "ready", "{worker}");
        assert!(worker["pid"].as_u64() > Some(0) && worker["rss_bytes"].as_u64() > Some(100_000), "{worker}");
        assert!(worker["restarts"].is_u64() && worker["generation"].is_u64(), "{worker}");
    }
    for endpoint in status["upstreams"][0]["endpoints"].as_array().expect("endpoints") {
        assert_eq!((&endpoint["state"], &endpoint["in_flight"]), (&"ready".into(), &0.into()), "{endpoint}");
    }
}

#[tokio::test]
async fn in_flight_is_counted_and_goes_back_to_zero() {
    let edge = Edge::start(Site::demo_workers(1, &[])).await;
    let in_flight = async || edge.status().await["upstreams"][0]["endpoints"][0]["in_flight"].as_u64();
    let client = edge.client(Kind::Http1);
    let slow = tokio::spawn(async move { client.get("/slow?ms=600").await });
    wait_until("the request in flight", Duration::from_secs(5), async || (in_flight().await == Some(1)).then_some(()))
        .await;
    assert_eq!(slow.await.expect("an answer").status, 200);
    wait_until("its end", Duration::from_secs(5), async || (in_flight().await == Some(0)).then_some(())).await;
}

#[tokio::test]
async fn metrics_count_by_configured_names_only() {
    let edge = Edge::start(Site::demo_workers(1, &[])).await;
    for client in edge.clients() {
        client.get("/bytes?n=3&secret-path=1").await.assert(200, b"000");
        client.ask(Ask::get("/").host("secret-host.example")).await;
    }
    let metrics = edge.admin().metrics().await.expect("metrics");
    assert!(metrics.contains("tidegate_") && metrics.contains("app") && metrics.contains("main"), "{metrics}");
    for never in ["secret-path", "secret-host", "/bytes", "127.0.0.1"] {
        assert!(!metrics.contains(never), "'{never}' is in the metrics:\n{metrics}");
    }
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn health_and_readiness_are_told_apart() {
    let edge = Edge::launch(Home::new(&Site::demo_workers(1, &["--boot-delay", "1500"])));
    let healthy = async || edge.admin().get("/healthz").await.is_ok_and(|answer| answer.status == 200).then_some(());
    wait_until("the process to be healthy", Duration::from_secs(10), healthy).await;
    assert_eq!(edge.admin().get("/readyz").await.expect("an answer").status, 503, "its worker still boots");
    let edge = edge.ready().await;
    assert_eq!(edge.admin().get("/nothing").await.expect("an answer").status, 404);
    assert_eq!(edge.admin().ask(Ask::new("DELETE", "/status")).await.expect("an answer").status, 405);
    assert_eq!(edge.admin().get("/reload").await.expect("an answer").status, 405, "a reload is no GET");
}

#[tokio::test]
async fn a_reload_by_the_endpoint_reports() {
    let edge = Edge::start(Site::demo_workers(1, &[])).await;
    let report = edge.admin().ask(Ask::post("/reload", "")).await.expect("an answer");
    assert_eq!((report.status.as_u16(), &report.json()["applied"]), (200, &true.into()), "{}", report.text());
}

#[tokio::test]
async fn on_tcp_the_token_is_needed() {
    let site =
        Site::demo_workers(1, &[]).and("admin: { listen: \"127.0.0.1:@port:admin@\", token: sesame-0123456789abcdef }");
    let edge = Edge::launch(Home::new(&site));
    let client = Client::new(Kind::Http1, edge.address("admin"));
    let ask = |path: &str| Ask::get(path).host("127.0.0.1");
    let allowed = || ask("/status").header("authorization", "Bearer sesame-0123456789abcdef");
    let answer = wait_until("an answer", Duration::from_secs(20), async || client.send(allowed()).await.ok()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for refused in [ask("/status"), ask("/metrics"), ask("/status").header("authorization", "Bearer open")] {
        let answer = client.ask(refused).await;
        assert!(matches!(answer.status.as_u16(), 401 | 403), "{}: {}", answer.status, answer.text());
    }
    let rebound = client.ask(allowed().host("evil.example")).await;
    assert!(rebound.status.is_client_error(), "a page of another name: {}", rebound.status);
    let crossed = client.ask(allowed().header("origin", "http://evil.example")).await;
    assert_eq!(crossed.status, 403, "a page of another origin");
}

#[tokio::test]
async fn on_tcp_without_a_token_it_does_not_start() {
    let site = Site::demo_workers(1, &[]).and("admin: { listen: \"127.0.0.1:@port:admin@\" }");
    let finished = Home::new(&site).tidegate(&["check"]).await;
    let told = format!("{}{}", finished.stdout, finished.stderr);
    assert!(finished.status.code() == Some(1) && told.contains("token"), "{told}");
}

#[tokio::test]
async fn the_status_command_prints_a_table_and_json() {
    let edge = Edge::start(Site::demo_workers(2, &[])).await;
    let table = edge.home().tidegate(&["status"]).await;
    assert!(table.status.success(), "{}", table.stderr);
    for shown in ["plain", "main", "app", "ready"] {
        assert!(table.stdout.contains(shown), "no '{shown}' in\n{}", table.stdout);
    }
    let json = edge.home().tidegate(&["status", "--format", "json"]).await;
    let status: serde_json::Value =
        serde_json::from_str(&json.stdout).unwrap_or_else(|error| panic!("{error}: {}", json.stdout));
    assert_eq!(status["pid"], edge.pid());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempts_time_is_its_own() {
    // Takes a second, and fails.
    let slow = Recorder::start(|_| vec![Step::Pause(Duration::from_secs(1)), Step::Close]).await;
    let quick = Recorder::friendly().await;
    let servers = format!("servers: [{{ address: \"{}\" }}, {{ address: \"{}\" }}]", slow.address(), quick.address());
    let routes = "- { path: /collected, proxy: quick, buffer: { request: on } }\n- { path: /, proxy: app }";
    let logging = "logging: { access: { to: \"@dir@/access.log\", format: \"$uri $status $request_time $upstream_response_time\" } }";
    let site = Site::usual(
        routes,
        &format!("app: {{ {servers} }}\nquick: {{ servers: [{{ address: \"{}\" }}] }}", quick.address()),
    )
    .and(logging);
    let edge = Edge::start(site).await;
    let client = edge.client(Kind::Http1);
    client.get("/retried").await.assert(200, b"ok\n");
    let pieces = vec![Bytes::from_static(b"x"); 2];
    client.ask(Ask::post_slowly("/collected", pieces, Duration::from_secs(1))).await.assert(200, b"ok\n");
    let path = edge.home().path().join("access.log");
    for (uri, status) in [("/retried", "200"), ("/collected", "200")] {
        let line = wait_for("the line", Duration::from_secs(5), || {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            log.lines().find(|line| line.starts_with(uri)).map(str::to_owned)
        });
        let line = line.await;
        let words: Vec<&str> = line.split(' ').collect();
        let [whole, attempt] = [words[2], words[3]].map(|time| time.parse::<f64>().expect("a time"));
        assert!(words[1] == status && whole >= 0.9 && attempt < 0.7, "{line}");
    }
}

#[tokio::test]
async fn each_access_is_one_line() {
    let recorder = Recorder::friendly().await;
    let logging = "logging: { access: { to: \"@dir@/access.log\", format: json } }";
    let edge = Edge::start(Site::proxy_to(recorder.address()).and(logging)).await;
    for client in edge.clients() {
        client
            .ask(Ask::get("/a?b=%22%0a").header("user-agent", "a \"quoted\" ag\u{e9}nt \\"))
            .await
            .assert(200, b"ok\n");
    }
    Raw::exchange(edge.address("plain"), "GET / HTTP/1.1\r\nhost: no-such-host\r\n\r\n", Duration::from_millis(300))
        .await;
    let path = edge.home().path().join("access.log");
    let lines = wait_for("five lines", Duration::from_secs(10), || {
        let text = std::fs::read_to_string(&path).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= 5).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 5, "{lines:#?}");
    for line in lines {
        assert!(line.bytes().all(|byte| byte >= 0x20), "{line:?}");
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(entry["status"] == 200 || entry["status"] == 404, "{entry}");
    }
}
