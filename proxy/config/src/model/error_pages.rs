//! Pages for answers of our own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What stands for our own answers to requests that are refused, by their status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorPages(BTreeMap<PageStatus, Arc<[ErrorPage]>>);

/// Which answers a page stands for. One status goes before its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageStatus {
    /// 400 to 599.
    One(u16),
    /// 400 to 499.
    Client,
    /// 500 to 599.
    Server,
}

/// A file, read and taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// As it stands in the site file; for people.
    pub file: String,
    /// What it is.
    pub kind: PageKind,
    /// What it consists of.
    pub pieces: Arc<[Piece]>,
}

/// What a page is, by the end of its file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    /// `.html`, `.htm`
    Html,
    /// `.json`
    Json,
    /// `.txt`
    Text,
}

/// A part of a page.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// Sent as it is: UTF-8.
    Text(Arc<[u8]>),
    /// Filled in for each answer.
    Value(PageValue),
}

/// What is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageValue {
    /// The status.
    Status,
    /// The status in words, such as `Service Unavailable`.
    Error,
    /// Why, as the field `x-tidegate-reason` has it.
    Reason,
    /// Why, in words.
    Message,
    /// Identifier of the request.
    RequestId,
}

impl ErrorPages {
    /// The statuses that refusals have where no limit gives them another one.
    pub const STATUSES: [u16; 16] = [400, 404, 405, 408, 413, 414, 417, 421, 429, 431, 500, 501, 502, 503, 504, 505];

    /// These pages, or with none our own form, where nothing more special is said.
    pub fn set(&mut self, status: PageStatus, pages: Arc<[ErrorPage]>) {
        self.0.insert(status, pages);
    }

    /// The pages for a status, at most one of a kind, in the order of the file. With none our own form is right.
    #[must_use]
    pub fn of(&self, status: u16) -> &[ErrorPage] {
        let class = if status < 500 { PageStatus::Client } else { PageStatus::Server };
        self.0.get(&PageStatus::One(status)).or_else(|| self.0.get(&class)).map_or(&[], |pages| pages)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (PageStatus, &[ErrorPage])> {
        self.0.iter().map(|(status, pages)| (*status, &**pages))
    }
}

impl PageValue {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Status, Self::Error, Self::Reason, Self::Message, Self::RequestId];

    /// As a page has it between braces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Error => "error",
            Self::Reason => "reason",
            Self::Message => "message",
            Self::RequestId => "request_id",
        }
    }
}

/// As a site file has it.
impl fmt::Display for PageStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(status) => write!(f, "{status}"),
            Self::Client => f.write_str("4xx"),
            Self::Server => f.write_str("5xx"),
        }
    }
}

/// Text as text, for people who look at a model.
impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => fmt::Debug::fmt(&String::from_utf8_lossy(text), f),
            Self::Value(value) => fmt::Debug::fmt(value, f),
        }
    }
}
