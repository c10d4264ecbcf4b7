//! What holds for every input: one verdict however the bytes are cut, never more than one message, nothing lost
//! between writing and reading, no panic.

use std::ops::Range;

use bytes::BytesMut;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tidegate_http1::{
    Asked, BodyDecoder, BodyEncoder, BodyFraming, EncodeError, HeadLimits, HeadWriter, ParsePolicy, RequestHead,
    ResponseFraming, ResponseHead, Upgrade,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 40, target: 512 };

/// Pieces that, thrown together, often come close to a message.
const PIECES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b HTTP/1.1\r\n",
    b"GET http://a/ HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.0\r\n",
    b"PRI * HTTP/2.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 304 \r\n",
    b"HTTP/1.1 101 S\r\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Connection: x-y, upgrade\r\n",
    b"X-Y: z\r\n",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b"\n\n",
    b"GET  /  HTTP/1.2 \n",
    b"HTTP/1.3 200 OK\n",
    b"x_y: z\n",
    b"content_length: 5\n",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"_",
    b"5\r\nhello\r\n",
    b"0\r\n",
    b"0\r\n\r\n",
    b"3;a=\"b\"\r\nabc\r\n",
    b"f",
    b";",
    b"\"",
    b"\\",
    b"\xff",
];

/// Lines that each stand in many a message; some do not go together.
const LINES: &[&[u8]] = &[
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: x-y, upgrade\r\n",
    b"Connection: ,, X-Z\r\n",
    b"X-Y: z\r\n",
    b"x-y:\t z \r\n",
    b"X-Z:\r\n",
    b"X-Forwarded-For: 1.2.3.4\r\n",
    b"TE: trailers\r\n",
    b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"Accept: \xff\r\n",
    b"Content-Length: 5\n",
    b"Transfer-Encoding: chunked \n",
    b"X-Y: z \n",
    b"x_y: z\r\n",
    b"X-A:\n",
];

/// A message that is often a good one, with bytes behind it.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let starts: Vec<&[u8]> = vec![
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"\r\nPOST /a?b HTTP/1.1\r\nhost:a:80\r\n",
        b"GET http://a HTTP/1.1\r\nHost: A\r\n",
        b"OPTIONS * HTTP/1.0\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 204\r\n",
        b"\n\r\nGET  /a HTTP/1.9 \nHost: a\n",
        b"HTTP/1.1 200 OK\n",
    ];
    (select(starts), prop::collection::vec(select(LINES), 0..5), prop::collection::vec(select(PIECES), 0..3))
        .prop_map(|(start, lines, behind)| [start, &lines.concat(), b"\r\n", &behind.concat()].concat())
}

/// Pieces and single bytes in any order, often with a likely start; or a message.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let starts: Vec<&[u8]> =
        vec![b"", b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n", b"HTTP/1.1 200 OK\r\n"];
    let piece = prop_oneof![
        8 => select(PIECES).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    let loose = (select(starts), prop::collection::vec(piece, 0..12))
        .prop_map(|(start, pieces)| [start.to_vec(), pieces.concat()].concat());
    prop_oneof![loose, message()]
}

/// Places to cut at, in order, the end among them.
fn cuts(indices: &[Index], length: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = indices.iter().map(|index| index.index(length + 1)).collect();
    cuts.push(length);
    cuts.sort_unstable();
    cuts
}

fn policies() -> impl Strategy<Value = ParsePolicy> {
    select(vec![ParsePolicy::Strict, ParsePolicy::Lenient])
}

fn indices() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 0..6)
}

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9!#$%&'*+.^`|~-]{1,20}"
}

/// Fields without a meaning to the codec, values without whitespace around them.
fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let value = prop::collection::vec(prop_oneof![0x21..=0x7eu8, Just(b' '), Just(b'\t'), 0x80..=0xffu8], 0..40)
        .prop_map(|bytes| bytes.trim_ascii().to_vec());
    let name = token().prop_map(|token| format!("X-{token}")).prop_filter("forwarding names have a meaning", |name| {
        !name.to_ascii_lowercase().starts_with("x-forwarded") && !name.eq_ignore_ascii_case("x-real-ip")
    });
    prop::collection::vec((name, value), 0..12)
}

fn body_framing() -> impl Strategy<Value = BodyFraming> {
    prop_oneof![Just(BodyFraming::None), any::<u64>().prop_map(BodyFraming::Length), Just(BodyFraming::Chunked)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_as_a_request(
        method in token().prop_filter("refused methods", |method| !["CONNECT", "TRACE", "PRI"].contains(&method.as_str())),
        path in "/[a-zA-Z0-9/._~%?&=;:@+,$!*'()-]{0,60}",
        host in "[a-z0-9-]{1,20}(\\.[a-z]{1,5})?(:[1-9][0-9]{0,3})?",
        fields in fields(),
        framing in body_framing(),
    ) {
        let mut out = BytesMut::new();
        let mut writer = HeadWriter::new(&mut out);
        writer.request_line(&method, &path).field("Host", &host);
        for (name, value) in &fields {
            writer.try_field(name, value).expect("generated fields are sound");
        }
        writer.framing(framing).end();

        let mut head = RequestHead::new();
        prop_assert_eq!(head.parse(&out, &LIMITS, ParsePolicy::Strict), Ok(Some(out.len())));
        prop_assert_eq!(head.method(&out), method);
        prop_assert_eq!(head.target(&out), &path);
        prop_assert_eq!(head.path_and_query(&out), path);
        prop_assert_eq!(head.host(&out), Some(host.as_bytes()));
        prop_assert_eq!(head.framing(), framing);
        prop_assert_eq!(head.upgrade(&out), Upgrade::None);
        let read: Vec<(String, Vec<u8>)> =
            head.forwardable(&out).map(|field| (field.name_str().to_owned(), field.value.to_vec())).collect();
        prop_assert_eq!(read, fields);
    }

    #[test]
    fn what_is_written_is_read_as_a_response(
        status in 200u16..600,
        reason in "[ -~]{0,20}",
        fields in fields(),
        framing in body_framing(),
    ) {
        let mut out = Vec::new();
        let mut writer = HeadWriter::new(&mut out);
        writer.status_line_with(status, reason.as_bytes());
        for (name, value) in &fields {
            writer.field(name, value);
        }
        writer.framing(framing).end();

        let mut head = ResponseHead::new();
        prop_assert_eq!(head.parse(&out, &LIMITS, Asked::Other, ParsePolicy::Strict), Ok(Some(out.len())));
        prop_assert_eq!(head.status(), status);
        prop_assert_eq!(head.reason(&out), reason.as_bytes());
        let expected = match (status, framing) {
            (204 | 304, _) => ResponseFraming::None,
            (_, BodyFraming::None) => ResponseFraming::UntilClose,
            (_, framing) => framing.into(),
        };
        prop_assert_eq!(head.framing(), expected);
        let read: Vec<(String, Vec<u8>)> =
            head.forwardable(&out).map(|field| (field.name_str().to_owned(), field.value.to_vec())).collect();
        prop_assert_eq!(read, fields);
    }

    #[test]
    fn a_request_gets_one_verdict_however_it_is_cut(input in soup(), indices in indices(), policy in policies()) {
        let mut whole = RequestHead::new();
        let verdict = whole.parse(&input, &LIMITS, policy);
        let mut pieces = RequestHead::new();
        let last = cuts(&indices, input.len()).into_iter().map(|end| pieces.parse(&input[..end], &LIMITS, policy)).last();
        prop_assert_eq!(last, Some(verdict));
        prop_assert_eq!(whole.fields(&input).collect::<Vec<_>>(), pieces.fields(&input).collect::<Vec<_>>());
        prop_assert_eq!(whole.framing(), pieces.framing());
    }

    #[test]
    fn a_response_gets_one_verdict_however_it_is_cut(
        input in soup(),
        indices in indices(),
        asked in select(vec![Asked::Head, Asked::WebSocket, Asked::Other]),
        policy in policies(),
    ) {
        let mut whole = ResponseHead::new();
        let verdict = whole.parse(&input, &LIMITS, asked, policy);
        let mut pieces = ResponseHead::new();
        let last = cuts(&indices, input.len()).into_iter().map(|end| pieces.parse(&input[..end], &LIMITS, asked, policy)).last();
        prop_assert_eq!(last, Some(verdict));
        prop_assert_eq!(whole.fields(&input).collect::<Vec<_>>(), pieces.fields(&input).collect::<Vec<_>>());
        prop_assert_eq!(whole.framing(), pieces.framing());
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line(input in soup(), policy in policies()) {
        let mut head = RequestHead::new();
        if let Ok(Some(length)) = head.parse(&input, &LIMITS, policy) {
            // Behind the empty lines in front, of which the strict policy tolerates one.
            let start = input.iter().position(|byte| !b"\r\n".contains(byte)).expect("a head has bytes");
            let ends: &[&[u8]] = match policy {
                ParsePolicy::Strict => &[b"\r\n\r\n"],
                ParsePolicy::Lenient => &[b"\n\n", b"\n\r\n"],
            };
            let end = (start..input.len()).find_map(|at| {
                ends.iter().find(|end| input[at..].starts_with(end)).map(|end| at + end.len())
            });
            prop_assert_eq!(Some(length), end);
            for cut in 0..length {
                prop_assert_eq!(RequestHead::new().parse(&input[..cut], &LIMITS, policy), Ok(None));
            }
        }
    }

    /// Whoever receives what we forward sees one request, framed as we saw it.
    #[test]
    fn a_forwarded_request_keeps_its_meaning(input in soup(), policy in policies()) {
        let mut head = RequestHead::new();
        if let Ok(Some(_)) = head.parse(&input, &LIMITS, policy) {
            let mut out = Vec::new();
            let mut writer = HeadWriter::new(&mut out);
            writer.request_line(head.method(&input), head.path_and_query(&input));
            writer.field("Host", head.host(&input).unwrap_or(b"default"));
            for field in head.forwardable(&input) {
                writer.forward(&field);
            }
            writer.framing(head.framing()).end();

            let mut again = RequestHead::new();
            prop_assert_eq!(again.parse(&out, &LIMITS, ParsePolicy::Strict), Ok(Some(out.len())));
            prop_assert_eq!(again.framing(), head.framing());
            prop_assert_eq!(again.method(&out), head.method(&input));
            let sent = head.forwardable(&input).map(|field| (field.name, field.value)).collect::<Vec<_>>();
            let received = again.forwardable(&out).map(|field| (field.name, field.value)).collect::<Vec<_>>();
            prop_assert_eq!(sent, received);
        }
    }

    #[test]
    fn a_used_head_reads_like_a_new_one(first in soup(), second in soup(), policy in policies()) {
        let mut used = RequestHead::new();
        let _ = used.parse(&first, &LIMITS, policy);
        used.clear();
        let mut new = RequestHead::new();
        prop_assert_eq!(used.parse(&second, &LIMITS, policy), new.parse(&second, &LIMITS, policy));
        prop_assert_eq!(used.fields(&second).collect::<Vec<_>>(), new.fields(&second).collect::<Vec<_>>());
        prop_assert_eq!(used.host(&second), new.host(&second));
        prop_assert_eq!(used.keep_alive(), new.keep_alive());
    }

    #[test]
    fn accessors_do_not_panic_on_other_bytes(input in soup(), other in soup(), policy in policies()) {
        let mut head = RequestHead::new();
        let _ = head.parse(&input, &LIMITS, policy);
        let _ = (head.method(&other), head.target(&other), head.path_and_query(&other), head.host(&other));
        let _ = (head.upgrade(&other), head.fields(&other).count(), head.forwardable(&other).count());
        let _ = (head.connection_options(&other).count(), head.field(&other, "x-y"));
    }

    #[test]
    fn a_buffer_that_changes_between_calls_does_no_harm(
        inputs in prop::collection::vec(soup(), 1..5),
        policy in policies(),
    ) {
        let (mut request, mut response) = (RequestHead::new(), ResponseHead::new());
        for input in &inputs {
            let _ = request.parse(input, &LIMITS, policy);
            let _ = response.parse(input, &LIMITS, Asked::Other, policy);
        }
    }

    #[test]
    fn a_body_gets_one_verdict_however_it_is_cut(input in soup(), indices in indices()) {
        let whole = decode(&input, &[input.len()]);
        let pieces = decode(&input, &cuts(&indices, input.len()));
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn a_body_comes_back_as_it_was(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        is_chunked: bool,
        indices in indices(),
        behind in prop::collection::vec(any::<u8>(), 0..10),
    ) {
        let body = pieces.concat();
        let framing = if is_chunked { BodyFraming::Chunked } else { BodyFraming::Length(body.len() as u64) };
        let mut encoder = BodyEncoder::new(framing);
        let mut wire = Vec::new();
        for piece in &pieces {
            encoder.encode(piece, &mut wire).expect("the body is as long as announced");
        }
        encoder.finish(&mut wire).expect("the body is as long as announced");
        prop_assert!(encoder.is_done());
        let length = wire.len();
        wire.extend_from_slice(&behind);

        let mut decoder = BodyDecoder::new(framing);
        let (read, consumed) = drive(&mut decoder, &wire, &cuts(&indices, wire.len())).expect("the body is sound");
        prop_assert_eq!(read, body);
        prop_assert_eq!(consumed, length);
        prop_assert!(decoder.is_done() && decoder.finish_eof().is_ok());
    }

    #[test]
    fn a_cut_body_is_never_complete(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 1..5),
        is_chunked: bool,
        cut: Index,
    ) {
        let length: usize = pieces.iter().map(Vec::len).sum();
        let framing = if is_chunked { BodyFraming::Chunked } else { BodyFraming::Length(length as u64) };
        let mut encoder = BodyEncoder::new(framing);
        let mut wire = Vec::new();
        for piece in &pieces {
            encoder.encode(piece, &mut wire).expect("the body is as long as announced");
        }
        encoder.finish(&mut wire).expect("the body is as long as announced");
        let end = cut.index(wire.len());

        let mut decoder = BodyDecoder::new(framing);
        drive(&mut decoder, &wire, &[end]).expect("a cut body is no malformed one");
        prop_assert!(!decoder.is_done());
        prop_assert!(decoder.finish_eof().is_err());
    }

    #[test]
    fn a_length_is_neither_exceeded_nor_missed(announced in 0u64..50, pieces in prop::collection::vec(0usize..20, 0..6)) {
        let mut encoder = BodyEncoder::new(BodyFraming::Length(announced));
        let mut out = Vec::new();
        let mut written = 0;
        for piece in pieces {
            let is_too_much = written + piece as u64 > announced;
            let result = encoder.encode(&vec![b'x'; piece], &mut out);
            prop_assert_eq!(result.is_err(), is_too_much);
            written += if is_too_much { 0 } else { piece as u64 };
        }
        prop_assert_eq!(out.len() as u64, written);
        let expected = if written < announced { Err(EncodeError::TooShort(announced - written)) } else { Ok(()) };
        prop_assert_eq!(encoder.finish(&mut out), expected);
    }

    #[test]
    fn a_field_from_outside_cannot_break_a_head(name in any::<Vec<u8>>(), value in any::<Vec<u8>>()) {
        let mut out = Vec::new();
        let mut writer = HeadWriter::new(&mut out);
        writer.request_line("GET", "/").field("Host", "a");
        let is_written = writer.try_field(&name, &value).is_ok();
        writer.end();
        let mut head = RequestHead::new();
        let verdict = head.parse(&out, &LIMITS, ParsePolicy::Strict);
        if is_written {
            // What names mean is not the writer's business: an underscore or a second host is refused when read.
            prop_assert!(verdict.is_err() || verdict == Ok(Some(out.len())));
            prop_assert!(head.field_count() <= 2);
        } else {
            prop_assert_eq!(verdict, Ok(Some(out.len())));
            prop_assert_eq!(head.field_count(), 1);
        }
    }
}

/// What a chunked body comes to: its data, and either how much was consumed or how it was refused.
fn decode(input: &[u8], cuts: &[usize]) -> (Vec<u8>, Result<usize, String>) {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
    let mut data = Vec::new();
    let outcome = drive_into(&mut decoder, input, cuts, &mut data);
    (data, outcome)
}

fn drive(decoder: &mut BodyDecoder, input: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize), String> {
    let mut data = Vec::new();
    let consumed = drive_into(decoder, input, cuts, &mut data)?;
    Ok((data, consumed))
}

fn drive_into(decoder: &mut BodyDecoder, input: &[u8], cuts: &[usize], data: &mut Vec<u8>) -> Result<usize, String> {
    let mut at = 0;
    for &end in cuts {
        while at < end && !decoder.is_done() {
            let shown: Range<usize> = at..end;
            let decoded = decoder.decode(&input[shown.clone()]).map_err(|error| format!("{error:?}"))?;
            assert!(decoded.consumed > 0, "no progress at {at}");
            assert_eq!(decoded.done, decoder.is_done());
            data.extend_from_slice(&input[shown][decoded.data]);
            at += decoded.consumed;
        }
    }
    Ok(at)
}
