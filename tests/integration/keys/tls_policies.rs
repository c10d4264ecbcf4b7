//! Keys of TLS policies. Each value has a policy, and a site that names it.

use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind, version};
use tidegate_tests::{
    authority::{Authority, Identity},
    certificates::{H2, HTTP1, client_speaking},
    client::{Ask, Connection, Kind},
    connect::{self, Stream},
    edge::{Edge, Home},
    recorder::{Recorder, Seen, Step},
    site::{CERTIFICATE, LISTENERS, Site},
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Place, Row, check, value};

const ROWS: &[Row<Client>] = &[
    Row {
        key: "tls_policies.<name>.min_version",
        values: ["", "min_version: 1.3"],
        observe: |client| Box::pin(async move { client.status(client.older()).await }),
        expected: ["200", "refused"],
    },
    Row {
        key: "tls_policies.<name>.cipher_suites",
        values: ["", "cipher_suites: [TLS_CHACHA20_POLY1305_SHA256]"],
        observe: |client| Box::pin(suite(client)),
        expected: ["TLS13_AES_256_GCM_SHA384", "TLS13_CHACHA20_POLY1305_SHA256"],
    },
    Row {
        key: "tls_policies.<name>.key_exchange",
        values: ["", "key_exchange: [secp384r1]"],
        observe: |client| Box::pin(group(client)),
        expected: ["X25519", "secp384r1"],
    },
    Row {
        key: "tls_policies.<name>.alpn",
        values: ["", "alpn: [http/1.1, h2]"],
        observe: |client| Box::pin(protocol(client)),
        expected: ["h2", "http/1.1"],
    },
    Row {
        key: "tls_policies.<name>.client_certificates.ca",
        values: [
            "client_certificates: { ca: \"@dir@/staff.pem\" }",
            "client_certificates: { ca: \"@dir@/others.pem\" }",
        ],
        observe: |client| Box::pin(async move { client.status(client.known()).await }),
        expected: ["200", "refused"],
    },
    Row {
        key: "tls_policies.<name>.client_certificates.mode",
        values: [
            "client_certificates: { ca: \"@dir@/staff.pem\" }",
            "client_certificates: { ca: \"@dir@/staff.pem\", mode: optional }",
        ],
        observe: |client| Box::pin(async move { client.status(client.ordinary()).await }),
        expected: ["refused", "200"],
    },
    Row {
        key: "tls_policies.<name>.client_certificates.forward",
        values: [
            "client_certificates: { ca: \"@dir@/staff.pem\" }",
            "client_certificates: { ca: \"@dir@/staff.pem\", forward: true }",
        ],
        observe: |client| Box::pin(what_the_endpoint_knows(client)),
        expected: ["nothing", "who it is"],
    },
    Row {
        key: "tls_policies.<name>.tickets",
        values: ["session_cache: 0", "session_cache: 0, tickets: false"],
        observe: |client| Box::pin(second_handshake(client)),
        expected: ["resumed", "full"],
    },
    Row {
        key: "tls_policies.<name>.session_cache",
        values: ["tickets: false", "tickets: false, session_cache: 0"],
        observe: |client| Box::pin(second_handshake(client)),
        expected: ["resumed", "full"],
    },
];

/// A place, and somebody whom the CA of `staff.pem` knows.
struct Client {
    place: Place,
    identity: Arc<Identity>,
}

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_tls_policies_act() {
    let origin = Recorder::start(|seen| vec![Step::Send(origin(seen).into())]).await;
    let staff = Authority::new("staff");
    let home = Home::new(&site(&origin));
    staff.write(&home.path().join("staff.pem"));
    Authority::new("others").write(&home.path().join("others.pem"));
    let edge = Arc::new(Edge::launch(home).ready().await);
    let identity = Arc::new(staff.issue(&["someone"]));
    let mut places = Place::of(&edge);
    check(ROWS, 8, |index, side| Client { place: places(index, side), identity: Arc::clone(&identity) }).await;
}

fn site(origin: &Recorder) -> Site {
    let (mut sites, mut policies) = (String::new(), String::new());
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let name = super::name(index, side);
            policies.push_str(&format!("  {name}: {{ {} }}\n", value(row, index, side)));
            sites.push_str(&format!(
                "  - {{ hosts: [{name}.test.example], listeners: [tls], tls: {CERTIFICATE}, tls_policy: {name}, \
                 routes: [{{ path: /, proxy: origin }}] }}\n"
            ));
        }
    }
    let server = format!("servers: [{{ address: \"{}\" }}]", origin.address());
    Site::new(format!(
        "{LISTENERS}\nsites:\n{sites}\ntls_policies:\n{policies}\nupstreams:\n  origin: {{ {server} }}\n"
    ))
}

/// An origin that says what it was told of the client.
fn origin(seen: &Seen) -> String {
    let told = seen.header("client-cert").is_some_and(|value| value.starts_with(':'));
    format!("HTTP/1.1 200 OK\r\nx-told: {told}\r\ncontent-length: 3\r\n\r\nok\n")
}

impl Client {
    fn ordinary(&self) -> Arc<ClientConfig> {
        client_speaking(&[&version::TLS13, &version::TLS12], &[HTTP1], None, |_| {})
    }

    fn older(&self) -> Arc<ClientConfig> {
        client_speaking(&[&version::TLS12], &[HTTP1], None, |_| {})
    }

    fn known(&self) -> Arc<ClientConfig> {
        client_speaking(&[&version::TLS13, &version::TLS12], &[HTTP1], Some(&self.identity), |_| {})
    }

    async fn connect(&self, config: Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
        connect::tls(self.place.edge.address(Kind::Http1Tls.listener()), &self.place.host(), config).await
    }

    /// Sends a request, for a client learns of a refused certificate only when it reads.
    async fn ask(&self, stream: impl Stream) -> anyhow::Result<tidegate_tests::client::Answer> {
        Connection::http1(stream).await?.send(Ask::get("/").host(&self.place.host())).await
    }

    async fn status(&self, config: Arc<ClientConfig>) -> String {
        let Ok(stream) = self.connect(config).await else { return "refused".to_owned() };
        self.ask(stream).await.map_or("refused".to_owned(), |answer| answer.status.as_u16().to_string())
    }
}

async fn suite(client: Client) -> String {
    let stream = client.connect(client.ordinary()).await.expect("a handshake");
    stream.get_ref().1.negotiated_cipher_suite().map_or_else(String::new, |suite| format!("{:?}", suite.suite()))
}

async fn group(client: Client) -> String {
    let stream = client.connect(client.ordinary()).await.expect("a handshake");
    stream.get_ref().1.negotiated_key_exchange_group().map_or_else(String::new, |group| format!("{:?}", group.name()))
}

async fn protocol(client: Client) -> String {
    let config = client_speaking(&[&version::TLS13], &[H2, HTTP1], None, |_| {});
    let stream = client.connect(config).await.expect("a handshake");
    String::from_utf8_lossy(stream.get_ref().1.alpn_protocol().unwrap_or_default()).into_owned()
}

async fn what_the_endpoint_knows(client: Client) -> String {
    let stream = client.connect(client.known()).await.expect("a handshake");
    let answer = client.ask(stream).await.expect("an answer");
    if answer.header("x-told") == Some("true") { "who it is" } else { "nothing" }.to_owned()
}

async fn second_handshake(client: Client) -> String {
    let config = client.ordinary();
    let first = client.connect(Arc::clone(&config)).await.expect("a handshake");
    client.ask(first).await.expect("an answer, and with it what a session is resumed by");
    let second = client.connect(config).await.expect("a handshake");
    let resumed = second.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    if resumed { "resumed" } else { "full" }.to_owned()
}
