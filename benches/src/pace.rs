//! The open loop: requests at times chosen beforehand, whatever the answers do.
//!
//! Written here because h2load's `--rps` sends in bursts: its timer fires every 10 ms and releases all requests of
//! that time at once, so that a proxy at 60 % of its peak alternates between overload and nothing. This generator
//! draws exponential gaps (independent clients), and counts a request's time from the moment it was due, so a request
//! that found every connection busy is slow and not merely late.
//!
//! One thread, non-blocking sockets, epoll. It knows as much of HTTP as answers to GET need, and follows no redirect.

mod arrivals;
mod connection;
mod http1;
mod http2;
mod transport;

use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::event::{Timespec, epoll};

use crate::{
    load::{Latency, Outcome},
    stats,
    workload::Workload,
};

use self::{
    arrivals::Arrivals,
    connection::{Answer, Connection},
};

/// Where the load goes, and at which rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace<'a> {
    pub(crate) workload: Workload,
    pub(crate) port: u16,
    /// Requests per second over all connections.
    pub(crate) per_second: f64,
    /// When the last request is due.
    pub(crate) length: Duration,
    /// Chooses the due times: the same seed and rate give the same ones.
    pub(crate) seed: u64,
    /// The one certificate a peer may present, as a PEM file.
    pub(crate) certificate: &'a Path,
}

impl Pace<'_> {
    /// Sends all requests that fall due, and waits for their answers. Runs on the calling thread.
    ///
    /// What is not answered [`PATIENCE`] after the last request was due counts as an error, as does every answer that
    /// is not a 200 and every lost connection.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let mut run = Run::connect(self)?;
        run.drive(self)?;
        run.outcome()
    }
}

struct Run {
    poll: rustix::fd::OwnedFd,
    connections: Vec<Option<Connection>>,
    /// One entry per free stream: the connection it belongs to. Taken from the front, so that all take turns.
    free: VecDeque<usize>,
    /// Due times of requests that found no free stream.
    waiting: VecDeque<Instant>,
    in_flight: usize,
    latencies_us: Vec<u32>,
    errors: u64,
    started: Instant,
    last_answer: Instant,
}

impl Run {
    fn connect(pace: &Pace<'_>) -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot make an epoll descriptor")?;
        let tls = transport::client_config(pace.workload.protocol(), pace.certificate)?;
        let mut connections = Vec::new();
        for index in 0..pace.workload.connections() as usize {
            let connection = Connection::open(pace.workload, pace.port, tls.clone())?;
            epoll::add(&poll, connection.socket(), epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)
                .context("cannot watch a connection")?;
            connections.push(Some(connection));
        }
        let free = (0..pace.workload.streams()).flat_map(|_| 0..connections.len()).collect();
        let now = Instant::now();
        Ok(Self {
            poll,
            connections,
            free,
            waiting: VecDeque::new(),
            in_flight: 0,
            latencies_us: Vec::with_capacity((pace.per_second * pace.length.as_secs_f64()) as usize + 1024),
            errors: 0,
            started: now,
            last_answer: now,
        })
    }

    fn drive(&mut self, pace: &Pace<'_>) -> Result<()> {
        let end = self.started + pace.length;
        let mut arrivals = Arrivals::new(self.started, pace.per_second, pace.seed);
        loop {
            let now = Instant::now();
            while arrivals.due() <= now.min(end) {
                self.waiting.push_back(arrivals.due());
                arrivals.advance();
            }
            self.send_waiting();
            let all_sent = arrivals.due() > end && self.waiting.is_empty();
            if all_sent && self.in_flight == 0 {
                return Ok(());
            }
            if now > end + PATIENCE {
                self.errors += (self.in_flight + self.waiting.len()) as u64;
                return Ok(());
            }
            ensure!(self.connections.iter().any(Option::is_some), "every connection was lost");
            let pause = if arrivals.due() > end { IDLE_WAIT } else { arrivals.due().saturating_duration_since(now) };
            self.receive(pause)?;
        }
    }

    fn send_waiting(&mut self) {
        while !self.waiting.is_empty() {
            let Some(index) = self.free.pop_front() else { return };
            let Some(connection) = &mut self.connections[index] else { continue };
            let Some(due) = self.waiting.pop_front() else { return };
            self.in_flight += 1;
            if connection.send(due).is_err() {
                self.lose(index);
            }
        }
    }

    /// Waits for answers, at most as long as `pause`.
    fn receive(&mut self, pause: Duration) -> Result<()> {
        let pause = Timespec::try_from(pause).unwrap_or_default();
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for answers"),
        }
        for event in events {
            self.read(event.data.u64() as usize);
        }
        Ok(())
    }

    fn read(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        let mut answers = Vec::new();
        let alive = connection.receive(&mut answers);
        let now = Instant::now();
        for Answer { due, good } in answers {
            self.in_flight -= 1;
            self.free.push_back(index);
            if good {
                self.last_answer = now;
                let micros = now.saturating_duration_since(due).as_micros();
                self.latencies_us.push(u32::try_from(micros).unwrap_or(u32::MAX));
            } else {
                self.errors += 1;
            }
        }
        if alive.is_err() {
            self.lose(index);
        }
    }

    /// Gives up a connection: what was in flight on it is lost, and the loss itself counts once.
    fn lose(&mut self, index: usize) {
        if let Some(connection) = self.connections[index].take() {
            self.in_flight -= connection.in_flight();
            self.errors += 1 + connection.in_flight() as u64;
        }
    }

    fn outcome(mut self) -> Result<Outcome> {
        self.latencies_us.sort_unstable();
        let latency = stats::percentile(&self.latencies_us, 0.5)
            .zip(stats::percentile(&self.latencies_us, 0.99))
            .map(|(p50, p99)| Latency { p50, p99 });
        let wall = self.last_answer.saturating_duration_since(self.started).as_secs_f64();
        ensure!(wall > 0.0, "no request was answered");
        let connections = self.connections.iter().flatten();
        Ok(Outcome {
            requests: self.latencies_us.len() as u64,
            errors: self.errors,
            rate: self.latencies_us.len() as f64 / wall,
            body_bytes: connections.clone().map(Connection::body_bytes).sum(),
            tls: connections.clone().find_map(Connection::negotiated),
            latency,
        })
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
const IDLE_WAIT: Duration = Duration::from_millis(20);
const EVENTS: usize = 128;
