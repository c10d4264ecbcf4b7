//! Certificates by name, protocols by ALPN, and certificate files that are no good.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::CertificateDer};
use tidegate_tests::{
    certificates::{self, H2, HTTP1, curious_client, trusting_client},
    client::{Client, Kind},
    connect,
    edge::{Edge, Home},
    process::Finished,
    site::{LISTENERS, Site},
};

fn two_certificates() -> Site {
    Site::new(format!(
        r#"{LISTENERS}
sites:
  - {{ name: main, hosts: [test.example, "*.test.example"], tls: {{ certificate: "@dir@/server.pem", key: "@dir@/server.key" }}, routes: [{{ path: /, respond: {{ body: main }} }}] }}
  - {{ name: other, hosts: [other.example], tls: {{ certificate: "@dir@/other.pem", key: "@dir@/other.key" }}, routes: [{{ path: /, respond: {{ body: other }} }}] }}
"#
    ))
}

async fn presented(edge: &Edge, name: &str, config: Arc<ClientConfig>) -> Option<CertificateDer<'static>> {
    let stream = connect::tls(edge.address("tls"), name, config).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.clone().into_owned())
}

#[tokio::test]
async fn a_name_gets_its_certificate() {
    let edge = Edge::start(two_certificates()).await;
    for (name, file) in [
        ("test.example", "server.pem"),
        ("a.test.example", "server.pem"),
        ("TEST.example", "server.pem"),
        ("other.example", "other.pem"),
    ] {
        let shown = presented(&edge, name, trusting_client(&[HTTP1])).await;
        assert_eq!(shown, Some(certificates::read(&certificates::file(file))), "{name}");
    }
}

#[tokio::test]
async fn an_unknown_name_learns_no_tenants_name() {
    let edge = Edge::start(two_certificates()).await;
    if let Some(shown) = presented(&edge, "unknown.example", curious_client(&[HTTP1])).await {
        for file in ["server.pem", "other.pem"] {
            assert_ne!(shown, certificates::read(&certificates::file(file)), "the certificate of a site");
        }
    }
}

#[tokio::test]
async fn the_protocol_is_agreed_upon() {
    let edge = Edge::start(two_certificates()).await;
    for (offered, agreed) in [
        (&[H2, HTTP1][..], Some(H2)),
        (&[HTTP1, H2], Some(H2)),
        (&[HTTP1], Some(HTTP1)),
        (&[H2], Some(H2)),
        (&[], None),
    ] {
        let stream =
            connect::tls(edge.address("tls"), "test.example", trusting_client(offered)).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
    }
    assert!(
        connect::tls(edge.address("tls"), "test.example", trusting_client(&[b"gopher"])).await.is_err(),
        "no protocol in common (RFC 7301 section 3.2)"
    );
}

#[tokio::test]
async fn a_session_is_resumed() {
    let edge = Edge::start(two_certificates()).await;
    let config = trusting_client(&[HTTP1]);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = connect::tls(edge.address("tls"), "test.example", Arc::clone(&config)).await.expect("a handshake");
        kinds.push(stream.get_ref().1.handshake_kind());
        // The ticket comes after the handshake, with the first answer.
        let mut connection = tidegate_tests::client::Connection::http1(stream).await.expect("HTTP/1.1");
        connection.send(tidegate_tests::client::Ask::get("/")).await.expect("an answer").assert(200, b"main");
    }
    assert_eq!(kinds[1], Some(rustls::HandshakeKind::Resumed), "{kinds:?}");
}

#[tokio::test]
async fn an_internal_certificate_is_made_and_kept() {
    let site = Site::new(format!(
        "{LISTENERS}\nsites:\n  - {{ hosts: [test.example], tls: internal, routes: [{{ path: /, respond: {{ body: inside }} }}] }}\n"
    ));
    let edge = Edge::start(site).await;
    let shown = presented(&edge, "test.example", curious_client(&[H2])).await;
    assert!(shown.is_some(), "no certificate");
    let state = edge.home().path().join("state");
    let mut keys = 0;
    for path in files(&state) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.contains("PRIVATE KEY") {
            let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().expect("it was listed").permissions());
            assert_eq!(mode & 0o077, 0, "'{}' is readable for others", path.display());
            keys += 1;
        }
    }
    assert!(keys > 0, "no key is kept in '{}'", state.display());
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_bad_certificate_file_is_a_clear_error() {
    for (certificate, key, names) in [
        ("garbage.pem", "server.key", "garbage.pem"),
        ("missing.pem", "server.key", "missing.pem"),
        ("server.pem", "missing.key", "missing.key"),
        ("server.pem", "mismatch.key", "mismatch.key"),
        ("server.key", "server.key", "server.key"),
        ("server.pem", "server.pem", "server.pem"),
    ] {
        let site =
            two_certificates().replace("server.pem", certificate).replace("@dir@/server.key", &format!("@dir@/{key}"));
        let finished = run(&Home::new(&site)).await;
        let told = format!("{}{}", finished.stdout, finished.stderr);
        assert_eq!(finished.status.code(), Some(1), "{certificate} with {key}: {told}");
        assert!(told.contains(names), "{certificate} with {key}: {told}");
        assert!(!told.contains("panicked"), "{certificate} with {key}: {told}");
        assert!(finished.took < Duration::from_secs(2), "{certificate} with {key}: {:?}", finished.took);
    }
}

async fn run(home: &Home) -> Finished {
    home.tidegate(&["run"]).await
}

#[tokio::test]
async fn plain_http_on_a_tls_port_ends_soon() {
    let edge = Edge::start(two_certificates()).await;
    let request = "GET / HTTP/1.1\r\nhost: test.example\r\n\r\n";
    let (_, end) = tidegate_tests::raw::Raw::exchange(edge.address("tls"), request, Duration::from_secs(5)).await;
    assert_ne!(end, tidegate_tests::raw::End::Open);
    Client::new(Kind::H2Tls, edge.address("tls")).get("/").await.assert(200, b"main");
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let site = two_certificates().replace("tls: {} }", "tls: {}, timeouts: { handshake: 300ms } }");
    let edge = Edge::start(site).await;
    for start in ["", "\u{16}\u{3}\u{1}"] {
        let (_, end) = tidegate_tests::raw::Raw::exchange(edge.address("tls"), start, Duration::from_secs(5)).await;
        assert_ne!(end, tidegate_tests::raw::End::Open, "{start:?}");
    }
}
