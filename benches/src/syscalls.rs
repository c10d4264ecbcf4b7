//! System calls per request, counted by strace while connections are open and warm.
//!
//! strace slows a proxy down, so that more events wait for it each time it looks: what is counted under "waits" is a
//! lower bound, and the data calls are what compares.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::Serialize;

use crate::{
    cores,
    pace::{Amount, Clients, Signatures, Target},
    peer::{Certificate, Peer, Running, Setting},
    process::{Patience, Process},
    workload::Workload,
};

/// One workload at one peer.
#[derive(Debug, Serialize)]
pub(crate) struct Syscalls {
    workload: &'static str,
    peer: Peer,
    requests: u64,
    /// Calls in all, by name.
    calls: BTreeMap<String, u64>,
}

/// Counts for one workload at one peer.
pub(crate) fn count(setting: &Setting, workload: Workload, peer: Peer) -> Result<Syscalls> {
    let running = peer.start(setting, workload.features())?;
    cores::on_core(setting.cores.load, || count_running(setting, workload, peer, &running))
        .with_context(|| format!("{}\n{}", peer.name(), running.last_words()))
}

fn count_running(setting: &Setting, workload: Workload, peer: Peer, running: &Running) -> Result<Syscalls> {
    let mut clients = Clients::connect(Target {
        workload,
        port: running.port(workload.protocol()),
        certificate: &Certificate::in_directory(&setting.directory).chain,
        signatures: Signatures::Trusted,
    })?;
    clients.run(Amount::Requests(REQUESTS / 4))?;
    let counts = setting.directory.join("strace.out");
    let mut strace = attach(setting, running, &counts)?;
    let outcome = clients.run(Amount::Requests(REQUESTS))?;
    strace.stop(Signal::INT);
    ensure!(outcome.errors == 0, "{} errors under strace", outcome.errors);
    let printed = fs::read_to_string(&counts).context("strace has written nothing")?;
    let calls = parse(&printed);
    ensure!(!calls.is_empty(), "cannot read what strace has counted:\n{printed}");
    Ok(Syscalls { workload: workload.name(), peer, requests: REQUESTS, calls })
}

/// Starts strace on all processes of a peer, and waits until it is attached to each.
fn attach(setting: &Setting, running: &Running, counts: &Path) -> Result<Process> {
    let processes = running.processes()?;
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(counts);
    for pid in &processes {
        command.arg("-p").arg(pid.to_string());
    }
    let log = setting.directory.join("strace.log");
    let strace = Process::start("strace", command, setting.cores.load, log, &[], Patience::Usual)?;
    let deadline = Instant::now() + ATTACH_LIMIT;
    while !processes.iter().all(|pid| strace.has_said(&format!("Process {pid} attached"))) {
        ensure!(Instant::now() < deadline, "strace cannot attach to {processes:?}\n{}", strace.last_words());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(strace)
}

/// Calls by name in the summary of `strace -c`.
fn parse(printed: &str) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for line in printed.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Percent, seconds, microseconds a call, calls, errors if there were any, name.
        let (Some(name), Some(Ok(count))) = (fields.last(), fields.get(3).map(|count| count.parse::<u64>())) else {
            continue;
        };
        if fields.len() >= 5 && *name != "total" {
            *calls.entry((*name).to_owned()).or_default() += count;
        }
    }
    calls
}

/// The table of all rows.
pub(crate) fn markdown(rows: &[Syscalls], out: &mut String) {
    let _ = writeln!(out, "\n## System calls per request (strace)\n");
    let _ = writeln!(out, "| workload | proxy | reads | writes | splices | waits | others | which |");
    let _ = writeln!(out, "|---|---|---:|---:|---:|---:|---:|---|");
    for row in rows {
        let per_request = |names: &[&str]| row.sum(|name| names.contains(&name));
        let known = [READS, WRITES, SPLICES, WAITS].concat();
        let others = row.sum(|name| !known.contains(&name));
        let _ = writeln!(
            out,
            "| {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {others:.2} | {} |",
            row.workload,
            row.peer.name(),
            per_request(READS),
            per_request(WRITES),
            per_request(SPLICES),
            per_request(WAITS),
            row.most_frequent(),
        );
    }
}

impl Syscalls {
    fn sum(&self, of: impl Fn(&str) -> bool) -> f64 {
        let calls = self.calls.iter().filter(|(name, _)| of(name)).map(|(_, count)| count).sum::<u64>();
        calls as f64 / self.requests as f64
    }

    fn most_frequent(&self) -> String {
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let shown = calls.iter().map(|(name, count)| (name, **count as f64 / self.requests as f64));
        let frequent = shown.filter(|(_, count)| *count >= 0.01).take(8);
        frequent.map(|(name, count)| format!("{name} {count:.2}")).collect::<Vec<_>>().join(", ")
    }
}

const READS: &[&str] = &["read", "readv", "recvfrom", "recvmsg", "recvmmsg"];
const WRITES: &[&str] = &["write", "writev", "sendto", "sendmsg", "sendmmsg", "sendfile"];
const SPLICES: &[&str] = &["splice", "tee"];
const WAITS: &[&str] = &["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "futex"];

const REQUESTS: u64 = 4000;
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read_with_and_without_errors() {
        let calls = parse(
            "% time     seconds  usecs/call     calls    errors syscall\n\
             ------ ----------- ----------- --------- --------- ----------------\n\
             70.83    0.000051           1        40         2 recvfrom\n\
             29.17    0.000021           1        20           writev\n\
             ------ ----------- ----------- --------- --------- ----------------\n\
             100.00    0.000072           1        60         2 total\n",
        );
        assert_eq!(calls, BTreeMap::from([("recvfrom".to_owned(), 40), ("writev".to_owned(), 20)]));
    }
}
