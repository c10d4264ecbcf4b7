//! Faults: answers that go wrong at a chosen byte, and a proxy that breaks a connection at a chosen byte.
//!
//! The machine has no packet-level fault injection, so faults are those a peer can cause: ends, resets, silence,
//! slowness, nonsense. A reset may overtake bytes the receiver has not got yet when its window is full; small bodies
//! arrive whole before it.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{Either, select};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::recorder::Step;

/// What happens when the chosen byte is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends in order (FIN) on both sides.
    Fin,
    /// The connection ends by a reset (RST) on both sides.
    Reset,
    /// Nothing goes on in this direction any more; the connection stays open.
    Stall,
    /// This direction ends in order; the other one goes on.
    HalfClose,
    /// These bytes come before the next one.
    Garbage(Vec<u8>),
    /// Nothing for so long, then it goes on.
    Delay(Duration),
    /// One byte at a time from here, with this pause before each.
    Drip(Duration),
}

/// Which bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the target to the client: answers.
    ToClient,
    /// From the client to the target: requests.
    ToTarget,
}

/// A fault at its place: so many bytes in this direction pass unharmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which bytes are counted.
    pub direction: Direction,
    /// How many of them pass.
    pub after: usize,
    /// What happens then.
    pub fault: Fault,
}

/// A TCP proxy that can break what goes through it. It stops when it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    plan: Arc<Mutex<Option<Plan>>>,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Plan {
    /// The answer breaks after `after` bytes, its head included.
    pub fn answer(after: usize, fault: Fault) -> Self {
        Self { direction: Direction::ToClient, after, fault }
    }

    /// The request breaks after `after` bytes, its head included.
    pub fn request(after: usize, fault: Fault) -> Self {
        Self { direction: Direction::ToTarget, after, fault }
    }
}

impl FaultProxy {
    /// Listens on a free loopback port and connects to `target` for each connection it gets. Without a plan it
    /// harms nothing.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(target: SocketAddr) -> Self {
        Self::start_with(target, |_, plan| plan).await
    }

    /// As [`FaultProxy::start`]; `choose` gives the plan of each connection, by its number and the plan that is set.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start_with(
        target: SocketAddr,
        choose: impl Fn(usize, Option<Plan>) -> Option<Plan> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (plan, connections) = (Arc::<Mutex<Option<Plan>>>::default(), Arc::<AtomicUsize>::default());
        let (shared, count) = (Arc::clone(&plan), Arc::clone(&connections));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let plan = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(relay(client, target, choose(number, plan)));
            }
        });
        Self { address, plan, connections, accepting }
    }

    /// What happens to connections from now on; those that are open keep their plan.
    pub fn set(&self, plan: Option<Plan>) {
        // Guards the plan only; held for the copy.
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it got.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The script of an origin that sends the first `after` bytes of `answer` and then breaks off.
pub fn cut(answer: &[u8], after: usize, fault: &Fault) -> Vec<Step> {
    let (sent, rest) = answer.split_at(after.min(answer.len()));
    let mut steps = vec![Step::Send(sent.to_vec())];
    match fault {
        // The pause lets the bytes arrive: a reset takes with it what is still queued.
        Fault::Reset => steps.extend([Step::Pause(Duration::from_millis(20)), Step::Reset]),
        Fault::Fin => steps.push(Step::Close),
        Fault::HalfClose => steps.extend([Step::HalfClose, Step::Stall]),
        Fault::Stall => steps.push(Step::Stall),
        Fault::Garbage(bytes) => steps.extend([Step::Send(bytes.clone()), Step::Send(rest.to_vec())]),
        Fault::Delay(pause) => steps.extend([Step::Pause(*pause), Step::Send(rest.to_vec())]),
        Fault::Drip(pause) => steps.push(Step::Drip(rest.to_vec(), *pause)),
    }
    steps
}

/// How a direction of a relay came to its end.
enum Verdict {
    /// The sender ended it in order; it was passed on.
    Passed,
    /// Both sides end in order now.
    EndBoth,
    /// Both sides are reset now.
    ResetBoth,
}

async fn relay(mut client: TcpStream, target: SocketAddr, plan: Option<Plan>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (request, answer) = match plan {
        Some(plan) if plan.direction == Direction::ToTarget => (Some(plan), None),
        plan => (None, plan),
    };
    let verdict = {
        // Borrowed halves: owned ones would send a FIN when they are dropped, ahead of a reset.
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let one = pin!(copy(client_read, server_write, request));
        let other = pin!(copy(server_read, client_write, answer));
        match select(one, other).await {
            Either::Left((Verdict::Passed, other)) => other.await,
            Either::Right((Verdict::Passed, one)) => one.await,
            Either::Left((verdict, _)) | Either::Right((verdict, _)) => verdict,
        }
    };
    match verdict {
        Verdict::Passed => {}
        Verdict::EndBoth => drop(tokio::join!(end(&mut client), end(&mut server))),
        Verdict::ResetBoth => {
            sleep(RESET_PAUSE).await;
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
    }
}

/// Ends a connection in order: one closed with bytes unread would be reset.
async fn end(stream: &mut TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 4096];
    let drain = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let _ = timeout(Duration::from_secs(1), drain).await;
}

/// Copies one direction until it ends or its fault comes.
async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut plan: Option<Plan>) -> Verdict {
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    let mut drip = None;
    loop {
        let most = match (&plan, drip) {
            (_, Some(_)) => 1,
            (Some(plan), None) => (plan.after - passed).min(buffer.len()),
            (None, None) => buffer.len(),
        };
        if most > 0 {
            let Ok(read @ 1..) = from.read(&mut buffer[..most]).await else { break };
            if let Some(pause) = drip {
                sleep(pause).await;
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                break;
            }
            passed += read;
        }
        match plan.take_if(|plan| plan.after == passed).map(|plan| plan.fault) {
            None => {}
            Some(Fault::Fin) => return Verdict::EndBoth,
            Some(Fault::Reset) => return Verdict::ResetBoth,
            Some(Fault::Stall) => std::future::pending().await,
            Some(Fault::HalfClose) => break,
            Some(Fault::Garbage(bytes)) => drop(to.write_all(&bytes).await),
            Some(Fault::Delay(pause)) => sleep(pause).await,
            Some(Fault::Drip(pause)) => drip = Some(pause),
        }
    }
    let _ = to.shutdown().await;
    Verdict::Passed
}

/// Lets what was sent before a reset arrive.
const RESET_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        raw::{End, Raw},
        recorder::Recorder,
        wait::wait_for,
    };

    const ANSWER: &str = "0123456789";
    const REQUEST: &str = "GET / HTTP/1.1\r\n\r\n";

    async fn through(plan: Option<Plan>, limit: Duration) -> (String, End) {
        let recorder = Recorder::start(|_| vec![Step::Send(ANSWER.into()), Step::Close]).await;
        let proxy = FaultProxy::start(recorder.socket_address()).await;
        proxy.set(plan);
        Raw::exchange(proxy.address(), REQUEST, limit).await
    }

    #[tokio::test]
    async fn without_a_plan_nothing_is_harmed() {
        assert_eq!(through(None, Duration::from_secs(5)).await, (ANSWER.to_owned(), End::Closed));
    }

    #[tokio::test]
    async fn it_cuts_exactly_there() {
        for after in 0..=ANSWER.len() {
            for (fault, end) in [(Fault::Fin, End::Closed), (Fault::Reset, End::Reset)] {
                let got = through(Some(Plan::answer(after, fault.clone())), Duration::from_secs(5)).await;
                // A connection that ended by itself before the place was reached keeps its end.
                assert_eq!(got.0, ANSWER[..after], "{fault:?} after {after}");
                assert_eq!(got.1, end, "{fault:?} after {after}");
            }
        }
    }

    #[tokio::test]
    async fn it_stalls_half_closes_and_babbles() {
        let soon = Duration::from_millis(200);
        assert_eq!(through(Some(Plan::answer(4, Fault::Stall)), soon).await, ("0123".to_owned(), End::Open));
        assert_eq!(through(Some(Plan::answer(4, Fault::HalfClose)), soon).await, ("0123".to_owned(), End::Closed));
        let garbled = through(Some(Plan::answer(2, Fault::Garbage(b"!!".to_vec()))), Duration::from_secs(5)).await;
        assert_eq!(garbled, ("01!!23456789".to_owned(), End::Closed));
    }

    #[tokio::test]
    async fn it_slows_down() {
        let started = Instant::now();
        let delayed =
            through(Some(Plan::answer(5, Fault::Delay(Duration::from_millis(100)))), Duration::from_secs(5)).await;
        assert_eq!(delayed.0, ANSWER);
        assert!(started.elapsed() >= Duration::from_millis(100));
        let started = Instant::now();
        let dripped =
            through(Some(Plan::answer(5, Fault::Drip(Duration::from_millis(20)))), Duration::from_secs(5)).await;
        assert_eq!(dripped.0, ANSWER);
        assert!(started.elapsed() >= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn it_cuts_requests_too() {
        let recorder = Recorder::friendly().await;
        let proxy = FaultProxy::start(recorder.socket_address()).await;
        proxy.set(Some(Plan::request(7, Fault::Fin)));
        let (read, end) = Raw::exchange(proxy.address(), REQUEST, Duration::from_secs(5)).await;
        assert_eq!((read.as_str(), end), ("", End::Closed));
        let arrived = wait_for("the bytes", Duration::from_secs(5), || {
            recorder.connections().first().filter(|recorded| recorded.ended).map(|recorded| recorded.bytes.clone())
        });
        assert_eq!(arrived.await, REQUEST.as_bytes()[..7]);
        assert_eq!(proxy.connections(), 1);
    }

    #[tokio::test]
    async fn each_connection_may_have_a_plan_of_its_own() {
        let recorder = Recorder::start(|_| vec![Step::Send(ANSWER.into()), Step::Close]).await;
        let by_number = |number, _| Some(Plan::answer(number, Fault::Fin));
        let proxy = FaultProxy::start_with(recorder.socket_address(), by_number).await;
        for number in 0..3 {
            let (read, _) = Raw::exchange(proxy.address(), REQUEST, Duration::from_secs(5)).await;
            assert_eq!(read, ANSWER[..number]);
        }
    }

    #[tokio::test]
    async fn an_origin_breaks_off_where_it_is_told() {
        for (fault, text, end) in [
            (Fault::Fin, "0123", End::Closed),
            (Fault::Reset, "0123", End::Reset),
            (Fault::Stall, "0123", End::Open),
            (Fault::Garbage(b"?".to_vec()), "0123?456789", End::Open),
        ] {
            let steps = cut(ANSWER.as_bytes(), 4, &fault);
            let recorder = Recorder::start(move |_| steps.clone()).await;
            let got = Raw::exchange(recorder.socket_address(), REQUEST, Duration::from_millis(200)).await;
            assert_eq!(got, (text.to_owned(), end), "{fault:?}");
        }
    }
}
