//! As much WebSocket (RFC 6455) as an echo needs: the handshake, and one binary message of 64 bytes over and over.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result, ensure};

use crate::workload::{Body, HOST};

use super::connection::Ended;

/// The client side of one tunnel.
pub(crate) struct WebSocket {
    message: Vec<u8>,
    /// The part of the next frame that has arrived.
    pending: Vec<u8>,
}

impl WebSocket {
    pub(crate) fn new() -> Self {
        // FIN and binary; MASK and a length of 64; the mask; a payload that the mask has been applied to.
        let mut message = vec![0x82, 0x80 | PAYLOAD.len() as u8];
        message.extend_from_slice(&MASK);
        message.extend(PAYLOAD.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        Self { message, pending: Vec::new() }
    }

    /// Opens the tunnel on a socket that waits. Nothing follows the head of the answer, because we speak first.
    pub(crate) fn upgrade(socket: &mut TcpStream) -> Result<()> {
        let path = Body::Echo.path();
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .context("cannot ask for a tunnel")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).context("no answer to the request for a tunnel")?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head);
        ensure!(head.starts_with("HTTP/1.1 101 "), "no tunnel: {}", head.lines().next().unwrap_or_default());
        Ok(())
    }

    /// Appends a message to `out` and returns its stream, which is always 0.
    pub(crate) fn request(&mut self, out: &mut Vec<u8>) -> u32 {
        out.extend_from_slice(&self.message);
        0
    }

    /// Takes the next bytes of the peer. An error means a frame that is no answer: a close, a ping, a fragment.
    pub(crate) fn receive(&mut self, bytes: &[u8], ended: &mut Vec<Ended>) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        while let Some((header, after)) = rest.split_first_chunk::<2>() {
            if header[0] != 0x82 || header[1] > 125 {
                return Err(ErrorKind::InvalidData.into());
            }
            let Some((payload, after)) = after.split_at_checked(usize::from(header[1])) else { break };
            ended.push(Ended { stream: 0, good: payload == PAYLOAD, resumed: false });
            rest = after;
        }
        let used = self.pending.len() - rest.len();
        self.pending.drain(..used);
        Ok(())
    }
}

const PAYLOAD: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-+";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x82, payload.len() as u8];
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn echoes_are_found_however_they_are_cut() {
        let bytes = [frame(PAYLOAD), frame(b"another"), frame(PAYLOAD)].concat();
        for size in 1..=bytes.len() {
            let mut codec = WebSocket::new();
            let mut ended = Vec::new();
            for part in bytes.chunks(size) {
                codec.receive(part, &mut ended).unwrap();
            }
            let good: Vec<bool> = ended.iter().map(|ended| ended.good).collect();
            assert_eq!(good, [true, false, true], "cut every {size} bytes");
        }
    }

    #[test]
    fn a_close_is_no_echo() {
        assert!(WebSocket::new().receive(&[0x88, 0], &mut Vec::new()).is_err());
    }

    #[test]
    fn a_message_is_masked() {
        let mut out = Vec::new();
        WebSocket::new().request(&mut out);
        assert_eq!(out.len(), 2 + 4 + 64);
        assert_eq!(out[6] ^ MASK[0], PAYLOAD[0]);
        assert_eq!(out[69] ^ MASK[3], PAYLOAD[63]);
    }
}
