//! How the bodies of an exchange are passed on, fixed when the head is known.
//!
//! A pipe counts and limits; it holds no bytes and does no input or output, so it serves every codec.

use tidegate_config::model::Buffer;

use crate::head::{BodyLength, Fields};
use crate::refusal::{Refusal, RefusalKind};

/// What is done with both bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyPlan {
    /// The request's.
    pub request: RequestBody,
    /// The response's.
    pub response: ResponseBody,
}

/// Bytes of a body that are held in memory before a file is used.
pub const MEMORY: usize = 128 * 1024;

/// What is done with a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBody {
    /// Passed on as it arrives.
    Stream {
        /// Most bytes.
        limit: u64,
    },
    /// Held until it is complete, before an endpoint is chosen. What goes over `hold` is passed on as it arrives.
    Collect {
        /// Most bytes.
        limit: u64,
        /// Most bytes that are held.
        hold: u64,
    },
}

/// What is done with a response body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseBody {
    /// Passed on as it arrives, and no faster than the client takes it.
    Stream,
    /// Passed on as it arrives. What the client does not take is held, so that the endpoint need not wait.
    Hold {
        /// Most bytes.
        most: u64,
    },
}

impl BodyPlan {
    /// Both bodies streamed, the request's up to `limit` bytes.
    #[must_use]
    pub fn stream(limit: u64) -> Self {
        Self { request: RequestBody::Stream { limit }, response: ResponseBody::Stream }
    }

    /// The request's body up to `limit` bytes, and both held as far as `buffer` says.
    #[must_use]
    pub fn of(limit: u64, buffer: Buffer) -> Self {
        let request = match buffer.request {
            0 => RequestBody::Stream { limit },
            hold => RequestBody::Collect { limit, hold },
        };
        let response = match buffer.response {
            0 => ResponseBody::Stream,
            most => ResponseBody::Hold { most },
        };
        Self { request, response }
    }

    /// Refuses a length that is known to be over the limit, before a byte of the body is read.
    pub fn admit(&self, length: BodyLength) -> Result<(), Refusal> {
        let limit = self.limit();
        match length {
            BodyLength::Known(length) if length > limit => Err(too_large(limit)),
            BodyLength::None | BodyLength::Known(_) | BodyLength::Unknown => Ok(()),
        }
    }

    /// Most bytes to collect of a request body before an endpoint is chosen; `None` when there is nothing to wait for.
    #[must_use]
    pub fn collects(&self, length: BodyLength) -> Option<u64> {
        match (self.request, length) {
            (RequestBody::Stream { .. }, _) | (_, BodyLength::None | BodyLength::Known(0)) => None,
            (RequestBody::Collect { hold, .. }, BodyLength::Known(_) | BodyLength::Unknown) => Some(hold),
        }
    }

    /// The pipe of the request body.
    #[must_use]
    pub fn request_pipe(&self) -> BodyPipe {
        BodyPipe { passed: 0, limit: self.limit() }
    }

    /// The pipe of the response body.
    #[must_use]
    pub fn response_pipe(&self) -> BodyPipe {
        BodyPipe { passed: 0, limit: u64::MAX }
    }

    fn limit(&self) -> u64 {
        match self.request {
            RequestBody::Stream { limit } | RequestBody::Collect { limit, .. } => limit,
        }
    }
}

/// Most bytes of a response body to hold. Nothing of one that its endpoint wants passed on at once: an event stream, or
/// `X-Accel-Buffering: no`. Both are endless as a rule, and a client that is behind should learn it.
#[must_use]
pub fn response_hold(plan: ResponseBody, fields: &dyn Fields) -> u64 {
    let ResponseBody::Hold { most } = plan else { return 0 };
    let says_no = fields.first(ACCEL_BUFFERING).is_some_and(|value| value.eq_ignore_ascii_case(b"no"));
    if says_no || is_event_stream(fields) { 0 } else { most }
}

/// nginx's field by which an endpoint says whether its answer may be held; it ends here.
pub const ACCEL_BUFFERING: &str = "x-accel-buffering";

/// Whether an answer is a stream of events, which has no end as a rule.
pub(crate) fn is_event_stream(fields: &dyn Fields) -> bool {
    let content_type = fields.first("content-type").unwrap_or_default();
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
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
    use crate::fixtures::fields;

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
    fn a_plan_says_what_is_waited_for() {
        let plan = |request, response| BodyPlan::of(10, Buffer { request, response });
        assert_eq!(plan(0, 0), BodyPlan::stream(10));
        for (request, length, expected) in [
            (0, BodyLength::Known(5), None),
            (7, BodyLength::None, None),
            (7, BodyLength::Known(0), None),
            (7, BodyLength::Known(5), Some(7)),
            (7, BodyLength::Known(9), Some(7)),
            (7, BodyLength::Unknown, Some(7)),
        ] {
            assert_eq!(plan(request, 0).collects(length), expected, "{request} {length:?}");
        }
        assert_eq!(plan(7, 3).admit(BodyLength::Known(11)).unwrap_err().kind, RefusalKind::BodyTooLarge);
        assert_eq!(plan(0, 3).response, ResponseBody::Hold { most: 3 });
    }

    #[test]
    fn what_must_pass_at_once_is_not_held() {
        let hold = ResponseBody::Hold { most: 9 };
        for (plan, field, expected) in [
            (ResponseBody::Stream, ("content-type", "text/html"), 0),
            (hold, ("content-type", "text/html"), 9),
            (hold, ("content-type", "text/event-stream"), 0),
            (hold, ("content-type", "Text/Event-Stream; charset=utf-8"), 0),
            (hold, ("content-type", "text/event-stream-not"), 9),
            (hold, ("x-accel-buffering", "no"), 0),
            (hold, ("X-Accel-Buffering", "No"), 0),
            (hold, ("x-accel-buffering", "yes"), 9),
        ] {
            assert_eq!(response_hold(plan, &fields(&[field])), expected, "{field:?}");
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
