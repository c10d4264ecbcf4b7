//! Pages for answers of our own, as they are written.

use schemars::JsonSchema;
use serde::Deserialize as DeriveDeserialize;

/// What stands for one of our own answers.
#[derive(Debug, DeriveDeserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ErrorPageChoice {
    /// A file, or `off`.
    One(String),
    /// Several, of which each client gets the one that it asks for.
    Several(#[schemars(length(min = 1, max = 3))] Vec<String>),
}
