//! What the driver needs of a client's request, whatever protocol carries it.
//!
//! One implementor for each client protocol. All waits are polled, so that one task can move the request and the
//! response at the same time; each implementor holds its client to the listener's deadlines by itself.

mod body_wait;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod memory;

use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tidegate_http1::{BodyError, EncodeError};
use tidegate_traffic::Fields;
use tidegate_traffic::edits::HeadEdits;

/// What follows a response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseBody {
    /// Nothing: 204, 304, an answer to HEAD. A length is announced for the latter two when it is known.
    None(Option<u64>),
    /// Exactly so many bytes.
    Length(u64),
    /// Bytes until the end is marked.
    Unknown,
}

/// Why a client's side of an exchange ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientFault {
    /// It closed or reset the connection or stream.
    #[error("client left: {0}")]
    Gone(io::Error),
    /// It took no bytes for the write limit.
    #[error("client takes no bytes")]
    WriteStalled,
    /// It sent nothing of its body for the body limit.
    #[error("client sends no more of its body")]
    BodyStalled,
    /// Its body comes too slowly.
    #[error("client sends its body too slowly")]
    BodyTooSlow,
    /// Its body's framing is broken.
    #[error("request body: {0}")]
    BadBody(#[from] BodyError),
    /// We would have sent a body that its own head denies.
    #[error("response body: {0}")]
    BadAnswer(#[from] EncodeError),
}

impl From<io::Error> for ClientFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::WriteStalled,
            _ => Self::Gone(error),
        }
    }
}

/// A client's request under way and the way back to the client.
pub(crate) trait Downstream: Send {
    /// Hands the next bytes of the request body to `sink`. Ready with whether more may follow.
    fn poll_body(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(&[u8])) -> Poll<Result<bool, ClientFault>>;

    /// Nobody takes the body until [`Self::poll_body`] is called again: until then the client is not late with it.
    fn pause_body(&mut self);

    /// The part of a request body that came with its head and needs no further reading or decoding, and whether that is
    /// all of it. `None` when there is no such part.
    fn take_ready_body(&mut self) -> Option<(BytesMut, bool)> {
        None
    }

    /// Passes an interim answer (1xx, not 101) on, where the protocol can.
    fn informational(&mut self, status: u16, fields: &dyn Fields, edits: &HeadEdits<'_>);

    /// Starts the answer: the head is buffered and leaves with the first bytes of the body, or when flushed.
    fn start_response(
        &mut self,
        status: u16,
        fields: &dyn Fields,
        edits: &HeadEdits<'_>,
        body: ResponseBody,
    ) -> Result<(), ClientFault>;

    /// Nobody will read the rest of the request's body: no other request can follow it.
    fn abandon_body(&mut self);

    /// No other request on the connection will be served: the client is told so with the answer that is yet to start.
    fn end_connection(&mut self);

    /// Whether [`Self::start_response`] was called.
    fn response_started(&self) -> bool;

    /// Forgets an answer that was started, if nothing of it has left: then another can be started.
    fn take_back(&mut self) -> bool;

    /// Sends bytes from the front of `data`; ready with how many, perhaps none when only the head left. The next call
    /// must begin with the bytes that were not taken. `last`: nothing follows `data`.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8], last: bool) -> Poll<Result<usize, ClientFault>>;

    /// How much memory of `wanted` bytes may be used for what this client has not taken. Until the exchange ends; asked
    /// again it answers for the same memory.
    fn memory(&mut self, wanted: usize) -> usize {
        wanted
    }

    /// Pushes out what is buffered.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientFault>>;

    /// Marks the body's end and pushes it out.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientFault>>;

    /// Ready when the client has gone, or gives its request up. Only called when the request body is complete.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<ClientFault>;

    /// Ready when the client has gone while nobody reads its body, which is left where it is.
    fn poll_hung_up(&mut self, cx: &mut Context<'_>) -> Poll<ClientFault>;

    /// The address that the client connected to; asked of the kernel, so for rare use only. `None` on a unix socket.
    fn local_address(&self) -> Option<SocketAddr>;

    /// Gives up on an answer and its client; nobody can take what was sent for complete.
    fn abort(&mut self);

    /// Ends an answer that cannot be completed: the client can read what was sent, and nobody can take it for complete.
    fn cut(&mut self) {
        self.abort();
    }

    /// Bytes of the request body that came.
    fn bytes_in(&self) -> u64;

    /// Bytes of the response body that were sent.
    fn bytes_out(&self) -> u64;
}
