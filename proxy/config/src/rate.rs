//! Rates of requests as they are written in a file.

use std::time::Duration;

use crate::model::Rate;
use crate::units::{Reason, parse_duration};

const FORM: &str = "rates are written like 10/s, 30/m, 1000/h or 100 per 60s";
const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
const DAY: Duration = Duration::from_secs(86_400);

/// `10/s`, `30/m`, `1000/h`, `100 per 60s`, and nginx's `10r/s`.
pub(crate) fn parse_rate(text: &str) -> Result<Rate, Reason> {
    let (requests, per) = if let Some((requests, per)) = text.split_once(" per ") {
        (requests, parse_duration(per.trim()).map_err(|_| no_rate(text))?)
    } else {
        let (requests, unit) = text.split_once('/').ok_or_else(|| no_rate(text))?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| no_rate(text))?;
        (requests.strip_suffix('r').unwrap_or(requests), Duration::from_secs(*seconds))
    };
    if requests.is_empty() || !requests.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_rate(text));
    }
    let too_much = || Reason::new("is out of range", "rates go from 1/d to 1000000/s");
    let requests: u32 = requests.parse().map_err(|_| too_much())?;
    let apart = per.checked_div(requests).ok_or_else(too_much)?;
    if apart < Duration::from_micros(1) || apart > DAY { Err(too_much()) } else { Ok(Rate { requests, per }) }
}

fn no_rate(text: &str) -> Reason {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Reason::new("has no unit", format!("write {text}/s for requests in a second"));
    }
    Reason::new("is not a rate", FORM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_read() {
        for (text, requests, milliseconds) in [
            ("10/s", 10, 1_000),
            ("10r/s", 10, 1_000),
            ("30/m", 30, 60_000),
            ("30r/m", 30, 60_000),
            ("1000/h", 1_000, 3_600_000),
            ("1/d", 1, 86_400_000),
            ("100 per 60s", 100, 60_000),
            ("5 per 1m30s", 5, 90_000),
            ("1 per 500ms", 1, 500),
            ("1000000/s", 1_000_000, 1_000),
        ] {
            let expected = Rate { requests, per: Duration::from_millis(milliseconds) };
            assert_eq!(parse_rate(text), Ok(expected), "{text}");
            assert_eq!(parse_rate(&expected.to_string()), Ok(expected), "{text} as it prints");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "",
            "10",
            "/s",
            "r/s",
            "10/",
            "10/x",
            "10/5s",
            "-1/s",
            "1.5/s",
            "10 / s",
            "0/s",
            "10 per 0",
            "10 per",
            "per 1s",
            "1 per 2d",
            "1000001/s",
            "1 per 0s",
            "99999999999/s",
            "10rr/s",
        ] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!(parse_rate("10").unwrap_err().hint.as_deref(), Some("write 10/s for requests in a second"));
    }

    proptest! {
        #[test]
        fn no_text_makes_rates_panic(text in "[0-9a-z/ ]{0,16}") {
            let _ = parse_rate(&text);
        }
    }
}
