//! Why a request head is refused, one variant per rule, each with its status.

use crate::connection::{ConnectionFault, MOST_OPTIONS};
use crate::framing::FramingFault;
use crate::line::FieldFault;
use crate::target::TargetFault;

/// Why a request head is refused. Answer with [`status`](Self::status) and close: what follows on the connection
/// cannot be told apart any more.
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// The head is larger than [`HeadLimits::bytes`](crate::HeadLimits::bytes).
    #[error("request head is too large")]
    HeadTooLarge,
    /// More fields than [`HeadLimits::fields`](crate::HeadLimits::fields).
    #[error("request has too many fields")]
    TooManyFields,
    /// The target is longer than [`HeadLimits::target`](crate::HeadLimits::target).
    #[error("request target is too long")]
    TargetTooLong,
    /// More than one empty line, or a bare LF, before the request line.
    #[error("empty lines before the request line")]
    LeadingEmptyLine,
    /// The method is not a token followed by one space.
    #[error("method is malformed")]
    Method,
    /// A method of more than 32 bytes.
    #[error("method is longer than any known one")]
    MethodTooLong,
    /// CONNECT or TRACE.
    #[error("method is not allowed: CONNECT and TRACE are refused")]
    MethodNotAllowed,
    /// Not three parts with one space between: a missing version (HTTP/0.9), a doubled space.
    #[error("request line is not: method, target and version with one space between")]
    RequestLine,
    /// A byte in the target that no target may hold.
    #[error("request target holds a byte that is not allowed: {0:#04x}")]
    TargetByte(u8),
    /// Neither a path nor an absolute http or https URI with a path.
    #[error("request target is neither a path nor an absolute http uri")]
    TargetForm,
    /// `*` with a method other than OPTIONS.
    #[error("request target \"*\" outside an OPTIONS request")]
    TargetAsterisk,
    /// The authority of an absolute target is not a host with an optional port.
    #[error("request target names an invalid authority")]
    TargetAuthority,
    /// Not `HTTP/` digit `.` digit at the end of the line.
    #[error("version is malformed")]
    Version,
    /// A version other than 1.0 and 1.1.
    #[error("version is not supported: only HTTP/1.0 and HTTP/1.1 are spoken here")]
    VersionNotSupported,
    /// The client speaks HTTP/2 without having negotiated it.
    #[error("http/2 preface on an HTTP/1 connection")]
    Http2Preface,
    /// No Host field in an HTTP/1.1 request.
    #[error("host field is missing")]
    MissingHost,
    /// More than one Host field.
    #[error("more than one host field")]
    RepeatedHost,
    /// The Host field is empty or not a host with an optional port.
    #[error("host field is invalid")]
    Host,
    /// The target is absolute and names another host than the Host field.
    #[error("host field differs from the authority of the target")]
    HostMismatch,
    /// The Connection field is not a list of tokens.
    #[error("connection field is not a list of names")]
    Connection,
    /// The Connection field nominates a field that is end-to-end by nature.
    #[error("connection field nominates a protected field")]
    ProtectedNomination,
    /// The Connection fields list too many options.
    #[error("connection field lists more than {MOST_OPTIONS} options")]
    TooManyOptions,
    /// An expectation other than `100-continue`.
    #[error("expectation is not \"100-continue\"")]
    Expectation,
    /// A malformed field line.
    #[error(transparent)]
    Field(#[from] FieldFault),
    /// Ambiguous or unknown body framing.
    #[error(transparent)]
    Framing(#[from] FramingFault),
}

impl RequestError {
    /// The status to answer with.
    pub fn status(&self) -> u16 {
        match self {
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::TargetTooLong => 414,
            Self::MethodTooLong | Self::Framing(FramingFault::UnknownCoding) => 501,
            Self::MethodNotAllowed => 405,
            Self::VersionNotSupported | Self::Http2Preface => 505,
            Self::Expectation => 417,
            _ => 400,
        }
    }
}

impl From<TargetFault> for RequestError {
    fn from(fault: TargetFault) -> Self {
        match fault {
            TargetFault::Form => Self::TargetForm,
            TargetFault::Authority => Self::TargetAuthority,
            TargetFault::Asterisk => Self::TargetAsterisk,
        }
    }
}

impl From<ConnectionFault> for RequestError {
    fn from(fault: ConnectionFault) -> Self {
        match fault {
            ConnectionFault::NotAList => Self::Connection,
            ConnectionFault::Protected => Self::ProtectedNomination,
            ConnectionFault::TooMany => Self::TooManyOptions,
        }
    }
}
