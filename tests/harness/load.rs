//! Steady load while a test does something to the edge: keep-alive connections, one request after the other on each,
//! every answer checked.
//!
//! A connection the edge closes between two requests is opened again and counts as nothing; one that dies during a
//! request is an error. A first request on a fresh connection must always succeed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    client::{Answer, Ask, Client, Connection},
    ledger::{Entry, Ledger},
};

/// Load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: JoinSet<Tally>,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Requests with the right answer.
    pub right: u64,
    /// What went wrong, in words.
    pub errors: Vec<String>,
    /// The longest time to a whole answer.
    pub slowest: Duration,
    /// How many right answers took so many tenths of a millisecond.
    times: BTreeMap<u32, u64>,
}

/// What the clients ask, and how an answer is judged.
type Question = dyn Fn() -> Ask + Send + Sync;
type Check = dyn Fn(&Answer) -> Result<()> + Send + Sync;

impl Load {
    /// Keeps `concurrency` connections busy, spread over `clients`, asking for `target` and taking only 200 with `body`.
    pub fn start(clients: &[Client], concurrency: usize, target: &str, body: Vec<u8>) -> Self {
        let target = target.to_owned();
        let check = move |answer: &Answer| {
            ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
            ensure!(answer.is_complete(), "{:?} after {} bytes", answer.ending, answer.body.len());
            ensure!(answer.body == body, "another body: {} bytes instead of {}", answer.body.len(), body.len());
            Ok(())
        };
        Self::asking(clients, concurrency, move || Ask::get(&target), check)
    }

    /// As [`Load::start`], with any question and judgement.
    pub fn asking(
        clients: &[Client],
        concurrency: usize,
        question: impl Fn() -> Ask + Send + Sync + 'static,
        check: impl Fn(&Answer) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let (question, check): (Arc<Question>, Arc<Check>) = (Arc::new(question), Arc::new(check));
        Self::run(clients, concurrency, |client, stop, sent| {
            let (question, check) = (Arc::clone(&question), Arc::clone(&check));
            async move {
                let mut tally = Tally::default();
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    sent.fetch_add(1, Ordering::Relaxed);
                    let started = Instant::now();
                    let answer = send(client, &mut connection, question()).await;
                    tally.note(started.elapsed(), answer.and_then(|answer| check(&answer)), client);
                }
                tally
            }
        })
    }

    /// Keeps connections busy with entries of a ledger, gets and posts in turn. The ledger's report has the judgement;
    /// the tally counts what got an answer at all.
    pub fn ledger(clients: &[Client], concurrency: usize, ledger: &Ledger, length: usize) -> Self {
        Self::entering(clients, concurrency, ledger, move |ledger, turn| {
            if turn % 2 == 0 { ledger.get(length) } else { ledger.post(length, 16) }
        })
    }

    /// As [`Load::ledger`]; `enter` makes the entry of each turn.
    pub fn entering(
        clients: &[Client],
        concurrency: usize,
        ledger: &Ledger,
        enter: impl Fn(&Ledger, u64) -> (Entry, Ask) + Send + Sync + 'static,
    ) -> Self {
        let enter = Arc::new(enter);
        Self::run(clients, concurrency, |client, stop, sent| {
            let (ledger, enter) = (ledger.clone(), Arc::clone(&enter));
            async move {
                let mut tally = Tally::default();
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let (entry, ask) = enter(&ledger, sent.fetch_add(1, Ordering::Relaxed));
                    let started = Instant::now();
                    let answer = send(client, &mut connection, ask).await;
                    ledger.close(&entry, &answer);
                    tally.note(started.elapsed(), answer.map(drop), client);
                }
                tally
            }
        })
    }

    /// Requests sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends the load and waits for the last answers.
    ///
    /// # Panics
    /// When they take longer than half a minute.
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut whole = Tally::default();
        let gathering = async {
            while let Some(tally) = self.clients.join_next().await {
                whole.add(tally.expect("a client does not panic"));
            }
        };
        timeout(Duration::from_secs(30), gathering).await.expect("the last answers come in time");
        whole
    }

    fn run<F: Future<Output = Tally> + Send + 'static>(
        clients: &[Client],
        concurrency: usize,
        one: impl Fn(Client, Arc<AtomicBool>, Arc<AtomicU64>) -> F,
    ) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let tasks =
            (0..concurrency).map(|index| one(clients[index % clients.len()], Arc::clone(&stop), Arc::clone(&sent)));
        let clients = tasks.collect();
        Self { stop, sent, clients }
    }
}

impl Tally {
    /// # Panics
    /// When there was an error, or no request at all.
    pub fn assert_clean(&self) {
        assert!(
            self.errors.is_empty(),
            "{} errors beside {} right answers: {:#?}",
            self.errors.len(),
            self.right,
            self.few()
        );
        assert!(self.right > 0, "no request was sent");
    }

    /// The time within which 99 of 100 right answers came.
    pub fn p99(&self) -> Duration {
        let most = self.right - self.right / 100;
        let mut sum = 0;
        let within = self.times.iter().find(|(_, count)| {
            sum += **count;
            sum >= most
        });
        within.map_or(Duration::ZERO, |(tenths, _)| TENTH * (*tenths + 1))
    }

    fn few(&self) -> &[String] {
        &self.errors[..self.errors.len().min(5)]
    }

    fn note(&mut self, took: Duration, result: Result<()>, client: Client) {
        self.slowest = self.slowest.max(took);
        match result {
            Ok(()) => {
                self.right += 1;
                let tenths = took.as_micros() / TENTH.as_micros();
                *self.times.entry(u32::try_from(tenths).unwrap_or(u32::MAX - 1)).or_default() += 1;
            }
            Err(error) => self.errors.push(format!("{}: {error:#}", client.kind())),
        }
    }

    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.errors.extend(other.errors);
        self.slowest = self.slowest.max(other.slowest);
        for (time, count) in other.times {
            *self.times.entry(time).or_default() += count;
        }
    }
}

/// Times of answers are told apart by this much.
const TENTH: Duration = Duration::from_micros(100);

/// Sends on the connection there is, or on a new one where it has been closed since.
pub(crate) async fn send(client: Client, connection: &mut Option<Connection>, ask: Ask) -> Result<Answer> {
    let mut open = match connection.take().filter(|open| !open.is_closed()) {
        Some(open) => open,
        None => client.connect().await?,
    };
    let answer = open.send(ask).await?;
    *connection = Some(open);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::Kind,
        fault::{Fault, FaultProxy, Plan},
        recorder::{OK, Recorder, Step},
        wait::wait_for,
    };

    #[test]
    fn one_of_a_hundred_may_be_slower_than_the_p99() {
        let mut tally = Tally::default();
        let client = Client::new(Kind::Http1, ([127, 0, 0, 1], 1).into());
        (1..=100).for_each(|ms| tally.note(Duration::from_millis(ms), Ok(()), client));
        assert_eq!(tally.p99(), Duration::from_micros(99_100));
        assert_eq!(Tally::default().p99(), Duration::ZERO);
    }

    #[tokio::test]
    async fn right_answers_are_counted() {
        let recorder = Recorder::friendly().await;
        let client = Client::new(Kind::Http1, recorder.socket_address());
        let load = Load::start(&[client], 3, "/x", b"ok\n".to_vec());
        wait_for("some requests", Duration::from_secs(10), || (load.sent() > 20).then_some(())).await;
        let tally = load.stop().await;
        tally.assert_clean();
        assert_eq!(tally.right, recorder.requests().len() as u64);
        assert_eq!(recorder.connections().len(), 3);
    }

    #[tokio::test]
    async fn a_wrong_body_and_a_broken_connection_are_errors() {
        let recorder = Recorder::start(|seen| {
            let answer = if seen.target() == "/x" { OK.replace("ok\n", "no\n") } else { OK.to_owned() };
            vec![Step::Send(answer.into())]
        })
        .await;
        let proxy = FaultProxy::start(recorder.socket_address()).await;
        proxy.set(Some(Plan::answer(90, Fault::Reset)));
        for (address, target) in [(recorder.socket_address(), "/x"), (proxy.address(), "/y")] {
            let load = Load::start(&[Client::new(Kind::Http1, address)], 1, target, b"ok\n".to_vec());
            wait_for("some requests", Duration::from_secs(10), || (load.sent() > 5).then_some(())).await;
            assert!(!load.stop().await.errors.is_empty(), "{target}");
        }
    }

    #[tokio::test]
    async fn a_ledger_under_load_adds_up() {
        let ledger = Ledger::open().await;
        let load = Load::ledger(&[Client::new(Kind::Http1, ledger.address())], 4, &ledger, 1_000);
        wait_for("some requests", Duration::from_secs(10), || (load.sent() > 50).then_some(())).await;
        load.stop().await.assert_clean();
        ledger.report().assert_clean();
    }
}
