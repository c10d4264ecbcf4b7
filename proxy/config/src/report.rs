//! Collects faults while a configuration is read, walked and compiled.
//!
//! It owns the sources, so that everybody else hands around spans of 20 bytes instead of texts.

use crate::fault::{Code, Fault, Faults, MOST_FAULTS, Related, Severity, sort};
use crate::source::{Sources, Span};

/// A fault whose places are still spans.
#[derive(Debug)]
pub(crate) struct Finding {
    severity: Severity,
    code: Code,
    span: Option<Span>,
    problem: String,
    hint: Option<String>,
    related: Vec<(Span, String)>,
}

impl Finding {
    /// Says what would be right.
    pub(crate) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what would be right, where that is known.
    pub(crate) fn maybe_hint(&mut self, hint: Option<String>) -> &mut Self {
        self.hint = hint.or_else(|| self.hint.take());
        self
    }

    /// Names another place.
    pub(crate) fn related(&mut self, span: Span, note: impl Into<String>) -> &mut Self {
        self.related.push((span, note.into()));
        self
    }
}

/// Faults and warnings so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The files that spans point into.
    pub(crate) sources: Sources,
    faults: Vec<Finding>,
    warnings: Vec<Finding>,
    /// Where a fault goes once there are too many.
    spare: Option<Finding>,
    omitted: usize,
}

impl Report {
    /// Adds a fault at a place.
    pub(crate) fn fault(&mut self, span: Span, code: Code, problem: impl Into<String>) -> &mut Finding {
        self.add(Severity::Error, Some(span), code, problem.into())
    }

    /// Adds a fault that has no place in a file.
    pub(crate) fn fault_without_place(&mut self, code: Code, problem: impl Into<String>) -> &mut Finding {
        self.add(Severity::Error, None, code, problem.into())
    }

    /// Adds a warning.
    pub(crate) fn warning(&mut self, span: Span, code: Code, problem: impl Into<String>) -> &mut Finding {
        self.add(Severity::Warning, Some(span), code, problem.into())
    }

    fn add(&mut self, severity: Severity, span: Option<Span>, code: Code, problem: String) -> &mut Finding {
        let finding = Finding { severity, code, span, problem, hint: None, related: Vec::new() };
        let list = match severity {
            Severity::Error => &mut self.faults,
            Severity::Warning => &mut self.warnings,
        };
        if list.len() < MOST_FAULTS {
            list.push(finding);
            let last = list.len() - 1;
            return &mut list[last];
        }
        self.omitted += usize::from(severity == Severity::Error);
        self.spare.insert(finding)
    }

    /// Whether the configuration can be used so far.
    pub(crate) const fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// The warnings when the configuration can be used, else its faults.
    pub(crate) fn finish(self) -> Result<Vec<Fault>, Faults> {
        if !self.is_clean() {
            return Err(self.into_faults());
        }
        let mut warnings = resolve(self.warnings, &self.sources);
        sort(&mut warnings);
        Ok(warnings)
    }

    /// The faults.
    pub(crate) fn into_faults(self) -> Faults {
        Faults::new(resolve(self.faults, &self.sources), self.omitted)
    }
}

fn resolve(findings: Vec<Finding>, sources: &Sources) -> Vec<Fault> {
    findings.into_iter().map(|finding| finding.resolve(sources)).collect()
}

impl Finding {
    fn resolve(self, sources: &Sources) -> Fault {
        let Self { severity, code, span, problem, hint, related } = self;
        let related = related
            .into_iter()
            .filter_map(|(span, note)| sources.place(span).map(|place| Related { place, note }))
            .collect();
        Fault { severity, code, place: span.and_then(|span| sources.place(span)), problem, hint, related }
    }
}
