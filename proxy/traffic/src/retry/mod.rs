//! Whether a failed attempt is followed by another one.
//!
//! The rules that stand above what a file asks for: a request that is not idempotent is never sent a second time once a byte
//! of it may have reached an endpoint, unless it is a gRPC call that ended with a code that the file names; nothing is sent a
//! second time once a byte of an answer has gone to the client.
//! [`decide`] knows failures, [`takes`] answers that count as such, [`hedges`] when silence asks for a second try beside the
//! first, [`budget`] how many retries an upstream may get, and
//! [`backoff`] when they begin. Endpoints that cannot be reached are no tries: all of them may be asked.

pub mod backoff;
pub mod budget;
pub mod grpc;
mod policy;

use std::fmt;

pub use policy::{History, Verdict, decide, hedges, takes, takes_call, wins};

/// What is known when an attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// How far it got.
    pub stage: Stage,
    /// What ended it.
    pub cause: Cause,
    /// It used a connection that had served a request before.
    pub reused: bool,
    /// How much of the request had been handed to the connection.
    pub sent: Sent,
    /// Everything taken from the client's body so far can be sent again.
    pub body_replayable: bool,
    /// What had come of an answer.
    pub heard: Heard,
}

/// How far an attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// There was no connection yet.
    Connect,
    /// The request was being sent.
    Send,
    /// The request was sent, and the response head had not arrived.
    Head,
    /// The head had arrived and was kept back for a body that did not follow.
    Body,
}

/// What ended an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The other side refused, closed or reset, or the network said so.
    Closed,
    /// A deadline passed.
    TimedOut,
    /// What arrived is not HTTP.
    Malformed,
    /// The handshake failed: it is not whom we know, or does not know us.
    Tls,
    /// Every connection that the endpoint may have is in use; another endpoint may have room.
    Full,
    /// A limit of our own process: descriptors, local ports. No endpoint is better than another then.
    Local,
}

/// How much of a request had been handed to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Not one byte.
    Nothing,
    /// At least one byte, so the endpoint may act on it.
    Some,
}

/// What had come of an answer when an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Heard {
    /// Not one byte.
    Nothing,
    /// Some, of which none went to the client.
    Some,
    /// Some of it went to the client.
    Passed,
}

/// Why a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There was no connection.
    Connect,
    /// The connection had been closed while it was idle.
    Stale,
    /// It was closed before an answer.
    Closed,
    /// No head of an answer in time.
    Timeout,
    /// The answer is not HTTP.
    Invalid,
    /// The status of the answer.
    Status,
    /// How a gRPC call ended.
    Grpc,
    /// No answer yet: it goes to another endpoint as well.
    Hedge,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 8] =
        [Self::Connect, Self::Stale, Self::Closed, Self::Timeout, Self::Invalid, Self::Status, Self::Grpc, Self::Hedge];

    /// Label of metrics; stable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Stale => "stale",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Status => "status",
            Self::Grpc => "grpc",
            Self::Hedge => "hedge",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether sending a request twice means the same as sending it once (RFC 9110 section 9.2.2). An unknown method is
/// not idempotent.
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE")
}

#[cfg(test)]
mod tests;
