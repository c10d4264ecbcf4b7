//! The one canonical form of a request target.
//!
//! Routes are matched on it and, unless a route says otherwise, it is what an endpoint sees: what was matched is
//! what is forwarded. In the canonical path duplicate slashes are merged, dot segments are resolved, every byte
//! that a path segment may hold as it is (RFC 3986 `pchar`, but `;` stays as sent) is unescaped, every other byte
//! is escaped in upper case. It is decoded once: `%252e` stays `%252e`. A path that is already canonical is borrowed.
//!
//! Unescaping goes beyond RFC 3986's unreserved characters on purpose: applications unescape everything, so
//! `/%40admin` has to meet the route for `/@admin`. What an application could read in two ways is refused: an
//! escaped slash or backslash, control bytes, bytes that are not UTF-8, `..;` (path parameters on a dot segment).

use std::borrow::Cow;

use crate::refusal::Refusal;

/// A checked request target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    raw: &'a str,
    path: Cow<'a, str>,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Reads a target in origin form (`/path?query`) or the asterisk form. Absolute and authority forms are taken
    /// apart by the codec.
    pub fn parse(raw: &'a str) -> Result<Self, Refusal> {
        if raw == "*" {
            return Ok(Self { raw, path: Cow::Borrowed(raw), query: None });
        }
        let (path, query) = match raw.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (raw, None),
        };
        if !path.starts_with('/') {
            return Err(bad("does not begin with a slash", raw));
        }
        if query.is_some_and(|query| !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')) {
            return Err(bad("byte that no query has", raw));
        }
        let path = canonical_path(path).map_err(|problem| bad(problem, raw))?;
        Ok(Self { raw, path, query })
    }

    /// The canonical path, or `*`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows the first `?`, as sent; `Some("")` when nothing follows.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// As sent.
    #[must_use]
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// Whether it is `*` (RFC 9112 section 3.2.4).
    #[must_use]
    pub fn is_asterisk(&self) -> bool {
        self.raw == "*"
    }

    /// Canonical path and query, as forwarded; borrowed when that is what was sent.
    #[must_use]
    pub fn canonical(&self) -> Cow<'a, str> {
        match (&self.path, self.query) {
            (Cow::Borrowed(_), _) => Cow::Borrowed(self.raw),
            (Cow::Owned(path), None) => Cow::Owned(path.clone()),
            (Cow::Owned(path), Some(query)) => Cow::Owned([path, "?", query].concat()),
        }
    }
}

/// The canonical form of a path in the site file, where bytes that need escapes may stand as they are.
pub(crate) fn canonical_pattern(pattern: &str) -> String {
    let mut escaped = String::with_capacity(pattern.len());
    for byte in pattern.bytes() {
        match CLASS[usize::from(byte)] {
            Class::Plain | Class::Slash | Class::Percent => escaped.push(char::from(byte)),
            Class::Escaped | Class::Refused => push_escape(&mut escaped, byte),
        }
    }
    match canonical_path(&escaped) {
        Ok(path) => path.into_owned(),
        // No request can have such a path, so the route is never matched.
        Err(_) => pattern.to_owned(),
    }
}

/// What a byte of a path is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stands for itself: `pchar` without escapes.
    Plain,
    Slash,
    Percent,
    /// Sent as it is by browsers, but to be escaped: `[ ] ^ ` { | }`.
    Escaped,
    /// Controls, space, non-ASCII, backslash, quotation mark, angle brackets, `#` and `?`.
    Refused,
}

const CLASS: [Class; 256] = {
    let mut table = [Class::Refused; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => Class::Plain,
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Escaped,
            _ => Class::Refused,
        };
        byte += 1;
    }
    table
};

fn canonical_path(path: &str) -> Result<Cow<'_, str>, &'static str> {
    if is_canonical(path.as_bytes())? {
        return Ok(Cow::Borrowed(path));
    }
    let unescaped = normalise_escapes(path.as_bytes())?;
    let canonical = resolve_segments(&unescaped)?;
    Ok(if canonical == path { Cow::Borrowed(path) } else { Cow::Owned(canonical) })
}

/// Quick look over the common case. `false` means: look closer.
fn is_canonical(path: &[u8]) -> Result<bool, &'static str> {
    let mut plain = true;
    for (index, byte) in path.iter().enumerate() {
        match CLASS[usize::from(*byte)] {
            Class::Plain => {}
            Class::Slash => {
                plain &= !matches!(path.get(index + 1), Some(b'/')) && !starts_with_dots(&path[index + 1..])
            }
            Class::Percent | Class::Escaped => plain = false,
            Class::Refused => return Err("byte that no path has"),
        }
    }
    Ok(plain)
}

/// Whether the segment is `.` or `..`, perhaps with parameters.
fn starts_with_dots(rest: &[u8]) -> bool {
    let after = match rest {
        [b'.', b'.', after @ ..] | [b'.', after @ ..] => after,
        _ => return false,
    };
    matches!(after.first(), None | Some(b'/' | b';'))
}

fn normalise_escapes(path: &[u8]) -> Result<String, &'static str> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let literal = match CLASS[usize::from(byte)] {
            Class::Percent => {
                let (escaped, after) = read_escape(after)?;
                rest = after;
                push_normalised(&mut out, escaped)?;
                escaped
            }
            Class::Escaped => {
                push_escape(&mut out, byte);
                byte
            }
            _ => {
                out.push(char::from(byte));
                byte
            }
        };
        decoded.push(literal);
    }
    std::str::from_utf8(&decoded).map_err(|_| "escapes that are not utf-8")?;
    Ok(out)
}

fn read_escape(after_percent: &[u8]) -> Result<(u8, &[u8]), &'static str> {
    match after_percent {
        [high, low, rest @ ..] => {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
            match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => Ok((high << 4 | low, rest)),
                _ => Err("bad escape"),
            }
        }
        _ => Err("cut escape"),
    }
}

fn push_normalised(out: &mut String, byte: u8) -> Result<(), &'static str> {
    match byte {
        b'/' | b'\\' => return Err("escaped slash or backslash"),
        0..=0x1f | 0x7f => return Err("escaped control byte"),
        // Escaped, it is data; as it is, it begins parameters.
        b';' => push_escape(out, byte),
        _ if CLASS[usize::from(byte)] == Class::Plain => out.push(char::from(byte)),
        _ => push_escape(out, byte),
    }
    Ok(())
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Merges slashes first, as nginx does, then resolves dot segments.
fn resolve_segments(path: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(path.len());
    let mut open = true;
    for segment in path.split('/') {
        open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => match out.rfind('/') {
                Some(cut) => out.truncate(cut),
                None => return Err("above the root"),
            },
            _ if has_dots_with_parameters(segment) => return Err("parameters on a dot segment"),
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if open {
        out.push('/');
    }
    Ok(out)
}

fn has_dots_with_parameters(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('.') else { return false };
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    rest.starts_with(';') || rest.starts_with("%3B")
}

fn bad(problem: &str, raw: &str) -> Refusal {
    Refusal::bad_request(format!("target, {problem}: \"{}\"", raw.escape_debug()))
}

#[cfg(test)]
mod tests;
