//! Pages for answers of our own: which file for which status, and what is in it.
//!
//! Files are read here, so that a page that is missing is a fault of the file and not of a request later, and so that a
//! request never waits for a disk. A file that changes is taken by the next reload.

use std::sync::Arc;

use super::Scene;
use super::file_path;
use crate::environment::ReadError;
use crate::fault::Code;
use crate::model::{ErrorPage, ErrorPages, PageKind, PageStatus, PageValue, Piece};
use crate::raw::{ErrorPageChoice, Named};
use crate::report::Report;
use crate::tree::Spot;

/// Longest file: an answer of our own is made when there is no time to lose.
const LARGEST_PAGE: u64 = 256 << 10;
/// The word that asks for our own form.
const OFF: &str = "off";

/// Those of the route or site around it, and over them these.
pub(super) fn error_pages(
    outer: &Arc<ErrorPages>,
    written: Option<Box<Named<ErrorPageChoice>>>,
    spot: Spot<'_>,
    scene: &Scene<'_>,
    report: &mut Report,
) -> Arc<ErrorPages> {
    let Some(written) = written else { return Arc::clone(outer) };
    let Named(entries) = *written;
    let mut all = ErrorPages::clone(outer);
    for (key, choice) in entries {
        let spot = spot.key(&key);
        let status = status(&key, spot, report);
        let pages = pages(choice, spot, scene, report);
        if let Some(status) = status {
            all.set(status, pages);
        }
    }
    Arc::new(all)
}

fn status(key: &str, spot: Spot<'_>, report: &mut Report) -> Option<PageStatus> {
    let digits = key.len() == 3 && key.bytes().all(|byte| byte.is_ascii_digit());
    let status = match key {
        "4xx" => Some(PageStatus::Client),
        "5xx" => Some(PageStatus::Server),
        _ if digits => key.parse().ok().filter(|status| (400..600).contains(status)).map(PageStatus::One),
        _ => None,
    };
    if status.is_none() {
        let problem = format!("\"{key}\" is no status of a refused request");
        let hint = "write one from 400 to 599, or 4xx or 5xx for all of its class";
        report.fault(spot.key_span(), Code::BadValue, problem).hint(hint);
    }
    if let Some(PageStatus::One(status)) = status
        && !ErrorPages::STATUSES.contains(&status)
    {
        let problem = format!("no answer of this program has the status {status}, unless a limit says so");
        let hint = "answers of the application are never replaced: let it have a page of its own";
        report.warning(spot.key_span(), Code::Suspicious, problem).hint(hint);
    }
    status
}

fn pages(choice: ErrorPageChoice, spot: Spot<'_>, scene: &Scene<'_>, report: &mut Report) -> Arc<[ErrorPage]> {
    let files = match choice {
        ErrorPageChoice::One(word) if word == OFF => return Arc::default(),
        ErrorPageChoice::One(file) => return page(file, spot, scene, report).into_iter().collect(),
        ErrorPageChoice::Several(files) => files,
    };
    let mut pages: Vec<ErrorPage> = Vec::new();
    for (index, file) in files.into_iter().enumerate() {
        let spot = spot.item(index);
        let Some(page) = page(file, spot, scene, report) else { continue };
        if let Some(first) = pages.iter().find(|first| first.kind == page.kind) {
            let problem = format!("a page of this kind is there already: \"{}\"", first.file);
            report.fault(spot.span(), Code::Duplicate, problem).hint("list one .html, one .json and one .txt at most");
        } else {
            pages.push(page);
        }
    }
    pages.into()
}

fn page(file: String, spot: Spot<'_>, scene: &Scene<'_>, report: &mut Report) -> Option<ErrorPage> {
    let shown = spot.shown(&file).to_owned();
    let Some(kind) = kind(&file) else {
        let problem = format!("what the page \"{shown}\" is cannot be told from its name");
        report
            .fault(spot.span(), Code::BadValue, problem)
            .hint("write a file that ends in .html, .json or .txt, or off");
        return None;
    };
    let path = file_path(&file, spot, report);
    let text = match scene.environment.read(&path, LARGEST_PAGE) {
        Ok(text) => text,
        Err(error) => {
            let (code, hint) = match error {
                ReadError::TooLarge { .. } => {
                    (Code::Limit, "a page is sent in bad times: keep pictures and fonts out of it")
                }
                ReadError::NotUtf8 { .. } => (Code::Read, "save it as UTF-8"),
                ReadError::Io(_) | ReadError::NotRegular(_) => {
                    (Code::Read, "paths are relative to the folder of the file they stand in")
                }
            };
            report.fault(spot.span(), code, format!("cannot read the page \"{shown}\": {error}")).hint(hint);
            return None;
        }
    };
    let pieces = pieces(&text);
    if kind == PageKind::Json && !is_json(&pieces) {
        let problem = format!("the page \"{shown}\" is not JSON once its values are filled in");
        let hint = "texts stand in quotes: { \"status\": {status}, \"reason\": \"{reason}\" }";
        report.fault(spot.span(), Code::BadValue, problem).hint(hint);
        return None;
    }
    Some(ErrorPage { file: shown, kind, pieces })
}

fn kind(file: &str) -> Option<PageKind> {
    match file.rsplit_once('.')?.1 {
        "html" | "htm" => Some(PageKind::Html),
        "json" => Some(PageKind::Json),
        "txt" => Some(PageKind::Text),
        _ => None,
    }
}

/// Braces that hold no name of ours are text: pages have styles and scripts.
fn pieces(text: &str) -> Arc<[Piece]> {
    let mut pieces = Vec::new();
    let (mut from, mut at) = (0, 0);
    while let Some(brace) = text[at..].find('{') {
        let open = at + brace;
        at = open + 1;
        let Some((value, length)) = value(&text[at..]) else { continue };
        if from < open {
            pieces.push(Piece::Text(text.as_bytes()[from..open].into()));
        }
        pieces.push(Piece::Value(value));
        at += length;
        from = at;
    }
    if from < text.len() || pieces.is_empty() {
        pieces.push(Piece::Text(text.as_bytes()[from..].into()));
    }
    pieces.into()
}

/// The value whose name and brace stand first, and the length of both.
fn value(text: &str) -> Option<(PageValue, usize)> {
    PageValue::ALL.into_iter().find_map(|value| {
        let rest = text.strip_prefix(value.name())?.strip_prefix('}')?;
        Some((value, text.len() - rest.len()))
    })
}

/// Whether it is JSON with values like those that will be there: a number for the status, and words without quotes.
fn is_json(pieces: &[Piece]) -> bool {
    let mut text = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(bytes) => text.extend_from_slice(bytes),
            Piece::Value(PageValue::Status) => text.extend_from_slice(b"503"),
            Piece::Value(_) => text.extend_from_slice(b"a word"),
        }
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        format!("{:?}", pieces(text))
    }

    #[test]
    fn names_of_ours_are_values_and_other_braces_are_text() {
        for (text, expected) in [
            ("", r#"[""]"#),
            ("plain", r#"["plain"]"#),
            ("{status}", "[Status]"),
            ("a {status} b", r#"["a ", Status, " b"]"#),
            ("{status}{reason}", "[Status, Reason]"),
            ("h1{color:red} {error}", r#"["h1{color:red} ", Error]"#),
            ("{{status}}", r#"["{", Status, "}"]"#),
            ("{ status }{Status}{request}{request_ids}{", r#"["{ status }{Status}{request}{request_ids}{"]"#),
            ("\u{e9}{request_id}\u{e9}", "[\"\u{e9}\", RequestId, \"\u{e9}\"]"),
            ("{message", r#"["{message"]"#),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn nothing_is_lost_between_values() {
        let text = "{status}<{{{reason}}}{no{message}{request_id";
        let mut whole = Vec::new();
        for piece in pieces(text).iter() {
            match piece {
                Piece::Text(bytes) => whole.extend_from_slice(bytes),
                Piece::Value(value) => whole.extend_from_slice(format!("{{{}}}", value.name()).as_bytes()),
            }
        }
        assert_eq!(String::from_utf8(whole).unwrap(), text);
    }

    #[test]
    fn json_is_json_with_its_values() {
        for (text, good) in [
            (r#"{"status": {status}, "why": "{reason}: {message}"}"#, true),
            (r#"{"why": {reason}}"#, false),
            (r#"{"status": {status}"#, false),
            ("{status}", true),
            ("", false),
        ] {
            assert_eq!(is_json(&pieces(text)), good, "{text}");
        }
    }
}
