//! As much HTTP/1.1 as a load generator needs: GET, and answers with a `Content-Length`.

use std::io::{self, ErrorKind};

use crate::load::HOST;

use super::connection::Ended;

/// One request at a time; the stream of the protocol's interface is always 0.
pub(crate) struct Http1 {
    request: Vec<u8>,
    head: Vec<u8>,
    body: Option<Body>,
    body_bytes: u64,
}

struct Body {
    left: u64,
    good: bool,
}

impl Http1 {
    pub(crate) fn new(path: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: tidegate-bench\r\n\r\n");
        Self { request: request.into_bytes(), head: Vec::new(), body: None, body_bytes: 0 }
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
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
                    self.body_bytes += taken as u64;
                    bytes = &bytes[taken..];
                }
                None => bytes = self.receive_head(bytes)?,
            }
            if let Some(body) = self.body.take_if(|body| body.left == 0) {
                ended.push(Ended { stream: 0, good: body.good });
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
        self.body = Some(parse(&self.head[..end]).ok_or(ErrorKind::InvalidData)?);
        self.head.clear();
        Ok(&bytes[end - before..])
    }
}

fn parse(head: &[u8]) -> Option<Body> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let left = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    Some(Body { left, good: status == "200" })
}

const HEAD_LIMIT: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
        HTTP/1.1 503 No\r\ncontent-length: 0\r\nX: y\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nde";

    #[test]
    fn answers_are_found_however_they_are_cut() {
        for size in 1..ANSWERS.len() {
            let mut codec = Http1::new("/");
            let mut ended = Vec::new();
            for part in ANSWERS.chunks(size) {
                codec.receive(part, &mut ended).unwrap();
            }
            let good: Vec<bool> = ended.iter().map(|ended| ended.good).collect();
            assert_eq!(good, [true, false, true], "cut every {size} bytes");
            assert_eq!(codec.body_bytes(), 5);
        }
    }

    #[test]
    fn an_answer_without_a_length_is_refused() {
        let mut codec = Http1::new("/");
        assert!(codec.receive(b"HTTP/1.1 200 OK\r\n\r\n", &mut Vec::new()).is_err());
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let mut codec = Http1::new("/");
        codec.receive(&[b'a'; HEAD_LIMIT], &mut Vec::new()).unwrap();
        assert!(codec.receive(b"a", &mut Vec::new()).is_err());
    }
}
