//! Instructions of user space per request: what a change of our own code does, without the noise of a machine.
//!
//! Two runs of each peer that differ in the number of requests; the difference is free of what a start and an end cost.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    callgrind::Callgrind,
    cores,
    pace::{Amount, Clients, Signatures, Target},
    peer::{Certificate, Peer, Setting},
    workload::Workload,
};

/// One workload at one peer.
#[derive(Debug, Serialize)]
pub(crate) struct Instructions {
    workload: &'static str,
    peer: Peer,
    /// Per request, in the program's own code and its libraries; none when the peer does not run under valgrind.
    per_request: Option<f64>,
    /// Why there is no figure.
    problem: Option<String>,
}

/// Counts for one workload at one peer. The profile of Tidegate is kept in `out`.
///
/// A peer that cannot run under the instrument gives a row that says so, because versions of valgrind differ in the
/// system calls they know.
pub(crate) fn count(setting: &Setting, tools: &Path, out: &Path, workload: Workload, peer: Peer) -> Instructions {
    let counted = difference(setting, tools, out, workload, peer);
    let problem = counted.as_ref().err().map(|error| format!("{error:#}"));
    Instructions { workload: workload.name(), peer, per_request: counted.ok(), problem }
}

fn difference(setting: &Setting, tools: &Path, out: &Path, workload: Workload, peer: Peer) -> Result<f64> {
    let few = if workload.makes_handshakes() { 200 } else { 1000 };
    let many = few * 3;
    let directory = setting.directory.join("callgrind");
    let callgrind = Callgrind::new(tools, &directory)?;
    let less = total(setting, &callgrind, workload, peer, few)?;
    let callgrind = Callgrind::new(tools, &directory)?;
    let more = total(setting, &callgrind, workload, peer, many)?;
    if peer == Peer::Tidegate {
        fs::create_dir_all(out).with_context(|| format!("cannot make '{}'", out.display()))?;
        let kept = out.join(format!("callgrind-{}.out", workload.name()));
        fs::copy(callgrind.largest()?, &kept).with_context(|| format!("cannot write '{}'", kept.display()))?;
    }
    Ok((more as f64 - less as f64) / (many - few) as f64)
}

fn total(setting: &Setting, callgrind: &Callgrind, workload: Workload, peer: Peer, requests: u64) -> Result<u64> {
    let mut running = peer.start_under(setting, workload.features(), callgrind)?;
    let target = Target {
        workload,
        port: running.port(workload.protocol()),
        certificate: &Certificate::in_directory(&setting.directory).chain,
        signatures: Signatures::Trusted,
    };
    let outcome = cores::on_core(setting.cores.load, || Clients::connect(target)?.run(Amount::Requests(requests)))
        .with_context(|| running.last_words())?;
    anyhow::ensure!(outcome.errors == 0, "{} errors\n{}", outcome.errors, running.last_words());
    running.stop();
    callgrind.total()
}

/// The table of all rows, with the ratio to the better peer.
pub(crate) fn markdown(rows: &[Instructions], out: &mut String) {
    let _ = writeln!(out, "\n## Instructions of user space per request (callgrind)\n");
    let _ = writeln!(out, "| workload | tidegate | nginx | haproxy | ours / best peer |\n|---|---:|---:|---:|---:|");
    let mut workloads: Vec<&str> = rows.iter().map(|row| row.workload).collect();
    workloads.dedup();
    for workload in workloads {
        let of = |peer| rows.iter().find(|row| row.workload == workload && row.peer == peer)?.per_request;
        let shown = |peer| of(peer).map_or("-".to_owned(), |count| format!("{count:.0}"));
        let [ours, nginx, haproxy] = Peer::ALL.map(shown);
        let best = [Peer::Nginx, Peer::Haproxy].into_iter().filter_map(of).reduce(f64::min);
        let ratio = of(Peer::Tidegate).zip(best).map_or("-".to_owned(), |(ours, best)| format!("{:.2}", ours / best));
        let _ = writeln!(out, "| {workload} | {ours} | {nginx} | {haproxy} | {ratio} |");
    }
    let problems = rows.iter().filter_map(|row| Some((row, row.problem.as_ref()?)));
    for (row, problem) in problems {
        let first = problem.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("; ");
        let _ = writeln!(out, "\n**not counted: {} of {}**: {first}", row.workload, row.peer.name());
    }
}

impl Instructions {
    /// Why there is no figure, if there is none.
    pub(crate) fn problem(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        Some(format!("instructions, {} of {}: {problem}", self.workload, self.peer.name()))
    }
}
