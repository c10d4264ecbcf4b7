//! Files of applications under development: when one changes, its workers are replaced; when new ones fail, clients see why.
//!
//! Files are looked at again and again instead of asking the kernel to tell: that works on the shared folders of containers and
//! virtual machines too, misses nothing, and needs no bound on watches. A look takes milliseconds for thousands of files, and
//! a tree that takes longer is looked at less often.

use super::WorkerBridge;
use crate::admin::order::Order;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_config::model::Model;
use tidegate_supervisor::{Cause, DeployEnd, ExitReason, Failure, Outcome, WorkerId};
use tokio::sync::Notify;

/// What is watched, and what is shown for it.
#[derive(Default)]
pub(crate) struct Watch {
    /// Guards a small table; taken by reloads, by events about workers and by the watcher.
    targets: Mutex<BTreeMap<String, Target>>,
    /// There may be something to watch.
    configured: Notify,
}

#[derive(Debug, Default)]
struct Target {
    paths: Vec<PathBuf>,
    /// As the files were when its workers were last replaced.
    seen: Option<Files>,
    /// As they were at the last look, while they differ from that.
    changing: Option<Files>,
    /// The generation whose failure is shown.
    broken: Option<u64>,
}

/// Files by path: size, number and time of the last change.
type Files = BTreeMap<PathBuf, (u64, u64, i64, i64)>;

impl Watch {
    /// Takes over what a configuration watches. What it watched before goes on.
    pub(super) fn configure(&self, model: &Model) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = model.upstreams.values().filter(|upstream| !upstream.watch.is_empty());
        *targets = watched
            .map(|upstream| {
                let known = targets.remove(&upstream.name).filter(|target| target.paths == upstream.watch);
                let target = known.unwrap_or_else(|| Target { paths: upstream.watch.clone(), ..Target::default() });
                (upstream.name.clone(), target)
            })
            .collect();
        drop(targets);
        self.configured.notify_one();
    }

    /// Returns once there is something to watch; most programs never have anything.
    async fn wanted(&self) {
        while self.targets.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.configured.notified().await;
        }
    }

    /// Notes that a generation does not start; false where nobody watches.
    fn failed(&self, pool: &str, generation: u64) -> bool {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let target = targets.get_mut(pool);
        target.map(|target| target.broken = Some(generation)).is_some()
    }

    /// Whether a worker that is ready ends what is shown: not one of a version before the one that failed.
    fn ready(&self, worker: &WorkerId) -> bool {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let target = targets.get_mut(worker.pool.as_ref());
        target.is_some_and(|target| target.broken.take_if(|broken| worker.generation >= *broken).is_some())
    }

    /// Looks at all files, and returns the pools whose files have changed and come to rest.
    fn look(&self) -> Vec<String> {
        let watched: Vec<_> = {
            let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
            targets.iter().map(|(name, target)| (name.clone(), target.paths.clone())).collect()
        };
        let found: Vec<_> = watched.into_iter().map(|(name, paths)| (name, files(&paths), paths)).collect();
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = found.into_iter().filter_map(|(name, files, paths)| {
            let target = targets.get_mut(&name).filter(|target| target.paths == paths)?;
            target.compare(files).then_some(name)
        });
        changed.collect()
    }
}

impl Target {
    /// Whether files differ from those before, and were the same at the last two looks: who writes several files, or one in
    /// several steps, is through.
    fn compare(&mut self, files: Files) -> bool {
        let Some(seen) = &self.seen else {
            self.seen = Some(files);
            return false;
        };
        if *seen == files {
            self.changing = None;
            return false;
        }
        if self.changing.as_ref() == Some(&files) {
            self.seen = self.changing.take();
            return true;
        }
        self.changing = Some(files);
        false
    }
}

impl WorkerBridge {
    /// Looks at files now and then, for ever.
    pub(crate) async fn watch_files(self: Arc<Self>) {
        loop {
            self.watch.wanted().await;
            let bridge = self.clone();
            let look = move || {
                let began = Instant::now();
                (bridge.watch.look(), began.elapsed())
            };
            let (changed, took) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
            for upstream in changed {
                tracing::info!(pool = %upstream, "files have changed: new workers take over");
                // An upstream that a reload has just taken away has nobody to replace.
                let _ = self.order(&Order::Deploy { upstream });
            }
            tokio::time::sleep((took * 20).clamp(PAUSE, LONGEST)).await;
        }
    }

    /// A deploy is over: the version that it was for may have failed.
    pub(super) fn show_end(&self, end: &DeployEnd) {
        let has_failed = !matches!(end.outcome, Outcome::Done | Outcome::Superseded);
        if let Some(cause) = end.failure.as_ref().filter(|_| has_failed) {
            self.show(&end.pool, end.generation, cause);
        }
    }

    /// A worker failed: where none serves there is no version to go back to, and its start is tried again.
    pub(super) fn show_failure(&self, failure: &Failure) {
        let is_boot = matches!(failure.reason, ExitReason::BootExit | ExitReason::BootTimeout);
        let worker = &failure.worker;
        if is_boot && self.pool(&worker.pool).is_some_and(|pool| pool.endpoints().is_empty()) {
            self.show(&worker.pool, worker.generation, &Cause::Worker(failure.clone()));
        }
    }

    fn show(&self, name: &str, generation: u64, cause: &Cause) {
        if let Some(pool) = self.pool(name).filter(|_| self.watch.failed(name, generation)) {
            pool.show_broken_version(Some(text(cause).into()));
        }
    }

    /// A worker is ready.
    pub(super) fn show_ready(&self, worker: &WorkerId) {
        if self.watch.ready(worker)
            && let Some(pool) = self.pool(&worker.pool)
        {
            pool.show_broken_version(None);
        }
    }

    /// Another configuration serves: nothing is shown where nothing is watched any more.
    pub(crate) fn watch_of(&self, model: &Model) {
        self.watch.configure(model);
        for upstream in model.upstreams.values().filter(|upstream| upstream.watch.is_empty()) {
            if let Some(pool) = self.pool(&upstream.name) {
                pool.show_broken_version(None);
            }
        }
    }
}

fn text(cause: &Cause) -> String {
    let lines = cause.last_lines().join("\n");
    if lines.is_empty() { cause.to_string() } else { format!("{lines}\n\n{cause}") }
}

/// What is there now, at the most so many files. A path that is named counts whatever it is called.
fn files(paths: &[PathBuf]) -> Files {
    let mut files = Files::new();
    let mut folders = Vec::new();
    for path in paths {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => folders.push(path.clone()),
            Ok(meta) => {
                files.insert(path.clone(), mark(&meta));
            }
            Err(_) => {}
        }
    }
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().filter(|entry| !is_left_out(Path::new(&entry.file_name()))) {
            // Not through links: they may lead anywhere, and in circles.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            } else if meta.is_file() && files.len() < MOST {
                files.insert(entry.path(), mark(&meta));
            }
        }
    }
    files
}

fn mark(meta: &Metadata) -> (u64, u64, i64, i64) {
    (meta.size(), meta.ino(), meta.mtime(), meta.mtime_nsec())
}

/// What programs write for themselves: hidden files and folders but `.env`, compiled code, packages, logs, databases, and what
/// editors leave for a moment.
fn is_left_out(name: &Path) -> bool {
    let Some(text) = name.to_str() else { return false };
    let is_hidden = text.starts_with('.') && !text.starts_with(".env");
    let ending = name.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let is_made = matches!(
        ending,
        "pyc" | "pyo" | "swp" | "swo" | "swx" | "tmp" | "log" | "pid" | "sock" | "db" | "sqlite" | "sqlite3"
    ) || text.contains(".sqlite3-")
        || text.contains(".db-");
    // vim writes 4913 to see whether it may.
    is_hidden
        || is_made
        || text.ends_with('~')
        || text.starts_with('#')
        || matches!(text, "__pycache__" | "node_modules" | "venv" | "4913")
}

const PAUSE: Duration = Duration::from_millis(250);
/// Between looks at large trees, and on a machine that is busy.
const LONGEST: Duration = Duration::from_secs(2);
const MOST: usize = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_write_for_themselves_is_left_out() {
        for name in [
            ".git",
            ".venv",
            ".main.py.swp",
            ".#main.py",
            "main.py~",
            "#main.py#",
            "4913",
            "__pycache__",
            "node_modules",
            "main.cpython-311.pyc",
            "app.log",
            "db.sqlite3",
            "db.sqlite3-journal",
            "x.tmp",
        ] {
            assert!(is_left_out(Path::new(name)), "{name}");
        }
        for name in ["main.py", ".env", ".env.local", "index.html", "data.json", "Makefile", "4914"] {
            assert!(!is_left_out(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn a_change_counts_once_and_only_when_it_has_come_to_rest() {
        let at = |time: i64| Files::from([(PathBuf::from("/a"), (1, 1, time, 0))]);
        let mut target = Target::default();
        let looks =
            [(1, false), (1, false), (2, false), (3, false), (3, true), (3, false), (4, false), (3, false), (3, false)];
        for (index, (time, expected)) in looks.into_iter().enumerate() {
            assert_eq!(target.compare(at(time)), expected, "look {index}");
        }
    }

    #[test]
    fn files_are_found_below_folders_but_not_through_links() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("pkg/.git")).expect("folders");
        for name in ["main.py", "pkg/a.py", "pkg/.git/index", ".hidden"] {
            fs::write(path(name), "").expect("a file");
        }
        std::os::unix::fs::symlink(folder.path(), path("pkg/round")).expect("a link");
        let found = |named: &[PathBuf]| files(named).into_keys().collect::<Vec<_>>();
        assert_eq!(found(&[folder.path().to_owned()]), [path("main.py"), path("pkg/a.py")]);
        assert_eq!(found(&[path(".hidden"), path("nothing")]), [path(".hidden")]);
    }
}
