//! One line of a field section, read at the place where it starts.
//!
//! A line is either wholly there or not there yet. Every fault is decided by a prefix of the line, so that the verdict
//! does not depend on how the bytes were split into reads.

use crate::octet;

/// Why a field line is refused (RFC 9112 section 5).
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldFault {
    /// A line ends in LF alone.
    #[error("line ends in a bare LF: lines end in CRLF")]
    BareLineFeed,
    /// A CR without LF after it.
    #[error("bare CR: lines end in CRLF")]
    BareCarriageReturn,
    /// A line starts with whitespace: a folded line, or space before the first field.
    #[error("line starts with whitespace: folded lines are refused")]
    Folded,
    /// A line starts with its colon.
    #[error("field name is empty")]
    EmptyName,
    /// Whitespace between name and colon, or inside the name.
    #[error("whitespace before the colon of a field")]
    SpaceBeforeColon,
    /// A line without a colon.
    #[error("field line has no colon")]
    MissingColon,
    /// A byte in a name that no token may hold.
    #[error("field name holds a byte that is not allowed: {0:#04x}")]
    NameByte(u8),
    /// An underscore in a request's field name: many applications read it as a hyphen.
    #[error("field name holds an underscore: use a hyphen")]
    Underscore,
    /// A control byte in a value.
    #[error("field value holds a byte that is not allowed: {0:#04x}")]
    ValueByte(u8),
}

/// Whether names may hold underscores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Underscores {
    Refused,
    Allowed,
}

/// A range over the caller's buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Positions fit because a head is bounded by `u32::MAX` bytes before any range is made.
    #[inline]
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes of the range, empty when `buffer` is not the one the range was made over.
    #[inline]
    pub(crate) fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    #[inline]
    pub(crate) fn end(self) -> usize {
        self.end as usize
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// What stood at the place looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// The empty line that ends the section; the next byte after it.
    End(usize),
    /// A field, and where the next line starts.
    Field { name: Span, value: Span, next: usize },
}

/// Reads the line starting at `start`. `None`: the line is not complete yet.
#[inline]
pub(crate) fn read(buffer: &[u8], start: usize, underscores: Underscores) -> Result<Option<Line>, FieldFault> {
    match buffer.get(start) {
        None => return Ok(None),
        Some(b'\r' | b'\n') => return Ok(line_end(buffer, start)?.map(Line::End)),
        Some(b' ' | b'\t') => return Err(FieldFault::Folded),
        Some(_) => {}
    }
    let colon = start + octet::run(&buffer[start..], octet::TOKEN);
    let name = &buffer[start..colon];
    if underscores == Underscores::Refused && name.contains(&b'_') {
        return Err(FieldFault::Underscore);
    }
    match buffer.get(colon) {
        None => return Ok(None),
        Some(b':') if name.is_empty() => return Err(FieldFault::EmptyName),
        Some(b':') => {}
        Some(b' ' | b'\t') => return Err(FieldFault::SpaceBeforeColon),
        Some(b'\r' | b'\n') => return Err(FieldFault::MissingColon),
        Some(&byte) => return Err(FieldFault::NameByte(byte)),
    }
    let rest = colon + 1;
    let stop = rest + octet::value_run(&buffer[rest..]);
    let next = match buffer.get(stop) {
        None => return Ok(None),
        Some(b'\r' | b'\n') => match line_end(buffer, stop)? {
            None => return Ok(None),
            Some(next) => next,
        },
        Some(&byte) => return Err(FieldFault::ValueByte(byte)),
    };
    Ok(Some(Line::Field { name: Span::new(start, colon), value: trimmed(buffer, rest, stop), next }))
}

/// Expects CRLF at `at` and gives the place after it. `None`: more bytes are needed.
#[inline]
pub(crate) fn line_end(buffer: &[u8], at: usize) -> Result<Option<usize>, FieldFault> {
    match (buffer.get(at), buffer.get(at + 1)) {
        (Some(b'\n'), _) => Err(FieldFault::BareLineFeed),
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (Some(b'\r'), None) | (None, _) => Ok(None),
        _ => Err(FieldFault::BareCarriageReturn),
    }
}

#[inline]
fn trimmed(buffer: &[u8], mut start: usize, mut end: usize) -> Span {
    while start < end && matches!(buffer[start], b' ' | b'\t') {
        start += 1;
    }
    while start < end && matches!(buffer[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    Span::new(start, end)
}
