//! Keys of sites and routes. Each value has a site with a host of its own.

use std::{fs, sync::Arc, time::Duration};

use tidegate_tests::{
    certificates::{self, HTTP1, curious_client, trusting_client},
    client::{Ask, Kind},
    connect,
    edge::{Edge, Home},
    recorder::{Recorder, Seen, Step},
    site::{CERTIFICATE, LISTENERS, Site},
    wait::wait_until,
};

use super::{Place, Row, check, mapping, value};

const ROWS: &[Row<Place>] = &[
    Row {
        key: "sites[].name",
        values: ["name: first-PLACE", "name: second-PLACE"],
        observe: |place| Box::pin(name_in_status(place)),
        expected: ["first", "second"],
    },
    Row {
        key: "sites[].hosts",
        values: ["hosts: [PLACE.test.example]", "hosts: [\"*.PLACE.test.example\"]"],
        observe: |place| Box::pin(host_below(place)),
        expected: ["404", "200"],
    },
    Row {
        key: "sites[].listeners",
        values: ["listeners: [plain, tls]", "listeners: [h2c, tls]"],
        observe: |place| Box::pin(status_of(place, Ask::get("/"))),
        expected: ["200", "404"],
    },
    Row {
        key: "sites[].tls",
        values: ["tls: { certificate: \"@dir@/server.pem\", key: \"@dir@/server.key\" }", "tls: internal"],
        observe: |place| Box::pin(issuer(place)),
        expected: ["test CA", "another CA"],
    },
    Row {
        key: "sites[].tls.certificate",
        values: [
            "tls: { key: \"@dir@/server.key\", certificate: \"@dir@/server.pem\" }",
            "tls: { key: \"@dir@/server.key\", certificate: \"@dir@/chain.pem\" }",
        ],
        observe: |place| Box::pin(length_of_chain(place)),
        expected: ["1", "2"],
    },
    Row {
        key: "sites[].tls_policy",
        values: ["", "tls_policy: modern"],
        observe: |place| Box::pin(tls_1_2(place)),
        expected: ["yes", "no"],
    },
    Row {
        key: "sites[].max_body",
        values: ["", "max_body: 1KiB"],
        observe: |place| Box::pin(status_of(place, Ask::post("/", vec![b'x'; 2_000]))),
        expected: ["200", "413"],
    },
    Row {
        key: "sites[].forward_path",
        values: ["", "forward_path: raw"],
        observe: |place| Box::pin(forwarded(place, "/x//%62/../c")),
        expected: ["/x/c", "/x//%62/../c"],
    },
    Row {
        key: "sites[].error_pages",
        values: ["max_body: 1KiB", "max_body: 1KiB, error_pages: { 413: \"@dir@/page.txt\" }"],
        observe: |place| Box::pin(refusal(place, Ask::post("/", vec![b'x'; 2_000]))),
        expected: ["413", "a page"],
    },
    Row {
        key: "sites[].routes[].error_pages",
        values: ["max_body: 1KiB", "max_body: 1KiB, error_pages: { 4xx: [\"@dir@/page.txt\"] }"],
        observe: |place| Box::pin(refusal(place, Ask::post("/x", vec![b'x'; 2_000]))),
        expected: ["413", "a page"],
    },
    Row {
        key: "sites[].routes[].path",
        values: ["path: /x", "path: \"= /x\""],
        observe: |place| Box::pin(status_of(place, Ask::get("/x/y"))),
        expected: ["200", "404"],
    },
    Row {
        key: "sites[].routes[].name",
        values: ["name: first", "name: second"],
        observe: |place| Box::pin(route_in_metrics(place)),
        expected: ["first", "second"],
    },
    Row {
        key: "sites[].routes[].methods",
        values: ["", "methods: [POST]"],
        observe: |place| Box::pin(status_of(place, Ask::get("/x"))),
        expected: ["200", "404"],
    },
    Row {
        key: "sites[].routes[].headers",
        values: ["", "headers: { x-color: blue }"],
        observe: |place| Box::pin(status_of(place, Ask::get("/x").header("x-color", "red"))),
        expected: ["200", "404"],
    },
    Row {
        key: "sites[].routes[].query",
        values: ["", "query: { color: blue }"],
        observe: |place| Box::pin(status_of(place, Ask::get("/x?color=red"))),
        expected: ["200", "404"],
    },
    Row {
        key: "sites[].routes[].cookies",
        values: ["", "cookies: { color: blue }"],
        observe: |place| Box::pin(status_of(place, Ask::get("/x").header("cookie", "color=red"))),
        expected: ["200", "404"],
    },
    Row {
        key: "sites[].routes[].max_body",
        values: ["proxy: origin", "proxy: origin, max_body: 1KiB"],
        observe: |place| Box::pin(status_of(place, Ask::post("/x", vec![b'x'; 2_000]))),
        expected: ["200", "413"],
    },
    Row {
        key: "sites[].routes[].forward_path",
        values: ["proxy: origin", "proxy: origin, forward_path: raw"],
        observe: |place| Box::pin(forwarded(place, "/x//%62/../c")),
        expected: ["/x/c", "/x//%62/../c"],
    },
    Row {
        key: "sites[].routes[].proxy",
        values: ["proxy: origin", "proxy: other"],
        observe: |place| Box::pin(body(place)),
        expected: ["ok\n", "other"],
    },
    Row {
        key: "sites[].routes[].respond.status",
        values: ["respond: { body: a }", "respond: { body: a, status: 203 }"],
        observe: |place| Box::pin(status_of(place, Ask::get("/x"))),
        expected: ["200", "203"],
    },
    Row {
        key: "sites[].routes[].respond.headers",
        values: ["respond: { body: a }", "respond: { body: a, headers: { x-color: blue } }"],
        observe: |place| Box::pin(color(place)),
        expected: ["none", "blue"],
    },
    Row {
        key: "sites[].routes[].respond.body",
        values: ["respond: {}", "respond: { body: hello }"],
        observe: |place| Box::pin(body(place)),
        expected: ["", "hello"],
    },
    Row {
        key: "sites[].routes[].routes",
        values: [
            "routes: [{ path: /x/in, respond: { body: inner } }]",
            "routes: [{ path: /x/in, respond: { body: inner } }, { path: /x, respond: { body: outer } }]",
        ],
        observe: |place| Box::pin(status_of(place, Ask::get("/x"))),
        expected: ["404", "200"],
    },
];

/// A key that fits no other certificate, so its second value does not start.
const KEY_FILE: &[Row<&str>] = &[Row {
    key: "sites[].tls.key",
    values: ["key: \"@dir@/server.key\"", "key: \"@dir@/other.key\""],
    observe: |value| Box::pin(checked(value)),
    expected: ["fine", "refused"],
}];

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).chain(KEY_FILE.iter().map(|row| row.key)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_sites_act() {
    let origin = Recorder::start(|seen| vec![Step::Send(origin(seen).into())]).await;
    let other = Recorder::answering(OTHER).await;
    let home = Home::new(&site(&origin, &other));
    let read = |name: &str| fs::read_to_string(certificates::file(name)).expect("the repository has certs/");
    fs::write(home.path().join("chain.pem"), read("server.pem") + &read("ca.pem")).expect("the directory is ours");
    fs::write(home.path().join("page.txt"), "a page\n").expect("the directory is ours");
    let edge = Arc::new(Edge::launch(home).ready().await);
    check(ROWS, 8, Place::of(&edge)).await;
    check(KEY_FILE, 1, |index, side| KEY_FILE[index].values[side]).await;
}

fn site(origin: &Recorder, other: &Recorder) -> Site {
    let mut sites = String::new();
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let (name, value) = (super::name(index, side), value(row, index, side));
            let of_site =
                if row.key.starts_with("sites[].routes[].") { format!("routes: [{}]", route(&value)) } else { value };
            let hosts = format!("hosts: [{name}.test.example]");
            let tls = format!("tls: {CERTIFICATE}");
            let defaults = [&format!("name: {name}")[..], &hosts, &tls, "routes: [{ path: /, proxy: origin }]"];
            sites.push_str(&format!("  - {}\n", mapping(&of_site, &defaults)));
        }
    }
    let server = |recorder: &Recorder| format!("{{ servers: [{{ address: \"{}\" }}] }}", recorder.address());
    let (origin, other) = (server(origin), server(other));
    Site::new(format!(
        "{LISTENERS}\nsites:\n{sites}\ntls_policies: {{ modern: {{ min_version: 1.3 }} }}\nupstreams:\n  origin: {origin}\n  other: {other}\n"
    ))
}

/// An origin that says which target it was asked for.
fn origin(seen: &Seen) -> String {
    format!("HTTP/1.1 200 OK\r\nx-target: {}\r\ncontent-length: 3\r\n\r\nok\n", seen.target())
}

/// A route for `/x` that says 200 unless the value says otherwise.
fn route(value: &str) -> String {
    let action = if ["proxy:", "respond:", "routes:"].iter().any(|action| value.starts_with(action)) {
        ""
    } else {
        "respond: { body: \"\" }"
    };
    mapping(value, &["path: /x", "name: tried", action])
}

async fn name_in_status(place: Place) -> String {
    let status = place.edge.status().await;
    let hosts = serde_json::json!([place.host()]);
    let site = status["sites"].as_array().into_iter().flatten().find(|site| site["hosts"] == hosts);
    let name = site.and_then(|site| site["name"].as_str()).unwrap_or("none");
    name.trim_end_matches(&format!("-{}", place.name)).to_owned()
}

async fn status_of(place: Place, ask: Ask) -> String {
    place.ask(ask).await.status.as_u16().to_string()
}

async fn forwarded(place: Place, target: &str) -> String {
    place.ask(Ask::get(target)).await.header("x-target").unwrap_or("none").to_owned()
}

/// The first word of our own form, or the page.
async fn refusal(place: Place, ask: Ask) -> String {
    let text = place.ask(ask).await.text();
    let line = text.lines().next().unwrap_or_default();
    if line.starts_with("4") { line[..3].to_owned() } else { line.to_owned() }
}

async fn host_below(place: Place) -> String {
    let ask = Ask::get("/").host(&format!("below.{}", place.host()));
    place.client().ask(ask).await.status.as_u16().to_string()
}

async fn body(place: Place) -> String {
    place.ask(Ask::get("/x")).await.text()
}

async fn color(place: Place) -> String {
    place.ask(Ask::get("/x")).await.header("x-color").unwrap_or("none").to_owned()
}

async fn issuer(place: Place) -> String {
    let address = place.edge.address(Kind::Http1Tls.listener());
    let trusted = connect::tls(address, &place.host(), trusting_client(&[HTTP1])).await.is_ok();
    connect::tls(address, &place.host(), curious_client(&[HTTP1])).await.expect("a certificate of some kind");
    if trusted { "test CA" } else { "another CA" }.to_owned()
}

/// Whether a client that speaks TLS 1.2 only is served.
async fn tls_1_2(place: Place) -> String {
    let config = certificates::client_speaking(&[&rustls::version::TLS12], &[HTTP1], None, |_| {});
    let address = place.edge.address(Kind::Http1Tls.listener());
    let stream = connect::tls(address, &place.host(), config).await;
    if stream.is_ok() { "yes" } else { "no" }.to_owned()
}

async fn length_of_chain(place: Place) -> String {
    let address = place.edge.address(Kind::Http1Tls.listener());
    let stream = connect::tls(address, &place.host(), curious_client(&[HTTP1])).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len).to_string()
}

async fn route_in_metrics(place: Place) -> String {
    place.ask(Ask::get("/x")).await.assert(200, b"");
    let site = format!("site=\"{}\"", place.name);
    wait_until("the request in the metrics", Duration::from_secs(5), async || {
        let metrics = place.edge.admin().metrics().await.ok()?;
        let counted =
            |line: &&str| line.starts_with("tidegate_requests_total{") && line.contains(&site) && !line.ends_with(" 0");
        let line = metrics.lines().find(counted)?;
        Some(line.split("route=\"").nth(1)?.split('"').next()?.to_owned())
    })
    .await
}

async fn checked(key: &str) -> String {
    let tls = format!("{{ certificate: \"@dir@/server.pem\", {key} }}");
    let site = Site::usual("- { path: /, respond: { body: hello } }", "").replace(CERTIFICATE, &tls);
    let finished = Home::new(&site.replace("upstreams:", "")).tidegate(&["check"]).await;
    if finished.status.success() { "fine" } else { "refused" }.to_owned()
}

const OTHER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother";
