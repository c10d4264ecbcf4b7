//! The only place where a refusal becomes a status, a reason header and a body.

use super::fields::FieldList;
use bytes::Bytes;
use std::time::SystemTime;
use tidegate_config::model::FixedResponse;
use tidegate_http1::{RequestError, canonical_reason};
use tidegate_traffic::{Refusal, RefusalKind, RequestId};

/// Names why we answered ourselves.
pub(crate) const REASON_HEADER: &str = "x-tidegate-reason";

/// An answer of our own.
#[derive(Debug)]
pub(crate) struct OwnResponse {
    /// Its status.
    pub(crate) status: u16,
    /// Its fields, without framing.
    pub(crate) fields: Vec<(String, String)>,
    /// Its body.
    pub(crate) body: Bytes,
}

impl OwnResponse {
    /// Its fields in the shape that serialisers take.
    pub(crate) fn fields(&self) -> FieldList<'_> {
        FieldList(&self.fields)
    }
}

/// The status that a client sees for a refusal.
pub(crate) const fn status(kind: RefusalKind) -> u16 {
    match kind {
        RefusalKind::BadRequest => 400,
        RefusalKind::UnknownHost | RefusalKind::NoRoute => 404,
        RefusalKind::MethodNotAllowed => 405,
        RefusalKind::ClientHeadTimeout | RefusalKind::ClientBodyTimeout => 408,
        RefusalKind::BodyTooLarge => 413,
        RefusalKind::TargetTooLong => 414,
        RefusalKind::ExpectationFailed => 417,
        RefusalKind::Misdirected => 421,
        RefusalKind::HeadTooLarge => 431,
        // nginx's number for a client that left; seen in logs only.
        RefusalKind::ClientClosed => 499,
        RefusalKind::Internal => 500,
        RefusalKind::UnsupportedCoding => 501,
        RefusalKind::ConnectFailed | RefusalKind::UpstreamClosed | RefusalKind::UpstreamBadResponse => 502,
        RefusalKind::NoEndpoint | RefusalKind::NotReadyInTime | RefusalKind::ShuttingDown => 503,
        RefusalKind::ConnectTimeout
        | RefusalKind::UpstreamWriteTimeout
        | RefusalKind::HeadTimeout
        | RefusalKind::UpstreamReadTimeout => 504,
        RefusalKind::UnsupportedVersion => 505,
    }
}

/// The refusal for a request head that the codec refuses.
pub(crate) fn of_request_error(error: &RequestError) -> Refusal {
    let kind = match error.status() {
        405 => RefusalKind::MethodNotAllowed,
        414 => RefusalKind::TargetTooLong,
        417 => RefusalKind::ExpectationFailed,
        431 => RefusalKind::HeadTooLarge,
        501 => RefusalKind::UnsupportedCoding,
        505 => RefusalKind::UnsupportedVersion,
        _ => RefusalKind::BadRequest,
    };
    Refusal::new(kind, error.to_string())
}

/// The answer to a refused request; `accept` is the client's Accept field.
pub(crate) fn response(refusal: &Refusal, accept: Option<&[u8]>, id: RequestId, now: SystemTime) -> OwnResponse {
    let status = status(refusal.kind);
    let json = accept.is_some_and(prefers_json);
    let digits = id.digits();
    let id = String::from_utf8_lossy(&digits).into_owned();
    let (kind, body) =
        if json { ("application/json", json_body(status, refusal, &id)) } else { text_body(status, refusal, &id) };
    let mut fields = vec![
        ("date".to_owned(), httpdate::fmt_http_date(now)),
        ("content-type".to_owned(), kind.to_owned()),
        ("cache-control".to_owned(), "no-store".to_owned()),
        (REASON_HEADER.to_owned(), refusal.reason().to_owned()),
        ("x-request-id".to_owned(), id),
    ];
    if status == 503 {
        fields.push(("retry-after".to_owned(), "1".to_owned()));
    }
    if status == 405 {
        fields.push(("allow".to_owned(), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned()));
    }
    OwnResponse { status, fields, body }
}

fn json_body(status: u16, refusal: &Refusal, id: &str) -> Bytes {
    let body = serde_json::json!({
        "status": status,
        "error": canonical_reason(status),
        "reason": refusal.reason(),
        "message": refusal.client_text(),
        "retryable": refusal.retryable(),
        "request_id": id,
    });
    Bytes::from(format!("{body}\n"))
}

fn text_body(status: u16, refusal: &Refusal, id: &str) -> (&'static str, Bytes) {
    let title = canonical_reason(status);
    let text = format!("{status} {title}\n{}\nrequest {id}\n", refusal.client_text());
    ("text/plain; charset=utf-8", Bytes::from(text))
}

/// The answer that a route gives by itself.
pub(crate) fn fixed(answer: &FixedResponse, id: RequestId, now: SystemTime) -> OwnResponse {
    let mut fields = vec![("date".to_owned(), httpdate::fmt_http_date(now))];
    fields.extend(answer.headers.iter().cloned());
    let digits = id.digits();
    fields.push(("x-request-id".to_owned(), String::from_utf8_lossy(&digits).into_owned()));
    OwnResponse { status: answer.status, fields, body: Bytes::copy_from_slice(&answer.body) }
}

/// Whether JSON is asked for before HTML or plain text: an API client names it, a browser does not.
fn prefers_json(accept: &[u8]) -> bool {
    let Ok(accept) = std::str::from_utf8(accept) else { return false };
    for range in accept.split(',') {
        let kind = range.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("text/plain") {
            return false;
        }
        if kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{prefers_json, response, status};
    use std::time::SystemTime;
    use tidegate_traffic::{Fields, Refusal, RefusalKind, RequestId};

    #[test]
    fn every_kind_has_an_error_status() {
        for kind in RefusalKind::ALL {
            assert!((400..600).contains(&status(*kind)), "{kind:?}");
        }
    }

    #[test]
    fn json_is_for_those_who_ask_for_it() {
        for (accept, json) in [
            ("application/json", true),
            ("application/problem+json, */*", true),
            ("text/html,application/xhtml+xml,application/json;q=0.9", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(prefers_json(accept.as_bytes()), json, "{accept}");
        }
    }

    #[test]
    fn the_operators_text_never_reaches_the_client() {
        let refusal = Refusal::new(RefusalKind::ConnectFailed, "10.1.2.3:8000 refused");
        for accept in [None, Some(&b"application/json"[..])] {
            let answer = response(&refusal, accept, RequestId(7), SystemTime::UNIX_EPOCH);
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, 502);
            assert!(!body.contains("10.1.2.3"), "{body}");
            assert_eq!(answer.fields().first(super::REASON_HEADER), Some(&b"connect_failed"[..]));
        }
    }
}
