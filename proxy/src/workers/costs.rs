//! What requests of each route cost their workers: looks at processes and counters together, for upstreams that want it.

use super::WorkerBridge;
use crate::admin::order::NotTaken;
use crate::admin::view::{self, CostGroup, RouteCost};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_supervisor::{GenerationState, Handle, PoolStatus, usage_of_trees};
use tidegate_traffic::cost::{ColumnCost, Costs, Estimate, Figure, Look};
use tidegate_traffic::pool::charges::Columns;
use tidegate_traffic::pool::endpoint::Origin;

/// Costs of all upstreams that want to know them.
pub(super) struct Ledger {
    /// What looks are timed from.
    began: Instant,
    /// Guards what was seen, for as long as a look takes: it is never held where requests are served.
    books: Mutex<BTreeMap<Arc<str>, Book>>,
}

/// Of one upstream.
#[derive(Default)]
struct Book {
    /// Whose columns its costs are.
    columns: Arc<Columns>,
    costs: Costs,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { began: Instant::now(), books: Mutex::default() }
    }
}

impl WorkerBridge {
    /// Looks now and then, for ever.
    pub(crate) async fn follow_costs(self: Arc<Self>, supervisor: Handle) {
        loop {
            tokio::time::sleep(PAUSE).await;
            if self.groups().iter().any(|group| self.columns(&group.name).is_some()) {
                self.clone().look_at_costs(&supervisor).await;
            }
        }
    }

    /// Looks now, on a thread of its own: it reads many small files.
    pub(crate) async fn look_at_costs(self: Arc<Self>, supervisor: &Handle) {
        let status = supervisor.status();
        // It can only fail by a panic, and the next look does not depend on this one.
        let _ = tokio::task::spawn_blocking(move || self.enter_looks(&status)).await;
    }

    fn columns(&self, upstream: &str) -> Option<Arc<Columns>> {
        self.pool(upstream)?.columns()
    }

    fn enter_looks(&self, status: &[PoolStatus]) {
        let mut books = self.ledger.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.retain(|name, _| self.columns(name).is_some());
        for group in status {
            let Some(columns) = self.columns(&group.name) else { continue };
            let book = books.entry(group.name.clone()).or_default();
            book.open(columns);
            let now = self.ledger.began.elapsed();
            if book.costs.last_look().is_none_or(|last| now.saturating_sub(last) >= LEAST) {
                self.enter(group, book);
            }
        }
    }

    /// One look at each worker of an upstream.
    fn enter(&self, group: &PoolStatus, book: &mut Book) {
        let pids: Vec<u32> = group.workers.iter().filter_map(|worker| worker.pid).collect();
        let usage = usage_of_trees(&pids);
        let at = self.ledger.began.elapsed();
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner).by_name.get(&*group.name).cloned();
        let endpoints = pools.unwrap_or_default().into_iter().flat_map(|pool| pool.endpoints());
        let charged: BTreeMap<u64, _> = endpoints
            .filter_map(|endpoint| match endpoint.origin() {
                Origin::Worker { key, .. } => Some((key.spawn, endpoint.charged())),
                Origin::Static => None,
            })
            .collect();
        for worker in &group.workers {
            let spawn = worker.id.spawn;
            let used = worker.pid.and_then(|pid| usage.get(&pid));
            if let Some((used, charged)) = used.zip(charged.get(&spawn)) {
                let (cpu, rss_bytes) = (used.cpu, used.rss_bytes);
                let look = Look { spawn, generation: worker.id.generation, at, cpu, rss_bytes, charged: *charged };
                book.costs.note(look);
            }
        }
        book.costs.retain(|spawn| charged.contains_key(&spawn));
    }

    /// What is known of the costs of one upstream, or of all that want to know them.
    ///
    /// # Errors
    /// When there is no such upstream.
    pub(crate) fn costs(&self, upstream: Option<&str>) -> Result<view::Costs, NotTaken> {
        let groups = match upstream {
            Some(name) => vec![self.group(name)?],
            None => self.groups(),
        };
        let books = self.ledger.books.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |group: &PoolStatus| Some(books.get(&group.name)?.view(group));
        Ok(view::Costs { upstreams: groups.iter().filter_map(of).collect() })
    }
}

impl Book {
    /// What was counted in a column that is another route's now is forgotten.
    fn open(&mut self, columns: Arc<Columns>) {
        if self.columns.epoch() != columns.epoch() {
            self.costs = Costs::default();
        }
        self.columns = columns;
    }

    fn view(&self, group: &PoolStatus) -> CostGroup {
        let active = group.generations.iter().rev().find(|one| one.state == GenerationState::Active);
        let generation = active.or(group.generations.last()).map_or(0, |one| one.number);
        let estimate = self.costs.estimate(generation);
        let Estimate { intervals, time, cpu_seconds, rss_bytes, idle, columns } = &estimate;
        CostGroup {
            name: group.name.to_string(),
            generation,
            intervals: *intervals as u64,
            seconds: time.as_secs_f64(),
            cpu_seconds: *cpu_seconds,
            rss_bytes: *rss_bytes,
            idle: figure(*idle, 1.0),
            routes: columns.iter().map(|column| self.route(column, *cpu_seconds)).collect(),
        }
    }

    fn route(&self, column: &ColumnCost, total: f64) -> RouteCost {
        let ColumnCost { place, requests, held_seconds, cpu_seconds, rss_bytes } = *column;
        let name = self.columns.name(place);
        let share = match cpu_seconds {
            Figure::Known { value, .. } if total > 0.0 => Some(value * requests as f64 / total),
            _ => None,
        };
        RouteCost {
            site: name.map(|(site, _)| site.to_string()),
            route: name.map(|(_, route)| route.to_string()),
            requests,
            held_ms: (requests > 0).then(|| held_seconds * MILLIS / requests as f64),
            cpu_ms: figure(cpu_seconds, MILLIS),
            rss_bytes: figure(rss_bytes, 1.0),
            cpu_share: share,
        }
    }
}

fn figure(figure: Figure, unit: f64) -> view::Figure {
    match figure {
        Figure::Known { value, error } => {
            view::Figure { value: Some(value * unit), error: Some(error * unit), ..view::Figure::default() }
        }
        Figure::Unknown { why, at_most } => view::Figure {
            unknown: Some(why.word().to_owned()),
            at_most: at_most.map(|most| most * unit),
            ..view::Figure::default()
        },
    }
}

const MILLIS: f64 = 1e3;
/// Between two looks that nobody asks for.
const PAUSE: Duration = Duration::from_secs(5);
/// Who asks more often is told what was known: the kernel counts in hundredths of a second.
const LEAST: Duration = Duration::from_millis(250);
