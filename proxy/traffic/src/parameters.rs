//! Query parameters and cookies of a request, read where they stand.
//!
//! Nothing is allocated for a parameter, so a request with 100,000 of them costs one pass.

use crate::head::Fields;

/// Values of the query parameters of this name, as sent. Names are percent-decoded, `+` is a space, and a parameter
/// without `=` has an empty value.
pub(crate) fn query<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (!parameter.is_empty() && decoded(key).eq(name.bytes())).then_some(value)
    })
}

/// Visits the cookies of this name as they stand in the fields: without decoding, quotation marks included (RFC 6265
/// section 5.4).
pub(crate) fn cookies(fields: &dyn Fields, name: &str, visit: &mut dyn FnMut(&[u8])) {
    each_cookie(fields, &mut |pair| {
        let (key, value) = split_at_equals(pair);
        if key == name.as_bytes() {
            visit(value);
        }
    });
}

/// Visits the cookies of all other names, each with its name.
pub(crate) fn other_cookies(fields: &dyn Fields, name: &str, visit: &mut dyn FnMut(&[u8])) {
    each_cookie(fields, &mut |pair| {
        if split_at_equals(pair).0 != name.as_bytes() {
            visit(pair);
        }
    });
}

fn each_cookie(fields: &dyn Fields, visit: &mut dyn FnMut(&[u8])) {
    fields.all("cookie", &mut |line| {
        line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).for_each(&mut *visit);
    });
}

fn split_at_equals(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(place) => (pair[..place].trim_ascii_end(), pair[place + 1..].trim_ascii_start()),
        None => (pair, &[]),
    }
}

/// Decoded bytes of a form-encoded text; an escape that is none stands for itself.
pub(crate) fn decoded(text: &str) -> impl Iterator<Item = u8> {
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
