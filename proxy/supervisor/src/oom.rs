//! Whether the kernel has killed somebody for want of memory. It tells the victim's parent no more than SIGKILL; what tells
//! the two apart is its own count of such kills.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::cgroup::{self, Roots, Version};

/// Kills that the kernel has counted and no worker's end was put down to.
#[derive(Debug)]
pub(crate) struct OomKills {
    source: PathBuf,
    counted: u64,
    /// Kills since then that nobody was found for, and when the last of them was seen.
    open: u64,
    seen: Duration,
}

impl OomKills {
    /// The count of our control group, where workers are too; without one that of the whole host.
    pub(crate) fn new(roots: &Roots) -> Self {
        let own = cgroup::groups(roots, "memory").into_iter().filter_map(|(version, folders)| {
            let file = match version {
                Version::V1 => "memory.oom_control",
                Version::V2 => "memory.events",
            };
            let path = folders.first()?.join(file);
            read(&path).map(|_| path)
        });
        let source = own.into_iter().next().unwrap_or_else(|| roots.proc.join("vmstat"));
        Self { counted: read(&source).unwrap_or(0), source, open: 0, seen: Duration::ZERO }
    }

    /// Looks at the count.
    pub(crate) fn look(&mut self, now: Duration) {
        let count = read(&self.source).unwrap_or(self.counted);
        self.take(count, now);
    }

    fn take(&mut self, count: u64, now: Duration) {
        if now.saturating_sub(self.seen) > MEMORY {
            self.open = 0;
        }
        if count > self.counted {
            self.open += count - self.counted;
            self.seen = now;
        }
        self.counted = count;
    }

    /// Whether somebody who was killed just now is a victim of one of these kills; each has one.
    pub(crate) fn claim(&mut self, now: Duration) -> bool {
        self.look(now);
        let is_victim = self.open > 0;
        self.open -= u64::from(is_victim);
        is_victim
    }
}

/// The number in the line `oom_kill <number>`.
fn read(path: &PathBuf) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// A process with much memory takes its time to end after it was killed; one that ends later was killed by somebody else.
const MEMORY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const V2: (&str, &str) = ("0::/pod/box\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    const V1: (&str, &str) =
        ("4:memory:/pod/box\n0::/\n", "33 25 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");

    fn kills((group, mounts): (&str, &str), folder: &Path, files: &[(&str, &str)]) -> OomKills {
        let roots = Roots { proc: folder.join("proc"), cgroup: folder.join("cgroup") };
        let own =
            [("proc/self/cgroup", group), ("proc/self/mountinfo", mounts), ("proc/vmstat", "nr_free 1\noom_kill 7\n")];
        for (path, text) in own.iter().chain(files) {
            write(folder, path, text);
        }
        OomKills::new(&roots)
    }

    fn write(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, text).expect("file");
    }

    #[track_caller]
    fn check(kind: (&str, &str), file: &str, text: fn(u64) -> String) {
        let folder = tempfile::tempdir().expect("folder");
        let mut kills = kills(kind, folder.path(), &[(file, &text(3))]);
        assert!(!kills.claim(Duration::ZERO), "what was counted before is nobody's");
        write(folder.path(), file, &text(4));
        assert!(kills.claim(Duration::from_secs(1)));
        assert!(!kills.claim(Duration::from_secs(1)), "one kill has one victim");
    }

    #[test]
    fn the_count_of_our_group_is_found_in_both_versions_and_that_of_the_host_without_one() {
        check(V2, "cgroup/pod/box/memory.events", |count| format!("low 0\noom {count}\noom_kill {count}\n"));
        check(V1, "cgroup/memory/pod/box/memory.oom_control", |count| {
            format!("oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n")
        });
        // The root of the second version has no such file.
        check(V2, "proc/vmstat", |count| format!("nr_free 9\noom_kill {count}\nother 1\n"));
    }

    #[test]
    fn a_victim_may_end_some_seconds_after_its_kill_was_counted() {
        let folder = tempfile::tempdir().expect("folder");
        let mut kills = kills(V2, folder.path(), &[]);
        let second = Duration::from_secs;
        kills.take(9, second(100));
        kills.take(9, second(105));
        assert_eq!(kills.open, 2);
        kills.take(9, second(111));
        assert_eq!(kills.open, 0, "the victims were no workers");
        kills.take(8, second(112));
        assert_eq!(kills.open, 0, "a count that begins anew is no kill");
    }
}
