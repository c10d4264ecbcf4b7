//! What is counted of the lives of workers, from what the supervisor tells.
//!
//! Heard on the supervisor's thread, which must not wait: a short lock and some atomics for events that are few.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{HistogramVec, IntCounterVec, Registry};
use tidegate_supervisor::{Event, ExitReason, PoolState, Transition, WorkerState};

use super::metrics::{counters, histograms};
use super::names::{self, label};

/// Seconds; from a program that is there at once to one that loads for minutes.
const BUCKETS: [f64; 14] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Counters of what happens to workers.
#[derive(Debug)]
pub struct WorkerLife {
    starts: IntCounterVec,
    exits: IntCounterVec,
    recycles: IntCounterVec,
    kills: IntCounterVec,
    scaled: IntCounterVec,
    deploys: IntCounterVec,
    boot: HistogramVec,
    drain: HistogramVec,
    /// Guards what is remembered from one event to the next.
    lives: Mutex<Lives>,
}

#[derive(Debug, Default)]
struct Lives {
    /// Workers with a process, by spawn number.
    running: BTreeMap<u64, Life>,
    slots: BTreeMap<(Arc<str>, u32), Slot>,
}

#[derive(Debug)]
struct Life {
    began: Instant,
    leaves_for: Option<ExitReason>,
}

/// Who was started in a slot.
#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    running: u32,
}

const BY_REASON: [&str; 2] = [label::UPSTREAM, label::REASON];
const BY_RESULT: [&str; 2] = [label::UPSTREAM, label::RESULT];
const SCALED: [&str; 3] = [label::UPSTREAM, label::DIRECTION, label::REASON];

impl WorkerLife {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            starts: counters(registry, names::WORKER_STARTS, &BY_REASON)?,
            exits: counters(registry, names::WORKER_EXITS, &BY_REASON)?,
            recycles: counters(registry, names::WORKER_RECYCLES, &BY_REASON)?,
            kills: counters(registry, names::WORKER_KILLS, &BY_REASON)?,
            scaled: counters(registry, names::WORKER_SCALED, &SCALED)?,
            deploys: counters(registry, names::WORKER_DEPLOYS, &BY_RESULT)?,
            boot: histograms(registry, names::WORKER_BOOT, &[label::UPSTREAM], &BUCKETS)?,
            drain: histograms(registry, names::WORKER_DRAIN, &[label::UPSTREAM], &BUCKETS)?,
            lives: Mutex::default(),
        })
    }

    /// Counts what an event says. Never waits.
    pub fn hear(&self, event: &Event, now: Instant) {
        match event {
            Event::Transition(change) => self.changed(change, now),
            Event::Killed { worker } => {
                let leaves_for = self.lives().running.get(&worker.spawn).and_then(|life| life.leaves_for);
                let reason = leaves_for.map_or(UNKNOWN, ExitReason::word);
                self.kills.with_label_values(&[&*worker.pool, reason]).inc();
            }
            Event::Scaled { pool, from, to, by } => {
                let direction = if to > from { "up" } else { "down" };
                self.scaled.with_label_values(&[&**pool, direction, by.word()]).inc();
            }
            Event::DeployEnded(end) => self.deploys.with_label_values(&[&*end.pool, end.outcome.word()]).inc(),
            Event::PoolState { pool, to: PoolState::Stopped, .. } => {
                self.lives().slots.retain(|(name, _), _| name != pool);
            }
            _ => {}
        }
    }

    fn changed(&self, change: &Transition, now: Instant) {
        let pool = &*change.worker.pool;
        match change.to {
            WorkerState::Starting => {
                let reason = self.lives().begin(change, now);
                self.starts.with_label_values(&[pool, reason]).inc();
            }
            WorkerState::Ready => {
                if let Some(life) = self.lives().running.get(&change.worker.spawn) {
                    let boot = now.saturating_duration_since(life.began);
                    self.boot.with_label_values(&[pool]).observe(boot.as_secs_f64());
                }
            }
            WorkerState::Draining | WorkerState::Stopping => self.leaves(change),
            WorkerState::Exited if change.from != WorkerState::Backoff => {
                let reason = change.reason.map_or(UNKNOWN, ExitReason::word);
                self.exits.with_label_values(&[pool, reason]).inc();
                self.lives().end(change);
            }
            WorkerState::Exited | WorkerState::Backoff | WorkerState::Warming | WorkerState::Suspect => {}
        }
        if change.from == WorkerState::Draining {
            self.drain.with_label_values(&[pool]).observe(change.in_state.as_secs_f64());
        }
    }

    /// Counts a recycle once, however the worker goes on its way out.
    fn leaves(&self, change: &Transition) {
        let Some(reason) = change.reason else { return };
        let is_new = {
            let mut lives = self.lives();
            let life = lives.running.get_mut(&change.worker.spawn);
            life.is_some_and(|life| life.leaves_for.replace(reason).is_none())
        };
        if is_new && is_recycle(reason) {
            self.recycles.with_label_values(&[&*change.worker.pool, reason.word()]).inc();
        }
    }

    /// Forgets the series of upstreams that are not among these.
    pub(super) fn retain(&self, upstreams: &BTreeSet<String>) {
        for counters in [&self.starts, &self.exits, &self.recycles, &self.kills] {
            forget(counters, &BY_REASON, upstreams, |values| drop(counters.remove_label_values(values)));
        }
        forget(&self.scaled, &SCALED, upstreams, |values| drop(self.scaled.remove_label_values(values)));
        forget(&self.deploys, &BY_RESULT, upstreams, |values| drop(self.deploys.remove_label_values(values)));
        for histograms in [&self.boot, &self.drain] {
            forget(histograms, &[label::UPSTREAM], upstreams, |values| drop(histograms.remove_label_values(values)));
        }
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lives {
    /// Why it starts.
    fn begin(&mut self, change: &Transition, now: Instant) -> &'static str {
        let worker = &change.worker;
        self.running.insert(worker.spawn, Life { began: now, leaves_for: None });
        let slot = self.slots.entry((worker.pool.clone(), worker.slot)).or_default();
        let reason = match (slot.generation, slot.running) {
            (0, _) => "first",
            (generation, _) if generation != worker.generation => "deploy",
            (_, 0) => "restart",
            (_, _) => "replace",
        };
        slot.generation = worker.generation;
        slot.running += 1;
        reason
    }

    fn end(&mut self, change: &Transition) {
        let worker = &change.worker;
        self.running.remove(&worker.spawn);
        let key = (worker.pool.clone(), worker.slot);
        if change.reason == Some(ExitReason::ScaleDown) {
            self.slots.remove(&key);
        } else if let Some(slot) = self.slots.get_mut(&key) {
            slot.running = slot.running.saturating_sub(1);
        }
    }
}

/// Hands the values of labels of each series to `remove` whose upstream is not among these.
fn forget(series: &dyn Collector, labels: &[&str], upstreams: &BTreeSet<String>, remove: impl Fn(&[&str])) {
    for family in series.collect() {
        for metric in family.get_metric() {
            let value = |label: &&str| metric.get_label().iter().find(|pair| pair.name() == *label);
            let values: Vec<&str> = labels.iter().filter_map(value).map(|pair| pair.value()).collect();
            if values.first().is_some_and(|upstream| !upstreams.contains(*upstream)) {
                remove(&values);
            }
        }
    }
}

const fn is_recycle(reason: ExitReason) -> bool {
    use ExitReason::{MemoryHard, RecycleLifetime, RecycleRequests, RecycleRss};
    matches!(reason, RecycleRequests | RecycleLifetime | RecycleRss | MemoryHard)
}

/// For what comes without a reason, which nothing of a worker that ends does.
const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::proto::{MetricFamily, MetricType};
    use std::time::Duration;
    use tidegate_supervisor::{ScaledBy, WorkerId};

    fn family_kind(families: &[MetricFamily], name: &str) -> Option<MetricType> {
        families.iter().find(|family| family.name() == name).map(MetricFamily::get_field_type)
    }

    struct Scene {
        registry: Registry,
        life: WorkerLife,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let registry = Registry::new();
            let life = WorkerLife::new(&registry).expect("sound names");
            Self { registry, life, now: Instant::now() }
        }

        fn go(&mut self, spawn: u64, generation: u64, way: &[WorkerState], reason: Option<ExitReason>) {
            let worker = WorkerId { pool: Arc::from("app"), slot: 0, generation, spawn };
            for states in way.windows(2) {
                self.now += Duration::from_secs(3);
                let in_state = Duration::from_secs(3);
                let (from, to) = (states[0], states[1]);
                let change = Transition { worker: worker.clone(), pid: Some(1), from, to, reason, in_state };
                self.life.hear(&Event::Transition(change), self.now);
            }
        }

        fn value(&self, name: &str, values: &[&str]) -> f64 {
            let families = self.registry.gather();
            let family = families.iter().find(|family| family.name() == name);
            let series = family.into_iter().flat_map(|family| family.get_metric());
            let mut series = series
                .filter(|one| values.iter().all(|value| one.get_label().iter().any(|pair| pair.value() == *value)));
            let kind = family_kind(&families, name);
            series.next().map_or(0.0, |one| match kind {
                Some(MetricType::HISTOGRAM) => one.get_histogram().get_sample_sum(),
                _ => one.get_counter().get_value(),
            })
        }
    }

    #[test]
    fn a_life_is_counted_from_its_start_to_its_end() {
        use WorkerState::{Backoff, Draining, Exited, Ready, Starting, Stopping, Warming};
        let mut scene = Scene::new();
        scene.go(1, 1, &[Backoff, Starting, Warming, Ready], None);
        assert_eq!(scene.value("tidegate_worker_boot_seconds", &["app"]), 6.0);
        // Recycled: the next one comes first.
        scene.go(2, 1, &[Backoff, Starting, Ready], None);
        scene.go(1, 1, &[Ready, Draining, Stopping, Exited], Some(ExitReason::RecycleRss));
        assert_eq!(scene.value("tidegate_worker_drain_seconds", &["app"]), 3.0);
        // Crashed, and started again; then a deploy; then one that takes too long.
        scene.go(2, 1, &[Ready, Exited], Some(ExitReason::CrashSignal));
        scene.go(3, 1, &[Backoff, Starting, Ready], None);
        scene.go(4, 2, &[Backoff, Starting], None);
        scene.go(4, 2, &[Starting, Stopping], Some(ExitReason::BootTimeout));
        let worker = WorkerId { pool: Arc::from("app"), slot: 0, generation: 2, spawn: 4 };
        scene.life.hear(&Event::Killed { worker }, scene.now);
        scene.go(4, 2, &[Stopping, Exited], Some(ExitReason::BootTimeout));
        scene.go(5, 2, &[Backoff, Exited], Some(ExitReason::Reload));
        for (name, reason, count) in [
            ("starts", "first", 1.0),
            ("starts", "replace", 1.0),
            ("starts", "restart", 1.0),
            ("starts", "deploy", 1.0),
            ("exits", "recycle_rss", 1.0),
            ("exits", "crash_signal", 1.0),
            ("exits", "boot_timeout", 1.0),
            ("exits", "reload", 0.0),
            ("recycles", "recycle_rss", 1.0),
            ("kills", "boot_timeout", 1.0),
        ] {
            assert_eq!(
                scene.value(&format!("tidegate_worker_{name}_total"), &["app", reason]),
                count,
                "{name} {reason}"
            );
        }
        assert!(scene.life.lives().running.keys().eq([&3]));
    }

    #[test]
    fn series_of_upstreams_that_are_gone_are_forgotten() {
        let mut scene = Scene::new();
        scene.go(1, 1, &[WorkerState::Backoff, WorkerState::Starting, WorkerState::Ready], None);
        let scaled = Event::Scaled { pool: Arc::from("app"), from: 3, to: 1, by: ScaledBy::Operator };
        scene.life.hear(&scaled, scene.now);
        assert_eq!(scene.value("tidegate_worker_scale_events_total", &["app", "down", "operator"]), 1.0);
        scene.life.retain(&BTreeSet::from(["app".to_owned()]));
        assert_eq!(scene.registry.gather().len(), 3);
        scene.life.retain(&BTreeSet::new());
        let left: usize = scene.registry.gather().iter().map(|family| family.get_metric().len()).sum();
        assert_eq!(left, 0);
    }
}
