//! Shares and factors as they are written in a file.

use crate::units::Reason;

/// `50%`: 1 to 100 in whole percent.
pub(crate) fn parse_percent(text: &str) -> Result<u8, Reason> {
    let form = "shares are written like 50%, from 1% to 100%";
    let Some(number) = text.strip_suffix('%') else {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let hint = if digits { format!("write {text}%") } else { form.to_owned() };
        return Err(Reason::new("is not a share", hint));
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Reason::new("is not a share", form));
    }
    number.parse().ok().filter(|share| (1..=100).contains(share)).ok_or_else(|| Reason::new("is out of range", form))
}

/// `0.5%`, in thousandths: 0.1% to 1000%, with one digit behind the point at most.
pub(crate) fn parse_delta(text: &str) -> Result<u16, Reason> {
    let form = "differences are written like 50% or 0.5%, from 0.1% to 1000%";
    let wrong = || Reason::new("is not a difference in percent", form);
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(tenths) || tenths.len() > 1 {
        return Err(wrong());
    }
    let thousandths = format!("{whole}{tenths}").parse().ok().filter(|delta| (1..=10_000).contains(delta));
    thousandths.ok_or_else(|| Reason::new("is out of range", form))
}

/// `1.9`: 0.1 to 10.
pub(crate) fn parse_factor(text: &str) -> Result<f64, Reason> {
    let form = "factors are written like 1.9, from 0.1 to 10";
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(Reason::new("is not a factor", form));
    }
    let number: f64 = text.parse().map_err(|_| Reason::new("is not a factor", form))?;
    if (0.1..=10.0).contains(&number) { Ok(number) } else { Err(Reason::new("is out of range", form)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_factors_are_read() {
        assert_eq!(["1%", "50%", "100%"].map(|text| parse_percent(text).unwrap()), [1, 50, 100]);
        for text in ["", "%", "50", "0%", "101%", "300%", "5.5%", "-5%", "+5%", "50 %", "half"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
        assert_eq!(
            ["0.1%", "1%", "1.5%", "50%", "100%", "1000%", "0001%"].map(|text| parse_delta(text).unwrap()),
            [1, 10, 15, 500, 1_000, 10_000, 10]
        );
        for text in
            ["", "%", "1", "0%", "0.0%", "1000.1%", "1.25%", ".5%", "1.%", "-1%", "+1%", "1 %", "99999999999%", "off"]
        {
            assert!(parse_delta(text).is_err(), "{text}");
        }
        assert_eq!(["0.1", "1.9", "2", "10"].map(|text| parse_factor(text).unwrap()), [0.1, 1.9, 2.0, 10.0]);
        for text in ["", ".", "1.2.3", "0", "0.05", "10.1", "-1", "1e1", "inf", "NaN"] {
            assert!(parse_factor(text).is_err(), "{text}");
        }
    }
}
