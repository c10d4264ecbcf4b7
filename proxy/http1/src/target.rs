//! The request target (RFC 9112 section 3.2), in three of its four forms: the fourth belongs to CONNECT.

use crate::host;
use crate::line::Span;

/// Where the parts of a target are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Target {
    pub(crate) whole: Span,
    /// The authority of an absolute target.
    pub(crate) authority: Option<Span>,
    pub(crate) path: Path,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Path {
    /// Path and query, as sent.
    Sent(Span),
    /// An absolute target without a path, which stands for `/`.
    #[default]
    Root,
    /// `*`, or an absolute target without a path in an OPTIONS request.
    Asterisk,
}

/// Which rule a target breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetFault {
    Form,
    Authority,
    Asterisk,
}

impl Target {
    /// Takes the target at `whole` apart; its bytes are already known to be allowed ones.
    #[inline]
    pub(crate) fn read(buffer: &[u8], whole: Span, method: &[u8]) -> Result<Self, TargetFault> {
        match whole.of(buffer) {
            [b'/', ..] => Ok(Self { whole, authority: None, path: Path::Sent(whole) }),
            b"*" if method == b"OPTIONS" => Ok(Self { whole, authority: None, path: Path::Asterisk }),
            b"*" => Err(TargetFault::Asterisk),
            target => Self::absolute(target, whole, buffer, method),
        }
    }

    #[cold]
    fn absolute(target: &[u8], whole: Span, buffer: &[u8], method: &[u8]) -> Result<Self, TargetFault> {
        let scheme = scheme_length(target).ok_or(TargetFault::Form)?;
        let start = whole.start() + scheme;
        let rest = &buffer[start..whole.end()];
        let length = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        if !host::is_valid(&rest[..length]) {
            return Err(TargetFault::Authority);
        }
        let path = match rest.get(length) {
            Some(b'/') => Path::Sent(Span::new(start + length, whole.end())),
            // A query without a path has no spelling in origin form without inserting a byte.
            Some(_) => return Err(TargetFault::Form),
            None if method == b"OPTIONS" => Path::Asterisk,
            None => Path::Root,
        };
        Ok(Self { whole, authority: Some(Span::new(start, start + length)), path })
    }
}

fn scheme_length(target: &[u8]) -> Option<usize> {
    [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(<[u8]>::len)
}
