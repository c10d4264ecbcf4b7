//! Trees of both versions of control groups as containers find them, and what is read from them.

use std::path::PathBuf;

use super::*;

const MIB: u64 = 1024 * 1024;
const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const V1_MOUNT: &str = "33 25 0:29 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n";

/// A machine with so many MiB, of which so many are free, and files of groups.
struct Fixture {
    folder: tempfile::TempDir,
    roots: Roots,
}

impl Fixture {
    fn new(group: &str, mounts: &str, host: Option<(u64, u64)>, files: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let roots = Roots { proc: folder.path().join("proc"), cgroup: folder.path().join("cgroup") };
        let fixture = Self { folder, roots };
        fixture.write("proc/self/cgroup", group);
        fixture.write("proc/self/mountinfo", mounts);
        if let Some((total, available)) = host {
            let text = format!(
                "MemTotal:  {} kB\nMemFree: 1 kB\nMemAvailable:  {} kB\nBuffers: 2 kB\n",
                total * 1024,
                available * 1024
            );
            fixture.write("proc/meminfo", &text);
        }
        files.iter().for_each(|(path, text)| fixture.write(&format!("cgroup/{path}"), text));
        fixture
    }

    fn write(&self, path: &str, text: &str) {
        let path: PathBuf = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, text).expect("file");
    }

    fn read(&self) -> Memory {
        Memory::read(&self.roots)
    }
}

fn mib(count: u64) -> String {
    format!("{}\n", count * MIB)
}

fn group(limit: u64, used: u64) -> Bound {
    Bound::of_group(limit * MIB, used * MIB)
}

fn host(total: u64, used: u64) -> Bound {
    Bound::of_host(total * MIB, used * MIB)
}

#[test]
fn the_second_version_counts_its_lower_limit_and_no_cache() {
    let files = [
        ("pod/memory.max", mib(1_000)),
        ("pod/memory.current", mib(700)),
        ("pod/box/memory.max", mib(512)),
        ("pod/box/memory.high", mib(400)),
        ("pod/box/memory.current", mib(300)),
        ("pod/box/memory.stat", format!("anon 1\nfile 2\ninactive_file {}\nactive_file 9\n", 100 * MIB)),
    ];
    let memory = Fixture::new("0::/pod/box\n", V2_MOUNT, Some((8_000, 6_000)), &files).read();
    assert_eq!(memory.bounds, [group(400, 200), group(1_000, 700), host(8_000, 2_000)]);
    assert_eq!((memory.room(), memory.spare(0)), (Some(200 * MIB), Some(50 * MIB)));
    assert_eq!(memory.spare(100 * MIB), Some(150 * MIB));
}

#[test]
fn the_first_version_is_read_too_and_its_greatest_number_is_no_limit() {
    let own = "4:memory:/process_api/3207\n3:cpuset:/\n0::/\n";
    let files = [
        ("memory/process_api/3207/memory.limit_in_bytes", mib(600)),
        ("memory/process_api/3207/memory.usage_in_bytes", mib(250)),
        ("memory/process_api/3207/memory.stat", format!("inactive_file 7\ntotal_inactive_file {}\n", 50 * MIB)),
        ("memory/process_api/memory.limit_in_bytes", "9223372036854771712\n".to_owned()),
        ("memory/process_api/memory.usage_in_bytes", mib(900)),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n".to_owned()),
        ("memory/memory.usage_in_bytes", mib(5_000)),
    ];
    let memory = Fixture::new(own, V1_MOUNT, Some((8_000, 7_000)), &files).read();
    assert_eq!(memory.bounds, [group(600, 200), host(8_000, 1_000)]);
    assert_eq!(memory.spare(0), Some(250 * MIB));
}

#[test]
fn a_group_that_may_have_more_than_there_is_has_no_limit() {
    let files = [("a/memory.max", mib(9_000)), ("a/memory.current", mib(1))];
    let memory = Fixture::new("0::/a\n", V2_MOUNT, Some((8_000, 1_000)), &files).read();
    assert_eq!(memory.bounds, [host(8_000, 7_000)]);
    assert_eq!((memory.room(), memory.spare(0)), (Some(1_000 * MIB), Some(200 * MIB)), "a tenth is to stay free");
}

#[test]
fn a_limit_that_changes_holds_at_once() {
    let files = [("a/memory.max", "max\n".to_owned()), ("a/memory.current", mib(100))];
    let fixture = Fixture::new("0::/a\n", V2_MOUNT, Some((8_000, 7_000)), &files);
    assert_eq!(fixture.read().bounds, [host(8_000, 1_000)]);
    fixture.write("cgroup/a/memory.max", &mib(400));
    assert_eq!(fixture.read().bounds, [group(400, 100), host(8_000, 1_000)]);
    fixture.write("cgroup/a/memory.current", &mib(350));
    assert_eq!(
        (fixture.read().room(), fixture.read().spare(0)),
        (Some(50 * MIB), Some(0)),
        "more is used than should be"
    );
}

#[test]
fn rubbish_sets_no_group() {
    let files = [("a/memory.max", "lots".to_owned()), ("a/memory.current", "few".to_owned())];
    let memory = Fixture::new("rubbish\n0::/a\n", V2_MOUNT, None, &files).read();
    assert_eq!((memory.room(), memory.spare(7)), (None, None));
}

#[test]
fn this_machine_has_an_answer() {
    let memory = Memory::read(&Roots::default());
    assert!(memory.room().is_some_and(|room| room > 0), "{memory:?}");
}
