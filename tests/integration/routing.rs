//! Which site and which route a request gets.

use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    every_client,
    raw::status,
    recorder::Recorder,
    site::{LISTENERS, Site},
};

every_client! {
    a_host_finds_its_site_however_it_is_spelt,
    an_unknown_host_never_gets_the_first_site,
    a_path_finds_its_route_by_precedence,
    matchers_choose_among_routes,
    no_route_is_a_404_with_its_reason,
}

/// Sites that answer by themselves and say who they are.
fn hosts() -> Site {
    Site::new(format!(
        r#"{LISTENERS}
sites:
  - {{ name: exact, hosts: [test.example], tls: {{ certificate: "@dir@/server.pem", key: "@dir@/server.key" }}, routes: [{{ path: /, respond: {{ body: exact }} }}] }}
  - {{ name: wild, hosts: ["*.test.example"], tls: {{ certificate: "@dir@/server.pem", key: "@dir@/server.key" }}, routes: [{{ path: /, respond: {{ body: wild }} }}] }}
  - {{ name: other, hosts: [other.example], tls: {{ certificate: "@dir@/other.pem", key: "@dir@/other.key" }}, routes: [{{ path: /, respond: {{ body: other }} }}] }}
"#
    ))
}

async fn a_host_finds_its_site_however_it_is_spelt(kind: Kind) {
    let edge = Edge::start(hosts()).await;
    let client = edge.client(kind);
    for (host, site) in [
        ("test.example", "exact"),
        ("TEST.example", "exact"),
        ("test.example.", "exact"),
        ("test.example:8080", "exact"),
        ("a.test.example", "wild"),
        ("a.b.test.example", "wild"),
        ("other.example", "other"),
    ] {
        // The certificate that the clients on TLS ask for has no such name.
        if !kind.is_tls() || !["a.b.test.example", "other.example"].contains(&host) {
            client.ask(Ask::get("/").host(host)).await.assert(200, site.as_bytes());
        }
    }
}

async fn an_unknown_host_never_gets_the_first_site(kind: Kind) {
    let edge = Edge::start(hosts()).await;
    let client = edge.client(kind);
    for host in ["unknown.example", "127.0.0.1", "xtest.example", "test.example.evil.example"] {
        let answer = client.ask(Ask::get("/").host(host)).await;
        assert!(answer.status == 404 || answer.status == 421, "{host} over {}: {}", client.kind(), answer.status);
        assert!(answer.header("x-tidegate-reason").is_some(), "{host} over {}", client.kind());
    }
    // On TLS the name of the handshake is another one, so that such a request is misdirected.
    let (status, reason) = if kind.is_tls() { (421, "misdirected") } else { (404, "unknown_host") };
    let answer = client.ask(Ask::get("/").host("unknown.example")).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (status, Some(reason)));
}

// Once: both clients on TLS; there is no certificate without it.
#[tokio::test]
async fn a_connection_made_for_another_certificate_is_misdirected() {
    let edge = Edge::start(hosts()).await;
    for kind in [Kind::Http1Tls, Kind::H2Tls] {
        // The handshake asks for test.example, the request for a host with another certificate.
        let answer = edge.client(kind).ask(Ask::get("/").host("other.example")).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (421, Some("misdirected")), "{kind}");
    }
}

// Once: two listeners that differ.
#[tokio::test]
async fn a_listener_may_have_a_default_site() {
    let site = hosts().replace("name: plain,", "name: plain, default_site: other,");
    let edge = Edge::start(site).await;
    edge.client(Kind::Http1).ask(Ask::get("/").host("unknown.example")).await.assert(200, b"other");
    assert_eq!(edge.client(Kind::H2c).ask(Ask::get("/").host("unknown.example")).await.status, 404);
}

async fn a_path_finds_its_route_by_precedence(kind: Kind) {
    let routes = r#"
- { path: /, respond: { body: root } }
- { path: "= /exact", respond: { body: exact } }
- { path: /exact, respond: { body: prefix } }
- { path: /img/, respond: { body: img } }
- { path: "^~ /stop/", respond: { body: stop } }
- { path: '~ \.png$', respond: { body: first } }
- { path: '~ ^/img/.*\.png$', respond: { body: second } }
- { path: /nest/, routes: [{ path: /nest/a/, respond: { body: inner } }, { path: /nest/, respond: { body: outer } }] }
"#;
    let edge = Edge::start(Site::usual(routes, "unused: { servers: [{ address: \"127.0.0.1:9\" }] }")).await;
    for (path, route) in [
        ("/", "root"),
        ("/other", "root"),
        ("/exact", "exact"),
        ("/exact?q=1", "exact"),
        ("/exact/x", "prefix"),
        ("/img/x", "img"),
        ("/img/x.png", "first"),
        ("/stop/x.png", "stop"),
        ("/nest/a/b", "inner"),
        ("/nest/b", "outer"),
        ("//img//x", "img"),
        ("/img/../stop/x.png", "stop"),
        ("/%69mg/x", "img"),
    ] {
        let client = edge.client(kind);
        let answer = client.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, route), "{path} over {}", client.kind());
    }
}

async fn matchers_choose_among_routes(kind: Kind) {
    let routes = r#"
- { name: method, path: /x, methods: [POST, PUT], respond: { body: method } }
- { name: header, path: /x, headers: { x-color: blue }, respond: { body: header } }
- { name: query, path: /x, query: { a: "1" }, respond: { body: query } }
- { name: cookie, path: /x, cookies: { beta: "yes" }, respond: { body: cookie } }
- { name: rest, path: /x, respond: { status: 418, headers: { x-by: route }, body: rest } }
"#;
    let edge = Edge::start(Site::usual(routes, "unused: { servers: [{ address: \"127.0.0.1:9\" }] }")).await;
    let client = edge.client(kind);
    client.ask(Ask::post("/x", "")).await.assert(200, b"method");
    client.ask(Ask::get("/x").header("x-color", "blue")).await.assert(200, b"header");
    client.ask(Ask::get("/x?b=2&a=1")).await.assert(200, b"query");
    client.ask(Ask::get("/x").header("cookie", "a=b; beta=yes")).await.assert(200, b"cookie");
    let rest = client.ask(Ask::get("/x?a=11").header("x-color", "red").header("cookie", "beta=no")).await;
    rest.assert(418, b"rest");
    assert_eq!(rest.header("x-by"), Some("route"));
}

async fn no_route_is_a_404_with_its_reason(kind: Kind) {
    let recorder = Recorder::friendly().await;
    let upstreams = format!("app: {{ servers: [{{ address: \"{}\" }}] }}", recorder.address());
    let edge = Edge::start(Site::usual("- { path: /api/, proxy: app }", &upstreams)).await;
    let client = edge.client(kind);
    let answer = client.get("/apix").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-tidegate-reason")),
        (404, Some("no_route")),
        "{}",
        client.kind()
    );
    assert_eq!(client.get("/api/x").await.status, 200);
    assert_eq!(recorder.requests().len(), 1);
}

// Once: balancing knows no protocol.
#[tokio::test]
async fn weights_divide_the_requests() {
    let (light, heavy) = (Recorder::friendly().await, Recorder::friendly().await);
    let app =
        format!("servers: [{{ address: \"{}\" }}, {{ address: \"{}\", weight: 3 }}]", light.address(), heavy.address());
    let edge = Edge::start(
        Site::proxy(&app).and("server: { shards: 1, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }"),
    )
    .await;
    let mut connection = edge.client(Kind::Http1).connect().await.expect("the edge listens");
    for _ in 0..40 {
        connection.send(Ask::get("/")).await.expect("an answer");
    }
    assert_eq!((light.requests().len(), heavy.requests().len()), (10, 30));
}

// Once: bytes of HTTP/1.1.
#[tokio::test]
async fn a_request_that_breaks_the_rules_reaches_nobody() {
    let recorder = Recorder::friendly().await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET /%00 HTTP/1.1\r\nhost: test.example\r\n\r\n", 400),
        ("GET /../../x HTTP/1.1\r\nhost: test.example\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
        ("POST / HTTP/1.1\r\nhost: test.example\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("GET / HTTP/1.1\nhost: test.example\n\n", 400),
        ("GET / HTTP/3.0\r\nhost: test.example\r\n\r\n", 505),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", 405),
    ] {
        let limit = std::time::Duration::from_secs(5);
        let (answer, end) = tidegate_tests::raw::Raw::exchange(edge.address("plain"), request, limit).await;
        assert_eq!(status(&answer), expected, "{request:?} got {answer:?}");
        assert_ne!(end, tidegate_tests::raw::End::Open, "{request:?}");
    }
    assert!(recorder.requests().is_empty(), "{:#?}", recorder.requests());
}
