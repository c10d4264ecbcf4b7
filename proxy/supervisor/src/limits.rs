//! What a process may use: told by the supervisor, set by the shim for itself, and with that for the worker.

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use serde::{Deserialize, Serialize};
use tidegate_config::model::ProcessLimits;

/// The limits of one start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Soft limit of open files where none is asked for; `None` leaves it.
    open_files: Option<u64>,
    nofile: Option<u64>,
    nproc: Option<u64>,
    core: Option<u64>,
    address_space: Option<u64>,
    nice: Option<i32>,
    oom_score_adj: Option<i32>,
}

impl Limits {
    /// What a spec asks for; `open_files` is our soft limit before we raised it.
    pub(crate) fn new(limits: &ProcessLimits, open_files: Option<u64>) -> Self {
        let ProcessLimits { nofile, nproc, core, address_space, nice, oom_score_adj } = limits.clone();
        Self { open_files, nofile, nproc, core, address_space, nice, oom_score_adj }
    }

    /// Takes them on, for this process and all that it becomes or starts. To be done before a change of account, because
    /// some of it only root may.
    ///
    /// # Errors
    /// In words, when the kernel refuses what was asked for.
    pub(crate) fn take_on(&self) -> Result<(), String> {
        if let (Some(soft), None) = (self.open_files, self.nofile) {
            let hard = getrlimit(Resource::Nofile).maximum;
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: hard });
        }
        for (name, resource, limit) in [
            ("nofile", Resource::Nofile, self.nofile),
            ("nproc", Resource::Nproc, self.nproc),
            ("core", Resource::Core, self.core),
            ("address_space", Resource::As, self.address_space),
        ] {
            limit.map_or(Ok(()), |limit| set(name, resource, limit))?;
        }
        if let Some(nice) = self.nice {
            setpriority_process(None, nice).map_err(|error| format!("limits.nice {nice}: {error}"))?;
        }
        match self.oom_score_adj {
            Some(score) => write_score(score).map_err(|error| format!("limits.oom_score_adj {score}: {error}")),
            None => {
                raise_score();
                Ok(())
            }
        }
    }
}

fn set(name: &str, resource: Resource, limit: u64) -> Result<(), String> {
    let limit = Some(limit).filter(|limit| *limit != u64::MAX);
    setrlimit(resource, Rlimit { current: limit, maximum: limit }).map_err(|error| {
        let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
        format!("limits.{name} {}: {error}; the hard limit is {}", shown(limit), shown(getrlimit(resource).maximum))
    })
}

/// The kernel shall pick a worker, not us, when memory runs out. Best effort: not every container has the file.
fn raise_score() {
    if let Ok(text) = std::fs::read_to_string(OOM_SCORE) {
        let ours: i32 = text.trim().parse().unwrap_or(0);
        let _ = write_score((ours + 300).min(1000));
    }
}

fn write_score(score: i32) -> std::io::Result<()> {
    std::fs::write(OOM_SCORE, score.to_string())
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";
