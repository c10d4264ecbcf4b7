//! Which byte may stand where: one table for all grammars of the codec.

/// `tchar` of RFC 9110 section 5.6.2.
pub(crate) const TOKEN: u8 = 1;
/// Visible ASCII, space, tab and `obs-text`: what a field value may hold (RFC 9110 section 5.5).
pub(crate) const VALUE: u8 = 2;
/// Bytes let through in a request target: visible ASCII without `"`, `#`, `<` and `>`.
///
/// Wider than RFC 3986 by the bytes browsers leave raw in paths and queries (`[ ] { } | \ ^` and backtick); whether a
/// path may hold them is decided with the canonical path, not here.
pub(crate) const TARGET: u8 = 4;
/// Letters, digits, `-`, `.` and `_`: what a registered host name may hold.
pub(crate) const HOST: u8 = 8;
/// The alphabet of base64 without padding.
pub(crate) const BASE64: u8 = 16;

/// [`TOKEN`] without `_`: what a request's field name may hold.
pub(crate) const TOKEN_WITHOUT_UNDERSCORE: u8 = 32;

const TABLE: [u8; 256] = table();

/// Whether `byte` belongs to one of the classes in `class`.
#[inline]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    TABLE[byte as usize] & class != 0
}

/// Length of the longest start of `bytes` made of `class` only.
#[inline]
pub(crate) fn run(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|&byte| !is(byte, class)).unwrap_or(bytes.len())
}

/// [`run`] for field values, which are most of a head: sixteen bytes at a time, in a shape the compiler vectorises.
#[inline]
pub(crate) fn value_run(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<16>();
    let clean = blocks.iter().take_while(|block| is_clean(block)).count() * 16;
    clean + run(&bytes[clean..], VALUE)
}

/// Whether all bytes are values, tabs aside: a tab sends the block through the table instead.
#[inline]
fn is_clean(block: &[u8; 16]) -> bool {
    block.iter().fold(0, |bad, &byte| bad | u8::from(byte < b' ') | u8::from(byte == 0x7f)) == 0
}

/// Whether `bytes` is a non-empty token.
#[inline]
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && run(bytes, TOKEN) == bytes.len()
}

/// Removes optional whitespace (space and tab) from both ends.
#[inline]
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The bytes as text; empty when they are not, which cannot be for ranges this codec has checked.
#[inline]
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

const fn table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        table[index] = classes(index as u8);
        index += 1;
    }
    table
}

const fn classes(byte: u8) -> u8 {
    let alphanumeric = byte.is_ascii_alphanumeric();
    let mut classes = 0;
    if alphanumeric || is_in(byte, b"!#$%&'*+-.^_`|~") {
        classes |= TOKEN;
        if byte != b'_' {
            classes |= TOKEN_WITHOUT_UNDERSCORE;
        }
    }
    if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
        classes |= VALUE;
    }
    if byte.is_ascii_graphic() && !is_in(byte, b"\"#<>") {
        classes |= TARGET;
    }
    if alphanumeric || is_in(byte, b"-._") {
        classes |= HOST;
    }
    if alphanumeric || is_in(byte, b"+/") {
        classes |= BASE64;
    }
    classes
}

const fn is_in(byte: u8, set: &[u8]) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_run_stops_where_the_table_stops() {
        for length in [0, 1, 15, 16, 17, 31, 32, 33, 80] {
            for place in 0..length {
                for byte in 0..=255 {
                    let mut bytes = vec![b'a'; length];
                    bytes[place] = byte;
                    assert_eq!(value_run(&bytes), run(&bytes, VALUE), "byte {byte} at {place} of {length}");
                }
            }
        }
    }

    #[test]
    fn trim_takes_whitespace_from_both_ends_only() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
    }
}
