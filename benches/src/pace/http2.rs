//! As much HTTP/2 as a load generator needs: GET with a constant header block, a window too large for a stream to run dry, and of
//! each answer its status and its end.

use std::io::{self, ErrorKind};

use crate::workload::{HOST, Workload};

use super::connection::Ended;

/// The client side of one connection.
pub(crate) struct Http2 {
    header_block: Vec<u8>,
    next_stream: u32,
    /// The part of the next frame that has arrived.
    pending: Vec<u8>,
    /// Streams whose head did not say 200.
    refused: Vec<u32>,
    /// Bytes of unfinished bodies by stream.
    bodies: Vec<(u32, u64)>,
    /// Length that every body must have.
    expected: u64,
    /// Bytes of the connection's window that were used and not given back.
    received: u32,
}

impl Http2 {
    pub(crate) fn new(workload: Workload) -> Self {
        let (path, tls) = (workload.body().path(), workload.protocol().is_tls());
        // RFC 7541: 0x82 and 0x86/0x87 are indexed (GET, http/https), 0x04 and 0x01 are literals without indexing
        // under the static names :path and :authority.
        let mut header_block = vec![0x82, if tls { 0x87 } else { 0x86 }];
        for (name, value) in [(0x04, path), (0x01, HOST)] {
            header_block.push(name);
            header_block.push(value.len() as u8);
            header_block.extend_from_slice(value.as_bytes());
        }
        Self {
            header_block,
            next_stream: 1,
            pending: Vec::new(),
            refused: Vec::new(),
            bodies: Vec::new(),
            expected: workload.body().size(),
            received: 0,
        }
    }

    /// What a client sends first: no push, and 1 GiB of window for each stream and for the connection.
    pub(crate) fn preface() -> Vec<u8> {
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let window = WINDOW.to_be_bytes();
        let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
        settings.extend_from_slice(&window);
        frame(&mut out, SETTINGS, 0, 0, &settings);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &window);
        out
    }

    /// Appends a request to `out` and returns its stream.
    pub(crate) fn request(&mut self, out: &mut Vec<u8>) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        frame(out, HEADERS, END_STREAM | END_HEADERS, stream, &self.header_block);
        stream
    }

    /// Takes the next bytes of the peer, and appends what must be said in return to `out`.
    pub(crate) fn receive(&mut self, bytes: &[u8], ended: &mut Vec<Ended>, out: &mut Vec<u8>) -> io::Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut rest = pending.as_slice();
        while let Some((header, after)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
            self.receive_frame(Frame { kind: header[3], flags: header[4], stream, payload }, ended, out)?;
            rest = after;
        }
        if self.received > WINDOW / 2 {
            frame(out, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
        let used = pending.len() - rest.len();
        pending.drain(..used);
        self.pending = pending;
        Ok(())
    }

    fn receive_frame(&mut self, frame: Frame<'_>, ended: &mut Vec<Ended>, out: &mut Vec<u8>) -> io::Result<()> {
        match frame.kind {
            DATA => self.receive_data(&frame),
            HEADERS if !frame.says_ok() => self.refused.push(frame.stream),
            SETTINGS if frame.flags & ACK == 0 => self::frame(out, SETTINGS, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => self::frame(out, PING, ACK, 0, frame.payload),
            RST_STREAM => {
                self.end(frame.stream);
                ended.push(Ended { stream: frame.stream, good: false, resumed: false });
            }
            GOAWAY => return Err(ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            let good = self.end(frame.stream);
            ended.push(Ended { stream: frame.stream, good, resumed: false });
        }
        Ok(())
    }

    fn receive_data(&mut self, frame: &Frame<'_>) {
        let padding =
            if frame.flags & PADDED == 0 { 0 } else { 1 + u64::from(frame.payload.first().copied().unwrap_or(0)) };
        let length = (frame.payload.len() as u64).saturating_sub(padding);
        match self.bodies.iter_mut().find(|(stream, _)| *stream == frame.stream) {
            Some((_, bytes)) => *bytes += length,
            None => self.bodies.push((frame.stream, length)),
        }
        self.received += frame.payload.len() as u32;
    }

    /// Forgets a stream, and says whether its answer was a 200 with a body of the right length.
    fn end(&mut self, stream: u32) -> bool {
        let refused = self.refused.iter().position(|refused| *refused == stream);
        let body = self.bodies.iter().position(|(open, _)| *open == stream);
        let bytes = body.map_or(0, |position| self.bodies.swap_remove(position).1);
        if let Some(position) = refused {
            self.refused.swap_remove(position);
        }
        refused.is_none() && bytes == self.expected
    }
}

struct Frame<'b> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'b [u8],
}

impl Frame<'_> {
    /// Whether a head begins with `:status: 200`, which every encoder writes as the one byte 0x88, perhaps after
    /// updates of the table size (0x20-0x3f, RFC 7541 section 6.3).
    fn says_ok(&self) -> bool {
        let padding = if self.flags & PADDED == 0 { 0 } else { 1 };
        let priority = if self.flags & PRIORITY == 0 { 0 } else { 5 };
        let block = self.payload.get(padding + priority..).unwrap_or_default();
        block.iter().find(|byte| **byte & 0xe0 != 0x20) == Some(&0x88)
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

const WINDOW: u32 = 1 << 30;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        frame(&mut bytes, HEADERS, END_HEADERS, 1, &[0x3f, 0x20, 0x88]);
        frame(&mut bytes, HEADERS, END_HEADERS | END_STREAM, 3, &[0x8d]);
        frame(&mut bytes, DATA, 0, 1, b"hello, ");
        frame(&mut bytes, DATA, END_STREAM | PADDED, 1, b"\x02world\nxx");
        frame(&mut bytes, RST_STREAM, 0, 5, &[0, 0, 0, 7]);
        frame(&mut bytes, HEADERS, END_HEADERS, 7, &[0x88]);
        frame(&mut bytes, DATA, END_STREAM, 7, b"short");
        frame(&mut bytes, PING, 0, 0, b"12345678");
        bytes
    }

    #[test]
    fn answers_are_found_however_they_are_cut() {
        let bytes = answers();
        for size in 1..=bytes.len() {
            let mut codec = Http2::new(Workload::TinyH2c);
            let (mut ended, mut out) = (Vec::new(), Vec::new());
            for part in bytes.chunks(size) {
                codec.receive(part, &mut ended, &mut out).unwrap();
            }
            let seen: Vec<_> = ended.iter().map(|ended| (ended.stream, ended.good)).collect();
            assert_eq!(seen, [(3, false), (1, true), (5, false), (7, false)], "cut every {size} bytes");
            assert_eq!(out.len(), 9 + 17, "one acknowledgement of settings, one of the ping");
        }
    }

    #[test]
    fn the_window_of_the_connection_is_given_back() {
        let mut codec = Http2::new(Workload::TinyH2c);
        codec.received = WINDOW / 2;
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        frame(&mut bytes, DATA, 0, 1, b"x");
        codec.receive(&bytes, &mut Vec::new(), &mut out).unwrap();
        assert_eq!(out[..5], [0, 0, 4, WINDOW_UPDATE, 0]);
        assert_eq!(out[9..], (WINDOW / 2 + 1).to_be_bytes());
    }

    #[test]
    fn a_goodbye_ends_the_connection() {
        let mut bytes = Vec::new();
        frame(&mut bytes, GOAWAY, 0, 0, &[0; 8]);
        assert!(Http2::new(Workload::TinyH2).receive(&bytes, &mut Vec::new(), &mut Vec::new()).is_err());
    }

    #[test]
    fn streams_are_odd_and_rise() {
        let mut codec = Http2::new(Workload::TinyH2);
        let mut out = Vec::new();
        assert_eq!([codec.request(&mut out), codec.request(&mut out)], [1, 3]);
        assert_eq!(out.len() % 2, 0);
        assert_eq!(out[..5], [0, 0, out[2], HEADERS, END_STREAM | END_HEADERS]);
    }
}
