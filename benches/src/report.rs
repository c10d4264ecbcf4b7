//! The measured figures as Markdown for people and JSON for programs.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    instructions::{self, Instructions},
    machine::Machine,
    memory::{self, Memory},
    peer::Peer,
    stats::{self, Better, Ratio},
    syscalls::{self, Syscalls},
};

/// Everything one invocation measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) origin: String,
    pub(crate) command: String,
    pub(crate) rounds: u32,
    pub(crate) seconds: u64,
    pub(crate) tables: Vec<Table>,
    pub(crate) instructions: Vec<Instructions>,
    pub(crate) syscalls: Vec<Syscalls>,
    pub(crate) memory: Vec<Memory>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// One workload under one kind of load.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) workload: String,
    pub(crate) title: String,
    pub(crate) kind: LoadKind,
    /// Length of one run.
    pub(crate) seconds: u64,
    /// Clients and what each has in flight.
    pub(crate) load: String,
    pub(crate) series: Vec<Series>,
}

/// How requests are paced.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoadKind {
    Saturation,
    OpenLoop { per_second: f64 },
}

/// All rounds of one peer, in the order of the rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) peer: Peer,
    pub(crate) samples: Vec<Sample>,
}

/// One round of one peer.
#[derive(Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// Answers per second.
    pub(crate) rate: f64,
    pub(crate) p50_us: u32,
    pub(crate) p99_us: u32,
    /// Processor time per answer in the program, in microseconds.
    pub(crate) user_us: f64,
    /// Processor time per answer in the kernel, in microseconds.
    pub(crate) system_us: f64,
    /// Share of the run in which the proxy's core worked for the proxy.
    pub(crate) busy: f64,
    /// Answers on a resumed TLS session.
    pub(crate) resumed: u64,
    pub(crate) tls: Option<String>,
}

impl LoadKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Saturation => "saturation",
            Self::OpenLoop { .. } => "open loop",
        }
    }
}

impl Series {
    pub(crate) fn new(peer: Peer) -> Self {
        Self { peer, samples: Vec::new() }
    }

    pub(crate) fn values(&self, of: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(of).collect()
    }

    fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        stats::median(&self.values(of))
    }

    fn errors(&self) -> u64 {
        self.samples.iter().map(|sample| sample.errors).sum()
    }
}

impl Table {
    /// Ours over the best peer's; `None` when Tidegate or every peer was left out.
    fn ratio(&self, better: Better, of: impl Fn(&Sample) -> f64) -> Option<Ratio> {
        let ours = self.series.iter().find(|series| series.peer == Peer::Tidegate)?;
        let peers: Vec<Vec<f64>> = self
            .series
            .iter()
            .filter(|series| series.peer != Peer::Tidegate)
            .map(|series| series.values(&of))
            .collect();
        stats::ratio_to_best(&ours.values(&of), &peers, better)
    }

    fn rows(&self, out: &mut String) {
        for series in &self.series {
            let _ = writeln!(
                out,
                "| {} | {} | {:.0}{} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} % | {} |",
                self.workload,
                series.peer.name(),
                series.median(|sample| sample.rate),
                self.doubt(series),
                series.median(|sample| f64::from(sample.p50_us)),
                series.median(|sample| f64::from(sample.p99_us)),
                series.median(|sample| sample.user_us),
                series.median(|sample| sample.system_us),
                series.median(Sample::cpu_us),
                series.median(|sample| sample.busy) * 100.0,
                series.errors(),
            );
        }
        if let Some(row) = self.ratio_row() {
            let _ = writeln!(out, "{row}");
        }
    }

    fn ratio_row(&self) -> Option<String> {
        let rate = self.ratio(Better::Higher, |sample| sample.rate)?;
        let p50 = self.ratio(Better::Lower, |sample| f64::from(sample.p50_us))?;
        let p99 = self.ratio(Better::Lower, |sample| f64::from(sample.p99_us))?;
        let cpu = self.ratio(Better::Lower, Sample::cpu_us)?;
        Some(format!(
            "| {} | **ours / best peer** | {} | {} | {} | | | {} | | |",
            self.workload,
            shown(rate),
            shown(p50),
            shown(p99),
            shown(cpu)
        ))
    }

    /// A mark where the rate says more about the load side than about the proxy.
    fn doubt(&self, series: &Series) -> &'static str {
        match self.kind {
            LoadKind::Saturation if series.median(|sample| sample.busy) < BUSY => " (1)",
            LoadKind::OpenLoop { .. } if series.median(Sample::wall) > self.seconds as f64 * KEPT => " (2)",
            LoadKind::Saturation | LoadKind::OpenLoop { .. } => "",
        }
    }
}

impl Sample {
    fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }

    /// Seconds from the start to the last answer.
    fn wall(&self) -> f64 {
        self.requests as f64 / self.rate
    }
}

impl Report {
    /// A report of this machine with nothing in it.
    pub(crate) fn of(machine: Machine) -> Self {
        Self {
            machine,
            versions: Vec::new(),
            origin: String::new(),
            command: String::new(),
            rounds: 0,
            seconds: 0,
            tables: Vec::new(),
            instructions: Vec::new(),
            syscalls: Vec::new(),
            memory: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Keeps and prints that something could not be measured.
    pub(crate) fn failed(&mut self, what: &str, error: &anyhow::Error) -> Result<()> {
        let failure = format!("{what}: {error:#}");
        writeln!(std::io::stderr(), "FAILED: {failure}").context("cannot print a failure")?;
        self.failures.push(failure);
        Ok(())
    }

    /// Errors in all measured runs.
    pub(crate) fn errors(&self) -> u64 {
        self.tables.iter().flat_map(|table| table.series.iter()).map(Series::errors).sum()
    }

    /// The report as a page.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "# Tidegate beside its peers\n");
        self.facts(&mut out);
        self.tables_of("Saturation (closed loop)", |kind| kind == LoadKind::Saturation, &mut out);
        let open = "Fixed rate (open loop), 60 % of the slowest peer's peak";
        self.tables_of(open, |kind| kind != LoadKind::Saturation, &mut out);
        if !self.tables.is_empty() {
            let _ = writeln!(out, "\n{FOOTNOTES}");
        }
        if !self.instructions.is_empty() {
            instructions::markdown(&self.instructions, &mut out);
        }
        if !self.syscalls.is_empty() {
            syscalls::markdown(&self.syscalls, &mut out);
        }
        if !self.memory.is_empty() {
            memory::markdown(&self.memory, &mut out);
        }
        self.workloads(&mut out);
        out
    }

    fn tables_of(&self, title: &str, of: impl Fn(LoadKind) -> bool, out: &mut String) {
        let mut tables = self.tables.iter().filter(|table| of(table.kind)).peekable();
        if tables.peek().is_some() {
            let _ = writeln!(out, "\n## {title}\n\n{HEADER}");
        }
        for table in tables {
            table.rows(out);
        }
    }

    /// Writes the page and the figures into `folder` under names with the time, and returns their paths.
    pub(crate) fn write(&self, folder: &Path, markdown: &str) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make '{}'", folder.display()))?;
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let json = serde_json::to_string_pretty(self).context("cannot write the figures as JSON")?;
        let files = [(format!("bench-{stamp}.md"), markdown), (format!("bench-{stamp}.json"), &json)];
        let mut written = Vec::new();
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write '{}'", path.display()))?;
            written.push(path);
        }
        Ok(written)
    }

    fn facts(&self, out: &mut String) {
        let machine = &self.machine;
        let _ = writeln!(out, "- machine: {}, {} cores, {} MiB", machine.processor, machine.cores, machine.memory_mib);
        let _ = writeln!(out, "- system: {}, Linux {}", machine.system, machine.kernel);
        for (peer, version) in &self.versions {
            let _ = writeln!(out, "- {peer}: {version}");
        }
        let _ = writeln!(out, "- origin: {}", self.origin);
        let doubt = if machine.load_average > QUIET { ": **the machine was busy, believe no rate below**" } else { "" };
        let _ = writeln!(out, "- load average before the start: {:.2}{doubt}", machine.load_average);
        let _ = writeln!(out, "- rounds: {} of {} s per peer, medians over rounds", self.rounds, self.seconds);
        let _ = writeln!(out, "- command: `{}`", self.command);
        if self.errors() > 0 {
            let _ = writeln!(out, "- **{} errors**, see the tables", self.errors());
        }
        for failure in &self.failures {
            let _ = writeln!(out, "- **failed**: {}", failure.lines().collect::<Vec<_>>().join("; "));
        }
        for tls in self.negotiated() {
            let _ = writeln!(out, "- TLS 1.3: {tls}");
        }
    }

    /// Every cipher and key exchange that was used; more than one line means the peers are not comparable.
    fn negotiated(&self) -> Vec<String> {
        let samples = self.tables.iter().flat_map(|table| table.series.iter());
        let mut all: Vec<String> =
            samples.flat_map(|series| series.samples.iter().filter_map(|sample| sample.tls.clone())).collect();
        all.sort();
        all.dedup();
        all
    }

    fn workloads(&self, out: &mut String) {
        for (number, table) in self.tables.iter().enumerate() {
            if number == 0 {
                let _ = writeln!(out, "\n## Workloads\n");
            }
            let _ = write!(out, "- {}, {}: {}, {}", table.workload, table.kind.name(), table.title, table.load);
            if let LoadKind::OpenLoop { per_second } = table.kind {
                let _ = write!(out, ", {per_second:.0} requests/s");
            }
            let samples = || table.series.iter().flat_map(|series| series.samples.iter());
            let resumed: u64 = samples().map(|sample| sample.resumed).sum();
            if resumed > 0 {
                let all: u64 = samples().map(|sample| sample.requests).sum();
                let _ = write!(out, ", {:.2} % of the sessions resumed", resumed as f64 / all as f64 * 100.0);
            }
            let _ = writeln!(out);
        }
    }
}

fn shown(ratio: Ratio) -> String {
    format!("**{:.2}** ({:.2}-{:.2})", ratio.value, ratio.low, ratio.high)
}

/// Below this share of its core a proxy is not what limits a closed loop.
const BUSY: f64 = 0.95;
/// A peer whose last answer comes later than this many lengths of a run did not keep up.
const KEPT: f64 = 1.05;

/// With more than this many running programs before the start, others compete for the two cores.
const QUIET: f64 = 0.8;

const HEADER: &str = "\
| workload | proxy | requests/s | p50 us | p99 us | cpu user us | cpu system us | cpu us/request | core busy | errors |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|";

const FOOTNOTES: &str = "\
`cpu us/request` is the processor time of the proxy alone per answered request. In the line `ours / best peer` above 1 \
is better for requests/s, below 1 is better for the others; in parentheses the 95 % interval.

(1) the proxy's core was not full, so the load side set this rate: compare `cpu us/request`, not requests/s.
(2) the peer did not keep up with the asked rate.";
