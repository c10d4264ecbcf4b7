//! What is known of one exchange when it is over.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use tidegate_traffic::{ClientIdentity, TlsClient};

/// One exchange, borrowed for the time of formatting. Bytes are as the client sent them.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// When the exchange ended.
    pub time: SystemTime,
    /// The client; `None` on a unix listener.
    pub remote_addr: Option<IpAddr>,
    /// Empty when the request could not be read.
    pub method: &'a [u8],
    /// Target as sent; empty when the request could not be read.
    pub target: &'a [u8],
    /// Canonical path; empty when there is none.
    pub path: &'a [u8],
    /// Canonical host; empty when there is none.
    pub host: &'a [u8],
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Status sent; 499 (nginx's) when the client left before there was one.
    pub status: u16,
    /// Bytes of the response body sent.
    pub body_bytes_sent: u64,
    /// Bytes of the request body received.
    pub request_body_bytes: u64,
    /// From the first byte of the head to the last byte of the answer.
    pub elapsed: Duration,
    /// Id of the exchange.
    pub request_id: u128,
    /// The last attempt; `None` when we answered without one.
    pub upstream: Option<UpstreamRecord<'a>>,
    /// Name of the site; empty when none was found.
    pub site: &'a str,
    /// Name of the route; empty when none was found.
    pub route: &'a str,
    /// Why we answered ourselves.
    pub reason: Option<&'a str>,
    /// What TLS knows of the client.
    pub certificate: ClientCertificate<'a>,
    /// First value of a request field by its name in lower case.
    pub field: &'a dyn Fn(&str) -> Option<&'a [u8]>,
}

/// What TLS knows of a client.
#[derive(Debug, Clone, Copy)]
pub enum ClientCertificate<'a> {
    /// There is no TLS.
    NoTls,
    /// It has shown no certificate.
    NotShown,
    /// It has shown one that was verified.
    Verified(&'a ClientIdentity),
}

impl<'a> ClientCertificate<'a> {
    /// Of a connection.
    pub fn of(tls: Option<&'a TlsClient>) -> Self {
        match tls.map(|tls| tls.identity.as_deref()) {
            None => Self::NoTls,
            Some(None) => Self::NotShown,
            Some(Some(identity)) => Self::Verified(identity),
        }
    }

    /// Whom it names.
    pub fn identity(self) -> Option<&'a ClientIdentity> {
        match self {
            Self::Verified(identity) => Some(identity),
            Self::NoTls | Self::NotShown => None,
        }
    }

    /// nginx's word for it; empty without TLS.
    pub fn verify(self) -> &'static str {
        match self {
            Self::NoTls => "",
            Self::NotShown => "NONE",
            Self::Verified(_) => "SUCCESS",
        }
    }
}

/// The attempt whose answer the client got.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamRecord<'a> {
    /// Name of the upstream.
    pub name: &'a str,
    /// Address of the endpoint.
    pub address: &'a str,
    /// Status of the endpoint; `None` when it sent none.
    pub status: Option<u16>,
    /// From the start of the attempt to the end of its answer.
    pub response_time: Duration,
    /// Attempts with this one.
    pub tries: u32,
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("status", &self.status)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}
