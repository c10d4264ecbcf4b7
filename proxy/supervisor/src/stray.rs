//! Processes that left their worker's group: daemons, shells with job control. Found through `/proc` at the very end,
//! when whatever is still there has nobody to serve.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, kill_process};

use crate::process_table::{self, Entry};

/// Kills every process for which one of these holds, and tells how many there were: it carries our marker, it is in one
/// of `sessions`, or it is in `others`. Never this process, and never one of `spared`. To be repeated until none is
/// found, because one of them may have started another between two looks.
pub(crate) fn kill(instance: &str, sessions: &BTreeSet<i32>, others: &BTreeSet<i32>, spared: &[i32]) -> usize {
    let own = std::process::id().cast_signed();
    let is_stray = |entry: &Entry| {
        !entry.is_zombie
            && entry.pid != own
            && !spared.contains(&entry.pid)
            && (sessions.contains(&entry.session)
                || others.contains(&entry.pid)
                || process_table::has_marker(entry.pid, instance))
    };
    let strays: Vec<Entry> = process_table::all().into_iter().filter(is_stray).collect();
    for pid in strays.iter().filter_map(|entry| Pid::from_raw(entry.pid)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    strays.len()
}

/// Processes below us that are in another session than ours: what workers left, adopted when their parents ended. What
/// shares our session was started by whoever started us.
pub(crate) fn adopted() -> BTreeSet<i32> {
    let own = std::process::id().cast_signed();
    let all = process_table::all();
    let session = all.iter().find(|entry| entry.pid == own).map(|entry| entry.session);
    let below = process_table::tree(&all, own);
    let is_foreign = |entry: &&Entry| below.contains(&entry.pid) && Some(entry.session) != session;
    all.iter().filter(is_foreign).map(|entry| entry.pid).collect()
}
