//! JSON form of [`model::Warmup`].

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_config::model;

use super::milliseconds;

/// What a worker is asked for before it gets requests.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Warmup {
    paths: Vec<String>,
    timeout_ms: u64,
}

impl From<model::Warmup> for Warmup {
    fn from(model::Warmup { paths, timeout }: model::Warmup) -> Self {
        Self { paths, timeout_ms: milliseconds(timeout) }
    }
}

impl From<Warmup> for model::Warmup {
    fn from(Warmup { paths, timeout_ms }: Warmup) -> Self {
        Self { paths, timeout: Duration::from_millis(timeout_ms) }
    }
}
