//! Runs the files in `tests/vectors`: each vector whole, cut in two at every place, and byte by byte.

use tidegate_http1::{
    Asked, BodyDecoder, BodyError, BodyFraming, HeadLimits, RequestError, RequestHead, ResponseError, ResponseFraming,
    ResponseHead,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 2048, fields: 20, target: 256 };

#[test]
fn requests() {
    let vectors = load(include_str!("vectors/requests.txt"));
    assert!(vectors.len() >= 200, "vectors: {}", vectors.len());
    report(vectors.iter().filter_map(|vector| vector.check(request_verdict)));
}

#[test]
fn responses() {
    let vectors = load(include_str!("vectors/responses.txt"));
    assert!(vectors.len() >= 50, "vectors: {}", vectors.len());
    report(
        vectors.iter().filter_map(|vector| vector.check(|input, cuts| response_verdict(input, cuts, asked(vector)))),
    );
}

#[test]
fn bodies() {
    let vectors = load(include_str!("vectors/bodies.txt"));
    assert!(vectors.len() >= 50, "vectors: {}", vectors.len());
    report(vectors.iter().filter_map(|vector| vector.check(body_verdict)));
}

/// Fails with all the vectors that failed.
fn report(failures: impl Iterator<Item = String>) {
    let failures: Vec<String> = failures.collect();
    assert!(failures.is_empty(), "{} vectors failed:\n{}", failures.len(), failures.join("\n"));
}

fn asked(vector: &Vector) -> Asked {
    match vector.asked.as_str() {
        "head" => Asked::Head,
        "websocket" => Asked::WebSocket,
        "other" => Asked::Other,
        unknown => panic!("{}: unknown word after @: {unknown}", vector.name),
    }
}

/// `cuts` are the lengths of the input shown one after the other.
fn request_verdict(input: &[u8], cuts: &[usize]) -> Verdict {
    let mut head = RequestHead::new();
    match grow(input, cuts, |bytes| head.parse(bytes, &LIMITS)) {
        Ok(None) => Verdict::More,
        Err(error) => Verdict::Refused(refused_request(error)),
        Ok(Some(length)) => {
            let framing = match head.framing() {
                BodyFraming::None => "none".to_owned(),
                BodyFraming::Length(length) => format!("length:{length}"),
                BodyFraming::Chunked => "chunked".to_owned(),
            };
            Verdict::Accepted(vec![
                ("method", head.method(input).to_owned()),
                ("target", head.target(input).to_owned()),
                ("path", head.path_and_query(input).to_owned()),
                ("host", head.host(input).map_or("-".to_owned(), lossy)),
                ("framing", framing),
                ("keep", head.keep_alive().to_string()),
                ("upgrade", format!("{:?}", head.upgrade(input))),
                ("expect", head.expect_continue().to_string()),
                ("forward", names(head.forwardable(input).map(|field| field.name_str()))),
                ("rest", (input.len() - length).to_string()),
            ])
        }
    }
}

fn refused_request(error: RequestError) -> String {
    format!("{} {error:?}", error.status())
}

fn response_verdict(input: &[u8], cuts: &[usize], asked: Asked) -> Verdict {
    let mut head = ResponseHead::new();
    match grow(input, cuts, |bytes| head.parse(bytes, &LIMITS, asked)) {
        Ok(None) => Verdict::More,
        Err::<_, ResponseError>(error) => Verdict::Refused(format!("502 {error:?}")),
        Ok(Some(length)) => {
            let framing = match head.framing() {
                ResponseFraming::None => "none".to_owned(),
                ResponseFraming::Length(length) => format!("length:{length}"),
                ResponseFraming::Chunked => "chunked".to_owned(),
                ResponseFraming::UntilClose => "close".to_owned(),
            };
            Verdict::Accepted(vec![
                ("status", head.status().to_string()),
                ("reason", lossy(head.reason(input))),
                ("framing", framing),
                ("length", head.content_length().map_or("-".to_owned(), |length| length.to_string())),
                ("keep", head.keep_alive().to_string()),
                ("upgrade", head.is_upgrade().to_string()),
                ("informational", head.is_informational().to_string()),
                ("forward", names(head.forwardable(input).map(|field| field.name_str()))),
                ("rest", (input.len() - length).to_string()),
            ])
        }
    }
}

fn body_verdict(input: &[u8], cuts: &[usize]) -> Verdict {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
    let (mut at, mut data) = (0, Vec::new());
    for &end in cuts {
        while at < end && !decoder.is_done() {
            match decoder.decode(&input[at..end]) {
                Ok(decoded) => {
                    assert!(decoded.consumed > 0, "no progress at {at}");
                    assert!(decoded.data.end <= decoded.consumed);
                    data.extend_from_slice(&input[at..end][decoded.data]);
                    at += decoded.consumed;
                }
                Err::<_, BodyError>(error) => {
                    assert!(decoder.finish_eof().is_err(), "a refused body is never complete");
                    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(error), "a refusal stays");
                    return Verdict::Refused(format!("{} {error:?}", error.status()));
                }
            }
        }
    }
    assert_eq!(decoder.is_done(), decoder.finish_eof().is_ok());
    match decoder.is_done() {
        false => Verdict::More,
        true => Verdict::Accepted(vec![("data", lossy(&data)), ("rest", (input.len() - at).to_string())]),
    }
}

/// Shows more and more of `input` until there is an answer.
fn grow<E>(
    input: &[u8],
    cuts: &[usize],
    mut parse: impl FnMut(&[u8]) -> Result<Option<usize>, E>,
) -> Result<Option<usize>, E> {
    for &end in cuts {
        if let Some(length) = parse(&input[..end])? {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(",")
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    More,
    Refused(String),
    Accepted(Vec<(&'static str, String)>),
}

struct Vector {
    name: String,
    asked: String,
    input: Vec<u8>,
    verdict: String,
}

impl Vector {
    /// Says how the vector failed.
    fn check(&self, run: impl Fn(&[u8], &[usize]) -> Verdict) -> Option<String> {
        let length = self.input.len();
        let whole = run(&self.input, &[length]);
        if let Some(difference) = self.difference(&whole) {
            return Some(format!("{}: {difference}", self.name));
        }
        // Long inputs are runs of one byte: a cut in thirteen is enough for those.
        let step = if length > 1000 { 13 } else { 1 };
        for cut in (0..length).step_by(step) {
            let verdict = run(&self.input, &[cut, length]);
            if verdict != whole {
                return Some(format!("{}: cut at {cut}: {verdict:?}, whole: {whole:?}", self.name));
            }
        }
        let drip: Vec<usize> = (0..=length).collect();
        let verdict = run(&self.input, &drip);
        (verdict != whole).then(|| format!("{}: byte by byte: {verdict:?}, whole: {whole:?}", self.name))
    }

    fn difference(&self, verdict: &Verdict) -> Option<String> {
        let wanted = self.verdict.as_str();
        match verdict {
            Verdict::More if wanted == "more" => None,
            Verdict::Refused(error) if error == wanted => None,
            Verdict::Accepted(facts) if wanted.starts_with("ok") => {
                wanted["ok".len()..].split_whitespace().find_map(|pair| {
                    let (key, value) = pair.split_once('=').expect("pairs are key=value");
                    let value = lossy(&unescape(value));
                    let fact = facts.iter().find(|fact| fact.0 == key).expect("keys are known");
                    (fact.1 != value).then(|| format!("{key}: wanted {value:?}, got {:?}", fact.1))
                })
            }
            _ => Some(format!("wanted {wanted:?}, got {verdict:?}")),
        }
    }
}

fn load(text: &str) -> Vec<Vector> {
    let vectors: Vec<Vector> = text.split("\n\n").filter(|block| !block.trim().is_empty()).map(vector).collect();
    let mut names: Vec<&str> = vectors.iter().map(|vector| vector.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), vectors.len(), "names are unique");
    vectors
}

fn vector(block: &str) -> Vector {
    let mut lines = block.trim_start_matches('\n').lines();
    let name = lines.next().expect("a block starts with its name").to_owned();
    let mut vector = Vector { name, asked: "other".to_owned(), input: Vec::new(), verdict: String::new() };
    for line in lines {
        match line.split_at(line.len().min(2)) {
            ("> ", bytes) => vector.input.extend(unescape(bytes)),
            ("= ", verdict) => vector.verdict = verdict.to_owned(),
            ("@ ", asked) => vector.asked = asked.to_owned(),
            _ => panic!("{}: unknown line: {line:?}", vector.name),
        }
    }
    assert!(!vector.verdict.is_empty(), "{}: no verdict", vector.name);
    vector
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '\\' => escape(rest, &mut bytes),
            '{' => repetition(rest, &mut bytes),
            _ => {
                bytes.extend_from_slice(first.to_string().as_bytes());
                first.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    bytes
}

fn escape(text: &str, bytes: &mut Vec<u8>) -> usize {
    let (byte, length) = match text.as_bytes()[1] {
        b'r' => (b'\r', 2),
        b'n' => (b'\n', 2),
        b't' => (b'\t', 2),
        b'0' => (0, 2),
        b'\\' => (b'\\', 2),
        b'x' => (u8::from_str_radix(&text[2..4], 16).expect("two hexadecimal digits"), 4),
        other => panic!("unknown escape: {}", char::from(other)),
    };
    bytes.push(byte);
    length
}

fn repetition(text: &str, bytes: &mut Vec<u8>) -> usize {
    let end = text.find('}').expect("a repetition is closed");
    let (piece, count) = text[1..end].rsplit_once('*').expect("a repetition has a count");
    bytes.extend(unescape(piece).repeat(count.parse().expect("a count is a number")));
    end + 1
}
