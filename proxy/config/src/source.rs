//! The files a configuration was read from, and spans within them.
//!
//! A span is kept small (20 bytes) because every node of a tree has one; the text it points at is looked up only when
//! a fault is printed.

use std::path::PathBuf;

use crate::fault::Place;

/// A position in a file; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mark {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Mark {
    /// The first character of a file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// A piece of a file, its end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    /// Index into [`Sources`].
    pub(crate) file: u32,
    pub(crate) start: Mark,
    pub(crate) end: Mark,
}

impl Span {
    /// The first character of a file.
    pub(crate) const fn start_of(file: u32) -> Self {
        Self { file, start: Mark::START, end: Mark::START }
    }

    /// Only the first character of this span.
    pub(crate) const fn first_character(self) -> Self {
        Self { file: self.file, start: self.start, end: self.start }
    }
}

/// One file as read.
#[derive(Debug)]
pub(crate) struct Source {
    /// As shown to people: the path as it was given.
    pub(crate) name: String,
    /// Absolute; relative paths within the file start here.
    pub(crate) folder: PathBuf,
    text: String,
    /// Byte offset at which each line starts.
    lines: Vec<u32>,
}

impl Source {
    fn new(name: String, folder: PathBuf, text: String) -> Self {
        let lines = line_starts(&text);
        Self { name, folder, text, lines }
    }

    /// The same position, or the end of the file if the file ends before it: YAML counts a line after the last one.
    fn within(&self, mark: Mark) -> Mark {
        let last = u32::try_from(self.lines.len()).unwrap_or(u32::MAX);
        if mark.line <= last {
            return mark;
        }
        let width = u32::try_from(self.line(last).chars().count()).unwrap_or(u32::MAX);
        Mark { line: last, column: width.saturating_add(1) }
    }

    /// The text of a line, which counts from 1, without its line break.
    fn line(&self, number: u32) -> &str {
        let index = number.saturating_sub(1) as usize;
        let Some(&start) = self.lines.get(index) else { return "" };
        let end = self.lines.get(index + 1).map_or(self.text.len(), |&next| next as usize);
        self.text.get(start as usize..end).unwrap_or_default().trim_end_matches(['\n', '\r'])
    }
}

/// Line breaks as YAML counts them: LF, CR LF and CR.
fn line_starts(text: &str) -> Vec<u32> {
    let bytes = text.as_bytes();
    let mut starts = vec![0];
    for (offset, &byte) in bytes.iter().enumerate() {
        let is_break = byte == b'\n' || (byte == b'\r' && bytes.get(offset + 1) != Some(&b'\n'));
        if is_break {
            starts.push(u32::try_from(offset + 1).unwrap_or(u32::MAX));
        }
    }
    starts
}

/// Every file of one load, in the order of reading.
#[derive(Debug, Default)]
pub(crate) struct Sources(Vec<Source>);

impl Sources {
    /// Keeps a file and returns its number.
    pub(crate) fn add(&mut self, name: String, folder: PathBuf, text: String) -> u32 {
        self.0.push(Source::new(name, folder, text));
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    /// A file by its number.
    pub(crate) fn file(&self, file: u32) -> Option<&Source> {
        self.0.get(file as usize)
    }

    /// A span as a person sees it.
    pub(crate) fn place(&self, span: Span) -> Option<Place> {
        let source = self.file(span.file)?;
        let start = source.within(span.start);
        let line = source.line(start.line);
        // A span over several lines is shown up to the end of its first one.
        let end = if span.end.line == start.line { span.end.column } else { u32::MAX };
        let (excerpt, excerpt_column, end_of_line) = excerpt(line, start.column);
        Some(Place {
            file: source.name.clone(),
            line: start.line,
            column: start.column,
            end_column: end.min(end_of_line).max(start.column.saturating_add(1)),
            source_line: excerpt,
            source_column: excerpt_column,
        })
    }
}

/// The line, or the piece of a very long one around a column; the column at which it starts; and a column that is not
/// beyond the line's end, exact for lines that are shown whole.
fn excerpt(line: &str, column: u32) -> (String, u32, u32) {
    let index = column.saturating_sub(1) as usize;
    let from = if line.len() <= WIDEST_EXCERPT { 0 } else { index.saturating_sub(WIDEST_EXCERPT / 2) };
    let piece: String = if line.is_ascii() {
        // The usual case, without counting characters: one line may be a whole file.
        line.get(from..line.len().min(from + WIDEST_EXCERPT)).unwrap_or_default().to_owned()
    } else {
        line.chars().skip(from).take(WIDEST_EXCERPT).collect()
    };
    let first = u32::try_from(from + 1).unwrap_or(u32::MAX);
    let width = u32::try_from(piece.chars().count()).unwrap_or(u32::MAX);
    (piece, first, first.saturating_add(width))
}

/// Most characters of a line that are kept with a fault: a thousand faults in one long line must not keep it a thousand
/// times.
const WIDEST_EXCERPT: usize = 240;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_like_yaml_lines() {
        let mut sources = Sources::default();
        let file = sources.add("a.yaml".into(), PathBuf::from("/"), "one\r\ntwo\rthree\n".into());
        let line = |number| sources.file(file).map(|source| source.line(number).to_owned());
        assert_eq!([line(1), line(2), line(3), line(4), line(9)].map(Option::unwrap), ["one", "two", "three", "", ""]);
    }
}
