//! Changes of who serves, in the log and in the counters: once for each, wherever it was decided.

use crate::edge::bind;
use crate::observe::metrics::Metrics;
use std::sync::Arc;
use tidegate_traffic::pool::breaker::{BreakerState, BreakerStatus};
use tidegate_traffic::pool::transition::{Change, Observer, Transition};

/// Hears of changes for the log and the counters.
pub(crate) fn observer(metrics: &Arc<Metrics>) -> Observer {
    let metrics = Arc::clone(metrics);
    Observer::new(move |transition| {
        count(&metrics, transition);
        log(transition);
    })
}

fn count(metrics: &Metrics, Transition { upstream, change }: &Transition) {
    match change {
        Change::Ejected { ejected, .. } => metrics.health().ejected(upstream, ejected.reason.token()),
        Change::Breaker(status) if status.state == BreakerState::Open => metrics.health().tripped(upstream),
        Change::Breaker(_) | Change::Returned { .. } | Change::CheckFailing { .. } | Change::CheckPassing { .. } => {}
    }
}

fn log(Transition { upstream, change }: &Transition) {
    match change {
        Change::Ejected { endpoint, ejected } => tracing::warn!(
            %upstream,
            endpoint = %bind::display(endpoint),
            reason = %ejected.reason,
            ms = milliseconds(ejected.until.saturating_duration_since(ejected.since)),
            times = ejected.times,
            "endpoint taken out of service"
        ),
        Change::Breaker(BreakerStatus { state: BreakerState::Open, since, until, reason, trips }) => tracing::warn!(
            %upstream,
            reason = reason.as_deref(),
            ms = since.zip(*until).map(|(since, until)| milliseconds(until.saturating_duration_since(since))),
            trips,
            "breaker open, requests are refused"
        ),
        Change::Breaker(BreakerStatus { state: BreakerState::HalfOpen, .. }) => {
            tracing::info!(%upstream, "breaker half-open, a few requests are let through");
        }
        Change::Breaker(BreakerStatus { state: BreakerState::Closed, .. }) => {
            tracing::info!(%upstream, "breaker closed")
        }
        Change::CheckFailing { endpoint, why } => tracing::warn!(
            %upstream,
            endpoint = %bind::display(endpoint),
            reason = %why,
            "endpoint out of service, its checks fail"
        ),
        Change::CheckPassing { endpoint, after } => tracing::info!(
            %upstream,
            endpoint = %bind::display(endpoint),
            ms = milliseconds(*after),
            "endpoint back in service, its checks pass"
        ),
        Change::Returned { endpoint, after, early } => tracing::info!(
            %upstream,
            endpoint = %bind::display(endpoint),
            ms = milliseconds(*after),
            early,
            "endpoint back in service"
        ),
    }
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
