//! Puts the framing on a body, leaving the data to the caller.

use crate::ResponseFraming;
use crate::writer::{Output, put_hexadecimal};

/// Frames one body. For each piece of data: [`prefix`](Self::prefix), the data itself, [`suffix`](Self::suffix); at the
/// end [`finish`](Self::finish). The caller may write the three in one go, or copy small data behind the prefix.
#[derive(Debug, Clone)]
pub struct BodyEncoder {
    state: State,
    /// A chunk was announced and not yet closed.
    is_open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    Chunked,
    UntilClose,
    Finished,
}

/// Why a body cannot be framed as announced. What was written so far must not be taken for a message: close.
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// More data than the announced length.
    #[error("body is longer than announced, bytes too many: {0}")]
    TooLong(u64),
    /// The end came before the announced length.
    #[error("body is shorter than announced, bytes missing: {0}")]
    TooShort(u64),
    /// Data after the end.
    #[error("body goes on after its end")]
    Finished,
}

impl BodyEncoder {
    /// An encoder for a body delimited by `framing`.
    pub fn new(framing: impl Into<ResponseFraming>) -> Self {
        let state = match framing.into() {
            ResponseFraming::None => State::Length(0),
            ResponseFraming::Length(length) => State::Length(length),
            ResponseFraming::Chunked => State::Chunked,
            ResponseFraming::UntilClose => State::UntilClose,
        };
        Self { state, is_open: false }
    }

    /// Announces `length` bytes of data and writes what stands before them. Nothing is written on error. Empty data
    /// writes nothing: an empty chunk would end the body.
    pub fn prefix(&mut self, length: usize, out: &mut impl Output) -> Result<(), EncodeError> {
        match &mut self.state {
            _ if length == 0 => {}
            State::Length(left) => match left.checked_sub(length as u64) {
                Some(rest) => *left = rest,
                None => return Err(EncodeError::TooLong(length as u64 - *left)),
            },
            State::Chunked => {
                debug_assert!(!self.is_open, "a chunk is closed before the next one is opened");
                put_hexadecimal(out, length as u64);
                out.put(b"\r\n");
                self.is_open = true;
            }
            State::UntilClose => {}
            State::Finished => return Err(EncodeError::Finished),
        }
        Ok(())
    }

    /// Writes what stands behind the data announced last.
    pub fn suffix(&mut self, out: &mut impl Output) {
        if std::mem::take(&mut self.is_open) {
            out.put(b"\r\n");
        }
    }

    /// Writes one piece of data with its framing.
    pub fn encode(&mut self, data: &[u8], out: &mut impl Output) -> Result<(), EncodeError> {
        self.prefix(data.len(), out)?;
        out.put(data);
        self.suffix(out);
        Ok(())
    }

    /// Ends the body. An error means that the message is cut off and the connection has to be closed.
    pub fn finish(&mut self, out: &mut impl Output) -> Result<(), EncodeError> {
        match self.state {
            State::Length(left @ 1..) => return Err(EncodeError::TooShort(left)),
            State::Finished => return Err(EncodeError::Finished),
            State::Chunked => out.put(b"0\r\n\r\n"),
            State::Length(0) | State::UntilClose => {}
        }
        self.state = State::Finished;
        Ok(())
    }

    /// Bytes of data still to be written, where a length was announced.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Finished => Some(0),
            State::Chunked | State::UntilClose => None,
        }
    }

    /// Whether who reads the body can tell an end that came early from its proper end.
    pub fn tells_its_end(&self) -> bool {
        matches!(self.state, State::Length(1..) | State::Chunked)
    }

    /// Whether the announced length has been written or the body was finished: nothing more is to come.
    pub fn is_done(&self) -> bool {
        self.remaining() == Some(0)
    }
}
