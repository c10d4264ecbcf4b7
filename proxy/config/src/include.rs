//! Reads a site file and everything it includes into one tree.
//!
//! Lists are joined in the order of reading (a file's own entries first), `upstreams` are merged by name, everything
//! else may stand in one file only. A file that is reached twice is read once.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::environment::{Environment, ReadError};
use crate::fault::Code;
use crate::interpolate::Variables;
use crate::parse::{MOST_NODES, parse};
use crate::report::Report;
use crate::source::Span;
use crate::tree::{Content, Entry, Node, Spot};

/// Largest file.
pub(crate) const LARGEST_FILE: u64 = 4 << 20;
/// Most bytes in all files.
const MOST_BYTES: u64 = 16 << 20;
/// Most files.
const MOST_FILES: usize = 1_000;
/// Deepest chain of includes.
const DEEPEST: usize = 8;
/// The key that this module acts on.
const INCLUDE: &str = "include";

/// Everything read.
pub(crate) struct Gathered {
    /// One mapping of all files; `include` is taken out.
    pub(crate) root: Node,
    /// Names of the environment variables the files refer to, sorted.
    pub(crate) variables: Vec<String>,
    /// The files in the order of reading; empty for text without a file.
    pub(crate) files: Vec<PathBuf>,
}

/// Reads the file at `path` and all that it includes. Every fault is in the report.
pub(crate) fn gather(path: &Path, environment: &dyn Environment, report: &mut Report) -> Gathered {
    let mut gathering = Gathering::new(environment, report);
    gathering.file(path, None);
    gathering.finish()
}

/// Takes `text` for the content of a file in `folder` (absolute) and reads all that it includes.
pub(crate) fn gather_text(
    name: &str,
    text: String,
    folder: &Path,
    environment: &dyn Environment,
    report: &mut Report,
) -> Gathered {
    let mut gathering = Gathering::new(environment, report);
    if text.len() as u64 > LARGEST_FILE {
        let problem = format!("{name} is too large: more than {LARGEST_FILE} bytes");
        gathering.report.fault_without_place(Code::Limit, problem);
        gathering.damaged = true;
    } else {
        gathering.text(name.to_owned(), folder.to_owned(), folder, text);
    }
    gathering.finish()
}

struct Gathering<'a> {
    environment: &'a dyn Environment,
    report: &'a mut Report,
    variables: Variables<'a>,
    /// Nodes that may still be made.
    nodes: u32,
    /// Bytes that may still be read.
    bytes: u64,
    files: Vec<PathBuf>,
    /// The files that are being read right now, outermost first.
    chain: Vec<PathBuf>,
    entries: Vec<Entry>,
    damaged: bool,
}

impl<'a> Gathering<'a> {
    fn new(environment: &'a dyn Environment, report: &'a mut Report) -> Self {
        Self {
            environment,
            report,
            variables: Variables::new(environment),
            nodes: MOST_NODES,
            bytes: MOST_BYTES,
            files: Vec::new(),
            chain: Vec::new(),
            entries: Vec::new(),
            damaged: false,
        }
    }

    fn finish(self) -> Gathered {
        let mut root = Node::new(Span::start_of(0), Content::Mapping(self.entries));
        root.damaged = self.damaged;
        Gathered { root, variables: self.variables.names.into_iter().collect(), files: self.files }
    }

    /// Reads one file; `asked` is the place that includes it.
    fn file(&mut self, path: &Path, asked: Option<Span>) {
        let absolute = self.environment.current_folder().join(path);
        let identity = std::fs::canonicalize(&absolute).unwrap_or_else(|_| absolute.clone());
        if self.chain.contains(&identity) {
            return self.refuse(asked, Code::Include, format!("\"{}\" includes itself", path.display()));
        }
        if self.files.contains(&identity) {
            return;
        }
        if self.files.len() >= MOST_FILES {
            return self.refuse(asked, Code::Limit, format!("more than {MOST_FILES} files are included"));
        }
        if self.chain.len() > DEEPEST {
            return self.refuse(asked, Code::Limit, format!("includes are nested deeper than {DEEPEST} levels"));
        }
        let text = match self.environment.read(&absolute, LARGEST_FILE.min(self.bytes)) {
            Ok(text) => text,
            Err(error) => return self.refuse_reading(path, asked, &error),
        };
        self.bytes = self.bytes.saturating_sub(text.len() as u64);
        self.files.push(identity.clone());
        self.chain.push(identity);
        let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let shown_folder = path.parent().unwrap_or(Path::new("")).to_owned();
        self.text(path.display().to_string(), folder, &shown_folder, text);
        self.chain.pop();
    }

    fn refuse_reading(&mut self, path: &Path, asked: Option<Span>, error: &ReadError) {
        let code = if matches!(error, ReadError::TooLarge { .. }) { Code::Limit } else { Code::Read };
        self.refuse(asked, code, format!("cannot read \"{}\": {error}", path.display()));
    }

    fn refuse(&mut self, asked: Option<Span>, code: Code, problem: String) {
        self.damaged = true;
        match asked {
            Some(span) => self.report.fault(span, code, problem),
            None => self.report.fault_without_place(code, problem),
        };
    }

    /// `shown_folder` is the folder as people gave it: the names of included files start with it.
    fn text(&mut self, name: String, folder: PathBuf, shown_folder: &Path, text: String) {
        let file = self.report.sources.add(name, folder, text.clone());
        let Some(node) = parse(file, &text, &mut self.nodes, &mut self.variables, self.report) else {
            if self.report.is_clean() {
                self.empty(file);
            }
            self.damaged |= !self.report.is_clean();
            return;
        };
        drop(text);
        let Content::Mapping(entries) = &node.content else {
            let is_empty = node.describe() == "nothing";
            return if is_empty { self.empty(file) } else { self.refuse_root(&node) };
        };
        self.damaged |= node.damaged;
        for entry in entries.iter().filter(|entry| &*entry.key != INCLUDE) {
            self.merge(entry);
        }
        if node.entry(INCLUDE).is_some() {
            self.follow(Spot::root(&node).key(INCLUDE), shown_folder);
        }
    }

    fn empty(&mut self, file: u32) {
        // An included file may be empty: a drop-in folder often has one whose lines are all commented out.
        if file == 0 {
            self.damaged = true;
            let problem = "the file is empty";
            self.report
                .fault(Span::start_of(file), Code::MissingKey, problem)
                .hint("a site file needs at least one listener: listeners: [{ address: \":8080\" }]");
        }
    }

    fn refuse_root(&mut self, node: &Node) {
        self.damaged = true;
        let problem = format!("expected keys such as \"listeners:\", found {}", node.describe());
        self.report.fault(node.span.first_character(), Code::WrongType, problem);
    }

    /// Adds a top-level key of one file to those of the others.
    fn merge(&mut self, entry: &Entry) {
        let Some(known) = self.entries.iter_mut().find(|known| known.key == entry.key) else {
            self.entries.push(entry.clone());
            return;
        };
        let joined = match (&known.value.content, &entry.value.content) {
            (Content::Sequence(ours), Content::Sequence(theirs)) => {
                Content::Sequence(ours.iter().chain(theirs).cloned().collect())
            }
            (Content::Mapping(ours), Content::Mapping(theirs)) if &*entry.key == "upstreams" => {
                let mut joined = ours.clone();
                for theirs in theirs {
                    match ours.iter().find(|ours| ours.key == theirs.key) {
                        None => joined.push(theirs.clone()),
                        Some(ours) => {
                            refuse_second(self.report, &format!("the upstream \"{}\"", ours.key), ours, theirs)
                        }
                    }
                }
                Content::Mapping(joined)
            }
            _ => return refuse_second(self.report, &format!("the key \"{}\"", entry.key), known, entry),
        };
        known.value = Rc::new(Node::new(known.value.span, joined));
    }

    fn follow(&mut self, include: Spot<'_>, folder: &Path) {
        let Content::Sequence(items) = &include.node.content else {
            self.damaged = true;
            let problem = format!("expected a list of paths, found {}", include.node.describe());
            let hint = "write include: [sites/*.yaml]";
            self.report.fault(include.span(), Code::WrongType, problem).hint(hint);
            return;
        };
        for item in items {
            match &item.content {
                Content::Scalar(scalar) if scalar.failed => self.damaged = true,
                Content::Scalar(scalar) if !scalar.text.is_empty() && !scalar.is_null() => {
                    self.pattern(&scalar.text, item.span, folder);
                }
                _ => {
                    self.damaged = true;
                    let problem = format!("expected a path, found {}", item.describe());
                    self.report.fault(item.span, Code::WrongType, problem);
                }
            }
        }
    }

    fn pattern(&mut self, written: &str, span: Span, folder: &Path) {
        let path = folder.join(written);
        if !written.contains(['*', '?', '[']) {
            return self.file(&path, Some(span));
        }
        if written.contains("**") {
            let problem = format!("\"{written}\": \"**\" is not used in includes");
            self.report.fault(span, Code::Include, problem).hint("name each folder: sites/*/*.yaml");
            self.damaged = true;
            return;
        }
        // The folder may hold the very characters that make a pattern.
        let absolute = self.environment.current_folder().join(folder);
        let pattern = Path::new(&escape(&absolute)).join(written);
        for found in self.environment.matches(&pattern.to_string_lossy()) {
            let shown = found.strip_prefix(&absolute).map_or_else(|_| found.clone(), |rest| folder.join(rest));
            self.file(&shown, Some(span));
        }
    }
}

fn escape(folder: &Path) -> String {
    glob::Pattern::escape(&folder.to_string_lossy())
}

fn refuse_second(report: &mut Report, what: &str, first: &Entry, second: &Entry) {
    report
        .fault(second.key_span, Code::DuplicateKey, format!("{what} is already defined in another place"))
        .related(first.key_span, "the first one is here")
        .hint("keep one of them");
}
