//! The chunked coding, byte by byte except for data (RFC 9112 section 7.1).

use crate::octet;

/// Most digits of a chunk size: all that fit 64 bits.
const LONGEST_SIZE: u8 = 16;
/// Most bytes of chunk extensions in one body. They mean nothing to anyone; what they are good for is making a proxy
/// and an application disagree, and hiding work.
const MOST_EXTENSION_BYTES: u32 = 4 * 1024;
/// Most bytes of the trailer section.
const MOST_TRAILER_BYTES: u32 = 8 * 1024;
/// Most trailer fields.
const MOST_TRAILERS: u8 = 32;

/// Why a chunked body is refused. The connection it came from is of no more use.
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk size that is not 1 to 16 hexadecimal digits.
    #[error("chunk size is malformed")]
    ChunkSize,
    /// A chunk size line that does not end in CRLF.
    #[error("chunk size line does not end in CRLF")]
    ChunkLineEnd,
    /// A chunk extension that is not `;name`, `;name=token` or `;name="text"`.
    #[error("chunk extension is malformed")]
    ChunkExtension,
    /// Too many bytes of chunk extensions.
    #[error("chunk extensions are too long")]
    ExtensionsTooLong,
    /// Chunk data not followed by CRLF.
    #[error("chunk data is not followed by CRLF")]
    ChunkEnd,
    /// A malformed trailer line.
    #[error("trailer is malformed")]
    Trailer,
    /// Too many trailers, or too many bytes of them.
    #[error("trailers are too large")]
    TrailersTooLarge,
}

impl BodyError {
    /// The status to answer with when the body is a request's.
    pub fn status(&self) -> u16 {
        match self {
            Self::TrailersTooLarge => 431,
            _ => 400,
        }
    }
}

/// Where in the coding the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Size {
        digits: u8,
    },
    /// Whitespace after the size or an extension: only `;` may follow.
    BeforeSemicolon,
    ExtensionStart,
    ExtensionName,
    /// Whitespace after an extension's name: `=` or `;` may follow.
    AfterName,
    ValueStart,
    ValueToken,
    ValueQuoted,
    ValueEscape,
    ValueClosed,
    SizeLineFeed,
    Data,
    DataCarriageReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

/// What the coding wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another byte of framing.
    Framing,
    /// So many bytes of data.
    Data(u64),
    /// Nothing: the body is complete.
    Nothing,
}

/// State of one chunked body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunked {
    place: Place,
    /// Size being read, then bytes of data still to come.
    size: u64,
    extension_bytes: u32,
    trailer_bytes: u32,
    trailers: u8,
}

impl Chunked {
    pub(crate) fn new() -> Self {
        Self { place: Place::Size { digits: 0 }, size: 0, extension_bytes: 0, trailer_bytes: 0, trailers: 0 }
    }

    #[inline]
    pub(crate) fn next(&self) -> Next {
        match self.place {
            Place::Data => Next::Data(self.size),
            Place::Done => Next::Nothing,
            _ => Next::Framing,
        }
    }

    /// Takes `length` bytes of data, at most as many as [`Next::Data`] said.
    #[inline]
    pub(crate) fn take_data(&mut self, length: u64) {
        self.size = self.size.saturating_sub(length);
        if self.size == 0 {
            self.place = Place::DataCarriageReturn;
        }
    }

    /// Takes one byte of framing.
    #[inline]
    pub(crate) fn take_framing(&mut self, byte: u8) -> Result<(), BodyError> {
        self.place = match self.place {
            Place::Size { digits } => self.size_byte(digits, byte)?,
            Place::SizeLineFeed => expect(byte, b'\n', self.after_size(), BodyError::ChunkLineEnd)?,
            Place::DataCarriageReturn => expect(byte, b'\r', Place::DataLineFeed, BodyError::ChunkEnd)?,
            Place::DataLineFeed => expect(byte, b'\n', Place::Size { digits: 0 }, BodyError::ChunkEnd)?,
            Place::TrailerStart
            | Place::TrailerName
            | Place::TrailerValue
            | Place::TrailerLineFeed
            | Place::LastLineFeed => self.trailer_byte(byte)?,
            Place::Data | Place::Done => self.place,
            _ => self.extension_byte(byte)?,
        };
        Ok(())
    }

    fn size_byte(&mut self, digits: u8, byte: u8) -> Result<Place, BodyError> {
        match (byte, char::from(byte).to_digit(16)) {
            (_, Some(digit)) if digits < LONGEST_SIZE => {
                self.size = self.size << 4 | u64::from(digit);
                Ok(Place::Size { digits: digits + 1 })
            }
            (b'\r', _) if digits > 0 => Ok(Place::SizeLineFeed),
            (b'\n', _) if digits > 0 => Err(BodyError::ChunkLineEnd),
            (b';' | b' ' | b'\t', _) if digits > 0 => {
                self.place = Place::BeforeSemicolon;
                self.extension_byte(byte)
            }
            _ => Err(BodyError::ChunkSize),
        }
    }

    fn after_size(&self) -> Place {
        if self.size == 0 { Place::TrailerStart } else { Place::Data }
    }

    fn extension_byte(&mut self, byte: u8) -> Result<Place, BodyError> {
        self.extension_bytes += 1;
        if self.extension_bytes > MOST_EXTENSION_BYTES {
            return Err(BodyError::ExtensionsTooLong);
        }
        let is_token = octet::is(byte, octet::TOKEN);
        match (self.place, byte) {
            (Place::ValueQuoted, b'"') => Ok(Place::ValueClosed),
            (Place::ValueQuoted, b'\\') => Ok(Place::ValueEscape),
            (Place::ValueQuoted | Place::ValueEscape, _) if octet::is(byte, octet::VALUE) => Ok(Place::ValueQuoted),
            (Place::ExtensionStart | Place::ExtensionName, _) if is_token => Ok(Place::ExtensionName),
            (Place::ValueStart | Place::ValueToken, _) if is_token => Ok(Place::ValueToken),
            (Place::ValueStart, b'"') => Ok(Place::ValueQuoted),
            (Place::ExtensionName | Place::AfterName, b'=') => Ok(Place::ValueStart),
            (Place::ExtensionStart | Place::ValueStart | Place::AfterName, b' ' | b'\t') => Ok(self.place),
            (Place::ExtensionName, b' ' | b'\t') => Ok(Place::AfterName),
            (Place::BeforeSemicolon | Place::ValueToken | Place::ValueClosed, b' ' | b'\t') => {
                Ok(Place::BeforeSemicolon)
            }
            (
                Place::BeforeSemicolon
                | Place::AfterName
                | Place::ExtensionName
                | Place::ValueToken
                | Place::ValueClosed,
                b';',
            ) => Ok(Place::ExtensionStart),
            (Place::ExtensionName | Place::ValueToken | Place::ValueClosed, b'\r') => Ok(Place::SizeLineFeed),
            (_, b'\r' | b'\n') => Err(BodyError::ChunkLineEnd),
            _ => Err(BodyError::ChunkExtension),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<Place, BodyError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MOST_TRAILER_BYTES {
            return Err(BodyError::TrailersTooLarge);
        }
        match (self.place, byte) {
            (Place::TrailerStart, b'\r') => Ok(Place::LastLineFeed),
            (Place::TrailerStart, _) if octet::is(byte, octet::TOKEN) => {
                self.trailers += 1;
                if self.trailers > MOST_TRAILERS { Err(BodyError::TrailersTooLarge) } else { Ok(Place::TrailerName) }
            }
            (Place::TrailerName, _) if octet::is(byte, octet::TOKEN) => Ok(Place::TrailerName),
            (Place::TrailerName, b':') => Ok(Place::TrailerValue),
            (Place::TrailerValue, _) if octet::is(byte, octet::VALUE) => Ok(Place::TrailerValue),
            (Place::TrailerValue, b'\r') => Ok(Place::TrailerLineFeed),
            (Place::TrailerLineFeed, b'\n') => Ok(Place::TrailerStart),
            (Place::LastLineFeed, b'\n') => Ok(Place::Done),
            _ => Err(BodyError::Trailer),
        }
    }
}

fn expect(byte: u8, wanted: u8, place: Place, fault: BodyError) -> Result<Place, BodyError> {
    if byte == wanted { Ok(place) } else { Err(fault) }
}
