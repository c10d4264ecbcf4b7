//! How long a client may take over its body: without anything, and for its pace.

use super::ClientFault;
use crate::edge::timer::Timer;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_config::model::ClientTimeouts;
use tidegate_traffic::body_rate::{Pace, RateMeter};
use tokio::time::Instant;

/// The wait for a body; only time between a wait and the bytes that end it counts.
#[derive(Debug)]
pub(super) struct BodyWait {
    idle: Duration,
    meter: Option<RateMeter>,
    /// Nothing has come since.
    since: Option<Instant>,
    /// The meter counts from here; later than `since` when a window has ended meanwhile.
    window: Option<Instant>,
    timer: Timer,
}

impl BodyWait {
    /// A wait that has not begun.
    pub(super) fn new(timeouts: &ClientTimeouts) -> Self {
        let meter = timeouts.body_rate.map(RateMeter::new);
        Self { idle: timeouts.body_idle, meter, since: None, window: None, timer: Timer::default() }
    }

    /// Bytes of the body came.
    pub(super) fn came(&mut self, bytes: usize) {
        let since = self.since.take();
        let window = self.window.take().or(since);
        if let Some(meter) = &mut self.meter {
            meter.received(bytes, window.map_or(Duration::ZERO, |window| window.elapsed()));
        }
    }

    /// Nobody takes the body for now: what the client was waited for so far counts for its pace, and its silence from
    /// here on does not.
    pub(super) fn pause(&mut self) {
        if self.since.is_some() {
            self.came(0);
        }
    }

    /// Nothing has come: ready when that has lasted too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ClientFault> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let stalled = since + self.idle;
        loop {
            let window = *self.window.get_or_insert(since);
            let until = self.meter.as_ref().map_or(stalled, |meter| stalled.min(window + meter.left()));
            if !self.timer.poll_expired(cx, until) {
                return Poll::Pending;
            }
            let now = Instant::now();
            if now >= stalled {
                return Poll::Ready(ClientFault::BodyStalled);
            }
            match self.meter.as_mut().map(|meter| meter.judge(now - window)) {
                Some(Pace::TooSlow) => return Poll::Ready(ClientFault::BodyTooSlow),
                Some(Pace::Enough) => self.window = Some(now),
                Some(Pace::Open) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::BodyWait;
    use crate::exchange::downstream::ClientFault;
    use std::future::poll_fn;
    use std::time::Duration;
    use tidegate_config::model::{BodyRate, ClientTimeouts};
    use tokio::time::Instant;

    const SECOND: Duration = Duration::from_secs(1);

    fn wait(body_idle: Duration, body_rate: Option<BodyRate>) -> BodyWait {
        BodyWait::new(&timeouts(body_idle, body_rate))
    }

    fn timeouts(body_idle: Duration, body_rate: Option<BodyRate>) -> ClientTimeouts {
        ClientTimeouts {
            handshake: SECOND,
            head: SECOND,
            idle: SECOND,
            body_idle,
            body_rate,
            write_idle: SECOND,
            tunnel_idle: SECOND,
        }
    }

    /// Sends `bytes` each second: when the wait ends, and how.
    async fn drip(mut wait: BodyWait, bytes: usize) -> (Duration, ClientFault) {
        let start = Instant::now();
        loop {
            match tokio::time::timeout(SECOND, poll_fn(|cx| wait.poll(cx))).await {
                Ok(fault) => return (start.elapsed(), fault),
                Err(_) if start.elapsed() > 300 * SECOND => panic!("no end"),
                Err(_) if bytes > 0 => wait.came(bytes),
                Err(_) => {}
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_ends_with_its_window_and_a_silent_one_with_its_time() {
        let rate = Some(BodyRate { rate: 500, over: 30 * SECOND });
        let (after, fault) = drip(wait(10 * SECOND, rate), 400).await;
        assert!(matches!(fault, ClientFault::BodyTooSlow) && (29 * SECOND..32 * SECOND).contains(&after), "{after:?}");
        let (after, fault) = drip(wait(10 * SECOND, rate), 0).await;
        assert!(matches!(fault, ClientFault::BodyStalled) && (10 * SECOND..11 * SECOND).contains(&after), "{after:?}");
        let (after, fault) = drip(wait(60 * SECOND, rate), 0).await;
        assert!(matches!(fault, ClientFault::BodyTooSlow) && (30 * SECOND..31 * SECOND).contains(&after), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_is_not_waited_does_not_count() {
        let mut wait = wait(10 * SECOND, Some(BodyRate { rate: 500, over: 30 * SECOND }));
        for _ in 0..100 {
            // The endpoint takes its time between two reads of ours.
            tokio::time::sleep(5 * SECOND).await;
            wait.came(1);
        }
        let polled = tokio::time::timeout(9 * SECOND, poll_fn(|cx| wait.poll(cx))).await;
        assert!(polled.is_err(), "{polled:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_is_not_late() {
        let rate = Some(BodyRate { rate: 500, over: 30 * SECOND });
        let mut wait = wait(10 * SECOND, rate);
        for _ in 0..2 {
            assert!(tokio::time::timeout(9 * SECOND, poll_fn(|cx| wait.poll(cx))).await.is_err());
            // One attempt has failed, and it takes its time to find another endpoint.
            wait.pause();
            wait.pause();
            tokio::time::sleep(60 * SECOND).await;
        }
        let start = Instant::now();
        let fault = poll_fn(|cx| wait.poll(cx)).await;
        assert!(matches!(fault, ClientFault::BodyStalled), "{fault}");
        assert!((10 * SECOND..11 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
        // The time that was waited still counts for the pace.
        let mut wait = self::wait(60 * SECOND, rate);
        assert!(tokio::time::timeout(20 * SECOND, poll_fn(|cx| wait.poll(cx))).await.is_err());
        wait.pause();
        let start = Instant::now();
        let fault = poll_fn(|cx| wait.poll(cx)).await;
        assert!(matches!(fault, ClientFault::BodyTooSlow), "{fault}");
        assert!((10 * SECOND..11 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_with_enough_is_followed_by_another() {
        let mut wait = wait(300 * SECOND, Some(BodyRate { rate: 500, over: 30 * SECOND }));
        wait.came(20_000);
        let start = Instant::now();
        let fault = poll_fn(|cx| wait.poll(cx)).await;
        assert!(matches!(fault, ClientFault::BodyTooSlow));
        assert!((60 * SECOND..61 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
    }
}
