//! One line of a field section, read at the place where it starts.
//!
//! A line that is not wholly there is taken up again where its bytes ended, so that each byte is looked at once,
//! however small the pieces. Every fault is decided by a prefix of the line: the verdict does not depend on how the
//! bytes were split into reads.

use crate::{ParsePolicy, octet};

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
    /// Such a line is read and forgotten.
    Dropped,
    Allowed,
}

impl Underscores {
    #[inline]
    fn name_class(self) -> u8 {
        match self {
            Self::Refused => octet::TOKEN_WITHOUT_UNDERSCORE,
            Self::Dropped | Self::Allowed => octet::TOKEN,
        }
    }
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

/// How far an incomplete line was read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// Where the line starts.
    pub(crate) start: usize,
    /// Where its colon is, once found.
    colon: Option<usize>,
    /// Up to where its bytes are known to be good.
    pub(crate) checked: usize,
}

impl Progress {
    /// Nothing read of the line at `start`.
    #[inline]
    pub(crate) fn at(start: usize) -> Self {
        Self { start, colon: None, checked: start }
    }
}

/// What stood at the place looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Line {
    /// Not complete; where to go on.
    Incomplete(Progress),
    /// The empty line that ends the section; the next byte after it.
    End(usize),
    /// A field, and where the next line starts.
    Field { name: Span, value: Span, next: usize },
}

/// Reads the line `progress` stands in. `LENIENT`: it may end in LF alone.
#[inline]
pub(crate) fn read<const LENIENT: bool>(
    buffer: &[u8],
    progress: Progress,
    underscores: Underscores,
) -> Result<Line, FieldFault> {
    let start = progress.start;
    let colon = match progress.colon {
        Some(colon) => colon,
        None => match buffer.get(start) {
            None => return Ok(Line::Incomplete(progress)),
            Some(b'\r' | b'\n') => {
                return Ok(line_end::<LENIENT>(buffer, start)?.map_or(Line::Incomplete(progress), Line::End));
            }
            Some(b' ' | b'\t') => return Err(FieldFault::Folded),
            Some(_) => {
                let end = progress.checked + octet::run(&buffer[progress.checked..], underscores.name_class());
                match buffer.get(end) {
                    None => return Ok(Line::Incomplete(Progress { checked: end, ..progress })),
                    Some(b':') if end > start => end,
                    Some(&byte) => return Err(name_fault(byte)),
                }
            }
        },
    };
    let from = progress.checked.max(colon + 1);
    let stop = from + octet::value_run(&buffer[from..]);
    let incomplete = Line::Incomplete(Progress { start, colon: Some(colon), checked: stop });
    match buffer.get(stop) {
        None => Ok(incomplete),
        Some(b'\r' | b'\n') => Ok(line_end::<LENIENT>(buffer, stop)?.map_or(incomplete, |next| Line::Field {
            name: Span::new(start, colon),
            value: trimmed(buffer, colon + 1, stop),
            next,
        })),
        Some(&byte) => Err(FieldFault::ValueByte(byte)),
    }
}

/// Holds a field that came by another protocol to what a line of HTTP/1 may hold, since that is what it may be
/// forwarded as. `false`: under this policy the field is to be forgotten. Spaces around a value, which belong to a line and
/// not to a field (RFC 9113 section 8.2.1), are refused.
pub fn admit_field(name: &[u8], value: &[u8], policy: ParsePolicy) -> Result<bool, FieldFault> {
    let underscores = match policy {
        ParsePolicy::Strict => Underscores::Refused,
        ParsePolicy::Lenient => Underscores::Dropped,
    };
    match name.get(octet::run(name, underscores.name_class())) {
        Some(&byte) => return Err(name_fault(byte)),
        None if name.is_empty() => return Err(FieldFault::EmptyName),
        None => {}
    }
    let edges = [value.first(), value.last()];
    if let Some(byte) = edges.into_iter().flatten().find(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(FieldFault::ValueByte(*byte));
    }
    match value.get(octet::value_run(value)) {
        Some(&byte) => Err(FieldFault::ValueByte(byte)),
        None => Ok(!underscores.drop(name)?),
    }
}

/// What `byte` means where a name ended without a colon, or a line started with one.
#[cold]
fn name_fault(byte: u8) -> FieldFault {
    match byte {
        b':' => FieldFault::EmptyName,
        b'_' => FieldFault::Underscore,
        b' ' | b'\t' => FieldFault::SpaceBeforeColon,
        b'\r' | b'\n' => FieldFault::MissingColon,
        _ => FieldFault::NameByte(byte),
    }
}

/// Expects CRLF at `at`, or with `LENIENT` LF alone, and gives the place after it. `None`: more bytes are needed.
#[inline]
pub(crate) fn line_end<const LENIENT: bool>(buffer: &[u8], at: usize) -> Result<Option<usize>, FieldFault> {
    match (buffer.get(at), buffer.get(at + 1)) {
        (Some(b'\n'), _) if LENIENT => Ok(Some(at + 1)),
        (Some(b'\n'), _) => Err(FieldFault::BareLineFeed),
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (Some(b'\r'), None) | (None, _) => Ok(None),
        _ => Err(FieldFault::BareCarriageReturn),
    }
}

/// Whether the line at `at` is a field, so not the empty line that ends the section.
#[inline]
pub(crate) fn is_field<const LENIENT: bool>(buffer: &[u8], at: usize) -> bool {
    buffer.get(at).is_some_and(|&byte| byte != b'\r' && (!LENIENT || byte != b'\n'))
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
