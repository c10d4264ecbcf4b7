//! What a plain scalar means: YAML 1.2 core rules exactly as `serde_yaml` applies them.
//!
//! The tree decides types before serde sees a value, so the two must agree; a property test holds them together.

/// What a plain scalar means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Meaning {
    Null,
    Boolean(bool),
    /// A whole number that is not negative.
    Whole(u128),
    Negative(i128),
    Float(f64),
    Text,
}

impl Meaning {
    /// For `expected a, found b`.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Boolean(_) => "a boolean",
            Self::Whole(_) | Self::Negative(_) | Self::Float(_) => "a number",
            Self::Text => "text",
        }
    }
}

/// What a plain scalar means.
pub(crate) fn meaning(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Meaning::Null,
        "true" | "True" | "TRUE" => Meaning::Boolean(true),
        "false" | "False" | "FALSE" => Meaning::Boolean(false),
        text => number(text).unwrap_or(Meaning::Text),
    }
}

fn number(text: &str) -> Option<Meaning> {
    if let Some(whole) = whole(text) {
        return Some(Meaning::Whole(whole));
    }
    if let Some(negative) = negative(text) {
        return Some(Meaning::Negative(negative));
    }
    if has_leading_zero(text) {
        return None;
    }
    float(text).map(Meaning::Float)
}

fn whole(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    for (prefix, radix) in RADIXES {
        // Like serde_yaml: a bad number after `0x` may still be tried as decimal, which then fails.
        if let Some(digits) = text.strip_prefix(prefix) {
            return unsigned(digits, radix);
        }
    }
    if has_leading_zero(text) {
        return None;
    }
    unsigned(text, 10)
}

fn negative(text: &str) -> Option<i128> {
    if has_leading_zero(text) {
        return None;
    }
    let digits = text.strip_prefix('-')?;
    for (prefix, radix) in RADIXES {
        if let Some(digits) = digits.strip_prefix(prefix) {
            return unsigned(digits, radix).and_then(negate);
        }
    }
    unsigned(digits, 10).and_then(negate)
}

const RADIXES: [(&str, u32); 3] = [("0x", 16), ("0o", 8), ("0b", 2)];

fn unsigned(digits: &str, radix: u32) -> Option<u128> {
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u128::from_str_radix(digits, radix).ok()
}

fn negate(value: u128) -> Option<i128> {
    0_i128.checked_sub_unsigned(value)
}

fn float(text: &str) -> Option<f64> {
    let unsigned = match text.strip_prefix('+') {
        Some(rest) if rest.starts_with(['+', '-']) => return None,
        Some(rest) => rest,
        None => text,
    };
    match (unsigned, text) {
        (".inf" | ".Inf" | ".INF", _) => return Some(f64::INFINITY),
        (_, "-.inf" | "-.Inf" | "-.INF") => return Some(f64::NEG_INFINITY),
        (_, ".nan" | ".NaN" | ".NAN") => return Some(f64::NAN),
        _ => {}
    }
    unsigned.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// `007` is text in YAML 1.2.
fn has_leading_zero(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    text.len() > 1 && text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What serde_yaml makes of the same text.
    fn judged_by_serde(text: &str) -> &'static str {
        match serde_yaml::from_str::<serde_yaml::Value>(text) {
            Ok(serde_yaml::Value::Null) => "nothing",
            Ok(serde_yaml::Value::Bool(_)) => "a boolean",
            Ok(serde_yaml::Value::Number(_)) => "a number",
            _ => "text",
        }
    }

    #[test]
    fn agrees_with_serde_on_known_words() {
        for text in [
            "", "~", "null", "Null", "nULL", "true", "True", "yes", "on", "off", "0", "-0", "+1", "++1", "007", "-07",
            "0x1F", "0x+1", "0xg", "0o17", "0b101", "-0x1F", "1.5", "-1.5", "1e3", ".5", "1.", ".inf", "+.inf",
            "-.inf", ".nan", "inf", "nan", "1_000", "12:30", "8080", "1h", "0h", "+", "-1", "0x", "+-1",
        ] {
            assert_eq!(meaning(text).describe(), judged_by_serde(text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde(text in "[-+]{0,2}[0-9a-fxoeEbINFinfNa._]{0,6}") {
            prop_assume!(!text.starts_with("- ") && text != "-" && !text.starts_with("---"));
            prop_assert_eq!(meaning(&text).describe(), judged_by_serde(&text));
        }
    }
}
