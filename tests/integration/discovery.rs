//! Servers that have names: found, followed, and kept when nobody knows them any more.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use serde_json::Value;
use tidegate_tests::{
    authority::Authority,
    client::{Answer, Ask, Client, Kind},
    edge::{Edge, Home},
    every_client,
    h2_origin::{H2Answer, H2Origin, Reply},
    load::Load,
    name_server::{Manner, NameServer},
    recorder::{OK, Recorder, Step},
    site::{LISTENERS, Site},
    tls_origin::TlsOrigin,
    wait::wait_until,
};

every_client! {
    a_name_that_does_not_resolve_heals_by_itself,
    all_addresses_of_a_name_are_used,
    all_addresses_of_a_name_are_used_over_http2,
    records_say_weight_and_tier,
    who_leaves_finishes_what_it_has,
}

const NAME: &str = "api.test";
/// Long enough for a retry or two on a busy machine.
const SOON: Duration = Duration::from_secs(15);

/// One site before one upstream, whose names `names` knows; quick to follow.
fn site(servers: &str, names: &NameServer, more: &str) -> Site {
    let dns = format!("dns: {{ servers: [\"{}\"], min_ttl: 50ms, max_ttl: 100ms, timeout: 1s }}", names.address());
    Site::proxy(&format!("{dns}\nservers: [{servers}]{more}"))
}

fn named(port: u16) -> String {
    format!("{{ address: \"{NAME}:{port}\" }}")
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// A port that is free on several loopback addresses.
fn free_port(last: &[u8]) -> u16 {
    let free = || {
        let first = std::net::TcpListener::bind((ip(last[0]), 0)).ok()?;
        let port = first.local_addr().ok()?.port();
        let is_free = |last: &u8| std::net::TcpListener::bind((ip(*last), port)).is_ok();
        last[1..].iter().all(is_free).then_some(port)
    };
    (0..50).find_map(|_| free()).expect("loopback has free ports")
}

/// Origins on one port of several loopback addresses, each of which says its own address.
async fn origins(last: &[u8]) -> (u16, Vec<Recorder>) {
    let port = free_port(last);
    let mut recorders = Vec::new();
    for last in last {
        let body = ip(*last).to_string();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let say = move |_: &_| vec![Step::Send(answer.clone().into())];
        recorders.push(Recorder::start_at((ip(*last), port).into(), say).await);
    }
    (port, recorders)
}

fn upstream(status: &Value) -> &Value {
    &status["upstreams"][0]
}

/// The addresses of the endpoints, without ports.
async fn addresses(edge: &Edge) -> BTreeSet<String> {
    let status = edge.status().await;
    let endpoints = upstream(&status)["endpoints"].as_array().cloned().unwrap_or_default();
    let address = |endpoint: &Value| endpoint["address"].as_str()?.rsplit_once(':').map(|(ip, _)| ip.to_owned());
    endpoints.iter().filter_map(address).collect()
}

async fn wait_for_addresses(edge: &Edge, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|text| (*text).to_owned()).collect();
    wait_until("the addresses", SOON, async || (addresses(edge).await == expected).then_some(())).await;
}

/// Waits until the first name is in this state, and returns it.
async fn wait_for_state(edge: &Edge, state: &str) -> Value {
    wait_until(state, SOON, async || {
        let status = edge.admin().status().await.ok()?;
        let name = upstream(&status)["names"][0].clone();
        (name["state"] == state).then_some(name)
    })
    .await
}

async fn bodies(client: &Client, count: usize) -> Vec<String> {
    let mut connection = client.connect().await.expect("the edge listens");
    let mut bodies = Vec::new();
    for _ in 0..count {
        let answer = connection.send(Ask::get("/")).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        bodies.push(answer.text());
    }
    bodies
}

fn count(bodies: &[String], body: &str) -> usize {
    bodies.iter().filter(|one| *one == body).count()
}

async fn a_name_that_does_not_resolve_heals_by_itself(kind: Kind) {
    let names = NameServer::start().await;
    let (port, _origin) = origins(&[2]).await;
    let edge = Edge::launch(Home::new(&site(&named(port), &names, "")));
    let name = wait_for_state(&edge, "missing").await;
    assert_eq!(name["name"], format!("{NAME}:{port}"));
    assert_eq!(name["reason"], "no such name");
    assert_eq!(upstream(&edge.status().await)["state"], "down");
    let answer = edge.client(kind).get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-reason")), (503, Some("no_endpoint")));
    let readiness = edge.admin().get("/readyz").await.expect("the admin endpoint answers");
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("api.test") && readiness.text().contains("no such name"), "{}", readiness.text());
    let told = edge.home().tidegate(&["status"]).await.stdout;
    let line = told.lines().find(|line| line.contains("no such name")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.contains(&format!("{NAME}:{port}: no such name, ")) && line.contains("try"), "{line}");
    edge.wait_for_message("name does not resolve", SOON).await;

    names.host(NAME, &["127.0.0.2"], 1);
    wait_for_state(&edge, "resolved").await;
    edge.client(kind).get("/").await.assert(200, b"127.0.0.2");
    edge.wait_for_message("name resolves again", SOON).await;
    let metrics = edge.admin().metrics().await.expect("metrics");
    for result in ["resolved", "missing"] {
        let series = format!("tidegate_dns_resolutions_total{{result=\"{result}\",upstream=\"app\"}}");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse::<u64>().ok());
        assert!(value.is_some_and(|value| value > 0), "{result}: {value:?}");
    }
    let told = edge.home().tidegate(&["status"]).await.stdout;
    assert!(told.lines().any(|line| line.contains("127.0.0.2:") && line.contains(NAME)), "{told}");
}

async fn all_addresses_of_a_name_are_used(kind: Kind) {
    let names = NameServer::start().await;
    let (port, origins) = origins(&[2, 3, 4]).await;
    names.host(NAME, &["127.0.0.4", "127.0.0.2", "127.0.0.3"], 1);
    let edge = Edge::start(site(&named(port), &names, "")).await;
    let bodies = bodies(&edge.client(kind), 30).await;
    assert_eq!(["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|body| count(&bodies, body)), [10, 10, 10]);
    assert_eq!(origins[0].requests()[0].header("host"), Some("test.example"), "the client's, not the server's name");
}

async fn all_addresses_of_a_name_are_used_over_http2(kind: Kind) {
    let names = NameServer::start().await;
    let port = free_port(&[2, 3, 4]);
    let mut h2 = Vec::new();
    for last in [2, 3, 4] {
        let say = move |_: &_| Reply::Answer(H2Answer::new(200).body(ip(last).to_string()));
        h2.push(H2Origin::start_at((ip(last), port).into(), say).await);
    }
    names.host(NAME, &["127.0.0.2", "127.0.0.3"], 1);
    let edge = Edge::start(site(&named(port), &names, "\nprotocol: h2")).await;
    let seen = bodies(&edge.client(kind), 20).await;
    assert_eq!(["127.0.0.2", "127.0.0.3"].map(|body| count(&seen, body)), [10, 10]);
    names.host(NAME, &["127.0.0.4"], 1);
    wait_for_addresses(&edge, &["127.0.0.4"]).await;
    let seen = bodies(&edge.client(kind), 20).await;
    assert_eq!(count(&seen, "127.0.0.4"), 20);
}

async fn records_say_weight_and_tier(kind: Kind) {
    let names = NameServer::start().await;
    let (port, _origins) = origins(&[2, 3, 4]).await;
    for last in [2, 3, 4] {
        names.host(&format!("s{last}.test"), &[&format!("127.0.0.{last}")], 1);
    }
    let service = "_http._tcp.api.test";
    let records = [(20, 1, port, "s4.test"), (10, 30, port, "s2.test"), (10, 10, port, "S3.test")];
    names.service(service, &records, 1);
    let edge = Edge::start(site(&format!("{{ srv: {service} }}"), &names, "")).await;
    let seen = bodies(&edge.client(kind), 40).await;
    assert_eq!(["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|body| count(&seen, body)), [30, 10, 0]);
    let status = edge.status().await;
    let endpoint = |place: usize| upstream(&status)["endpoints"][place].clone();
    let told = [0, 1, 2].map(|place| (endpoint(place)["name"].clone(), endpoint(place)["priority"].clone()));
    assert_eq!(told, [("s2.test".into(), 0.into()), ("s3.test".into(), 0.into()), ("s4.test".into(), 1.into())]);

    // A host of a record may have no address; the others go on.
    names.service(service, &[(20, 1, port, "s4.test"), (10, 30, port, "gone.test"), (10, 10, port, "s3.test")], 1);
    wait_for_addresses(&edge, &["127.0.0.3", "127.0.0.4"]).await;
    let name = wait_for_state(&edge, "resolved").await;
    assert_eq!(name["reason"], "gone.test: no such name");
    edge.wait_for_message("name resolves in part", SOON).await;

    // The first tier shrinks to one server, which moves to where nobody listens.
    names.service(service, &[(20, 1, port, "s4.test"), (10, 30, port, "s2.test")], 1);
    names.host("s2.test", &["127.0.0.9"], 1);
    wait_for_addresses(&edge, &["127.0.0.9", "127.0.0.4"]).await;
    let seen = bodies(&edge.client(kind), 10).await;
    assert_eq!(count(&seen, "127.0.0.4"), 10);
}

async fn who_leaves_finishes_what_it_has(kind: Kind) {
    let names = NameServer::start().await;
    let slow = Recorder::start(|_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok";
        vec![Step::Send(head.into()), Step::Pause(Duration::from_secs(2)), Step::Send("\n".into())]
    });
    let slow = slow.await;
    let port = slow.socket_address().port();
    names.host(NAME, &["127.0.0.1"], 1);
    let edge = Edge::start(site(&named(port), &names, "")).await;
    let client = edge.client(kind);
    let asking = tokio::spawn(async move { client.get("/").await });
    slow.requests_at_least(1).await;
    names.host(NAME, &["127.0.0.9"], 1);
    wait_for_addresses(&edge, &["127.0.0.9"]).await;
    asking.await.expect("the client does not panic").assert(200, b"ok\n");
}

// Once: all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_changes_under_load_loses_no_request() {
    let names = NameServer::start().await;
    let (port, origins) = origins(&[2, 3, 4, 5]).await;
    names.host(NAME, &["127.0.0.2", "127.0.0.3"], 1);
    let edge = Edge::start(site(&named(port), &names, "")).await;
    let check = |answer: &Answer| {
        anyhow::ensure!(answer.status == 200 && answer.text().starts_with("127.0.0."), "{}", answer.text());
        Ok(())
    };
    let load = Load::asking(&edge.clients(), 8, || Ask::get("/"), check);
    for round in 0..6 {
        let set = [["127.0.0.3", "127.0.0.4"], ["127.0.0.4", "127.0.0.5"], ["127.0.0.5", "127.0.0.2"]][round % 3];
        names.host(NAME, &set, 1);
        wait_for_addresses(&edge, &set).await;
    }
    let tally = load.stop().await;
    tally.assert_clean();
    assert!(tally.right > 50, "{}", tally.right);
    let met = origins.iter().filter(|origin| !origin.requests().is_empty()).count();
    assert_eq!(met, 4);
}

// Once: it is about connections to servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_to_who_has_left_are_closed_at_once() {
    let names = NameServer::start().await;
    let (port, origins) = origins(&[2, 3]).await;
    names.host(NAME, &["127.0.0.2"], 1);
    let edge = Edge::start(site(&named(port), &names, "")).await;
    let ended = |origin: &Recorder| origin.connections().iter().all(|connection| connection.ended);
    // Several times, because a sweep that comes by chance would do it once.
    for round in 0..6 {
        let (here, there) = (round % 2, (round + 1) % 2);
        bodies(&edge.client(Kind::Http1), 4).await;
        assert!(!ended(&origins[here]) && ended(&origins[there]), "round {round}");
        let next = ["127.0.0.2", "127.0.0.3"][there];
        names.host(NAME, &[next], 1);
        wait_for_addresses(&edge, &[next]).await;
        let end = async || ended(&origins[here]).then_some(());
        wait_until("the end of the connection", Duration::from_millis(500), end).await;
    }
}

// Once: it is about what goes on beside the requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_good_stays_whatever_becomes_of_the_name_server() {
    let names = NameServer::start().await;
    let (port, _origins) = origins(&[2, 3]).await;
    names.host(NAME, &["127.0.0.2"], 1);
    let edge = Edge::start(site(&named(port), &names, "")).await;
    for (manner, reason) in [(Manner::Failing, "server failure"), (Manner::Silent, "no answer within 1s")] {
        names.be(manner);
        let name = wait_for_state(&edge, "failed").await;
        let told = name["reason"].as_str().unwrap_or_default();
        assert!(told.contains(reason) && told.contains(&names.address().to_string()), "{told}");
        assert_eq!(name["addresses"], 1);
        edge.client(Kind::Http1).get("/").await.assert(200, b"127.0.0.2");
        names.be(Manner::Right);
        wait_for_state(&edge, "resolved").await;
    }
    names.remove(NAME);
    wait_for_state(&edge, "missing").await;
    edge.client(Kind::Http1).get("/").await.assert(200, b"127.0.0.2");
    let (address, log) = (names.address(), edge.output().stderr());
    assert_eq!(log.matches("name does not resolve").count(), 3, "{log}");

    names.stop().await;
    wait_for_state(&edge, "failed").await;
    edge.client(Kind::Http1).get("/").await.assert(200, b"127.0.0.2");
    let names = NameServer::start_at(address).await;
    names.host(NAME, &["127.0.0.3"], 1);
    wait_for_addresses(&edge, &["127.0.0.3"]).await;
    edge.client(Kind::Http1).get("/").await.assert(200, b"127.0.0.3");
}

// Once: it is about questions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_name_server_is_asked_when_one_fails() {
    let (dead, names) = (NameServer::start().await, NameServer::start().await);
    dead.be(Manner::Failing);
    let (port, _origin) = origins(&[2]).await;
    names.host(NAME, &["127.0.0.2"], 1);
    let both = format!("servers: [\"{}\", \"{}\"]", dead.address(), names.address());
    let file = site(&named(port), &names, "").replace(&format!("servers: [\"{}\"]", names.address()), &both);
    let edge = Edge::start(file).await;
    edge.client(Kind::Http1).get("/").await.assert(200, b"127.0.0.2");
    assert!(dead.count(NAME) > 0);
}

// Once: it is about questions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_do_not_fit_come_over_tcp_and_aliases_are_followed() {
    let names = NameServer::start().await;
    let (port, _origins) = origins(&[2, 3]).await;
    names.be(Manner::Truncating);
    names.alias(NAME, "other.test", 1);
    names.host("other.test", &["127.0.0.2", "127.0.0.3"], 1);
    let edge = Edge::start(site(&named(port), &names, "")).await;
    wait_for_addresses(&edge, &["127.0.0.2", "127.0.0.3"]).await;
    assert_eq!(upstream(&edge.status().await)["endpoints"][0]["name"], NAME, "not the alias");
    let asked = names.asked();
    assert!(asked.iter().any(|asked| asked.tcp) && asked.iter().any(|asked| !asked.tcp), "{asked:?}");
}

// Once: it is about what goes on beside the requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_or_name_may_be_gone_for_good() {
    let names = NameServer::start().await;
    let (port, _origins) = origins(&[2]).await;
    names.host(NAME, &["127.0.0.2"], 1);
    let file = site(&named(port), &names, "").replace("timeout: 1s", "timeout: 1s, keep_missing: 0s");
    let edge = Edge::start(file).await;
    edge.client(Kind::Http1).get("/").await.assert(200, b"127.0.0.2");
    names.remove(NAME);
    wait_for_addresses(&edge, &[]).await;
    assert_eq!(edge.client(Kind::Http1).get("/").await.status, 503);
    names.host(NAME, &["127.0.0.2"], 1);
    wait_for_addresses(&edge, &["127.0.0.2"]).await;
    edge.client(Kind::Http1).get("/").await.assert(200, b"127.0.0.2");
}

// Once: it is about addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_names_of_one_address_are_one_endpoint() {
    let names = NameServer::start().await;
    let (port, _origins) = origins(&[2, 3]).await;
    names.host(NAME, &["127.0.0.2"], 1);
    names.host("too.test", &["127.0.0.2", "127.0.0.3"], 1);
    let servers = format!("{{ address: \"{NAME}:{port}\", weight: 7 }}, {{ address: \"too.test:{port}\", weight: 2 }}");
    let edge = Edge::start(site(&servers, &names, "").and("logging: { level: debug }")).await;
    wait_for_addresses(&edge, &["127.0.0.2", "127.0.0.3"]).await;
    edge.wait_for_message("another server has this address already", SOON).await;
    let status = edge.status().await;
    let endpoints = upstream(&status)["endpoints"].as_array().expect("a list").clone();
    let told: Vec<_> = endpoints.iter().map(|one| (one["name"].clone(), one["weight"].clone())).collect();
    assert_eq!(told, [(NAME.into(), 7.into()), ("too.test".into(), 2.into())]);
    let log = edge.output().stderr();
    assert!(!log.contains("hickory"), "the library's own debug lines are for its authors: {log}");
}

// Once: it is about questions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_this_machine_are_not_asked_for() {
    let names = NameServer::start().await;
    let origin = Recorder::friendly().await;
    let port = origin.socket_address().port();
    let edge = Edge::start(site(&format!("{{ address: \"localhost:{port}\" }}"), &names, "")).await;
    edge.client(Kind::Http1).get("/").await.assert(200, b"ok\n");
    assert_eq!(names.asked(), []);
    assert_eq!(addresses(&edge).await, BTreeSet::from(["127.0.0.1".to_owned()]));
}

// Once: it is about addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6_addresses_are_addresses() {
    let names = NameServer::start().await;
    let Ok(free) = std::net::TcpListener::bind("[::1]:0") else { return };
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let _origin = Recorder::start_at(address, |_| vec![Step::Send(OK.into())]).await;
    names.host(NAME, &["::1"], 1);
    let edge = Edge::start(site(&named(address.port()), &names, "")).await;
    edge.client(Kind::Http1).get("/").await.assert(200, b"ok\n");
    assert_eq!(addresses(&edge).await, BTreeSet::from(["[::1]".to_owned()]));
}

// Once: all clients at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_brings_names_loses_no_request() {
    let names = NameServer::start().await;
    let (port, _origins) = origins(&[2, 3]).await;
    names.host(NAME, &["127.0.0.3"], 60);
    let mut edge =
        Edge::start(site("{ address: \"127.0.0.2:@there@\" }", &names, "").with("there", port).replace("dns:", "#"))
            .await;
    let load = Load::asking(
        &edge.clients(),
        8,
        || Ask::get("/"),
        |answer: &Answer| {
            anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(())
        },
    );
    // The first answer takes its time, and requests wait for it.
    names.be(Manner::Slow(Duration::from_millis(700)));
    let file = site(&named(port), &names, "");
    assert!(edge.reload(&file).await.status.success());
    wait_for_addresses(&edge, &["127.0.0.3"]).await;
    // Spoken to in another way the upstream has a new pool; what is known is there at once, though nobody answers.
    names.be(Manner::Silent);
    let sent = load.sent();
    assert!(edge.reload(&site(&named(port), &names, "\nproxy_protocol: v1").and("# changed")).await.status.success());
    wait_until("requests behind the reload", SOON, async || (load.sent() > sent + 50).then_some(())).await;
    load.stop().await.assert_clean();
}

// Once: there is no request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checking_a_file_asks_nobody() {
    let names = NameServer::start().await;
    let home = Home::new(&site(&named(80), &names, ""));
    let checked = home.tidegate(&["check"]).await;
    assert!(checked.status.success() && !checked.stderr.contains("warning"), "{}{}", checked.stdout, checked.stderr);
    assert_eq!(names.asked(), []);
}

// Once: there is no request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_apply_at_a_reload() {
    let (first, second) = (NameServer::start().await, NameServer::start().await);
    let (port, _origins) = origins(&[2, 3]).await;
    // The first says that its word holds for an hour, and so it does until the reload.
    first.host(NAME, &["127.0.0.2"], 3_600);
    second.host(NAME, &["127.0.0.3"], 3_600);
    let hour = |names: &NameServer| site(&named(port), names, "").replace("max_ttl: 100ms", "max_ttl: 1h");
    let mut edge = Edge::start(hour(&first)).await;
    wait_for_addresses(&edge, &["127.0.0.2"]).await;
    let told = edge.reload(&hour(&second)).await;
    assert!(told.status.success() && told.stdout.contains("dns.servers"), "{}{}", told.stdout, told.stderr);
    wait_for_addresses(&edge, &["127.0.0.3"]).await;
    let before = second.count(NAME);
    // Without any change the name is asked for as well.
    assert!(edge.reload(&hour(&second)).await.status.success());
    wait_until("a question", SOON, async || (second.count(NAME) > before).then_some(())).await;
}

// Once: it is about connections to servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_asks_for_the_name() {
    let names = NameServer::start().await;
    let right = Authority::new("right");
    let by_name = TlsOrigin::start(&right.issue(&[NAME]), None).await;
    let by_target = TlsOrigin::start(&right.issue(&["s1.test"]), None).await;
    let by_address = TlsOrigin::start(&right.issue(&["127.0.0.1"]), None).await;
    names.host(NAME, &["127.0.0.1"], 1);
    names.host("s1.test", &["127.0.0.1"], 1);
    names.service("_https._tcp.api.test", &[(0, 0, by_target.address().port(), "s1.test")], 1);
    let service = "{ srv: _https._tcp.api.test }".to_owned();
    let rows = [
        ("name", named(by_name.address().port()), "", 200),
        ("target", service, "", 200),
        ("address", named(by_address.address().port()), "", 502),
        ("given", named(by_target.address().port()), ", server_name: s1.test", 200),
        ("other", named(by_name.address().port()), ", server_name: s1.test", 502),
    ];
    let (mut sites, mut upstreams) = (String::new(), String::new());
    for (name, server, tls, _) in &rows {
        sites.push_str(&format!(
            "  - {{ hosts: [{name}.test.example], listeners: [plain], routes: [{{ path: /, proxy: {name} }}] }}\n"
        ));
        let tls = format!("tls: {{ ca: \"@dir@/right.pem\"{tls} }}");
        upstreams.push_str(&format!("  {name}: {{ servers: [{server}], {tls} }}\n"));
    }
    let dns = format!("dns: {{ servers: [\"{}\"] }}", names.address());
    let home = Home::new(&Site::new(format!("{LISTENERS}\nsites:\n{sites}\nupstreams:\n{upstreams}\n{dns}\n")));
    right.write(&home.path().join("right.pem"));
    let edge = Edge::launch(home).ready().await;
    for (name, _, _, expected) in rows {
        let ask = Ask::get("/").host(&format!("{name}.test.example"));
        assert_eq!(edge.client(Kind::Http1).ask(ask).await.status, expected, "{name}");
    }
    assert_eq!(by_name.met()[0].server_name.as_deref(), Some(NAME));
    assert_eq!(by_target.met()[0].server_name.as_deref(), Some("s1.test"));
}
