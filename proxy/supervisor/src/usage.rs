//! What processes use, from `/proc`: for each root all that descends from it. One pass over all processes however many
//! roots there are. Reads only; whatever vanishes meanwhile is not counted.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// What a process and everything below it use right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Resident memory in bytes; pages that processes share count for each.
    pub rss_bytes: u64,
    /// CPU time, that of ended descendants among it as far as somebody of the tree waited for them. It can go back when
    /// one ends that nobody waited for.
    pub cpu: Duration,
    /// Threads.
    pub threads: u64,
    /// Open descriptors; `None` when a process of the tree is not ours to look at.
    pub open_fds: Option<u64>,
}

/// Usage by root, of those roots that exist.
#[must_use]
pub fn usage_of_trees(roots: &[u32]) -> BTreeMap<u32, Usage> {
    members(roots).into_iter().map(|(root, members)| (root, usage_of(&members))).collect()
}

/// CPU time of a process and everything below it, as [`Usage::cpu`].
pub(crate) fn cpu_of_tree(root: u32) -> Option<Duration> {
    members(&[root]).remove(&root).map(|members| cpu_of(&members))
}

/// Processes of each tree with their resident bytes, of those roots that exist.
pub(crate) fn trees(roots: &[u32]) -> BTreeMap<u32, Vec<(u32, u64)>> {
    let sized = |stat: Stat| (stat.pid, stat.rss_pages * rustix::param::page_size() as u64);
    let sized = |members: Vec<Stat>| members.into_iter().map(sized).collect();
    members(roots).into_iter().map(|(root, members)| (root, sized(members))).collect()
}

fn members(roots: &[u32]) -> BTreeMap<u32, Vec<Stat>> {
    if roots.is_empty() {
        return BTreeMap::new();
    }
    let all = all();
    let mut children: BTreeMap<u32, Vec<&Stat>> = BTreeMap::new();
    for stat in all.values() {
        children.entry(stat.parent).or_default().push(stat);
    }
    let present = roots.iter().filter_map(|root| all.get(root));
    let tree = |root: &Stat| {
        let (mut found, mut open) = (Vec::new(), vec![root]);
        while let Some(stat) = open.pop() {
            open.extend(children.get(&stat.pid).into_iter().flatten());
            found.push(stat.clone());
        }
        found
    };
    present.map(|root| (root.pid, tree(root))).collect()
}

fn usage_of(members: &[Stat]) -> Usage {
    let mut usage = Usage { open_fds: Some(0), cpu: cpu_of(members), ..Usage::default() };
    for stat in members {
        usage.rss_bytes += stat.rss_pages * rustix::param::page_size() as u64;
        usage.threads += stat.threads;
        usage.open_fds = usage.open_fds.zip(open_fds(stat.pid)).map(|(sum, own)| sum + own);
    }
    usage
}

fn cpu_of(members: &[Stat]) -> Duration {
    Duration::from_millis(members.iter().map(|stat| stat.cpu_ticks * MILLIS_PER_TICK).sum())
}

fn all() -> BTreeMap<u32, Stat> {
    let Ok(folder) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// A process that has just ended has none.
fn open_fds(pid: u32) -> Option<u64> {
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(folder) => Some(folder.count() as u64),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
        Err(_) => Some(0),
    }
}

/// The fields of `/proc/<pid>/stat` that matter here, by proc_pid_stat(5).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    cpu_ticks: u64,
    threads: u64,
    rss_pages: u64,
}

impl Stat {
    /// The name may hold blanks and parentheses; the last closing one ends it.
    fn parse(text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        // Fields count from 1, and the state, number 3, comes first here.
        let number =
            |field: usize| fields.get(field - 3)?.parse::<i64>().ok().map(|number| number.max(0).cast_unsigned());
        Some(Self {
            pid: head.split_once(" (")?.0.parse().ok()?,
            parent: number(4)?.try_into().ok()?,
            cpu_ticks: number(14)? + number(15)? + number(16)? + number(17)?,
            threads: number(20)?,
            rss_pages: number(24)?,
        })
    }
}

/// The kernel tells user space times in hundredths of a second on every machine we build for (`USER_HZ`).
const MILLIS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_past_odd_names() {
        let fields: Vec<String> = (4..=30).map(|field| field.to_string()).collect();
        let stat = Stat::parse(&format!("1 (a) b) S {}", fields.join(" ")));
        let expected = Stat { pid: 1, parent: 4, cpu_ticks: 14 + 15 + 16 + 17, threads: 20, rss_pages: 24 };
        assert_eq!(stat, Some(expected));
        assert_eq!(Stat::parse("rubbish"), None);
        assert_eq!(Stat::parse("1 (short) S 1 2"), None);
    }

    #[test]
    fn our_own_usage_is_plausible_and_nobody_has_none() {
        let own = std::process::id();
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {
            std::hint::black_box(0);
        }
        let usage = usage_of_trees(&[own, u32::MAX]);
        assert_eq!(usage.len(), 1);
        let usage = usage[&own];
        assert!(usage.rss_bytes > 100_000 && usage.threads >= 2, "{usage:?}");
        assert!(usage.cpu >= Duration::from_millis(10) && usage.open_fds >= Some(3), "{usage:?}");
        assert!(usage_of_trees(&[]).is_empty());
    }
}
