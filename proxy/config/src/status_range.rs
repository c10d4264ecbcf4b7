//! Statuses as they are written in a file.

use std::ops::RangeInclusive;

use crate::units::Reason;

/// `204` or `200-399`: 100 to 599.
pub(crate) fn parse_status_range(text: &str) -> Result<RangeInclusive<u16>, Reason> {
    let form = "write a status like 204, or a range like 200-399";
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.filter(|status| (100..=599).contains(status)).ok_or_else(|| Reason::new("is no status", form))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = status(first)?..=status(last)?;
    if range.is_empty() { Err(Reason::new("is an empty range", form)) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (text, range) in
            [("204", 204..=204), ("200-399", 200..=399), ("100-599", 100..=599), ("200-200", 200..=200)]
        {
            assert_eq!(parse_status_range(text), Ok(range), "{text}");
        }
        for text in ["", "-", "2xx", "99", "600", "200-", "-200", "300-200", "200-600", "200 - 299", "+200", "1e2"] {
            assert!(parse_status_range(text).is_err(), "{text}");
        }
    }
}
