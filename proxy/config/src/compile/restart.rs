//! When workers that end unasked are started again.

use crate::model::Restart;
use crate::raw;

/// Compiles the policy of a group.
pub(super) fn restart(raw: Option<raw::Restart>) -> Restart {
    let raw::Restart { stable_after, max_delay, failures, window, no_restart_codes } = raw.unwrap_or_default();
    let default = Restart::default();
    let mut codes = no_restart_codes.unwrap_or_default();
    codes.sort_unstable();
    codes.dedup();
    Restart {
        stable_after: stable_after.map_or(default.stable_after, |time| time.0),
        max_delay: max_delay.map_or(default.max_delay, |time| time.0),
        failures: failures.unwrap_or(default.failures),
        window: window.map_or(default.window, |time| time.0),
        no_restart_codes: codes,
    }
}
