//! What an upstream connection's bytes travel on: a socket, or TLS on top of one.
//!
//! TLS takes bytes before the socket does; what it holds back is pushed out before it takes more, and while the answer is
//! waited for. Its end without a farewell (close_notify) is an error, so that an answer that was cut never looks whole.

use crate::edge::socket::Socket;
use bytes::BytesMut;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio_rustls::client::TlsStream;

/// See the module's text.
#[derive(Debug)]
pub(crate) enum Link {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Link {
    /// Whether it is TLS.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether it is still usable after being idle: open, and nothing unexpected has arrived on it.
    pub(crate) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_quiet(),
            // Tickets may come at any time; TLS itself tells them from data.
            Self::Tls(stream) => {
                if stream.get_ref().1.wants_write() {
                    // A part of a request stands in it that nobody would push out.
                    return false;
                }
                let mut byte = [0; 1];
                let mut cx = Context::from_waker(Waker::noop());
                // Outside of the task's budget, which would call a connection quiet without looking.
                let reading = poll_fn(|cx| Pin::new(stream.as_mut()).poll_read(cx, &mut ReadBuf::new(&mut byte)));
                pin!(unconstrained(reading)).poll(&mut cx).is_pending()
            }
        }
    }

    /// Whether the kernel has neither bytes nor an end of stream for us, asked right now.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_open(),
            Self::Tls(stream) => stream.get_ref().0.is_open(),
        }
    }

    /// Appends to `buffer`; 0 is the end of the stream.
    pub(crate) fn poll_read_buf(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => pin!(socket.read_buf(buffer)).poll(cx),
            Self::Tls(stream) => {
                if stream.get_ref().1.wants_write() {
                    // Its failure is met again by the read.
                    let _ = Pin::new(stream.as_mut()).poll_flush(cx);
                }
                pin!(stream.read_buf(buffer)).poll(cx)
            }
        }
    }

    /// Ready with the bytes taken once some were.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, data),
            Self::Tls(stream) => {
                if stream.get_ref().1.wants_write() {
                    ready!(Pin::new(stream.as_mut()).poll_flush(cx))?;
                }
                Pin::new(stream.as_mut()).poll_write(cx, data)
            }
        }
    }

    /// Ends our direction, once what TLS holds back is out.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
