//! Server programs of which everything is known that an operator would have to write.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model;

/// A server program.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Preset {
    /// Any command: nothing is known.
    Custom,
    /// uvicorn.
    Uvicorn,
    /// granian.
    Granian,
    /// gunicorn.
    Gunicorn,
    /// hypercorn.
    Hypercorn,
    /// A Node program.
    Node,
    /// Puma.
    Puma,
}

impl From<Preset> for model::Preset {
    fn from(raw: Preset) -> Self {
        match raw {
            Preset::Custom => Self::Custom,
            Preset::Uvicorn => Self::Uvicorn,
            Preset::Granian => Self::Granian,
            Preset::Gunicorn => Self::Gunicorn,
            Preset::Hypercorn => Self::Hypercorn,
            Preset::Node => Self::Node,
            Preset::Puma => Self::Puma,
        }
    }
}
