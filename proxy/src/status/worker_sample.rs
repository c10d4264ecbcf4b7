//! Workers as metrics show them: by slot, and two of a slot together while one replaces the other.

use crate::observe::worker_sample::{GroupSample, SlotSample};
use crate::workers::WorkerBridge;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, UNIX_EPOCH};
use tidegate_supervisor::{PoolStatus, WorkerState, WorkerStatus};
use tidegate_traffic::pool::endpoint::EndpointStatus;
use tidegate_traffic::pool::served::Served;

/// The workers of one upstream.
pub(super) fn group(bridge: &WorkerBridge, group: &PoolStatus) -> GroupSample {
    let endpoints = bridge.endpoints(&group.name);
    let mut slots: BTreeMap<u32, Vec<&WorkerStatus>> = group.slots.iter().map(|slot| (*slot, Vec::new())).collect();
    for worker in &group.workers {
        slots.entry(worker.id.slot).or_default().push(worker);
    }
    let slots = slots.into_iter().map(|(number, workers)| {
        let sample = slot(bridge, number, &workers, &endpoints);
        count(sample, &bridge.served(&group.name, number))
    });
    GroupSample {
        upstream: group.name.to_string(),
        state: group.state.word(),
        target: group.target.into(),
        ready: group.ready.into(),
        slots: slots.collect(),
    }
}

/// With what became of requests.
fn count(sample: SlotSample, served: &Served) -> SlotSample {
    let Served { answered, faults, abandoned, cancelled, overtaken } = served;
    SlotSample {
        requests: vec![
            ("answered", *answered),
            ("failed", faults.total()),
            ("abandoned", *abandoned),
            ("cancelled", *cancelled),
            ("overtaken", *overtaken),
        ],
        failures: faults.causes().collect(),
        server_errors: faults.server_errors,
        ..sample
    }
}

fn slot(
    bridge: &WorkerBridge,
    slot: u32,
    workers: &[&WorkerStatus],
    endpoints: &HashMap<u64, EndpointStatus>,
) -> SlotSample {
    let states = workers.iter().map(|worker| worker.state.word()).collect();
    let mut sample = SlotSample { slot, states, ..SlotSample::default() };
    let add = |sum: &mut Option<u64>, value: Option<u64>| {
        if let Some(value) = value {
            *sum = Some(sum.unwrap_or_default() + value);
        }
    };
    for worker in workers {
        if let Some(figure) = bridge.figures.of(worker.id.spawn) {
            add(&mut sample.rss_bytes, Some(figure.usage.rss_bytes));
            add(&mut sample.threads, Some(figure.usage.threads));
            add(&mut sample.open_fds, figure.usage.open_fds);
        }
        add(&mut sample.pss_bytes, bridge.figures.share_of(worker.id.spawn));
        if let Some(endpoint) = endpoints.get(&worker.id.spawn) {
            sample.in_flight += u64::from(endpoint.in_flight);
            sample.abandoned_places += u64::from(endpoint.kept);
            sample.oldest = sample.oldest.max(endpoint.oldest.map_or(Duration::ZERO, |began| began.elapsed()));
            sample.tunnels += u64::from(endpoint.tunnels);
            sample.connections += u64::from(endpoint.connections);
        }
    }
    // The one that serves; of others the newest.
    let first = workers.iter().max_by_key(|worker| (worker.state == WorkerState::Ready, worker.id.spawn));
    if let Some(worker) = first {
        let started = worker.started.and_then(|started| started.duration_since(UNIX_EPOCH).ok());
        sample.generation = worker.id.generation;
        sample.start_time = started.map(|since| since.as_secs_f64());
        sample.cpu_seconds = bridge.figures.of(worker.id.spawn).map(|figure| figure.usage.cpu.as_secs_f64());
        sample.max_in_flight = endpoints.get(&worker.id.spawn).and_then(|one| one.max_conns).map(u64::from);
    }
    sample
}
