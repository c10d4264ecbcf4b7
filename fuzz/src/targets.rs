//! What holds for every input of the HTTP/1 codec, one function for each fuzz target.
//!
//! `make fuzz` searches for inputs that break them; `proxy/http1/tests/corpus.rs` runs them over the corpus and all
//! vectors with every test run. A broken promise is a panic.

use tidegate_http1::{
    Asked, BodyDecoder, BodyEncoder, BodyError, BodyFraming, Field, HeadLimits, HeadWriter, ParsePolicy, RequestError,
    RequestHead, ResponseError, ResponseFraming, ResponseHead,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 20, target: 256 };
const POLICIES: [ParsePolicy; 2] = [ParsePolicy::Strict, ParsePolicy::Lenient];
const ASKED: [Asked; 3] = [Asked::Head, Asked::WebSocket, Asked::Other];

/// A request head has one verdict however it is cut, ends where its last byte stands, and what is written from it is
/// one well-formed request with the same meaning.
pub fn request_head(input: &[u8]) {
    for policy in POLICIES {
        let (head, verdict) = read_request(input, policy);
        drip(input, &verdict, {
            let mut head = RequestHead::new();
            move |bytes| head.parse(bytes, &LIMITS, policy)
        });
        if let Ok(Some(length)) = verdict {
            let written = written_request(&head, &input[..length]);
            assert_one_head(&written);
            let (again, verdict) = read_request(&written, ParsePolicy::Strict);
            assert_eq!(verdict, Ok(Some(written.len())), "what is written is a well-formed request");
            assert_eq!(meaning_of_request(&again, &written), meaning_of_request(&head, &input[..length]));
            assert_forwards(head.forwardable(input), head.path_and_query(input), head.framing());
        }
        // Nothing may panic on bytes the head was not read from.
        let other: Vec<u8> = input.iter().rev().copied().collect();
        let _ = (meaning_of_request(&head, &other), written_request(&head, &other));
    }
}

/// The same for a response head, as an answer to each kind of request.
pub fn response_head(input: &[u8]) {
    for (policy, asked) in POLICIES.into_iter().flat_map(|policy| ASKED.map(|asked| (policy, asked))) {
        let (head, verdict) = read_response(input, asked, policy);
        drip(input, &verdict, {
            let mut head = ResponseHead::new();
            move |bytes| head.parse(bytes, &LIMITS, asked, policy)
        });
        let Ok(Some(length)) = verdict else { continue };
        let bytes = &input[..length];
        let mut written = Vec::new();
        let mut writer = HeadWriter::new(&mut written);
        writer.status_line_with(head.status(), head.reason(bytes));
        for field in head.forwardable(bytes) {
            writer.forward(&field);
        }
        // Switching protocols needs the fields of this hop, which whoever forwards writes itself.
        if head.is_upgrade() {
            writer.field("Connection", "upgrade").field("Upgrade", "websocket");
        }
        writer.framing(head.framing()).end();
        assert_one_head(&written);
        let (again, verdict) = read_response(&written, asked, ParsePolicy::Strict);
        assert_eq!(verdict, Ok(Some(written.len())), "what is written is a well-formed response");
        assert_eq!(again.framing(), head.framing());
        assert_eq!(meaning_of_response(&again, &written), meaning_of_response(&head, bytes));
    }
}

/// A chunked body has one verdict and one content however it is cut, and written anew it is read as the same.
///
/// The first byte says how it is cut; the rest is the body.
pub fn chunked_body(input: &[u8]) {
    let Some((&piece, input)) = input.split_first() else { return };
    let whole = decode(input, input.len().max(1));
    assert_eq!(whole, decode(input, usize::from(piece) + 1), "in pieces of {}", usize::from(piece) + 1);
    assert_eq!(whole, decode(input, 1), "byte by byte");
    let Body { data, consumed, end } = whole;
    assert!(consumed <= input.len() && data.len() <= consumed);
    if end == Ok(true) {
        for cut in (0..consumed).step_by(1 + consumed / 64).chain([consumed - 1]) {
            assert_ne!(decode(&input[..cut], usize::MAX).end, Ok(true), "a part of a body is no body");
        }
    }
    let mut encoder = BodyEncoder::new(BodyFraming::Chunked);
    let mut wire = Vec::new();
    for part in data.chunks(usize::from(piece) + 1) {
        encoder.encode(part, &mut wire).expect("a chunked body has no length to keep");
    }
    encoder.finish(&mut wire).expect("a chunked body can end anywhere");
    let again = decode(&wire, usize::MAX);
    assert_eq!((again.data, again.consumed, again.end), (data, wire.len(), Ok(true)));
}

/// Whatever the strict policy accepts, the lenient one accepts with the same meaning, and what it refuses for its
/// framing stays refused.
pub fn policies(input: &[u8]) {
    let (strict, verdict) = read_request(input, ParsePolicy::Strict);
    let (lenient, other) = read_request(input, ParsePolicy::Lenient);
    match verdict {
        Ok(None) => assert_eq!(other, Ok(None), "the lenient policy refuses no start of a request"),
        Ok(Some(length)) => {
            assert_eq!(other, Ok(Some(length)));
            assert_eq!(meaning_of_request(&strict, input), meaning_of_request(&lenient, input));
        }
        Err(RequestError::Framing(fault)) => assert_eq!(other, Err(RequestError::Framing(fault))),
        Err(_) => {}
    }
    for asked in ASKED {
        let (strict, verdict) = read_response(input, asked, ParsePolicy::Strict);
        let (lenient, other) = read_response(input, asked, ParsePolicy::Lenient);
        match verdict {
            Ok(None) => assert_eq!(other, Ok(None), "the lenient policy refuses no start of a response"),
            Ok(Some(length)) => {
                assert_eq!(other, Ok(Some(length)));
                assert_eq!(strict.framing(), lenient.framing());
                assert_eq!(meaning_of_response(&strict, input), meaning_of_response(&lenient, input));
            }
            Err(ResponseError::Framing(fault)) => assert_eq!(other, Err(ResponseError::Framing(fault))),
            Err(_) => {}
        }
    }
}

fn read_request(input: &[u8], policy: ParsePolicy) -> (RequestHead, Result<Option<usize>, RequestError>) {
    let mut head = RequestHead::new();
    let verdict = head.parse(input, &LIMITS, policy);
    (head, verdict)
}

fn read_response(
    input: &[u8],
    asked: Asked,
    policy: ParsePolicy,
) -> (ResponseHead, Result<Option<usize>, ResponseError>) {
    let mut head = ResponseHead::new();
    let verdict = head.parse(input, &LIMITS, asked, policy);
    (head, verdict)
}

/// Shows the input a byte at a time: the verdict is the same, and a head is complete with its last byte, not before.
fn drip<E: PartialEq + std::fmt::Debug>(
    input: &[u8],
    whole: &Result<Option<usize>, E>,
    mut parse: impl FnMut(&[u8]) -> Result<Option<usize>, E>,
) {
    let verdict = (0..=input.len()).map(|end| (end, parse(&input[..end]))).find(|(_, verdict)| *verdict != Ok(None));
    match verdict {
        None => assert_eq!(whole, &Ok(None)),
        Some((end, verdict)) => {
            assert_eq!(&verdict, whole);
            assert!(verdict.is_err() || verdict == Ok(Some(end)), "complete at {end}: {verdict:?}");
        }
    }
}

fn written_request(head: &RequestHead, input: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    head.write(input, &mut written);
    written
}

/// All that a reader of the request can learn from it, but for the version behind the dot.
fn meaning_of_request(head: &RequestHead, input: &[u8]) -> String {
    let texts = (head.method(input), head.target(input), head.path_and_query(input), head.version());
    let hosts = (head.host(input), head.authority(input));
    let flags = (head.keep_alive(), head.expect_continue(), head.upgrade(input), head.framing());
    let fields: Vec<_> = head.classified(input).map(|field| (field.name, field.value, field.kind)).collect();
    let options: Vec<_> = head.connection_options(input).collect();
    format!("{texts:?} {hosts:?} {flags:?} {fields:?} {options:?}")
}

fn meaning_of_response(head: &ResponseHead, input: &[u8]) -> String {
    let fields: Vec<_> = head.forwardable(input).map(|field| (field.name, field.value)).collect();
    format!("{} {:?} {} {fields:?}", head.status(), head.reason(input), head.is_upgrade())
}

/// What goes to the next hop is one request, framed as this one.
fn assert_forwards<'b>(fields: impl Iterator<Item = Field<'b>>, target: &str, framing: BodyFraming) {
    let mut written = Vec::new();
    let mut writer = HeadWriter::new(&mut written);
    writer.request_line("OPTIONS", target).field("Host", "a");
    let mut count = 1;
    for field in fields {
        writer.forward(&field);
        count += 1;
    }
    writer.framing(framing).end();
    assert_one_head(&written);
    let mut again = RequestHead::new();
    let limits = HeadLimits { bytes: 2 * LIMITS.bytes, fields: LIMITS.fields + 2, target: LIMITS.target };
    assert_eq!(again.parse(&written, &limits, ParsePolicy::Strict), Ok(Some(written.len())));
    assert_eq!(again.framing(), framing);
    assert_eq!(again.field_count(), count + usize::from(framing != BodyFraming::None));
}

/// Independently of the parser: lines end in CRLF, and the first empty line is the last.
fn assert_one_head(bytes: &[u8]) {
    let line_feeds = bytes.iter().filter(|&&byte| byte == b'\n').count();
    let carriage_returns = bytes.iter().filter(|&&byte| byte == b'\r').count();
    let line_ends = bytes.windows(2).filter(|pair| pair == b"\r\n").count();
    assert_eq!((line_feeds, carriage_returns), (line_ends, line_ends), "lines end in CRLF and nothing else");
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head has an end");
    assert_eq!(end + 4, bytes.len(), "one head and nothing behind it");
}

#[derive(Debug, PartialEq, Eq)]
struct Body {
    data: Vec<u8>,
    consumed: usize,
    /// Whether it is complete.
    end: Result<bool, BodyError>,
}

fn decode(input: &[u8], piece: usize) -> Body {
    let mut decoder = BodyDecoder::new(ResponseFraming::Chunked);
    let (mut data, mut at) = (Vec::new(), 0);
    while at < input.len() && !decoder.is_done() {
        let shown = &input[at..input.len().min(at.saturating_add(piece))];
        match decoder.decode(shown) {
            Ok(decoded) => {
                assert!(decoded.consumed > 0 && decoded.data.end <= decoded.consumed);
                assert_eq!(decoded.done, decoder.is_done());
                data.extend_from_slice(&shown[decoded.data]);
                at += decoded.consumed;
            }
            Err(fault) => {
                assert!(decoder.finish_eof().is_err() && decoder.decode(b"0\r\n\r\n") == Err(fault), "a fault stays");
                // How much framing was taken in front of the fault depends on the pieces.
                return Body { consumed: data.len(), data, end: Err(fault) };
            }
        }
    }
    assert_eq!(decoder.is_done(), decoder.finish_eof().is_ok());
    Body { data, consumed: at, end: Ok(decoder.is_done()) }
}
