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
/// How long the rest of a tunnel may stand still once one of its sides has ended.
const ENDING: Duration = Duration::from_secs(5);

struct Tunnel<'a> {
    conn: &'a mut Conn,
    /// To the client; begins with the 101 head.
    out: BytesMut,
    up: &'a mut Connection,
    idle: Duration,
    last: Instant,
    /// Nothing more comes from the client.
    client_ended: bool,
    /// The client takes nothing more.
    client_lost: bool,
    /// Nothing more comes from the endpoint.
    endpoint_ended: bool,
    /// The endpoint gets nothing more: it was told the end, or takes nothing.
    endpoint_shut: bool,
    passed: Bytes,
}

/// Relays until both sides are silent for `idle`, or one has ended and the other has what was on its way: the end of the
/// client is passed on to the endpoint, whose last words still reach it. `out` holds what the client is owed first.
pub(crate) async fn run(conn: &mut Conn, out: BytesMut, up: &mut Connection, idle: Duration) -> Bytes {
    let mut tunnel = Tunnel {
        conn,
        out,
        up,
        idle,
        last: Instant::now(),
        client_ended: false,
        client_lost: false,
        endpoint_ended: false,
        endpoint_shut: false,
        passed: Bytes::default(),
    };
    poll_fn(|cx| tunnel.poll(cx)).await;
    tunnel.passed
}

// An error ends its direction like an orderly close: there is no protocol left to tell the difference in.
impl Tunnel<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut moved = false;
        let (mut up, mut down, mut delivered) = (Poll::Ready(()), Poll::Ready(()), false);
        while up.is_ready() || down.is_ready() {
            let ends = self.ends();
            // A direction in which nothing moves waits already, unless the other one has ended something.
            if up.is_ready() {
                up = self.poll_up(cx);
            }
            if down.is_ready() || ends != self.ends() {
                (down, delivered) = self.poll_down(cx);
            }
            if self.endpoint_shut && (self.client_lost || self.endpoint_ended && delivered) {
                return Poll::Ready(());
            }
            moved |= up.is_ready() || down.is_ready();
            if ends != self.ends() {
                (up, down) = (Poll::Ready(()), Poll::Ready(()));
            }
        }
        if moved {
            self.last = Instant::now();
        }
        let ending = self.client_ended || self.endpoint_ended || self.endpoint_shut;
        let patience = if ending { self.idle.min(ENDING) } else { self.idle };
        let overdue = self.up.timer.poll_expired(cx, self.last + patience);
        if overdue { Poll::Ready(()) } else { Poll::Pending }
    }

    /// What has ended: what either direction does may depend on it.
    const fn ends(&self) -> [bool; 4] {
        [self.client_ended, self.client_lost, self.endpoint_ended, self.endpoint_shut]
    }

    /// Client to endpoint; ready when something moved.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.endpoint_shut {
            self.discard(cx);
            return Poll::Pending;
        }
        let mut moved = false;
        // What is on its way to an endpoint that has ended is still written; nobody needs more than that.
        if !self.client_ended
            && !self.endpoint_ended
            && self.conn.read_buffer.len() < MAX_HELD
            && self.up.write.len() < MAX_HELD
            && let Poll::Ready(read) = self.conn.poll_fill(cx)
        {
            self.client_ended = !matches!(read, Ok(1..));
            self.client_lost |= read.is_err_and(|error| error.kind() != io::ErrorKind::UnexpectedEof);
            moved = true;
        }
        if !self.conn.read_buffer.is_empty() && self.up.write.len() < MAX_HELD {
            self.passed.received += self.conn.read_buffer.len() as u64;
            self.up.write.extend_from_slice(&self.conn.read_buffer);
            self.conn.read_buffer.clear();
            moved = true;
        }
        if !self.up.write.is_empty()
            && let Poll::Ready(written) = self.up.poll_drain(cx)
        {
            let Ok(written) = written else { return self.shut_endpoint() };
            moved |= written > 0;
        }
        let over = self.client_ended || self.endpoint_ended;
        if over && self.conn.read_buffer.is_empty() && self.up.write.is_empty() && self.up.poll_shutdown(cx).is_ready()
        {
            return self.shut_endpoint();
        }
        if moved { Poll::Ready(()) } else { Poll::Pending }
    }

    fn shut_endpoint(&mut self) -> Poll<()> {
        self.endpoint_shut = true;
        self.up.write.clear();
        Poll::Ready(())
    }

    /// Drops what the client still sends, for nobody takes it; that is no reason to keep the tunnel.
    fn discard(&mut self, cx: &mut Context<'_>) {
        self.conn.read_buffer.clear();
        while !self.client_ended
            && let Poll::Ready(read) = self.conn.poll_fill(cx)
        {
            self.conn.read_buffer.clear();
            self.client_ended = !matches!(read, Ok(1..));
        }
    }

    /// Endpoint to client; ready when something moved, and whether the client has all there is.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> (Poll<()>, bool) {
        if self.client_lost {
            return (Poll::Pending, false);
        }
        let mut moved = false;
        if !self.endpoint_ended
            && self.up.read.len() < MAX_HELD
            && let Poll::Ready(read) = self.up.poll_fill(cx)
        {
            self.endpoint_ended = !matches!(read, Ok(1..));
            moved = true;
        }
        if !self.out.is_empty() || !self.up.read.is_empty() {
            match self.conn.poll_write_two(cx, &self.out, &self.up.read) {
                Poll::Ready(Ok(written)) => {
                    let head = written.min(self.out.len());
                    self.out.advance(head);
                    self.up.read.advance(written - head);
                    self.passed.sent += (written - head) as u64;
                    moved |= written > 0;
                }
                Poll::Ready(Err(_)) => return self.lose_client(),
                Poll::Pending => {}
            }
        }
        let flushed = match self.conn.poll_flush_io(cx) {
            Poll::Ready(Err(_)) => return self.lose_client(),
            flushed => flushed.is_ready(),
        };
        let delivered = flushed && self.out.is_empty() && self.up.read.is_empty();
        (if moved { Poll::Ready(()) } else { Poll::Pending }, delivered)
    }

    fn lose_client(&mut self) -> (Poll<()>, bool) {
        (self.client_lost, self.client_ended) = (true, true);
        (Poll::Ready(()), false)
    }
}
