//! What is wrong with a site's certificate: the place, the problem and what would be right.
//!
//! Unlike the faults of the configuration these have no line in a file: what is wrong is outside of the site file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One thing that is wrong with the certificate of a site or, as a warning, doubtful.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct TlsFault {
    /// Whether the site can be served nevertheless.
    pub severity: Severity,
    /// Name of the site; of the listener when it is about a listener's policy.
    pub site: String,
    /// The file, when it is about one.
    pub path: Option<PathBuf>,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

/// Whether a site can be served nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl TlsFault {
    /// The form of the site file's faults, several lines, each ended by a line break.
    #[must_use]
    pub fn report(&self) -> String {
        let Self { severity, site, path, problem, remedy } = self;
        let place = path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
        format!("{place}{}: {problem} (site \"{site}\")\n  help: {remedy}\n", severity.word())
    }
}

impl fmt::Display for TlsFault {
    /// `site "a": /etc/ssl/a.pem: no certificate in the file; remedy`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "site \"{}\": ", self.site)?;
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

/// A problem and its remedy before the site is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    severity: Severity,
    path: Option<PathBuf>,
    problem: String,
    remedy: String,
}

impl Problem {
    /// The site cannot be served.
    pub(crate) fn error(path: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Error, path: Some(path.to_owned()), problem: problem.into(), remedy: remedy.into() }
    }

    /// The site can be served, but someone should look.
    pub(crate) fn warning(path: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, problem, remedy) }
    }

    /// Names the site.
    pub(crate) fn of_site(&self, site: &str) -> TlsFault {
        let Self { severity, path, problem, remedy } = self.clone();
        TlsFault { severity, site: site.to_owned(), path, problem, remedy }
    }
}
