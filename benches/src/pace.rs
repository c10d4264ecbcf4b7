//! The load: clients that work in a closed loop, or send requests at times chosen beforehand, whatever the answers do.
//!
//! Written here for three reasons. h2load's `--rps` sends in bursts: its timer fires every 10 ms and releases all
//! requests of that time at once; this generator draws exponential gaps (independent clients), and counts a request's
//! time from the moment it was due. No common generator counts TLS handshakes, resumed ones and WebSocket messages in the
//! same way as requests. And connections are made before the measurement and stay, so that a run of a second holds
//! nothing else.
//!
//! One thread, non-blocking sockets, epoll. It knows as much of HTTP as answers to GET need, and follows no redirect.
//! Every answer must have status 200 and exactly the bytes that are expected.

mod arrivals;
mod connection;
mod http1;
mod http2;
mod plan;
mod transport;
mod websocket;

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{Timespec, epoll};
use rustls::ClientConfig;

use crate::{
    stats,
    workload::{Connections, Workload},
};

use self::{
    connection::{Answer, Connection},
    http1::Http1,
    plan::Plan,
    transport::Transport,
};

pub(crate) use self::{plan::Amount, transport::Signatures};

/// Where the load goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) workload: Workload,
    pub(crate) port: u16,
    /// The one certificate a peer may present, as a PEM file.
    pub(crate) certificate: &'a Path,
    pub(crate) signatures: Signatures,
}

/// What one run gave.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// Good answers.
    pub(crate) requests: u64,
    /// Requests without a good answer, and lost connections.
    pub(crate) errors: u64,
    /// Good answers per second.
    pub(crate) rate: f64,
    /// Good answers on a resumed TLS session, as the handshake says.
    pub(crate) resumed: u64,
    /// The same as the peer says in its answers, where it does.
    pub(crate) told_resumed: u64,
    /// Protocol, cipher and key exchange, on TLS.
    pub(crate) tls: Option<String>,
    /// Median and 99th percentile of the time from when a request was due to the end of its answer.
    pub(crate) p50_us: u32,
    pub(crate) p99_us: u32,
}

/// All clients of one peer, with their connections where those are kept.
pub(crate) struct Clients {
    poll: rustix::fd::OwnedFd,
    workload: Workload,
    port: u16,
    /// One for all clients, or one for each where each has sessions to resume.
    tls: Vec<Option<Arc<ClientConfig>>>,
    slots: Vec<Option<Connection>>,
    /// One entry per free stream: the slot it belongs to. Taken from the front, so that all take turns.
    free: VecDeque<usize>,
    /// Streams with a request on them, and connections for one request that are not closed yet.
    busy: usize,
    buffer: Vec<u8>,
}

/// What has been counted in a run.
struct Tally {
    started: Instant,
    last_answer: Instant,
    latencies_us: Vec<u32>,
    errors: u64,
    resumed: u64,
    told_resumed: u64,
    tls: Option<String>,
}

impl Clients {
    /// Opens the connections, where they are kept. Runs of the same clients use them again.
    pub(crate) fn connect(target: Target<'_>) -> Result<Self> {
        let Target { workload, port, certificate, signatures } = target;
        let clients = workload.clients() as usize;
        let stores = if workload.connections() == Connections::Resumed { clients } else { 1 };
        let tls = (0..stores)
            .map(|_| transport::client_config(workload, certificate, signatures))
            .collect::<Result<Vec<_>>>()?;
        let mut all = Self {
            poll: epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot make an epoll descriptor")?,
            workload,
            port,
            tls,
            slots: (0..clients).map(|_| None).collect(),
            free: (0..workload.streams()).flat_map(|_| 0..clients).collect(),
            busy: 0,
            buffer: vec![0; 64 << 10],
        };
        if all.kept() {
            for index in 0..clients {
                all.open(index)?;
            }
        }
        Ok(all)
    }

    /// Sends what falls due, and waits for the answers. Runs on the calling thread.
    ///
    /// What is not answered some seconds after the last request was due counts as an error, as does every answer that is
    /// not the right one and every lost connection.
    ///
    /// # Errors
    /// When the peer takes no more connections, or no request was answered.
    pub(crate) fn run(&mut self, amount: Amount) -> Result<Outcome> {
        let started = Instant::now();
        let mut plan = Plan::new(amount, started);
        let mut tally = Tally::new(started);
        loop {
            let now = Instant::now();
            self.send_due(&mut plan, now, &mut tally)?;
            if self.busy == 0 && plan.is_sent(now) {
                break;
            }
            if now > plan.deadline() {
                tally.errors += plan.unsent();
                self.abandon(&mut tally);
                break;
            }
            if self.kept() && self.slots.iter().all(Option::is_none) {
                bail!("every connection was lost; {} errors before", tally.errors);
            }
            self.receive(plan.pause(now, !self.free.is_empty()), &mut tally)?;
        }
        tally.outcome()
    }

    fn kept(&self) -> bool {
        self.workload.connections() == Connections::Kept
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let tls = self.tls[index % self.tls.len()].clone();
        let connection = Connection::open(self.workload, self.port, tls)?;
        epoll::add(&self.poll, connection.socket(), epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)
            .context("cannot watch a connection")?;
        self.slots[index] = Some(connection);
        Ok(())
    }

    /// Gives requests that are due to free streams, and sends those of a connection with one write.
    fn send_due(&mut self, plan: &mut Plan, now: Instant, tally: &mut Tally) -> Result<()> {
        let mut touched = Vec::new();
        while let Some(&index) = self.free.front() {
            if self.kept() && self.slots[index].is_none() {
                self.free.pop_front();
                continue;
            }
            let Some(due) = plan.next(now) else { break };
            self.free.pop_front();
            if !self.kept() {
                self.open(index)?;
            }
            let Some(connection) = &mut self.slots[index] else { continue };
            connection.queue(due);
            self.busy += 1;
            if touched.last() != Some(&index) {
                touched.push(index);
            }
        }
        for index in touched {
            if self.slots[index].as_mut().is_some_and(|connection| connection.flush().is_err()) {
                self.close(index, tally);
            }
        }
        Ok(())
    }

    /// Waits for answers, at most as long as `pause`.
    fn receive(&mut self, pause: Duration, tally: &mut Tally) -> Result<()> {
        let pause = Timespec::try_from(pause).unwrap_or_default();
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for answers"),
        }
        for event in events {
            self.read(event.data.u64() as usize, tally);
        }
        Ok(())
    }

    fn read(&mut self, index: usize, tally: &mut Tally) {
        let kept = self.kept();
        let Some(connection) = &mut self.slots[index] else { return };
        let mut answers = Vec::new();
        let alive = connection.receive(&mut self.buffer, &mut answers);
        let now = Instant::now();
        for answer in answers {
            tally.add(&answer, connection, now);
            if kept {
                self.busy -= 1;
                self.free.push_back(index);
            }
        }
        if alive.is_err() {
            self.close(index, tally);
        }
    }

    /// Ends a connection. One for a single request ends with its answer; of another the loss counts as an error, as
    /// does everything that was in flight.
    fn close(&mut self, index: usize, tally: &mut Tally) {
        let Some(connection) = self.slots[index].take() else { return };
        let unanswered = connection.in_flight();
        tally.errors += unanswered as u64;
        if self.kept() {
            self.busy -= unanswered;
            tally.errors += 1;
        } else {
            self.busy -= 1;
            self.free.push_back(index);
        }
    }

    /// Gives up what is still in flight. A connection that was answered and that the peer did not close is an error too.
    fn abandon(&mut self, tally: &mut Tally) {
        for index in 0..self.slots.len() {
            let answered = self.slots[index].as_ref().map(|connection| connection.in_flight() == 0);
            match answered {
                Some(true) if self.kept() => {}
                Some(true) => {
                    tally.errors += 1;
                    self.close(index, tally);
                }
                Some(false) => self.close(index, tally),
                None => {}
            }
        }
    }
}

impl Tally {
    fn new(started: Instant) -> Self {
        Self {
            started,
            last_answer: started,
            latencies_us: Vec::with_capacity(1 << 18),
            errors: 0,
            resumed: 0,
            told_resumed: 0,
            tls: None,
        }
    }

    fn add(&mut self, answer: &Answer, connection: &Connection, now: Instant) {
        if !answer.good {
            self.errors += 1;
            return;
        }
        self.last_answer = now;
        let micros = now.saturating_duration_since(answer.due).as_micros();
        self.latencies_us.push(u32::try_from(micros).unwrap_or(u32::MAX));
        self.resumed += u64::from(connection.resumed());
        self.told_resumed += u64::from(answer.resumed);
        if self.tls.is_none() {
            self.tls = connection.negotiated();
        }
    }

    fn outcome(mut self) -> Result<Outcome> {
        self.latencies_us.sort_unstable();
        let percentile = |share| stats::percentile(&self.latencies_us, share);
        let (Some(p50_us), Some(p99_us)) = (percentile(0.5), percentile(0.99)) else {
            bail!("no request was answered as it should; {} errors", self.errors);
        };
        let wall = self.last_answer.saturating_duration_since(self.started).as_secs_f64();
        let requests = self.latencies_us.len() as u64;
        Ok(Outcome {
            requests,
            errors: self.errors,
            rate: requests as f64 / wall,
            resumed: self.resumed,
            told_resumed: self.told_resumed,
            tls: self.tls,
            p50_us,
            p99_us,
        })
    }
}

/// Makes one request from an address of loopback and returns the socket, on which nothing happens from then on.
///
/// # Errors
/// When the answer is not the right one.
pub(crate) fn idle_after_one(
    target: Target<'_>,
    tls: Option<Arc<ClientConfig>>,
    source: Ipv4Addr,
) -> Result<TcpStream> {
    let mut transport = Transport::new(Transport::connect_from(source, target.port)?, tls)?;
    let mut codec = Http1::new(target.workload);
    let mut request = Vec::new();
    codec.request(&mut request);
    transport.write_all(&request).context("cannot send a request")?;
    transport.flush().context("cannot send a request")?;
    let (mut buffer, mut ended) = ([0; 4096], Vec::new());
    while ended.is_empty() {
        let count = transport.read(&mut buffer).context("no answer")?;
        ensure!(count > 0, "the peer closed the connection");
        codec.receive(&buffer[..count], &mut ended).context("not an answer")?;
    }
    ensure!(ended.iter().all(|ended| ended.good), "not the right answer");
    Ok(transport.into_socket())
}

/// The TLS configuration for [`idle_after_one`].
pub(crate) fn tls_of(target: Target<'_>) -> Result<Option<Arc<ClientConfig>>> {
    transport::client_config(target.workload, target.certificate, target.signatures)
}

const EVENTS: usize = 128;
