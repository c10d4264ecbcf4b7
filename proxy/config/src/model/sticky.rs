//! Clients that stay with an endpoint.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The cookie by which they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// Its name: a token (RFC 9110 section 5.6.2).
    pub cookie: String,
    /// Files with the secrets, absolute and not read by compile: the first signs, all are known. Empty is a secret of our own.
    pub secrets: Vec<PathBuf>,
    /// How long a browser keeps it; `None` is until it is closed.
    pub max_age: Option<Duration>,
    /// Paths that it is sent for.
    pub path: String,
    /// Hosts that it is sent to; `None` is the host that was asked.
    pub domain: Option<String>,
    /// Whether it is sent over TLS only; `None` is for clients that came over TLS.
    pub secure: Option<bool>,
    /// Whether it is sent when another site leads here.
    pub same_site: SameSite,
    /// Whether scripts do not see it.
    pub http_only: bool,
}

/// Whether a cookie is sent with requests that another site causes (RFC 6265bis section 5.6.7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When the user follows a link.
    Lax,
    /// Always.
    None,
}

/// As in the file.
impl fmt::Display for SameSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Lax => "lax",
            Self::None => "none",
        })
    }
}
