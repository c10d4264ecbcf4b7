//! YAML text to a tree, within limits.
//!
//! Variables are replaced here, in scalars only, after YAML has decided what is a scalar: no value can become
//! structure. Parts of YAML that a site file does not need are refused by name: tags, merge keys, several documents.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use crate::fault::Code;
use crate::interpolate::{Expanded, Failed, Variables};
use crate::report::Report;
use crate::source::{Mark, Span};
use crate::tree::{Content, Entry, Node, Scalar};

/// Deepest nesting of lists and mappings.
pub(crate) const DEEPEST: u32 = 64;
/// Most values in all files of one load, aliases written out.
pub(crate) const MOST_NODES: u32 = 200_000;

/// Parses one file; `None` when there is nothing to go on with. Every fault is in the report.
///
/// `budget` is the number of nodes that may still be made and is reduced by those that were.
pub(crate) fn parse(
    file: u32,
    text: &str,
    budget: &mut u32,
    variables: &mut Variables<'_>,
    report: &mut Report,
) -> Option<Rc<Node>> {
    let mut builder =
        Builder { file, budget, variables, report, stack: Vec::new(), anchors: HashMap::new(), root: None };
    let mut documents = 0;
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => return builder.refuse_syntax(&error),
        };
        let span = Span { file, start: mark(span.start), end: mark(span.end) };
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
        }
        if documents > 1 {
            builder.report.fault(span, Code::Syntax, "a second document starts here").hint(
                "a site file is one document: remove the line \"---\", or put the rest into a file of its own and include it",
            );
            return None;
        }
        builder.accept(event, span).ok()?;
    }
    builder.root
}

fn mark(marker: Marker) -> Mark {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Mark { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

/// The rest of the file cannot be used; the fault is in the report.
struct Stop;

/// A list or mapping that is not closed yet.
struct Open {
    span: Span,
    anchor: usize,
    content: OpenContent,
}

enum OpenContent {
    Sequence(Vec<Rc<Node>>),
    Mapping { entries: Vec<Entry>, places: HashMap<Box<str>, Span>, key: Key },
}

/// What a mapping waits for.
enum Key {
    /// A key.
    Awaited,
    /// The value of this key.
    Known(Box<str>, Span),
    /// The value of a key that was refused.
    Refused,
}

struct Builder<'a, 'v> {
    file: u32,
    budget: &'a mut u32,
    variables: &'a mut Variables<'v>,
    report: &'a mut Report,
    stack: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
}

impl Builder<'_, '_> {
    fn accept(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.scalar(&text, style, anchor, span)
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.open(span, anchor, OpenContent::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                let content = OpenContent::Mapping { entries: Vec::new(), places: HashMap::new(), key: Key::Awaited };
                self.open(span, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn refuse_syntax(&mut self, error: &ScanError) -> Option<Rc<Node>> {
        let start = mark(*error.marker());
        let info = error.info();
        let finding = self.report.fault(
            Span { file: self.file, start, end: start },
            Code::Syntax,
            format!("this is not YAML: {info}"),
        );
        if info.contains("tab") {
            finding.hint("indent with spaces");
        } else if info.contains("mapping values are not allowed") {
            finding.hint("check the indentation, and put text that contains \": \" in quotes");
        }
        None
    }

    fn refuse_tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            let problem = "tags such as \"!!str\" are not used in site files";
            self.report.fault(span, Code::Syntax, problem).hint("remove the tag; put text in quotes");
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, span: Span) -> Result<(), Stop> {
        if self.awaits_key() {
            self.key(text, style, span);
            return Ok(());
        }
        let plain = style == ScalarStyle::Plain;
        let scalar = match self.variables.expand(text, span, self.report) {
            None => Scalar { text: text.into(), plain, written: None, failed: false },
            Some(Ok(Expanded { text: value, has_values })) => {
                Scalar { text: value.into(), plain, written: has_values.then(|| text.into()), failed: false }
            }
            Some(Err(Failed)) => Scalar { text: "".into(), plain, written: Some(text.into()), failed: true },
        };
        self.finish(Node::new(span, Content::Scalar(scalar)), anchor)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        if self.awaits_key() {
            self.refuse_key(span, "an alias cannot be a key");
            return Ok(());
        }
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            self.report.fault(span, Code::Syntax, "this alias refers to the value it is part of");
            return Err(Stop);
        };
        self.check_depth(node.height, span)?;
        self.place(node, span)
    }

    fn open(&mut self, span: Span, anchor: usize, content: OpenContent) -> Result<(), Stop> {
        if self.awaits_key() {
            self.refuse_key(span, "a list or mapping cannot be a key");
        }
        self.check_depth(1, span)?;
        self.stack.push(Open { span, anchor, content });
        Ok(())
    }

    fn close(&mut self, span: Span) -> Result<(), Stop> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let content = match open.content {
            OpenContent::Sequence(items) => Content::Sequence(items),
            OpenContent::Mapping { entries, .. } => Content::Mapping(entries),
        };
        self.finish(Node::new(Span { end: span.end, ..open.span }, content), open.anchor)
    }

    /// Puts a new node where it belongs.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        let span = node.span;
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.place(node, span)
    }

    /// Adds a node to the list or mapping that is open, and pays for it: scalars and aliases in full, lists and
    /// mappings, whose children have been paid for, by one.
    fn place(&mut self, node: Rc<Node>, span: Span) -> Result<(), Stop> {
        let is_alias = node.span != span;
        let cost = if is_alias { node.weight } else { 1 };
        let Some(rest) = self.budget.checked_sub(cost) else {
            let problem = format!("too many values: more than {MOST_NODES} in all files, aliases written out");
            self.report.fault(span, Code::Limit, problem);
            return Err(Stop);
        };
        *self.budget = rest;
        match self.stack.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(OpenContent::Sequence(items)) => items.push(node),
            Some(OpenContent::Mapping { entries, key, .. }) => {
                if let Key::Known(key, key_span) = std::mem::replace(key, Key::Awaited) {
                    entries.push(Entry { key, key_span, value: node });
                }
            }
        }
        Ok(())
    }

    fn check_depth(&mut self, inner: u32, span: Span) -> Result<(), Stop> {
        let depth = u32::try_from(self.stack.len()).unwrap_or(u32::MAX).saturating_add(inner);
        if depth <= DEEPEST {
            return Ok(());
        }
        self.report.fault(span, Code::Limit, format!("nested deeper than {DEEPEST} levels"));
        Err(Stop)
    }

    fn awaits_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { content: OpenContent::Mapping { key: Key::Awaited, .. }, .. }))
    }

    fn key(&mut self, text: &str, style: ScalarStyle, span: Span) {
        let plain = style == ScalarStyle::Plain;
        let meaning = crate::scalar::meaning(text);
        if plain && text == "<<" {
            self.refuse_key(span, "merge keys (\"<<\") are not used in site files");
        } else if plain && meaning != crate::scalar::Meaning::Text && !is_status(text) {
            self.refuse_key(span, &format!("a key must be text, found {}", meaning.describe()));
        } else if text.contains("${") {
            self.refuse_key(span, "variables are replaced in values only, not in keys");
        } else {
            self.known_key(text, span);
        }
    }

    fn known_key(&mut self, text: &str, span: Span) {
        let Some(OpenContent::Mapping { places, key, .. }) = self.stack.last_mut().map(|open| &mut open.content) else {
            return;
        };
        match places.get(text) {
            None => {
                places.insert(text.into(), span);
                *key = Key::Known(text.into(), span);
            }
            Some(&first) => {
                *key = Key::Refused;
                self.report
                    .fault(span, Code::DuplicateKey, format!("the key \"{text}\" stands here a second time"))
                    .related(first, "the first one is here")
                    .hint("remove one of them, or join their contents");
            }
        }
    }

    fn refuse_key(&mut self, span: Span, problem: &str) {
        if let Some(OpenContent::Mapping { key, .. }) = self.stack.last_mut().map(|open| &mut open.content) {
            *key = Key::Refused;
        }
        let finding = self.report.fault(span, Code::Syntax, problem);
        if problem.contains("merge") {
            finding.hint("write the keys out, or give the whole value an anchor (&name) and repeat it (*name)");
        } else if problem.contains("must be text") {
            finding.hint("put the key in quotes");
        }
    }
}

/// A number that is a key wherever statuses are: it can be written in one way only.
fn is_status(text: &str) -> bool {
    matches!(text.as_bytes(), [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'])
}
