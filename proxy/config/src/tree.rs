//! A YAML document as a tree in which every node and key knows its place.
//!
//! Nodes are shared (`Rc`), so that an alias costs nothing however often it is used; `weight` and `height` say what it
//! would cost written out, and limits are checked against those.

use std::rc::Rc;

use crate::source::Span;

/// One value.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) content: Content,
    /// Number of nodes in here, this one included, aliases written out.
    pub(crate) weight: u32,
    /// Levels of nesting in here, aliases written out; 0 for a scalar.
    pub(crate) height: u32,
    /// Something directly in here was faulty and has been taken out, so that what is missing is no news.
    pub(crate) damaged: bool,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Scalar(Scalar),
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) key_span: Span,
    pub(crate) value: Rc<Node>,
}

/// A text, with what is needed to tell numbers and words from it.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    /// With variables replaced.
    pub(crate) text: Box<str>,
    /// Not quoted, so that it may be a number.
    pub(crate) plain: bool,
    /// The text as it stands in the file, when variables were replaced: the value may be a secret.
    pub(crate) written: Option<Box<str>>,
    /// A variable could not be replaced, which is reported: the value counts for nothing.
    pub(crate) failed: bool,
}

impl Scalar {
    /// What may be printed.
    pub(crate) fn shown(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.text)
    }

    /// Whether it stands for "no value": an expanded variable never does.
    pub(crate) fn is_null(&self) -> bool {
        self.plain && self.written.is_none() && crate::scalar::meaning(&self.text) == crate::scalar::Meaning::Null
    }
}

impl Node {
    /// A node around finished children.
    pub(crate) fn new(span: Span, content: Content) -> Self {
        let (weight, height) = match &content {
            Content::Scalar(_) => (0, 0),
            Content::Sequence(items) => measure(items.iter()),
            Content::Mapping(entries) => measure(entries.iter().map(|entry| &entry.value)),
        };
        Self { span, content, weight: weight.saturating_add(1), height, damaged: false }
    }

    /// For `expected a, found b`.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.content {
            Content::Scalar(scalar) if scalar.is_null() => "nothing",
            Content::Scalar(scalar) if scalar.plain => crate::scalar::meaning(&scalar.text).describe(),
            Content::Scalar(_) => "text",
            Content::Sequence(_) => "a list",
            Content::Mapping(_) => "a mapping",
        }
    }

    /// The entry of a mapping with this key.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Mapping(entries) => entries.iter().find(|entry| &*entry.key == key),
            Content::Scalar(_) | Content::Sequence(_) => None,
        }
    }
}

fn measure<'a>(children: impl Iterator<Item = &'a Rc<Node>>) -> (u32, u32) {
    children.fold((0, 0), |(weight, height), child| {
        (u32::saturating_add(weight, child.weight), height.max(child.height.saturating_add(1)))
    })
}

/// A node together with the way it is called, which is where faults about it point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot<'a> {
    pub(crate) node: &'a Node,
    key: Option<Span>,
}

impl<'a> Spot<'a> {
    /// The root of a tree.
    pub(crate) const fn root(node: &'a Node) -> Self {
        Self { node, key: None }
    }

    /// The value of a key; where the key is missing, the mapping itself.
    pub(crate) fn key(self, key: &str) -> Self {
        match self.node.entry(key) {
            Some(entry) => Self { node: &entry.value, key: Some(entry.key_span) },
            None => self,
        }
    }

    /// An element of a list.
    pub(crate) fn item(self, index: usize) -> Self {
        match &self.node.content {
            Content::Sequence(items) => items.get(index).map_or(self, |node| Self { node, key: None }),
            Content::Scalar(_) | Content::Mapping(_) => self,
        }
    }

    /// Where a fault about this value points: a scalar itself, else what introduces the list or mapping.
    pub(crate) fn span(self) -> Span {
        match (&self.node.content, self.key) {
            (Content::Scalar(_), _) => self.node.span,
            (_, Some(key)) => key,
            (Content::Mapping(entries), None) => {
                let first = entries.first().map(|entry| entry.key_span);
                first.unwrap_or_else(|| self.node.span.first_character())
            }
            (Content::Sequence(_), None) => self.node.span.first_character(),
        }
    }

    /// Where the key stands, else the value.
    pub(crate) fn key_span(self) -> Span {
        self.key.unwrap_or_else(|| self.span())
    }

    /// What may be printed of this value; `text` unless it comes from a variable.
    pub(crate) fn shown(self, text: &str) -> String {
        match &self.node.content {
            Content::Scalar(scalar) => crate::walk::shorten(scalar.written.as_deref().unwrap_or(text)),
            Content::Sequence(_) | Content::Mapping(_) => crate::walk::shorten(text),
        }
    }

    /// Whether the value comes from a variable and may be a secret.
    pub(crate) const fn is_expanded(self) -> bool {
        matches!(&self.node.content, Content::Scalar(Scalar { written: Some(_), .. }))
    }

    /// Whether a mapping has this key.
    pub(crate) fn has(self, key: &str) -> bool {
        self.node.entry(key).is_some()
    }

    /// Whether something faulty was taken out of this list or mapping.
    pub(crate) const fn is_damaged(self) -> bool {
        self.node.damaged
    }
}
