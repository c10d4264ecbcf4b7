//! One invocation of the bench from start to finish: set up, preflight, rounds.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    cores::{self, Cores},
    cpu::CpuTime,
    instructions,
    machine::Machine,
    memory,
    options::{Options, Part},
    origin::Origin,
    pace::{Amount, Clients, Outcome, Signatures, Target},
    peer::{Certificate, Peer, Running, Setting},
    report::{LoadKind, Report, Sample, Series, Table},
    syscalls,
    workload::{Connections, Features, Workload},
};

/// Everything that stays in place over all runs.
pub(crate) struct Session<'a> {
    options: &'a Options,
    setting: Setting,
    origin: Origin,
    machine: Machine,
    peers: Vec<(Peer, String)>,
    directory: TempDir,
}

impl<'a> Session<'a> {
    /// Finds the cores and the programs, and starts the origin. The origin stops when the session is dropped.
    pub(crate) fn prepare(options: &'a Options) -> Result<Self> {
        let cores = Cores::choose()?;
        let directory = tempfile::Builder::new().prefix("tidegate-bench-").tempdir().context("no temporary folder")?;
        open_to_workers(&directory)?;
        Certificate::create(directory.path(), cores.load)?;
        let origin = Origin::start(options.origin, &options.binaries, directory.path(), cores.load)?;
        let setting = Setting {
            binaries: options.binaries.clone(),
            directory: directory.path().to_owned(),
            origin: origin.port,
            cores,
        };
        let peers = present(options, &setting)?;
        Ok(Self { options, machine: Machine::read(), setting, origin, peers, directory })
    }

    /// Measures everything that was chosen and returns the filled report. What fails is named in the report, and the
    /// rest goes on: an hour is too long to lose.
    pub(crate) fn measure(self) -> Result<Report> {
        let mut report = Report {
            versions: self.peers.iter().map(|(peer, version)| (peer.name().to_owned(), version.clone())).collect(),
            origin: self.origin.title().to_owned(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            rounds: self.options.rounds(),
            seconds: self.options.length().as_secs(),
            ..Report::of(self.machine)
        };
        let session = Measuring {
            options: self.options,
            setting: &self.setting,
            peers: self.peers.iter().map(|(peer, _)| *peer).collect(),
        };
        if self.options.has(Part::Load) {
            for workload in self.options.workloads() {
                match session.load(workload) {
                    Ok(tables) => report.tables.extend(tables),
                    Err(error) => report.failed(&format!("load of {workload}"), &error)?,
                }
            }
        }
        session.count(&mut report)?;
        if self.options.has(Part::Memory) {
            for tls in [false, true] {
                match session.memory(tls) {
                    Ok(rows) => report.memory.extend(rows),
                    Err(error) => report.failed("memory of idle connections", &error)?,
                }
            }
        }
        drop(self.directory);
        Ok(report)
    }
}

/// What measuring needs of a session.
struct Measuring<'a> {
    options: &'a Options,
    setting: &'a Setting,
    peers: Vec<Peer>,
}

/// A run in a closed loop, and one in an open loop where that is wanted.
struct Round {
    closed: Sample,
    open: Option<Sample>,
}

impl Measuring<'_> {
    /// Checks a workload at every peer, and runs its rounds.
    fn load(&self, workload: Workload) -> Result<Vec<Table>> {
        self.check_origin(workload)?;
        let mut slowest = f64::MAX;
        for peer in &self.peers {
            let rate = self.check(*peer, workload).with_context(|| format!("{} fails '{workload}'", peer.name()))?;
            slowest = slowest.min(rate);
        }
        let per_second = (slowest * OPEN_LOOP_SHARE).floor();
        let series = || self.peers.iter().map(|peer| Series::new(*peer)).collect::<Vec<_>>();
        let (mut closed, mut open) = (series(), series());
        for round in 0..self.options.rounds() as usize {
            for turn in 0..self.peers.len() {
                let index = (round + turn) % self.peers.len();
                let sampled = self.round(self.peers[index], workload, per_second, round)?;
                progress(workload, LoadKind::Saturation, round, self.peers[index], &sampled.closed)?;
                closed[index].samples.push(sampled.closed);
                if let Some(sample) = sampled.open {
                    progress(workload, LoadKind::OpenLoop { per_second }, round, self.peers[index], &sample)?;
                    open[index].samples.push(sample);
                }
            }
        }
        let table = |kind, series| Table {
            workload: workload.name().to_owned(),
            title: workload.title().to_owned(),
            kind,
            seconds: self.options.length().as_secs(),
            load: format!("{} clients, {} in flight on each", workload.clients(), workload.streams()),
            series,
        };
        let mut tables = vec![table(LoadKind::Saturation, closed)];
        if !self.options.no_open_loop {
            tables.push(table(LoadKind::OpenLoop { per_second }, open));
        }
        Ok(tables)
    }

    fn check_origin(&self, workload: Workload) -> Result<()> {
        let direct = workload.direct();
        let certificate = Certificate::in_directory(&self.setting.directory).chain;
        let target = Target {
            workload: direct,
            port: self.setting.origin,
            certificate: &certificate,
            signatures: Signatures::Checked,
        };
        let outcome = cores::on_core(self.setting.cores.load, || {
            Clients::connect(target)?.run(Amount::Requests(u64::from(direct.clients())))
        })
        .with_context(|| format!("the origin fails '{direct}'"))?;
        ensure!(outcome.errors == 0, "the origin fails '{direct}': {} errors", outcome.errors);
        Ok(())
    }

    /// A peer must answer every request as it should before its speed means anything. Returns its rate in a closed loop
    /// of a second.
    fn check(&self, peer: Peer, workload: Workload) -> Result<f64> {
        if workload.makes_handshakes() {
            self.check_resumption(peer, workload)?;
        }
        let running = peer.start(self.setting, workload.features())?;
        let requests = u64::from(workload.clients() * workload.streams()) * 4;
        let amounts = [Amount::Requests(requests), Amount::Saturate { length: CALIBRATION }];
        let [checked, calibrated] = self.runs(&running, workload, Signatures::Checked, amounts)?;
        ensure!(checked.requests == requests, "{} good answers instead of {requests}", checked.requests);
        if workload.features() == Features::Full {
            check_log(&running, checked.requests + calibrated.requests)?;
            self.check_metrics(&running)?;
        }
        Ok(calibrated.rate)
    }

    /// Asks the peer itself whether it resumed sessions, where it can say so in its answers; in the measured runs only
    /// the client looks, because saying so costs something.
    fn check_resumption(&self, peer: Peer, workload: Workload) -> Result<()> {
        if !peer.tells_resumption() {
            return Ok(());
        }
        let running = peer.start(self.setting, Features::Told)?;
        let requests = u64::from(workload.clients());
        let amounts = [Amount::Requests(requests * 2), Amount::Requests(requests * 20)];
        let [_, outcome] = self.runs(&running, workload, Signatures::Checked, amounts)?;
        ensure!(
            outcome.told_resumed == outcome.resumed,
            "of {} sessions {} were resumed as the client sees it, {} as the peer says",
            outcome.requests,
            outcome.resumed,
            outcome.told_resumed
        );
        Ok(())
    }

    fn check_metrics(&self, running: &Running) -> Result<()> {
        use std::io::Read;
        let Some(port) = running.metrics_port() else { return Ok(()) };
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).context("no metrics")?;
        write!(socket, "GET /metrics HTTP/1.0\r\n\r\n").context("no metrics")?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).context("no metrics")?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.split(' ').nth(1) == Some("200"), "metrics: {}", answer.lines().next().unwrap_or_default());
        Ok(())
    }

    /// One run of one peer, freshly started and warmed up.
    fn round(&self, peer: Peer, workload: Workload, per_second: f64, round: usize) -> Result<Round> {
        let running = peer.start(self.setting, workload.features())?;
        let length = self.options.length();
        let paced = Amount::Paced { per_second, length, seed: round as u64 };
        cores::on_core(self.setting.cores.load, || {
            let certificate = Certificate::in_directory(&self.setting.directory).chain;
            let signatures = match workload.connections() {
                Connections::Kept => Signatures::Checked,
                Connections::Fresh | Connections::Resumed => Signatures::Trusted,
            };
            let port = running.port(workload.protocol());
            let mut clients = Clients::connect(Target { workload, port, certificate: &certificate, signatures })?;
            clients.run(Amount::Saturate { length: WARM_UP })?;
            let closed = sample(&running, &mut clients, Amount::Saturate { length })?;
            let open = (!self.options.no_open_loop).then(|| sample(&running, &mut clients, paced)).transpose()?;
            for sample in [Some(&closed), open.as_ref()].into_iter().flatten() {
                check_share(workload, sample.requests, sample.resumed)?;
            }
            Ok(Round { closed, open })
        })
        .with_context(|| format!("{}, round {}\n{}", peer.name(), round + 1, running.last_words()))
    }

    /// Runs of the same clients, each without an error.
    fn runs<const N: usize>(
        &self,
        running: &Running,
        workload: Workload,
        signatures: Signatures,
        amounts: [Amount; N],
    ) -> Result<[Outcome; N]> {
        let certificate = Certificate::in_directory(&self.setting.directory).chain;
        let target =
            Target { workload, port: running.port(workload.protocol()), certificate: &certificate, signatures };
        let run = || {
            let mut clients = Clients::connect(target)?;
            let mut outcomes = Vec::new();
            for amount in amounts {
                let outcome = clients.run(amount)?;
                ensure!(outcome.errors == 0, "{} errors beside {} good answers", outcome.errors, outcome.requests);
                outcomes.push(outcome);
            }
            match outcomes.try_into() {
                Ok(outcomes) => Ok(outcomes),
                Err(_) => bail!("as many outcomes as amounts"),
            }
        };
        cores::on_core(self.setting.cores.load, run).with_context(|| running.last_words())
    }

    /// Instructions and system calls. A workload that was asked for by name is counted whatever its kind.
    fn count(&self, report: &mut Report) -> Result<()> {
        let chosen = self.options.workloads();
        let all = chosen.len() == Workload::ALL.len();
        for workload in chosen.into_iter().filter(|workload| !all || workload.counted()) {
            for peer in &self.peers {
                if self.options.has(Part::Syscalls) {
                    note(&format!("system calls, {workload}, {}", peer.name()))?;
                    match syscalls::count(self.setting, workload, *peer) {
                        Ok(row) => report.syscalls.push(row),
                        Err(error) => report.failed(&format!("system calls of {workload}"), &error)?,
                    }
                }
                if self.options.has(Part::Instructions) {
                    note(&format!("instructions, {workload}, {}", peer.name()))?;
                    let (tools, out) = (&self.options.valgrind, &self.options.out);
                    let row = instructions::count(self.setting, tools, out, workload, *peer);
                    report.failures.extend(row.problem());
                    report.instructions.push(row);
                }
            }
        }
        Ok(())
    }

    fn memory(&self, tls: bool) -> Result<Vec<memory::Memory>> {
        note(if tls { "memory, TLS" } else { "memory, plain" })?;
        let (connections, leave) = (self.options.idle_connections(), self.options.leave());
        memory::measure(self.setting, &self.peers, tls, connections, leave)
    }
}

/// A measured run: what the clients saw, and what the peer's processes used meanwhile.
fn sample(running: &Running, clients: &mut Clients, amount: Amount) -> Result<Sample> {
    let processes = running.processes()?;
    let before = CpuTime::of(&processes)?;
    let outcome = clients.run(amount)?;
    let used = CpuTime::of(&processes)? - before;
    let answers = outcome.requests as f64;
    Ok(Sample {
        requests: outcome.requests,
        errors: outcome.errors,
        rate: outcome.rate,
        p50_us: outcome.p50_us,
        p99_us: outcome.p99_us,
        user_us: used.user().as_secs_f64() * 1e6 / answers,
        system_us: used.system().as_secs_f64() * 1e6 / answers,
        busy: used.total().as_secs_f64() * outcome.rate / answers,
        resumed: outcome.resumed,
        tls: outcome.tls,
    })
}

/// A workload must do what it is called after.
fn check_share(workload: Workload, requests: u64, resumed: u64) -> Result<()> {
    let right = match workload.connections() {
        Connections::Resumed => resumed as f64 >= requests as f64 * RESUMED_SHARE,
        Connections::Kept | Connections::Fresh => resumed == 0,
    };
    ensure!(right, "{resumed} of {requests} TLS sessions were resumed");
    Ok(())
}

/// Each answer must have its line. Writers may hold lines back for a second or two.
fn check_log(running: &Running, requests: u64) -> Result<()> {
    let deadline = Instant::now() + LOG_LIMIT;
    while running.logged_lines() < requests {
        if Instant::now() > deadline {
            bail!("{} lines in the access log for {requests} requests", running.logged_lines());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Started as root, nginx drops to another user, who must reach its files here.
fn open_to_workers(directory: &TempDir) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).context("cannot open the folder")
}

/// The peers to measure with their versions; a missing one is an error, because a table without it misleads.
fn present(options: &Options, setting: &Setting) -> Result<Vec<(Peer, String)>> {
    let mut peers = Vec::new();
    for peer in Peer::ALL {
        if peer == Peer::Tidegate && options.peers_only {
            continue;
        }
        let version = peer.version(setting).with_context(|| match peer {
            Peer::Tidegate => "build it with `make build`, or leave it out with --peers-only".to_owned(),
            Peer::Nginx | Peer::Haproxy => format!("`make bench` installs {}", peer.name()),
        })?;
        peers.push((peer, version));
    }
    Ok(peers)
}

fn progress(workload: Workload, kind: LoadKind, round: usize, peer: Peer, sample: &Sample) -> Result<()> {
    note(&format!(
        "{:9} {:10} round {:2}  {:9} {:9.0} req/s  p99 {:7} us  cpu {:7.2} us  busy {:3.0} %  errors {}",
        workload.name(),
        kind.name(),
        round + 1,
        peer.name(),
        sample.rate,
        sample.p99_us,
        sample.user_us + sample.system_us,
        sample.busy * 100.0,
        sample.errors
    ))
}

/// Prints a line of progress.
fn note(line: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{line}").context("cannot print the progress")
}

const WARM_UP: Duration = Duration::from_millis(300);
const CALIBRATION: Duration = Duration::from_secs(1);
const OPEN_LOOP_SHARE: f64 = 0.6;
const RESUMED_SHARE: f64 = 0.99;
const LOG_LIMIT: Duration = Duration::from_secs(10);
