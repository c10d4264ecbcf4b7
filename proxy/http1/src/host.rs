//! Which host values are accepted (RFC 9110 section 7.2, RFC 3986 section 3.2).

use std::net::Ipv6Addr;

use crate::octet;

const LONGEST: usize = 255;

/// Whether `value` is a host with an optional port, in the forms that only one reading exists for: a name of letters,
/// digits, `-`, `_` and single dots (one at the end allowed), an IPv4 address, or an IPv6 address in brackets.
///
/// Narrower than RFC 3986: no percent escapes, no sub-delimiters, no empty port, no user information.
pub(crate) fn is_valid(value: &[u8]) -> bool {
    if value.is_empty() || value.len() > LONGEST {
        return false;
    }
    let (host_is_valid, rest) = match value {
        [b'[', inside @ ..] => literal(inside),
        _ => name(value),
    };
    host_is_valid && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port))
}

/// The address in brackets; gives what follows the closing bracket.
fn literal(inside: &[u8]) -> (bool, &[u8]) {
    let Some(end) = inside.iter().position(|&byte| byte == b']') else { return (false, &[]) };
    (octet::text(&inside[..end]).parse::<Ipv6Addr>().is_ok(), &inside[end + 1..])
}

/// A name or IPv4 address; gives what follows it.
fn name(value: &[u8]) -> (bool, &[u8]) {
    let (name, rest) = value.split_at(octet::run(value, octet::HOST));
    let labels_are_full = !name.is_empty() && name[0] != b'.' && !name.windows(2).any(|pair| pair == b"..");
    (labels_are_full, rest)
}

fn is_port(digits: &[u8]) -> bool {
    digits.len() <= 5 && matches!(crate::framing::decimal(digits), Some(1..=65_535))
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn one_reading_only() {
        for good in ["a", "a.b", "a.b.", "A-b_c.d:80", "1.2.3.4", "[::1]", "[2001:db8::1]:8443", "a:65535"] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "",
            ".",
            ".a",
            "a..b",
            "a b",
            "a,b",
            "u@a",
            "a/b",
            "a:",
            "a:0",
            "a:080",
            "a:65536",
            "a:1x",
            "a:-1",
            "a:1:2",
            "[::1",
            "::1",
            "[]",
            "[g::]",
            "[::1]x",
            "[::1]:",
            "[fe80::1%25eth0]",
            "a%2e",
            "a?b",
            "a#b",
            "\u{e9}",
            &long,
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
    }
}
