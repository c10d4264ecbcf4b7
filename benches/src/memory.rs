//! Memory of connections that do nothing: opened, one request each, and left alone.
//!
//! What counts is the proportional set size of all processes of a peer (`/proc/PID/smaps_rollup`): private pages, and
//! the share of those that several map. It leaves out what the kernel keeps for sockets, which is the same for all.

use std::{
    fmt::Write,
    fs,
    net::{Ipv4Addr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::{
    cores,
    pace::{self, Amount, Clients, Signatures, Target},
    peer::{Certificate, Peer, Running, Setting},
    workload::Workload,
};

/// What one peer needs for idle connections.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    tls: bool,
    peer: Peer,
    connections: u32,
    /// Proportional set size, in KiB: before, with all connections idle, and after they left.
    before_kib: u64,
    idle_kib: u64,
    after_kib: u64,
    /// Seconds from the last close to the last figure.
    waited_s: u64,
}

/// A peer whose clients have left.
struct Left {
    peer: Peer,
    running: Running,
    before_kib: u64,
    idle_kib: u64,
    at: Instant,
}

/// Measures all peers with `connections` each, on TLS or without. The peers wait together until their clients have been
/// gone for `wait`.
pub(crate) fn measure(
    setting: &Setting,
    peers: &[Peer],
    tls: bool,
    connections: u32,
    wait: Duration,
) -> Result<Vec<Memory>> {
    allow_files(connections)?;
    let mut left = Vec::new();
    for peer in peers {
        left.push(fill(setting, *peer, tls, connections).with_context(|| format!("memory of {}", peer.name()))?);
    }
    let mut rows = Vec::new();
    for Left { peer, running, before_kib, idle_kib, at } in left {
        thread::sleep(wait.saturating_sub(at.elapsed()));
        let (after_kib, waited_s) = (kib(&running)?, at.elapsed().as_secs());
        rows.push(Memory { tls, peer, connections, before_kib, idle_kib, after_kib, waited_s });
    }
    Ok(rows)
}

fn fill(setting: &Setting, peer: Peer, tls: bool, connections: u32) -> Result<Left> {
    let workload = if tls { Workload::TinyTls } else { Workload::Tiny };
    let running = peer.start(setting, workload.features())?;
    let target = Target {
        workload,
        port: running.port(workload.protocol()),
        certificate: &Certificate::in_directory(&setting.directory).chain,
        signatures: Signatures::Trusted,
    };
    cores::on_core(setting.cores.load, || {
        // What the first requests touch is no matter of connections.
        Clients::connect(target)?.run(Amount::Requests(u64::from(workload.clients()) * 20))?;
        settle();
        let before_kib = kib(&running)?;
        let idle = open_all(target, connections).with_context(|| running.last_words())?;
        thread::sleep(IDLE);
        let idle_kib = kib(&running)?;
        ensure_all_are_open(&idle)?;
        drop(idle);
        Ok(Left { peer, running, before_kib, idle_kib, at: Instant::now() })
    })
}

fn open_all(target: Target<'_>, connections: u32) -> Result<Vec<TcpStream>> {
    let tls = pace::tls_of(target)?;
    (0..connections)
        .map(|index| {
            // Several addresses, because a proxy may cap the connections of one.
            let source = Ipv4Addr::new(127, 0, 1, (1 + index % ADDRESSES) as u8);
            pace::idle_after_one(target, tls.clone(), source).with_context(|| format!("connection {index}"))
        })
        .collect()
}

/// A connection that the peer closed meanwhile costs nothing and would flatter it.
fn ensure_all_are_open(idle: &[TcpStream]) -> Result<()> {
    let mut closed = 0;
    for socket in idle {
        socket.set_nonblocking(true).context("cannot set up a socket")?;
        closed += u32::from(matches!(socket.peek(&mut [0]), Ok(0)));
    }
    ensure!(closed == 0, "the peer closed {closed} idle connections");
    Ok(())
}

/// Descriptors for all connections at once, for us and for the peers, which inherit the limit.
fn allow_files(connections: u32) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::from(connections) + 1000;
    ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= needed),
        "{needed} open files are not allowed here; see `ulimit -Hn`, or use fewer --idle-connections"
    );
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the limit of open files")
}

fn kib(running: &Running) -> Result<u64> {
    let mut sum = 0;
    for pid in running.processes()? {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read '{path}'; are you root?"))?;
        sum += parse(&text).with_context(|| format!("'{path}' has no proportional set size"))?;
    }
    Ok(sum)
}

fn parse(rollup: &str) -> Option<u64> {
    rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// How long the connections idle before they are weighed: each peer may give back what only requests need.
const IDLE: Duration = Duration::from_secs(15);

/// Lets a peer finish what the last answer left to do.
fn settle() {
    thread::sleep(Duration::from_millis(500));
}

/// The table of all rows.
pub(crate) fn markdown(rows: &[Memory], out: &mut String) {
    let _ = writeln!(out, "\n## Memory of idle connections (proportional set size of all processes)\n");
    let _ = writeln!(out, "| connections | proxy | before MiB | idle MiB | KiB each | after MiB | given back |");
    let _ = writeln!(out, "|---|---|---:|---:|---:|---:|---:|");
    for row in rows {
        let kind = if row.tls { "TLS 1.3" } else { "plain" };
        let grown = row.idle_kib.saturating_sub(row.before_kib) as f64;
        let back = row.idle_kib.saturating_sub(row.after_kib) as f64;
        let _ = writeln!(
            out,
            "| {} {kind} | {} | {:.1} | {:.1} | {:.2} | {:.1} after {} s | {:.0} % |",
            row.connections,
            row.peer.name(),
            row.before_kib as f64 / 1024.0,
            row.idle_kib as f64 / 1024.0,
            grown / f64::from(row.connections),
            row.after_kib as f64 / 1024.0,
            row.waited_s,
            if grown > 0.0 { back / grown * 100.0 } else { 0.0 },
        );
    }
}

/// Below the usual cap of a thousand connections for each.
const ADDRESSES: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proportional_set_size_is_found() {
        assert_eq!(parse("00400000-7ffc [rollup]\nRss:  1740 kB\nPss:    290 kB\nPss_Dirty: 116 kB\n"), Some(290));
        assert_eq!(parse("Rss: 1 kB\n"), None);
    }
}
