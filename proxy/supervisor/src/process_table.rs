//! What `/proc` says about processes: parents, groups, sessions, memory. Reads only; a process that vanishes while it
//! is looked at is simply not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::environment::MARKER;
use crate::state::Activity;

/// One process, from `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// Ended, but not reaped: nothing is left to kill.
    pub(crate) is_zombie: bool,
}

/// All processes we can see.
pub(crate) fn all() -> Vec<Entry> {
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    folder.flatten().filter_map(|entry| one(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// One process, if it exists.
pub(crate) fn one(pid: i32) -> Option<Entry> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// What a process does right now.
pub(crate) fn activity(pid: i32) -> Activity {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(") ").and_then(|(_, tail)| tail.chars().next()) {
        Some('R') => Activity::Runs,
        Some('S') => Activity::Waits,
        Some('D') => Activity::WaitsForDisk,
        Some('T' | 't') => Activity::Stopped,
        _ => Activity::Unknown,
    }
}

/// Some child of `parent` that has ended and was not reaped.
pub(crate) fn zombie_of(parent: i32) -> Option<i32> {
    all().into_iter().find(|entry| entry.parent == parent && entry.is_zombie).map(|entry| entry.pid)
}

fn parse_stat(stat: &str) -> Option<Entry> {
    // The name may hold blanks and parentheses; the last closing one ends it.
    let (head, tail) = stat.rsplit_once(") ")?;
    let pid = head.split_once(" (")?.0.parse().ok()?;
    let mut fields = tail.split(' ');
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    Some(Entry { pid, parent: number()?, group: number()?, session: number()?, is_zombie: matches!(state, "Z" | "X") })
}

/// `root` and everything below it by parent links, as far as `all` knows.
pub(crate) fn tree(all: &[Entry], root: i32) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in all {
        children.entry(entry.parent).or_default().push(entry.pid);
    }
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        if found.insert(pid) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// Whether the process was started with our marker, itself or by inheritance. A program that writes over its own
/// environment block (to change its title) is not recognised.
pub(crate) fn has_marker(pid: i32, instance: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = format!("{MARKER}={instance}");
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
}

/// Resident memory in bytes of a process and everything below it; pages shared between them count for each. 0 when
/// there is no such process.
#[must_use]
pub fn tree_rss(pid: u32) -> u64 {
    let Ok(root) = i32::try_from(pid) else { return 0 };
    tree(&all(), root).into_iter().filter_map(rss).sum()
}

fn rss(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Inodes of the sockets a process has open; an error when it is not ours to look at.
pub(crate) fn socket_inodes(pid: i32) -> std::io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        match fs::read_link(entry.path()) {
            Ok(link) => inodes.extend(socket_inode(&link)),
            // Closed since, unless we may not look.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => {}
        }
    }
    Ok(inodes)
}

fn socket_inode(link: &Path) -> Option<u64> {
    let text = std::str::from_utf8(link.as_os_str().as_bytes()).ok()?;
    text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Sockets that listen on this TCP port, on any address: inode and the uid that opened it.
pub(crate) fn listeners(port: u16) -> Vec<(u64, u32)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let text: String = tables.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    text.lines().filter_map(|line| listener(line, port)).collect()
}

fn listener(line: &str, port: u16) -> Option<(u64, u32)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let local = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    let is_listening = *fields.get(3)? == "0A";
    if local != port || !is_listening {
        return None;
    }
    Some((fields.get(9)?.parse().ok()?, fields.get(7)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let stat = "42 (a) b (c) S 7 40 39 0 -1 4194304 1 2";
        let expected = Entry { pid: 42, parent: 7, group: 40, session: 39, is_zombie: false };
        assert_eq!(parse_stat(stat), Some(expected));
        assert_eq!(parse_stat("42 (x) Z 7 40 39 0").map(|entry| entry.is_zombie), Some(true));
        assert_eq!(parse_stat("rubbish"), None);
    }

    #[test]
    fn a_tree_is_found_by_parents() {
        let entry = |pid, parent| Entry { pid, parent, group: pid, session: pid, is_zombie: false };
        let all = [entry(1, 0), entry(2, 1), entry(3, 2), entry(4, 1), entry(5, 3)];
        assert_eq!(tree(&all, 2), BTreeSet::from([2, 3, 5]));
    }

    #[test]
    fn our_own_memory_and_listener_are_found() {
        let own = std::process::id();
        assert!(tree_rss(own) > 100_000, "{}", tree_rss(own));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let found = listeners(port);
        let inodes = socket_inodes(own.cast_signed()).expect("our own");
        assert!(
            matches!(found[..], [(inode, uid)] if inodes.contains(&inode) && uid == rustix::process::getuid().as_raw())
        );
    }
}
