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

/// The wait that an answer asks for by `Retry-After`: seconds, or until a date (RFC 9110 section 10.2.3), which is understood
/// by the answer's own `Date`, so that no clocks need to agree. A date that has passed is no wait.
#[must_use]
pub fn asked_for(retry_after: &[u8], date: Option<&[u8]>) -> Option<Duration> {
    let text = std::str::from_utf8(retry_after).ok()?.trim_ascii();
    if !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = std::str::from_utf8(date?).ok()?.trim_ascii();
    let (until, now) = (httpdate::parse_http_date(text).ok()?, httpdate::parse_http_date(date).ok()?);
    Some(until.duration_since(now).unwrap_or_default())
}
