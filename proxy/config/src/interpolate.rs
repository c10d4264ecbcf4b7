//! `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, `${file:/path}` and `$$` in scalars.
//!
//! A `$` before anything else stays, so that access-log templates (`$status`) and regexes (`/$`) need no escape. A value
//! is never looked at again: neither for YAML nor for further variables.

use std::collections::BTreeSet;
use std::path::Path;

use crate::environment::Environment;
use crate::fault::Code;
use crate::report::{Finding, Report};
use crate::source::Span;

/// Most bytes that all replacements of one load may produce.
const MOST_BYTES: usize = 8 << 20;
/// Largest file that `${file:...}` reads.
const LARGEST_FILE: u64 = 1 << 20;
/// Deepest `${A:-${B:-...}}`.
const DEEPEST: u32 = 8;

/// Replaces variables and remembers which ones a configuration refers to.
pub(crate) struct Variables<'a> {
    environment: &'a dyn Environment,
    /// Names of the environment variables referred to so far.
    pub(crate) names: BTreeSet<String>,
    produced: usize,
    references: u64,
}

/// A text after replacement.
#[derive(Debug)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// It holds values of variables or files, not only `$` for `$$`.
    pub(crate) has_values: bool,
}

/// A scalar being replaced.
struct Scene<'a> {
    span: Span,
    report: &'a mut Report,
}

impl Scene<'_> {
    fn fault(&mut self, problem: impl Into<String>) -> &mut Finding {
        self.report.fault(self.span, Code::Variable, problem)
    }
}

/// The fault is in the report.
#[derive(Debug)]
pub(crate) struct Failed;

impl<'a> Variables<'a> {
    /// Takes variables and files from `environment`.
    pub(crate) const fn new(environment: &'a dyn Environment) -> Self {
        Self { environment, names: BTreeSet::new(), produced: 0, references: 0 }
    }

    /// The text with variables replaced; `None` when there is nothing to replace.
    pub(crate) fn expand(&mut self, text: &str, span: Span, report: &mut Report) -> Option<Result<Expanded, Failed>> {
        if !text.contains("${") && !text.contains("$$") {
            return None;
        }
        let before = self.references;
        let text = self.expand_level(text, 0, &mut Scene { span, report });
        Some(text.map(|text| Expanded { text, has_values: self.references > before }))
    }

    fn expand_level(&mut self, text: &str, depth: u32, scene: &mut Scene<'_>) -> Result<String, Failed> {
        if depth > DEEPEST {
            scene.fault(format!("variables nested deeper than {DEEPEST} levels"));
            return Err(Failed);
        }
        let mut expanded = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix('$') {
                expanded.push('$');
                rest = after;
            } else if let Some(inside) = after.strip_prefix('{') {
                let Some(end) = closing_brace(inside) else {
                    scene.fault("\"${\" without \"}\"").hint("write \"$${\" for the characters \"${\" themselves");
                    return Err(Failed);
                };
                self.references += 1;
                let value = self.reference(&inside[..end], depth, scene)?;
                self.pay(value.len(), scene)?;
                expanded.push_str(&value);
                rest = &inside[end + 1..];
            } else {
                expanded.push('$');
                rest = after;
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    fn pay(&mut self, bytes: usize, scene: &mut Scene<'_>) -> Result<(), Failed> {
        self.produced = self.produced.saturating_add(bytes);
        if self.produced <= MOST_BYTES {
            return Ok(());
        }
        scene.report.fault(scene.span, Code::Limit, format!("variables expand to more than {MOST_BYTES} bytes"));
        Err(Failed)
    }

    /// What stands between `${` and `}`.
    fn reference(&mut self, inside: &str, depth: u32, scene: &mut Scene<'_>) -> Result<String, Failed> {
        if let Some(path) = inside.strip_prefix("file:") {
            return self.file(path, scene);
        }
        let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
        let (name, operator) = inside.split_at(end);
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            scene
                .fault(format!("\"${{{inside}}}\" names no variable"))
                .hint("write ${NAME}, ${NAME:-default}, ${NAME:?message} or ${file:/path}, and $$ for a single $");
            return Err(Failed);
        }
        self.names.insert(name.to_owned());
        let value = self.environment.variable(name);
        if operator.is_empty() {
            return value.ok_or_else(|| unset(name, scene));
        }
        let filled = value.filter(|value| !value.is_empty());
        if let Some(default) = operator.strip_prefix(":-") {
            return filled.map_or_else(|| self.expand_level(default, depth + 1, scene), Ok);
        }
        if let Some(message) = operator.strip_prefix(":?") {
            return filled.ok_or_else(|| {
                let message = if message.is_empty() { "it is required" } else { message };
                scene.fault(format!("the variable {name} is not set or empty: {message}"));
                Failed
            });
        }
        scene
            .fault(format!("\"${{{inside}}}\" is not understood after the name {name}"))
            .hint(format!("write ${{{name}}}, ${{{name}:-default}} or ${{{name}:?message}}"));
        Err(Failed)
    }

    fn file(&self, written: &str, scene: &mut Scene<'_>) -> Result<String, Failed> {
        let folder = scene.report.sources.file(scene.span.file).map(|source| source.folder.clone());
        let path = folder.unwrap_or_default().join(Path::new(written));
        let text = self.environment.read(&path, LARGEST_FILE).map_err(|error| {
            scene.fault(format!("cannot read the file \"{}\": {error}", path.display()));
            Failed
        })?;
        let trimmed = text.strip_suffix('\n').unwrap_or(&text);
        Ok(trimmed.strip_suffix('\r').unwrap_or(trimmed).to_owned())
    }
}

fn unset(name: &str, scene: &mut Scene<'_>) -> Failed {
    let hint = if name.bytes().any(|byte| byte.is_ascii_lowercase()) && crate::access::is_variable(name) {
        format!("access-log variables are written without braces: ${name}")
    } else {
        format!("set it, or give a default: ${{{name}:-default}}")
    };
    scene.fault(format!("the variable {name} is not set")).hint(hint);
    Failed
}

/// Offset of the brace that closes a reference, inner references skipped.
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = 0_usize;
    for (offset, &byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if offset > 0 && bytes[offset - 1] == b'$' => open += 1,
            b'}' if open == 0 => return Some(offset),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}
