//! Writing heads.

use bytes::BytesMut;

use crate::field::{Field, Name};
use crate::framing::ResponseFraming;
use crate::{canonical_reason, octet};

/// A buffer that grows: what heads and framing are written to.
pub trait Output {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);
}

impl Output for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Output for BytesMut {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A field that would break the head it is written to.
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadField {
    /// The name is not a token.
    #[error("field name is not a token")]
    Name,
    /// The value holds CR, LF, NUL or another control byte.
    #[error("field value holds a control byte")]
    Value,
    /// The field delimits the body, which is written with the framing alone.
    #[error("field is part of the framing")]
    Framing,
}

/// Appends one head to a buffer: a first line, fields, the framing, the end. In that order, which is up to the caller.
///
/// Names and values are taken as they are by [`field`](Self::field) (checked in debug builds), so what comes from a
/// client, a variable or a file goes through [`try_field`](Self::try_field).
#[derive(Debug)]
pub struct HeadWriter<'o, O> {
    out: &'o mut O,
}

impl<'o, O: Output> HeadWriter<'o, O> {
    /// Appends to `out`.
    #[inline]
    pub fn new(out: &'o mut O) -> Self {
        Self { out }
    }

    /// `GET /path HTTP/1.1`.
    #[inline]
    pub fn request_line(&mut self, method: &str, target: &str) -> &mut Self {
        debug_assert!(octet::is_token(method.as_bytes()), "method: {method:?}");
        debug_assert!(octet::run(target.as_bytes(), octet::TARGET) == target.len(), "target: {target:?}");
        self.put(&[method.as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"])
    }

    /// `HTTP/1.1 200 OK`, with the registered reason. `status` has three digits.
    #[inline]
    pub fn status_line(&mut self, status: u16) -> &mut Self {
        match status {
            200 => self.put(&[b"HTTP/1.1 200 OK\r\n"]),
            _ => self.status_line_with(status, canonical_reason(status).as_bytes()),
        }
    }

    /// A status line with a reason of its own.
    pub fn status_line_with(&mut self, status: u16, reason: &[u8]) -> &mut Self {
        debug_assert!((100..1000).contains(&status), "status: {status}");
        debug_assert!(is_value(reason), "reason: {reason:?}");
        let digit = |place: u16| b'0' + (status / place % 10) as u8;
        self.put(&[b"HTTP/1.1 ", &[digit(100), digit(10), digit(1), b' '], reason, b"\r\n"])
    }

    /// A field whose name and value are known to be sound: our own, or from a parsed head.
    #[inline]
    pub fn field(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        let (name, value) = (name.as_ref(), value.as_ref());
        debug_assert_eq!(check(name, value), Ok(()), "{:?}: {:?}", octet::text(name), octet::text(value));
        self.put(&[name, b": ", value, b"\r\n"])
    }

    /// A field with a number for its value.
    pub fn number_field(&mut self, name: &str, value: u64) -> &mut Self {
        debug_assert_eq!(check(name.as_bytes(), b""), Ok(()), "{name:?}");
        self.put(&[name.as_bytes(), b": "]);
        put_decimal(self.out, value);
        self.put(&[b"\r\n"])
    }

    /// A field from outside: refused, with nothing written, when it would change the structure of the head.
    pub fn try_field(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<&mut Self, BadField> {
        check(name.as_ref(), value.as_ref())?;
        Ok(self.put(&[name.as_ref(), b": ", value.as_ref(), b"\r\n"]))
    }

    /// A field of a parsed head, in one copy where the line was plain.
    #[inline]
    pub fn forward(&mut self, field: &Field<'_>) -> &mut Self {
        match field.line {
            Some(line) => self.put(&[line]),
            None => self.put(&[field.name, b": ", field.value, b"\r\n"]),
        }
    }

    /// The field that delimits the body: Content-Length, `Transfer-Encoding: chunked`, or nothing.
    #[inline]
    pub fn framing(&mut self, framing: impl Into<ResponseFraming>) -> &mut Self {
        match framing.into() {
            ResponseFraming::None | ResponseFraming::UntilClose => self,
            ResponseFraming::Chunked => self.put(&[b"Transfer-Encoding: chunked\r\n"]),
            ResponseFraming::Length(length) => {
                self.put(&[b"Content-Length: "]);
                put_decimal(self.out, length);
                self.put(&[b"\r\n"])
            }
        }
    }

    /// The empty line at the end.
    #[inline]
    pub fn end(&mut self) {
        self.put(&[b"\r\n"]);
    }

    #[inline]
    fn put(&mut self, parts: &[&[u8]]) -> &mut Self {
        for part in parts {
            self.out.put(part);
        }
        self
    }
}

fn check(name: &[u8], value: &[u8]) -> Result<(), BadField> {
    if !octet::is_token(name) {
        return Err(BadField::Name);
    }
    if matches!(Name::of(name), Name::ContentLength | Name::TransferEncoding) {
        return Err(BadField::Framing);
    }
    if is_value(value) { Ok(()) } else { Err(BadField::Value) }
}

fn is_value(value: &[u8]) -> bool {
    octet::value_run(value) == value.len()
}

/// Appends `number` in decimal.
fn put_decimal(out: &mut impl Output, number: u64) {
    put_digits(out, number, 10);
}

/// Appends `number` in lower case hexadecimal.
pub(crate) fn put_hexadecimal(out: &mut impl Output, number: u64) {
    put_digits(out, number, 16);
}

#[inline(always)]
fn put_digits(out: &mut impl Output, mut number: u64, base: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b"0123456789abcdef"[(number % base) as usize];
        number /= base;
        if number == 0 {
            break;
        }
    }
    out.put(&digits[start..]);
}
