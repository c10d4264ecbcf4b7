//! The `Connection` field: what the peer wants of this hop, and which fields it calls hop-by-hop (RFC 9110 7.6.1).

use crate::field::Name;
use crate::octet;

/// Options one head may list. Each one that names a field is looked for among all fields.
pub(crate) const MOST_OPTIONS: u8 = 10;

/// What the `Connection` fields of one head add up to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// An option names other fields.
    pub(crate) nominates: bool,
    options: u8,
}

/// Why a `Connection` field is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionFault {
    NotAList,
    Protected,
    TooMany,
}

/// Whether nominating a protected field is a fault (requests) or has no effect (responses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protected {
    Fault,
    Ignored,
}

impl ConnectionOptions {
    /// Adds the options of one `Connection` line.
    #[inline]
    pub(crate) fn add(&mut self, value: &[u8], protected: Protected) -> Result<(), ConnectionFault> {
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
            return Ok(());
        }
        elements(value).try_for_each(|option| self.add_option(option, protected))
    }

    fn add_option(&mut self, option: &[u8], protected: Protected) -> Result<(), ConnectionFault> {
        if self.options == MOST_OPTIONS {
            return Err(ConnectionFault::TooMany);
        }
        self.options += 1;
        if option.eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if !octet::is_token(option) {
            return Err(ConnectionFault::NotAList);
        } else if is_protected(option) {
            return if protected == Protected::Fault { Err(ConnectionFault::Protected) } else { Ok(()) };
        } else {
            self.nominates = true;
        }
        Ok(())
    }
}

/// The non-empty elements of a comma separated list.
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(octet::trim).filter(|element| !element.is_empty())
}

/// Fields that carry framing, identity or credentials: dropping one at the sender's wish would let a client undo what
/// this or an earlier hop says about it.
pub(crate) fn is_protected(name: &[u8]) -> bool {
    match Name::of(name) {
        Name::Host | Name::ContentLength | Name::TransferEncoding | Name::Forwarding | Name::Expect => true,
        Name::WebSocketKey | Name::WebSocketVersion => true,
        Name::Connection | Name::HopByHop | Name::Upgrade => false,
        Name::Other => PROTECTED.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())),
    }
}

const PROTECTED: [&str; 17] = [
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "location",
    "origin",
    "range",
    "server",
    "set-cookie",
    "traceparent",
    "tracestate",
    "vary",
    "via",
    "x-request-id",
];
