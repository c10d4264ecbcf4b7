//! `tidegate restart`, `drain` and `scale`: an order is given, and what comes of it is watched and told.

use std::io;
use std::time::{Duration, Instant};

use super::arguments::{Drain, Endpoint, Restart, Scale, Wait};
use super::operate::{AT_ONCE, unreachable, wrong};
use super::{Exit, Host, Streams, admin_endpoint};
use crate::admin::client::{AdminClient, ClientError};
use crate::admin::order::{Order, Scale as To};
use crate::admin::table;
use crate::admin::view::{Event, Ordered, OrderedWorker, WorkerDetail, WorkerGroup};

/// How often one looks how far it is.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn restart(restart: &Restart, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let Restart { endpoint, upstream, slot, wait } = restart;
    let order = Order::Restart { upstream: upstream.clone(), slot: *slot };
    give(&order, endpoint, wait, host, streams)
}

pub(super) fn drain(drain: &Drain, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let Drain { endpoint, upstream, slot, wait } = drain;
    give(&Order::Drain { upstream: upstream.clone(), slot: *slot }, endpoint, wait, host, streams)
}

pub(super) fn scale(scale: &Scale, host: &Host<'_>, streams: &mut Streams<'_>) -> io::Result<Exit> {
    let Scale { endpoint, upstream, to, wait } = scale;
    give(&Order::Scale { upstream: upstream.clone(), to: to.0 }, endpoint, wait, host, streams)
}

fn give(
    order: &Order,
    endpoint: &Endpoint,
    wait: &Wait,
    host: &Host<'_>,
    streams: &mut Streams<'_>,
) -> io::Result<Exit> {
    let client = match admin_endpoint::client(endpoint, host, streams) {
        Ok(client) => client,
        Err(problem) => return wrong(&problem, streams),
    };
    let ordered = match client.order(order, AT_ONCE) {
        Ok(ordered) => ordered,
        Err(error) => return unreachable(&error, streams),
    };
    let mut watch =
        Watch { client, until: Instant::now() + Duration::from_secs(wait.timeout), begun: Instant::now(), ordered };
    if wait.no_wait {
        writeln!(streams.out, "{}: ordered", watch.ordered.upstream)?;
        return Ok(Exit::Fine);
    }
    let watched = match order {
        Order::Restart { .. } => watch.restart(streams),
        Order::Drain { slot, .. } => watch.drain(*slot, streams),
        Order::Scale { to, .. } => watch.scale(*to, streams),
        // Given and watched by `deploy`.
        Order::Deploy { .. } => return Ok(Exit::Fine),
    };
    match watched {
        Ok(exit) => exit,
        Err(Unfinished::Client(error)) => unreachable(&error, streams),
        Err(Unfinished::Late) => {
            writeln!(streams.err, "error: not done after {} seconds; it goes on", wait.timeout)?;
            Ok(Exit::Runtime)
        }
        Err(Unfinished::Failed(event)) => {
            writeln!(streams.err, "error: a new worker failed before it was ready:")?;
            table::print_event(&event, streams.err)?;
            Ok(Exit::Config)
        }
    }
}

/// An order under way.
struct Watch {
    client: AdminClient,
    ordered: Ordered,
    begun: Instant,
    until: Instant,
}

/// Why an order is not watched to its end.
enum Unfinished {
    Client(ClientError),
    Late,
    Failed(Box<Event>),
}

impl From<ClientError> for Unfinished {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

type Watched = Result<io::Result<Exit>, Unfinished>;

impl Watch {
    fn restart(&mut self, streams: &mut Streams<'_>) -> Watched {
        let mut open = self.ordered.workers.clone();
        let count = open.len();
        while !open.is_empty() {
            let group = self.group()?;
            let told: io::Result<()> = open
                .iter()
                .filter_map(|old| replaced(&group, old))
                .try_for_each(|line| writeln!(streams.out, "{line}"));
            if told.is_err() {
                return Ok(told.map(|()| Exit::Fine));
            }
            open.retain(|old| replaced(&group, old).is_none());
            if !open.is_empty() {
                self.check_failures(|event| open.iter().any(|old| event.slot == Some(old.slot)), &group, streams)?;
                self.pause()?;
            }
        }
        Ok(writeln!(streams.out, "{}: {count} restarted in {:.1?}", self.ordered.upstream, self.begun.elapsed())
            .map(|()| Exit::Fine))
    }

    fn drain(&mut self, slot: u32, streams: &mut Streams<'_>) -> Watched {
        let name = self.ordered.upstream.clone();
        let mut told = None;
        loop {
            let group = self.group()?;
            let leaving = group.workers.iter().find(|worker| worker.slot == slot && worker.spawn.is_some());
            let Some(WorkerDetail { state, in_flight, .. }) = leaving else {
                if group.ready == 0 {
                    let _ = writeln!(streams.err, "warning: no worker of {name} serves now");
                }
                let end =
                    writeln!(streams.out, "{name}/{slot}: drained; `tidegate restart {name} {slot}` fills it again");
                return Ok(end.map(|()| Exit::Fine));
            };
            let line = format!("{name}/{slot}: {state}, {in_flight} requests under way");
            if told.as_ref() != Some(&line) {
                if let Err(error) = writeln!(streams.out, "{line}") {
                    return Ok(Err(error));
                }
                told = Some(line);
            }
            self.pause()?;
        }
    }

    fn scale(&mut self, to: To, streams: &mut Streams<'_>) -> Watched {
        let name = self.ordered.upstream.clone();
        let target = self.group()?.target;
        let change = match (self.ordered.target, to) {
            (before, To::File) => format!("{name}: {before} -> {target} workers, as the file says"),
            (before, _) => format!("{name}: {before} -> {target} workers"),
        };
        if let Err(error) = writeln!(streams.out, "{change}") {
            return Ok(Err(error));
        }
        loop {
            let group = self.group()?;
            let is_settled = |worker: &WorkerDetail| matches!(worker.state.as_str(), "ready" | "drained");
            if group.workers.len() == group.target as usize && group.workers.iter().all(is_settled) {
                let end = writeln!(streams.out, "{name}: {} ready after {:.1?}", group.ready, self.begun.elapsed());
                return Ok(end.map(|()| Exit::Fine));
            }
            self.check_failures(|_| true, &group, streams)?;
            self.pause()?;
        }
    }

    fn group(&self) -> Result<WorkerGroup, ClientError> {
        let mut groups = self.client.workers(Some(&self.ordered.upstream), AT_ONCE)?.upstreams;
        Ok(groups.pop().unwrap_or_default())
    }

    fn pause(&self) -> Result<(), Unfinished> {
        if Instant::now() >= self.until {
            return Err(Unfinished::Late);
        }
        std::thread::sleep(LOOK);
        Ok(())
    }

    /// Ends the watch when a worker that began after the order did not become ready.
    fn check_failures(
        &mut self,
        concerns: impl Fn(&Event) -> bool,
        group: &WorkerGroup,
        streams: &mut Streams<'_>,
    ) -> Result<(), Unfinished> {
        let events = self.client.events_after(&self.ordered.upstream, self.ordered.last_event, AT_ONCE)?;
        let is_boot = |event: &Event| matches!(event.reason.as_deref(), Some("boot_exit" | "boot_timeout"));
        let failure = events.iter().find(|event| event.event == "failure" && is_boot(event) && concerns(event));
        self.ordered.last_event = events.last().map_or(self.ordered.last_event, |event| event.number);
        let Some(failure) = failure else { return Ok(()) };
        let keeps = group.workers.iter().find(|worker| Some(worker.slot) == failure.slot && worker.state == "ready");
        let consequence = keeps.and_then(|worker| worker.pid).map_or_else(
            || "it is tried again later".to_owned(),
            |pid| format!("pid {pid} keeps serving, nothing else is restarted"),
        );
        let _ = writeln!(streams.out, "{}: {consequence}", self.ordered.upstream);
        Err(Unfinished::Failed(Box::new(failure.clone())))
    }
}

/// What to tell of a worker that left for another one, once it has and that one serves. One whose slot is gone has nobody
/// to wait for.
fn replaced(group: &WorkerGroup, old: &OrderedWorker) -> Option<String> {
    let OrderedWorker { slot, spawn, pid } = old;
    let mut here = group.workers.iter().filter(|worker| worker.slot == *slot);
    let is_there = spawn.is_some() && group.workers.iter().any(|worker| worker.spawn == *spawn);
    if is_there {
        return None;
    }
    let name = &group.name;
    if here.clone().next().is_none() {
        return Some(format!("{name}/{slot}: the slot is gone"));
    }
    let new = here.find(|worker| worker.state == "ready")?.pid?;
    Some(match pid {
        Some(pid) => format!("{name}/{slot}: pid {new} serves instead of pid {pid}"),
        None => format!("{name}/{slot}: pid {new} serves"),
    })
}
