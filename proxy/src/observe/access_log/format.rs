//! Makes a line of a [`Record`]: nginx's `combined`, JSON, or a template.
//!
//! JSON fields have the names of the template's variables (`time` apart), so that there is one vocabulary.

use std::io::Write;
use std::time::Duration;

use tidegate_config::model::{AccessFormat, AccessPart, AccessVariable};

use super::escape::{push_json, push_nginx};
use super::record::Record;
use super::timestamp::Timestamps;

/// Appends one line with its line break. Allocates nothing but room in `line`.
pub fn format_line(line: &mut Vec<u8>, format: &AccessFormat, record: &Record<'_>, times: &mut Timestamps) {
    match format {
        AccessFormat::Combined => combined(line, record, times),
        AccessFormat::Json => json(line, record, times),
        AccessFormat::Template(parts) => parts.iter().for_each(|part| match part {
            AccessPart::Literal(text) => line.extend_from_slice(text.as_bytes()),
            AccessPart::Variable(variable) => push_variable(line, variable, record, times),
        }),
    }
    line.push(b'\n');
}

/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`
fn combined(line: &mut Vec<u8>, record: &Record<'_>, times: &mut Timestamps) {
    push_remote(line, record);
    line.extend_from_slice(b" - - [");
    line.extend_from_slice(times.local(record.time));
    line.extend_from_slice(b"] \"");
    push_request(line, record);
    push_display(line, format_args!("\" {} {} \"", record.status, record.body_bytes_sent));
    push_or_dash(line, (record.field)("referer"));
    line.extend_from_slice(b"\" \"");
    push_or_dash(line, (record.field)("user-agent"));
    line.push(b'"');
}

fn push_variable(line: &mut Vec<u8>, variable: &AccessVariable, record: &Record<'_>, times: &mut Timestamps) {
    use AccessVariable as V;
    let upstream = record.upstream;
    match variable {
        V::RemoteAddr => push_remote(line, record),
        V::RemoteUser => line.push(b'-'),
        V::TimeLocal => line.extend_from_slice(times.local(record.time)),
        V::TimeIso8601 => line.extend_from_slice(times.iso8601(record.time)),
        V::Request => push_request(line, record),
        V::RequestMethod => push_or_dash(line, Some(record.method)),
        V::RequestUri => push_or_dash(line, Some(record.target)),
        V::Uri => push_or_dash(line, Some(record.path)),
        V::Host => push_or_dash(line, Some(record.host)),
        V::ServerProtocol => push_or_dash(line, Some(record.protocol.as_bytes())),
        V::Scheme => push_or_dash(line, Some(record.scheme.as_bytes())),
        V::Status => push_display(line, format_args!("{:03}", record.status)),
        V::BodyBytesSent => push_display(line, format_args!("{}", record.body_bytes_sent)),
        V::RequestLength => push_display(line, format_args!("{}", record.request_body_bytes)),
        V::RequestTime => push_seconds(line, record.elapsed),
        V::RequestId => push_display(line, format_args!("{:032x}", record.request_id)),
        V::UpstreamName => push_or_dash(line, upstream.map(|upstream| upstream.name.as_bytes())),
        V::UpstreamAddr => push_or_dash(line, upstream.map(|upstream| upstream.address.as_bytes())),
        V::UpstreamStatus => match upstream.and_then(|upstream| upstream.status) {
            Some(status) => push_display(line, format_args!("{status:03}")),
            None => line.push(b'-'),
        },
        V::UpstreamResponseTime => match upstream {
            Some(upstream) => push_seconds(line, upstream.response_time),
            None => line.push(b'-'),
        },
        V::UpstreamTries => match upstream {
            Some(upstream) => push_display(line, format_args!("{}", upstream.tries)),
            None => line.push(b'-'),
        },
        V::Site => push_or_dash(line, Some(record.site.as_bytes())),
        V::Route => push_or_dash(line, Some(record.route.as_bytes())),
        V::Reason => push_or_dash(line, record.reason.map(str::as_bytes)),
        V::SslClientVerify => push_or_dash(line, Some(record.certificate.verify().as_bytes())),
        V::SslClientSubject => {
            push_or_dash(line, record.certificate.identity().map(|client| client.subject.as_bytes()))
        }
        V::SslClientSerial => push_or_dash(line, record.certificate.identity().map(|client| client.serial.as_bytes())),
        V::RequestHeader(name) => push_or_dash(line, (record.field)(name)),
    }
}

fn json(line: &mut Vec<u8>, record: &Record<'_>, times: &mut Timestamps) {
    line.extend_from_slice(b"{\"time\":\"");
    times.push_precise(line, record.time);
    line.extend_from_slice(b"\",\"remote_addr\":\"");
    push_remote(line, record);
    line.push(b'"');
    push_field(line, "request_method", Some(record.method));
    push_field(line, "request_uri", Some(record.target));
    push_field(line, "uri", Some(record.path));
    push_field(line, "host", Some(record.host));
    push_field(line, "server_protocol", Some(record.protocol.as_bytes()));
    push_field(line, "scheme", Some(record.scheme.as_bytes()));
    push_display(line, format_args!(",\"status\":{}", record.status));
    push_display(line, format_args!(",\"body_bytes_sent\":{}", record.body_bytes_sent));
    push_display(line, format_args!(",\"request_length\":{}", record.request_body_bytes));
    line.extend_from_slice(b",\"request_time\":");
    push_seconds(line, record.elapsed);
    push_display(line, format_args!(",\"request_id\":\"{:032x}\"", record.request_id));
    push_field(line, "site", Some(record.site.as_bytes()));
    push_field(line, "route", Some(record.route.as_bytes()));
    if let Some(upstream) = record.upstream {
        push_field(line, "upstream_name", Some(upstream.name.as_bytes()));
        push_field(line, "upstream_addr", Some(upstream.address.as_bytes()));
        if let Some(status) = upstream.status {
            push_display(line, format_args!(",\"upstream_status\":{status}"));
        }
        line.extend_from_slice(b",\"upstream_response_time\":");
        push_seconds(line, upstream.response_time);
        push_display(line, format_args!(",\"upstream_tries\":{}", upstream.tries));
    }
    if let Some(client) = record.certificate.identity() {
        push_field(line, "ssl_client_s_dn", Some(client.subject.as_bytes()));
        push_field(line, "ssl_client_serial", Some(client.serial.as_bytes()));
    }
    push_field(line, "reason", record.reason.map(str::as_bytes));
    push_field(line, "http_referer", (record.field)("referer"));
    push_field(line, "http_user_agent", (record.field)("user-agent"));
    line.push(b'}');
}

/// `,"name":"value"`; nothing without a value.
fn push_field(line: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return };
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":\"");
    push_json(line, value);
    line.push(b'"');
}

/// The request line, `-` when there was none.
fn push_request(line: &mut Vec<u8>, record: &Record<'_>) {
    if record.method.is_empty() {
        line.push(b'-');
        return;
    }
    push_nginx(line, record.method);
    line.push(b' ');
    push_nginx(line, record.target);
    line.push(b' ');
    line.extend_from_slice(record.protocol.as_bytes());
}

/// The client's address; `unix:` as nginx has it. An IPv4 client of an IPv6 socket is an IPv4 client.
fn push_remote(line: &mut Vec<u8>, record: &Record<'_>) {
    match record.remote_addr {
        Some(address) => push_display(line, format_args!("{}", address.to_canonical())),
        None => line.extend_from_slice(b"unix:"),
    }
}

fn push_or_dash(line: &mut Vec<u8>, value: Option<&[u8]>) {
    match value.filter(|value| !value.is_empty()) {
        Some(value) => push_nginx(line, value),
        None => line.push(b'-'),
    }
}

/// Seconds with three decimals.
fn push_seconds(line: &mut Vec<u8>, duration: Duration) {
    push_display(line, format_args!("{}.{:03}", duration.as_secs(), duration.subsec_millis()));
}

fn push_display(line: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into memory does not fail.
    let _ = line.write_fmt(text);
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
