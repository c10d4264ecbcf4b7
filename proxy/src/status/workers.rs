//! Workers in the words of the admin endpoint: what the supervisor, the pools and the kernel know of each.

use super::since;
use crate::admin::follow::{Feed, Page};
use crate::admin::order::NotTaken;
use crate::admin::view::{self, WorkerDetail, WorkerExit, WorkerGroup};
use crate::app::Program;
use crate::workers::WorkerBridge;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tidegate_supervisor::{HeldSlot, LastExit, PoolStatus, WorkerStatus};
use tidegate_traffic::pool::endpoint::EndpointStatus;
use tokio::sync::watch;

/// The workers of one upstream, or of all.
pub(super) fn workers(program: &Program, upstream: Option<&str>) -> Result<view::Workers, NotTaken> {
    let bridge = &program.reloader().bridge;
    let groups = match upstream {
        Some(name) => vec![bridge.group(name)?],
        None => bridge.groups(),
    };
    Ok(view::Workers { upstreams: groups.iter().map(|group| worker_group(bridge, group)).collect() })
}

/// What happens to the workers of one upstream, or of all.
pub(super) fn events(program: &Program, upstream: Option<&str>) -> Result<Arc<dyn Feed>, NotTaken> {
    let bridge = program.reloader().bridge.clone();
    if let Some(name) = upstream {
        bridge.group(name)?;
    }
    Ok(Arc::new(Events { bridge, upstream: upstream.map(str::to_owned) }))
}

/// Workers for `GET /status`, by slot.
pub(super) fn of_group(group: &PoolStatus) -> Vec<view::Worker> {
    let empty = empty(group).map(|held| view::Worker {
        slot: held.slot,
        state: state(held).to_owned(),
        last_exit: held.last_exit.as_ref().map(super::last_exit),
        ..view::Worker::default()
    });
    let mut workers: Vec<_> = group.workers.iter().map(super::worker).chain(empty).collect();
    // Stable: the two workers of a slot keep their order.
    workers.sort_by_key(|worker| worker.slot);
    workers
}

/// Slots that shall stay empty and are so by now.
fn empty(group: &PoolStatus) -> impl Iterator<Item = &HeldSlot> {
    let is_empty = |held: &&HeldSlot| group.workers.iter().all(|worker| worker.id.slot != held.slot);
    group.held.iter().filter(is_empty)
}

fn state(held: &HeldSlot) -> &'static str {
    if held.is_ended { ENDED } else { DRAINED }
}

fn worker_group(bridge: &WorkerBridge, group: &PoolStatus) -> WorkerGroup {
    let endpoints: HashMap<u64, EndpointStatus> = bridge.endpoints(&group.name);
    let details = group.workers.iter().map(|worker| detail(bridge, worker, endpoints.get(&worker.id.spawn)));
    let mut workers: Vec<WorkerDetail> = details.collect();
    workers.extend(empty(group).map(|held| WorkerDetail {
        slot: held.slot,
        state: state(held).to_owned(),
        last_exit: held.last_exit.as_ref().map(exit),
        ..WorkerDetail::default()
    }));
    workers.sort_by_key(|worker| (worker.slot, worker.spawn));
    WorkerGroup {
        name: group.name.to_string(),
        state: group.state.word().to_owned(),
        target: group.target,
        scaled: group.is_scaled,
        ready: group.ready,
        workers,
    }
}

fn detail(bridge: &WorkerBridge, worker: &WorkerStatus, endpoint: Option<&EndpointStatus>) -> WorkerDetail {
    let figure = bridge.figures.of(worker.id.spawn);
    let age = worker.started.map(since);
    let whole_life = || Some(figure?.usage.cpu.as_secs_f64() / age?.as_secs_f64().max(0.01));
    WorkerDetail {
        slot: worker.id.slot,
        spawn: Some(worker.id.spawn),
        pid: worker.pid,
        state: worker.state.word().to_owned(),
        replaced_for: worker.replaced_for.map(|reason| reason.word().to_owned()),
        generation: worker.id.generation,
        age_seconds: age.map(|age| age.as_secs()),
        requests: endpoint.map_or(0, |endpoint| endpoint.requests),
        failures: endpoint.map_or(0, |endpoint| endpoint.failures),
        in_flight: endpoint.map_or(0, |endpoint| endpoint.in_flight.into()),
        oldest_ms: endpoint.and_then(|endpoint| endpoint.oldest).map(milliseconds_since),
        abandoned: endpoint.map_or(0, |endpoint| endpoint.kept.into()),
        max_in_flight: endpoint.and_then(|endpoint| endpoint.max_conns),
        connections: endpoint.map_or(0, |endpoint| endpoint.connections.into()),
        tunnels: endpoint.map_or(0, |endpoint| endpoint.tunnels.into()),
        rss_bytes: figure.map(|figure| figure.usage.rss_bytes),
        cpus: figure.and_then(|figure| figure.cpus).or_else(whole_life),
        cpu_seconds: figure.map(|figure| figure.usage.cpu.as_secs_f64()),
        threads: figure.map(|figure| figure.usage.threads),
        open_fds: figure.and_then(|figure| figure.usage.open_fds),
        restarts: worker.restarts,
        last_exit: worker.last_exit.as_ref().map(exit),
    }
}

fn milliseconds_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn exit(exit: &LastExit) -> WorkerExit {
    WorkerExit {
        reason: exit.reason.word().to_owned(),
        status: exit.status.to_string(),
        age_seconds: since(exit.at).as_secs(),
    }
}

/// The state of a slot that an operator emptied.
const DRAINED: &str = "drained";
/// The state of a slot whose worker ended with a code after which none is started again.
const ENDED: &str = "ended";

struct Events {
    bridge: Arc<WorkerBridge>,
    upstream: Option<String>,
}

impl Events {
    fn is_asked_for(&self, event: &view::Event) -> bool {
        self.upstream.is_none() || event.upstream.is_none() || event.upstream == self.upstream
    }
}

impl Feed for Events {
    fn before_last(&self, count: usize) -> u64 {
        let events = self.bridge.journal.after(0);
        let mut asked_for = events.iter().rev().filter(|event| self.is_asked_for(event));
        asked_for.nth(count).map_or(0, |event| event.number)
    }

    fn after(&self, number: u64) -> Page {
        let events = self.bridge.journal.after(number);
        let mut lines = Vec::new();
        if let Some(first) = events.first().filter(|first| number > 0 && first.number > number + 1) {
            let message = format!("{} events were forgotten before they were read", first.number - number - 1);
            push_line(
                &mut lines,
                &view::Event { event: "lost".to_owned(), message: Some(message), ..view::Event::default() },
            );
        }
        for event in events.iter().filter(|event| self.is_asked_for(event)) {
            push_line(&mut lines, event);
        }
        Page { lines, last: events.last().map_or(number, |event| event.number) }
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.bridge.journal.news()
    }
}

fn push_line(lines: &mut Vec<u8>, event: &view::Event) {
    // Plain text and numbers: they can always be written.
    if serde_json::to_writer(&mut *lines, event).is_ok() {
        lines.push(b'\n');
    }
}
