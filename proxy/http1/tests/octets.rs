//! All 256 bytes at every place of a head, against the grammar written out once more; heads that drip; and the exact
//! bytes written.

use tidegate_http1::{
    Asked, BadField, BodyDecoder, BodyError, BodyFraming, FieldKind, HeadLimits, HeadWriter, ParsePolicy, RequestHead,
    ResponseHead, canonical_reason,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 1 << 20, fields: 100, target: 1 << 20 };

#[test]
fn only_allowed_bytes_stand_in_each_place() {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let value = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    for byte in 0..=255u8 {
        // A space or a colon at these places makes another, well-formed message or another fault: never this one.
        let places: [(&str, Vec<u8>, bool); 7] = [
            ("method", around(b"GE", byte, b"T / HTTP/1.1\r\nHost: a\r\n\r\n"), token(byte)),
            (
                "target",
                around(b"GET /a", byte, b"b HTTP/1.1\r\nHost: a\r\n\r\n"),
                byte.is_ascii_graphic() && !b"\"#<>".contains(&byte),
            ),
            ("version", around(b"GET / HTTP/1.", byte, b"\r\nHost: a\r\n\r\n"), byte == b'0' || byte == b'1'),
            (
                "name",
                around(b"GET / HTTP/1.1\r\nHost: a\r\nX", byte, b"Y: z\r\n\r\n"),
                (token(byte) && byte != b'_') || byte == b':',
            ),
            ("value", around(b"GET / HTTP/1.1\r\nHost: a\r\nX: y", byte, b"z\r\n\r\n"), value(byte)),
            (
                "long value",
                around(b"GET / HTTP/1.1\r\nHost: a\r\nX: 0123456789abcdef01234567", byte, b"0123456789\r\n\r\n"),
                value(byte),
            ),
            (
                "host",
                around(b"GET / HTTP/1.1\r\nHost: a", byte, b"1\r\n\r\n"),
                byte.is_ascii_alphanumeric() || b"-._:".contains(&byte),
            ),
        ];
        for (place, input, is_allowed) in places {
            let verdict = RequestHead::new().parse(&input, &LIMITS, ParsePolicy::Strict);
            assert_eq!(verdict == Ok(Some(input.len())), is_allowed, "{place}: byte {byte:#04x}: {verdict:?}");
            assert!(is_allowed || verdict.is_err(), "{place}: byte {byte:#04x}: {verdict:?}");
        }
    }
}

#[test]
fn only_allowed_bytes_stand_in_a_response() {
    for byte in 0..=255u8 {
        let is_value = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        for (place, input) in [
            ("reason", around(b"HTTP/1.1 200 O", byte, b"K\r\nX: y\r\n\r\n")),
            ("value", around(b"HTTP/1.1 200 OK\r\nX: y", byte, b"z\r\n\r\n")),
        ] {
            let verdict = ResponseHead::new().parse(&input, &LIMITS, Asked::Other, ParsePolicy::Strict);
            assert_eq!(verdict == Ok(Some(input.len())), is_value, "{place}: byte {byte:#04x}: {verdict:?}");
            assert!(is_value || verdict.is_err(), "{place}: byte {byte:#04x}: {verdict:?}");
        }
    }
}

#[test]
fn a_byte_behind_a_chunk_size_is_never_overlooked() {
    for byte in 0..=255u8 {
        let input = around(b"5", byte, b"\r\nhello\r\n0\r\n\r\n");
        let outcome = BodyDecoder::new(BodyFraming::Chunked).decode(&input);
        // Another digit makes a larger chunk, of which this is the start.
        assert_eq!(outcome.is_ok(), byte.is_ascii_hexdigit(), "byte {byte:#04x}: {outcome:?}");
    }
}

/// A quarter of a megabyte in the target, a name and a value, a byte at a time. Were any byte looked at again with each
/// new one, this would take hours.
#[test]
fn a_head_that_drips_costs_no_more_than_its_length() {
    const LONG: usize = 1 << 18;
    let input =
        [b"GET /", &[b'a'; LONG][..], b" HTTP/1.1\r\nHost: a\r\nX", &[b'a'; LONG], b": ", &[b'a'; LONG], b"\r\n\r\n"]
            .concat();
    let mut head = RequestHead::new();
    for end in 0..input.len() {
        assert_eq!(head.parse(&input[..end], &LIMITS, ParsePolicy::Strict), Ok(None));
    }
    assert_eq!(head.parse(&input, &LIMITS, ParsePolicy::Strict), Ok(Some(input.len())));
}

#[test]
fn every_order_of_length_and_encoding_is_refused() {
    let fields = ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Host: a\r\n", "X: y\r\n"];
    let mut orders = 0;
    for order in permutations(&fields) {
        let input = format!("POST / HTTP/1.1\r\n{}\r\n0\r\n\r\n", order.concat());
        let error = RequestHead::new()
            .parse(input.as_bytes(), &LIMITS, ParsePolicy::Strict)
            .expect_err("ambiguous framing is refused");
        assert_eq!(error.status(), 400);
        orders += 1;
    }
    assert_eq!(orders, 24);
}

#[test]
fn a_status_line_has_its_registered_reason() {
    for (status, line) in [
        (200, "HTTP/1.1 200 OK"),
        (404, "HTTP/1.1 404 Not Found"),
        (418, "HTTP/1.1 418 "),
        (503, "HTTP/1.1 503 Service Unavailable"),
    ] {
        let mut out = Vec::new();
        HeadWriter::new(&mut out)
            .status_line(status)
            .number_field("Retry-After", 30)
            .framing(BodyFraming::Length(0))
            .end();
        let wanted = format!("{line}\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&out), wanted);
    }
    assert_eq!(canonical_reason(299), "");
}

#[test]
fn a_forwarded_field_is_written_in_one_spelling() {
    let input =
        b"GET / HTTP/1.1\r\nhOST: a\r\nA: plain\r\nB:no space\r\nC:\ttab\r\nD:  two\r\nE: behind \r\nF:\r\nG: \r\n\r\n";
    let mut head = RequestHead::new();
    assert_eq!(head.parse(input, &LIMITS, ParsePolicy::Strict), Ok(Some(input.len())));
    let mut out = Vec::new();
    for field in head.forwardable(input) {
        HeadWriter::new(&mut out).forward(&field);
    }
    let wanted = "A: plain\r\nB: no space\r\nC: tab\r\nD: two\r\nE: behind\r\nF: \r\nG: \r\n";
    assert_eq!(String::from_utf8_lossy(&out), wanted);
}

#[test]
fn nominating_changes_only_fields_that_would_go_on() {
    let input = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: connection, te, x-a\r\nTE: x\r\nX-A: y\r\nX-B: z\r\n\r\n";
    let mut head = RequestHead::new();
    assert_eq!(head.parse(input, &LIMITS, ParsePolicy::Strict), Ok(Some(input.len())));
    let kinds: Vec<FieldKind> = head.classified(input).map(|field| field.kind).collect();
    let wanted =
        [FieldKind::Host, FieldKind::Connection, FieldKind::HopByHop, FieldKind::Nominated, FieldKind::EndToEnd];
    assert_eq!(kinds, wanted);
    assert_eq!(head.connection_options(input).collect::<Vec<_>>(), ["connection", "te", "x-a"]);
}

#[test]
fn data_in_front_of_a_fault_is_handed_out_first() {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
    let decoded = decoder.decode(b"5\r\nhello\rX").expect("data comes first");
    assert_eq!((decoded.consumed, decoded.data, decoded.done), (8, 3..8, false));
    assert_eq!(decoder.decode(b"\rX"), Err(BodyError::ChunkEnd));
}

#[test]
fn a_field_from_outside_is_refused_with_its_reason() {
    let mut out = Vec::new();
    let mut writer = HeadWriter::new(&mut out);
    for (name, value, wanted) in [
        ("a b", "c", BadField::Name),
        ("", "c", BadField::Name),
        ("Location", "/\r\nSet-Cookie: x", BadField::Value),
        ("X", "a\nb", BadField::Value),
        ("X", "a\0", BadField::Value),
        ("content-length", "0", BadField::Framing),
        ("Transfer-Encoding", "chunked", BadField::Framing),
    ] {
        assert_eq!(writer.try_field(name, value).err(), Some(wanted), "{name}: {value:?}");
    }
    assert!(out.is_empty());
}

fn around(before: &[u8], byte: u8, after: &[u8]) -> Vec<u8> {
    [before, &[byte], after].concat()
}

fn permutations<'a>(items: &[&'a str]) -> Vec<Vec<&'a str>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let rest = [&items[..place], &items[place + 1..]].concat();
        all.extend(permutations(&rest).into_iter().map(|tail| [vec![*item], tail].concat()));
    }
    all
}
