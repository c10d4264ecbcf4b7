//! Where a body ends: the fields that say so, and what they may not say (RFC 9112 section 6).

use crate::{Version, octet};

/// How a request body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body was announced.
    None,
    /// So many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
}

/// How a response body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFraming {
    /// The response has no body, whatever its fields say.
    None,
    /// So many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Everything until the peer closes.
    UntilClose,
}

impl From<BodyFraming> for ResponseFraming {
    fn from(framing: BodyFraming) -> Self {
        match framing {
            BodyFraming::None => Self::None,
            BodyFraming::Length(length) => Self::Length(length),
            BodyFraming::Chunked => Self::Chunked,
        }
    }
}

/// Why the framing fields of a head are refused.
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingFault {
    /// Not a plain decimal number below 2^64 without leading zeros.
    #[error("content-length is not a plain number")]
    ContentLength,
    /// A second Content-Length, identical or not.
    #[error("more than one content-length")]
    RepeatedContentLength,
    /// A second Transfer-Encoding line.
    #[error("more than one transfer-encoding")]
    RepeatedTransferEncoding,
    /// Both ways to say where the body ends.
    #[error("content-length together with transfer-encoding")]
    LengthAndEncoding,
    /// HTTP/1.0 has no transfer codings.
    #[error("transfer-encoding in an HTTP/1.0 message")]
    EncodingInHttp10,
    /// Not a list of codings, or `chunked` in the wrong place.
    #[error("transfer-encoding is malformed: only \"chunked\" is accepted")]
    TransferEncoding,
    /// A coding other than `chunked`.
    #[error("transfer-encoding names a coding other than \"chunked\"")]
    UnknownCoding,
}

/// The framing fields seen so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FramingFields {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
}

impl FramingFields {
    pub(crate) fn content_length(&mut self, value: &[u8]) -> Result<(), FramingFault> {
        if self.length.is_some() {
            return Err(FramingFault::RepeatedContentLength);
        }
        if self.chunked {
            return Err(FramingFault::LengthAndEncoding);
        }
        self.length = Some(decimal(value).ok_or(FramingFault::ContentLength)?);
        Ok(())
    }

    pub(crate) fn transfer_encoding(&mut self, value: &[u8], version: Version) -> Result<(), FramingFault> {
        if version == Version::Http10 {
            return Err(FramingFault::EncodingInHttp10);
        }
        if self.chunked {
            return Err(FramingFault::RepeatedTransferEncoding);
        }
        if self.length.is_some() {
            return Err(FramingFault::LengthAndEncoding);
        }
        if !is_chunked(value) {
            return Err(coding_fault(value));
        }
        self.chunked = true;
        Ok(())
    }
}

fn is_chunked(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"chunked")
}

/// Tells a coding we do not speak from a list nobody should send.
fn coding_fault(value: &[u8]) -> FramingFault {
    let mut codings = value.split(|&byte| byte == b',').map(octet::trim).peekable();
    while let Some(coding) = codings.next() {
        let is_last = codings.peek().is_none();
        if !octet::is_token(coding) || (is_chunked(coding) && !is_last) {
            return FramingFault::TransferEncoding;
        }
    }
    FramingFault::UnknownCoding
}

/// A decimal number in its one canonical spelling: digits only, no leading zero, below 2^64.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    match digits {
        [] | [b'0', _, ..] => None,
        _ => digits.iter().try_fold(0u64, |sum, &byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            sum.checked_mul(10)?.checked_add(digit)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_has_one_spelling() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "00", "01", "+1", "-1", "-0", "0x1", "1_0", "1 0", "18446744073709551616", "1,1", "1.0"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
