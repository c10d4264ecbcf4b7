//! Conditions of a route besides its path.

use std::borrow::Cow;

use tidegate_config::model::{Condition, ValuePattern};

use crate::head::HeadView;
use crate::parameters::{self, decoded};

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

fn query_holds(name: &str, pattern: &ValuePattern, query: &str) -> bool {
    parameters::query(query, name).any(|value| query_value_holds(pattern, value))
}

fn query_value_holds(pattern: &ValuePattern, value: &str) -> bool {
    match pattern {
        ValuePattern::Present => true,
        ValuePattern::Exact(expected) => decoded(value).eq(expected.bytes()),
        ValuePattern::Regex(_) if !value.contains(['%', '+']) => matches(pattern, value.as_bytes()),
        ValuePattern::Regex(_) => matches(pattern, &decoded(value).collect::<Vec<u8>>()),
    }
}

fn cookie_holds(name: &str, pattern: &ValuePattern, head: &HeadView<'_>) -> bool {
    let mut held = false;
    parameters::cookies(head.fields, name, &mut |value| held = held || matches(pattern, value));
    held
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
