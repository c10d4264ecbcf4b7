//! Checks a tree against the schema, collecting every fault, and turns the sound part into a value for serde.
//!
//! What is faulty is taken out of the tree and of the value alike, so that they stay parallel: serde then succeeds, and
//! compile finds the faults of the rest in the same run. Only a direct holder of something taken out is marked as
//! damaged; compile does not report there what is missing.

use std::rc::Rc;

use serde_json::Value as Schema;
use serde_yaml::Value as Yaml;

use crate::fault::Code;
use crate::planned::{self, Refusal};
use crate::raw::Format;
use crate::report::Report;
use crate::scalar::{Meaning, meaning};
use crate::schema::{alternatives, resolve};
use crate::source::Span;
use crate::suggest::{did_you_mean, either, nearest};
use crate::tree::{Content, Entry, Node, Scalar, Spot};

/// The sound part of a tree, and the same as a value for serde.
pub(crate) struct Sound {
    pub(crate) node: Rc<Node>,
    pub(crate) value: Yaml,
}

/// Walks the root mapping.
pub(crate) fn walk(root: Node, schema: &Schema, report: &mut Report) -> Sound {
    let root = Rc::new(root);
    let mut walker = Walker { root: schema, report };
    let sound = walker.mapping(&root, schema, "SiteFile", Spot::root(&root));
    sound.unwrap_or_else(|| Sound { node: Rc::clone(&root), value: Yaml::Mapping(serde_yaml::Mapping::new()) })
}

struct Walker<'s, 'r> {
    root: &'s Schema,
    report: &'r mut Report,
}

impl<'s> Walker<'s, '_> {
    /// `None` when nothing of the node can be used; why is in the report.
    fn node(&mut self, node: &Rc<Node>, schema: &'s Schema, spot: Spot<'_>) -> Option<Sound> {
        let (schema, name) = resolve(self.root, schema);
        let name = name.unwrap_or_default();
        if matches!(&node.content, Content::Scalar(scalar) if scalar.failed) {
            return None;
        }
        if is_null(node) {
            let problem = format!("expected {}, found nothing", self.describe(schema));
            self.report.fault(spot.key_span(), Code::WrongType, problem).hint("give it a value, or remove the key");
            return None;
        }
        let kind = kind_of(node);
        let branches = alternatives(schema);
        let is_choice = branches.first().is_some_and(|branch| !std::ptr::eq(branch, schema));
        if kind == Kind::Scalar && (is_choice || is_word_list(schema)) {
            return self.scalar_of(node, schema, name);
        }
        let fitting = branches.iter().map(|branch| (branch, resolve(self.root, branch)));
        let fitting =
            fitting.filter(|(_, (branch, _))| accepts(self.root, branch, kind)).map(|(_, found)| found).next();
        match (fitting, kind) {
            (None, _) => {
                let problem = format!("expected {}, found {}", self.describe(schema), node.describe());
                let hint = self.shape_hint(node, schema, kind);
                self.report.fault(spot.span(), Code::WrongType, problem).maybe_hint(hint);
                None
            }
            (Some((branch, _)), Kind::Scalar) => self.scalar(node, branch),
            (Some((branch, _)), Kind::Sequence) => self.sequence(node, branch, spot),
            (Some((branch, inner)), Kind::Mapping) => self.mapping(node, branch, inner.unwrap_or(name), spot),
        }
    }

    fn sequence(&mut self, node: &Rc<Node>, schema: &'s Schema, spot: Spot<'_>) -> Option<Sound> {
        let Content::Sequence(items) = &node.content else { return None };
        if items.is_empty() && schema.get("minItems").is_some() {
            self.report
                .fault(spot.span(), Code::BadValue, "this list must not be empty")
                .hint("add at least one entry");
            return None;
        }
        let item_schema = schema.get("items")?;
        let mut kept = Vec::with_capacity(items.len());
        let mut values = Vec::with_capacity(items.len());
        let mut unchanged = true;
        for (index, item) in items.iter().enumerate() {
            if let Some(sound) = self.node(item, item_schema, spot.item(index)) {
                unchanged &= Rc::ptr_eq(&sound.node, item);
                kept.push(sound.node);
                values.push(sound.value);
            }
        }
        let damaged = kept.len() < items.len();
        let node = if unchanged && !damaged {
            Rc::clone(node)
        } else {
            Rc::new(Node { content: Content::Sequence(kept), damaged, ..(**node).clone() })
        };
        Some(Sound { node, value: Yaml::Sequence(values) })
    }

    fn mapping(&mut self, node: &Rc<Node>, schema: &'s Schema, name: &str, spot: Spot<'_>) -> Option<Sound> {
        let Content::Mapping(entries) = &node.content else { return None };
        let mut kept = Vec::with_capacity(entries.len());
        let mut values = serde_yaml::Mapping::with_capacity(entries.len());
        let mut meant = Vec::new();
        let mut unchanged = true;
        for entry in entries {
            let Some(entry_schema) = entry_schema(schema, &entry.key) else {
                meant.extend(self.unknown_key(schema, name, entry));
                continue;
            };
            if let Some(sound) = self.node(&entry.value, entry_schema, spot.key(&entry.key)) {
                unchanged &= Rc::ptr_eq(&sound.node, &entry.value);
                values.insert(Yaml::String(entry.key.to_string()), sound.value);
                kept.push(Entry { value: sound.node, ..entry.clone() });
            }
        }
        if !node.damaged {
            self.missing_keys(node, schema, name, &meant, spot);
        }
        let damaged = node.damaged || kept.len() < entries.len();
        let node = if unchanged && damaged == node.damaged {
            Rc::clone(node)
        } else {
            Rc::new(Node { content: Content::Mapping(kept), damaged, ..(**node).clone() })
        };
        Some(Sound { node, value: Yaml::Mapping(values) })
    }

    /// Reports a key that does not exist; returns the key that was meant, if that can be told.
    fn unknown_key(&mut self, schema: &'s Schema, name: &str, entry: &Entry) -> Option<&'s str> {
        let known = || property_names(schema);
        let key = &*entry.key;
        let (code, hint, meant) = match planned::key(name, key) {
            Some(Refusal::NotAvailable(hint)) => (Code::NotAvailable, hint.to_owned(), None),
            Some(Refusal::Called(word)) => {
                (Code::UnknownKey, format!("this is called \"{word}\" here"), known().find(|known| *known == word))
            }
            None => {
                let meant = nearest(key, known());
                let hint = did_you_mean(key, known()).unwrap_or_else(|| known_keys(known().collect()));
                (Code::UnknownKey, hint, meant)
            }
        };
        self.report.fault(entry.key_span, code, format!("unknown key \"{}\"", shorten(key))).hint(hint);
        meant
    }

    fn missing_keys(&mut self, node: &Node, schema: &'s Schema, name: &str, meant: &[&str], spot: Spot<'_>) {
        let required = schema.get("required").and_then(Schema::as_array).into_iter().flatten();
        for key in required.filter_map(Schema::as_str) {
            if node.entry(key).is_some() || meant.contains(&key) {
                continue;
            }
            let what = describe_mapping(name);
            let span = spot.span();
            let finding = self.report.fault(span, Code::MissingKey, format!("{what} needs the key \"{key}\""));
            if let Some(example) = example(name, key) {
                finding.hint(format!("for example {example}"));
            }
        }
    }

    /// A scalar where there are several possibilities: words, and perhaps a number.
    fn scalar_of(&mut self, node: &Rc<Node>, schema: &'s Schema, name: &str) -> Option<Sound> {
        let Content::Scalar(scalar) = &node.content else { return None };
        let mut words = Vec::new();
        let mut number = None;
        self.collect(schema, &mut words, &mut number);
        if words.contains(&&*scalar.text) {
            return Some(Sound { node: Rc::clone(node), value: Yaml::String(scalar.text.to_string()) });
        }
        let found = meaning(&scalar.text);
        if let Some(number) = number.filter(|_| found.is_number()) {
            return self.scalar(node, number);
        }
        if let Some(text) = free_text(self.root, schema) {
            return self.scalar(node, text);
        }
        let shown = shorten(scalar.shown());
        let expected = self.describe(schema);
        let span = node.span;
        if let Some(hint) = planned::word(name, &scalar.text) {
            let problem = format!("\"{shown}\" is not possible here: expected {expected}");
            self.report.fault(span, Code::NotAvailable, problem).hint(hint);
            return None;
        }
        let hint = did_you_mean(&scalar.text, words.iter().copied())
            .or_else(|| boolean_hint(&scalar.text, &words))
            .or_else(|| has_items(self.root, schema).then(|| format!("write a list: [{shown}]")));
        let problem = format!("\"{shown}\" is not possible here: expected {expected}");
        self.report.fault(span, Code::BadValue, problem).maybe_hint(hint);
        None
    }

    /// Gathers the words and the number among the alternatives.
    fn collect(&self, schema: &'s Schema, words: &mut Vec<&'s str>, number: &mut Option<&'s Schema>) {
        let (schema, _) = resolve(self.root, schema);
        if let Some(word) = schema.get("const").and_then(Schema::as_str) {
            words.push(word);
        } else if let Some(list) = schema.get("enum").and_then(Schema::as_array) {
            words.extend(list.iter().filter_map(Schema::as_str));
        } else if schema.get("type").is_some_and(|kind| kind == "integer") {
            *number = Some(schema);
        } else {
            for branch in alternatives(schema).iter().filter(|branch| !std::ptr::eq(*branch, schema)) {
                self.collect(branch, words, number);
            }
        }
    }

    fn scalar(&mut self, node: &Rc<Node>, schema: &'s Schema) -> Option<Sound> {
        let Content::Scalar(scalar) = &node.content else { return None };
        let format = schema.get("format").and_then(Schema::as_str).and_then(Format::named);
        let kind = schema.get("type").and_then(Schema::as_str).unwrap_or_default();
        let value = match (format, kind) {
            (Some(format), _) => self.formatted(scalar, format, node.span),
            (None, "integer") => self.integer(scalar, schema, node.span),
            (None, "boolean") => self.boolean(scalar, node.span),
            (None, _) => self.text(scalar, schema, node.span),
        }?;
        Some(Sound { node: Rc::clone(node), value })
    }

    fn formatted(&mut self, scalar: &Scalar, format: Format, span: Span) -> Option<Yaml> {
        match format.check(&scalar.text) {
            Ok(()) => Some(Yaml::String(scalar.text.to_string())),
            Err(reason) => {
                let shown = shorten(scalar.shown());
                let problem = format!("\"{shown}\" {}", reason.problem);
                // The hint may repeat the value, which is not to be shown.
                let hint = reason.hint.filter(|_| scalar.written.is_none());
                self.report.fault(span, Code::BadValue, problem).maybe_hint(hint);
                None
            }
        }
    }

    fn integer(&mut self, scalar: &Scalar, schema: &'s Schema, span: Span) -> Option<Yaml> {
        let shown = shorten(scalar.shown());
        let least = schema.get("minimum").and_then(Schema::as_i64).unwrap_or(0);
        let most = schema.get("maximum").and_then(Schema::as_u64).unwrap_or(u64::MAX);
        let number = match meaning(&scalar.text).whole_if(is_number(scalar)) {
            Meaning::Whole(number) => i128::try_from(number).ok().or(Some(i128::MAX)),
            Meaning::Negative(number) if least < 0 => Some(number),
            _ => None,
        };
        let Some(number) = number else {
            let problem = format!("expected a whole number, found {}", describe_scalar(scalar));
            let is_quoted = !scalar.plain && matches!(meaning(&scalar.text), Meaning::Whole(_));
            let hint = is_quoted.then(|| format!("write it without quotes: {shown}"));
            self.report.fault(span, Code::WrongType, problem).maybe_hint(hint);
            return None;
        };
        let inside = (i128::from(least)..=i128::from(most)).contains(&number);
        match (u64::try_from(number), i64::try_from(number)) {
            (Ok(number), _) if inside => Some(Yaml::Number(number.into())),
            (_, Ok(number)) if inside => Some(Yaml::Number(number.into())),
            _ => {
                let problem = format!("{shown} is out of range: expected {least} to {most}");
                self.report.fault(span, Code::BadValue, problem);
                None
            }
        }
    }

    fn boolean(&mut self, scalar: &Scalar, span: Span) -> Option<Yaml> {
        if let (Meaning::Boolean(value), true) = (meaning(&scalar.text), is_number(scalar)) {
            return Some(Yaml::Bool(value));
        }
        let problem = format!("expected true or false, found {}", describe_scalar(scalar));
        let hint = match scalar.text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" => Some("write true"),
            "no" | "off" | "n" | "false" => Some("write false"),
            _ => None,
        };
        self.report.fault(span, Code::WrongType, problem).maybe_hint(hint.map(str::to_owned));
        None
    }

    fn text(&mut self, scalar: &Scalar, schema: &'s Schema, span: Span) -> Option<Yaml> {
        let found = meaning(&scalar.text);
        if scalar.plain && scalar.written.is_none() && found != Meaning::Text {
            let shown = shorten(&scalar.text);
            let problem = format!("expected text, found {} {shown}", the(found));
            self.report.fault(span, Code::WrongType, problem).hint(format!("put it in quotes: \"{shown}\""));
            return None;
        }
        let length = scalar.text.chars().count() as u64;
        let limit = |key: &str| schema.get(key).and_then(Schema::as_u64);
        if limit("minLength").is_some_and(|least| length < least) {
            self.report.fault(span, Code::BadValue, "this text must not be empty");
            return None;
        }
        if let Some(most) = limit("maxLength").filter(|&most| length > most) {
            let problem = format!("this text is too long: {length} characters, at most {most} are possible");
            self.report.fault(span, Code::BadValue, problem);
            return None;
        }
        Some(Yaml::String(scalar.text.to_string()))
    }

    /// For `expected a, found b`.
    fn describe(&self, schema: &'s Schema) -> String {
        let (schema, _) = resolve(self.root, schema);
        let mut words = Vec::new();
        let mut number = None;
        self.collect(schema, &mut words, &mut number);
        let mut all: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
        if let Some(number) = number {
            all.push(describe_number(number));
        }
        for branch in alternatives(schema) {
            let (branch, _) = resolve(self.root, branch);
            all.extend(describe_other(branch));
        }
        either(&all)
    }

    fn shape_hint(&self, node: &Node, schema: &'s Schema, kind: Kind) -> Option<String> {
        match (&node.content, kind) {
            (Content::Scalar(scalar), Kind::Scalar) if scalar.shown().len() <= 200 => {
                let items = items(self.root, schema)?;
                let words = scalar.shown().split_whitespace();
                let quoted: Vec<String> = words.map(|word| list_item(word, takes_numbers(self.root, items))).collect();
                Some(format!("write a list: [{}]", quoted.join(", ")))
            }
            (_, Kind::Mapping) if has_items(self.root, schema) => {
                Some("write a list: put \"- \" before its first key".to_owned())
            }
            (Content::Sequence(_), Kind::Sequence) if accepts(self.root, schema, Kind::Mapping) => {
                Some("write keys without \"- \"".to_owned())
            }
            _ => None,
        }
    }
}

/// Before the value itself.
const fn the(found: Meaning) -> &'static str {
    match found {
        Meaning::Null => "nothing:",
        Meaning::Boolean(_) => "the boolean",
        Meaning::Whole(_) | Meaning::Negative(_) | Meaning::Float(_) => "the number",
        Meaning::Text => "the text",
    }
}

impl Meaning {
    /// Whether it is a number of any kind.
    const fn is_number(self) -> bool {
        matches!(self, Self::Whole(_) | Self::Negative(_) | Self::Float(_))
    }

    /// Itself, or text where numbers are not looked for.
    fn whole_if(self, number: bool) -> Self {
        if number { self } else { Self::Text }
    }
}

/// The three shapes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Scalar,
    Sequence,
    Mapping,
}

const fn kind_of(node: &Node) -> Kind {
    match node.content {
        Content::Scalar(_) => Kind::Scalar,
        Content::Sequence(_) => Kind::Sequence,
        Content::Mapping(_) => Kind::Mapping,
    }
}

fn is_null(node: &Node) -> bool {
    matches!(&node.content, Content::Scalar(scalar) if scalar.is_null())
}

/// Whether a scalar may be a number or boolean: it is not quoted, or comes from a variable, where YAML often asks for
/// quotes that mean nothing (`{ count: "${N}" }`).
const fn is_number(scalar: &Scalar) -> bool {
    scalar.plain || scalar.written.is_some()
}

fn accepts(root: &Schema, schema: &Schema, kind: Kind) -> bool {
    let (schema, _) = resolve(root, schema);
    match (schema.get("type"), kind) {
        (Some(Schema::String(found)), Kind::Scalar) => !matches!(found.as_str(), "object" | "array"),
        (Some(Schema::String(found)), Kind::Sequence) => found == "array",
        (Some(Schema::String(found)), Kind::Mapping) => found == "object",
        (Some(Schema::Array(_)), kind) => kind == Kind::Scalar,
        _ => {
            alternatives(schema).iter().filter(|branch| !std::ptr::eq(*branch, schema)).any(|b| accepts(root, b, kind))
        }
    }
}

fn has_items(root: &Schema, schema: &Schema) -> bool {
    accepts(root, schema, Kind::Sequence)
}

/// What the elements are, where a list may be.
fn items<'s>(root: &'s Schema, schema: &'s Schema) -> Option<&'s Schema> {
    let (schema, _) = resolve(root, schema);
    let mut branches = alternatives(schema).iter().map(|branch| resolve(root, branch).0);
    branches.find_map(|branch| branch.get("items"))
}

/// Whether a number may stand there without quotes: as one, or in a format that looks at what is written.
fn takes_numbers(root: &Schema, schema: &Schema) -> bool {
    let (schema, _) = resolve(root, schema);
    let mut branches = alternatives(schema).iter().map(|branch| resolve(root, branch).0);
    branches.any(|branch| branch.get("type").is_some_and(|kind| kind == "integer") || branch.get("format").is_some())
}

/// The alternative that takes any text.
fn free_text<'s>(root: &'s Schema, schema: &'s Schema) -> Option<&'s Schema> {
    let branches = alternatives(schema).iter().map(|branch| resolve(root, branch).0);
    branches.filter(|branch| branch.get("type").is_some_and(|kind| kind == "string")).find(|one| !is_word_list(one))
}

fn is_word_list(schema: &Schema) -> bool {
    schema.get("const").is_some() || schema.get("enum").is_some()
}

fn entry_schema<'s>(schema: &'s Schema, key: &str) -> Option<&'s Schema> {
    let known = schema.get("properties").and_then(|properties| properties.get(key));
    known.or_else(|| schema.get("additionalProperties").filter(|values| values.is_object()))
}

fn property_names(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.get("properties").and_then(Schema::as_object).into_iter().flat_map(|map| map.keys()).map(String::as_str)
}

fn known_keys(known: Vec<&str>) -> String {
    if known.is_empty() {
        "there are no keys here: write {}".to_owned()
    } else {
        format!("known keys: {}", known.join(", "))
    }
}

fn describe_scalar(scalar: &Scalar) -> String {
    let shown = shorten(scalar.shown());
    match meaning(&scalar.text) {
        Meaning::Text => format!("\"{shown}\""),
        _ if !scalar.plain => format!("the text \"{shown}\""),
        found => format!("{} {shown}", the(found)),
    }
}

fn describe_number(schema: &Schema) -> String {
    match (schema.get("minimum").and_then(Schema::as_u64), schema.get("maximum").and_then(Schema::as_u64)) {
        (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
        _ => "a whole number".to_owned(),
    }
}

/// What else than words and numbers a branch takes.
fn describe_other(branch: &Schema) -> Option<String> {
    if let Some(format) = branch.get("format").and_then(Schema::as_str).and_then(Format::named) {
        return Some(format.describe().to_owned());
    }
    if is_word_list(branch) {
        return None;
    }
    match branch.get("type").and_then(Schema::as_str)? {
        "string" => Some("text".to_owned()),
        "boolean" => Some("true or false".to_owned()),
        "array" => Some("a list".to_owned()),
        "object" => {
            let required = branch.get("required").and_then(Schema::as_array).into_iter().flatten();
            let keys: Vec<&str> = required.filter_map(Schema::as_str).collect();
            Some(if keys.is_empty() {
                "a mapping".to_owned()
            } else {
                format!("a mapping with {}", keys.join(" and "))
            })
        }
        _ => None,
    }
}

/// `on`, `yes` and `false` where `auto` or `off` belong.
fn boolean_hint(text: &str, words: &[&str]) -> Option<String> {
    let is_no = matches!(text.to_ascii_lowercase().as_str(), "false" | "no" | "none");
    (is_no && words.contains(&"off")).then(|| "write off".to_owned())
}

fn describe_mapping(name: &str) -> &'static str {
    match name {
        "Listener" => "a listener",
        "ProxyProtocol" => "the PROXY protocol",
        "TrustedProxies" => "a list of trusted proxies",
        "Site" => "a site",
        "Route" => "a route",
        "StaticServer" => "a server",
        "Workers" => "workers",
        "SiteTlsFiles" => "a certificate",
        "RateLimit" => "a rate limit",
        "ConcurrencyLimit" => "a concurrency limit",
        "Retry" => "what is tried again",
        "Backoff" => "waits between tries",
        "RetryBudget" => "a budget of retries",
        "RateLimitCost" => "a use of a rate limit",
        "ReadyWhen" => "readiness",
        "SiteFile" => "a site file",
        _ => "this mapping",
    }
}

/// What a required key may look like.
fn example(name: &str, key: &str) -> Option<&'static str> {
    Some(match (name, key) {
        ("SiteFile", "listeners") => "listeners: [{ address: \":8080\" }]",
        ("ProxyProtocol" | "TrustedProxies", "from") => "from: [10.0.0.0/8]",
        ("Listener", "address") => "address: \":8080\"",
        ("Site", "hosts") => "hosts: [example.com]",
        ("Site", "routes") => "routes: [{ path: /, proxy: app }]",
        ("Route", "path") => "path: /",
        ("StaticServer", "address") => "address: \"127.0.0.1:8000\"",
        ("SiteTlsFiles", "certificate") => "certificate: fullchain.pem",
        ("SiteTlsFiles", "key") => "key: privkey.pem",
        ("ConcurrencyLimit", "max") => "max: 10",
        ("RateLimit", "rate") => "rate: 10/s",
        ("RateLimitCost", "limit") => "limit: NAME",
        _ => return None,
    })
}

/// An element of a flow list, quoted where YAML needs it.
fn list_item(word: &str, numbers: bool) -> String {
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./*".contains(&byte));
    let found = meaning(word);
    let plain = plain && (found == Meaning::Text || numbers && found.is_number()) && !word.starts_with('*');
    if plain { word.to_owned() } else { format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")) }
}

/// A text that is short enough for a message.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    let mut short: String = text.chars().take(MOST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}
