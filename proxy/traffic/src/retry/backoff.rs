//! When a further try begins.
//!
//! With full jitter: any time up to a limit that doubles. Of the ways to spread tries this one does the least work in all and
//! is not slower than others (Brooker, "Exponential Backoff And Jitter", 2015), and Envoy does the same. Other than Envoy's, a
//! first retry at an endpoint that was not asked goes at once: what failed elsewhere says nothing against it, the budget
//! keeps a failing upstream from being buried, and to a client the wait would only be lost time.

use std::time::Duration;

use tidegate_config::model::Backoff;

/// The wait before the `retry`th retry, 1 for the first; `draw` is a random number.
#[must_use]
pub fn delay(backoff: &Backoff, retry: u32, draw: u64) -> Duration {
    let doublings = retry.saturating_sub(1).min(31);
    let most = backoff.base.saturating_mul(1 << doublings).min(backoff.max);
    // The upper half of a product of 64 by 64 bits: a share of `most`, without a division and without a bias that matters.
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(((u128::from(nanos) * u128::from(draw)) >> 64) as u64)
}

/// The wait that an answer asks for by `Retry-After`, in seconds. A date (RFC 9110 section 10.2.3) is not understood: it would
/// need the clocks of both sides to agree.
#[must_use]
pub fn asked_for(retry_after: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(retry_after).ok()?.trim_ascii();
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok().map(Duration::from_secs)).flatten()
}
