//! Bytes both ways after a connection was upgraded.
//!
//! By now the request has let go of its snapshot: a reload never cuts a tunnel, and a tunnel never keeps an old
//! configuration alive.

use super::finish::Bytes;
use crate::edge::conn::Conn;
use crate::upstream::connection::Connection;
use bytes::{Buf, BytesMut};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes that one direction may hold while the other side does not take them.
const MAX_HELD: usize = 64 * 1024;

struct Tunnel<'a> {
    conn: &'a mut Conn,
    /// To the client; begins with the 101 head.
    out: BytesMut,
    up: &'a mut Connection,
    idle: Duration,
    last: Instant,
    client_ended: bool,
    endpoint_ended: bool,
    passed: Bytes,
}

/// Relays until either side closes, fails, or both are silent for `idle`. `out` holds what the client is owed first.
pub(crate) async fn run(conn: &mut Conn, out: BytesMut, up: &mut Connection, idle: Duration) -> Bytes {
    let mut tunnel = Tunnel {
        conn,
        out,
        up,
        idle,
        last: Instant::now(),
        client_ended: false,
        endpoint_ended: false,
        passed: Bytes::default(),
    };
    // An error ends a tunnel like an orderly close: there is no protocol left to tell the difference in.
    let _ = poll_fn(|cx| tunnel.poll(cx)).await;
    tunnel.passed
}

impl Tunnel<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let up = self.poll_up(cx)?;
            let down = self.poll_down(cx)?;
            if self.client_ended && self.up.write.is_empty() && self.conn.read_buffer.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.endpoint_ended && self.out.is_empty() && self.up.read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if up.is_pending() && down.is_pending() {
                let deadline = self.last + self.idle;
                return if self.up.timer.poll_expired(cx, deadline) {
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                } else {
                    Poll::Pending
                };
            }
            self.last = Instant::now();
        }
    }

    /// Client to endpoint; ready when something moved.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut moved = false;
        if !self.conn.read_buffer.is_empty() && self.up.write.len() < MAX_HELD {
            self.passed.received += self.conn.read_buffer.len() as u64;
            self.up.write.extend_from_slice(&self.conn.read_buffer);
            self.conn.read_buffer.clear();
            moved = true;
        }
        if !self.up.write.is_empty()
            && let Poll::Ready(written) = self.up.poll_drain(cx)?
        {
            moved |= written > 0;
        }
        if !self.client_ended
            && self.conn.read_buffer.len() < MAX_HELD
            && self.up.write.len() < MAX_HELD
            && let Poll::Ready(count) = self.conn.poll_fill(cx)?
        {
            self.client_ended = count == 0;
            moved = true;
        }
        if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Endpoint to client; ready when something moved.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut moved = false;
        if (!self.out.is_empty() || !self.up.read.is_empty())
            && let Poll::Ready(written) = self.conn.poll_write_two(cx, &self.out, &self.up.read)?
        {
            let head = written.min(self.out.len());
            self.out.advance(head);
            self.up.read.advance(written - head);
            self.passed.sent += (written - head) as u64;
            moved = written > 0;
        }
        if let Poll::Ready(Err(error)) = self.conn.poll_flush_io(cx) {
            return Poll::Ready(Err(error));
        }
        if !self.endpoint_ended
            && self.up.read.len() < MAX_HELD
            && let Poll::Ready(count) = self.up.poll_fill(cx)?
        {
            self.endpoint_ended = count == 0;
            moved = true;
        }
        if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
