//! TLS with servers: whom we trust, what we show, and which connections serve whom.

use std::{net::SocketAddr, time::Duration};

use tidegate_tests::{
    authority::{Authority, Identity},
    client::{Answer, Ask, Connection, Ending, Kind},
    connect,
    edge::{Edge, Home},
    recorder::Recorder,
    site::{LISTENERS, Site},
    tls_origin::TlsOrigin,
    wait::wait_for,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A site file with an upstream and a host (`NAME.test.example`) for each of these.
fn site(upstreams: &[(&str, String)]) -> Site {
    let (mut sites, mut groups) = (String::new(), String::new());
    for (name, upstream) in upstreams {
        let listeners = "listeners: [plain]";
        sites.push_str(&format!(
            "  - {{ hosts: [{name}.test.example], {listeners}, max_body: 64MiB, routes: [{{ path: /, proxy: {name} }}] }}\n"
        ));
        groups.push_str(&format!("  {name}: {{ {upstream} }}\n"));
    }
    Site::new(format!("{LISTENERS}\nsites:\n{sites}\nupstreams:\n{groups}"))
}

fn server(origin: &TlsOrigin, tls: &str) -> String {
    format!("servers: [{{ address: \"{}\" }}], tls: {{ {tls} }}", origin.address())
}

async fn ask(edge: &Edge, name: &str, target: &str) -> Answer {
    edge.client(Kind::Http1).ask(Ask::get(target).host(&format!("{name}.test.example"))).await
}

/// A server that answers whatever comes in plain HTTP.
async fn without_tls() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
            let mut dropped = [0; 4096];
            while stream.read(&mut dropped).await.is_ok_and(|count| count > 0) {}
        }
    });
    address
}

/// So that an idle connection is there for everybody.
const ONE_SHARD: &str = "server: { shards: 1, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }";
const RIGHT: &str = "ca: \"@dir@/right.pem\", server_name: one.example";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_whom_we_trust_or_the_answer_is_502() {
    let (right, other) = (Authority::new("right"), Authority::new("other"));
    let good = TlsOrigin::start(&right.issue(&["one.example"]), None).await;
    let by_address = TlsOrigin::start(&right.issue(&["127.0.0.1"]), None).await;
    let expired = TlsOrigin::start(&right.issue_expired(&["one.example"]), None).await;
    let lonely = TlsOrigin::start(&Identity::self_signed(&["one.example"]), None).await;
    let foreign = TlsOrigin::start(&other.issue(&["one.example"]), None).await;
    let asking = TlsOrigin::start(&right.issue(&["one.example"]), Some(&other)).await;
    let plain = without_tls().await;
    let known = format!("{RIGHT}, certificate: \"@dir@/known.pem\", key: \"@dir@/known.key\"");
    let stranger = format!("{RIGHT}, certificate: \"@dir@/stranger.pem\", key: \"@dir@/stranger.key\"");
    let wrong = RIGHT.replace("one", "two");
    let without = "ca: \"@dir@/right.pem\"";
    // The word is of the line in the log, which is for the operator.
    let rows: [(&str, String, Option<&str>); 12] = [
        ("good", server(&good, RIGHT), None),
        ("address", server(&by_address, without), None),
        ("unverified", server(&lonely, "verify: false, server_name: one.example"), None),
        ("known", server(&asking, &known), None),
        ("wrong-name", server(&good, &wrong), Some("not valid for name")),
        ("wrong-address", server(&good, without), Some("not valid for name")),
        ("expired", server(&expired, RIGHT), Some("expired")),
        ("lonely", server(&lonely, RIGHT), Some("invalid peer certificate")),
        ("foreign", server(&foreign, RIGHT), Some("UnknownIssuer")),
        ("unknown", server(&asking, RIGHT), None),
        ("stranger", server(&asking, &stranger), None),
        ("plain", format!("servers: [{{ address: \"{}\" }}], tls: {{ {RIGHT} }}", plain), Some("corrupt")),
    ];
    let home = Home::new(&site(&rows.clone().map(|(name, upstream, _)| (name, upstream))));
    right.write(&home.path().join("right.pem"));
    let someone = other.issue(&["someone"]);
    someone.write(home.path(), "known");
    right.issue(&["someone"]).write(home.path(), "stranger");
    let edge = Edge::launch(home).ready().await;
    for (name, _, told) in &rows {
        let answer = ask(&edge, name, "/").await;
        let failing = ["unknown", "stranger"].contains(name) || told.is_some();
        assert_eq!(answer.status, if failing { 502 } else { 200 }, "{name}");
        if let Some(told) = told {
            assert_eq!(answer.header("x-tidegate-reason"), Some("upstream_tls"), "{name}");
            let upstream = format!("\"{name}\"");
            let line = wait_for("the line in the log", Duration::from_secs(5), || {
                let log = edge.output().stderr();
                log.lines().find(|line| line.contains("no TLS") && line.contains(&upstream)).map(str::to_owned)
            });
            let line = line.await;
            assert!(line.contains(told), "{name}: {line}");
        }
    }
    let shown = asking.met().pop().expect("a connection").certificate;
    assert_eq!(shown, Some(someone.certificate));
    assert_eq!(good.met()[0].server_name.as_deref(), Some("one.example"));
    assert_eq!(by_address.met()[0].server_name, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_farewell_is_cut() {
    let right = Authority::new("right");
    let origin = TlsOrigin::start(&right.issue(&["one.example"]), None).await;
    let home = Home::new(&site(&[("app", server(&origin, RIGHT))]));
    right.write(&home.path().join("right.pem"));
    let edge = Edge::launch(home).ready().await;
    let whole = ask(&edge, "app", "/until-close").await;
    assert_eq!((whole.body.as_ref(), &whole.ending), (&b"hello"[..], &Ending::Complete));
    let cut = ask(&edge, "app", "/cut").await;
    assert!(matches!(cut.ending, Ending::Cut(_)), "{cut:?}");
    ask(&edge, "app", "/").await.assert(200, b"ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass() {
    let right = Authority::new("right");
    let origin = TlsOrigin::start(&right.issue(&["one.example"]), None).await;
    let home = Home::new(&site(&[("app", server(&origin, RIGHT))]).and(ONE_SHARD));
    right.write(&home.path().join("right.pem"));
    let edge = Edge::launch(home).ready().await;
    for length in [0_usize, 1, 16_384, 100_000, 9_000_000] {
        let ask = Ask::post("/length", vec![b'x'; length]).host("app.test.example");
        edge.client(Kind::Http1).ask(ask).await.assert(200, length.to_string().as_bytes());
        let connections = origin.met().len();
        edge.client(Kind::Http1).ask(Ask::get("/").host("app.test.example")).await.assert(200, b"ok");
        assert_eq!(origin.met().len(), connections, "a body of {length} bytes leaves its connection fit for others");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_serves_only_those_who_trust_it() {
    let (right, other) = (Authority::new("right"), Authority::new("other"));
    let origin = TlsOrigin::start(&right.issue(&["one.example"]), None).await;
    let trusting = server(&origin, RIGHT);
    let doubting = server(&origin, &RIGHT.replace("right", "other"));
    let both = [("trusting", trusting.clone()), ("doubting", doubting.clone())];
    let home = Home::new(&site(&both).and(ONE_SHARD));
    right.write(&home.path().join("right.pem"));
    other.write(&home.path().join("other.pem"));
    let mut edge = Edge::launch(home).ready().await;
    for _ in 0..3 {
        ask(&edge, "trusting", "/").await.assert(200, b"ok");
        assert_eq!(ask(&edge, "doubting", "/").await.status, 502);
    }
    assert_eq!(origin.met().len(), 1);

    // The same upstream, at the same address, with another CA: the idle connection is of no use to it.
    let changed = [("trusting", doubting), ("doubting", trusting)];
    assert!(edge.reload(&site(&changed).and(ONE_SHARD)).await.status.success());
    assert_eq!(ask(&edge, "trusting", "/").await.status, 502);
    ask(&edge, "doubting", "/").await.assert(200, b"ok");

    // The file itself changes.
    right.write(&edge.home().path().join("other.pem"));
    assert!(edge.reload(&site(&changed).and(ONE_SHARD)).await.status.success());
    ask(&edge, "trusting", "/").await.assert(200, b"ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_with_servers_outlive_a_reload() {
    let right = Authority::new("right");
    let origin = TlsOrigin::start(&right.issue(&["one.example"]), None).await;
    let upstream = format!("{}, idle_connections: 0", server(&origin, RIGHT));
    let file = site(&[("app", upstream)]);
    let home = Home::new(&file);
    right.write(&home.path().join("right.pem"));
    let mut edge = Edge::launch(home).ready().await;
    ask(&edge, "app", "/").await.assert(200, b"ok");
    ask(&edge, "app", "/").await.assert(200, b"ok");
    assert!(edge.reload(&file.clone().and("# changed")).await.status.success());
    ask(&edge, "app", "/").await.assert(200, b"ok");
    let resumed: Vec<bool> = origin.met().iter().map(|met| met.resumed).collect();
    assert_eq!(resumed, [false, true, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_no_good_refuse_the_configuration() {
    let right = Authority::new("right");
    let origin = TlsOrigin::start(&right.issue(&["one.example"]), None).await;
    for (tls, told) in [
        ("ca: \"@dir@/missing.pem\"", "missing.pem"),
        ("ca: \"@dir@/garbage.pem\"", "garbage.pem"),
        ("ca: \"@dir@/ca.pem\", certificate: \"@dir@/server.pem\", key: \"@dir@/other.key\"", "app"),
    ] {
        let home = Home::new(&site(&[("app", server(&origin, tls))]));
        for command in ["run", "check"] {
            let finished = home.tidegate(&[command]).await;
            let output = format!("{}{}", finished.stdout, finished.stderr);
            assert_eq!(finished.status.code(), Some(1), "{tls}: {output}");
            assert!(output.contains(told) && output.contains("upstream \"app\""), "{tls}: {output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_is_named_to_the_server_and_shares_no_connection() {
    let origin = Recorder::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let upstream = format!("servers: [{{ address: \"{}\" }}], proxy_protocol: v1", origin.address());
    let edge = Edge::start(site(&[("app", upstream)]).and(ONE_SHARD)).await;
    let address = edge.address("plain");
    let mut streams = Vec::new();
    for _ in 0..2 {
        let stream = connect::tcp(address).await.expect("a connection");
        let port = stream.local_addr().expect("it is connected").port();
        streams.push((port, Connection::http1(stream).await.expect("HTTP/1.1")));
    }
    let mut expected = Vec::new();
    for _ in 0..2 {
        for (port, connection) in &mut streams {
            let ask = Ask::get("/").host("app.test.example");
            connection.send(ask).await.expect("an answer").assert(200, b"ok");
            expected.push(format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}", address.port()));
        }
    }
    let seen: Vec<String> = origin.requests().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(seen, expected);
    assert_eq!(origin.connections().len(), 4);
}
