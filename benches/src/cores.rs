//! Which processor core runs what.

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two cores of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// For the proxy under test alone.
    pub(crate) proxy: usize,
    /// For the load generator and the origin.
    pub(crate) load: usize,
}

impl Cores {
    /// The first two cores this process may use.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot read the allowed cores")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let (proxy, load) = (cores.next(), cores.next());
        ensure!(load.is_some(), "the bench needs two cores: one for the proxy, one for the load");
        Ok(Self { proxy: proxy.unwrap_or_default(), load: load.unwrap_or_default() })
    }
}

/// Runs `start` with the calling thread on `core`; processes started meanwhile stay there, with all their children.
pub(crate) fn on_core<T>(core: usize, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None).context("cannot read the allowed cores")?;
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).with_context(|| format!("cannot move to core {core}"))?;
    let started = start();
    sched_setaffinity(None, &before).context("cannot return to the allowed cores")?;
    started
}
