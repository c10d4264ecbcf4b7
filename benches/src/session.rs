//! One invocation of the bench from start to finish: set up, preflight, rounds.

use std::{io::Write, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    cores::{self, Cores},
    cpu::CpuTime,
    load::{Amount, Load, Outcome},
    machine::Machine,
    options::Options,
    origin::Origin,
    pace::Pace,
    peer::{Certificate, Peer, Running, Setting},
    report::{LoadKind, Report, Sample, Series, Table},
    stats,
    workload::Workload,
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
        Ok(Self { options, machine: Machine::read(cores.load)?, setting, origin, peers, directory })
    }

    /// Runs all chosen workloads and returns the filled report.
    pub(crate) fn measure(self) -> Result<Report> {
        let mut tables = Vec::new();
        for workload in self.options.workloads() {
            self.preflight(workload)?;
            let saturation = self.table(workload, LoadKind::Saturation)?;
            let rate = saturation.slowest_rate() * OPEN_LOOP_SHARE;
            tables.push(saturation);
            if !self.options.no_open_loop {
                tables.push(self.table(workload, LoadKind::OpenLoop { per_second: rate.floor() })?);
            }
        }
        Ok(Report {
            machine: self.machine,
            versions: self.peers.iter().map(|(peer, version)| (peer.name().to_owned(), version.clone())).collect(),
            origin: self.origin.title().to_owned(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            rounds: self.options.rounds(),
            seconds: self.options.length().as_secs(),
            tables,
        })
    }

    /// Every peer must deliver exactly what the origin delivers before its speed means anything.
    fn preflight(&self, workload: Workload) -> Result<()> {
        let amount = Amount::Requests(workload.connections() * workload.streams());
        let plain = match workload.path() {
            "/10k" => Workload::TenKib,
            "/1m" => Workload::OneMib,
            _ => Workload::Tiny,
        };
        let direct = self.run(&Load { workload: plain, port: self.setting.origin, amount }, None)?;
        ensure!(direct.errors == 0, "the origin fails for '{}': {} errors", workload.path(), direct.errors);
        let size = direct.body_bytes / direct.requests.max(1);
        for (peer, _) in &self.peers {
            let running = peer.start(&self.setting)?;
            let load = Load { workload, port: running.port(workload.protocol()), amount };
            let outcome =
                self.run(&load, None).with_context(|| format!("{}\n{}", peer.name(), running.last_words()))?;
            if outcome.errors > 0 || outcome.body_bytes != outcome.requests * size {
                bail!(
                    "{} fails '{}': {} answers, {} errors, {} bytes of bodies where {size} each are right\n{}\n{}",
                    peer.name(),
                    workload.name(),
                    outcome.requests,
                    outcome.errors,
                    outcome.body_bytes,
                    load.shown(),
                    running.last_words()
                );
            }
        }
        Ok(())
    }

    fn table(&self, workload: Workload, kind: LoadKind) -> Result<Table> {
        let mut series: Vec<Series> = self.peers.iter().map(|(peer, _)| Series::new(*peer)).collect();
        for round in 0..self.options.rounds() as usize {
            for turn in 0..series.len() {
                let index = (round + turn) % series.len();
                let sample = self.sample(series[index].peer, workload, kind, round)?;
                progress(workload, kind, round, series[index].peer, &sample)?;
                series[index].samples.push(sample);
            }
        }
        let command = match kind {
            LoadKind::Saturation => {
                Load { workload, port: 0, amount: Amount::Saturate { length: self.options.length() } }.shown()
            }
            LoadKind::OpenLoop { per_second } => {
                format!("benches/src/pace.rs, {} connections, {per_second:.0} requests/s", workload.connections())
            }
        };
        Ok(Table {
            workload: workload.name().to_owned(),
            title: workload.title().to_owned(),
            kind,
            seconds: self.options.length().as_secs(),
            command,
            series,
        })
    }

    /// One run of one peer, freshly started and warmed up.
    fn sample(&self, peer: Peer, workload: Workload, kind: LoadKind, round: usize) -> Result<Sample> {
        let running = peer.start(&self.setting)?;
        match kind {
            LoadKind::Saturation => self.saturate(&running, workload),
            LoadKind::OpenLoop { per_second } => self.pace(&running, workload, per_second, round),
        }
        .with_context(|| format!("{}\n{}", peer.name(), running.last_words()))
    }

    fn saturate(&self, running: &Running, workload: Workload) -> Result<Sample> {
        let port = running.port(workload.protocol());
        let load = |length| Load { workload, port, amount: Amount::Saturate { length } };
        self.run(&load(WARM_UP), None)?;
        let before = running.cpu()?;
        let outcome = self.run(&load(self.options.length()), None)?;
        let used = running.cpu()? - before;
        let log = self.directory.path().join("requests.log");
        let logged = self.run(&load(LOGGED), Some(&log))?;
        let errors = outcome.errors + logged.errors;
        sample_of(Outcome { latency: logged.latency, errors, ..outcome }, used)
    }

    /// All peers of a round get their requests at the same times.
    fn pace(&self, running: &Running, workload: Workload, per_second: f64, round: usize) -> Result<Sample> {
        let certificate = Certificate::in_directory(self.directory.path()).chain;
        let pace = |length| Pace {
            workload,
            port: running.port(workload.protocol()),
            per_second,
            length,
            seed: round as u64,
            certificate: &certificate,
        };
        let core = self.setting.cores.load;
        cores::on_core(core, || pace(WARM_UP).run())?;
        let before = running.cpu()?;
        let outcome = cores::on_core(core, || pace(self.options.length()).run())?;
        sample_of(outcome, running.cpu()? - before)
    }

    fn run(&self, load: &Load, log: Option<&Path>) -> Result<Outcome> {
        load.run(self.setting.cores.load, log)
    }
}

impl Table {
    /// The rate of the slowest peer: the median of its rounds.
    fn slowest_rate(&self) -> f64 {
        self.series.iter().map(|series| stats::median(&series.values(|sample| sample.rate))).fold(f64::MAX, f64::min)
    }
}

fn sample_of(outcome: Outcome, used: CpuTime) -> Result<Sample> {
    ensure!(outcome.requests > 0, "no request was answered");
    let latency = outcome.latency.context("no request was timed")?;
    let answers = outcome.requests as f64;
    Ok(Sample {
        requests: outcome.requests,
        errors: outcome.errors,
        rate: outcome.rate,
        p50_us: latency.p50,
        p99_us: latency.p99,
        user_us: used.user.as_secs_f64() * 1e6 / answers,
        system_us: used.system.as_secs_f64() * 1e6 / answers,
        busy: used.total().as_secs_f64() * outcome.rate / answers,
        tls: outcome.tls,
    })
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
    writeln!(
        std::io::stderr(),
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
    )
    .context("cannot print the progress")
}

const WARM_UP: Duration = Duration::from_secs(1);
/// How long requests are logged one by one in a closed loop: tens of thousands of them.
const LOGGED: Duration = Duration::from_secs(1);
const OPEN_LOOP_SHARE: f64 = 0.6;
