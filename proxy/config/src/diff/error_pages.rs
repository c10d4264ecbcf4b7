//! Pages for answers of our own: a file whose content has changed is a change.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::settings::{Settings, list};
use crate::model::{ErrorPage, ErrorPages, PageStatus, Piece};

pub(super) fn error_pages(name: &str, old: &Arc<ErrorPages>, new: &Arc<ErrorPages>, settings: &mut Settings) {
    settings.compare(name, old, new, |pages| describe(pages));
}

fn describe(pages: &ErrorPages) -> String {
    let one = |(status, pages): (PageStatus, &[ErrorPage])| match pages {
        [] => format!("{status}: off"),
        pages => format!("{status}: {}", pages.iter().map(file).collect::<Vec<_>>().join(" ")),
    };
    match pages.iter().next() {
        None => "none".to_owned(),
        Some(_) => list(pages.iter().map(one)),
    }
}

/// Its name, and a number that differs when its content does.
fn file(page: &ErrorPage) -> String {
    let mut hasher = DefaultHasher::new();
    for piece in page.pieces.iter() {
        match piece {
            Piece::Text(text) => text.hash(&mut hasher),
            Piece::Value(value) => value.name().hash(&mut hasher),
        }
    }
    format!("{} (content {:08x})", page.file, hasher.finish() as u32)
}
