//! When a request began, by the clock that other programs read.

use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_traffic::Exchange;

/// That time, where the endpoint is told; else no clock is read.
pub(super) fn began(exchange: &Exchange) -> Option<SystemTime> {
    let since = || SystemTime::now().checked_sub(exchange.timings().started.elapsed());
    exchange.tells_start().then(|| since().unwrap_or(UNIX_EPOCH))
}
