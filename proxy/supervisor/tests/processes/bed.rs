//! A supervising process under test, its events, and a view of what runs. Waits for conditions with a deadline, never
//! for a time.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const TESTBED: &str = env!("CARGO_BIN_EXE_supervisor-testbed");
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Bed {
    process: Child,
    input: Option<ChildStdin>,
    lines: Arc<Lines>,
    folder: TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::started_by("")
    }

    /// Started by a shell that does `preparation` first.
    #[expect(clippy::disallowed_methods, reason = "a test starts the supervising process itself")]
    pub(crate) fn started_by(preparation: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("tg").tempdir().expect("folder");
        // Another account than ours may have to pass through to its sockets.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("mode");
        let script = format!("{preparation}\nexec \"$0\" \"$1\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, TESTBED]).arg(folder.path().join("run"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("testbed");
        let output = process.stdout.take().expect("output");
        let lines: Arc<Lines> = Arc::default();
        let theirs = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                theirs.push(serde_json::from_str(&line).expect("a JSON value a line"));
            }
        });
        Self { input: process.stdin.take(), process, lines, folder }
    }

    /// A file or folder of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.id().cast_signed()
    }

    pub(crate) fn send(&mut self, command: &Value) {
        writeln!(self.input.as_mut().expect("input"), "{command}").expect("testbed reads");
    }

    pub(crate) fn set(&mut self, pools: &[Value]) {
        self.send(&json!({ "set_pools": pools }));
    }

    /// Waits for the first line of which `look` makes something.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, look: impl Fn(&Value) -> Option<T>) -> T {
        self.wait_nth(0, what, look)
    }

    /// Waits for the line of which `look` makes something for the `nth` time, from 0.
    #[track_caller]
    pub(crate) fn wait_nth<T>(&self, nth: usize, what: &str, look: impl Fn(&Value) -> Option<T>) -> T {
        self.wait_within(DEADLINE, nth, what, look)
    }

    #[track_caller]
    fn wait_within<T>(&self, limit: Duration, nth: usize, what: &str, look: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + limit;
        let (mut seen, mut missing) = (0, nth);
        loop {
            let fresh = self.lines.after(seen, deadline);
            seen += fresh.len();
            for found in fresh.iter().filter_map(|line| look(line)) {
                if missing == 0 {
                    return found;
                }
                missing -= 1;
            }
            assert!(Instant::now() < deadline, "{what} did not come: {:#?}", self.lines.last(20));
        }
    }

    /// Everything so far.
    pub(crate) fn all<T>(&self, look: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        self.lines.after(0, Instant::now()).iter().filter_map(|line| look(line)).collect()
    }

    /// Waits for the `nth` worker to get ready, from 0.
    #[track_caller]
    pub(crate) fn ready(&self, nth: usize) -> Worker {
        let ready = self.wait_nth(nth, "ready", |line| line.pointer("/event/ready").cloned());
        let spawn = ready["worker"]["spawn"].clone();
        let pid = self.wait("pid", |line| {
            let transition = line.pointer("/event/transition")?;
            (transition["worker"]["spawn"] == spawn && transition["to"] == "ready").then(|| transition["pid"].as_i64())
        });
        let pid = i32::try_from(pid.expect("a pid")).expect("a pid");
        Worker { id: ready["worker"].clone(), pid, address: ready["address"].clone() }
    }

    #[track_caller]
    pub(crate) fn failure(&self, nth: usize) -> Value {
        self.wait_nth(nth, "failure", |line| line.pointer("/event/failure").cloned())
    }

    #[track_caller]
    pub(crate) fn gone(&self, worker: &Worker) {
        self.gone_within(DEADLINE, worker);
    }

    #[track_caller]
    pub(crate) fn gone_within(&self, limit: Duration, worker: &Worker) {
        let is_it = |line: &Value| (line.pointer("/event/gone/worker")? == &worker.id).then_some(());
        self.wait_within(limit, 0, "gone", is_it);
    }

    /// The data plane has given a worker so many requests.
    pub(crate) fn progress(&mut self, worker: &Worker, requests: u64) {
        let line = format!("progress {} {requests}", worker.id["spawn"]);
        writeln!(self.input.as_mut().expect("input"), "{line}").expect("testbed reads");
    }

    /// The text of the first output line that begins with `prefix`, without it.
    #[track_caller]
    pub(crate) fn printed(&self, prefix: &str) -> String {
        self.wait(prefix, |line| Some(line.pointer("/output/line")?.as_str()?.strip_prefix(prefix)?.to_owned()))
    }

    /// Present status of the first pool.
    pub(crate) fn status(&mut self) -> Value {
        let before = self.all(|line| line.get("status").map(|_| ())).len();
        writeln!(self.input.as_mut().expect("input"), "status").expect("testbed reads");
        self.wait_nth(before, "status", |line| line.get("status").cloned())[0].clone()
    }

    /// Ends the input, which is a shutdown, and waits for the end of the process.
    #[track_caller]
    pub(crate) fn shut_down(&mut self) -> ExitStatus {
        self.input = None;
        let mut status = None;
        until("end of the testbed", || {
            status = self.process.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("status")
    }

    pub(crate) fn kill_nine(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }
}

/// What the process has printed. The lock is held to add a line or to copy references, never while anybody looks: a look may
/// panic, and a flood of lines must not wait for it.
#[derive(Default)]
struct Lines {
    all: Mutex<Vec<Arc<Value>>>,
    came: Condvar,
}

impl Lines {
    fn push(&self, line: Value) {
        self.all.lock().expect(UNSHAKEN).push(Arc::new(line));
        self.came.notify_all();
    }

    /// Those from number `from` on, once there is one; none when there is none by then.
    fn after(&self, from: usize, deadline: Instant) -> Vec<Arc<Value>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let all = self.all.lock().expect(UNSHAKEN);
        let (all, _) = self.came.wait_timeout_while(all, left, |all| all.len() <= from).expect(UNSHAKEN);
        all[from..].to_vec()
    }

    fn last(&self, count: usize) -> Vec<Arc<Value>> {
        let all = self.all.lock().expect(UNSHAKEN);
        all[all.len().saturating_sub(count)..].to_vec()
    }
}

const UNSHAKEN: &str = "nothing panics with the lock";

impl Drop for Bed {
    fn drop(&mut self) {
        // Its guardian does the rest.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) id: Value,
    pub(crate) pid: i32,
    pub(crate) address: Value,
}

impl Worker {
    pub(crate) fn socket(&self) -> &Path {
        Path::new(self.address["unix"].as_str().expect("a socket"))
    }

    pub(crate) fn slot(&self) -> u64 {
        self.id["slot"].as_u64().expect("a slot")
    }
}

/// A pool "app" whose workers run `script` in a shell, then become the testbed's worker on their socket.
pub(crate) fn pool(count: u32, script: &str) -> Value {
    let command = format!("{script}\nexec \"$0\" worker \"$1\"");
    custom(count, &["sh", "-c", &command, TESTBED, "{socket}"])
}

/// A pool "app" with this command.
pub(crate) fn custom(count: u32, command: &[&str]) -> Value {
    json!({
        "name": "app", "command": command, "count": { "fixed": count }, "transport": "unix", "env_inherit": "all",
        "ready": "connect", "boot_timeout_ms": 10_000, "drain_timeout_ms": 100, "stop_timeout_ms": 5_000,
    })
}

/// `pool` with some of its keys changed.
pub(crate) fn with(mut pool: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().expect("an object") {
        pool[key] = value.clone();
    }
    pool
}

/// Waits until `condition` holds, at most [`DEADLINE`].
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    within(DEADLINE, what, condition);
}

/// Waits until `condition` holds, at most that long.
#[track_caller]
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Fields of `/proc/<pid>/stat` after the name: state, parent, group, session.
fn stat(pid: i32) -> Option<(String, i32, i32, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields[0].to_owned(), fields[1].parse().ok()?, fields[2].parse().ok()?, fields[3].parse().ok()?))
}

pub(crate) fn processes() -> Vec<i32> {
    let folder = std::fs::read_dir("/proc").expect("/proc");
    folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether the process exists and is not a zombie.
pub(crate) fn lives(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, ..)| state != "Z" && state != "X")
}

/// Zombies whose parent is `pid`.
pub(crate) fn zombies_of(pid: i32) -> usize {
    let is_one = |one: &i32| stat(*one).is_some_and(|(state, parent, ..)| state == "Z" && parent == pid);
    processes().iter().filter(|one| is_one(one)).count()
}

pub(crate) fn session(pid: i32) -> Option<i32> {
    stat(pid).map(|(_, _, _, session)| session)
}

/// The guardian of a supervising process.
#[track_caller]
pub(crate) fn guardian_of(pid: i32) -> i32 {
    let is_one = |one: &i32| {
        let text = std::fs::read(format!("/proc/{one}/cmdline")).unwrap_or_default();
        text.starts_with(b"tidegate-guardian\0") && stat(*one).is_some_and(|(_, parent, ..)| parent == pid)
    };
    let mut found = None;
    until("guardian", || {
        found = processes().into_iter().find(is_one);
        found.is_some()
    });
    found.expect("guardian")
}

/// Processes that have `word` in their environment or arguments: all that a test has started, wherever they are now.
pub(crate) fn with_word(word: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        let own = std::process::id().cast_signed();
        ["environ", "cmdline"].iter().any(|file| {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            *pid != own && lives(*pid) && text.windows(word.len()).any(|window| window == word.as_bytes())
        })
    };
    processes().into_iter().filter(has).collect()
}

pub(crate) fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("signal");
}

pub(crate) fn kill_nine(pid: i32) {
    signal(pid, rustix::process::Signal::KILL);
}
