//! Host names of a site, in the one form that requests are matched against.

use std::net::{IpAddr, Ipv6Addr};

use crate::model::HostPattern;
use crate::units::Reason;

const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// Reads `api.example.com`, `*.example.com`, `*`, an IPv4 address or an IPv6 address with or without brackets.
///
/// Names are folded to lower case and lose a trailing dot; IPv6 addresses are held without brackets, in the form of
/// RFC 5952.
pub(crate) fn parse_host(text: &str) -> Result<HostPattern, Reason> {
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    if let Some(address) = address(text) {
        return Ok(HostPattern::Exact(address.to_string()));
    }
    if let Some(rest) = text.strip_prefix("*.") {
        return parse_name(rest).map(HostPattern::Wildcard);
    }
    parse_name(text).map(HostPattern::Exact)
}

impl HostPattern {
    /// As it is written in a site file.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Exact(name) => name.clone(),
            Self::Wildcard(name) => format!("*.{name}"),
            Self::Any => "*".to_owned(),
        }
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match bare {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Reads one name, without wildcard: in lower case and without a dot at its end.
pub(crate) fn parse_name(text: &str) -> Result<String, Reason> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    refuse_other_things(text)?;
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(Reason::new("is not a host name", "names have 1 to 253 characters"));
    }
    if let Some(bad) = name.chars().find(|&c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        return Err(Reason::new(
            format!("is not a host name: it contains \"{}\"", bad.escape_default()),
            "names consist of letters, digits, \"-\" and dots",
        ));
    }
    let is_bad =
        |label: &str| label.is_empty() || label.len() > LONGEST_LABEL || label.starts_with('-') || label.ends_with('-');
    if name.split('.').any(is_bad) {
        return Err(Reason::new(
            "is not a host name",
            "the labels between dots have 1 to 63 characters and neither start nor end with \"-\"",
        ));
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Reason::new("is neither an IP address nor a host name", "a host name does not end in a number"));
    }
    Ok(name)
}

/// What people write in place of a host name.
fn refuse_other_things(text: &str) -> Result<(), Reason> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        return Err(Reason::new("is a URL, not a host name", format!("write {host}")));
    }
    if text.starts_with('~') || text.contains(['(', '^']) {
        return Err(Reason::new(
            "is a regex: they are not available for hosts in this version",
            "write the names, or *.example.com",
        ));
    }
    if text.contains('*') {
        return Err(Reason::new(
            "has \"*\" in a place where it is not possible",
            "write *.example.com, or * for any host",
        ));
    }
    if let Some((host, port)) = text.split_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(Reason::new("names a port", format!("write {host}: ports belong to listeners")));
    }
    if text.contains('/') {
        let host = text.split('/').next().unwrap_or_default();
        return Err(Reason::new("names a path", format!("write {host}: paths belong to routes")));
    }
    if !text.is_ascii() {
        return Err(Reason::new("has characters outside ASCII", "write its punycode form: xn--..."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form() {
        for (text, expected) in [
            ("API.Example.com", HostPattern::Exact("api.example.com".into())),
            ("api.example.com.", HostPattern::Exact("api.example.com".into())),
            ("*.Example.org", HostPattern::Wildcard("example.org".into())),
            ("*", HostPattern::Any),
            ("localhost", HostPattern::Exact("localhost".into())),
            ("127.0.0.1", HostPattern::Exact("127.0.0.1".into())),
            ("[0:0::1]", HostPattern::Exact("::1".into())),
            ("::1", HostPattern::Exact("::1".into())),
            ("xn--bcher-kva.example", HostPattern::Exact("xn--bcher-kva.example".into())),
            ("_acme.example", HostPattern::Exact("_acme.example".into())),
        ] {
            assert_eq!(parse_host(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            ".",
            "a..b",
            "-a.b",
            "a-.b",
            "a b",
            "bücher.example",
            "a.example:80",
            "https://a.example",
            "a.example/x",
            "~^a$",
            "api.*",
            "a.*.b",
            "**",
            "*.",
            "*.*",
            "1.2.3",
            "256.1.1.1",
            "a\u{0}b",
            "[1.2.3.4]",
        ] {
            assert!(parse_host(text).is_err(), "{text}");
        }
        assert!(parse_host(&"a".repeat(64)).is_err());
        assert!(parse_host(&["a"; 128].join(".")).is_err());
    }
}
