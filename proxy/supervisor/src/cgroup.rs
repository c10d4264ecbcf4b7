//! Where the files of our control group and of the groups above it are, in both versions of control groups.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel's files are; another place than the usual in tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`
    pub proc: PathBuf,
    /// `/sys/fs/cgroup`
    pub cgroup: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), cgroup: MOUNT.into() }
    }
}

/// Version of a hierarchy of control groups: files have other names in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Folders of the groups that this process is in and that may bound `controller`: for each hierarchy our own group first,
/// then those above it. Which of them has the controller's files is for the caller to see.
pub(crate) fn groups(roots: &Roots, controller: &str) -> Vec<(Version, Vec<PathBuf>)> {
    let read = |name: &str| fs::read_to_string(roots.proc.join("self").join(name)).unwrap_or_default();
    let (groups, mounts) = (read("cgroup"), read("mountinfo"));
    let found = groups.lines().filter_map(parse_group).filter_map(|(controllers, group)| {
        let version = version(controllers, controller)?;
        let mounts = mounts.lines().filter_map(parse_mount);
        let mount = mounts.into_iter().find(|mount| mount.has(version, controller))?;
        let (root, path) = (mount.folder(roots), mount.relative(group));
        Some((version, path.ancestors().map(|ancestor| root.join(ancestor)).collect()))
    });
    found.collect()
}

/// A line of `/proc/self/cgroup`: controllers and path.
fn parse_group(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(':')?;
    rest.split_once(':')
}

/// Version of the hierarchy of these controllers, if it may have this one.
fn version(controllers: &str, controller: &str) -> Option<Version> {
    match controllers {
        "" => Some(Version::V2),
        names if names.split(',').any(|name| name == controller) => Some(Version::V1),
        _ => None,
    }
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    /// The part of the hierarchy that is mounted.
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

fn parse_mount(line: &str) -> Option<Mount<'_>> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let mut tail = tail.split(' ');
    let (root, point) = (head.next()?, head.next()?);
    let (kind, _source, options) = (tail.next()?, tail.next()?, tail.next()?);
    Some(Mount { root, point, kind, options })
}

impl Mount<'_> {
    fn has(&self, version: Version, controller: &str) -> bool {
        match version {
            Version::V2 => self.kind == "cgroup2",
            Version::V1 => self.kind == "cgroup" && self.options.split(',').any(|option| option == controller),
        }
    }

    fn folder(&self, roots: &Roots) -> PathBuf {
        match Path::new(self.point).strip_prefix(MOUNT) {
            Ok(below) => roots.cgroup.join(below),
            Err(_) => self.point.into(),
        }
    }

    /// Path of `group` below the mount point. Without a cgroup namespace a container sees the host's path in its group
    /// and in the mount's root; with one it sees `/` in both.
    fn relative(&self, group: &str) -> PathBuf {
        let below = Path::new(group).strip_prefix(self.root).unwrap_or(Path::new(""));
        below.strip_prefix("/").unwrap_or(below).to_path_buf()
    }
}

const MOUNT: &str = "/sys/fs/cgroup";
