//! How the bodies of an exchange are passed on, fixed when the head is known.
//!
//! A pipe counts and limits; it holds no bytes and does no input or output, so it serves every codec.

use crate::head::BodyLength;
use crate::refusal::{Refusal, RefusalKind};

/// What is done with both bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyPlan {
    /// The request's.
    pub request: RequestBody,
    /// The response's.
    pub response: ResponseBody,
}

/// What is done with a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBody {
    /// Passed on as it arrives.
    Stream {
        /// Most bytes.
        limit: u64,
    },
}

/// What is done with a response body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseBody {
    /// Passed on as it arrives.
    Stream,
}

impl BodyPlan {
    /// Both bodies streamed, the request's up to `limit` bytes.
    #[must_use]
    pub fn stream(limit: u64) -> Self {
        Self { request: RequestBody::Stream { limit }, response: ResponseBody::Stream }
    }

    /// Refuses a length that is known to be over the limit, before a byte of the body is read.
    pub fn admit(&self, length: BodyLength) -> Result<(), Refusal> {
        let RequestBody::Stream { limit } = self.request;
        match length {
            BodyLength::Known(length) if length > limit => Err(too_large(limit)),
            BodyLength::None | BodyLength::Known(_) | BodyLength::Unknown => Ok(()),
        }
    }

    /// The pipe of the request body.
    #[must_use]
    pub fn request_pipe(&self) -> BodyPipe {
        let RequestBody::Stream { limit } = self.request;
        BodyPipe { passed: 0, limit }
    }

    /// The pipe of the response body.
    #[must_use]
    pub fn response_pipe(&self) -> BodyPipe {
        let ResponseBody::Stream = self.response;
        BodyPipe { passed: 0, limit: u64::MAX }
    }
}

/// Counts the bytes of one body and stops them at the limit. Bytes are of the content, not of its framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyPipe {
    passed: u64,
    limit: u64,
}

impl BodyPipe {
    /// Takes `length` more bytes, or none of them if they go over the limit.
    pub fn push(&mut self, length: usize) -> Result<(), Refusal> {
        let passed = self.passed.saturating_add(length as u64);
        if passed > self.limit {
            return Err(too_large(self.limit));
        }
        self.passed = passed;
        Ok(())
    }

    /// Bytes so far.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed
    }
}

fn too_large(limit: u64) -> Refusal {
    Refusal::new(RefusalKind::BodyTooLarge, format!("request body over max_body: {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_length_is_refused_at_once() {
        for (length, fits) in [
            (BodyLength::None, true),
            (BodyLength::Unknown, true),
            (BodyLength::Known(10), true),
            (BodyLength::Known(11), false),
        ] {
            assert_eq!(BodyPlan::stream(10).admit(length).is_ok(), fits, "{length:?}");
        }
    }

    #[test]
    fn a_pipe_stops_at_its_limit() {
        let mut pipe = BodyPlan::stream(10).request_pipe();
        pipe.push(4).unwrap();
        pipe.push(6).unwrap();
        assert_eq!(pipe.push(1).unwrap_err().kind, RefusalKind::BodyTooLarge);
        assert_eq!(pipe.passed(), 10);
        pipe.push(0).unwrap();
    }

    #[test]
    fn a_response_has_no_limit() {
        let mut pipe = BodyPlan::stream(1).response_pipe();
        pipe.push(usize::MAX).unwrap();
        pipe.push(usize::MAX).unwrap();
        assert_eq!(pipe.passed(), u64::MAX);
    }
}
