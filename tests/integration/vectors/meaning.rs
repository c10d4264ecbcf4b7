//! What bytes mean, asked of the codec: the requests of a client, the answer of an origin.

use tidegate_http1::{
    Asked, BodyDecoder, HeadLimits, ParsePolicy, RequestHead, ResponseFraming, ResponseHead, Upgrade,
};

/// The limits the vectors are made for; the site file of the tests has the same.
pub(super) const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 20, target: 256 };
/// Those of the program for answers. No forwarded request comes near.
const WIDE: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 256, target: 1 << 16 };
/// Bodies that are missing no more than this are made complete.
const MOST_FILLER: u64 = 128 * 1024;

/// All that a client sends on one connection.
#[derive(Debug)]
pub(super) struct Conversation {
    /// With the body of the last request made complete, where that can be.
    pub(super) bytes: Vec<u8>,
    /// The complete requests, in order.
    pub(super) requests: Vec<Request>,
    /// What follows them.
    pub(super) end: Ending,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) host: Option<String>,
    pub(super) body: Vec<u8>,
    pub(super) asked: Asked,
}

/// What follows the complete requests of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing that counts.
    Clean,
    /// A head that is refused with this status.
    Refused(u16),
    /// A head, and a body that turns out to be broken.
    Broken,
    /// A part of a request.
    Cut,
}

/// What `input` asks of a listener with this policy.
pub(super) fn conversation(input: &[u8], policy: ParsePolicy) -> Conversation {
    let (mut bytes, mut requests, mut at) = (input.to_vec(), Vec::new(), 0);
    let end = loop {
        if at == bytes.len() {
            break Ending::Clean;
        }
        let mut head = RequestHead::new();
        let length = match head.parse(&bytes[at..], &LIMITS, policy) {
            Ok(Some(length)) => length,
            Ok(None) => break Ending::Cut,
            Err(error) => break Ending::Refused(error.status()),
        };
        let start = at + length;
        let mut request = request(&head, &bytes[at..start]);
        complete(head.framing(), start, &mut bytes);
        let mut decoder = BodyDecoder::new(head.framing());
        match decode(&mut decoder, &bytes[start..], &mut request.body) {
            Err(()) => break Ending::Broken,
            Ok(_) if !decoder.is_done() => break Ending::Cut,
            Ok(consumed) => at = start + consumed,
        }
        requests.push(request);
        if !head.keep_alive() {
            break Ending::Clean;
        }
    };
    Conversation { bytes, requests, end }
}

/// The complete requests at the front of what an origin got, each well-formed, and the bytes that they take.
pub(super) fn received(bytes: &[u8]) -> Result<(Vec<Request>, usize), String> {
    let (mut requests, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let mut head = RequestHead::new();
        let parsed = head.parse(&bytes[at..], &WIDE, ParsePolicy::Strict);
        let malformed = |error| format!("DESYNC: the origin got a malformed head: {error}: {}", text(&bytes[at..]));
        let Some(length) = parsed.map_err(malformed)? else { break };
        let start = at + length;
        let mut request = request(&head, &bytes[at..start]);
        let mut decoder = BodyDecoder::new(head.framing());
        let consumed = decode(&mut decoder, &bytes[start..], &mut request.body)
            .map_err(|()| format!("DESYNC: the origin got a malformed body: {}", text(&bytes[at..])))?;
        if !decoder.is_done() {
            break;
        }
        requests.push(request);
        at = start + consumed;
    }
    Ok((requests, at))
}

fn request(head: &RequestHead, bytes: &[u8]) -> Request {
    let asked = match head.method(bytes) {
        "HEAD" => Asked::Head,
        _ if head.upgrade(bytes) == Upgrade::WebSocket => Asked::WebSocket,
        _ => Asked::Other,
    };
    Request {
        method: head.method(bytes).to_owned(),
        target: head.path_and_query(bytes).to_owned(),
        host: head.host(bytes).map(canonical),
        body: Vec::new(),
        asked,
    }
}

/// A host without what one spelling of it has and another has not: case, and the dot of the root.
fn canonical(host: &[u8]) -> String {
    let host = text(host).to_ascii_lowercase();
    host.strip_suffix('.').map(str::to_owned).unwrap_or(host)
}

/// What becomes of an origin's answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// With its body made complete, where that can be.
    pub(super) bytes: Vec<u8>,
    /// What the client has to see.
    pub(super) seen: Seen,
    /// The origin ends the connection behind it: its body has no other end, or it is not complete.
    pub(super) closes: bool,
    /// Nothing may follow on the connection: the answer says so, or is not clean.
    pub(super) is_last: bool,
}

/// What a client has to see of an origin's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// 502.
    Refused,
    /// The answer, whole.
    Whole { status: u16, fields: Vec<(String, Vec<u8>)>, body: Vec<u8> },
    /// 502, or this and a visible break.
    Broken { status: u16 },
}

/// Interim answers before a final one that are too many.
const TOO_MANY: usize = 9;

/// What `input` is as an answer from an upstream with this policy.
pub(super) fn reply(input: &[u8], asked: Asked, policy: ParsePolicy) -> Reply {
    let (mut bytes, mut at) = (input.to_vec(), 0);
    for _ in 0..TOO_MANY {
        let mut head = ResponseHead::new();
        let length = match head.parse(&bytes[at..], &WIDE, asked, policy) {
            Ok(Some(length)) => length,
            Ok(None) => return Reply { bytes, seen: Seen::Refused, closes: true, is_last: true },
            Err(_) => return Reply { bytes, seen: Seen::Refused, closes: false, is_last: true },
        };
        if head.is_informational() {
            at += length;
            continue;
        }
        let (start, status) = (at + length, head.status());
        // What the origin itself says is about its connection may be dropped, whatever it is.
        let options: Vec<u8> = head.field_all(&bytes[at..], "connection").collect::<Vec<_>>().join(&b',');
        let options = text(&options).to_ascii_lowercase();
        let fields = head.forwardable(&bytes[at..]).map(|field| (field.name_str().to_ascii_lowercase(), field.value));
        let fields = fields.filter(|(name, _)| options.split(',').all(|option| option.trim() != name));
        let fields = fields.map(|(name, value)| (name, value.to_vec())).collect();
        complete(head.framing(), start, &mut bytes);
        let (mut decoder, mut body) = (BodyDecoder::new(head.framing()), Vec::new());
        let whole = decode(&mut decoder, &bytes[start..], &mut body).is_ok() && decoder.finish_eof().is_ok();
        if head.is_upgrade() {
            // What follows is the tunnel.
            body.extend_from_slice(&bytes[start..]);
        }
        let closes = !whole || head.framing() == ResponseFraming::UntilClose || head.is_upgrade();
        let seen = if whole { Seen::Whole { status, fields, body } } else { Seen::Broken { status } };
        let is_last = closes || !head.keep_alive();
        return Reply { bytes, seen, closes, is_last };
    }
    Reply { bytes, seen: Seen::Refused, closes: false, is_last: true }
}

/// Adds what is missing of a body that begins at `start` and of which no part contradicts that.
fn complete(framing: impl Into<ResponseFraming>, start: usize, bytes: &mut Vec<u8>) {
    match framing.into() {
        ResponseFraming::Length(length) => {
            let missing = length.saturating_sub((bytes.len() - start) as u64);
            if missing <= MOST_FILLER {
                bytes.resize(bytes.len() + missing as usize, b'.');
            }
        }
        ResponseFraming::Chunked if bytes.len() == start => bytes.extend_from_slice(b"0\r\n\r\n"),
        _ => {}
    }
}

/// Decodes into `data` until the input or the body ends; gives the bytes taken.
pub(super) fn decode(decoder: &mut BodyDecoder, input: &[u8], data: &mut Vec<u8>) -> Result<usize, ()> {
    let mut at = 0;
    while at < input.len() && !decoder.is_done() {
        let decoded = decoder.decode(&input[at..]).map_err(drop)?;
        data.extend_from_slice(&input[at..][decoded.data]);
        at += decoded.consumed;
    }
    Ok(at)
}

pub(super) fn text(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(300)].escape_ascii().to_string()
}
