//! What can be seen of a worker that does not answer, before it is killed: what its processes wait for, by `/proc`. Reads
//! only, and nothing that a stuck process could hold up.

use std::fs;

use crate::process_table;

/// A few lines about the process and everything below it, for people.
pub(crate) fn of_tree(pid: i32) -> Vec<String> {
    let tree = process_table::tree(&process_table::all(), pid);
    tree.into_iter().take(MOST_PROCESSES).flat_map(of_process).collect()
}

/// Nothing of one that has ended.
fn of_process(pid: i32) -> Vec<String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let Some((name, state)) = field("Name").zip(field("State")) else { return Vec::new() };
    // Where no function is known the kernel says 0.
    let place = Some(read("wchan")).filter(|place| !matches!(place.trim(), "" | "0"));
    let place = place.map(|place| format!(" in {}", place.trim())).unwrap_or_default();
    let [threads, memory] = ["Threads", "VmRSS"].map(|name| field(name).unwrap_or_else(|| "?".to_owned()));
    let mut lines = vec![format!("process {pid} ({name}): {state}{place}, threads {threads}, resident {memory}")];
    // Root may read this one.
    let stack = read("stack");
    lines.extend(stack.lines().take(MOST_FRAMES).map(|frame| format!("  kernel {}", function(frame))));
    lines
}

/// `[<0>] ep_poll+0x3a4/0x3e0` is `ep_poll`.
fn function(frame: &str) -> &str {
    let name = frame.rsplit(' ').next().unwrap_or(frame);
    name.split('+').next().unwrap_or(name)
}

const MOST_PROCESSES: usize = 8;
const MOST_FRAMES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_seen_and_nobody_is_not() {
        let own = std::process::id().cast_signed();
        let lines = of_tree(own);
        let first = format!("process {own} (");
        assert!(lines[0].starts_with(&first) && lines[0].contains("threads ") && lines[0].contains(" kB"), "{lines:?}");
        assert!(of_process(i32::MAX).is_empty());
        assert_eq!(["[<0>] ep_poll+0x3a4/0x3e0", "ep_poll", ""].map(function), ["ep_poll", "ep_poll", ""]);
    }
}
