//! One timer that many short waits share.
//!
//! Moving a deadline forward is the common case (every read and write does it) and costs nothing here: the
//! runtime's timer is only touched when it fires too early or when a deadline comes nearer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep};

/// A lazily armed timer; see the module's text.
#[derive(Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Whether `deadline` has passed; if not, the task is woken at it or earlier.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx) == Poll::Ready(()) {
            if Instant::now() >= deadline {
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
        false
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timer").field("armed", &self.sleep.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Timer;
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;
    use tokio::time::Instant;

    async fn expire(timer: &mut Timer, deadline: Instant) {
        poll_fn(|cx| if timer.poll_expired(cx, deadline) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn fires_at_its_deadline_and_can_be_used_again() {
        let mut timer = Timer::default();
        let start = Instant::now();
        expire(&mut timer, start + Duration::from_secs(10)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        expire(&mut timer, start + Duration::from_secs(15)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_nearer_deadline_takes_effect() {
        let mut timer = Timer::default();
        let start = Instant::now();
        let early = start + Duration::from_secs(1);
        poll_fn(|cx| {
            assert!(!timer.poll_expired(cx, start + Duration::from_secs(60)));
            Poll::Ready(())
        })
        .await;
        expire(&mut timer, early).await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_deadline_outlives_the_earlier_one() {
        let mut timer = Timer::default();
        let start = Instant::now();
        poll_fn(|cx| {
            assert!(!timer.poll_expired(cx, start + Duration::from_secs(1)));
            Poll::Ready(())
        })
        .await;
        expire(&mut timer, start + Duration::from_secs(5)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
