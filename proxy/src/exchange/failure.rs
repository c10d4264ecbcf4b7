//! The only place where a refusal becomes a status, a reason header and a body.

use super::broken_page;
use super::error_page::{self, Values};
use super::fields::FieldList;
use bytes::Bytes;
use std::time::SystemTime;
use tidegate_config::model::{ErrorPage, ErrorPages, FixedResponse};
use tidegate_http1::{RequestError, canonical_reason};
use tidegate_traffic::limit::LimitFields;
use tidegate_traffic::{Fields, HttpVersion, Refusal, RefusalKind, RequestId};

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
    /// Adds what the client is to know of its limits.
    pub(crate) fn tell(&mut self, limits: &LimitFields) {
        self.fields.extend(limits.iter().map(|(name, value)| (name.to_owned(), value)));
    }

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
        RefusalKind::Misdirected | RefusalKind::TlsPolicyChanged => 421,
        RefusalKind::RateLimited => 429,
        RefusalKind::HeadTooLarge => 431,
        // nginx's number for a client that left; seen in logs only.
        RefusalKind::ClientClosed => 499,
        RefusalKind::Internal | RefusalKind::BrokenVersion => 500,
        RefusalKind::UnsupportedCoding => 501,
        RefusalKind::ConnectFailed
        | RefusalKind::UpstreamTls
        | RefusalKind::UpstreamClosed
        | RefusalKind::UpstreamBadResponse => 502,
        RefusalKind::NoEndpoint
        | RefusalKind::NoWorker
        | RefusalKind::Crashloop
        | RefusalKind::Draining
        | RefusalKind::TunnelsFull
        | RefusalKind::BreakerOpen
        | RefusalKind::ConcurrencyLimited
        | RefusalKind::QueueFull
        | RefusalKind::QueueLate
        | RefusalKind::QueueTimeout
        | RefusalKind::NotReadyInTime
        | RefusalKind::ShuttingDown
        | RefusalKind::OutOfResources => 503,
        RefusalKind::ConnectTimeout
        | RefusalKind::Deadline
        | RefusalKind::UpstreamWriteTimeout
        | RefusalKind::HeadTimeout
        | RefusalKind::RequestTimeout
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

/// How a client is told of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A few lines.
    Text,
    /// The same as a page, for a browser.
    Html,
    /// An object, for a client that asks for JSON.
    Json,
    /// An answer of trailers alone, which is how gRPC tells of errors: its clients read no body but their messages.
    Grpc,
}

impl Form {
    /// What suits the client that sent these fields. gRPC is spoken over HTTP/2 only.
    pub(crate) fn of(version: HttpVersion, fields: &dyn Fields) -> Self {
        if version == HttpVersion::Http2 && fields.first("content-type").is_some_and(is_grpc) {
            return Self::Grpc;
        }
        fields.first("accept").map_or(Self::Text, Self::accepted)
    }

    /// What is named first: an API client names JSON, and a browser HTML.
    fn accepted(accept: &[u8]) -> Self {
        let kinds = std::str::from_utf8(accept).unwrap_or_default().split(',');
        let kinds = kinds.map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let form = |kind: String| match kind.as_str() {
            "text/html" | "application/xhtml+xml" => Some(Self::Html),
            "text/plain" => Some(Self::Text),
            "application/json" => Some(Self::Json),
            kind => kind.ends_with("+json").then_some(Self::Json),
        };
        kinds.filter_map(form).next().unwrap_or(Self::Text)
    }
}

/// The answer to a refused request; `pages` are those of its route or site.
pub(crate) fn response(
    refusal: &Refusal,
    form: Form,
    pages: Option<&ErrorPages>,
    id: RequestId,
    now: SystemTime,
) -> OwnResponse {
    let status = refusal.status.unwrap_or(status(refusal.kind));
    let digits = id.digits();
    let id = String::from_utf8_lossy(&digits).into_owned();
    let (kind, body) = match (page(refusal, status, form, pages), form) {
        (_, Form::Grpc) => return trailers_only(refusal, id, now),
        (Some(page), _) => page_body(page, status, refusal, &id),
        (None, Form::Text) => text_body(status, refusal, &id),
        (None, Form::Html) => ("text/html; charset=utf-8", html_body(status, refusal, &id)),
        (None, Form::Json) => ("application/json", json_body(status, refusal, &id)),
    };
    let mut fields = vec![
        ("date".to_owned(), date(now)),
        ("content-type".to_owned(), kind.to_owned()),
        ("cache-control".to_owned(), "no-store".to_owned()),
        (REASON_HEADER.to_owned(), refusal.reason().to_owned()),
        ("x-request-id".to_owned(), id),
    ];
    if let Some(seconds) = retry_after(refusal, status) {
        fields.push(("retry-after".to_owned(), seconds.to_string()));
    }
    if status == 405 {
        fields.push(("allow".to_owned(), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned()));
    }
    OwnResponse { status, fields, body }
}

/// The operator's page, where there is one. What is shown to developers goes before it: it is what they wait for.
fn page<'a>(refusal: &Refusal, status: u16, form: Form, pages: Option<&'a ErrorPages>) -> Option<&'a ErrorPage> {
    let pages = pages.filter(|_| refusal.shown.is_none())?;
    error_page::chosen(pages.of(status), form)
}

fn page_body(page: &ErrorPage, status: u16, refusal: &Refusal, request_id: &str) -> (&'static str, Bytes) {
    let (error, reason, message) = (canonical_reason(status), refusal.reason(), refusal.client_text());
    let values = Values { status, error, reason, message, request_id };
    (error_page::content_type(page.kind), error_page::body(page, &values))
}

/// Seconds after which a client may come again, where that is known or soon; never 0, which would be at once.
fn retry_after(refusal: &Refusal, status: u16) -> Option<u64> {
    match refusal.retry_after {
        Some(time) => Some((time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)),
        None => (status == 503).then_some(1),
    }
}

/// HTTP/2 sends it as one block of fields that ends the stream.
fn trailers_only(refusal: &Refusal, id: String, now: SystemTime) -> OwnResponse {
    let mut fields = vec![
        ("date".to_owned(), date(now)),
        ("content-type".to_owned(), "application/grpc".to_owned()),
        ("grpc-status".to_owned(), grpc_status(refusal.kind).to_string()),
        ("grpc-message".to_owned(), percent_encoded(refusal.client_text())),
        (REASON_HEADER.to_owned(), refusal.reason().to_owned()),
        ("x-request-id".to_owned(), id),
    ];
    fields
        .extend(refusal.retry_after.and(retry_after(refusal, 200)).map(|s| ("retry-after".to_owned(), s.to_string())));
    OwnResponse { status: 200, fields, body: Bytes::new() }
}

/// The gRPC status for a refusal, as gRPC's own table maps HTTP statuses, and closer where we know more: a client may
/// repeat what is UNAVAILABLE, so an endpoint that may have done its work is not.
const fn grpc_status(kind: RefusalKind) -> u8 {
    const CANCELLED: u8 = 1;
    const DEADLINE_EXCEEDED: u8 = 4;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    match kind {
        RefusalKind::ClientClosed => CANCELLED,
        RefusalKind::ClientHeadTimeout
        | RefusalKind::ClientBodyTimeout
        | RefusalKind::Deadline
        | RefusalKind::UpstreamWriteTimeout
        | RefusalKind::HeadTimeout
        | RefusalKind::RequestTimeout
        | RefusalKind::UpstreamReadTimeout => DEADLINE_EXCEEDED,
        RefusalKind::BodyTooLarge
        | RefusalKind::TargetTooLong
        | RefusalKind::HeadTooLarge
        | RefusalKind::RateLimited
        | RefusalKind::ConcurrencyLimited => RESOURCE_EXHAUSTED,
        RefusalKind::UnknownHost
        | RefusalKind::NoRoute
        | RefusalKind::MethodNotAllowed
        | RefusalKind::Misdirected
        | RefusalKind::UnsupportedCoding
        | RefusalKind::UnsupportedVersion => UNIMPLEMENTED,
        RefusalKind::BadRequest | RefusalKind::ExpectationFailed | RefusalKind::Internal => INTERNAL,
        RefusalKind::ConnectFailed
        | RefusalKind::UpstreamClosed
        | RefusalKind::UpstreamBadResponse
        | RefusalKind::NoEndpoint
        | RefusalKind::NoWorker
        | RefusalKind::Crashloop
        | RefusalKind::BrokenVersion
        | RefusalKind::Draining
        | RefusalKind::TunnelsFull
        | RefusalKind::BreakerOpen
        | RefusalKind::QueueFull
        | RefusalKind::QueueLate
        | RefusalKind::QueueTimeout
        | RefusalKind::NotReadyInTime
        | RefusalKind::ShuttingDown
        | RefusalKind::OutOfResources
        | RefusalKind::TlsPolicyChanged
        | RefusalKind::UpstreamTls
        | RefusalKind::ConnectTimeout => UNAVAILABLE,
    }
}

/// As gRPC wants its messages: printable ASCII, and the rest, `%` included, in percent signs.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// `application/grpc`, `application/grpc+proto`, with parameters or without; not `application/grpc-web`, which is
/// another protocol.
fn is_grpc(content_type: &[u8]) -> bool {
    let Some((name, rest)) = content_type.split_at_checked(GRPC.len()) else { return false };
    name.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

const GRPC: &[u8] = b"application/grpc";

/// Value of the `Date` field (RFC 9110 section 5.6.7).
pub(crate) fn date(now: SystemTime) -> String {
    httpdate::fmt_http_date(now)
}

fn json_body(status: u16, refusal: &Refusal, id: &str) -> Bytes {
    let mut body = serde_json::json!({
        "status": status,
        "error": canonical_reason(status),
        "reason": refusal.reason(),
        "message": refusal.client_text(),
        "retryable": refusal.retryable(),
        "request_id": id,
    });
    if let Some(text) = &refusal.shown {
        body["output"] = (**text).into();
    }
    Bytes::from(format!("{body}\n"))
}

/// Nothing in it comes from outside, but what is shown to developers.
fn html_body(status: u16, refusal: &Refusal, id: &str) -> Bytes {
    if let Some(text) = &refusal.shown {
        return broken_page::page(refusal.client_text(), text, id);
    }
    let title = canonical_reason(status);
    Bytes::from(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{status} {title}</title>\n<h1>{title}</h1>\n\
         <p>{}</p>\n<p><small>request {id}</small></p>\n</html>\n",
        refusal.client_text()
    ))
}

fn text_body(status: u16, refusal: &Refusal, id: &str) -> (&'static str, Bytes) {
    let title = canonical_reason(status);
    let shown = refusal.shown.as_ref().map(|text| format!("\n{text}\n\n")).unwrap_or_default();
    let text = format!("{status} {title}\n{}\n{shown}request {id}\n", refusal.client_text());
    ("text/plain; charset=utf-8", Bytes::from(text))
}

/// The answer that a route gives by itself.
pub(crate) fn fixed(answer: &FixedResponse, id: RequestId, now: SystemTime) -> OwnResponse {
    let mut fields = vec![("date".to_owned(), date(now))];
    fields.extend(answer.headers.iter().cloned());
    let digits = id.digits();
    fields.push(("x-request-id".to_owned(), String::from_utf8_lossy(&digits).into_owned()));
    OwnResponse { status: answer.status, fields, body: Bytes::copy_from_slice(&answer.body) }
}

#[cfg(test)]
mod tests {
    use super::{Form, grpc_status, is_grpc, percent_encoded, response, status};
    use std::collections::BTreeSet;
    use std::time::SystemTime;
    use tidegate_config::model::ErrorPages;
    use tidegate_traffic::{Fields, Refusal, RefusalKind, RequestId};

    #[test]
    fn every_kind_has_an_error_status() {
        for kind in RefusalKind::ALL {
            assert!((400..600).contains(&status(*kind)), "{kind:?}");
        }
    }

    /// Those of which a file may ask for a page without being told that no answer has it.
    #[test]
    fn the_statuses_of_pages_are_those_of_refusals() {
        let ours: BTreeSet<u16> = RefusalKind::ALL.iter().map(|kind| status(*kind)).collect();
        let nobodys = status(RefusalKind::ClientClosed);
        assert!(ours.into_iter().filter(|status| *status != nobodys).eq(ErrorPages::STATUSES));
    }

    #[test]
    fn each_client_gets_what_it_names_first() {
        for (accept, form) in [
            ("application/json", Form::Json),
            ("application/problem+json, */*", Form::Json),
            ("Application/JSON, text/html", Form::Json),
            ("text/html,application/xhtml+xml,application/json;q=0.9", Form::Html),
            ("application/xhtml+xml;q=0.5", Form::Html),
            ("image/avif, text/html", Form::Html),
            ("text/plain, text/html", Form::Text),
            ("*/*", Form::Text),
            ("", Form::Text),
            ("\u{e9}", Form::Text),
        ] {
            assert_eq!(Form::accepted(accept.as_bytes()), form, "{accept}");
        }
        assert_eq!(Form::accepted(b"\xff"), Form::Text);
    }

    #[test]
    fn no_text_of_ours_is_markup() {
        for kind in RefusalKind::ALL {
            assert!(!kind.client_text().contains(['<', '>', '&', '"']), "{kind:?}");
        }
    }

    #[test]
    fn grpc_is_told_from_its_neighbours() {
        for (content_type, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC+json", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(content_type.as_bytes()), grpc, "{content_type}");
        }
        for (text, encoded) in [("plain, ~text", "plain, ~text"), ("100%\n\u{e9}", "100%25%0A%C3%A9"), ("", "")] {
            assert_eq!(percent_encoded(text), encoded);
        }
    }

    #[test]
    fn grpc_clients_get_their_own_status_and_no_body() {
        for kind in RefusalKind::ALL {
            let answer =
                response(&Refusal::new(*kind, "10.1.2.3"), Form::Grpc, None, RequestId(7), SystemTime::UNIX_EPOCH);
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{kind:?}");
            let status = grpc_status(*kind).to_string();
            assert_eq!(answer.fields().first("grpc-status"), Some(status.as_bytes()), "{kind:?}");
            assert!(!format!("{:?}", answer.fields).contains("10.1.2.3"), "{kind:?}");
        }
        // UNAVAILABLE is what clients repeat without asking: only for what no endpoint has worked on, or has broken.
        for (kind, number) in [
            (RefusalKind::ConnectFailed, 14),
            (RefusalKind::NoEndpoint, 14),
            (RefusalKind::UpstreamClosed, 14),
            (RefusalKind::HeadTimeout, 4),
            (RefusalKind::BodyTooLarge, 8),
            (RefusalKind::ConcurrencyLimited, 8),
            (RefusalKind::NoRoute, 12),
            (RefusalKind::BadRequest, 13),
            (RefusalKind::ClientClosed, 1),
        ] {
            assert_eq!(grpc_status(kind), number, "{kind:?}");
        }
    }

    #[test]
    fn the_operators_text_never_reaches_the_client() {
        let refusal = Refusal::new(RefusalKind::ConnectFailed, "10.1.2.3:8000 refused");
        for form in [Form::Text, Form::Html, Form::Json] {
            let answer = response(&refusal, form, None, RequestId(7), SystemTime::UNIX_EPOCH);
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, 502);
            assert!(!body.contains("10.1.2.3"), "{body}");
            assert_eq!(answer.fields().first(super::REASON_HEADER), Some(&b"connect_failed"[..]));
        }
    }
}
