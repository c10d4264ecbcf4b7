//! What is wrong with a configuration: the place, the problem and what would be right.
//!
//! Faults are for the operator. They are collected, never thrown one by one, and print in the form compilers use, so
//! that editors jump to them.

use std::fmt;

use serde::Serialize;

/// Most faults kept of one load; the rest are only counted.
pub(crate) const MOST_FAULTS: usize = 200;
/// Widest piece of a source line that is printed.
const WIDEST_EXCERPT: usize = 120;

/// One thing that is wrong, or, as a warning, doubtful.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Whether the configuration can be used nevertheless.
    pub severity: Severity,
    /// The kind of problem; stable, for programs.
    pub code: Code,
    /// Where; `None` when it is about no place in a file.
    pub place: Option<Place>,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub hint: Option<String>,
    /// Other places that matter, such as the first of two equal names.
    pub related: Vec<Related>,
}

/// Whether a configuration can be used nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can.
    Warning,
}

/// The kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// A file could not be read.
    Read,
    /// Not YAML, or a part of YAML that site files do not use.
    Syntax,
    /// Too large, too deep, too many.
    Limit,
    /// The same key twice in one mapping.
    DuplicateKey,
    /// A key that does not exist.
    UnknownKey,
    /// A required key is missing.
    MissingKey,
    /// A mapping where text belongs, and the like.
    WrongType,
    /// The right type, but not a possible value.
    BadValue,
    /// Planned, but not part of this version.
    NotAvailable,
    /// `${...}` that cannot be replaced.
    Variable,
    /// `include:` that cannot be followed.
    Include,
    /// A name that is defined nowhere.
    UnknownName,
    /// Two things that must differ do not.
    Duplicate,
    /// Two settings that exclude each other.
    Conflict,
    /// Something is defined and never used.
    Unused,
    /// Likely not what was meant.
    Suspicious,
    /// A defect of this program.
    Internal,
}

/// A piece of one line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Path as it was given.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// First column after the piece; always greater than `column`.
    pub end_column: u32,
    /// The line, or the piece of a very long one around the place.
    pub source_line: String,
    /// Column at which `source_line` starts; 1 unless the line is very long.
    pub source_column: u32,
}

/// Another place that matters for a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What is there.
    pub note: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Place {
    /// The source line with a line of carets under the piece, each line ended by a line break.
    fn excerpt(&self) -> String {
        let column = self.column.saturating_sub(self.source_column) as usize;
        let width = self.source_line.chars().count();
        let from = if width <= WIDEST_EXCERPT {
            0
        } else {
            column.saturating_sub(WIDEST_EXCERPT / 2).min(width - WIDEST_EXCERPT)
        };
        let mut shown: Vec<char> = self.source_line.chars().skip(from).take(WIDEST_EXCERPT).map(printable).collect();
        let end = from + shown.len();
        if let Some(first) = shown.first_mut().filter(|_| from > 0 || self.source_column > 1) {
            *first = '…';
        }
        if let Some(last) = shown.last_mut().filter(|_| end < width) {
            *last = '…';
        }
        let before = column.saturating_sub(from);
        let room = shown.len().saturating_sub(before).max(1);
        let carets = (self.end_column.saturating_sub(self.column) as usize).clamp(1, room);
        let shown = String::from_iter(shown);
        let number = self.line.to_string();
        format!(
            "{number:>4} | {shown}\n{:>width$} | {:before$}{}\n",
            "",
            "",
            "^".repeat(carets),
            width = number.len().max(4)
        )
    }
}

/// One column for one character, so that carets line up and no control byte reaches a terminal.
fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        control if control.is_control() => '\u{fffd}',
        other => other,
    }
}

/// Words of a message, which may quote the file or a library that quotes it.
fn text(words: &str) -> String {
    words.chars().map(printable).collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        match &self.place {
            Some(place) => write!(f, "{place}: {word}: {}\n{}", text(&self.problem), place.excerpt())?,
            None => writeln!(f, "{word}: {}", text(&self.problem))?,
        }
        for Related { place, note } in &self.related {
            write!(f, "  note: {place}: {}\n{}", text(note), place.excerpt())?;
        }
        match &self.hint {
            Some(hint) => writeln!(f, "  help: {}", text(hint)),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with one configuration; never empty.
///
/// Displays as the text of `tidegate check`, sorted by place, with the count in the last line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults {
    faults: Vec<Fault>,
    omitted: usize,
}

impl Faults {
    /// Sorts by place; `omitted` faults were not kept.
    pub(crate) fn new(mut faults: Vec<Fault>, omitted: usize) -> Self {
        sort(&mut faults);
        Self { faults, omitted }
    }

    /// The faults, sorted by place.
    #[must_use]
    pub fn as_slice(&self) -> &[Fault] {
        &self.faults
    }

    /// How many there are, those too many to keep included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.faults.len() + self.omitted
    }

    /// The form for programs: an array of objects, see [`FaultRecord`].
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        records(&self.faults)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            write!(f, "{fault}")?;
        }
        match self.count() {
            1 => write!(f, "1 error"),
            count if self.omitted > 0 => write!(f, "{count} errors, the first {} shown", self.faults.len()),
            count => write!(f, "{count} errors"),
        }
    }
}

/// By place; those without one come first.
pub(crate) fn sort(faults: &mut [Fault]) {
    faults.sort_by(|a, b| a.place.cmp(&b.place));
}

/// One fault as `--format json` prints it: flat, so that a line of `jq` is enough.
#[derive(Debug, Clone, Serialize)]
pub struct FaultRecord<'a> {
    severity: Severity,
    code: Code,
    file: Option<&'a str>,
    line: Option<u32>,
    column: Option<u32>,
    end_column: Option<u32>,
    problem: &'a str,
    hint: Option<&'a str>,
    related: Vec<RelatedRecord<'a>>,
}

/// Another place that matters for a fault.
#[derive(Debug, Clone, Serialize)]
struct RelatedRecord<'a> {
    file: &'a str,
    line: u32,
    column: u32,
    end_column: u32,
    note: &'a str,
}

impl<'a> From<&'a Fault> for FaultRecord<'a> {
    fn from(fault: &'a Fault) -> Self {
        let Fault { severity, code, place, problem, hint, related } = fault;
        Self {
            severity: *severity,
            code: *code,
            file: place.as_ref().map(|place| place.file.as_str()),
            line: place.as_ref().map(|place| place.line),
            column: place.as_ref().map(|place| place.column),
            end_column: place.as_ref().map(|place| place.end_column),
            problem,
            hint: hint.as_deref(),
            related: related.iter().map(RelatedRecord::from).collect(),
        }
    }
}

impl<'a> From<&'a Related> for RelatedRecord<'a> {
    fn from(related: &'a Related) -> Self {
        let Related { place, note } = related;
        Self { file: &place.file, line: place.line, column: place.column, end_column: place.end_column, note }
    }
}

/// Faults or warnings in the form for programs: an array of objects with `severity`, `code`, `file`, `line`, `column`,
/// `end_column`, `problem`, `hint` and `related`.
#[must_use]
pub fn records(faults: &[Fault]) -> serde_json::Value {
    let records: Vec<FaultRecord<'_>> = faults.iter().map(FaultRecord::from).collect();
    serde_json::to_value(records).unwrap_or_default()
}
