//! What endpoints and clients are told of times.

use crate::model::Timing;

/// Workers are ours, so their monitoring may rely on us; whom servers believe is theirs to say.
pub(super) fn timing(request_start: Option<bool>, server_timing: Option<bool>, has_workers: bool) -> Timing {
    Timing { request_start: request_start.unwrap_or(has_workers), server_timing: server_timing.unwrap_or(false) }
}
