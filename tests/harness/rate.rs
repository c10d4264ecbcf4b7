//! Requests at even times, whatever became of those before: what clients see while something happens to the servers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    client::{Answer, Ask, Client},
    load::send,
};

/// Connections, whose requests go out in turn. One that waits for its answer is late with its next one, which is counted from
/// the time it was due all the same.
const CONNECTIONS: u64 = 64;

/// Such requests, until they are stopped.
pub struct Rate {
    stop: Arc<AtomicBool>,
    started: Instant,
    connections: JoinSet<Outcomes>,
}

/// What became of them.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    /// From the time a request was due to the end of its right answer, in ascending order.
    pub took: Vec<Duration>,
    /// When a request that failed was due, after the first one, and why it failed.
    pub failed: Vec<(Duration, String)>,
}

type Question = dyn Fn() -> Ask + Send + Sync;
type Check = dyn Fn(&Answer) -> Result<()> + Send + Sync;

impl Rate {
    /// `per_second` requests in turn to all of `clients`.
    ///
    /// # Panics
    /// Without any client.
    pub fn start(
        clients: &[Client],
        per_second: u64,
        question: impl Fn() -> Ask + Send + Sync + 'static,
        check: impl Fn(&Answer) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let (question, check): (Arc<Question>, Arc<Check>) = (Arc::new(question), Arc::new(check));
        let (stop, started) = (Arc::<AtomicBool>::default(), Instant::now());
        let mut connections = JoinSet::new();
        for first in 0..CONNECTIONS {
            let client = clients[first as usize % clients.len()];
            let (question, check, stop) = (Arc::clone(&question), Arc::clone(&check), Arc::clone(&stop));
            connections.spawn(async move {
                let (mut outcomes, mut connection) = (Outcomes::default(), None);
                for turn in (first..).step_by(CONNECTIONS as usize) {
                    let due = Duration::from_secs_f64(turn as f64 / per_second as f64);
                    sleep_until(started + due).await;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let answer = send(client, &mut connection, question()).await;
                    match answer.and_then(|answer| check(&answer)) {
                        Ok(()) => outcomes.took.push((started + due).elapsed()),
                        Err(error) => outcomes.failed.push((due, format!("{}: {error:#}", client.kind()))),
                    }
                }
                outcomes
            });
        }
        Self { stop, started, connections }
    }

    /// For how long it runs.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends it, and waits for the last answers.
    ///
    /// # Panics
    /// When they take longer than a minute.
    pub async fn stop(mut self) -> Outcomes {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcomes::default();
        let gathering = async {
            while let Some(outcomes) = self.connections.join_next().await {
                let Outcomes { took, failed } = outcomes.expect("a client does not panic");
                all.took.extend(took);
                all.failed.extend(failed);
            }
        };
        timeout(Duration::from_secs(60), gathering).await.expect("the last answers come in time");
        all.took.sort_unstable();
        all.failed.sort();
        all
    }
}

impl Outcomes {
    /// Requests that were sent.
    pub fn sent(&self) -> usize {
        self.took.len() + self.failed.len()
    }

    /// The time that this share of the right answers came within.
    pub fn within(&self, share: f64) -> Duration {
        let place = (self.took.len() as f64 * share) as usize;
        self.took.get(place.min(self.took.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// # Panics
    /// When a request failed, or there was none.
    pub fn assert_clean(&self) {
        let few = &self.failed[..self.failed.len().min(5)];
        assert!(self.failed.is_empty(), "{} of {} failed: {few:#?}", self.failed.len(), self.sent());
        assert!(!self.took.is_empty(), "no request was sent");
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;
    use crate::{
        client::Kind,
        recorder::{OK, Recorder, Step},
        wait::wait_for,
    };

    const LIMIT: Duration = Duration::from_secs(10);

    fn right(answer: &Answer) -> Result<()> {
        ensure!(answer.status == 200 && answer.is_complete(), "{}", answer.status);
        Ok(())
    }

    #[tokio::test]
    async fn requests_are_as_many_as_the_time_has_room_for() {
        let recorder = Recorder::friendly().await;
        let client = Client::new(Kind::Http1, recorder.socket_address());
        let rate = Rate::start(&[client], 200, || Ask::get("/x"), right);
        wait_for("some time", LIMIT, || (rate.age() > Duration::from_millis(500)).then_some(())).await;
        let (age, outcomes) = (rate.age(), rate.stop().await);
        outcomes.assert_clean();
        assert_eq!(outcomes.sent(), recorder.requests().len());
        assert!(outcomes.sent() as f64 <= age.as_secs_f64() * 200.0 + CONNECTIONS as f64, "{}", outcomes.sent());
        assert!(outcomes.sent() >= 64, "{}", outcomes.sent());
    }

    #[tokio::test]
    async fn who_is_kept_waiting_counts_from_the_time_that_was_due() {
        let pause = Duration::from_millis(300);
        let recorder = Recorder::start(move |_| vec![Step::Pause(pause), Step::Send(OK.into())]).await;
        let client = Client::new(Kind::Http1, recorder.socket_address());
        // Each connection would have sent a request every 32 ms.
        let rate = Rate::start(&[client], 2_000, || Ask::get("/x"), right);
        wait_for("some time", LIMIT, || (rate.age() > 2 * pause).then_some(())).await;
        let outcomes = rate.stop().await;
        assert!(outcomes.within(0.0) >= pause && outcomes.within(1.0) >= 2 * pause - Duration::from_millis(32));
    }

    #[tokio::test]
    async fn wrong_answers_are_failures() {
        let recorder = Recorder::start(|_| vec![Step::Send(OK.replace("200 OK", "503 No").into())]).await;
        let client = Client::new(Kind::Http1, recorder.socket_address());
        let rate = Rate::start(&[client], 200, || Ask::get("/x"), right);
        wait_for("some requests", LIMIT, || (recorder.requests().len() > 5).then_some(())).await;
        let outcomes = rate.stop().await;
        assert!(outcomes.took.is_empty() && outcomes.failed.len() > 5, "{outcomes:?}");
        assert!(outcomes.failed[0].1.contains("503"), "{:?}", outcomes.failed[0]);
    }
}
