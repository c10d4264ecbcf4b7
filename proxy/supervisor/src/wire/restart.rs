//! A restart policy as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_config::model;

/// JSON form of [`model::Restart`]; what is left out is as in a site file that says nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Restart {
    stable_after_ms: u64,
    max_delay_ms: u64,
    failures: u32,
    window_ms: u64,
    no_restart_codes: Vec<u8>,
}

impl Default for Restart {
    fn default() -> Self {
        model::Restart::default().into()
    }
}

impl From<model::Restart> for Restart {
    fn from(restart: model::Restart) -> Self {
        let model::Restart { stable_after, max_delay, failures, window, no_restart_codes } = restart;
        Self {
            stable_after_ms: super::milliseconds(stable_after),
            max_delay_ms: super::milliseconds(max_delay),
            failures,
            window_ms: super::milliseconds(window),
            no_restart_codes,
        }
    }
}

impl From<Restart> for model::Restart {
    fn from(restart: Restart) -> Self {
        let Restart { stable_after_ms, max_delay_ms, failures, window_ms, no_restart_codes } = restart;
        Self {
            stable_after: Duration::from_millis(stable_after_ms),
            max_delay: Duration::from_millis(max_delay_ms),
            failures,
            window: Duration::from_millis(window_ms),
            no_restart_codes,
        }
    }
}
