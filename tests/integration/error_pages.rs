//! Pages for answers of our own: who gets which, what stays as it was, and what is never replaced.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
    time::{Duration, Instant},
};

use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    edge::{Edge, Home},
    every_client,
    raw::Raw,
    recorder::Recorder,
    site::{Site, free_port},
    wait::wait_until,
};

every_client! {
    a_page_stands_for_a_refusal,
    a_head_request_gets_no_page,
    the_engine_shows_the_same_pages,
    each_client_gets_the_kind_it_asks_for,
    a_route_goes_before_its_site,
    requests_of_no_route_get_the_pages_of_the_site,
    answers_of_the_application_are_never_replaced,
    the_largest_page_arrives_whole,
    nothing_of_a_request_gets_into_a_page,
}

const HTML: &str = "<!doctype html>\n<style>h1{color:red}</style>\n<h1>{status} {error}</h1>\n<p>{message}: {reason}</p>\n\
                    <small>{request_id}</small> { status } {nothing}\n";
const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

/// The usual front before an upstream that nobody serves; `more` stands in the site.
fn site(more: &str) -> Site {
    Site::proxy_to(format!("127.0.0.1:{}", free_port(&Default::default()))).replace("    routes:", more)
}

/// With a page for all that is our fault or the application's.
fn with_page() -> Site {
    site("    error_pages: { 5xx: pages/any.html }\n    routes:")
}

fn home(site: &Site) -> Home {
    let home = Home::new(site);
    write(&home, "any.html", HTML);
    home
}

fn write(home: &Home, name: &str, text: impl AsRef<[u8]>) {
    let folder = home.path().join("pages");
    fs::create_dir_all(&folder).expect("the directory is ours");
    fs::write(folder.join(name), text).expect("the directory is ours");
}

async fn edge(site: &Site) -> Edge {
    Edge::launch(home(site)).ready().await
}

/// What [`HTML`] says of this answer, which is a 502.
fn filled_in(answer: &Answer) -> String {
    let id = answer.header("x-request-id").expect("every answer of ours has one");
    format!(
        "<!doctype html>\n<style>h1{{color:red}}</style>\n<h1>502 Bad Gateway</h1>\n\
         <p>the application could not be reached: connect_failed</p>\n<small>{id}</small> {{ status }} {{nothing}}\n"
    )
}

#[track_caller]
fn assert_page(answer: &Answer, client: &Client) {
    assert_eq!(answer.status, 502, "{}", client.kind());
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{}", client.kind());
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{}", client.kind());
    assert_eq!(answer.header("x-tidegate-reason"), Some("connect_failed"), "{}", client.kind());
    assert_eq!(answer.text(), filled_in(answer), "{}", client.kind());
    assert!(answer.is_complete(), "{}", client.kind());
}

async fn a_page_stands_for_a_refusal(kind: Kind) {
    let edge = edge(&with_page()).await;
    let client = edge.client(kind);
    // curl names nothing, and sees what a browser sees.
    for ask in [Ask::get("/"), Ask::get("/").header("accept", "*/*"), Ask::get("/").header("accept", BROWSER)] {
        assert_page(&client.ask(ask).await, &client);
    }
    let json = client.ask(Ask::get("/").header("accept", "application/json")).await;
    assert_eq!(json.header("content-type"), Some("application/json"), "{}", client.kind());
    assert_eq!(json.json()["reason"], "connect_failed", "{}", client.kind());
}

async fn a_head_request_gets_no_page(kind: Kind) {
    let edge = edge(&with_page()).await;
    let client = edge.client(kind);
    let answer = client.ask(Ask::new("HEAD", "/").header("accept", BROWSER)).await;
    answer.assert(502, b"");
    let length = filled_in(&answer).len().to_string();
    assert_eq!(answer.header("content-length"), Some(&length[..]), "{}", client.kind());
    // The connection is good for another one.
    assert_page(&client.get("/").await, &client);
}

async fn the_engine_shows_the_same_pages(kind: Kind) {
    let edge = edge(&with_page().replace("servers:", "protocol: h2\n    servers:")).await;
    let client = edge.client(kind);
    assert_page(&client.ask(Ask::get("/").header("accept", BROWSER)).await, &client);
    client.ask(Ask::new("HEAD", "/")).await.assert(502, b"");
    assert_page(&client.get("/").await, &client);
    let json = client.ask(Ask::get("/").header("accept", "application/json")).await;
    assert_eq!(json.json()["status"], 502, "{}", client.kind());
}

async fn each_client_gets_the_kind_it_asks_for(kind: Kind) {
    let site = site("    error_pages: { 502: [pages/a.json, pages/a.txt, pages/any.html], 5xx: off }\n    routes:");
    let home = home(&site);
    write(&home, "a.json", "{\"code\": {status}, \"why\": \"{reason}\", \"id\": \"{request_id}\"}");
    write(&home, "a.txt", "{error}\n");
    let edge = Edge::launch(home).ready().await;
    let client = edge.client(kind);
    let json = client.ask(Ask::get("/").header("accept", "application/problem+json")).await;
    assert_eq!(json.header("content-type"), Some("application/json"));
    let expected = serde_json::json!({ "code": 502, "why": "connect_failed", "id": json.header("x-request-id") });
    assert_eq!(json.json(), expected, "{}", client.kind());
    let text = client.ask(Ask::get("/").header("accept", "text/plain")).await;
    text.assert(502, b"Bad Gateway\n");
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_page(&client.ask(Ask::get("/").header("accept", BROWSER)).await, &client);
    client.get("/").await.assert(502, b"Bad Gateway\n");
}

async fn a_route_goes_before_its_site(kind: Kind) {
    let routes = "- { path: /, proxy: app }\n\
                  - { path: /own, error_pages: { 502: pages/own.txt }, proxy: app }\n\
                  - { path: /class, error_pages: { 5xx: pages/own.txt }, proxy: app }\n\
                  - { path: /off, error_pages: { 502: off }, proxy: app }\n\
                  - { path: /outer, error_pages: { 4xx: pages/own.txt }, routes: [{ path: /outer, max_body: 1KiB, proxy: app }] }";
    let nobody = format!("app: {{ servers: [{{ address: \"127.0.0.1:{}\" }}] }}", free_port(&Default::default()));
    let pages = "    error_pages: { 502: pages/site.txt }\n    routes:";
    let home = home(&Site::usual(routes, &nobody).replace("    routes:\n", &format!("{pages}\n")));
    write(&home, "site.txt", "the site's\n");
    write(&home, "own.txt", "the route's\n");
    let edge = Edge::launch(home).ready().await;
    let client = edge.client(kind);
    client.get("/").await.assert(502, b"the site's\n");
    client.get("/own").await.assert(502, b"the route's\n");
    // What is said of the status itself goes before what is said of its class, wherever it stands.
    client.get("/class").await.assert(502, b"the site's\n");
    let off = client.get("/off").await;
    assert!(off.status == 502 && off.text().starts_with("502 Bad Gateway\n"), "{}", off.text());
    client.get("/outer").await.assert(502, b"the site's\n");
    client.ask(Ask::post("/outer", vec![b'x'; 1025])).await.assert(413, b"the route's\n");
}

async fn requests_of_no_route_get_the_pages_of_the_site(kind: Kind) {
    let site = Site::usual("- { path: /in, proxy: app }", "app: { servers: [{ address: \"127.0.0.1:9\" }] }");
    let home = home(&site.replace("    routes:", "    error_pages: { 404: pages/404.txt }\n    routes:"));
    write(&home, "404.txt", "{reason}\n");
    let edge = Edge::launch(home).ready().await;
    let client = edge.client(kind);
    client.get("/elsewhere").await.assert(404, b"no_route\n");
    // Of a host that is no site's there is nobody's page. On TLS it is the connection that is the wrong one.
    let stranger = client.ask(Ask::get("/").host("elsewhere.example")).await;
    let reasons = ["unknown_host", "misdirected"];
    assert!(reasons.contains(&stranger.header("x-tidegate-reason").unwrap_or_default()), "{stranger:?}");
    assert!(stranger.text().contains("\nrequest "), "{}", stranger.text());
}

async fn answers_of_the_application_are_never_replaced(kind: Kind) {
    for status in ["404 Not Found", "500 Oops", "502 Bad Gateway", "503 Service Unavailable"] {
        let text = format!("HTTP/1.1 {status}\r\ncontent-type: text/x-own\r\ncontent-length: 5\r\n\r\nmine\n");
        let recorder = Recorder::answering(text).await;
        let pages = "    error_pages: { 4xx: pages/any.html, 5xx: pages/any.html }\n    routes:";
        let edge = edge(&Site::proxy_to(recorder.address()).replace("    routes:", pages)).await;
        let client = edge.client(kind);
        let answer = client.ask(Ask::get("/").header("accept", BROWSER)).await;
        assert_eq!(answer.status.as_str(), &status[..3], "{}", client.kind());
        assert_eq!((answer.text().as_str(), answer.header("content-type")), ("mine\n", Some("text/x-own")), "{status}");
    }
}

async fn the_largest_page_arrives_whole(kind: Kind) {
    let home = home(&with_page());
    let page = "0123456789abcdef".repeat((256 << 10) / 16);
    write(&home, "any.html", &page);
    let edge = Edge::launch(home).ready().await;
    edge.client(kind).get("/").await.assert(502, page.as_bytes());
}

async fn nothing_of_a_request_gets_into_a_page(kind: Kind) {
    let edge = edge(&with_page()).await;
    let client = edge.client(kind);
    let nasty = "<script>alert(1)</script>";
    let ask = Ask::get("/%3Cscript%3E?%3Cscript%3E=1").header("accept", BROWSER).header("user-agent", nasty);
    let answer = client.ask(ask.header("x-request-id", nasty).header("x-tidegate-reason", nasty)).await;
    assert_page(&answer, &client);
    assert!(!answer.text().contains("script"), "{}", answer.text());
}

// Once: gRPC is spoken over HTTP/2, and both of its clients take one way.
#[tokio::test]
async fn grpc_keeps_its_own_form() {
    let edge = edge(&with_page()).await;
    let ask = Ask::post("/x.Y/Z", "").header("content-type", "application/grpc").header("accept", BROWSER);
    let answer = edge.client(Kind::H2c).ask(ask).await;
    answer.assert(200, b"");
    assert_eq!((answer.header("grpc-status"), answer.header("content-type")), (Some("14"), Some("application/grpc")));
}

// Once: bytes that never were a request, so of no site.
#[tokio::test]
async fn what_cannot_be_read_is_answered_without_pages() {
    let site = site("    error_pages: { 4xx: pages/any.html }\n    routes:");
    let edge = edge(&site).await;
    let request = "GET / HTTP/1.1\r\nhost: test.example\r\nbad header\r\n\r\n";
    let (answer, _) = Raw::exchange(edge.address("plain"), request, Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("400 Bad Request\n"), "{answer}");
}

// Once: it is about a field that no client protocol touches.
#[tokio::test]
async fn a_page_keeps_the_time_to_come_again() {
    let routes = "- { path: /, rate_limit: { rate: 1/h, status: 420 }, proxy: app }";
    let recorder = Recorder::friendly().await;
    let upstreams = format!("app: {{ servers: [{{ address: \"{}\" }}] }}", recorder.address());
    let pages = "    error_pages: { 4xx: pages/any.html }\n    routes:\n";
    let edge = edge(&Site::usual(routes, &upstreams).replace("    routes:\n", pages)).await;
    let client = edge.client(Kind::Http1);
    client.get("/").await.assert(200, b"ok\n");
    let refused = client.get("/").await;
    assert!(refused.status == 420 && refused.text().contains(": rate_limited</p>"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{refused:?}");
}

// Once: what a page holds is told before any request.
#[tokio::test]
async fn a_reload_takes_what_a_page_has_become() {
    let site = with_page();
    let mut edge = edge(&site).await;
    let client = edge.client(Kind::Http1);
    assert_page(&client.get("/").await, &client);
    write(edge.home(), "any.html", "new: {reason}\n");
    assert_page(&client.get("/").await, &client);
    let told = edge.reload(&site).await;
    assert!(told.status.success() && told.stdout.contains("error_pages"), "{told:?}");
    client.get("/").await.assert(502, b"new: connect_failed\n");

    fs::remove_file(edge.home().path().join("pages/any.html")).expect("it is there");
    let told = edge.reload(&site).await;
    assert!(!told.status.success(), "{told:?}");
    let text = format!("{}{}", told.stdout, told.stderr);
    assert!(text.contains("cannot read the page \"pages/any.html\": No such file"), "{text}");
    client.get("/").await.assert(502, b"new: connect_failed\n");
}

/// What is said, and what makes it so.
type Row = (&'static str, &'static dyn Fn(&Path));

// Once: nothing of it gets as far as a client.
#[tokio::test]
async fn a_page_that_is_none_is_refused_at_once() {
    let home = home(&with_page());
    let page = home.path().join("pages/any.html");
    let rows: [Row; 6] = [
        ("larger than 262144 bytes", &|page| fs::write(page, vec![b'x'; 10 << 20]).expect("room")),
        ("it is a folder", &|page| fs::create_dir(page).expect("the directory is ours")),
        ("it is a pipe, socket or device", &|page| symlink("/dev/zero", page).expect("the directory is ours")),
        ("it is a pipe, socket or device", &|page| drop(UnixListener::bind(page))),
        ("levels of symbolic links", &|page| symlink(page, page).expect("the directory is ours")),
        ("it is not UTF-8 text (line 2)", &|page| fs::write(page, b"<p>\n\xff\xfe").expect("room")),
    ];
    for (expected, make) in rows {
        if page.is_dir() && !page.is_symlink() {
            fs::remove_dir(&page).expect("it is ours");
        } else {
            let _ = fs::remove_file(&page);
        }
        make(&page);
        let started = Instant::now();
        let told = home.tidegate(&["check"]).await;
        let text = format!("{}{}", told.stdout, told.stderr);
        assert!(!told.status.success() && text.contains(expected), "expected '{expected}': {text}");
        assert!(text.contains("site.yaml:") && started.elapsed() < Duration::from_secs(5), "{text}");
    }
}

// Once: it is about when the page is there.
#[tokio::test]
async fn the_page_is_there_while_no_worker_is() {
    let workers = "workers: { command: [\"@demo@\", --uds, \"{socket}\", --fail-boot], count: 1 }";
    let pages = "    error_pages: { 503: pages/any.html }\n    routes:";
    let edge = Edge::launch(home(&Site::proxy(workers).replace("    routes:", pages)));
    let client = edge.client(Kind::Http1);
    let answer = wait_until("an answer", Duration::from_secs(15), async || client.send(Ask::get("/")).await.ok()).await;
    assert!(answer.status == 503 && answer.text().contains("<h1>503 Service Unavailable</h1>"), "{}", answer.text());
    let reason = answer.header("x-tidegate-reason").expect("a reason");
    assert!(answer.text().contains(&format!(": {reason}</p>")), "{}", answer.text());
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}
