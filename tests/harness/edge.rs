//! The program under test, running one site file in a directory of its own.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    admin::Admin,
    binary::Binary,
    certificates,
    client::{Client, Kind},
    connect,
    process::{Finished, Output, Process, Signal, run_to_end, zombies_of},
    site::{Port, Site},
    wait::{wait_for, wait_until},
};

/// A running edge. Dropping it kills it, and fails the test when it leaves a process behind.
pub struct Edge {
    process: Process,
    home: Home,
    admin: Admin,
}

/// The directory of a test and the site file in it.
pub struct Home {
    dir: TempDir,
    ports: BTreeMap<String, Port>,
}

/// How an edge stopped.
#[derive(Debug)]
pub struct Stopped {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// From the signal to the exit.
    pub took: Duration,
    /// What was still alive of the family one second after the exit.
    pub left: BTreeMap<i32, String>,
}

/// One worker as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The number that stays.
    pub slot: u64,
    /// The process, 0 when there is none.
    pub pid: i32,
    /// `ready`, `starting`, ...
    pub state: String,
    /// How often the slot was started again.
    pub restarts: u64,
}

impl Home {
    /// An empty directory with the test certificates, and `site` written into it.
    ///
    /// # Panics
    /// When the directory cannot be made.
    pub fn new(site: &Site) -> Self {
        // Short, because unix socket paths end at 107 bytes.
        let dir = tempfile::Builder::new().prefix("tg").tempdir().expect("the system has a temporary directory");
        certificates::copy_into(dir.path());
        let mut home = Self { dir, ports: BTreeMap::new() };
        home.write(site);
        home
    }

    /// Writes another site file in place of the first; ports keep their numbers by name.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&mut self, site: &Site) {
        let text = site.fill(self.dir.path(), &mut self.ports);
        fs::write(self.site_file(), text).expect("the directory is ours");
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The site file.
    pub fn site_file(&self) -> PathBuf {
        self.dir.path().join("site.yaml")
    }

    /// The port of the gap `@port:name@`.
    ///
    /// # Panics
    /// When the site file has no such gap.
    pub fn port(&self, name: &str) -> u16 {
        self.ports.get(name).unwrap_or_else(|| panic!("the site file has no '@port:{name}@'")).number
    }

    /// Runs `tidegate WORDS... -c FILE` to its end.
    pub async fn tidegate(&self, words: &[&str]) -> Finished {
        let mut command = Binary::Tidegate.command();
        command.args(words).arg("-c").arg(self.site_file()).current_dir(self.path());
        run_to_end(command, COMMAND_LIMIT).await
    }
}

impl Edge {
    /// Starts the program and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends or is not ready in time; the message holds what it printed.
    pub async fn start(site: Site) -> Self {
        let edge = Self::launch(Home::new(&site));
        edge.ready().await
    }

    /// Starts the program without waiting for anything.
    pub fn launch(home: Home) -> Self {
        Self::launch_with_environment(home, &[])
    }

    /// As [`Edge::launch`], with these variables in its environment.
    pub fn launch_with_environment(home: Home, variables: &[(&str, &str)]) -> Self {
        certificates::install_crypto();
        let mut command = Binary::Tidegate.command();
        command.arg("run").arg("-c").arg(home.site_file()).current_dir(home.path()).envs(variables.iter().copied());
        let admin = Admin::new(&home.path().join("admin.sock"));
        Self { process: Process::start(command), home, admin }
    }

    /// As [`Edge::launch`], with room for `descriptors` open files and sockets and no more.
    pub fn launch_with_descriptors(home: Home, descriptors: usize) -> Self {
        certificates::install_crypto();
        let mut command = std::process::Command::new("sh");
        let program = Binary::Tidegate.command();
        command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" run -c \"$1\"")]);
        command.arg(program.get_program()).arg(home.site_file()).current_dir(home.path());
        let admin = Admin::new(&home.path().join("admin.sock"));
        Self { process: Process::start(command), home, admin }
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Panics
    /// When the program ends before, or takes longer than [`READY_LIMIT`].
    pub async fn ready(mut self) -> Self {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.status() {
                panic!("tidegate ended before it was ready: {status}\n{}", self.story());
            }
            if self.admin.get("/readyz").await.is_ok_and(|answer| answer.status == 200) {
                return self;
            }
            assert!(started.elapsed() < READY_LIMIT, "tidegate is not ready after {READY_LIMIT:?}\n{}", self.story());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Its directory and file.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Its admin endpoint.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// What it printed so far. The access log is on the output stream unless the site file says otherwise.
    pub fn output(&self) -> Output {
        self.process.output()
    }

    /// The address of a listener by its name. The name is also that of the port's gap in the site file.
    pub fn address(&self, listener: &str) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.home.port(listener)))
    }

    /// The address the status gives for a listener, for one that was asked for with port 0.
    ///
    /// # Panics
    /// When the status names no such listener, or no address for it.
    pub async fn actual_address(&self, listener: &str) -> SocketAddr {
        let status = self.status().await;
        let found = status["listeners"].as_array().into_iter().flatten().find(|entry| entry["name"] == listener);
        let address = found.and_then(|entry| entry["address"].as_str()?.parse().ok());
        address.unwrap_or_else(|| panic!("no address for the listener '{listener}' in {status:#}"))
    }

    /// A client of this kind. The site needs the listeners of [`crate::site::LISTENERS`].
    pub fn client(&self, kind: Kind) -> Client {
        Client::new(kind, self.address(kind.listener()))
    }

    /// One client of each kind.
    pub fn clients(&self) -> Vec<Client> {
        Kind::ALL.map(|kind| self.client(kind)).into()
    }

    /// `GET /status`.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn status(&self) -> Value {
        self.admin.status().await.unwrap_or_else(|error| panic!("no status: {error:#}\n{}", self.story()))
    }

    /// The workers of an upstream, by slot.
    pub async fn workers(&self, upstream: &str) -> Vec<Worker> {
        let status = self.status().await;
        let found = status["upstreams"].as_array().into_iter().flatten().find(|entry| entry["name"] == upstream);
        let found = found.unwrap_or_else(|| panic!("no upstream '{upstream}' in {status:#}"));
        let mut workers: Vec<Worker> = found["workers"].as_array().into_iter().flatten().map(Worker::read).collect();
        workers.sort_by_key(|worker| worker.slot);
        workers
    }

    /// Waits until `condition` holds for the workers of an upstream, and returns them.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub async fn workers_until(
        &self,
        upstream: &str,
        limit: Duration,
        condition: impl Fn(&[Worker]) -> bool,
    ) -> Vec<Worker> {
        wait_until("the workers", limit, async || {
            let workers = self.workers(upstream).await;
            condition(&workers).then_some(workers)
        })
        .await
    }

    /// Waits until `count` workers of an upstream are ready, and returns all of them. The edge itself is ready with
    /// the first.
    ///
    /// # Panics
    /// When they are not within [`READY_LIMIT`].
    pub async fn ready_workers(&self, upstream: &str, count: usize) -> Vec<Worker> {
        let ready = |workers: &[Worker]| workers.iter().filter(|worker| worker.is_ready()).count() == count;
        self.workers_until(upstream, READY_LIMIT, ready).await
    }

    /// Writes another site file and runs `tidegate reload`.
    pub async fn reload(&mut self, site: &Site) -> Finished {
        self.home.write(site);
        self.home.tidegate(&["reload"]).await
    }

    /// Writes another site file, and tells nobody.
    pub fn rewrite(&mut self, site: &Site) {
        self.home.write(site);
    }

    /// Sends a signal to the program alone.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for a text on the error stream.
    ///
    /// # Panics
    /// When it does not come within `limit`.
    pub async fn wait_for_message(&self, text: &str, limit: Duration) {
        let output = self.output();
        wait_for(text, limit, || output.stderr().contains(text).then_some(())).await;
    }

    /// The living processes of the edge: itself, its workers, whatever they started.
    pub fn living(&self) -> BTreeMap<i32, String> {
        self.process.mark().living()
    }

    /// Waits until nobody accepts on a listener any more.
    ///
    /// # Panics
    /// When somebody does after ten seconds.
    pub async fn wait_until_refused(&self, listener: &str) {
        let address = self.address(listener);
        let refused = async || connect::tcp(address).await.is_err().then_some(());
        wait_until("the listener to be closed", Duration::from_secs(10), refused).await;
    }

    /// Dead children nobody waited for.
    pub fn zombies(&self) -> Vec<i32> {
        zombies_of(self.pid())
    }

    /// Sends SIGTERM, waits for the exit, and looks for leftovers one second later.
    ///
    /// # Panics
    /// When it has not ended within [`STOP_LIMIT`].
    pub async fn stop(self) -> Stopped {
        self.end(Signal::SIGTERM).await
    }

    /// As [`Edge::stop`], by SIGKILL: what a crash of the program looks like.
    ///
    /// # Panics
    /// When it has not ended within [`STOP_LIMIT`].
    pub async fn kill(self) -> Stopped {
        self.end(Signal::SIGKILL).await
    }

    async fn end(mut self, signal: Signal) -> Stopped {
        let ending = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            self.process.signal(signal);
            let status = self.process.wait(STOP_LIMIT);
            let took = started.elapsed();
            let status =
                status.unwrap_or_else(|| panic!("tidegate runs on {STOP_LIMIT:?} after {signal}\n{}", self.story()));
            let left = self.process.mark().living_after(STRAY_LIMIT, &[]);
            // What is left is the caller's to judge; here it only has to go.
            self.process.kill_family();
            Stopped { status, took, left }
        });
        match ending.await {
            Ok(stopped) => stopped,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    /// The site file and the output, for a failure message.
    fn story(&self) -> String {
        let file = fs::read_to_string(self.home.site_file()).unwrap_or_default();
        format!("--- site file\n{file}{}", self.output().both())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.process.signal(Signal::SIGKILL);
        let _ = self.process.wait(Duration::from_secs(5));
        let left = self.process.mark().living_after(STRAY_LIMIT, &[]);
        self.process.kill_family();
        if std::thread::panicking() {
            // The story belongs to the failure that is on its way out.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), self.story().as_bytes());
        } else {
            assert!(left.is_empty(), "alive one second after tidegate was killed: {left:?}\n{}", self.story());
        }
    }
}

impl Stopped {
    /// # Panics
    /// When the program failed, or left a process behind.
    pub fn assert_clean(&self) {
        assert!(self.status.success(), "tidegate ended with {}", self.status);
        assert!(self.left.is_empty(), "alive one second after tidegate ended: {:?}", self.left);
    }
}

impl Worker {
    fn read(entry: &Value) -> Self {
        Self {
            slot: entry["slot"].as_u64().unwrap_or_default(),
            pid: entry["pid"].as_i64().unwrap_or_default() as i32,
            state: entry["state"].as_str().unwrap_or_default().to_owned(),
            restarts: entry["restarts"].as_u64().unwrap_or_default(),
        }
    }

    /// Whether it takes requests.
    pub fn is_ready(&self) -> bool {
        self.state == "ready"
    }
}

/// How long the program may take to be ready, its workers included.
pub const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to stop: longer than its own drain time.
pub const STOP_LIMIT: Duration = Duration::from_secs(40);
/// When nothing of a dead edge may be alive any more.
const STRAY_LIMIT: Duration = Duration::from_secs(1);
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
