//! What is wrong with a certificate: the place, the problem and what would be right.
//!
//! Unlike the faults of the configuration these have no line in a file: what is wrong is outside of the site file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One thing that is wrong with the certificates of a site, a policy or an upstream or, as a warning, doubtful.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct TlsFault {
    /// Whether the site can be served nevertheless.
    pub severity: Severity,
    /// What it is about.
    pub kind: Kind,
    /// Its name.
    pub site: String,
    /// The file, when it is about one.
    pub path: Option<PathBuf>,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

/// What a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A site's certificate.
    Site,
    /// A TLS policy.
    TlsPolicy,
    /// TLS with the servers of an upstream.
    Upstream,
}

impl Kind {
    /// For people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::TlsPolicy => "TLS policy",
            Self::Upstream => "upstream",
        }
    }
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
        let Self { severity, kind, site, path, problem, remedy } = self;
        let place = path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
        format!("{place}{}: {problem} ({} \"{site}\")\n  help: {remedy}\n", severity.word(), kind.word())
    }
}

impl fmt::Display for TlsFault {
    /// `site "a": /etc/ssl/a.pem: no certificate in the file; remedy`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\": ", self.kind.word(), self.site)?;
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

    /// The same without a file.
    pub(crate) fn general(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Error, path: None, problem: problem.into(), remedy: remedy.into() }
    }

    /// Names the site.
    pub(crate) fn of_site(&self, site: &str) -> TlsFault {
        self.of(Kind::Site, site)
    }

    /// Names the TLS policy.
    pub(crate) fn of_policy(&self, name: &str) -> TlsFault {
        self.of(Kind::TlsPolicy, name)
    }

    /// Names the upstream.
    pub(crate) fn of_upstream(&self, name: &str) -> TlsFault {
        self.of(Kind::Upstream, name)
    }

    fn of(&self, kind: Kind, name: &str) -> TlsFault {
        let Self { severity, path, problem, remedy } = self.clone();
        TlsFault { severity, kind, site: name.to_owned(), path, problem, remedy }
    }
}
