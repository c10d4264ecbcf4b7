//! Programs the tests start: their output kept, their ends awaited with a deadline, their whole family accounted for.
//!
//! A program gets a mark in its environment. Whatever it starts inherits the mark, through `setsid`, double forks and
//! adoption by init, so that the processes it leaves behind are found without trusting anybody's word.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    fs,
    hash::{BuildHasher, Hasher},
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

pub use nix::sys::signal::Signal;
use nix::{
    sys::signal::{kill, killpg},
    unistd::Pid,
};

use crate::wait::wait_blocking;

/// A started program. Dropping it kills it and its family.
pub struct Process {
    name: String,
    child: Child,
    mark: Mark,
    output: Output,
    ended: Option<ExitStatus>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// All it wrote to its output.
    pub stdout: String,
    /// All it wrote to its error stream.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

/// The lines a program wrote so far.
#[derive(Clone, Default)]
pub struct Output {
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

/// What marks a program and all that descends from it.
#[derive(Debug, Clone)]
pub struct Mark(String);

impl Process {
    /// Starts `command` in a process group of its own, with nothing to read.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mark = Mark::new();
        command.env(MARK, &mark.0).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[expect(clippy::disallowed_methods, reason = "the tests are no part of the program: they start it")]
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start '{name}': {error}"));
        let output = Output::default();
        keep(child.stdout.take(), Arc::clone(&output.stdout));
        keep(child.stderr.take(), Arc::clone(&output.stderr));
        Self { name, child, mark, output, ended: None }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What marks the program's family.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// What it wrote so far.
    pub fn output(&self) -> Output {
        self.output.clone()
    }

    /// Sends a signal to the program alone. One that has ended gets nothing.
    pub fn signal(&mut self, signal: Signal) {
        if self.status().is_none() {
            let _ = kill(Pid::from_raw(self.pid()), signal);
        }
    }

    /// How it ended, `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits for the end, `None` when it has not come within `limit`. Blocks the thread.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait_blocking(limit, || self.status())
    }

    /// Kills the program and whatever carries its mark, and returns what had to be killed besides the program.
    pub fn kill_family(&mut self) -> BTreeMap<i32, String> {
        self.signal(Signal::SIGKILL);
        let _ = self.wait(Duration::from_secs(5));
        let left = self.mark.living();
        for pid in left.keys() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        left
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_family();
    }
}

/// Runs `command` to its end without blocking the runtime.
///
/// # Panics
/// When it cannot be started, or has not ended within `limit`; then it is killed, and what it wrote is shown.
pub async fn run_to_end(command: Command, limit: Duration) -> Finished {
    let run = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let mut process = Process::start(command);
        let status = process.wait(limit);
        let took = started.elapsed();
        let Some(status) = status else {
            let (name, output) = (process.name.clone(), process.output());
            drop(process);
            panic!("'{name}' has not ended after {limit:?}\n{}", output.both());
        };
        let (stdout, stderr) = process.output.complete();
        Finished { status, stdout, stderr, took }
    });
    match run.await {
        Ok(finished) => finished,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

impl Output {
    /// The output stream so far.
    pub fn stdout(&self) -> String {
        lock(&self.stdout).clone()
    }

    /// The error stream so far.
    pub fn stderr(&self) -> String {
        lock(&self.stderr).clone()
    }

    /// Both streams so far, for a failure message.
    pub fn both(&self) -> String {
        format!("--- stdout\n{}--- stderr\n{}", self.stdout(), self.stderr())
    }

    /// Both streams after the end, when the threads that read them have seen it too.
    fn complete(&self) -> (String, String) {
        let _ = wait_blocking(Duration::from_secs(2), || (Arc::strong_count(&self.stdout) == 1).then_some(()));
        let _ = wait_blocking(Duration::from_secs(2), || (Arc::strong_count(&self.stderr) == 1).then_some(()));
        (self.stdout(), self.stderr())
    }
}

impl Mark {
    fn new() -> Self {
        // The standard library's keys for hash maps are random and differ each time.
        Self(format!("{}-{:x}", std::process::id(), RandomState::new().build_hasher().finish()))
    }

    /// The living processes that carry the mark, with their command lines. Zombies are dead.
    pub fn living(&self) -> BTreeMap<i32, String> {
        let wanted = format!("{MARK}={}", self.0).into_bytes();
        processes()
            .filter(|pid| carries(*pid, &wanted) && !is_zombie(*pid))
            .map(|pid| (pid, command_line(pid)))
            .collect()
    }

    /// Waits until none is left but `except`, and returns those that are after `limit`. Blocks the thread.
    pub fn living_after(&self, limit: Duration, except: &[i32]) -> BTreeMap<i32, String> {
        let mut left = BTreeMap::new();
        let _ = wait_blocking(limit, || {
            left = self.living();
            left.retain(|pid, _| !except.contains(pid));
            left.is_empty().then_some(())
        });
        left
    }
}

/// Whether a process with this id exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok() && !is_zombie(pid)
}

/// Sends `signal` to one process.
///
/// # Panics
/// When there is no such process.
pub fn send_signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("cannot send {signal} to {pid}: {error}"));
}

/// Resident memory of one process in bytes.
///
/// # Panics
/// When there is no such process.
pub fn resident_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|error| panic!("{pid}: {error}"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

/// The children of `pid` that are dead and not waited for.
pub fn zombies_of(pid: i32) -> Vec<i32> {
    let is_child = |child: &i32| stat(*child).is_some_and(|(state, parent)| state == 'Z' && parent == pid);
    processes().filter(is_child).collect()
}

fn keep(stream: Option<impl Read + Send + 'static>, into: Arc<Mutex<String>>) {
    let Some(stream) = stream else { return };
    thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            lock(&into).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
}

// Guards the text only; held while a line is added or the text is copied.
fn lock(text: &Mutex<String>) -> MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn carries(pid: i32, wanted: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
}

fn is_zombie(pid: i32) -> bool {
    stat(pid).is_none_or(|(state, _)| state == 'Z')
}

/// State letter and parent. The name before them may hold anything, so they count from its closing bracket.
fn stat(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn command_line(pid: i32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned()
}

const MARK: &str = "TIDEGATE_TEST_MARK";

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_program_ends_with_its_output() {
        let finished = run_to_end(shell("echo out; echo err >&2; exit 3"), Duration::from_secs(10)).await;
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(finished.status.code(), Some(3));
    }

    #[tokio::test]
    #[should_panic(expected = "has not ended after")]
    async fn a_program_that_does_not_end_fails_the_test() {
        run_to_end(shell("sleep 60"), Duration::from_millis(50)).await;
    }

    #[test]
    fn a_grandchild_in_a_session_of_its_own_is_family() {
        let mut process = Process::start(shell("setsid sleep 60 & echo started; wait"));
        let started = wait_blocking(Duration::from_secs(5), || {
            process.mark().living().values().any(|command| command == "sleep 60").then_some(())
        });
        assert!(started.is_some());
        let left = process.kill_family();
        assert_eq!(left.values().map(String::as_str).collect::<Vec<_>>(), ["sleep 60"]);
        assert!(process.mark().living_after(Duration::from_secs(5), &[]).is_empty());
    }
}
