//! What the processes of workers use, looked at beside the requests and remembered until the next look.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_supervisor::{Handle, Usage, pss_of_trees, usage_of_trees};

/// The last look at all workers.
#[derive(Default)]
pub(crate) struct Figures {
    /// Guards what was found.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By spawn number.
    figures: BTreeMap<u64, Figure>,
    looked: Option<Instant>,
    /// Their own share of memory in bytes, by spawn number, where it may be read.
    shares: BTreeMap<u64, Option<u64>>,
    shares_looked: Option<Instant>,
}

/// What a worker uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    /// At the last look. CPU time never goes back.
    pub(crate) usage: Usage,
    /// CPUs it kept busy lately; `None` while it is young.
    pub(crate) cpus: Option<f64>,
    /// From when on, and from which CPU time, `cpus` will be counted next.
    since: (Instant, Duration),
}

impl Figures {
    /// Looks now and then, for ever.
    pub(crate) async fn run(self: Arc<Self>, supervisor: Handle) {
        loop {
            self.clone().refresh(&supervisor).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks at all workers unless they were all seen just now, on a thread of its own: it reads many small files.
    pub(crate) async fn refresh(self: Arc<Self>, supervisor: &Handle) {
        let processes = processes(supervisor);
        if self.is_due(&processes, Instant::now()) {
            // It can only fail by a panic, and the next look does not depend on this one.
            let _ = tokio::task::spawn_blocking(move || self.look(&processes)).await;
        }
    }

    fn is_due(&self, processes: &[(u64, u32)], now: Instant) -> bool {
        let known = self.lock();
        let is_fresh = known.looked.is_some_and(|last| now.saturating_duration_since(last) < FRESH);
        !is_fresh || processes.iter().any(|(spawn, _)| !known.figures.contains_key(spawn))
    }

    fn look(&self, processes: &[(u64, u32)]) {
        let found = usage_of_trees(&processes.iter().map(|(_, pid)| *pid).collect::<Vec<_>>());
        let found = processes.iter().filter_map(|(spawn, pid)| Some((*spawn, *found.get(pid)?)));
        self.note(found, Instant::now());
        if self.shares_are_due(processes, Instant::now()) {
            let found = pss_of_trees(&processes.iter().map(|(_, pid)| *pid).collect::<Vec<_>>());
            let shares = processes.iter().map(|(spawn, pid)| (*spawn, found.get(pid).copied())).collect();
            let mut known = self.lock();
            (known.shares, known.shares_looked) = (shares, Some(Instant::now()));
        }
    }

    /// The kernel walks all pages for it, so it is asked seldom.
    fn shares_are_due(&self, processes: &[(u64, u32)], now: Instant) -> bool {
        let known = self.lock();
        let age = known.shares_looked.map(|last| now.saturating_duration_since(last));
        let is_new = processes.iter().any(|(spawn, _)| !known.shares.contains_key(spawn));
        age.is_none_or(|age| age >= SHARES || (is_new && age >= PAUSE))
    }

    /// Memory of a worker's processes in bytes, what they share with others divided among all.
    pub(crate) fn share_of(&self, spawn: u64) -> Option<u64> {
        self.lock().shares.get(&spawn).copied().flatten()
    }

    fn note(&self, found: impl Iterator<Item = (u64, Usage)>, now: Instant) {
        let mut known = self.lock();
        let figure = |(spawn, usage)| (spawn, Figure::after(known.figures.get(&spawn), usage, now));
        let figures = found.map(figure).collect();
        (known.figures, known.looked) = (figures, Some(now));
    }

    /// Those of a worker, by its spawn number.
    pub(crate) fn of(&self, spawn: u64) -> Option<Figure> {
        self.lock().figures.get(&spawn).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figure {
    fn after(last: Option<&Self>, mut usage: Usage, now: Instant) -> Self {
        let Some(last) = last else { return Self { usage, cpus: None, since: (now, usage.cpu) } };
        usage.cpu = usage.cpu.max(last.usage.cpu);
        let (since, before) = last.since;
        let elapsed = now.saturating_duration_since(since);
        if elapsed < FRESH {
            return Self { usage, ..*last };
        }
        let cpus = (usage.cpu - before).as_secs_f64() / elapsed.as_secs_f64();
        Self { usage, cpus: Some(cpus), since: (now, usage.cpu) }
    }
}

/// Spawn numbers of workers with a process, and the process.
fn processes(supervisor: &Handle) -> Vec<(u64, u32)> {
    let status = supervisor.status();
    let workers = status.iter().flat_map(|pool| &pool.workers);
    workers.filter_map(|worker| Some((worker.id.spawn, worker.pid?))).collect()
}

/// What was found is good for so long, and CPUs are counted over no less: the kernel counts in hundredths of a second.
const FRESH: Duration = Duration::from_secs(1);
/// Between two looks at shares of memory.
const SHARES: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(cpu: u64) -> Usage {
        Usage { cpu: Duration::from_millis(cpu), ..Usage::default() }
    }

    #[test]
    fn busy_cpus_are_those_since_a_look_a_while_ago() {
        let figures = Figures::default();
        let start = Instant::now();
        let look = |at, cpu| figures.note([(1, usage(cpu))].into_iter(), start + Duration::from_millis(at));
        let seen = || figures.of(1).map(|figure| (figure.cpus, figure.usage.cpu.as_millis()));
        look(0, 900);
        assert_eq!(seen(), Some((None, 900)));
        look(900, 1_000);
        assert_eq!(seen(), Some((None, 1_000)), "too soon to tell");
        look(5_000, 3_400);
        assert_eq!(seen(), Some((Some(0.5), 3_400)));
        look(10_000, 3_000);
        assert_eq!(seen(), Some((Some(0.0), 3_400)), "a descendant that nobody waited for takes its time along");
        figures.note(std::iter::empty(), start);
        assert_eq!(figures.of(1), None);
    }

    #[test]
    fn a_look_is_due_after_a_while_or_for_a_new_worker() {
        let figures = Figures::default();
        let start = Instant::now();
        let is_due = |spawn, at| figures.is_due(&[(spawn, 42)], start + Duration::from_millis(at));
        assert!(is_due(1, 0));
        figures.note([(1, usage(0))].into_iter(), start);
        assert_eq!([is_due(1, 999), is_due(2, 999), is_due(1, 1_000)], [false, true, true]);
    }
}
