//! As much HTTP/1.1 as a load generator needs: GET, and answers with a `Content-Length`.

use std::io::{self, ErrorKind};

use crate::workload::{Connections, Features, HOST, Workload};

use super::connection::Ended;

/// One request at a time; the stream of the protocol's interface is always 0.
pub(crate) struct Http1 {
    request: Vec<u8>,
    head: Vec<u8>,
    body: Option<Body>,
    /// Length that every body must have.
    expected: u64,
}

struct Body {
    left: u64,
    good: bool,
    /// What the peer says of the TLS session, where it says something.
    resumed: bool,
}

impl Http1 {
    pub(crate) fn new(workload: Workload) -> Self {
        Self { request: request(workload), head: Vec::new(), body: None, expected: workload.body().size() }
    }

    /// Appends a request to `out` and returns its stream.
    pub(crate) fn request(&mut self, out: &mut Vec<u8>) -> u32 {
        out.extend_from_slice(&self.request);
        0
    }

    /// Takes the next bytes of the peer. An error means the answer is not one this codec can measure.
    pub(crate) fn receive(&mut self, mut bytes: &[u8], ended: &mut Vec<Ended>) -> io::Result<()> {
        while !bytes.is_empty() {
            match &mut self.body {
                Some(body) => {
                    let taken = bytes.len().min(usize::try_from(body.left).unwrap_or(usize::MAX));
                    body.left -= taken as u64;
                    bytes = &bytes[taken..];
                }
                None => bytes = self.receive_head(bytes)?,
            }
            if let Some(body) = self.body.take_if(|body| body.left == 0) {
                ended.push(Ended { stream: 0, good: body.good, resumed: body.resumed });
            }
        }
        Ok(())
    }

    /// Returns what follows the head.
    fn receive_head<'b>(&mut self, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
        let before = self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(HEAD_LIMIT)]);
        let search_from = before.saturating_sub(3);
        let Some(end) = self.head[search_from..].windows(4).position(|window| window == b"\r\n\r\n") else {
            return if self.head.len() > HEAD_LIMIT { Err(ErrorKind::InvalidData.into()) } else { Ok(&[]) };
        };
        let end = search_from + end + 4;
        self.body = Some(parse(&self.head[..end], self.expected).ok_or(ErrorKind::InvalidData)?);
        self.head.clear();
        Ok(&bytes[end - before..])
    }
}

/// Where the peer checks something besides forwarding, there is something to check.
fn request(workload: Workload) -> Vec<u8> {
    let path = workload.body().path();
    let (query, fields) = match workload.features() {
        Features::Full => ("?bench=1", "X-Bench: on\r\nCookie: theme=dark; bench=always\r\n"),
        Features::Bare | Features::Told => ("", ""),
    };
    let close = if workload.connections() == Connections::Kept { "" } else { "Connection: close\r\n" };
    let agent = "User-Agent: tidegate-bench\r\n";
    format!("GET {path}{query} HTTP/1.1\r\nHost: {HOST}\r\n{agent}{fields}{close}\r\n").into_bytes()
}

fn parse(head: &[u8], expected: u64) -> Option<Body> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let (mut length, mut resumed) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<u64>().ok()?);
        } else if name.eq_ignore_ascii_case("x-resumed") {
            // nginx says `r` or `.`, haproxy 1 or 0.
            resumed = matches!(value.trim(), "r" | "1");
        }
    }
    let left = length?;
    Some(Body { left, good: status == "200" && left == expected, resumed })
}

const HEAD_LIMIT: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nhello, world\n\
        HTTP/1.1 503 No\r\ncontent-length: 13\r\nX: y\r\n\r\nhello, world\n\
        HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nde\
        HTTP/1.1 200 OK\r\ncontent-length:13\r\nX-Resumed: r\r\n\r\nhello, world\n";

    #[test]
    fn answers_are_found_however_they_are_cut() {
        for size in 1..ANSWERS.len() {
            let mut codec = Http1::new(Workload::Tiny);
            let mut ended = Vec::new();
            for part in ANSWERS.chunks(size) {
                codec.receive(part, &mut ended).unwrap();
            }
            let seen: Vec<_> = ended.iter().map(|ended| (ended.good, ended.resumed)).collect();
            assert_eq!(seen, [(true, false), (false, false), (false, false), (true, true)], "cut every {size} bytes");
        }
    }

    #[test]
    fn an_answer_without_a_length_is_refused() {
        let mut codec = Http1::new(Workload::Tiny);
        assert!(codec.receive(b"HTTP/1.1 200 OK\r\n\r\n", &mut Vec::new()).is_err());
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let mut codec = Http1::new(Workload::Tiny);
        codec.receive(&[b'a'; HEAD_LIMIT], &mut Vec::new()).unwrap();
        assert!(codec.receive(b"a", &mut Vec::new()).is_err());
    }

    #[test]
    fn a_connection_for_one_request_says_so() {
        let text = |workload| String::from_utf8(request(workload)).unwrap();
        assert!(text(Workload::Connect).contains("\r\nConnection: close\r\n"));
        assert!(!text(Workload::Tiny).contains("close"));
        assert!(text(Workload::TinyFull).starts_with("GET /tiny?bench=1 HTTP/1.1\r\n"));
    }
}
