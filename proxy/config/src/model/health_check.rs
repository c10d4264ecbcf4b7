//! How servers are asked whether they are well.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::ValuePattern;

/// How servers are asked whether they are well.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: CheckKind,
    /// From one check of a server to the next.
    pub interval: Duration,
    /// Most that is added to it by chance.
    pub jitter: Duration,
    /// A check as a whole.
    pub timeout: Duration,
    /// Checks in a row that must pass to come back, at least 1.
    pub rise: u32,
    /// Checks in a row that must fail to be out, at least 1.
    pub fall: u32,
    /// Another port than that of the server.
    pub port: Option<u16>,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    /// A connection.
    Connect,
    /// A request.
    Http(HttpCheck),
    /// gRPC's health protocol.
    Grpc {
        /// The service; empty is the server as a whole.
        service: String,
    },
}

/// A request and what its answer must be.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCheck {
    /// A token.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// `None` is the server's name or address.
    pub host: Option<String>,
    /// More fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Never empty.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// What the body must have: [`ValuePattern::Exact`] is a part of it.
    pub body: Option<ValuePattern>,
}
