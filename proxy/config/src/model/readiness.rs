//! When a worker may get requests.

use std::fmt;
use std::time::Duration;

use regex::Regex;

use crate::units::format_duration;

/// When a worker may get requests. Whatever it is, the worker's address has to accept a connection first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Its address accepts a connection.
    Connect,
    /// `GET` of this path is answered with a status below 500.
    Http(String),
    /// A line of its output matches.
    Log(LinePattern),
    /// It says so on its notification socket.
    Notify,
    /// So long after its command began to run.
    Delay(Duration),
    /// All of these, in any order; one or more, none of them another list.
    AllOf(Vec<Readiness>),
}

impl Readiness {
    /// The conditions it is made of.
    pub fn parts(&self) -> impl Iterator<Item = &Self> {
        match self {
            Self::AllOf(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        }
        .iter()
    }

    /// Whether workers are given a notification socket.
    #[must_use]
    pub fn is_notified(&self) -> bool {
        self.parts().any(|part| *part == Self::Notify)
    }
}

/// As in the file.
impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Http(path) => write!(f, "http {path}"),
            Self::Log(pattern) => write!(f, "log \"{pattern}\""),
            Self::Notify => f.write_str("notify"),
            Self::Delay(time) => write!(f, "delay {}", format_duration(*time)),
            Self::AllOf(parts) => {
                let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
                f.write_str(&parts.join(" and "))
            }
        }
    }
}

/// A regular expression for lines of output.
#[derive(Debug, Clone)]
pub struct LinePattern(Regex);

impl LinePattern {
    /// Reads a regular expression.
    ///
    /// # Errors
    /// Why it is none, or that it is too large.
    pub fn new(text: &str) -> Result<Self, String> {
        crate::pattern::compile_regex(text, false).map(Self).map_err(|reason| reason.problem)
    }

    /// Whether it is found somewhere in the line.
    #[must_use]
    pub fn is_match(&self, line: &str) -> bool {
        self.0.is_match(line)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for LinePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for LinePattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for LinePattern {}
