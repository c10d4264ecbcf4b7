//! What is known of the program behind workers.

use std::time::Duration;

/// A program that workers can be, with everything that has to be known of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Any command: nothing is known.
    #[default]
    Custom,
    /// uvicorn, for ASGI.
    Uvicorn,
    /// granian, for ASGI, RSGI and WSGI.
    Granian,
    /// gunicorn, for WSGI and with a worker class for ASGI.
    Gunicorn,
    /// hypercorn, for ASGI and WSGI.
    Hypercorn,
    /// A Node program that makes its own server.
    Node,
    /// Puma, for Rack.
    Puma,
}

impl Preset {
    /// As in the file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Custom => "custom",
            Self::Uvicorn => "uvicorn",
            Self::Granian => "granian",
            Self::Gunicorn => "gunicorn",
            Self::Hypercorn => "hypercorn",
            Self::Node => "node",
            Self::Puma => "puma",
        }
    }
}

/// The program behind the workers of an upstream, as far as it concerns those who speak with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerProgram {
    /// What it is.
    pub preset: Preset,
    /// How long it keeps an idle connection; `None` where nobody has said.
    pub keep_alive: Option<Duration>,
    /// Variables that the preset sets, below those of the file; values may hold templates.
    pub env: Vec<(String, String)>,
}
