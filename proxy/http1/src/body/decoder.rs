//! Takes the framing off a body, leaving the data where it is.

use std::ops::Range;

use super::chunked::{BodyError, Chunked, Next};
use crate::ResponseFraming;

/// Reads one body. Feed it what arrives, in order, until it is [done](Self::is_done).
///
/// Trailers are checked, bounded and dropped: nothing in a trailer may change what the head said.
#[derive(Debug, Clone)]
pub struct BodyDecoder {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Refused(BodyError),
}

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that are dealt with: call again with the rest, once there is a rest.
    pub consumed: usize,
    /// Where in the input body data is; empty when only framing was found.
    pub data: Range<usize>,
    /// The body is complete; bytes after `consumed` belong to the next message.
    pub done: bool,
}

/// The connection ended before the body did.
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
#[error("body is cut off")]
pub struct Truncated;

impl BodyDecoder {
    /// A decoder for a body delimited by `framing`.
    pub fn new(framing: impl Into<ResponseFraming>) -> Self {
        let state = match framing.into() {
            ResponseFraming::None => State::Length(0),
            ResponseFraming::Length(length) => State::Length(length),
            ResponseFraming::Chunked => State::Chunked(Chunked::new()),
            ResponseFraming::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Finds the next stretch of data in `input`, taking the framing before and after it.
    ///
    /// Consumes at least one byte unless `input` is empty or the body done. A fault stays: later calls repeat it. Data
    /// before a fault is handed out first.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        match &mut self.state {
            State::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= length as u64;
                Ok(Decoded { consumed: length, data: 0..length, done: *left == 0 })
            }
            State::UntilClose => Ok(Decoded { consumed: input.len(), data: 0..input.len(), done: false }),
            State::Chunked(chunked) => {
                let (decoded, fault) = decode_chunked(chunked, input);
                match fault {
                    None => Ok(decoded),
                    Some(fault) => {
                        self.state = State::Refused(fault);
                        if decoded.data.is_empty() { Err(fault) } else { Ok(decoded) }
                    }
                }
            }
            State::Refused(fault) => Err(*fault),
        }
    }

    /// Whether the body is complete. Never for a body delimited by the end of the connection.
    pub fn is_done(&self) -> bool {
        match self.state {
            State::Length(left) => left == 0,
            State::Chunked(chunked) => chunked.next() == Next::Nothing,
            State::UntilClose | State::Refused(_) => false,
        }
    }

    /// Bytes of data still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Chunked(chunked) if chunked.next() == Next::Nothing => Some(0),
            State::Chunked(_) | State::UntilClose | State::Refused(_) => None,
        }
    }

    /// Tells whether a body that ends here, with its connection, is complete.
    pub fn finish_eof(&self) -> Result<(), Truncated> {
        if matches!(self.state, State::UntilClose) || self.is_done() { Ok(()) } else { Err(Truncated) }
    }
}

/// One stretch of data with the framing around it. After a fault behind data, `consumed` ends with the data.
fn decode_chunked(chunked: &mut Chunked, input: &[u8]) -> (Decoded, Option<BodyError>) {
    let mut at = 0;
    let mut data = 0..0;
    while at < input.len() {
        match chunked.next() {
            Next::Nothing => break,
            Next::Data(_) if !data.is_empty() => break,
            Next::Data(left) => {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                chunked.take_data(length as u64);
                data = at..at + length;
                at += length;
            }
            Next::Framing => {
                if let Err(fault) = chunked.take_framing(input[at]) {
                    return (Decoded { consumed: data.end, data, done: false }, Some(fault));
                }
                at += 1;
            }
        }
    }
    (Decoded { consumed: at, data, done: chunked.next() == Next::Nothing }, None)
}
