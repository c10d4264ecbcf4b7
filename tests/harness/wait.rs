//! Waiting for a condition with a deadline. The only place of the tests that sleeps.

use std::{
    thread,
    time::{Duration, Instant},
};

use tokio::time::sleep;

/// Asks `probe` until it gives something, and returns that.
///
/// # Panics
/// When `limit` is over; the message names `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, probe: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    let mut probe = probe;
    async move {
        let started = Instant::now();
        loop {
            if let Some(found) = probe() {
                return found;
            }
            assert!(started.elapsed() < limit, "{caller}: waited {limit:?} for {what}, in vain");
            sleep(POLL).await;
        }
    }
}

/// As [`wait_for`], for a probe that itself waits.
///
/// # Panics
/// When `limit` is over; the message names `what`.
pub async fn wait_until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}, in vain");
        sleep(POLL).await;
    }
}

/// As [`wait_for`] outside of a runtime, and without a panic: `None` when `limit` is over.
pub fn wait_blocking<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if started.elapsed() >= limit {
            return None;
        }
        thread::sleep(POLL);
    }
}

const POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_is_returned() {
        let mut calls = 0;
        let counted = wait_for("the third call", Duration::from_secs(5), || {
            calls += 1;
            (calls == 3).then_some(calls)
        });
        assert_eq!(counted.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "for a thing that never comes, in vain")]
    async fn what_does_not_come_fails_the_test() {
        wait_for("a thing that never comes", Duration::from_millis(20), || None::<()>).await;
    }
}
