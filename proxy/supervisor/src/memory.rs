//! What memory there is: the limits of our control group and of all above it, those of the host, and what is used of each.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Roots, Version};

/// A limit that all our workers share with others, and what is used of it. Unit: bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// What the group, or the host, may use.
    pub limit: u64,
    /// What of that may be planned with; the rest stays free, since what workers hold grows.
    pub usable: u64,
    /// What it uses now and could not give back without writing: files that were read lately do not count.
    pub used: u64,
}

impl Bound {
    /// Of a control group, at whose limit the kernel kills: a quarter stays free.
    #[must_use]
    pub const fn of_group(limit: u64, used: u64) -> Self {
        Self { limit, usable: limit - limit / 4, used }
    }

    /// Of the host, where others than we are part of what is used: a tenth stays free.
    #[must_use]
    pub const fn of_host(limit: u64, used: u64) -> Self {
        Self { limit, usable: limit - limit / 10, used }
    }
}

/// All limits that hold for us; empty where none could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// In no order.
    pub bounds: Vec<Bound>,
}

impl Memory {
    /// Reads what holds now: the host's memory, and for each control group from ours up to the root `memory.max` and
    /// `memory.high` (version 2) or `memory.limit_in_bytes` (version 1). Files that are missing or odd set no bound.
    #[must_use]
    pub fn read(roots: &Roots) -> Self {
        let groups = cgroup::groups(roots, "memory").into_iter();
        let groups = groups.flat_map(|(version, folders)| {
            folders.into_iter().filter_map(move |folder| match version {
                Version::V1 => group_v1(&folder),
                Version::V2 => group_v2(&folder),
            })
        });
        let host = host(roots);
        let most = host.map_or(NO_LIMIT, |host| host.limit);
        // A group that may have more than there is has no limit.
        let groups = groups.filter(|bound| bound.limit < most);
        Self { bounds: groups.chain(host).collect() }
    }

    /// Bytes that may be taken before a limit is reached.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        self.bounds.iter().map(|bound| bound.limit.saturating_sub(bound.used)).min()
    }

    /// Bytes that may be taken and planned with, as if those who use `given_back` of them were gone.
    #[must_use]
    pub fn spare(&self, given_back: u64) -> Option<u64> {
        let spare = |bound: &Bound| bound.usable.saturating_add(given_back).saturating_sub(bound.used);
        self.bounds.iter().map(spare).min()
    }
}

/// What the first version says where nothing is limited: the most that fits a page counter. Anything near it is no limit.
const NO_LIMIT: u64 = 1 << 62;

fn group_v2(folder: &Path) -> Option<Bound> {
    let limits = ["memory.max", "memory.high"].into_iter().filter_map(|name| number(&folder.join(name)));
    let used = number(&folder.join("memory.current"))?;
    Some(Bound::of_group(limits.min()?, used.saturating_sub(stat(folder, "inactive_file "))))
}

fn group_v1(folder: &Path) -> Option<Bound> {
    let limit = number(&folder.join("memory.limit_in_bytes")).filter(|limit| *limit < NO_LIMIT)?;
    let used = number(&folder.join("memory.usage_in_bytes"))?;
    Some(Bound::of_group(limit, used.saturating_sub(stat(folder, "total_inactive_file "))))
}

/// The host's; what it can give without swapping is not used.
fn host(roots: &Roots) -> Option<Bound> {
    let text = fs::read_to_string(roots.proc.join("meminfo")).ok()?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let (limit, available) = (kib("MemTotal:")?, kib("MemAvailable:")?);
    Some(Bound::of_host(limit, limit.saturating_sub(available)))
}

/// The number that a file consists of; `max` is none.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A line of `memory.stat`, which is in bytes in both versions.
fn stat(folder: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
