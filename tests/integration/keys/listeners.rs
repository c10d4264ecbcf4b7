//! Keys of listeners. Each value has a listener; one site behind all of them forwards to one origin.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_tests::{
    client::{Ask, Client, Kind},
    edge::Edge,
    frames::{Frames, Outcome, code_name, get, kind, number, reset, setting},
    raw::{Raw, field, status},
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
        key: "listeners[].tls.policy",
        values: ["tls: {}", "tls: { policy: only-h2 }"],
        observe: |place| Box::pin(http1_on_tls(place)),
        expected: ["200", "no handshake"],
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
        key: "listeners[].max_connections",
        values: ["", "max_connections: 3"],
        observe: |place| Box::pin(five_connections(place)),
        expected: ["5 served", "3 served"],
    },
    Row {
        key: "listeners[].proxy_protocol.from",
        values: ["proxy_protocol: { from: [192.0.2.0/24] }", "proxy_protocol: { from: [loopback] }"],
        observe: |place| Box::pin(silence_after(place, "GET / HTTP/1.1\r\nhost: test.example\r\n\r\n")),
        expected: ["200 open", "reset"],
    },
    Row {
        key: "listeners[].proxy_protocol.timeout",
        values: ["proxy_protocol: { from: [loopback] }", "proxy_protocol: { from: [loopback], timeout: 300ms }"],
        observe: |place| Box::pin(silence_after(place, "PROXY TCP4 ")),
        expected: ["open", "closed"],
    },
    Row {
        key: "listeners[].trusted_proxies.from",
        values: ["trusted_proxies: { from: [192.0.2.0/24] }", "trusted_proxies: { from: [loopback] }"],
        observe: |place| Box::pin(client_at_the_origin(place)),
        expected: ["127.0.0.1", "203.0.113.1, 127.0.0.1"],
    },
    Row {
        key: "listeners[].trusted_proxies.header",
        values: [
            "trusted_proxies: { from: [loopback], header: x_forwarded_for }",
            "trusted_proxies: { from: [loopback], header: forwarded }",
        ],
        observe: |place| Box::pin(client_at_the_origin(place)),
        expected: ["203.0.113.1, 127.0.0.1", "203.0.113.2, 127.0.0.1"],
    },
    Row {
        key: "listeners[].half_close",
        values: ["half_close: serve", "half_close: abort"],
        observe: |place| Box::pin(request_and_end(place)),
        expected: ["200", "no answer"],
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
        key: "listeners[].timeouts.body_rate",
        values: ["timeouts: { body_rate: off }", "timeouts: { body_rate: { over: 300ms } }"],
        observe: |place| Box::pin(dripped_body(place)),
        expected: ["waited for", "408"],
    },
    Row {
        key: "listeners[].timeouts.body_rate.rate",
        values: [
            "timeouts: { body_rate: { over: 300ms, rate: 1B/s } }",
            "timeouts: { body_rate: { over: 300ms, rate: 1KiB/s } }",
        ],
        observe: |place| Box::pin(dripped_body(place)),
        expected: ["waited for", "408"],
    },
    Row {
        key: "listeners[].timeouts.body_rate.over",
        values: ["timeouts: { body_rate: { over: 30s } }", "timeouts: { body_rate: { over: 300ms } }"],
        observe: |place| Box::pin(dripped_body(place)),
        expected: ["waited for", "408"],
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
    Row {
        key: "listeners[].http2.streams",
        values: ["h2c: true", "h2c: true, http2: { streams: 7 }"],
        observe: |place| Box::pin(settings_of(place)),
        expected: ["streams 100, window 262144 of 1048576", "streams 7, window 262144 of 1048576"],
    },
    Row {
        key: "listeners[].http2.stream_window",
        values: ["h2c: true", "h2c: true, http2: { stream_window: 1MiB }"],
        observe: |place| Box::pin(settings_of(place)),
        expected: ["streams 100, window 262144 of 1048576", "streams 100, window 1048576 of 4194304"],
    },
    Row {
        key: "listeners[].http2.connection_window",
        values: ["h2c: true", "h2c: true, http2: { connection_window: 2MiB }"],
        observe: |place| Box::pin(settings_of(place)),
        expected: ["streams 100, window 262144 of 1048576", "streams 100, window 262144 of 2097152"],
    },
    Row {
        key: "listeners[].http2.resets",
        values: ["h2c: true", "h2c: true, http2: { resets: 10 }"],
        observe: |place| Box::pin(after_resets(place)),
        expected: ["served", "ENHANCE_YOUR_CALM"],
    },
    Row {
        key: "listeners[].parsing",
        values: ["", "parsing: lenient"],
        observe: |place| Box::pin(bare_line_feeds(place)),
        expected: ["400", "200"],
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
tls_policies: {{ only-h2: {{ alpn: [h2] }} }}
upstreams:
  origin: {{ servers: [{{ address: \"{}\" }}] }}
",
        origin.address()
    ))
}

fn origin(seen: &Seen) -> Vec<Step> {
    match seen.target() {
        "/upgrade" => vec![Step::Send(SWITCHING.into()), Step::Stall],
        "/late" => vec![Step::Pause(Duration::from_millis(200)), Step::Send(OK.into())],
        "/client" => {
            let client = field(&seen.head, "x-forwarded-for").unwrap_or_default();
            let length = client.len();
            vec![Step::Send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{client}").into())]
        }
        "/big" => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n");
            vec![Step::Send(head.into()), Step::Send(vec![b'x'; BIG])]
        }
        "/slow" => vec![Step::Stall],
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

async fn http1_on_tls(place: Place) -> String {
    let client = Client::new(Kind::Http1Tls, place.edge.address(&place.name));
    client.send(Ask::get("/")).await.map_or("no handshake".to_owned(), |answer| answer.status.as_u16().to_string())
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

async fn bare_line_feeds(place: Place) -> String {
    let mut raw = Raw::connect(place.edge.address(&place.name)).await;
    raw.send("GET / HTTP/1.1\nhost: test.example\n\n").await;
    status(&raw.read_head().await).to_string()
}

/// What the first frames of an HTTP/2 connection allow.
async fn settings_of(place: Place) -> String {
    let mut frames = Frames::connect(place.edge.address(&place.name), &[]).await;
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    let (mut settings, mut room) = (None, 65_535);
    while settings.is_none() || room == 65_535 {
        let frame = frames.next(until).await.expect("frames come").expect("the connection stays");
        match frame.kind {
            kind::SETTINGS if frame.flags == 0 => settings = Some(frame.payload),
            kind::WINDOW_UPDATE => room += number(&frame.payload),
            _ => {}
        }
    }
    let value = |key| settings.as_deref().and_then(|payload| setting(payload, key)).unwrap_or_default();
    format!("streams {}, window {} of {room}", value(3), value(4))
}

/// Breaks thirty requests off, one after the other; the origin takes its time for each.
async fn after_resets(place: Place) -> String {
    let mut frames = Frames::connect(place.edge.address(&place.name), &[]).await;
    for stream in (1..60).step_by(2) {
        frames.send(get(stream, "/slow")).await;
        if !frames.settled(Duration::from_secs(5)).await {
            break;
        }
        frames.send(reset(stream)).await;
    }
    frames.send(get(101, "/")).await;
    match frames.outcome(101, Duration::from_secs(5)).await {
        Outcome::Answer(200) => "served".to_owned(),
        Outcome::GoAway(code) => code_name(code).to_owned(),
        other => other.to_string(),
    }
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

/// How many of five connections that stay open are served.
async fn five_connections(place: Place) -> String {
    let (mut open, mut count) = (Vec::new(), 0);
    for _ in 0..5 {
        let mut raw = Raw::connect(place.edge.address(&place.name)).await;
        raw.send("GET / HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
        count += usize::from(status(&raw.read_until("\r\n\r\n", LIMIT).await.unwrap_or_default()) == 200);
        open.push(raw);
    }
    format!("{count} served")
}

/// What the origin is told of the client, when the client says that it is somebody else.
async fn client_at_the_origin(place: Place) -> String {
    let client = Client::new(Kind::Http1, place.edge.address(&place.name));
    let ask = Ask::get("/client").header("x-forwarded-for", "203.0.113.1").header("forwarded", "for=203.0.113.2");
    client.ask(ask).await.text()
}

/// The answer for a client that ends its sending side behind its request.
async fn request_and_end(place: Place) -> String {
    let mut raw = Raw::connect(place.edge.address(&place.name)).await;
    raw.send("GET /late HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
    raw.finish().await;
    let (answer, _) = raw.read_to_end(LIMIT).await;
    match status(&String::from_utf8_lossy(&answer)) {
        0 => "no answer".to_owned(),
        status => status.to_string(),
    }
}

/// The answer to a body that comes by twenty bytes a second.
async fn dripped_body(place: Place) -> String {
    let mut raw = Raw::connect(place.edge.address(&place.name)).await;
    raw.send("POST / HTTP/1.1\r\nhost: test.example\r\ncontent-length: 1000\r\n\r\n").await;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        raw.send("x").await;
        if let Ok(head) = raw.read_until("\r\n\r\n", Duration::from_millis(50)).await {
            return status(&head).to_string();
        }
    }
    "waited for".to_owned()
}

/// Whether a client that takes no more than the head of a large answer still has its connection some deadlines later.
async fn client_that_reads_nothing(place: Place) -> String {
    let address = place.edge.address(&place.name);
    let mut raw = Raw::connect_from(address, |socket| socket.set_recv_buffer_size(4_096)).await;
    raw.send("GET /big HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
    let open = async || {
        let status = place.edge.status().await;
        let mut listeners = status["listeners"].as_array().into_iter().flatten();
        listeners.any(|listener| listener["name"] == place.name && listener["connections"] == 1)
    };
    raw.read_head().await;
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
