//! When a worker counts as hung, as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_config::model;

/// JSON form of [`model::Hang`]; what is left out is as in a site file that says nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Hang {
    suspect_after_ms: u64,
    watchdog_ms: Option<u64>,
    tries: u32,
    try_timeout_ms: u64,
    path: String,
    guard: u8,
    kill_interval_ms: u64,
    on_hang: Option<Vec<String>>,
    spares_full: bool,
}

impl Default for Hang {
    fn default() -> Self {
        model::Hang::default().into()
    }
}

impl From<model::Hang> for Hang {
    fn from(hang: model::Hang) -> Self {
        let model::Hang {
            suspect_after,
            watchdog,
            tries,
            try_timeout,
            path,
            guard,
            kill_interval,
            on_hang,
            spares_full,
        } = hang;
        Self {
            suspect_after_ms: super::milliseconds(suspect_after),
            watchdog_ms: watchdog.map(super::milliseconds),
            tries,
            try_timeout_ms: super::milliseconds(try_timeout),
            path,
            guard,
            kill_interval_ms: super::milliseconds(kill_interval),
            on_hang,
            spares_full,
        }
    }
}

impl From<Hang> for model::Hang {
    fn from(hang: Hang) -> Self {
        let Hang {
            suspect_after_ms,
            watchdog_ms,
            tries,
            try_timeout_ms,
            path,
            guard,
            kill_interval_ms,
            on_hang,
            spares_full,
        } = hang;
        Self {
            suspect_after: Duration::from_millis(suspect_after_ms),
            watchdog: watchdog_ms.map(Duration::from_millis),
            tries,
            try_timeout: Duration::from_millis(try_timeout_ms),
            path,
            guard,
            kill_interval: Duration::from_millis(kill_interval_ms),
            on_hang,
            spares_full,
        }
    }
}
