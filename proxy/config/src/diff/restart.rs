//! Changes of when workers that end unasked are started again.

use super::settings::{Settings, list};
use crate::model::Restart;

/// All of them apply live.
pub(super) fn restart(old: &Restart, new: &Restart, settings: &mut Settings) {
    let Restart { stable_after, max_delay, failures, window, no_restart_codes } = old;
    settings.time("restart.stable_after", stable_after, &new.stable_after);
    settings.time("restart.max_delay", max_delay, &new.max_delay);
    settings.compare("restart.failures", failures, &new.failures, ToString::to_string);
    settings.time("restart.window", window, &new.window);
    settings.compare("restart.no_restart_codes", no_restart_codes, &new.no_restart_codes, |codes| {
        list(codes.iter().map(ToString::to_string))
    });
}
