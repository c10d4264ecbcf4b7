//! The one canonical form of a request's host.
//!
//! Sites are chosen by it and endpoints see it, so that `EXAMPLE.com.:443` and `example.com:443` are one host. A
//! host that is already canonical is borrowed.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::refusal::Refusal;

/// Longest host name (RFC 1035 section 2.3.4, without the root's dot).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A checked host with its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'a> {
    name: Cow<'a, str>,
    port: Option<u16>,
    authority: Cow<'a, str>,
}

impl<'a> Host<'a> {
    /// Reads the value of `Host` or of `:authority`: a name, an IPv4 address or a bracketed IPv6 address, then
    /// perhaps a port from 1 to 65,535. Anything else is refused: userinfo, a path, a list, an empty name or label.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Refusal> {
        let raw = std::str::from_utf8(raw).map_err(|_| bad("not ascii", raw))?;
        if raw.starts_with('[') { Self::parse_ipv6(raw) } else { Self::parse_name(raw) }
    }

    /// Lower case, without a trailing dot, without brackets around an IPv6 address.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, if one was given.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Name and port as they are sent in a `Host` field.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    fn parse_name(raw: &'a str) -> Result<Self, Refusal> {
        let (name, port_text) = match raw.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (raw, None),
        };
        let port = port_text.map(|text| parse_port(text, raw)).transpose()?;
        let name = name.strip_suffix('.').unwrap_or(name);
        check_name(name).map_err(|problem| bad(problem, raw.as_bytes()))?;
        let canonical = lower(name);
        let as_sent = matches!(canonical, Cow::Borrowed(_))
            && raw.len() == name.len() + port_text.map_or(0, |text| 1 + text.len())
            && !port_text.is_some_and(|text| text.starts_with('0'));
        let authority = if as_sent { Cow::Borrowed(raw) } else { Cow::Owned(joined(&canonical, port)) };
        Ok(Self { name: canonical, port, authority })
    }

    fn parse_ipv6(raw: &'a str) -> Result<Self, Refusal> {
        let (literal, rest) = raw[1..].split_once(']').ok_or_else(|| bad("bracket not closed", raw.as_bytes()))?;
        let address: Ipv6Addr = literal.parse().map_err(|_| bad("not an ipv6 address", raw.as_bytes()))?;
        let port = match rest.strip_prefix(':') {
            Some(text) => Some(parse_port(text, raw)?),
            None if rest.is_empty() => None,
            None => return Err(bad("text after the address", raw.as_bytes())),
        };
        let name = address.to_string();
        let authority = joined(&format!("[{name}]"), port);
        Ok(Self { name: Cow::Owned(name), port, authority: Cow::Owned(authority) })
    }
}

/// The form in which a host of the site file is looked up: [`Host::name`] of the same host.
pub(crate) fn canonical_pattern(pattern: &str) -> String {
    let bare = pattern.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(pattern);
    match bare.parse::<Ipv6Addr>() {
        Ok(address) => address.to_string(),
        Err(_) => bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase(),
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("empty name");
    }
    if name.len() > MAX_NAME {
        return Err("name longer than 253 bytes");
    }
    let mut label = 0;
    for byte in name.bytes() {
        match byte {
            b'.' if label == 0 => return Err("empty label"),
            b'.' => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            _ => return Err("byte that no host name has"),
        }
        if label > MAX_LABEL {
            return Err("label longer than 63 bytes");
        }
    }
    if label == 0 { Err("empty label") } else { Ok(()) }
}

fn parse_port(text: &str, raw: &str) -> Result<u16, Refusal> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(bad("bad port", raw.as_bytes())),
    }
}

fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

fn joined(name: &str, port: Option<u16>) -> String {
    match port {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    }
}

fn bad(problem: &str, raw: &[u8]) -> Refusal {
    Refusal::bad_request(format!("host, {problem}: \"{}\"", raw.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(raw: &str) -> Option<(String, Option<u16>, String)> {
        let host = Host::parse(raw.as_bytes()).ok()?;
        Some((host.name().to_owned(), host.port(), host.authority().to_owned()))
    }

    #[test]
    fn good_hosts_have_one_form() {
        let rows: &[(&str, &str, Option<u16>, &str)] = &[
            ("example.com", "example.com", None, "example.com"),
            ("EXAMPLE.com.", "example.com", None, "example.com"),
            ("Example.com.:8443", "example.com", Some(8443), "example.com:8443"),
            ("example.com:443", "example.com", Some(443), "example.com:443"),
            ("example.com:00443", "example.com", Some(443), "example.com:443"),
            ("my_app", "my_app", None, "my_app"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", None, "xn--bcher-kva.example"),
            ("127.0.0.1:80", "127.0.0.1", Some(80), "127.0.0.1:80"),
            ("[::1]", "::1", None, "[::1]"),
            ("[2001:DB8:0:0::1]:8080", "2001:db8::1", Some(8080), "[2001:db8::1]:8080"),
        ];
        for (raw, name, port, authority) in rows {
            let expected = Some(((*name).to_owned(), *port, (*authority).to_owned()));
            assert_eq!(parsed(raw), expected, "{raw}");
        }
    }

    #[test]
    fn bad_hosts_are_refused() {
        let long_name = format!("{}.com", ["a".repeat(60).as_str(); 5].join("."));
        let long_label = "a".repeat(64);
        let rows = [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:8a",
            "a:000080",
            "a:80:80",
            "a,b",
            "a b",
            "user@a",
            "a/b",
            "a?b",
            "a#b",
            "a%41",
            "b\u{fc}cher.example",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[fe80::1%25eth0]",
            "[1.2.3.4]",
            "::1",
            "a\0b",
            "*.a.com",
            &long_name,
            &long_label,
        ];
        for raw in rows {
            assert_eq!(parsed(raw), None, "{raw:?}");
        }
        assert!(Host::parse(b"a\xff").is_err());
    }

    #[test]
    fn a_canonical_host_is_borrowed() {
        for raw in ["example.com", "example.com:8080"] {
            let host = Host::parse(raw.as_bytes()).unwrap();
            assert!(matches!(host.name, Cow::Borrowed(_)) && matches!(host.authority, Cow::Borrowed(_)), "{raw}");
        }
    }

    #[test]
    fn patterns_of_the_file_have_the_same_form() {
        for (pattern, raw) in
            [("[2001:DB8::1]", "[2001:db8:0::1]"), ("2001:db8::1", "[2001:db8::1]:9"), ("A.b.", "a.B")]
        {
            assert_eq!(canonical_pattern(pattern), Host::parse(raw.as_bytes()).unwrap().name());
        }
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent(raw in "[a-cA-C0-1.:_\\[\\]-]{0,12}") {
            if let Ok(host) = Host::parse(raw.as_bytes()) {
                let again = Host::parse(host.authority().as_bytes()).unwrap();
                prop_assert_eq!(again.name(), host.name());
                prop_assert_eq!(again.authority(), host.authority());
                prop_assert_eq!(again.port(), host.port());
            }
        }

        #[test]
        fn any_bytes_are_answered(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Host::parse(&raw);
        }
    }
}
