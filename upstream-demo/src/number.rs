//! Numbers out of the query string, with a bound each: `?ms=250`.

use std::{error::Error, fmt};

/// A number that may stand in the query string.
pub(crate) struct Number {
    pub(crate) name: &'static str,
    pub(crate) default: u64,
    pub(crate) most: u64,
}

/// A value that is no number, or more than its bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutOfRange {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) most: u64,
}

impl Number {
    /// The number's value in `query`, its default when it is not there. The first one counts.
    pub(crate) fn read(&self, query: Option<&str>) -> Result<u64, OutOfRange> {
        let Some(text) = value(query, self.name) else { return Ok(self.default) };
        text.parse().ok().filter(|number| *number <= self.most).ok_or_else(|| OutOfRange {
            name: self.name,
            text: text.to_owned(),
            most: self.most,
        })
    }
}

/// The text after `name=` in `query`, not decoded.
pub(crate) fn value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' must be a whole number from 0 to {}: '{}'", self.name, self.most, self.text)
    }
}

impl Error for OutOfRange {}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Number = Number { name: "ms", default: 5, most: 100 };

    #[test]
    fn read_finds_default_and_value() {
        for (query, expected) in [
            (None, 5),
            (Some(""), 5),
            (Some("n=3"), 5),
            (Some("n=3&ms=7"), 7),
            (Some("ms=0&ms=9"), 0),
            (Some("msx=9"), 5),
            (Some("ms=100"), 100),
        ] {
            assert_eq!(MS.read(query), Ok(expected), "{query:?}");
        }
    }

    #[test]
    fn read_refuses_what_is_no_bounded_number() {
        for text in ["", "-1", "1.5", "101", "ten", "99999999999999999999"] {
            let refused = MS.read(Some(&format!("ms={text}")));
            assert_eq!(refused, Err(OutOfRange { name: "ms", text: text.to_owned(), most: 100 }));
        }
    }
}
