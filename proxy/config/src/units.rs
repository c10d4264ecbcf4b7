//! Durations and sizes as they are written in a file.
//!
//! A bare number is refused: nginx reads it as seconds, HAProxy as milliseconds.

use std::time::Duration;

/// Why a text is not what it should be, to be printed after the text itself, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) problem: String,
    pub(crate) hint: Option<String>,
}

impl Reason {
    /// With a remedy.
    pub(crate) fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { problem: problem.into(), hint: Some(hint.into()) }
    }
}

/// Longest duration that can be written: 10,000 days. Far more than anybody waits, and safe to add to any clock.
pub(crate) const LONGEST: Duration = Duration::from_secs(10_000 * 24 * 3600);

const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DURATION_FORM: &str = "durations are written like 500ms, 30s, 5m, 1h30m or 2d";
const SIZE_FORM: &str = "sizes are written like 512B, 64KiB, 1MiB or, as in nginx, 64k, 1m, 2g";

/// `500ms`, `30s`, `5m`, `1h30m`, `2d`; `0` is zero.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Reason> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut milliseconds = 0_u64;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest).ok_or_else(|| not_a_duration(text))?;
        let (_, scale) =
            DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| bad_duration_unit(text, unit))?;
        if *scale >= smallest {
            return Err(Reason::new("is not a duration: units must go from large to small", DURATION_FORM));
        }
        smallest = *scale;
        milliseconds = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*scale))
            .and_then(|part| milliseconds.checked_add(part))
            .ok_or_else(too_long)?;
        rest = after;
    }
    let duration = Duration::from_millis(milliseconds);
    if text.is_empty() {
        return Err(not_a_duration(text));
    }
    if duration > LONGEST { Err(too_long()) } else { Ok(duration) }
}

fn too_long() -> Reason {
    Reason::new("is too long", "the longest duration is 10000d")
}

fn not_a_duration(text: &str) -> Reason {
    if text.contains('.') && text.starts_with(|first: char| first.is_ascii_digit()) {
        return Reason::new("is not a duration: fractions are not used", "write 1500ms for one and a half seconds");
    }
    Reason::new("is not a duration", DURATION_FORM)
}

fn bad_duration_unit(text: &str, unit: &str) -> Reason {
    if unit.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Reason::new("has no unit", format!("write {text}s for seconds or {text}ms for milliseconds"));
    }
    Reason::new("is not a duration", DURATION_FORM)
}

/// Splits `12ab34` into `12`, `ab` and `34`; `None` without a leading number.
fn number_and_unit(text: &str) -> Option<(&str, &str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let letters = text.bytes().skip(digits).take_while(u8::is_ascii_alphabetic).count();
    let (number, rest) = text.split_at_checked(digits)?;
    let (unit, after) = rest.split_at_checked(letters)?;
    if number.is_empty() || (unit.is_empty() && !after.is_empty()) { None } else { Some((number, unit, after)) }
}

/// The shortest text that a site file reads as this duration; less than a millisecond is lost.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0".to_owned();
    }
    let mut text = String::new();
    for (unit, scale) in DURATION_UNITS {
        let count = rest / scale;
        rest %= scale;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    text
}

/// `512B`, `64KiB`, `1MiB`, `2GiB`, and nginx's `64k`, `1m`, `2g`, all powers of 1024; `0` is zero.
pub(crate) fn parse_size(text: &str) -> Result<u64, Reason> {
    if text == "0" {
        return Ok(0);
    }
    let Some((number, unit, "")) = number_and_unit(text) else {
        return Err(Reason::new("is not a size", SIZE_FORM));
    };
    let scale = size_scale(unit).ok_or_else(|| bad_size_unit(number, unit))?;
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    // Signed, because some of the numbers built on this one are.
    bytes.filter(|&bytes| i64::try_from(bytes).is_ok()).ok_or_else(|| Reason::new("is too large", SIZE_FORM))
}

fn size_scale(unit: &str) -> Option<u64> {
    Some(match unit {
        "B" => 1,
        "KiB" | "k" | "K" => 1 << 10,
        "MiB" | "m" | "M" => 1 << 20,
        "GiB" | "g" | "G" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    })
}

fn bad_size_unit(number: &str, unit: &str) -> Reason {
    let binary = match unit.to_ascii_lowercase().as_str() {
        "" => return Reason::new("has no unit", format!("write {number}B for bytes or {number}KiB for kibibytes")),
        "kb" | "kib" => "KiB",
        "mb" | "mib" => "MiB",
        "gb" | "gib" => "GiB",
        "tb" | "tib" | "t" => "TiB",
        _ => return Reason::new("is not a size", SIZE_FORM),
    };
    if unit.to_ascii_lowercase().ends_with("ib") || unit.len() == 1 {
        return Reason::new("is not a size", format!("write {number}{binary}"));
    }
    Reason::new(
        format!("is ambiguous: \"{unit}\" may count in 1000 or in 1024"),
        format!("write {number}{binary}, which counts in 1024"),
    )
}

/// The shortest text that a site file reads as this size.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0".to_owned();
    }
    for (unit, scale) in SIZE_UNITS {
        if bytes.is_multiple_of(scale) {
            return format!("{}{unit}", bytes / scale);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_durations() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("1d1h1m1s1ms", 90_061_001),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "",
            "s",
            "10",
            "1.5s",
            "-1s",
            "1 s",
            "1x",
            "1m1h",
            "1s1s",
            "1h 30m",
            "10001d",
            "99999999999999999999d",
            "１s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("10").unwrap_err().problem, "has no unit");
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("0B", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("64k", 65_536),
            ("1m", 1 << 20),
            ("2G", 2 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in ["", "k", "10", "1MB", "1kB", "1.5m", "-1k", "1 k", "1mk", "9999999999TiB", "9223372036854775808B"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_size("1MB").unwrap_err().hint.as_deref(), Some("write 1MiB, which counts in 1024"));
    }

    proptest! {
        #[test]
        fn durations_survive_the_round_trip(milliseconds in 0..=864_000_000_000_u64) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn sizes_survive_the_round_trip(bytes in 0..=i64::MAX as u64) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_units_panic(text in ".{0,12}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
