//! Templates of the access log, with nginx's variable names.

use crate::model::{AccessFormat, AccessPart, AccessVariable};
use crate::suggest::did_you_mean;
use crate::units::Reason;

/// Every variable with a fixed name.
const VARIABLES: [(&str, AccessVariable); 27] = [
    ("remote_addr", AccessVariable::RemoteAddr),
    ("remote_user", AccessVariable::RemoteUser),
    ("time_local", AccessVariable::TimeLocal),
    ("time_iso8601", AccessVariable::TimeIso8601),
    ("request", AccessVariable::Request),
    ("request_method", AccessVariable::RequestMethod),
    ("request_uri", AccessVariable::RequestUri),
    ("uri", AccessVariable::Uri),
    ("host", AccessVariable::Host),
    ("server_protocol", AccessVariable::ServerProtocol),
    ("scheme", AccessVariable::Scheme),
    ("status", AccessVariable::Status),
    ("body_bytes_sent", AccessVariable::BodyBytesSent),
    ("request_length", AccessVariable::RequestLength),
    ("request_time", AccessVariable::RequestTime),
    ("request_id", AccessVariable::RequestId),
    ("upstream_name", AccessVariable::UpstreamName),
    ("upstream_addr", AccessVariable::UpstreamAddr),
    ("upstream_status", AccessVariable::UpstreamStatus),
    ("upstream_response_time", AccessVariable::UpstreamResponseTime),
    ("upstream_tries", AccessVariable::UpstreamTries),
    ("site", AccessVariable::Site),
    ("route", AccessVariable::Route),
    ("reason", AccessVariable::Reason),
    ("ssl_client_verify", AccessVariable::SslClientVerify),
    ("ssl_client_s_dn", AccessVariable::SslClientSubject),
    ("ssl_client_serial", AccessVariable::SslClientSerial),
];

/// Whether this is the name of a variable.
pub(crate) fn is_variable(name: &str) -> bool {
    variable(name).is_some()
}

fn variable(name: &str) -> Option<AccessVariable> {
    if let Some(header) = name.strip_prefix("http_").filter(|header| !header.is_empty()) {
        return Some(AccessVariable::RequestHeader(header.to_ascii_lowercase().replace('_', "-")));
    }
    VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, variable)| variable.clone())
}

/// Reads `combined`, `json` or a template.
pub(crate) fn parse_format(text: &str) -> Result<AccessFormat, Reason> {
    match text {
        "combined" => Ok(AccessFormat::Combined),
        "json" => Ok(AccessFormat::Json),
        template => parse_template(template).map(AccessFormat::Template),
    }
}

fn parse_template(text: &str) -> Result<Vec<AccessPart>, Reason> {
    if !text.contains('$') {
        let hint = did_you_mean(text, ["combined", "json"])
            .unwrap_or_else(|| "write combined, json, or a template such as \"$remote_addr $status\"".to_owned());
        return Err(Reason::new("is not the shape of a log line", hint));
    }
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Reason::new("has a line break or control character", "a template is one line"));
    }
    let mut parts: Vec<AccessPart> = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        literal.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        rest = after;
        if name.is_empty() {
            literal.push('$');
            continue;
        }
        let variable = variable(name).ok_or_else(|| unknown(name))?;
        if !literal.is_empty() {
            parts.push(AccessPart::Literal(std::mem::take(&mut literal)));
        }
        parts.push(AccessPart::Variable(variable));
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(AccessPart::Literal(literal));
    }
    Ok(parts)
}

fn unknown(name: &str) -> Reason {
    let known = VARIABLES.iter().map(|(known, _)| *known);
    let hint = did_you_mean(name, known.clone()).unwrap_or_else(|| {
        format!("known variables: {}, http_<name of a request header>", known.collect::<Vec<_>>().join(", "))
    });
    Reason::new(format!("has the unknown variable \"${name}\""), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_templates() {
        let literal = |text: &str| AccessPart::Literal(text.to_owned());
        assert_eq!(parse_format("combined"), Ok(AccessFormat::Combined));
        assert_eq!(
            parse_format("$remote_addr - \"$http_user_agent\" $ $status."),
            Ok(AccessFormat::Template(vec![
                AccessPart::Variable(AccessVariable::RemoteAddr),
                literal(" - \""),
                AccessPart::Variable(AccessVariable::RequestHeader("user-agent".into())),
                literal("\" $ "),
                AccessPart::Variable(AccessVariable::Status),
                literal("."),
            ]))
        );
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (text, remedy) in [
            ("combind", "did you mean \"combined\"?"),
            ("$remote_adr", "did you mean \"remote_addr\"?"),
            ("$a\n", "a template is one line"),
        ] {
            assert_eq!(parse_format(text).unwrap_err().hint.as_deref(), Some(remedy), "{text}");
        }
        assert!(parse_format("$http_").is_err());
    }
}
