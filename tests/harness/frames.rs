//! An HTTP/2 client without manners: a test writes frames, right ones and wrong ones, and sees what they lead to.
//!
//! Header blocks are written as plain literals (RFC 7541 section 6.2.2), so that any byte can stand in them; of an
//! answer's block only the status is read. No table of either side is used.

use std::{fmt, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

use crate::connect::{self, Stream};

/// A connection on which frames are written and read.
pub struct Frames {
    stream: Box<dyn Stream>,
    ahead: Vec<u8>,
    left_over: Option<Frame>,
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream, 0 for the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What frames led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A final answer with this status.
    Answer(u16),
    /// The stream was reset.
    Reset(u32),
    /// The connection was ended with a reason.
    GoAway(u32),
    /// The connection was ended without one.
    Closed,
    /// Nothing within the time given.
    Nothing,
}

/// Frame types (RFC 9113 section 6).
pub mod kind {
    /// Bytes of a body.
    pub const DATA: u8 = 0;
    /// The head of a request or answer, or trailers.
    pub const HEADERS: u8 = 1;
    /// Deprecated.
    pub const PRIORITY: u8 = 2;
    /// Ends a stream at once.
    pub const RST_STREAM: u8 = 3;
    /// Settings of the side that sends them.
    pub const SETTINGS: u8 = 4;
    /// Of servers only, and no longer in use.
    pub const PUSH_PROMISE: u8 = 5;
    /// Asks whether the other side is there.
    pub const PING: u8 = 6;
    /// Ends the connection.
    pub const GOAWAY: u8 = 7;
    /// Room for more data.
    pub const WINDOW_UPDATE: u8 = 8;
    /// More of a header block.
    pub const CONTINUATION: u8 = 9;
}

/// Of DATA and HEADERS: the last frame of its stream. Of SETTINGS and PING: an acknowledgement.
pub const END_STREAM: u8 = 1;
/// Of HEADERS and CONTINUATION: the last frame of its block.
pub const END_HEADERS: u8 = 4;
/// HEADERS that are a whole request.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;
/// What a client's connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Frames {
    /// Connects, and agrees on HTTP/2 with a header table of no bytes and these settings besides.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self::bare(address).await;
        frames.send([PREFACE, &settings_frame(&[&[(1, 0)], settings].concat())].concat()).await;
        frames
    }

    /// As [`Frames::connect`], for one that is slow to read: windows as large as can be, and hardly room in its socket.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect_unread(address: SocketAddr) -> Self {
        let stream = connect::tcp_narrow(address).await.unwrap_or_else(|error| panic!("{error:#}"));
        let mut frames = Self { stream: Box::new(stream), ahead: Vec::new(), left_over: None };
        let settings = settings_frame(&[(1, 0), (4, u32::MAX >> 1)]);
        frames.send([PREFACE, &settings, &window(0, (u32::MAX >> 1) - 65_535)].concat()).await;
        frames
    }

    /// Connects and says nothing.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn bare(address: SocketAddr) -> Self {
        let stream = connect::tcp(address).await.unwrap_or_else(|error| panic!("{error:#}"));
        Self { stream: Box::new(stream), ahead: Vec::new(), left_over: None }
    }

    /// Sends bytes; whether the other side still takes them.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.send_within(bytes, SEND_LIMIT).await
    }

    /// As [`Frames::send`]; false too when the other side takes nothing for this long.
    pub async fn send_within(&mut self, bytes: impl AsRef<[u8]>, limit: Duration) -> bool {
        timeout(limit, self.stream.write_all(bytes.as_ref())).await.is_ok_and(|sent| sent.is_ok())
    }

    /// The next frame; `None` when the connection has ended. SETTINGS are acknowledged along the way.
    ///
    /// # Errors
    /// When `until` has passed.
    pub async fn next(&mut self, until: Instant) -> Result<Option<Frame>, Late> {
        if let Some(frame) = self.left_over.take() {
            return Ok(Some(frame));
        }
        loop {
            if let Some(frame) = take_frame(&mut self.ahead) {
                if frame.kind == kind::SETTINGS && frame.flags == 0 {
                    self.send(frame_bytes(kind::SETTINGS, 1, 0, &[])).await;
                }
                return Ok(Some(frame));
            }
            match timeout_at(until, self.stream.read_buf(&mut self.ahead)).await {
                Err(_) => return Err(Late),
                Ok(Ok(1..)) => {}
                Ok(_) => return Ok(None),
            }
        }
    }

    /// Reads until something is final for `stream` (0: for the connection), at most for `limit`.
    pub async fn outcome(&mut self, stream: u32, limit: Duration) -> Outcome {
        let until = Instant::now() + limit;
        loop {
            let frame = match self.next(until).await {
                Err(Late) => return Outcome::Nothing,
                Ok(None) => return Outcome::Closed,
                Ok(Some(frame)) => frame,
            };
            match frame.kind {
                kind::GOAWAY => return Outcome::GoAway(number(&frame.payload[4..])),
                kind::RST_STREAM if stream != 0 && frame.stream == stream => {
                    return Outcome::Reset(number(&frame.payload));
                }
                kind::HEADERS if stream != 0 && frame.stream == stream => {
                    if let Some(status) = status(&frame.payload).filter(|status| *status >= 200) {
                        return Outcome::Answer(status);
                    }
                }
                _ => {}
            }
        }
    }

    /// Waits for an acknowledged PING: what was sent before it has been dealt with. False when the connection ended;
    /// the reason stays to be read.
    pub async fn settled(&mut self, limit: Duration) -> bool {
        self.send(frame_bytes(kind::PING, 0, 0, b"settled?")).await;
        let until = Instant::now() + limit;
        while let Ok(Some(frame)) = self.next(until).await {
            match frame.kind {
                kind::PING if frame.payload == b"settled?" => return true,
                kind::GOAWAY => {
                    self.left_over = Some(frame);
                    return false;
                }
                _ => {}
            }
        }
        false
    }
}

/// Nothing came in time.
#[derive(Debug)]
pub struct Late;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(status) => write!(f, "{status}"),
            Self::Reset(code) => write!(f, "RST {}", code_name(*code)),
            Self::GoAway(code) => write!(f, "GOAWAY {}", code_name(*code)),
            Self::Closed => f.write_str("closed"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

/// A frame's bytes.
pub fn frame_bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a test's frame is short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A SETTINGS frame.
pub fn settings_frame(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        settings.iter().flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame_bytes(kind::SETTINGS, 0, 0, &payload)
}

/// A header block of literals.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            prefixed(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// The block of `GET path` for `test.example`, with more fields.
pub fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let head = [(":method", method), (":scheme", "http"), (":authority", "test.example"), (":path", path)];
    block(&[&head, more].concat())
}

/// HEADERS of a whole `GET path`.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame_bytes(kind::HEADERS, WHOLE, stream, &request("GET", path, &[]))
}

/// HEADERS of a `POST /` whose body follows.
pub fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame_bytes(kind::HEADERS, END_HEADERS, stream, &request("POST", "/", more))
}

/// RST_STREAM.
pub fn reset(stream: u32) -> Vec<u8> {
    frame_bytes(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// WINDOW_UPDATE.
pub fn window(stream: u32, more: u32) -> Vec<u8> {
    frame_bytes(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// The name of an error code (RFC 9113 section 7).
pub fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code as usize).unwrap_or(&"unknown")
}

/// A number of the settings in a SETTINGS frame's payload.
pub fn setting(payload: &[u8], wanted: u16) -> Option<u32> {
    let mut settings = payload.chunks_exact(6);
    settings.find(|setting| setting[..2] == wanted.to_be_bytes()).map(|setting| number(&setting[2..]))
}

/// A number of four bytes.
pub fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

/// A length in a prefix of seven bits (RFC 7541 section 5.1).
fn prefixed(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(length as u8);
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

fn take_frame(ahead: &mut Vec<u8>) -> Option<Frame> {
    let head = ahead.get(..9)?;
    let length = number(&[0, head[0], head[1], head[2]]) as usize;
    let (kind, flags, stream) = (head[3], head[4], number(&head[5..]) & (u32::MAX >> 1));
    let payload = ahead.get(9..9 + length)?.to_vec();
    ahead.drain(..9 + length);
    Some(Frame { kind, flags, stream, payload })
}

/// The status at the front of an answer's block.
fn status(mut block: &[u8]) -> Option<u16> {
    // Table sizes (section 6.3).
    while block.first().is_some_and(|byte| byte >> 5 == 1) {
        block = &block[1..];
    }
    let (first, rest) = block.split_first()?;
    match first {
        // The static table (appendix A).
        0x88..=0x8e => Some([200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)]),
        // A literal with a name of the static table.
        0x08..=0x0e | 0x48..=0x4e | 0x18..=0x1e => match rest.split_first()? {
            (length, text) if length & 128 == 0 => std::str::from_utf8(text.get(..3)?).ok()?.parse().ok(),
            (length, text) => digits(text.get(..usize::from(length & 127))?),
        },
        _ => None,
    }
}

/// Three digits in Huffman's code (appendix B): 0 to 2 have five bits, 3 to 9 have six.
fn digits(text: &[u8]) -> Option<u16> {
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut status = 0;
    for _ in 0..3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | bits.next()?;
        }
        let digit = if code <= 2 { code } else { (code << 1 | bits.next()?).checked_sub(0b01_1001 - 3)? };
        status = status * 10 + digit;
    }
    Some(status)
}

const SEND_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2_origin::{H2Answer, H2Origin, Reply};

    #[tokio::test]
    async fn a_correct_server_understands_it() {
        let origin = H2Origin::start(|seen| {
            Reply::Answer(H2Answer::new(seen.path.trim_start_matches('/').parse().unwrap_or(200)).body("x"))
        })
        .await;
        let mut frames = Frames::connect(origin.address(), &[]).await;
        let limit = Duration::from_secs(5);
        for (index, status) in [200, 204, 404, 431, 503, 421, 298].into_iter().enumerate() {
            let stream = 1 + 2 * index as u32;
            assert!(frames.send(get(stream, &format!("/{status}"))).await);
            assert_eq!(frames.outcome(stream, limit).await, Outcome::Answer(status));
        }
        assert!(frames.settled(limit).await);
        assert!(frames.send(frame_bytes(kind::DATA, 0, 0, b"x")).await);
        assert_eq!(frames.outcome(0, limit).await.to_string(), "GOAWAY PROTOCOL_ERROR");
    }

    #[test]
    fn lengths_beyond_seven_bits_are_written_as_the_standard_says() {
        for (length, bytes) in [(1, &[1][..]), (126, &[126]), (127, &[127, 0]), (1337, &[127, 186, 9])] {
            let mut block = Vec::new();
            prefixed(&mut block, length);
            assert_eq!(block, bytes, "{length}");
        }
    }
}
