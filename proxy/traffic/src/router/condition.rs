//! Conditions of a route besides its path.
//!
//! Query and cookies are read where they stand: nothing is allocated for a parameter, so a request with 100,000 of
//! them costs one pass.

use std::borrow::Cow;

use tidegate_config::model::{Condition, ValuePattern};

use crate::head::HeadView;

/// The conditions of one route; all must hold.
#[derive(Debug)]
pub(super) struct Conditions(Box<[Condition]>);

impl Conditions {
    pub(super) fn new(conditions: &[Condition]) -> Self {
        Self(conditions.into())
    }

    pub(super) fn hold(&self, head: &HeadView<'_>) -> bool {
        self.0.iter().all(|condition| holds(condition, head))
    }
}

fn holds(condition: &Condition, head: &HeadView<'_>) -> bool {
    match condition {
        Condition::Method(methods) => methods.iter().any(|method| method == head.method),
        Condition::Header(name, pattern) => header_holds(name, pattern, head),
        Condition::Query(name, pattern) => head.target.query().is_some_and(|query| query_holds(name, pattern, query)),
        Condition::Cookie(name, pattern) => cookie_holds(name, pattern, head),
    }
}

fn header_holds(name: &str, pattern: &ValuePattern, head: &HeadView<'_>) -> bool {
    let mut held = false;
    head.fields.all(name, &mut |value| held = held || matches(pattern, value));
    held
}

/// Names and values are percent-decoded, `+` is a space, and a parameter without `=` has an empty value.
fn query_holds(name: &str, pattern: &ValuePattern, query: &str) -> bool {
    query.split('&').any(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        !parameter.is_empty() && decoded(key).eq(name.bytes()) && query_value_holds(pattern, value)
    })
}

fn query_value_holds(pattern: &ValuePattern, value: &str) -> bool {
    match pattern {
        ValuePattern::Present => true,
        ValuePattern::Exact(expected) => decoded(value).eq(expected.bytes()),
        ValuePattern::Regex(_) if !value.contains(['%', '+']) => matches(pattern, value.as_bytes()),
        ValuePattern::Regex(_) => matches(pattern, &decoded(value).collect::<Vec<u8>>()),
    }
}

/// Cookies as they stand in the field: without decoding, quotation marks included (RFC 6265 section 5.4).
fn cookie_holds(name: &str, pattern: &ValuePattern, head: &HeadView<'_>) -> bool {
    let mut held = false;
    head.fields.all("cookie", &mut |line| {
        held = held
            || line.split(|byte| *byte == b';').any(|pair| {
                let pair = pair.trim_ascii();
                let (key, value) = split_at_equals(pair);
                !pair.is_empty() && key == name.as_bytes() && matches(pattern, value)
            });
    });
    held
}

fn split_at_equals(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(place) => (pair[..place].trim_ascii_end(), pair[place + 1..].trim_ascii_start()),
        None => (pair, &[]),
    }
}

fn matches(pattern: &ValuePattern, value: &[u8]) -> bool {
    match pattern {
        ValuePattern::Present => true,
        ValuePattern::Exact(expected) => expected.as_bytes() == value,
        ValuePattern::Regex(regex) => match String::from_utf8_lossy(value) {
            Cow::Borrowed(text) => regex.is_match(text),
            Cow::Owned(text) => regex.is_match(&text),
        },
    }
}

/// Decoded bytes of a form-encoded text; an escape that is none stands for itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        rest = after;
        match (first, after) {
            (b'+', _) => Some(b' '),
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = tail;
                    Some(high << 4 | low)
                }
                _ => Some(b'%'),
            },
            _ => Some(first),
        }
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
