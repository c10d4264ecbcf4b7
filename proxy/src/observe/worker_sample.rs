//! What workers look like when somebody asks, by upstream and slot.

use std::time::Duration;

use prometheus::{GaugeVec, IntCounterVec, Registry};

use super::metrics::{counters, gauges, registered, whole};
use super::names::{self, label};

/// The workers of one upstream.
#[derive(Debug, Clone, Default)]
pub struct GroupSample {
    /// Name of the upstream.
    pub upstream: String,
    /// State of its workers as a whole.
    pub state: &'static str,
    /// How many there should be.
    pub target: u64,
    /// How many get requests.
    pub ready: u64,
    /// Its slots.
    pub slots: Vec<SlotSample>,
}

/// The workers of a slot; there are two while one replaces the other. Where one figure must stand for both it is that of the one
/// which serves.
#[derive(Debug, Clone, Default)]
pub struct SlotSample {
    /// Its number.
    pub slot: u32,
    /// States of its workers.
    pub states: Vec<&'static str>,
    /// Number of their specification.
    pub generation: u64,
    /// Start of the process, in seconds since 1970.
    pub start_time: Option<f64>,
    /// Requests under way.
    pub in_flight: u64,
    /// How long the oldest of them has been under way; zero without any.
    pub oldest: Duration,
    /// Places of requests that were given up.
    pub abandoned_places: u64,
    /// Most of these at a time, if there is a limit.
    pub max_in_flight: Option<u64>,
    /// Upgraded connections and long streams.
    pub tunnels: u64,
    /// Sockets.
    pub connections: u64,
    /// Resident memory of the processes.
    pub rss_bytes: Option<u64>,
    /// The same, with shared pages divided among those that share them.
    pub pss_bytes: Option<u64>,
    /// Their threads.
    pub threads: Option<u64>,
    /// Their open descriptors.
    pub open_fds: Option<u64>,
    /// CPU time of the process that serves.
    pub cpu_seconds: Option<f64>,
    /// Requests that workers here were ever given, by what became of them.
    pub requests: Vec<(&'static str, u64)>,
    /// Those that they failed, by what they did.
    pub failures: Vec<(&'static str, u64)>,
    /// Answers with a status of 500 or more.
    pub server_errors: u64,
}

const BY_SLOT: [&str; 2] = [label::UPSTREAM, label::SLOT];
const BY_SLOT_AND_STATE: [&str; 3] = [label::UPSTREAM, label::SLOT, label::STATE];

/// Registers everything that is known of these.
pub(super) fn sample(registry: &Registry, groups: &[GroupSample]) -> prometheus::Result<()> {
    let state = gauges(registry, names::WORKERS_STATE, &[label::UPSTREAM, label::STATE])?;
    let target = gauges(registry, names::WORKERS_TARGET, &[label::UPSTREAM])?;
    let ready = gauges(registry, names::WORKERS_READY, &[label::UPSTREAM])?;
    let slots = Slots::new(registry)?;
    let requests = Requests::new(registry)?;
    for group in groups {
        let name = group.upstream.as_str();
        state.with_label_values(&[name, group.state]).set(1);
        target.with_label_values(&[name]).set(whole(group.target));
        ready.with_label_values(&[name]).set(whole(group.ready));
        for slot in &group.slots {
            let number = slot.slot.to_string();
            slots.set(&[name, &number], slot);
            requests.set(&[name, &number], slot);
        }
    }
    Ok(())
}

struct Slots {
    state: prometheus::IntGaugeVec,
    generation: prometheus::IntGaugeVec,
    start_time: GaugeVec,
    in_flight: prometheus::IntGaugeVec,
    oldest: GaugeVec,
    abandoned: prometheus::IntGaugeVec,
    max_in_flight: prometheus::IntGaugeVec,
    tunnels: prometheus::IntGaugeVec,
    connections: prometheus::IntGaugeVec,
    rss: prometheus::IntGaugeVec,
    pss: prometheus::IntGaugeVec,
    threads: prometheus::IntGaugeVec,
    open_fds: prometheus::IntGaugeVec,
    cpu: prometheus::CounterVec,
}

impl Slots {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let start_time = GaugeVec::new(names::WORKER_START_TIME.opts(), &BY_SLOT)?;
        let cpu = prometheus::CounterVec::new(names::WORKER_CPU.opts(), &BY_SLOT)?;
        Ok(Self {
            state: gauges(registry, names::WORKER_STATE, &BY_SLOT_AND_STATE)?,
            generation: gauges(registry, names::WORKER_GENERATION, &BY_SLOT)?,
            start_time: registered(registry, start_time)?,
            in_flight: gauges(registry, names::WORKER_IN_FLIGHT, &BY_SLOT)?,
            oldest: registered(registry, GaugeVec::new(names::WORKER_OLDEST.opts(), &BY_SLOT)?)?,
            abandoned: gauges(registry, names::WORKER_ABANDONED, &BY_SLOT)?,
            max_in_flight: gauges(registry, names::WORKER_MAX_IN_FLIGHT, &BY_SLOT)?,
            tunnels: gauges(registry, names::WORKER_TUNNELS, &BY_SLOT)?,
            connections: gauges(registry, names::WORKER_CONNECTIONS, &BY_SLOT_AND_STATE)?,
            rss: gauges(registry, names::WORKER_RSS, &BY_SLOT)?,
            pss: gauges(registry, names::WORKER_PSS, &BY_SLOT)?,
            threads: gauges(registry, names::WORKER_THREADS, &BY_SLOT)?,
            open_fds: gauges(registry, names::WORKER_FDS, &BY_SLOT)?,
            cpu: registered(registry, cpu)?,
        })
    }

    fn set(&self, labels: &[&str; 2], slot: &SlotSample) {
        let [upstream, number] = *labels;
        for state in &slot.states {
            self.state.with_label_values(&[upstream, number, state]).inc();
        }
        if !slot.states.is_empty() {
            self.generation.with_label_values(labels).set(whole(slot.generation));
        }
        self.in_flight.with_label_values(labels).set(whole(slot.in_flight));
        self.oldest.with_label_values(labels).set(slot.oldest.as_secs_f64());
        self.abandoned.with_label_values(labels).set(whole(slot.abandoned_places));
        self.tunnels.with_label_values(labels).set(whole(slot.tunnels));
        // Each request and each tunnel has a socket of its own; figures are read one after the other.
        let active = (slot.in_flight + slot.tunnels).min(slot.connections);
        for (state, count) in [("active", active), ("idle", slot.connections - active)] {
            self.connections.with_label_values(&[upstream, number, state]).set(whole(count));
        }
        for (value, gauge) in [
            (slot.max_in_flight, &self.max_in_flight),
            (slot.rss_bytes, &self.rss),
            (slot.pss_bytes, &self.pss),
            (slot.threads, &self.threads),
            (slot.open_fds, &self.open_fds),
        ] {
            if let Some(value) = value {
                gauge.with_label_values(labels).set(whole(value));
            }
        }
        if let Some(start) = slot.start_time {
            self.start_time.with_label_values(labels).set(start);
        }
        if let Some(cpu) = slot.cpu_seconds {
            self.cpu.with_label_values(labels).inc_by(cpu);
        }
    }
}

struct Requests {
    requests: IntCounterVec,
    failures: IntCounterVec,
    server_errors: IntCounterVec,
}

impl Requests {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            requests: counters(registry, names::WORKER_REQUESTS, &[label::UPSTREAM, label::SLOT, label::RESULT])?,
            failures: counters(registry, names::WORKER_FAILURES, &[label::UPSTREAM, label::SLOT, label::REASON])?,
            server_errors: counters(registry, names::WORKER_SERVER_ERRORS, &BY_SLOT)?,
        })
    }

    fn set(&self, labels: &[&str; 2], sample: &SlotSample) {
        let [upstream, slot] = *labels;
        for (counts, counters) in [(&sample.requests, &self.requests), (&sample.failures, &self.failures)] {
            for (word, count) in counts {
                counters.with_label_values(&[upstream, slot, word]).inc_by(*count);
            }
        }
        self.server_errors.with_label_values(labels).inc_by(sample.server_errors);
    }
}
