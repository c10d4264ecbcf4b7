//! Changes of what endpoints and clients are told of times.

use super::settings::Settings;
use crate::model::Timing;

/// All of them apply live.
pub(super) fn timing(old: &Timing, new: &Timing, settings: &mut Settings) {
    let Timing { request_start, server_timing } = old;
    settings.debug("request_start", request_start, &new.request_start);
    settings.debug("server_timing", server_timing, &new.server_timing);
}
