//! Bytes of a client made harmless: one request is one line, whatever it sent.

/// Escapes as nginx does by default: `"`, `\`, control bytes and everything above 126 become `\xHH`.
pub(crate) fn push_nginx(line: &mut Vec<u8>, value: &[u8]) {
    for &byte in value {
        match byte {
            b'"' | b'\\' | 0..=31 | 127..=255 => push_hex(line, b"\\x", byte),
            other => line.push(other),
        }
    }
}

/// The inside of a JSON string (RFC 8259 section 7). Valid UTF-8 stays as it is, apart from control characters; a byte
/// that is not UTF-8 becomes the text `\xHH`.
pub(crate) fn push_json(line: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        push_json_text(line, chunk.valid());
        for &byte in chunk.invalid() {
            push_hex(line, b"\\\\x", byte);
        }
    }
}

fn push_json_text(line: &mut Vec<u8>, text: &str) {
    let mut plain_from = 0;
    for (at, character) in text.char_indices() {
        if !(character.is_control() || character == '"' || character == '\\') {
            continue;
        }
        line.extend_from_slice(&text.as_bytes()[plain_from..at]);
        plain_from = at + character.len_utf8();
        match character {
            '"' => line.extend_from_slice(b"\\\""),
            '\\' => line.extend_from_slice(b"\\\\"),
            '\n' => line.extend_from_slice(b"\\n"),
            '\r' => line.extend_from_slice(b"\\r"),
            '\t' => line.extend_from_slice(b"\\t"),
            // Control characters are all below U+0100, those of a terminal's second set (U+0080 on) among them.
            other => push_hex(line, b"\\u00", u32::from(other).to_le_bytes()[0]),
        }
    }
    line.extend_from_slice(&text.as_bytes()[plain_from..]);
}

/// Text for people: valid UTF-8 and tabs stay, control characters and bytes that are not UTF-8 become `\xHH`.
pub(crate) fn push_plain(line: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        let text = chunk.valid();
        let mut plain_from = 0;
        for (at, character) in text.char_indices() {
            if character.is_control() && character != '\t' {
                line.extend_from_slice(&text.as_bytes()[plain_from..at]);
                plain_from = at + character.len_utf8();
                push_hex(line, b"\\x", u32::from(character).to_le_bytes()[0]);
            }
        }
        line.extend_from_slice(&text.as_bytes()[plain_from..]);
        for &byte in chunk.invalid() {
            push_hex(line, b"\\x", byte);
        }
    }
}

fn push_hex(line: &mut Vec<u8>, prefix: &[u8], byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    line.extend_from_slice(prefix);
    line.push(DIGITS[usize::from(byte >> 4)]);
    line.push(DIGITS[usize::from(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(push: fn(&mut Vec<u8>, &[u8]), value: &[u8]) -> String {
        let mut line = Vec::new();
        push(&mut line, value);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn values_are_escaped_as_the_format_asks() {
        let rows: [(&[u8], &str, &str, &str); 6] = [
            (b"plain /a?b=c", "plain /a?b=c", "plain /a?b=c", "plain /a?b=c"),
            (b"a\"b\\c", r"a\x22b\x5Cc", r#"a\"b\\c"#, r#"a"b\c"#),
            (b"a\r\nb\0\x1b[31m", r"a\x0D\x0Ab\x00\x1B[31m", r"a\r\nb\u0000\u001B[31m", r"a\x0D\x0Ab\x00\x1B[31m"),
            ("\u{fc}\u{9b}".as_bytes(), r"\xC3\xBC\xC2\x9B", "\u{fc}\\u009B", "\u{fc}\\x9B"),
            (b"\xff\xc3", r"\xFF\xC3", r"\\xFF\\xC3", r"\xFF\xC3"),
            (b"\x7f\t", r"\x7F\x09", r"\u007F\t", "\\x7F\t"),
        ];
        for (value, nginx, json, plain) in rows {
            assert_eq!(escaped(push_nginx, value), nginx);
            assert_eq!(escaped(push_json, value), json);
            assert_eq!(escaped(push_plain, value), plain);
        }
    }
}
