//! Pages of the operator's for answers of our own: which one a client gets, and what it then says.

use super::broken_page::escaped;
use super::failure::Form;
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::sync::Arc;
use tidegate_config::model::{ErrorPage, PageKind, PageValue, Piece};

/// What is filled in.
pub(super) struct Values<'a> {
    pub(super) status: u16,
    pub(super) error: &'a str,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
    pub(super) request_id: &'a str,
}

/// The page of the kind that a client asks for, else the first. A client that asks for JSON reads nothing else, so without
/// such a page it gets none, and our own form is right.
pub(super) fn chosen(pages: &[ErrorPage], form: Form) -> Option<&ErrorPage> {
    let kind = match form {
        Form::Text => PageKind::Text,
        Form::Html => PageKind::Html,
        Form::Json => PageKind::Json,
        Form::Grpc => return None,
    };
    let suited = pages.iter().find(|page| page.kind == kind);
    suited.or_else(|| pages.first().filter(|_| form != Form::Json))
}

pub(super) const fn content_type(kind: PageKind) -> &'static str {
    match kind {
        PageKind::Html => "text/html; charset=utf-8",
        PageKind::Json => "application/json",
        PageKind::Text => "text/plain; charset=utf-8",
    }
}

/// The page with its values. One without any is not copied.
pub(super) fn body(page: &ErrorPage, values: &Values<'_>) -> Bytes {
    if let [Piece::Text(text)] = &*page.pieces {
        return Bytes::from_owner(Arc::clone(text));
    }
    let mut body = BytesMut::new();
    for piece in page.pieces.iter() {
        match piece {
            Piece::Text(text) => body.extend_from_slice(text),
            Piece::Value(value) => body.extend_from_slice(values.text(*value, page.kind).as_bytes()),
        }
    }
    body.freeze()
}

impl Values<'_> {
    /// Whatever a value holds, it is text in the page.
    fn text(&self, value: PageValue, kind: PageKind) -> Cow<'_, str> {
        let text = match value {
            PageValue::Status => return self.status.to_string().into(),
            PageValue::Error => self.error,
            PageValue::Reason => self.reason,
            PageValue::Message => self.message,
            PageValue::RequestId => self.request_id,
        };
        match kind {
            PageKind::Html => escaped(text).into(),
            PageKind::Json => json_escaped(text).into(),
            PageKind::Text => text.into(),
        }
    }
}

/// What stands between the quotes of a JSON string.
fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(kind: PageKind, pieces: &[Piece]) -> ErrorPage {
        ErrorPage { file: "page".to_owned(), kind, pieces: pieces.into() }
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.as_bytes().into())
    }

    #[test]
    fn each_client_gets_the_page_that_it_asks_for() {
        let [html, json, plain] = [PageKind::Html, PageKind::Json, PageKind::Text].map(|kind| page(kind, &[]));
        let both = [html.clone(), json.clone()];
        let all = [json.clone(), plain, html.clone()];
        for (pages, form, expected) in [
            (&both[..], Form::Html, Some(PageKind::Html)),
            (&both, Form::Json, Some(PageKind::Json)),
            (&both, Form::Text, Some(PageKind::Html)),
            (&both, Form::Grpc, None),
            (&all, Form::Text, Some(PageKind::Text)),
            (&all, Form::Html, Some(PageKind::Html)),
            (&[html], Form::Json, None),
            (&[json], Form::Html, Some(PageKind::Json)),
            (&[], Form::Html, None),
        ] {
            assert_eq!(chosen(pages, form).map(|page| page.kind), expected, "{form:?}");
        }
    }

    #[test]
    fn no_value_is_more_than_text() {
        let nasty = "<script>\"\\\u{1}&'";
        let values = Values { status: 503, error: nasty, reason: nasty, message: nasty, request_id: nasty };
        for value in [PageValue::Error, PageValue::Reason, PageValue::Message, PageValue::RequestId] {
            let pieces = [text("<p title=\""), Piece::Value(value), text("\">")];
            let html = body(&page(PageKind::Html, &pieces), &values);
            assert_eq!(&html[..], "<p title=\"&lt;script&gt;&quot;\\\u{1}&amp;&#39;\">".as_bytes());
            let pieces = [text("{\"a\":\""), Piece::Value(value), text("\"}")];
            let json: serde_json::Value =
                serde_json::from_slice(&body(&page(PageKind::Json, &pieces), &values)).unwrap();
            assert_eq!(json["a"], nasty);
            assert_eq!(&body(&page(PageKind::Text, &[Piece::Value(value)]), &values)[..], nasty.as_bytes());
        }
        assert_eq!(&body(&page(PageKind::Json, &[Piece::Value(PageValue::Status)]), &values)[..], b"503");
    }
}
