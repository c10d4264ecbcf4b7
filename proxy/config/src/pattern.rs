//! Path and value patterns of routes.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::model::{PathPattern, ValuePattern};
use crate::units::Reason;

/// Longest regex as written, and most bytes of its program: a file must not cost a request much.
const LONGEST_REGEX: usize = 2_048;
const LARGEST_PROGRAM: usize = 1 << 20;

/// Reads nginx's notation: `/p`, `= /p`, `^~ /p`, `~ regex`, `~* regex`.
pub(crate) fn parse_path(text: &str) -> Result<PathPattern, Reason> {
    if let Some(path) = text.strip_prefix("^~") {
        return canonical(path.trim_start(), "^~ ").map(PathPattern::PrefixStop);
    }
    if let Some(regex) = regex_pattern(text) {
        return regex.map(PathPattern::Regex);
    }
    if let Some(path) = text.strip_prefix('=') {
        return canonical(path.trim_start(), "= ").map(PathPattern::Exact);
    }
    canonical(text, "").map(PathPattern::Prefix)
}

/// Reads `*` (present), `~ regex`, `~* regex`, else exactly this text.
pub(crate) fn parse_value(text: &str) -> Result<ValuePattern, Reason> {
    if text == "*" {
        return Ok(ValuePattern::Present);
    }
    match regex_pattern(text) {
        Some(regex) => regex.map(ValuePattern::Regex),
        None => Ok(ValuePattern::Exact(text.to_owned())),
    }
}

fn regex_pattern(text: &str) -> Option<Result<Arc<Regex>, Reason>> {
    let rest = text.strip_prefix('~')?;
    let (without_case, source) = rest.strip_prefix('*').map_or((false, rest), |rest| (true, rest));
    Some(compile_regex(source.trim_start(), without_case).map(Arc::new))
}

/// The flag for case is part of the text, so that two patterns are equal only when they match the same.
pub(crate) fn compile_regex(source: &str, without_case: bool) -> Result<Regex, Reason> {
    if source.is_empty() {
        return Err(Reason::new("has no regex after \"~\"", "write \"~ ^/users/[0-9]+$\""));
    }
    if source.len() > LONGEST_REGEX {
        return Err(Reason::new("is too long", format!("a regex has at most {LONGEST_REGEX} bytes")));
    }
    let source = if without_case { format!("(?i){source}") } else { source.to_owned() };
    let built =
        RegexBuilder::new(&source).size_limit(LARGEST_PROGRAM).dfa_size_limit(LARGEST_PROGRAM).nest_limit(50).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            Reason::new("is too large a regex", "bound its repetitions, or split it into several routes")
        }
        // The first line names the kind of error, the rest draws a picture of it.
        other => {
            let text = other.to_string();
            let problem = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let hint = if problem.contains("look-around") || problem.contains("backreferences") {
                "nginx's regexes have this, ours do not: write several routes"
            } else {
                "check the regex; backslashes need single quotes or no quotes in YAML"
            };
            Reason::new(format!("is not a regex: {problem}"), hint)
        }
    })
}

/// Refuses a path that no request can have once its own path is canonical.
fn canonical(path: &str, mark: &str) -> Result<String, Reason> {
    let hint = |path: &str| format!("write \"{mark}{path}\"");
    if !path.starts_with('/') {
        let problem = if path.is_empty() { "names no path" } else { "is not a path: paths start with \"/\"" };
        return Err(Reason::new(problem, hint(&format!("/{}", path.trim_start_matches("./")))));
    }
    if let Some((path, _)) = path.split_once(['?', '#']) {
        return Err(Reason::new(
            "has more than a path",
            format!("{}, and use the key \"query\" for parameters", hint(path)),
        ));
    }
    if path.contains('\\') || path.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Reason::new(
            "has a character that no path of a request has",
            "remove backslashes and control characters",
        ));
    }
    let canonical = canonical_form(path)?;
    if canonical == path {
        return Ok(canonical);
    }
    Err(Reason::new("is not in canonical form, so no request would match it", hint(&canonical)))
}

/// The form that requests are brought into before routes see them: escapes in upper case and only where a byte needs
/// one (an escaped `;` stays, because unescaped it begins parameters), no empty, `.` and `..` segments.
fn canonical_form(path: &str) -> Result<String, Reason> {
    let escaped = canonical_escapes(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let ends_open = escaped.ends_with('/') || escaped.ends_with("/.") || escaped.ends_with("/..");
    for segment in escaped.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                if segments.pop().is_none() {
                    return Err(Reason::new("goes above the root", "remove \"..\""));
                }
            }
            segment if has_dots_with_parameters(segment) => {
                return Err(Reason::new(
                    "has parameters on a dot segment",
                    "remove it: such requests are refused with 400",
                ));
            }
            segment => segments.push(segment),
        }
    }
    let tail = if ends_open && !segments.is_empty() { "/" } else { "" };
    Ok(format!("/{}{tail}", segments.join("/")))
}

/// `.;x` and `..;x`, which some servers take for `.` and `..`.
fn has_dots_with_parameters(segment: &str) -> bool {
    let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"))
}

fn canonical_escapes(path: &str) -> Result<String, Reason> {
    let mut escaped = String::with_capacity(path.len());
    let mut decoded = Vec::with_capacity(path.len());
    let bytes = path.as_bytes();
    let mut offset = 0;
    while let Some(&byte) = bytes.get(offset) {
        offset += 1;
        if byte != b'%' {
            push(&mut escaped, byte, is_path_byte(byte));
            decoded.push(byte);
            continue;
        }
        let digits = path.get(offset..offset + 2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(value) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return Err(Reason::new("has \"%\" without two hexadecimal digits", "write %25 for a percent sign"));
        };
        if matches!(value, b'/' | b'\\') || value.is_ascii_control() {
            return Err(Reason::new(
                format!("has the escape %{value:02X}, which requests may not have"),
                "remove it: such requests are refused with 400",
            ));
        }
        offset += 2;
        push(&mut escaped, value, is_path_byte(value) && value != b';');
        decoded.push(value);
    }
    match std::str::from_utf8(&decoded) {
        Ok(_) => Ok(escaped),
        Err(_) => Err(Reason::new("has escapes that are not UTF-8", "remove it: such requests are refused with 400")),
    }
}

fn push(text: &mut String, byte: u8, literally: bool) {
    if literally { text.push(char::from(byte)) } else { text.push_str(&format!("%{byte:02X}")) }
}

/// RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 section 3.3: `pchar` and `/`.
const fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}

/// Whether every path that the inner pattern takes may lie under the outer one. Regexes are not looked into.
pub(crate) fn lies_under(inner: &PathPattern, outer: &PathPattern) -> bool {
    use PathPattern::{Exact, Prefix, PrefixStop, Regex};
    match (outer, inner) {
        (Regex(_), _) | (_, Regex(_)) => true,
        (Exact(outer), Exact(inner)) => inner == outer,
        (Exact(_), Prefix(_) | PrefixStop(_)) => false,
        (Prefix(outer) | PrefixStop(outer), Exact(inner) | Prefix(inner) | PrefixStop(inner)) => {
            let bare = outer.trim_end_matches('/');
            inner == outer || inner.strip_prefix(bare).is_some_and(|rest| rest.starts_with('/') || bare.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_notation_of_nginx() {
        for (text, expected) in [
            ("/", PathPattern::Prefix("/".into())),
            ("/api/", PathPattern::Prefix("/api/".into())),
            ("= /exact", PathPattern::Exact("/exact".into())),
            ("=/exact", PathPattern::Exact("/exact".into())),
            ("^~ /static/", PathPattern::PrefixStop("/static/".into())),
            ("~ ^/u/[0-9]+$", PathPattern::Regex(Arc::new(Regex::new("^/u/[0-9]+$").unwrap()))),
            ("~* \\.(png|jpg)$", PathPattern::Regex(Arc::new(Regex::new("(?i)\\.(png|jpg)$").unwrap()))),
        ] {
            assert_eq!(parse_path(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_paths_that_are_not_canonical() {
        for (text, remedy) in [
            ("api", "write \"/api\""),
            ("//api", "write \"/api\""),
            ("/a/./b", "write \"/a/b\""),
            ("/a/../b/", "write \"/b/\""),
            ("/a/%7euser", "write \"/a/~user\""),
            ("/%40admin", "write \"/@admin\""),
            ("/a%3bb", "write \"/a%3Bb\""),
            ("/a/%c3%a9", "write \"/a/%C3%A9\""),
            ("/a b", "write \"/a%20b\""),
            ("/é", "write \"/%C3%A9\""),
            ("= /x/..", "write \"= /\""),
            ("^~ x", "write \"^~ /x\""),
        ] {
            assert_eq!(parse_path(text).unwrap_err().hint.as_deref(), Some(remedy), "{text}");
        }
        for text in [
            "", "=", "/a%2fb", "/a%5Cb", "/a%zz", "/a%", "/..", "/a?b=1", "/a\\b", "/a\u{1}", "/%00", "/a/..;/b",
            "/%ff", "~", "~ (", "~ (?=a)",
        ] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_value_patterns() {
        assert_eq!(parse_value("*"), Ok(ValuePattern::Present));
        assert_eq!(parse_value("a*"), Ok(ValuePattern::Exact("a*".into())));
        assert!(matches!(parse_value("~ ^v[0-9]$"), Ok(ValuePattern::Regex(_))));
        assert!(parse_value("~* [").is_err());
    }

    #[test]
    fn regexes_are_bounded() {
        assert!(parse_path("~ (a{1000}){1000}").is_err());
        assert!(parse_path(&format!("~ {}", "a".repeat(3_000))).is_err());
        assert!(parse_path(&format!("~ {}{}", "(".repeat(300), ")".repeat(300))).is_err());
    }

    #[test]
    fn inner_paths_lie_under_outer_ones() {
        let pattern = |text: &str| parse_path(text).unwrap();
        for (outer, inner, expected) in [
            ("/", "/a", true),
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a/", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/", "/a", false),
            ("/a", "/", false),
            ("= /a", "= /a", true),
            ("= /a", "/a", false),
            ("^~ /a", "= /a/b", true),
            ("/a", "~ b", true),
            ("~ a", "/b", true),
        ] {
            assert_eq!(lies_under(&pattern(inner), &pattern(outer)), expected, "{outer} {inner}");
        }
    }

    proptest! {
        /// The hint of a refused path is a path that is accepted.
        #[test]
        fn the_canonical_form_is_canonical(path in "/[a-z%2eEcC3A9/. é]{0,12}") {
            if let Ok(form) = canonical_form(&path) {
                prop_assert_eq!(canonical_form(&form).map_err(|r| r.problem), Ok(form.clone()));
            }
        }
    }
}
