//! Who a client is: PROXY protocol headers, trusted proxies, and what the origin and the log are told.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;
use tidegate_tests::{
    certificates::{H2, HTTP1, trusting_client},
    client::{Ask, Connection, Kind},
    connect::{tcp_from, tls_on},
    edge::Edge,
    raw::{End, Raw, field, status},
    recorder::{Recorder, Seen, Step},
    site::Site,
    wait::wait_for,
};
use tokio::io::AsyncWriteExt;

/// Speaks the PROXY protocol with every listener.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// Is a client like others.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Answers with the client's address as it was told.
async fn mirror() -> Recorder {
    Recorder::start(|seen: &Seen| {
        let told = field(&seen.head, "x-forwarded-for").unwrap_or_default();
        vec![Step::Send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{told}", told.len()).into())]
    })
    .await
}

/// The usual front with these settings on each listener.
fn with_settings(origin: &Recorder, settings: &str) -> Site {
    ["plain", "h2c", "tls"].iter().fold(Site::proxy_to(origin.address()), |site, name| {
        site.replace(&format!("name: {name},"), &format!("name: {name}, {settings},"))
    })
}

fn behind_a_balancer(origin: &Recorder) -> Site {
    with_settings(origin, "proxy_protocol: { from: [127.0.0.1], timeout: 2s }")
        .and("logging: { access: { to: stdout, format: \"client $remote_addr $status\" } }")
}

/// Version 2 with this command, family and rest.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

/// 198.51.100.7:4000 to 192.0.2.1:443.
const V4: [u8; 12] = [198, 51, 100, 7, 192, 0, 2, 1, 0x0f, 0xa0, 0x01, 0xbb];

fn v6() -> Vec<u8> {
    let source: std::net::Ipv6Addr = "2001:db8::7".parse().expect("an address");
    [&source.octets()[..], &[0; 16], &[0x0f, 0xa0, 0x01, 0xbb]].concat()
}

/// One request of this kind from `source`, behind `header`.
async fn ask(edge: &Edge, kind: Kind, source: Ipv4Addr, header: &[u8], ask: Ask) -> Result<(u16, String)> {
    let mut stream = tcp_from(source, edge.address(kind.listener())).await?;
    stream.write_all(header).await?;
    let mut connection = match kind {
        Kind::Http1 => Connection::http1(stream).await?,
        Kind::H2c => Connection::http2(stream).await?,
        Kind::Http1Tls => Connection::http1(tls_on(stream, "test.example", trusting_client(&[HTTP1])).await?).await?,
        Kind::H2Tls => Connection::http2(tls_on(stream, "test.example", trusting_client(&[H2])).await?).await?,
    };
    let answer = connection.send(ask).await?;
    Ok((answer.status.as_u16(), answer.text()))
}

#[tokio::test]
async fn a_balancer_names_the_client() {
    let origin = mirror().await;
    let edge = Edge::start(behind_a_balancer(&origin)).await;
    let with_tlv = [&V4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    let rows: [(Vec<u8>, &str); 9] = [
        (b"PROXY TCP4 198.51.100.7 192.0.2.1 4000 443\r\n".to_vec(), "198.51.100.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:198.51.100.7 ::1 4000 443\r\n".to_vec(), "198.51.100.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (binary(0x21, 0x11, &V4), "198.51.100.7"),
        (binary(0x21, 0x11, &with_tlv), "198.51.100.7"),
        (binary(0x21, 0x21, &v6()), "2001:db8::7"),
        (binary(0x20, 0x00, &[]), "127.0.0.1"),
        (binary(0x21, 0x31, &[1; 216]), "127.0.0.1"),
    ];
    for kind in Kind::ALL {
        for (header, client) in &rows {
            let seen = ask(&edge, kind, BALANCER, header, Ask::get("/")).await;
            let seen = seen.unwrap_or_else(|error| panic!("{kind}, {}: {error:#}", header.escape_ascii()));
            assert_eq!(seen, (200, (*client).to_owned()), "{kind}, {}", header.escape_ascii());
        }
        // Others are clients by themselves.
        assert_eq!(
            ask(&edge, kind, STRANGER, b"", Ask::get("/")).await.expect("an answer"),
            (200, STRANGER.to_string())
        );
    }
    let lines = rows.len() * Kind::ALL.len();
    let output = edge.output();
    wait_for("the log", Duration::from_secs(5), || {
        let text = output.stdout();
        (text.matches("client 198.51.100.7 200").count() + text.matches("client 2001:db8::7 200").count()
            == lines * 6 / 9)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_header_may_come_in_pieces() {
    let origin = mirror().await;
    let edge = Edge::start(behind_a_balancer(&origin)).await;
    let request = b"GET / HTTP/1.1\r\nhost: test.example\r\n\r\n";
    for header in [b"PROXY TCP4 198.51.100.7 192.0.2.1 4000 443\r\n".to_vec(), binary(0x21, 0x11, &V4)] {
        let mut raw = Raw::connect(edge.address("plain")).await;
        // The last piece has the request's first bytes.
        for piece in [&header[..], request].concat().chunks(5) {
            raw.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(raw.read_answer().await.1, b"198.51.100.7");
    }
}

#[tokio::test]
async fn a_balancer_without_a_correct_header_is_closed() {
    let origin = mirror().await;
    let edge = Edge::start(behind_a_balancer(&origin)).await;
    let rows: [Vec<u8>; 11] = [
        b"".to_vec(),
        b"PROXY TCP4 198.51.100.7 192.0.2.1 4000 443\n".to_vec(),
        b"PROXY TCP4 198.51.100.7 192.0.2.1 4000\r\n".to_vec(),
        b"PROXY TCP4 198.51.100.700 192.0.2.1 4000 443\r\n".to_vec(),
        b"PROXY  TCP4 198.51.100.7 192.0.2.1 4000 443\r\n".to_vec(),
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes(),
        binary(0x22, 0x11, &V4),
        binary(0x21, 0x12, &V4),
        binary(0x21, 0x11, &V4[..8]),
        binary(0x21, 0x11, &[0; 5_000]),
        b"\r\n\r\n\0\r\nQUIZ\n".to_vec(),
    ];
    for header in rows {
        let bytes = [&header[..], b"GET / HTTP/1.1\r\nhost: test.example\r\n\r\n"].concat();
        for listener in ["plain", "h2c", "tls"] {
            let (answer, end) = Raw::exchange(edge.address(listener), &bytes, Duration::from_secs(5)).await;
            assert!(answer.is_empty() && end != End::Open, "{listener}, {}: {end:?} {answer}", header.escape_ascii());
        }
    }
    // Begun in time and never ended.
    let (answer, end) = Raw::exchange(edge.address("plain"), "PROXY TCP4 198.51", Duration::from_secs(5)).await;
    assert!(answer.is_empty() && end != End::Open, "{end:?}");
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_stranger_names_nobody() {
    let origin = mirror().await;
    let edge = Edge::start(behind_a_balancer(&origin)).await;
    for header in [b"PROXY TCP4 198.51.100.7 192.0.2.1 4000 443\r\n".to_vec(), binary(0x21, 0x11, &V4)] {
        let mut raw = Raw::connect_from(edge.address("plain"), |socket| socket.bind((STRANGER, 0).into())).await;
        raw.send([&header[..], b"GET / HTTP/1.1\r\nhost: test.example\r\n\r\n"].concat()).await;
        assert_eq!(status(&raw.read_head().await), 400);
        let refused = ask(&edge, Kind::Http1Tls, STRANGER, &header, Ask::get("/")).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn named_clients_are_counted_and_balancers_are_not() {
    let origin = mirror().await;
    let server = "server: { state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", connections: { per_address: 2 } }";
    let edge = Edge::start(behind_a_balancer(&origin).and(server)).await;
    let mut open = Vec::new();
    let mut served = async |client: &str| {
        let mut raw = Raw::connect(edge.address("plain")).await;
        let line = format!("PROXY TCP4 {client} 192.0.2.1 4000 443\r\n");
        raw.send(format!("{line}GET / HTTP/1.1\r\nhost: test.example\r\n\r\n")).await;
        let head = raw.read_until("\r\n\r\n", Duration::from_secs(5)).await;
        open.push(raw);
        head.is_ok()
    };
    assert_eq!([served("198.51.100.7").await, served("198.51.100.7").await], [true, true]);
    assert!(!served("198.51.100.7").await, "the third of one client");
    assert_eq!([served("198.51.100.8").await, served("198.51.100.9").await], [true, true]);
}

#[tokio::test]
async fn trusted_proxies_vouch_for_the_client() {
    let origin = mirror().await;
    let trusting = with_settings(&origin, "trusted_proxies: { from: [127.0.0.1, 10.0.0.0/8] }")
        .and("logging: { access: { to: stdout, format: \"client $remote_addr $status $scheme\" } }");
    let edge = Edge::start(trusting).await;
    let get = || {
        Ask::get("/")
            .header("x-forwarded-for", "1.1.1.1, 198.51.100.7")
            .header("x-forwarded-for", "10.0.0.3")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "shop.example")
            .header("x-real-ip", "1.1.1.1")
            .header("forwarded", "for=1.1.1.1")
    };
    for kind in Kind::ALL {
        let trusted = ask(&edge, kind, BALANCER, b"", get()).await.expect("an answer");
        assert_eq!(trusted, (200, "198.51.100.7, 10.0.0.3, 127.0.0.1".to_owned()), "{kind}");
        let mut told = origin.requests().into_iter().filter(|seen| seen.head.contains("x-real-ip: 198.51.100.7"));
        let head = told.next_back().expect("a request").head;
        let said = ["x-real-ip", "x-forwarded-proto", "x-forwarded-host", "forwarded"].map(|name| field(&head, name));
        assert_eq!(said, [Some("198.51.100.7"), Some("https"), Some("shop.example"), None], "{kind}");
        let stranger = ask(&edge, kind, STRANGER, b"", get()).await.expect("an answer");
        assert_eq!(stranger, (200, STRANGER.to_string()), "{kind}");
        // Requests are kept by connection, so any of the stranger's may be this one; none of them has what was forged.
        let scheme = if kind.is_tls() { "https" } else { "http" };
        let told: Vec<_> =
            origin.requests().into_iter().filter(|seen| seen.head.contains(&STRANGER.to_string())).collect();
        assert!(told.iter().any(|seen| field(&seen.head, "x-forwarded-proto") == Some(scheme)), "{kind}");
        assert!(told.iter().all(|seen| field(&seen.head, "x-forwarded-host") == Some("test.example")), "{kind}");
    }
    let output = edge.output();
    wait_for("the log", Duration::from_secs(5), || {
        let text = output.stdout();
        let counts = ["198.51.100.7 200 https", "127.0.0.2 200 https", "127.0.0.2 200 http\n"]
            .map(|line| text.matches(&format!("client {line}")).count());
        (counts == [4, 2, 2]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_is_told_of_the_client_alone() {
    let site =
        Site::demo_workers(1, &[]).replace("name: plain,", "name: plain, trusted_proxies: { from: [loopback] },");
    let edge = Edge::start(site).await;
    edge.ready_workers("app", 1).await;
    let get = Ask::get("/").header("x-forwarded-for", "198.51.100.7, 127.0.0.5");
    let answer = edge.client(Kind::Http1).ask(get).await.text();
    assert!(answer.contains("[\"x-forwarded-for\",\"198.51.100.7\"]"), "{answer}");
}

#[tokio::test]
async fn a_balancer_may_be_a_trusted_proxy_as_well() {
    let origin = mirror().await;
    let settings = "proxy_protocol: { from: [127.0.0.1] }, trusted_proxies: { from: [198.51.100.0/24] }";
    let edge = Edge::start(with_settings(&origin, settings)).await;
    let header = b"PROXY TCP4 198.51.100.7 192.0.2.1 4000 443\r\n";
    let get = || Ask::get("/").header("x-forwarded-for", "203.0.113.9");
    for kind in Kind::ALL {
        let seen = ask(&edge, kind, BALANCER, header, get()).await.expect("an answer");
        assert_eq!(seen, (200, "203.0.113.9, 198.51.100.7".to_owned()), "{kind}");
        let seen = ask(&edge, kind, STRANGER, b"", get()).await.expect("an answer");
        assert_eq!(seen, (200, STRANGER.to_string()), "{kind}");
    }
}
