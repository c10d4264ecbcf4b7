//! A real FastAPI application on four supervised uvicorn workers, and real clients: curl, httpx, websockets.

use std::time::Duration;

use tidegate_tests::{
    certificates,
    client::Kind,
    curl::curl,
    edge::{Edge, Worker},
    load::Load,
    process::{Signal, send_signal},
    python,
    site::Site,
    wait::wait_for,
};

async fn fastapi() -> Edge {
    let app = "workers:\n  command: [\"@uvicorn@\", \"main:app\", --uds, \"{socket}\", --no-access-log]\n  count: 4\n  cwd: \"@app@\"\n  \
               env: { PYTHONDONTWRITEBYTECODE: \"1\" }\n  ready: { http: /health }";
    let site = Site::proxy(app).replace("{ path: /, proxy: app }", "{ path: /, proxy: app, max_body: 16MiB }");
    let site = site.with("uvicorn", python::program("uvicorn").display()).with("app", python::fastapi_app().display());
    Edge::start(site).await
}

fn four_ready(workers: &[Worker]) -> bool {
    workers.iter().filter(|worker| worker.is_ready()).count() == 4
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_serves_real_clients_through_four_workers() {
    let edge = fastapi().await;
    edge.ready_workers("app", 4).await;
    curl_is_served(&edge).await;
    let ports = ["plain", "h2c", "tls"].map(|listener| edge.address(listener).port().to_string());
    let ca = certificates::file("ca.pem").display().to_string();
    let finished = python::run_script("clients.py", &[&ports[..], &[ca]].concat()).await;
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains("all served"), "{}", finished.stdout);
    a_killed_worker_costs_no_request(&edge).await;
}

async fn curl_is_served(edge: &Edge) {
    for (listener, version, more) in
        [("plain", "1.1", &[][..]), ("h2c", "2", &[]), ("tls", "2", &["--http2"]), ("tls", "1.1", &["--http1.1"])]
    {
        let got = curl(edge, listener, "/items/7?q=a%20b", more).await;
        assert_eq!((got.status, got.version.as_str()), (200, version), "{listener}: {got:?}");
        assert_eq!(got.body, r#"{"item_id":7,"q":"a b"}"#, "{listener}");
        let posted = [more, &["--json", r#"{"name":"x","price":1.5}"#]].concat();
        assert_eq!(
            curl(edge, listener, "/items", &posted).await.body,
            r#"{"name":"x","price":1.5,"total":1.65}"#,
            "{listener}"
        );
        let streamed = curl(edge, listener, "/stream?n=5", more).await;
        assert_eq!(
            (streamed.body.as_str(), streamed.code),
            ("line 0\nline 1\nline 2\nline 3\nline 4\n", 0),
            "{listener}"
        );
        let file = certificates::file("make.sh");
        let form = format!("file=@{}", file.display());
        let upload = [more, &["--form", &form]].concat();
        let size = file.metadata().expect("the script is there").len();
        let got = curl(edge, listener, "/upload", &upload).await;
        assert!(got.body.contains(&format!("\"size\":{size}")) && got.body.contains("make.sh"), "{listener}: {got:?}");
        let client = curl(edge, listener, "/client", more).await;
        let scheme = if listener == "tls" { "https" } else { "http" };
        assert!(
            client.body.contains("\"host\":\"127.0.0.1\"") && client.body.contains(&format!("\"scheme\":\"{scheme}\"")),
            "{client:?}"
        );
    }
}

async fn a_killed_worker_costs_no_request(edge: &Edge) {
    let before = edge.workers("app").await;
    let load = Load::start(
        &[edge.client(Kind::Http1), edge.client(Kind::H2Tls)],
        4,
        "/health",
        br#"{"status":"ok"}"#.to_vec(),
    );
    wait_for("some load", Duration::from_secs(20), || (load.sent() > 50).then_some(())).await;
    send_signal(before[2].pid, Signal::SIGKILL);
    let back = |workers: &[Worker]| four_ready(workers) && workers[2].pid != before[2].pid;
    let after = edge.workers_until("app", Duration::from_secs(30), back).await;
    load.stop().await.assert_clean();
    assert_eq!(after[2].restarts, before[2].restarts + 1);
}
