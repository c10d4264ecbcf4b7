//! How many CPUs we may really use, as a fraction: affinity, and the cgroup quota of every ancestor. The standard
//! library's answer rounds a quota down, and knows only one of the ways it can be set.

use std::fs;
use std::path::Path;

use crate::cgroup::{self, Roots, Version};

/// CPUs this process may use: the least of its affinity and the CPU quotas (cgroup v1 and v2) of its own group and all
/// groups above it. More than 0; a quota of half a CPU is 0.5. Files that are missing or odd set no bound.
#[must_use]
pub fn effective_cpus(roots: &Roots) -> f64 {
    let affinity = fs::read_to_string(roots.proc.join("self/status")).ok().and_then(|status| allowed_cpus(&status));
    let affinity =
        affinity.unwrap_or_else(|| std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64));
    quotas(roots).into_iter().fold(affinity, f64::min)
}

/// Number of CPUs in the `Cpus_allowed_list` of `/proc/<pid>/status`, such as `0-2,7`.
fn allowed_cpus(status: &str) -> Option<f64> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut count = 0;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(f64::from(count))
}

fn quotas(roots: &Roots) -> Vec<f64> {
    let groups = cgroup::groups(roots, "cpu").into_iter();
    groups
        .flat_map(|(version, folders)| folders.into_iter().filter_map(move |folder| quota(version, &folder)))
        .collect()
}

/// CPUs that the group at `folder` may use, if it has a bound of its own.
fn quota(version: Version, folder: &Path) -> Option<f64> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0);
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let (quota, period) = match version {
        Version::V1 => (number(&read("cpu.cfs_quota_us")?)?, number(&read("cpu.cfs_period_us")?)?),
        Version::V2 => {
            let text = read("cpu.max")?;
            let (quota, period) = text.trim().split_once(' ')?;
            (number(quota)?, number(period)?)
        }
    };
    Some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    const V1_MOUNT: &str = "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct";

    struct Case {
        allowed: &'static str,
        group: &'static str,
        mount: &'static str,
        files: &'static [(&'static str, &'static str)],
        expected: f64,
    }

    #[track_caller]
    fn check(case: &Case) {
        let folder = tempfile::tempdir().expect("folder");
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            fs::write(path, text).expect("file");
        };
        let roots = Roots { proc: folder.path().join("proc"), cgroup: folder.path().join("cgroup") };
        let status = format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{}\n", case.allowed);
        write(roots.proc.join("self/status"), &status);
        write(roots.proc.join("self/cgroup"), case.group);
        write(roots.proc.join("self/mountinfo"), case.mount);
        for (path, text) in case.files {
            write(roots.cgroup.join(path), text);
        }
        let cpus = effective_cpus(&roots);
        assert!((cpus - case.expected).abs() < 1e-9, "{cpus} instead of {}", case.expected);
    }

    #[test]
    fn affinity_alone() {
        for (allowed, expected) in [("0-7", 8.0), ("0", 1.0), ("0-2,7,9-10", 6.0)] {
            check(&Case { allowed, group: "0::/\n", mount: V2_MOUNT, files: &[], expected });
        }
    }

    #[test]
    fn the_tightest_ancestor_counts() {
        let files =
            &[("a/cpu.max", "300000 100000\n"), ("a/b/cpu.max", "150000 100000\n"), ("a/b/c/cpu.max", "max 100000\n")];
        check(&Case { allowed: "0-7", group: "0::/a/b/c\n", mount: V2_MOUNT, files, expected: 1.5 });
        check(&Case { allowed: "0-7", group: "0::/a\n", mount: V2_MOUNT, files, expected: 3.0 });
        check(&Case { allowed: "0", group: "0::/a/b/c\n", mount: V2_MOUNT, files, expected: 1.0 });
    }

    #[test]
    fn first_version_quotas_count_too() {
        let group = "9:name=systemd:/x\n3:cpuset:/y\n1:cpu,cpuacct:/pod/box\n0::/\n";
        let files = &[
            ("cpu,cpuacct/pod/cpu.cfs_quota_us", "50000\n"),
            ("cpu,cpuacct/pod/cpu.cfs_period_us", "100000\n"),
            ("cpu,cpuacct/pod/box/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/pod/box/cpu.cfs_period_us", "100000\n"),
        ];
        check(&Case { allowed: "0-3", group, mount: V1_MOUNT, files, expected: 0.5 });
    }

    #[test]
    fn a_container_without_its_own_namespace_finds_its_group_at_the_mount() {
        let mount = "33 25 0:29 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw";
        let files = &[("cpu.max", "250000 100000")];
        check(&Case { allowed: "0-7", group: "0::/docker/abc\n", mount, files, expected: 2.5 });
    }

    #[test]
    fn rubbish_sets_no_bound() {
        let files = &[("cpu.max", "lots"), ("a/cpu.max", "0 0")];
        check(&Case { allowed: "0-1", group: "rubbish\n0::/a\n", mount: V2_MOUNT, files, expected: 2.0 });
    }

    #[test]
    fn this_machine_has_an_answer() {
        let cpus = effective_cpus(&Roots::default());
        assert!(cpus > 0.0 && cpus <= 4096.0, "{cpus}");
    }
}
