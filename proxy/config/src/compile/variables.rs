//! Variables: values of a request by name.

use super::{each, keep};
use crate::model::Variable;
use crate::raw;
use crate::report::Report;
use crate::suggest::did_you_mean;
use crate::tree::Spot;
use crate::units::Reason;

const WORDS: [&str; 5] = ["client_address", "host", "method", "path", "target"];

/// Compiles one variable or a list of them.
pub(super) fn variables(raw: raw::Variables, spot: Spot<'_>, report: &mut Report) -> Option<Vec<Variable>> {
    match raw {
        raw::Variables::One(text) => Some(vec![keep(parse(&text), &text, spot, report)?]),
        raw::Variables::Several(list) => {
            let count = list.len();
            let kept = each(list, spot, report, |text, spot, report| keep(parse(&text), &text, spot, report));
            (kept.len() == count).then_some(kept)
        }
    }
}

/// Reads `client_address`, `header:NAME` and the like.
fn parse(text: &str) -> Result<Variable, Reason> {
    match text {
        "client_address" => return Ok(Variable::ClientAddress),
        "host" => return Ok(Variable::Host),
        "method" => return Ok(Variable::Method),
        "path" => return Ok(Variable::Path),
        "target" => return Ok(Variable::Target),
        _ => {}
    }
    let Some((kind, name)) = text.split_once(':') else { return Err(unknown(text)) };
    if name.is_empty() {
        return Err(Reason::new("has no name behind the colon", format!("for example {kind}:x-user-id")));
    }
    match kind {
        "header" => field_name(name).map(Variable::Header),
        "query" => Ok(Variable::Query(name.to_owned())),
        "cookie" => cookie_name(name).map(Variable::Cookie),
        _ => Err(unknown(text)),
    }
}

/// A token (RFC 9110 section 5.6.2), in lower case.
fn field_name(name: &str) -> Result<String, Reason> {
    if name.bytes().all(is_token) {
        return Ok(name.to_ascii_lowercase());
    }
    Err(Reason::new("has characters that no field name has", "write header:x-user-id"))
}

/// A token (RFC 6265 section 4.1.1).
pub(super) fn cookie_name(name: &str) -> Result<String, Reason> {
    if name.bytes().all(is_token) {
        return Ok(name.to_owned());
    }
    Err(Reason::new("has characters that no cookie name has", "write cookie:session"))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn unknown(text: &str) -> Reason {
    let nginx = match text {
        "$remote_addr" | "remote_addr" | "$binary_remote_addr" | "ip" | "client_ip" => Some("client_address"),
        "$request_uri" | "uri" | "$uri" | "url" => Some("target"),
        "$host" => Some("host"),
        _ => None,
    };
    let hint = nginx.map(|word| format!("write {word}")).or_else(|| did_you_mean(text, WORDS));
    let all = "client_address, host, method, path, target, header:NAME, query:NAME or cookie:NAME";
    Reason::new("is no variable", hint.unwrap_or_else(|| format!("write {all}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read() {
        for (text, expected) in [
            ("client_address", Some(Variable::ClientAddress)),
            ("header:X-User-Id", Some(Variable::Header("x-user-id".to_owned()))),
            ("query:page", Some(Variable::Query("page".to_owned()))),
            ("cookie:Sid", Some(Variable::Cookie("Sid".to_owned()))),
            ("header:", None),
            ("header:a b", None),
            ("cookie:a=b", None),
            ("$remote_addr", None),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
    }
}
