//! TLS policies from outside: who is let in, what is resumed where, and clients that speak oddly.

use std::{sync::Arc, time::Duration};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    },
    pki_types::ServerName,
    version,
};
use tidegate_tests::{
    authority::{Authority, Identity},
    certificates::{H2, HTTP1, client_speaking, trusting_client},
    client::{Ask, Client, Connection, Kind},
    connect,
    edge::{Edge, Home},
    random::Random,
    raw::{End, Raw},
    recorder::{Recorder, Step},
    site::{CERTIFICATE, LISTENERS, Site},
    wait::{wait_for, wait_until},
};

/// Sites: `open` goes by the default policy, the others by one of their own.
const SITES: [&str; 4] = ["open", "modern", "guests", "staff"];

fn site(origin: &Recorder) -> Site {
    let mut sites = String::new();
    for name in SITES {
        let policy = if name == "open" { "default" } else { name };
        sites.push_str(&format!(
            "  - {{ hosts: [{name}.test.example], listeners: [tls], tls: {CERTIFICATE}, tls_policy: {policy}, \
             routes: [{{ path: /, proxy: origin }}] }}\n"
        ));
    }
    Site::new(format!(
        "{LISTENERS}\nsites:\n{sites}\
tls_policies:
  modern: {{ min_version: 1.3 }}
  guests: {{ client_certificates: {{ ca: \"@dir@/staff.pem\", mode: optional }} }}
  staff: {{ client_certificates: {{ ca: \"@dir@/staff.pem\", forward: true }} }}
upstreams:
  origin: {{ servers: [{{ address: \"{}\" }}] }}
",
        origin.address()
    ))
}

/// The program, its origin, and somebody whom `staff` lets in.
struct Scene {
    edge: Edge,
    origin: Recorder,
    staff: Authority,
    someone: Identity,
}

impl Scene {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With more text in the site file.
    async fn with(more: &str) -> Self {
        let origin = Recorder::start(|_| vec![Step::Send(OK.into())]).await;
        let staff = Authority::new("staff");
        let home = Home::new(&site(&origin).and(more));
        staff.write(&home.path().join("staff.pem"));
        let someone = staff.issue(&["someone"]);
        Self { edge: Edge::launch(home).ready().await, origin, staff, someone }
    }

    /// A client whose sessions serve for every name, as an attacker's would.
    fn client(&self, protocol: &[u8], known: bool) -> Arc<ClientConfig> {
        let identity = known.then_some(&self.someone);
        let config = client_speaking(&[&version::TLS13, &version::TLS12], &[protocol], identity, |_| {});
        let mut config = Arc::unwrap_or_clone(config);
        config.resumption = Resumption::store(Arc::new(AnyName(ClientSessionMemoryCache::new(64))));
        Arc::new(config)
    }

    /// A connection for one name, and how its handshake went.
    async fn connect(&self, config: &Arc<ClientConfig>, name: &str) -> anyhow::Result<(Connection, HandshakeKind)> {
        let address = self.edge.address("tls");
        let stream = connect::tls(address, &format!("{name}.test.example"), Arc::clone(config)).await?;
        let kind = stream.get_ref().1.handshake_kind().expect("the handshake is over");
        let h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        Ok((if h2 { Connection::http2(stream).await? } else { Connection::http1(stream).await? }, kind))
    }

    /// What each host answers on one connection for `name`: `y` is 200, `m` 421, `.` nothing.
    async fn answers(&self, config: &Arc<ClientConfig>, name: &str) -> (String, Option<HandshakeKind>) {
        let Ok((mut connection, kind)) = self.connect(config, name).await else { return (".".repeat(4), None) };
        let mut seen = String::new();
        for host in SITES {
            let answer = connection.send(Ask::get("/").host(&format!("{host}.test.example"))).await;
            seen.push(match answer.map(|answer| answer.status.as_u16()) {
                Ok(200) => 'y',
                Ok(421) => 'm',
                Ok(status) => panic!("{status} for {host} over {name}"),
                Err(_) => '.',
            });
        }
        (seen, Some(kind))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_served_on_connections_of_its_policy_only() {
    let scene = Scene::new().await;
    // Rows are server names, letters are hosts, in the order of SITES.
    let stranger = [("open", "ymmm"), ("modern", "mymm"), ("guests", "mmym"), ("staff", "....")];
    let known = [("open", "ymmm"), ("modern", "mymm"), ("guests", "mmym"), ("staff", "mmmy")];
    for protocol in [HTTP1, H2] {
        for (identified, rows) in [(false, stranger), (true, known)] {
            for (name, expected) in rows {
                let config = scene.client(protocol, identified);
                for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                    let (seen, by) = scene.answers(&config, name).await;
                    let what = format!("{name}, {kind:?}, identified: {identified}, {}", protocol.escape_ascii());
                    assert_eq!(seen, expected, "{what}");
                    if expected != "...." {
                        assert_eq!(by, Some(kind), "{what}");
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_one_site_is_worth_nothing_at_another() {
    let scene = Scene::new().await;
    for first in SITES {
        for second in SITES.into_iter().filter(|second| *second != first) {
            for versions in [[&version::TLS13], [&version::TLS12]] {
                let config = client_speaking(&versions, &[HTTP1], Some(&scene.someone), |_| {});
                let mut config = Arc::unwrap_or_clone(config);
                config.resumption = Resumption::store(Arc::new(AnyName(ClientSessionMemoryCache::new(64))));
                let config = Arc::new(config);
                let Ok((mut connection, _)) = scene.connect(&config, first).await else { continue };
                let ask = Ask::get("/").host(&format!("{first}.test.example"));
                connection.send(ask).await.expect("an answer").assert(200, b"ok\n");
                let Ok((_, kind)) = scene.connect(&config, second).await else { continue };
                assert_eq!(kind, HandshakeKind::Full, "a session of {first} at {second}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_ended_is_not_resumed() {
    let mut scene = Scene::new().await;
    scene.someone = scene.staff.issue_for(&["someone"], Duration::from_secs(3));
    let config = scene.client(HTTP1, true);
    let mut kinds = Vec::new();
    // Each resumption brings new tickets, so a client that comes back often enough could go on for ever.
    wait_until("the end of the certificate", Duration::from_secs(10), async || {
        let Ok((mut connection, kind)) = scene.connect(&config, "staff").await else { return Some(()) };
        let answer = connection.send(Ask::get("/").host("staff.test.example")).await;
        kinds.push(kind);
        answer.is_err().then_some(())
    })
    .await;
    assert_eq!(kinds.first(), Some(&HandshakeKind::Full), "{kinds:?}");
    assert!(kinds.len() > 2 && kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoint_learns_who_it_is_from_us_alone() {
    let scene = Scene::new().await;
    let lie = |name: &str, path: &str| {
        let ask = Ask::get(path).host(&format!("{name}.test.example"));
        ask.header("client-cert", ":bGllCg==:").header("client-cert-chain", ":bGllCg==:")
    };
    for (name, told) in [("staff", true), ("guests", false), ("open", false)] {
        let config = scene.client(HTTP1, true);
        // The second connection resumes the session of the first.
        for round in 0..2 {
            let (mut connection, _) = scene.connect(&config, name).await.expect("a connection");
            let path = format!("/{name}/{round}");
            connection.send(lie(name, &path)).await.expect("an answer").assert(200, b"ok\n");
            let seen = scene.origin.requests().into_iter().find(|seen| seen.line().contains(&path));
            let seen = seen.expect("the request");
            let values = seen.headers("client-cert");
            assert_eq!(values.len(), usize::from(told), "{name}: {values:?}");
            assert!(values.iter().all(|value| *value != ":bGllCg==:" && value.len() > 300), "{name}: {values:?}");
            assert_eq!(seen.header("client-cert-chain"), None, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_a_reload_unless_their_policy_changes() {
    let mut scene = Scene::new().await;
    let config = scene.client(HTTP1, true);
    let answers = async |scene: &Scene| scene.answers(&config, "staff").await;
    assert_eq!(answers(&scene).await.1, Some(HandshakeKind::Full));
    let (mut old, _) = scene.connect(&config, "staff").await.expect("a connection");
    let ask = || Ask::get("/").host("staff.test.example");
    old.send(ask()).await.expect("an answer").assert(200, b"ok\n");

    let same =
        site(&scene.origin).replace("modern: { min_version: 1.3 }", "modern: { min_version: 1.3, tickets: false }");
    assert!(scene.edge.reload(&same).await.status.success());
    assert_eq!(answers(&scene).await, ("mmmy".to_owned(), Some(HandshakeKind::Resumed)));
    old.send(ask()).await.expect("an answer").assert(200, b"ok\n");

    // The file has another CA now: nobody of the old one is let in, not by a session and not on an open connection.
    let others = Authority::new("others");
    let file = scene.edge.home().path().join("staff.pem");
    others.write(&file);
    assert!(scene.edge.reload(&same).await.status.success());
    assert_eq!(answers(&scene).await.0, "....");
    assert_eq!(old.send(ask()).await.expect("an answer").status, 421);

    // A file that is no CA is refused, and what was there goes on.
    std::fs::write(&file, "garbage").expect("the directory is ours");
    let refused = scene.edge.reload(&same).await;
    let told = format!("{}{}", refused.stdout, refused.stderr);
    assert!(!refused.status.success() && told.contains("staff.pem"), "{told}");
    scene.someone = others.issue(&["someone else"]);
    let config = scene.client(HTTP1, true);
    assert_eq!(scene.answers(&config, "staff").await.0, "mmmy");
    drop(scene.staff);
}

/// Such a connection is of no more use: a client that keeps it would never be asked for a certificate of the new CA.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_a_policy_that_has_changed_is_ended_with_its_answer() {
    let mut scene = Scene::new().await;
    let ask = || Ask::get("/").host("staff.test.example");
    let mut old = Vec::new();
    for protocol in [HTTP1, H2] {
        let (mut connection, _) = scene.connect(&scene.client(protocol, true), "staff").await.expect("a connection");
        connection.send(ask()).await.expect("an answer").assert(200, b"ok\n");
        // A wrong host costs the connection nothing: it still serves its own.
        assert_eq!(connection.send(Ask::get("/").host("open.test.example")).await.expect("an answer").status, 421);
        connection.send(ask()).await.expect("an answer").assert(200, b"ok\n");
        old.push(connection);
    }
    let others = Authority::new("others");
    others.write(&scene.edge.home().path().join("staff.pem"));
    assert!(scene.edge.reload(&site(&scene.origin)).await.status.success());
    for (mut connection, protocol) in old.into_iter().zip([HTTP1, H2]) {
        let answer = connection.send(ask()).await.expect("an answer");
        let what = protocol.escape_ascii().to_string();
        assert_eq!((answer.status.as_u16(), answer.is_complete()), (421, true), "{what}");
        assert_eq!(answer.header("x-tidegate-reason"), Some("tls_policy_changed"), "{what}");
        assert_eq!(answer.header("connection"), (protocol == HTTP1).then_some("close"), "{what}");
        wait_for("the end of the connection", Duration::from_secs(5), || connection.is_closed().then_some(())).await;
    }
    scene.someone = others.issue(&["someone else"]);
    let (mut connection, _) = scene.connect(&scene.client(H2, true), "staff").await.expect("a connection");
    connection.send(ask()).await.expect("an answer").assert(200, b"ok\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_knows_who_it_was() {
    let format = "$host $scheme $status $ssl_client_verify [$ssl_client_s_dn] $ssl_client_serial";
    let logging = format!("logging: {{ access: {{ to: \"@dir@/access.log\", format: \"{format}\" }} }}");
    let scene = Scene::with(&logging).await;
    let rows =
        [("staff", true, HTTP1), ("staff", true, H2), ("guests", true, H2), ("guests", false, H2), ("open", true, H2)];
    for (name, known, protocol) in rows {
        let client = scene.client(protocol, known);
        // The second connection resumes the session of the first.
        for _ in 0..2 {
            let (mut connection, _) = scene.connect(&client, name).await.expect("a connection");
            let ask = Ask::get("/").host(&format!("{name}.test.example"));
            connection.send(ask).await.expect("an answer").assert(200, b"ok\n");
        }
    }
    let mut raw = Raw::connect(scene.edge.address("plain")).await;
    raw.send("GET / HTTP/1.1\r\nhost: nobody\r\n\r\n").await;
    raw.read_head().await;
    let path = scene.edge.home().path().join("access.log");
    let mut lines = wait_for("the lines", Duration::from_secs(5), || {
        let log = std::fs::read_to_string(&path).ok()?;
        (log.lines().count() == 11).then(|| log.lines().map(str::to_owned).collect::<Vec<_>>())
    })
    .await;
    let named = lines.iter().find(|line| line.contains("SUCCESS")).expect("somebody was known");
    let serial = named.rsplit(' ').next().expect("a number").to_owned();
    let digits: Vec<u8> = (0..serial.len() / 2)
        .map(|place| u8::from_str_radix(&serial[2 * place..2 * place + 2], 16).expect("hexadecimal digits"))
        .collect();
    let certificate: &[u8] = &scene.someone.certificate;
    assert!(digits.len() >= 8 && certificate.windows(digits.len()).any(|part| part == digits), "{serial}");
    let verified = format!("https 200 SUCCESS [CN=rcgen self signed cert] {serial}");
    let mut expected = vec![format!("staff.test.example {verified}"); 4];
    expected.extend(vec![format!("guests.test.example {verified}"); 2]);
    expected.extend(vec!["guests.test.example https 200 NONE [-] -".to_owned(); 2]);
    expected.extend(vec!["open.test.example https 200 NONE [-] -".to_owned(); 2]);
    expected.push("nobody http 404 - [-] -".to_owned());
    // Shards write their lines in an order of their own.
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_are_counted_as_the_server_sees_them() {
    let scene = Scene::new().await;
    for config in [trusting_client(&[HTTP1]), client_speaking(&[&version::TLS12], &[HTTP1], None, |_| {})] {
        for _ in 0..100 {
            let (mut connection, _) = scene.connect(&config, "open").await.expect("a connection");
            connection.send(Ask::get("/").host("open.test.example")).await.expect("an answer").assert(200, b"ok\n");
        }
    }
    let metrics = scene.edge.admin().metrics().await.expect("metrics");
    let count = |result: &str| {
        let series = format!("tidegate_tls_handshakes_total{{listener=\"tls\",result=\"{result}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or_else(|| panic!("no {series} in {metrics}"))
    };
    assert_eq!((count("full"), count("resumed"), count("failed")), (2, 198, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_server_names_end_in_an_alert_or_a_certificate() {
    let scene = Scene::new().await;
    let hello = hello();
    let long = [b'a'; 255];
    let labels = [&[b'b'; 63][..], b".test.example"].concat();
    // What is a handshake record (22) goes on, an alert (21) does not.
    let rows: [(&str, Option<&[u8]>, u8); 10] = [
        ("as it is", Some(b"open.test.example"), 22),
        ("upper case", Some(b"OPEN.test.EXAMPLE"), 22),
        ("a trailing dot", Some(b"open.test.example."), 22),
        ("an address", Some(b"127.0.0.1"), 21),
        ("an address in brackets", Some(b"[::1]"), 21),
        ("255 bytes", Some(&long), 21),
        ("an unknown name", Some(&labels), 21),
        ("a NUL", Some(b"open.test.example\0.evil"), 21),
        ("nothing in it", Some(b""), 21),
        ("none", None, 21),
    ];
    for (what, name, kind) in rows {
        let mut raw = Raw::connect(scene.edge.address("tls")).await;
        raw.send(with_server_name(&hello, name)).await;
        let (answer, end) = raw.read_to_end(Duration::from_millis(400)).await;
        assert_eq!(answer.first(), Some(&kind), "{what}: {:?}", answer.get(..7));
        assert_eq!(end == End::Open, kind == 22, "{what}");
    }
    Client::new(Kind::H2Tls, scene.edge.address("tls")).connect_as("open.test.example").await.expect("it still serves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_broken_hellos_break_nothing() {
    let scene = Scene::new().await;
    let mut random = Random::new(20_261_121);
    let hello = hello();
    let address = scene.edge.address("tls");
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..3_000 {
        let mut bytes = hello.clone();
        for _ in 0..random.within(0..4) {
            let place = random.within(0..bytes.len());
            bytes[place] = random.number() as u8;
        }
        if random.chance(25) {
            bytes.truncate(random.within(0..bytes.len()));
        }
        if random.chance(12) {
            let place = random.within(0..bytes.len() + 1);
            bytes.splice(place..place, hello.iter().copied().take(40));
        }
        if running.len() >= 32 {
            running.join_next().await;
        }
        running.spawn(async move {
            let mut raw = Raw::connect(address).await;
            raw.send(bytes).await;
            raw.finish().await;
            raw.read_to_end(Duration::from_secs(5)).await.1
        });
    }
    while let Some(end) = running.join_next().await {
        assert_ne!(end.expect("the client does not panic"), End::Open);
    }
    let told = scene.edge.output().both();
    assert!(!told.contains("panicked"), "{told}");
    scene.connect(&scene.client(H2, false), "open").await.expect("it still serves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_versions_and_weak_suites_are_not_spoken() {
    let scene = Scene::new().await;
    let hello = hello();
    // The version of the record's body, and the only suite offered; TLS 1.3 is struck out.
    let rows: [(&str, [u8; 2], [u8; 2]); 8] = [
        ("SSL 3", [3, 0], [0xc0, 0x2b]),
        ("TLS 1.0", [3, 1], [0xc0, 0x2b]),
        ("TLS 1.1", [3, 2], [0xc0, 0x2b]),
        ("3DES", [3, 3], [0x00, 0x0a]),
        ("RC4", [3, 3], [0x00, 0x05]),
        ("CBC", [3, 3], [0xc0, 0x23]),
        ("RSA key exchange", [3, 3], [0x00, 0x9c]),
        ("NULL", [3, 3], [0x00, 0x3b]),
    ];
    for (what, version, suite) in rows {
        let mut bytes = without_tls13(&hello);
        bytes[9..11].copy_from_slice(&version);
        let start = 9 + 2 + 32 + 1 + usize::from(bytes[43]);
        let count = usize::from(u16::from_be_bytes([bytes[start], bytes[start + 1]])) / 2;
        for index in 0..count {
            bytes[start + 2 + index * 2..][..2].copy_from_slice(&suite);
        }
        let (answer, end) = exchange(&scene, bytes).await;
        assert_eq!((answer.first(), end != End::Open), (Some(&21), true), "{what}: {:?}", answer.get(..7));
    }
    // Compression is offered beside none, and none is taken (RFC 5246 section 7.4.1.3).
    let mut bytes = without_tls13(&hello);
    let suites = 9 + 2 + 32 + 1 + usize::from(bytes[43]);
    let compression = suites + 2 + usize::from(u16::from_be_bytes([bytes[suites], bytes[suites + 1]]));
    bytes.splice(compression..compression + 2, [2, 1, 0]);
    let bytes = framed(&bytes[9..]);
    let (answer, _) = exchange(&scene, bytes).await;
    assert_eq!(answer.first(), Some(&22), "{answer:?}");
    let chosen = 9 + 2 + 32 + 1 + usize::from(answer[43]) + 2;
    assert_eq!(answer[chosen], 0, "compression");
}

async fn exchange(scene: &Scene, bytes: Vec<u8>) -> (Vec<u8>, End) {
    let mut raw = Raw::connect(scene.edge.address("tls")).await;
    raw.send(bytes).await;
    raw.read_to_end(Duration::from_millis(400)).await
}

/// The first record of an ordinary client, small enough for one packet.
fn hello() -> Vec<u8> {
    let config = client_speaking(&[&version::TLS13, &version::TLS12], &[HTTP1], None, |provider| {
        provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    });
    let name = ServerName::try_from("open.test.example").expect("it is a name");
    let mut bytes = Vec::new();
    let mut connection = ClientConnection::new(config, name).expect("the configuration is complete");
    connection.write_tls(&mut bytes).expect("a vector takes everything");
    bytes
}

const SERVER_NAME: u16 = 0;
const SUPPORTED_VERSIONS: u16 = 43;

/// The same hello with another server name, or without one.
fn with_server_name(hello: &[u8], name: Option<&[u8]>) -> Vec<u8> {
    rewritten(hello, |kind, value| {
        if kind != SERVER_NAME {
            return Some(value.to_vec());
        }
        let name = name?;
        let mut list = vec![0];
        list.extend_from_slice(&(name.len() as u16).to_be_bytes());
        list.extend_from_slice(name);
        Some([&(list.len() as u16).to_be_bytes()[..], &list].concat())
    })
}

fn without_tls13(hello: &[u8]) -> Vec<u8> {
    rewritten(hello, |kind, value| (kind != SUPPORTED_VERSIONS).then(|| value.to_vec()))
}

/// The same hello with other extensions.
fn rewritten(hello: &[u8], change: impl Fn(u16, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let number = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let body = &hello[9..];
    let session = 2 + 32;
    let suites = session + 1 + usize::from(body[session]);
    let compression = suites + 2 + usize::from(number(&body[suites..]));
    let extensions = compression + 1 + usize::from(body[compression]);
    let mut changed = Vec::new();
    let mut rest = &body[extensions + 2..];
    while !rest.is_empty() {
        let (kind, length) = (number(rest), usize::from(number(&rest[2..])));
        if let Some(value) = change(kind, &rest[4..4 + length]) {
            changed.extend_from_slice(&kind.to_be_bytes());
            changed.extend_from_slice(&(value.len() as u16).to_be_bytes());
            changed.extend_from_slice(&value);
        }
        rest = &rest[4 + length..];
    }
    framed(&[&body[..extensions], &(changed.len() as u16).to_be_bytes(), &changed].concat())
}

/// A client hello in its record.
fn framed(body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    let record = (body.len() as u16 + 4).to_be_bytes();
    [&[22, 3, 1][..], &record, &[1], &length[1..], body].concat()
}

/// A store that gives every name the sessions of all.
#[derive(Debug)]
struct AnyName(ClientSessionMemoryCache);

impl AnyName {
    fn one() -> ServerName<'static> {
        ServerName::try_from("any.example").expect("it is a name")
    }
}

impl ClientSessionStore for AnyName {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::one(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::one())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::one(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::one())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::one());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::one(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::one())
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";
