//! Keys of listeners. Each value has a listener; one site behind all of them forwards to one origin.

use std::{sync::Arc, time::Duration};

use tidegate_tests::{
    client::{Ask, Client, Kind},
    edge::Edge,
    raw::{Raw, status},
    recorder::{OK, Recorder, Seen, Step},
    site::Site,
    wait::wait_until,
};
use tokio::{net::UnixStream, time::timeout};

use super::{Place, Row, check, ending, mapping, value};

const ROWS: &[Row<Place>] = &[
    Row {
        key: "listeners[].name",
        values: ["name: first-PLACE", "name: second-PLACE"],
        observe: |place| Box::pin(name_in_status(place)),
        expected: ["first", "second"],
    },
    Row {
        key: "listeners[].address",
        values: ["address: \"127.0.0.1:@port:PLACE@\"", "address: \"unix:@dir@/PLACE.sock\""],
        observe: |place| Box::pin(kind_of_socket(place)),
        expected: ["tcp", "unix"],
    },
    Row {
        key: "listeners[].tls",
        values: ["", "tls: {}"],
        observe: |place| Box::pin(with_or_without_tls(place)),
        expected: ["plain", "tls"],
    },
    Row {
        key: "listeners[].h2c",
        values: ["h2c: false", "h2c: true"],
        observe: |place| Box::pin(prior_knowledge(place)),
        expected: ["refused", "200"],
    },
    Row {
        key: "listeners[].default_site",
        values: ["", "default_site: fallback"],
        observe: |place| Box::pin(unknown_host(place)),
        expected: ["404", "200"],
    },
    Row {
        key: "listeners[].timeouts.handshake",
        values: ["tls: {}", "tls: {}, timeouts: { handshake: 300ms }"],
        observe: |place| Box::pin(silence_after(place, "")),
        expected: ["open", "closed"],
    },
    Row {
        key: "listeners[].timeouts.head",
        values: ["", "timeouts: { head: 300ms }"],
        observe: |place| Box::pin(silence_after(place, "GET / HTTP/1.1\r\nhost: test.")),
        expected: ["open", "408 closed"],
    },
    Row {
        key: "listeners[].timeouts.idle",
        values: ["", "timeouts: { idle: 300ms }"],
        observe: |place| Box::pin(silence_after(place, "GET / HTTP/1.1\r\nhost: test.example\r\n\r\n")),
        expected: ["200 open", "200 closed"],
    },
    Row {
        key: "listeners[].timeouts.body_idle",
        values: ["", "timeouts: { body_idle: 300ms }"],
        observe: |place| {
            let request = "POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 10\r\n\r\nabc";
            Box::pin(silence_after(place, request))
        },
        expected: ["open", "408 closed"],
    },
    Row {
        key: "listeners[].timeouts.write_idle",
        values: ["", "timeouts: { write_idle: 300ms }"],
        observe: |place| Box::pin(client_that_reads_nothing(place)),
        expected: ["waited for", "let go"],
    },
    Row {
        key: "listeners[].timeouts.tunnel_idle",
        values: ["", "timeouts: { tunnel_idle: 300ms }"],
        observe: |place| {
            let request = "GET /upgrade HTTP/1.1\r\nhost: test.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                           sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            Box::pin(silence_after(place, request))
        },
        expected: ["101 open", "101 closed"],
    },
    Row {
        key: "listeners[].head_limits.bytes",
        values: ["", "head_limits: { bytes: 4KiB }"],
        observe: |place| Box::pin(status_of(place, Ask::get("/").header("x-long", &"x".repeat(6_000)))),
        expected: ["200", "431"],
    },
    Row {
        key: "listeners[].head_limits.fields",
        values: ["", "head_limits: { fields: 20 }"],
        observe: |place| {
            let ask = (0..30).fold(Ask::get("/"), |ask, index| ask.header(&format!("x-{index}"), "1"));
            Box::pin(status_of(place, ask))
        },
        expected: ["200", "431"],
    },
    Row {
        key: "listeners[].head_limits.target",
        values: ["", "head_limits: { target: 1KiB }"],
        observe: |place| Box::pin(status_of(place, Ask::get(&format!("/{}", "a".repeat(2_000))))),
        expected: ["200", "414"],
    },
];

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_listeners_act() {
    let origin = Recorder::start(origin).await;
    let edge = Arc::new(Edge::start(site(&origin)).await);
    check(ROWS, 16, Place::of(&edge)).await;
}

fn site(origin: &Recorder) -> Site {
    let mut listeners = String::new();
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let name = super::name(index, side);
            let defaults = [&format!("name: {name}")[..], &format!("address: \"127.0.0.1:@port:{name}@\"")];
            listeners.push_str(&format!("  - {}\n", mapping(&value(row, index, side), &defaults)));
        }
    }
    Site::new(format!(
        "listeners:\n{listeners}\
sites:
  - hosts: [test.example]
    tls: {{ certificate: \"@dir@/server.pem\", key: \"@dir@/server.key\" }}
    routes: [{{ path: /, proxy: origin }}]
  - name: fallback
    hosts: [other.example]
    tls: {{ certificate: \"@dir@/other.pem\", key: \"@dir@/other.key\" }}
    routes: [{{ path: /, respond: {{ body: fallback }} }}]
upstreams:
  origin: {{ servers: [{{ address: \"{}\" }}] }}
",
        origin.address()
    ))
}

fn origin(seen: &Seen) -> Vec<Step> {
    match seen.target() {
        "/upgrade" => vec![Step::Send(SWITCHING.into()), Step::Stall],
        "/big" => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n");
            vec![Step::Send(head.into()), Step::Send(vec![b'x'; BIG])]
        }
        _ => vec![Step::Send(OK.into())],
    }
}

async fn name_in_status(place: Place) -> String {
    let address = place.edge.address(&place.name).to_string();
    let status = place.edge.status().await;
    let listener = status["listeners"].as_array().into_iter().flatten().find(|entry| entry["address"] == address);
    let name = listener.and_then(|listener| listener["name"].as_str()).unwrap_or("none");
    name.trim_end_matches(&format!("-{}", place.name)).to_owned()
}

async fn kind_of_socket(place: Place) -> String {
    let path = place.edge.home().path().join(format!("{}.sock", place.name));
    if UnixStream::connect(path).await.is_ok() {
        return "unix".to_owned();
    }
    status_of(place, Ask::get("/")).await.replace("200", "tcp")
}

async fn with_or_without_tls(place: Place) -> String {
    let address = place.edge.address(&place.name);
    match (Client::new(Kind::Http1, address).send(Ask::get("/")).await, Client::new(Kind::H2Tls, address)) {
        (Ok(answer), _) if answer.status == 200 => "plain".to_owned(),
        (_, tls) => tls.get("/").await.status.as_str().replace("200", "tls"),
    }
}

async fn prior_knowledge(place: Place) -> String {
    match Client::new(Kind::H2c, place.edge.address(&place.name)).send(Ask::get("/")).await {
        Ok(answer) => answer.status.as_u16().to_string(),
        Err(_) => "refused".to_owned(),
    }
}

async fn unknown_host(place: Place) -> String {
    status_of(place, Ask::get("/").host("unknown.example")).await
}

async fn status_of(place: Place, ask: Ask) -> String {
    let client = Client::new(Kind::Http1, place.edge.address(&place.name));
    client.ask(ask).await.status.as_u16().to_string()
}

/// Sends this and then nothing: what comes back, and whether the connection is still open some deadlines later.
async fn silence_after(place: Place, bytes: &str) -> String {
    let (answer, end) = Raw::exchange(place.edge.address(&place.name), bytes, PATIENCE).await;
    match status(&answer) {
        0 => ending(end).to_owned(),
        status => format!("{status} {}", ending(end)),
    }
}

/// Whether a client that takes no byte of a large answer still has its connection some deadlines later.
async fn client_that_reads_nothing(place: Place) -> String {
    let address = place.edge.address(&place.name);
    let mut raw = Raw::connect_from(address, |socket| socket.set_recv_buffer_size(4_096)).await;
    raw.send("GET /big HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
    let open = async || {
        let status = place.edge.status().await;
        let mut listeners = status["listeners"].as_array().into_iter().flatten();
        listeners.any(|listener| listener["name"] == place.name && listener["connections"] == 1)
    };
    wait_until("the connection", LIMIT, async || open().await.then_some(())).await;
    let gone = wait_until("its end", LIMIT, async || (!open().await).then_some(()));
    if timeout(PATIENCE, gone).await.is_ok() { "let go" } else { "waited for" }.to_owned()
}

/// Several times the deadlines above, and far below the defaults.
const PATIENCE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);
/// More than the buffers of all sockets in between.
const BIG: usize = 16 << 20;
/// The answer of RFC 6455 section 1.3 to the key above.
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
