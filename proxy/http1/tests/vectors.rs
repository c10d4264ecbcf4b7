//! Runs the files in `tests/vectors`: each vector whole, cut in two at every place, and byte by byte.

#[path = "vectors/format.rs"]
mod format;

use std::collections::BTreeSet;

use format::{Vector, load, unescape};
use tidegate_http1::{
    Asked, BodyDecoder, BodyError, BodyFraming, HeadLimits, ParsePolicy, RequestError, RequestHead, ResponseError,
    ResponseFraming, ResponseHead,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 20, target: 256 };
const REQUESTS: &str = include_str!("vectors/requests.txt");
const RESPONSES: &str = include_str!("vectors/responses.txt");
const BODIES: &str = include_str!("vectors/bodies.txt");

#[test]
fn requests() {
    let vectors = load(REQUESTS);
    assert!(vectors.len() >= 250, "vectors: {}", vectors.len());
    report(both(&vectors, |vector, policy, input, cuts| {
        assert_eq!(vector.asked, "other", "{}", vector.name);
        request_verdict(input, cuts, policy)
    }));
}

#[test]
fn responses() {
    let vectors = load(RESPONSES);
    assert!(vectors.len() >= 100, "vectors: {}", vectors.len());
    report(both(&vectors, |vector, policy, input, cuts| response_verdict(input, cuts, asked(vector), policy)));
}

/// Bodies have one form under both policies.
#[test]
fn bodies() {
    let vectors = load(BODIES);
    assert!(vectors.len() >= 50, "vectors: {}", vectors.len());
    report(both(&vectors, |_, _, input, cuts| body_verdict(input, cuts)));
}

#[test]
fn every_rule_has_vectors() {
    let vectors = [load(REQUESTS), load(RESPONSES), load(BODIES)].concat();
    let rules: BTreeSet<&str> = vectors.iter().filter_map(|vector| vector.name.split(' ').next()).collect();
    let missing: Vec<String> =
        (1..=23).map(|rule| format!("S{rule}")).filter(|rule| !rules.contains(&**rule)).collect();
    assert!(missing.is_empty(), "rules without a vector: {missing:?}");
}

/// Whatever the strict policy accepts, the lenient one accepts with the same meaning.
#[test]
fn lenient_accepts_more_and_nothing_else() {
    for vector in [load(REQUESTS), load(RESPONSES), load(BODIES)].concat() {
        let differs = vector.strict != vector.lenient;
        assert!(!differs || !vector.strict.starts_with("ok"), "{}: accepted with two meanings", vector.name);
    }
}

/// Runs vectors under both policies.
fn both<'a>(
    vectors: &'a [Vector],
    run: impl Fn(&Vector, ParsePolicy, &[u8], &[usize]) -> Verdict + Copy + 'a,
) -> impl Iterator<Item = String> + 'a {
    vectors.iter().flat_map(move |vector| {
        [(ParsePolicy::Strict, &vector.strict), (ParsePolicy::Lenient, &vector.lenient)].into_iter().filter_map(
            move |(policy, wanted)| {
                let failure = check(vector, wanted, |input, cuts| run(vector, policy, input, cuts))?;
                Some(format!("{policy:?}: {failure}"))
            },
        )
    })
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
fn request_verdict(input: &[u8], cuts: &[usize], policy: ParsePolicy) -> Verdict {
    let mut head = RequestHead::new();
    match grow(input, cuts, |bytes| head.parse(bytes, &LIMITS, policy)) {
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

fn response_verdict(input: &[u8], cuts: &[usize], asked: Asked, policy: ParsePolicy) -> Verdict {
    let mut head = ResponseHead::new();
    match grow(input, cuts, |bytes| head.parse(bytes, &LIMITS, asked, policy)) {
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

/// Says how the vector failed.
fn check(vector: &Vector, wanted: &str, run: impl Fn(&[u8], &[usize]) -> Verdict) -> Option<String> {
    let Vector { name, input, .. } = vector;
    let length = input.len();
    let whole = run(input, &[length]);
    if let Some(difference) = difference(wanted, &whole) {
        return Some(format!("{}: {difference}", name));
    }
    // Long inputs are runs of one byte: a cut in thirteen is enough for those.
    let step = if length > 1000 { 13 } else { 1 };
    for cut in (0..length).step_by(step) {
        let verdict = run(input, &[cut, length]);
        if verdict != whole {
            return Some(format!("{}: cut at {cut}: {verdict:?}, whole: {whole:?}", name));
        }
    }
    let drip: Vec<usize> = (0..=length).collect();
    let verdict = run(input, &drip);
    (verdict != whole).then(|| format!("{}: byte by byte: {verdict:?}, whole: {whole:?}", name))
}

fn difference(wanted: &str, verdict: &Verdict) -> Option<String> {
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
