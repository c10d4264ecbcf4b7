//! Generated requests, and the answers their endpoints give.

use std::{convert::Infallible, fmt};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use tidegate_tests::{client::Ask, h2_origin::H2Answer, ledger::body_of, random::Random, recorder::Step};

/// One request and its answer.
pub(super) struct Case {
    id: u64,
    method: &'static str,
    target: String,
    fields: Vec<(&'static str, String)>,
    body: Body,
    pub(super) answer: Scripted,
}

#[derive(Debug)]
enum Body {
    None,
    Known(usize),
    Pieces(Vec<usize>),
}

/// What the endpoint says, in either protocol.
pub(super) struct Scripted {
    status: u16,
    fields: Vec<(&'static str, String)>,
    body: Bytes,
    framing: Framing,
    interim: bool,
    trailer: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// The number in the name of a request.
pub(super) fn number(name: Option<&str>) -> Option<u64> {
    name?.split_once('.')?.0.parse().ok()
}

impl Case {
    pub(super) fn draw(seed: u64, id: u64) -> Self {
        let random = &mut Random::of(seed, id);
        let method =
            *random.one_of(&["GET", "GET", "HEAD", "POST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT"]);
        let may_carry = ["POST", "PUT", "PATCH", "DELETE", "REPORT"].contains(&method);
        let body = match random.within(0..4) {
            1 if may_carry => Body::Known(random.within(0..5_000)),
            2 if may_carry => Body::Known(random.within(5_000..70_000)),
            3 if may_carry => Body::Pieces((0..random.within(0..5)).map(|_| random.within(1..9_000)).collect()),
            _ => Body::None,
        };
        let fields = (0..random.within(0..7)).map(|_| field(random, REQUEST_FIELDS)).collect();
        Self { id, method, target: target(random), fields, body, answer: Scripted::draw(random, id) }
    }

    /// The request, with a name for this way.
    pub(super) fn ask(&self, way: usize) -> Ask {
        let mut ask = Ask::new(self.method, &self.target).header("x-case", &format!("{}.{way}", self.id));
        for (name, value) in &self.fields {
            ask = ask.header(name, value);
        }
        match &self.body {
            Body::None => ask,
            Body::Known(length) => ask.body(Full::new(body_of(self.id, *length))),
            Body::Pieces(lengths) => {
                let pieces: Vec<_> = lengths.iter().map(|length| body_of(self.id, *length)).collect();
                ask.body(StreamBody::new(stream::iter(
                    pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece))),
                )))
            }
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scripted { status, body, framing, interim, trailer, .. } = &self.answer;
        let names: Vec<_> = self.fields.iter().map(|(name, _)| *name).collect();
        write!(f, "{} {} with {:?} and {names:?}, ", self.method, self.target, self.body)?;
        write!(f, "answered by {status} {framing:?} {} bytes, interim {interim}, trailer {trailer}", body.len())
    }
}

impl Scripted {
    fn draw(random: &mut Random, id: u64) -> Self {
        let status = *random.one_of(&[200, 200, 200, 200, 201, 204, 206, 302, 304, 401, 404, 409, 418, 500, 503]);
        let length = match random.within(0..5) {
            0 => 0,
            1..=3 => random.within(1..3_000),
            _ => random.within(3_000..100_000),
        };
        Self {
            status,
            fields: (0..random.within(0..6)).map(|_| field(random, ANSWER_FIELDS)).collect(),
            body: if [204, 304].contains(&status) { Bytes::new() } else { body_of(!id, length) },
            framing: *random.one_of(&[Framing::Length, Framing::Length, Framing::Chunked, Framing::UntilClose]),
            interim: random.chance(15),
            trailer: random.chance(15),
        }
    }

    fn is_bodiless(&self) -> bool {
        [204, 304].contains(&self.status)
    }

    /// What the recorder does.
    pub(super) fn http1_steps(&self, to_head: bool) -> Vec<Step> {
        let mut text = String::new();
        if self.interim {
            text.push_str("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        }
        text.push_str(&format!("HTTP/1.1 {} Whatever\r\n", self.status));
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let no_body = to_head || self.is_bodiless();
        match self.framing {
            _ if self.is_bodiless() => {}
            Framing::Length => text.push_str(&format!("content-length: {}\r\n", self.body.len())),
            Framing::Chunked => text.push_str("transfer-encoding: chunked\r\n"),
            Framing::UntilClose => text.push_str("connection: close\r\n"),
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        match self.framing {
            _ if no_body => {}
            Framing::Chunked => {
                for chunk in self.body.chunks(3_000) {
                    bytes.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
                }
                bytes.extend(if self.trailer { &b"0\r\nx-end: 1\r\n\r\n"[..] } else { b"0\r\n\r\n" });
            }
            Framing::Length | Framing::UntilClose => bytes.extend_from_slice(&self.body),
        }
        let ends = self.framing == Framing::UntilClose && !self.is_bodiless();
        [Some(Step::Send(bytes)), ends.then_some(Step::Close)].into_iter().flatten().collect()
    }

    /// What the HTTP/2 origin says.
    pub(super) fn h2_answer(&self, to_head: bool) -> H2Answer {
        let mut answer = H2Answer::new(self.status);
        for (name, value) in &self.fields {
            answer = answer.header(name, value);
        }
        if self.framing == Framing::Length && !self.is_bodiless() {
            answer = answer.header("content-length", &self.body.len().to_string());
        }
        if to_head || self.is_bodiless() {
            return answer;
        }
        let answer = answer.body(self.body.clone());
        if self.trailer && self.framing == Framing::Chunked { answer.trailer("x-end", "1") } else { answer }
    }
}

fn target(random: &mut Random) -> String {
    let mut target = String::new();
    for _ in 0..random.within(1..6) {
        target.push('/');
        // Most are plain, so that most requests are not refused.
        let segments = if random.chance(93) { PLAIN_SEGMENTS } else { ODD_SEGMENTS };
        target.push_str(random.one_of::<&str>(segments));
    }
    target.push_str(random.one_of::<&str>(QUERIES));
    target
}

fn field(random: &mut Random, names: &[&'static str]) -> (&'static str, String) {
    let name = *random.one_of(names);
    let value = match random.within(0..8) {
        0 => String::new(),
        1 => "caf\u{e9} \u{20ac}".to_owned(),
        2 => "x".repeat(random.within(500..3_000)),
        3 => "a, b;q=0.5, \"c d\"".to_owned(),
        _ => format!("v={}", random.within(0..1_000)),
    };
    match name {
        "te" => (name, "trailers".to_owned()),
        "x-forwarded-proto" => (name, "gopher".to_owned()),
        "location" => (name, "/elsewhere".to_owned()),
        name => (name, value),
    }
}

const PLAIN_SEGMENTS: &[&str] =
    &["a", "B", "a%20b", "%61", "x;y=1", "~", "a:b@c", "%E2%82%AC", "%25", "...", "a+b", "'(!)*"];
const ODD_SEGMENTS: &[&str] = &["..", ".", "", "%2e%2e", "%2f", "%5c", "%00", "%zz", "..;", "%c0%af", "%252e"];
const QUERIES: &[&str] = &["", "", "?", "?a=1&b=%2f", "?/../x", "?q=%zz", "?a?b", "?x=a;b='c'"];
const REQUEST_FIELDS: &[&str] = &[
    "x-a",
    "x-a",
    "x-b",
    "accept",
    "cookie",
    "cookie",
    "te",
    "authorization",
    "user-agent",
    "content-type",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-real-ip",
    "if-none-match",
    "cache-control",
    "origin",
    "priority",
    "x-request-id",
];
const ANSWER_FIELDS: &[&str] = &[
    "x-a",
    "x-a",
    "set-cookie",
    "set-cookie",
    "vary",
    "content-type",
    "etag",
    "location",
    "server",
    "cache-control",
    "link",
    "x-request-id",
];
