//! Figures that the state goes by and nobody brings: the thread asks for them now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::capacity::Capacity;
use crate::cpu::effective_cpus;
use crate::memory::Memory;
use crate::pss::pss_of_trees;
use crate::state::Input;
use crate::thread::Supervisor;
use crate::usage::usage_of_trees;

/// When figures are due.
#[derive(Debug, Default)]
pub(crate) struct Sampling {
    progress_at: Duration,
    memory_at: Duration,
    shares_at: Duration,
}

impl Supervisor {
    /// Asks for what is due. Without a worker there is nothing to ask.
    pub(crate) fn sample(&mut self) {
        let now = self.now();
        if self.spawns.is_empty() {
            return;
        }
        if self.sampling.progress_at <= now {
            self.sampling.progress_at = now + PROGRESS;
            self.oom_kills.look(now);
            self.ask_progress();
        }
        if self.sampling.memory_at <= now {
            self.sampling.memory_at = now + MEMORY;
            let rss = self.rss();
            let memory = Memory::read(&self.options.roots);
            self.feed(Input::Memory { room: memory.room(), rss });
            let is_old = self.sampling.shares_at <= now;
            let is_due = (is_old && self.state.follows_shares()) || self.state.misses_shares();
            self.look_at_machine(memory, is_due);
        }
    }

    /// Looks at everything that a deploy may go by.
    pub(crate) fn look_closely(&mut self) {
        if !self.spawns.is_empty() {
            let memory = Memory::read(&self.options.roots);
            self.look_at_machine(memory, true);
        }
    }

    fn look_at_machine(&mut self, memory: Memory, with_shares: bool) {
        let pss = (with_shares && self.state.goes_by_shares()).then(|| {
            self.sampling.shares_at = self.now() + SHARES;
            self.by_spawn(pss_of_trees)
        });
        self.feed(Input::Capacity(Capacity { cpus: effective_cpus(&self.options.roots), memory, pss }));
    }

    /// Asks what the data plane knows of workers now.
    pub(crate) fn ask_progress(&mut self) {
        let figures = (self.options.progress)();
        self.feed(Input::Progress(figures));
    }

    /// Resident bytes of each worker with everything below it.
    fn rss(&self) -> BTreeMap<u64, u64> {
        let rss = |pids: &[u32]| usage_of_trees(pids).into_iter().map(|(pid, usage)| (pid, usage.rss_bytes)).collect();
        self.by_spawn(rss)
    }

    /// A figure of each worker's processes, by spawn number, from the one of their roots by process number.
    fn by_spawn(&self, figures: impl FnOnce(&[u32]) -> BTreeMap<u32, u64>) -> BTreeMap<u64, u64> {
        let roots = self.spawns.values().map(|spawn| (spawn.id().spawn, spawn.process().pid().unsigned_abs()));
        let roots: Vec<_> = roots.collect();
        let found = figures(&roots.iter().map(|(_, pid)| *pid).collect::<Vec<_>>());
        roots.iter().filter_map(|(spawn, pid)| Some((*spawn, *found.get(pid)?))).collect()
    }

    /// When [`Supervisor::sample`] has something to do.
    pub(crate) fn next_sample(&self) -> Option<Duration> {
        let next = self.sampling.progress_at.min(self.sampling.memory_at);
        (!self.spawns.is_empty()).then_some(next)
    }
}

const PROGRESS: Duration = Duration::from_secs(1);
const MEMORY: Duration = Duration::from_secs(10);
/// The kernel walks all pages for it.
const SHARES: Duration = Duration::from_secs(60);
