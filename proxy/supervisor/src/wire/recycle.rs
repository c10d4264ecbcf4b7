//! A recycle policy as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_config::model;

/// JSON form of [`model::Recycle`]; what is left out is as in a site file that says nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Recycle {
    max_requests: Option<u64>,
    jitter: u8,
    max_lifetime_ms: Option<u64>,
    max_rss: Option<u64>,
    hard_rss: Option<u64>,
}

impl Default for Recycle {
    fn default() -> Self {
        model::Recycle::default().into()
    }
}

impl From<model::Recycle> for Recycle {
    fn from(recycle: model::Recycle) -> Self {
        let model::Recycle { max_requests, jitter, max_lifetime, max_rss, hard_rss } = recycle;
        Self { max_requests, jitter, max_lifetime_ms: max_lifetime.map(super::milliseconds), max_rss, hard_rss }
    }
}

impl From<Recycle> for model::Recycle {
    fn from(recycle: Recycle) -> Self {
        let Recycle { max_requests, jitter, max_lifetime_ms, max_rss, hard_rss } = recycle;
        Self { max_requests, jitter, max_lifetime: max_lifetime_ms.map(Duration::from_millis), max_rss, hard_rss }
    }
}
