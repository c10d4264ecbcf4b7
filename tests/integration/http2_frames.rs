//! HTTP/2 from a client without manners, frame by frame: what the standard calls malformed never reaches an origin, and
//! ends the stream or the connection that it is an error of, and nothing else.

use std::time::Duration;

use tidegate_tests::{
    client::Kind,
    edge::Edge,
    frames::{
        END_HEADERS, END_STREAM, Frames, PREFACE, WHOLE, block, frame_bytes, get, kind, post, request, reset,
        settings_frame, window,
    },
    recorder::{OK, Recorder, Seen, Step},
    site::Site,
};

/// What is sent after the settings, the stream (or 0) that is looked at, and what may come of it, by `|`.
type Row = (&'static str, Vec<u8>, u32, &'static str);

fn origin(seen: &Seen) -> Vec<Step> {
    if seen.target() == "/stall" { vec![Step::Stall] } else { vec![Step::Send(OK.into())] }
}

/// Each row on a connection of its own. What says "bad" never reaches the origin.
async fn check(rows: Vec<Row>) {
    let recorder = Recorder::start(origin).await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let mut wrong = Vec::new();
    for (name, bytes, stream, expected) in rows {
        let mut frames = Frames::connect(edge.address("h2c"), &[]).await;
        frames.send(bytes).await;
        let outcome = frames.outcome(stream, LIMIT).await.to_string();
        if !expected.split('|').any(|allowed| allowed == outcome) {
            wrong.push(format!("{name}: expected {expected}, seen {outcome}"));
        }
    }
    edge.client(Kind::H2c).get("/").await.assert(200, b"ok\n");
    let reached =
        recorder.requests().into_iter().filter(|seen| ["/bad", ": bad\r"].iter().any(|bad| seen.head.contains(bad)));
    wrong.extend(reached.map(|seen| format!("the origin saw {seen:?}")));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A head on stream 3, and a good request after it, which must not notice.
async fn check_heads(rows: Vec<(String, Vec<u8>, &'static str)>) {
    let recorder = Recorder::start(origin).await;
    let edge = Edge::start(Site::proxy_to(recorder.address())).await;
    let mut wrong = Vec::new();
    for (name, head, expected) in rows {
        let mut frames = Frames::connect(edge.address("h2c"), &[]).await;
        frames.send(frame_bytes(kind::HEADERS, WHOLE, 3, &head)).await;
        let outcome = frames.outcome(3, LIMIT).await.to_string();
        if !expected.split('|').any(|allowed| allowed == outcome) {
            wrong.push(format!("{name}: expected {expected}, seen {outcome}"));
        }
        if !outcome.starts_with("GOAWAY") {
            frames.send(get(5, "/sibling")).await;
            let sibling = frames.outcome(5, LIMIT).await.to_string();
            if sibling != "200" {
                wrong.push(format!("{name}: a sibling got {sibling}"));
            }
        }
        let seen = recorder.requests();
        if seen.iter().filter(|seen| seen.target() != "/sibling").count() != usize::from(expected == "200") {
            wrong.push(format!("{name}: the origin saw {seen:?}"));
        }
        recorder.forget();
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

const METHOD: (&[u8], &[u8]) = (b":method", b"GET");
const SCHEME: (&[u8], &[u8]) = (b":scheme", b"http");
const AUTHORITY: (&[u8], &[u8]) = (b":authority", b"test.example");
const PATH: (&[u8], &[u8]) = (b":path", b"/bad");
// The session ends the connection for what its header decoder refuses, where the standard asks for the stream alone.
const REFUSED: &str = "400|RST PROTOCOL_ERROR|GOAWAY PROTOCOL_ERROR";

#[tokio::test]
async fn bytes_that_would_mean_something_else_in_http1_are_refused() {
    let places: [(&str, &[u8]); 6] = [
        ("name", b"\0\n\r :A\x7f\x80\t\"(,_"),
        ("value", b"\0\n\r\x7f\x01\x1f"),
        (":path", b"\0\n\r \t\x7f\x80\"<>\\"),
        (":method", b"\0\n\r :(\x7f\t/"),
        (":authority", b"\0\n\r \t\x7f@/\\?#"),
        (":scheme", b"\0\n\r \t/@"),
    ];
    let mut rows = Vec::new();
    for (place, bytes) in places {
        for byte in bytes.iter().copied() {
            let with = |text: &str| [text.as_bytes(), &[byte], b"x"].concat();
            let head: Vec<(Vec<u8>, Vec<u8>)> = [METHOD, SCHEME, AUTHORITY, PATH]
                .into_iter()
                .map(|(name, value)| {
                    let text = String::from_utf8_lossy(value).into_owned();
                    (name.to_vec(), if name == place.as_bytes() { with(&text) } else { value.to_vec() })
                })
                .chain((place == "name").then(|| (with("x-a"), b"1".to_vec())))
                .chain((place == "value").then(|| (b"x-a".to_vec(), with("1"))))
                .collect();
            rows.push((format!("0x{byte:02x} in {place}"), block(&head), REFUSED));
        }
    }
    for value in [" x", "x ", "\tx", "x\t"] {
        let head = request("GET", "/bad", &[("x-a", value)]);
        rows.push((format!("value {value:?}"), head, REFUSED));
    }
    assert!(rows.len() >= 60, "{} rows", rows.len());
    check_heads(rows).await;
}

#[tokio::test]
async fn fields_about_the_connection_are_refused() {
    let field = |name, value| (format!("{name}: {value}"), request("GET", "/bad", &[(name, value)]), REFUSED);
    let good = |name, value| (format!("{name}: {value}"), request("GET", "/good", &[(name, value)]), "200");
    check_heads(vec![
        field("connection", "close"),
        field("connection", "x-hop"),
        field("keep-alive", "timeout=5"),
        field("proxy-connection", "keep-alive"),
        field("transfer-encoding", "chunked"),
        field("upgrade", "h2c"),
        field("te", "gzip"),
        field("te", "trailers, deflate"),
        good("te", "trailers"),
        good("x-connection", "close"),
    ])
    .await;
}

#[tokio::test]
async fn pseudo_headers_are_held_to_their_rules() {
    let regular: (&[u8], &[u8]) = (b"x-a", b"1");
    let row = |name: &str, fields: &[(&[u8], &[u8])], expected| (name.to_owned(), block(fields), expected);
    check_heads(vec![
        row("no :method", &[SCHEME, AUTHORITY, PATH], REFUSED),
        row("no :scheme", &[METHOD, AUTHORITY, PATH], REFUSED),
        row("no :path", &[METHOD, SCHEME, AUTHORITY], REFUSED),
        row("neither :authority nor host", &[METHOD, SCHEME, PATH], REFUSED),
        row("two :method", &[METHOD, METHOD, SCHEME, AUTHORITY, PATH], REFUSED),
        row("two :path", &[METHOD, SCHEME, AUTHORITY, PATH, PATH], REFUSED),
        row("two :authority", &[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH], REFUSED),
        row("two :scheme", &[METHOD, SCHEME, SCHEME, AUTHORITY, PATH], REFUSED),
        row(":path after a field", &[METHOD, SCHEME, AUTHORITY, regular, PATH], REFUSED),
        row("an unknown one", &[METHOD, SCHEME, AUTHORITY, PATH, (b":bad", b"1")], REFUSED),
        row(":status", &[METHOD, SCHEME, AUTHORITY, PATH, (b":status", b"200")], REFUSED),
        row("empty :path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"")], REFUSED),
        row("absolute :path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"http://test.example/bad")], REFUSED),
        row(":path without a slash", &[METHOD, SCHEME, AUTHORITY, (b":path", b"bad")], REFUSED),
        row(":path * of GET", &[METHOD, SCHEME, AUTHORITY, (b":path", b"*")], REFUSED),
        row("host differs", &[METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"other.example")], REFUSED),
        row("two hosts", &[METHOD, SCHEME, PATH, (b"host", b"test.example"), (b"host", b"bad.example")], REFUSED),
        row("empty :authority", &[METHOD, SCHEME, (b":authority", b""), PATH], REFUSED),
        row("CONNECT", &[(b":method", b"CONNECT"), AUTHORITY], "405|400|RST PROTOCOL_ERROR"),
        row(
            "extended CONNECT",
            &[(b":method", b"CONNECT"), (b":protocol", b"websocket"), SCHEME, AUTHORITY, PATH],
            "405|400|RST PROTOCOL_ERROR",
        ),
        row("host alone", &[METHOD, SCHEME, (b":path", b"/good"), (b"host", b"test.example")], "200"),
        row("host agrees", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/good"), (b"host", b"test.example")], "200"),
    ])
    .await;
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_never_whole() {
    let five = post(1, &[("content-length", "5"), ("x-a", "bad")]);
    let data = |flags, bytes: &[u8]| frame_bytes(kind::DATA, flags, 1, bytes);
    let trailers = frame_bytes(kind::HEADERS, WHOLE, 1, &block(&[("x-t", "1")]));
    let whole = request("POST", "/", &[("content-length", "5"), ("x-a", "bad")]);
    let two = [("content-length", "3"), ("content-length", "4"), ("x-a", "bad")];
    let refused = "RST PROTOCOL_ERROR|400";
    check(vec![
        ("too short", [&five[..], &data(END_STREAM, b"abc")].concat(), 1, refused),
        ("too long", [&five[..], &data(END_STREAM, b"abcdefgh")].concat(), 1, refused),
        ("too long in two frames", [&five[..], &data(0, b"abcde"), &data(END_STREAM, b"f")].concat(), 1, refused),
        ("none at all", frame_bytes(kind::HEADERS, WHOLE, 1, &whole), 1, refused),
        ("ended by trailers", [&five[..], &data(0, b"abc"), &trailers].concat(), 1, refused),
        ("two lengths", [post(1, &two), data(END_STREAM, b"abc")].concat(), 1, refused),
        ("no number", [post(1, &[("content-length", "0x3"), ("x-a", "bad")]), data(1, b"abc")].concat(), 1, refused),
        ("a sign", [post(1, &[("content-length", "+3"), ("x-a", "bad")]), data(1, b"abc")].concat(), 1, refused),
    ])
    .await;
}

#[tokio::test]
async fn errors_end_what_the_standard_says_and_no_more() {
    use kind::*;
    let frame = frame_bytes;
    let stall = get(1, "/stall");
    let open = post(1, &[]);
    let head = request("GET", "/", &[]);
    let (first, rest) = head.split_at(10);
    let then = |parts: &[&[u8]]| parts.concat();
    let protocol = "GOAWAY PROTOCOL_ERROR";
    // The session tells of most errors by the one general code, and takes some of a stream's for the connection's.
    let size = "GOAWAY FRAME_SIZE_ERROR|GOAWAY PROTOCOL_ERROR";
    let closed = "GOAWAY STREAM_CLOSED|RST STREAM_CLOSED|GOAWAY PROTOCOL_ERROR";
    let compression = "GOAWAY COMPRESSION_ERROR|GOAWAY PROTOCOL_ERROR";
    let flow = "GOAWAY FLOW_CONTROL_ERROR|GOAWAY PROTOCOL_ERROR";
    check(vec![
        // 4.1 and 5.5: what is unknown is ignored.
        ("unknown frame", then(&[&frame(0xee, 0xff, 0, b"x"), &get(1, "/")]), 1, "200"),
        ("unknown frame of a stream", then(&[&frame(0xee, 0, 7, b"x"), &get(1, "/")]), 1, "200"),
        ("unknown flags", then(&[&frame(PING, 0xfe, 0, b"12345678"), &get(1, "/")]), 1, "200"),
        ("reserved bit of the stream", then(&[&window(1 << 31, 1), &get(1, "/")]), 1, "200"),
        // 4.2
        ("DATA beyond the frame size", then(&[&open, &frame(DATA, 0, 1, &[0; 16_385])]), 1, size),
        ("HEADERS beyond the frame size", frame(HEADERS, WHOLE, 1, &[0; 16_385]), 1, size),
        // 4.3
        ("index 0", frame(HEADERS, WHOLE, 1, &[0x80]), 1, compression),
        ("index of nothing", frame(HEADERS, WHOLE, 1, &[0xff, 0x80, 0x01]), 1, compression),
        ("cut literal", frame(HEADERS, WHOLE, 1, &[0, 5, b'a']), 1, compression),
        ("integer without end", frame(HEADERS, WHOLE, 1, &[0xff; 16]), 1, compression),
        ("bad Huffman code", frame(HEADERS, WHOLE, 1, &[0, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), 1, compression),
        ("table larger than agreed", frame(HEADERS, WHOLE, 1, &[0x3f, 0xe2, 0x5f]), 1, compression),
        // 5.1: idle
        ("DATA on an idle stream", frame(DATA, 1, 1, b"x"), 1, protocol),
        ("RST_STREAM on an idle stream", reset(1), 1, protocol),
        ("WINDOW_UPDATE on an idle stream", window(1, 1), 1, protocol),
        ("CONTINUATION on an idle stream", frame(CONTINUATION, 4, 1, &head), 1, protocol),
        // 5.1: half-closed, closed
        ("DATA after the end", then(&[&stall, &frame(DATA, 1, 1, b"x")]), 1, closed),
        ("HEADERS after the end", then(&[&stall, &frame(HEADERS, WHOLE, 1, &head)]), 1, closed),
        ("CONTINUATION after the end", then(&[&stall, &frame(CONTINUATION, 4, 1, &head)]), 1, protocol),
        ("PRIORITY after the end", then(&[&get(1, "/"), &frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])]), 1, "200"),
        // 5.1.1
        ("even stream", get(2, "/"), 2, protocol),
        ("lower stream", then(&[&get(5, "/"), &get(3, "/")]), 3, "GOAWAY PROTOCOL_ERROR|GOAWAY STREAM_CLOSED"),
        // 6.1
        ("DATA on stream 0", frame(DATA, 0, 0, b"x"), 0, protocol),
        ("DATA with more padding than bytes", then(&[&open, &frame(DATA, 9, 1, &[6, 0, 0])]), 1, protocol),
        // 6.2
        ("HEADERS on stream 0", frame(HEADERS, WHOLE, 0, &head), 0, protocol),
        ("HEADERS with more padding than bytes", frame(HEADERS, WHOLE | 8, 1, &[200, 0, 0]), 1, protocol),
        ("DATA inside a block", then(&[&frame(HEADERS, 1, 1, first), &frame(DATA, 1, 1, b"x")]), 1, protocol),
        ("PING inside a block", then(&[&frame(HEADERS, 1, 1, first), &frame(PING, 0, 0, b"12345678")]), 1, protocol),
        ("HEADERS inside a block", then(&[&frame(HEADERS, 1, 1, first), &get(3, "/")]), 1, protocol),
        (
            "an unknown frame inside a block",
            then(&[&frame(HEADERS, 1, 1, first), &frame(0xee, 0, 1, b"")]),
            1,
            protocol,
        ),
        // 6.3
        ("PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1]), 0, protocol),
        (
            "PRIORITY of four bytes",
            then(&[&stall, &frame(PRIORITY, 0, 1, &[0; 4])]),
            1,
            "RST FRAME_SIZE_ERROR|GOAWAY FRAME_SIZE_ERROR|GOAWAY PROTOCOL_ERROR",
        ),
        // 6.4
        ("RST_STREAM on stream 0", reset(0), 0, protocol),
        ("RST_STREAM of three bytes", then(&[&stall, &frame(RST_STREAM, 0, 1, &[0; 3])]), 1, size),
        // 6.5
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), 0, protocol),
        ("SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5]), 0, size),
        ("an acknowledgement with settings", frame(SETTINGS, 1, 0, &[0; 6]), 0, size),
        ("ENABLE_PUSH 2", settings_frame(&[(2, 2)]), 0, protocol),
        ("a window of 2^31", settings_frame(&[(4, 1 << 31)]), 0, flow),
        ("frames of 100 bytes", settings_frame(&[(5, 100)]), 0, protocol),
        ("frames of 16 MiB", settings_frame(&[(5, 1 << 24)]), 0, protocol),
        ("an unknown setting", then(&[&settings_frame(&[(0xeeee, 1)]), &get(1, "/")]), 1, "200"),
        // 6.6
        ("PUSH_PROMISE", then(&[&stall, &frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])]), 1, protocol),
        // 6.7
        ("PING on a stream", frame(PING, 0, 1, b"12345678"), 0, protocol),
        ("PING of seven bytes", frame(PING, 0, 0, b"1234567"), 0, size),
        ("an answer to no PING", then(&[&frame(PING, 1, 0, b"12345678"), &get(1, "/")]), 1, "200"),
        // 6.8
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), 0, protocol),
        // 6.9
        ("WINDOW_UPDATE of 0", window(0, 0), 0, protocol),
        (
            "WINDOW_UPDATE of 0 on a stream",
            then(&[&stall, &window(1, 0)]),
            1,
            "RST PROTOCOL_ERROR|GOAWAY PROTOCOL_ERROR",
        ),
        ("a window beyond 2^31", window(0, u32::MAX >> 1), 0, "GOAWAY FLOW_CONTROL_ERROR"),
        ("a stream's window beyond 2^31", then(&[&stall, &window(1, u32::MAX >> 1)]), 1, "RST FLOW_CONTROL_ERROR"),
        ("WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), 0, size),
        // 6.10
        ("CONTINUATION on stream 0", frame(CONTINUATION, 4, 0, &head), 0, protocol),
        (
            "CONTINUATION after the block",
            then(&[&frame(HEADERS, END_HEADERS, 1, &head), &frame(CONTINUATION, 4, 1, b"")]),
            1,
            protocol,
        ),
        (
            "CONTINUATION of another stream",
            then(&[&frame(HEADERS, END_STREAM, 1, first), &frame(CONTINUATION, 4, 3, rest)]),
            1,
            protocol,
        ),
        (
            "a block in two frames",
            then(&[&frame(HEADERS, END_STREAM, 1, first), &frame(CONTINUATION, 4, 1, rest)]),
            1,
            "200",
        ),
        // 8.1
        (
            "trailers without an end",
            then(&[&open, &frame(HEADERS, END_HEADERS, 1, &block(&[("x-t", "1")]))]),
            1,
            "RST PROTOCOL_ERROR",
        ),
        (
            "a pseudo header in trailers",
            then(&[&open, &frame(HEADERS, WHOLE, 1, &block(&[(":path", "/bad")]))]),
            1,
            // Trailers of a request are dropped, whatever is in them.
            "200",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_connection_begins_with_the_preface_and_settings() {
    let edge = Edge::start(Site::usual("- { path: /, respond: { body: ok } }", "{}")).await;
    for (name, bytes, expected) in [
        ("another preface", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(), "closed|GOAWAY PROTOCOL_ERROR"),
        // The session does not insist on SETTINGS as the first frame.
        ("no SETTINGS", [PREFACE, &get(1, "/")].concat(), "nothing"),
    ] {
        let mut frames = Frames::bare(edge.address("h2c")).await;
        frames.send(bytes).await;
        let outcome = frames.outcome(0, LIMIT).await.to_string();
        assert!(expected.split('|').any(|allowed| allowed == outcome), "{name}: expected {expected}, seen {outcome}");
    }
}

const LIMIT: Duration = Duration::from_secs(5);
