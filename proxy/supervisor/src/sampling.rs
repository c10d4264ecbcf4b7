//! Figures that the state goes by and nobody brings: the thread asks for them now and then.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::state::Input;
use crate::thread::Supervisor;
use crate::usage::usage_of_trees;

/// When figures are due.
#[derive(Debug, Default)]
pub(crate) struct Sampling {
    progress_at: Duration,
    memory_at: Duration,
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
            self.feed(Input::Memory { room: available(), rss });
        }
    }

    /// Asks what the data plane knows of workers now.
    pub(crate) fn ask_progress(&mut self) {
        let figures = (self.options.progress)();
        self.feed(Input::Progress(figures));
    }

    /// Resident bytes of each worker with everything below it.
    fn rss(&self) -> BTreeMap<u64, u64> {
        let roots = self.spawns.values().map(|spawn| (spawn.id().spawn, spawn.process().pid().unsigned_abs()));
        let roots: Vec<_> = roots.collect();
        let usage = usage_of_trees(&roots.iter().map(|(_, pid)| *pid).collect::<Vec<_>>());
        roots.iter().filter_map(|(spawn, pid)| Some((*spawn, usage.get(pid)?.rss_bytes))).collect()
    }

    /// When [`Supervisor::sample`] has something to do.
    pub(crate) fn next_sample(&self) -> Option<Duration> {
        let next = self.sampling.progress_at.min(self.sampling.memory_at);
        (!self.spawns.is_empty()).then_some(next)
    }
}

/// Bytes that the host can give without swapping.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

const PROGRESS: Duration = Duration::from_secs(1);
const MEMORY: Duration = Duration::from_secs(10);
