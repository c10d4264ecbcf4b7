//! Settings that differ, one line each.

use std::fmt::{self, Debug};
use std::time::Duration;

use serde::Serialize;

use crate::units::format_duration;

/// One setting with another value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Key, below the thing it belongs to.
    pub name: String,
    /// What it was.
    pub from: String,
    /// What it becomes.
    pub to: String,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.name, self.from, self.to)
    }
}

/// Collects the settings that differ.
#[derive(Debug, Default)]
pub(super) struct Settings(pub(super) Vec<Setting>);

impl Settings {
    /// Adds a setting that differs.
    pub(super) fn add(&mut self, name: &str, from: &str, to: &str) {
        self.0.push(Setting { name: name.to_owned(), from: from.to_owned(), to: to.to_owned() });
    }

    /// Adds the setting if it differs.
    pub(super) fn compare<T: PartialEq>(&mut self, name: &str, old: &T, new: &T, text: impl Fn(&T) -> String) {
        if old != new {
            self.add(name, &text(old), &text(new));
        }
    }

    /// The same for a type whose debug text tells enough: enums without fields become words in lower case.
    pub(super) fn debug<T: PartialEq + Debug>(&mut self, name: &str, old: &T, new: &T) {
        self.compare(name, old, new, |value| plain(&format!("{value:?}")));
    }

    /// Compares statuses of answers.
    pub(super) fn statuses(&mut self, key: &str, old: &Vec<u16>, new: &Vec<u16>) {
        self.compare(key, old, new, |statuses| list(statuses.iter().map(ToString::to_string)));
    }

    /// Adds the duration if it differs.
    pub(super) fn time(&mut self, name: &str, old: &Duration, new: &Duration) {
        self.compare(name, old, new, |&time| format_duration(time));
    }

    /// Adds a setting whose value must not be shown.
    pub(super) fn secret<T: PartialEq>(&mut self, name: &str, old: Option<&T>, new: Option<&T>) {
        match (old, new) {
            (Some(old), Some(new)) if old != new => self.add(name, "(hidden)", "(hidden, another one)"),
            (Some(_), None) => self.add(name, "(hidden)", "none"),
            (None, Some(_)) => self.add(name, "none", "(hidden)"),
            _ => {}
        }
    }
}

/// Debug text without Rust's `Some(...)`, for people.
fn plain(text: &str) -> String {
    let text = text.strip_prefix("Some(").and_then(|text| text.strip_suffix(')')).unwrap_or(text);
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric()) { snake_case(text) } else { text.to_owned() }
}

/// `LeastConn` as the file writes it: `least_conn`.
fn snake_case(word: &str) -> String {
    let mut snake = String::with_capacity(word.len() + 2);
    for (place, letter) in word.chars().enumerate() {
        if place > 0 && letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// A value or `none`.
pub(super) fn optional(value: &Option<String>) -> String {
    value.clone().unwrap_or_else(|| "none".to_owned())
}

/// `[a, b]`.
pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}
