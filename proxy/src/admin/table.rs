//! `tidegate status` for people: aligned columns, colours where the reader is a terminal.

mod costs;
mod deploys;
mod health;
mod workers;

use std::io::{self, Write};
use std::time::Duration;

use super::view::{
    ConcurrencyLimit, Endpoint, LastReload, Listener, Name, Queue, RateLimit, Site, Status, Upstream, Worker, span,
};

pub use costs::print_costs;
pub use deploys::{deploy_plan, deploy_progress, print_deploy};
pub use workers::{print_event, print_log_line, print_workers};

/// Whether states are coloured: only on a terminal and without `NO_COLOR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// Escape sequences.
    On,
    /// Plain text.
    Off,
}

/// Prints the state of everything.
///
/// # Errors
/// When `out` cannot be written.
pub fn print(status: &Status, colours: Colours, out: &mut dyn Write) -> io::Result<()> {
    heading(status, out)?;
    listeners(&status.listeners).print(colours, out)?;
    sites(&status.sites).print(colours, out)?;
    rate_limits(&status.rate_limits).print(colours, out)?;
    concurrency_limits(&status.concurrency_limits).print(colours, out)?;
    for upstream in &status.upstreams {
        print_upstream(upstream, colours, out)?;
    }
    Ok(())
}

fn heading(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let Status { version, pid, generation, uptime_seconds, .. } = status;
    let up = span(Duration::from_secs(*uptime_seconds));
    let stopping = if status.stopping { ", stopping" } else { "" };
    writeln!(out, "tidegate {version}, pid {pid}, generation {generation}, up {up}{stopping}")?;
    if let Some(LastReload { age_seconds, applied, message, .. }) = &status.last_reload {
        let result = if *applied { "applied" } else { "refused" };
        let age = span(Duration::from_secs(*age_seconds));
        writeln!(out, "last reload {result} {age} ago: {}", printable(message))?;
    }
    Ok(())
}

fn print_upstream(upstream: &Upstream, colours: Colours, out: &mut dyn Write) -> io::Result<()> {
    let Upstream {
        name,
        protocol,
        balance,
        state,
        in_flight,
        max_in_flight,
        queue,
        endpoints,
        names,
        workers,
        target,
        failed_generation,
        breaker,
    } = upstream;
    writeln!(out)?;
    write!(out, "UPSTREAM {}, {protocol}, {balance}: {}", printable(name), painted(state, colours))?;
    if let Some(target) = target {
        let ready = workers.iter().filter(|worker| worker.state == "ready").count();
        write!(out, ", {ready} of {target} workers ready")?;
        let drained = workers.iter().filter(|worker| worker.state == "drained").count();
        if drained > 0 {
            write!(out, ", {drained} drained")?;
        }
    }
    writeln!(out)?;
    writeln!(out, "  {}", load(*in_flight, *max_in_flight, queue))?;
    if let Some(generation) = failed_generation {
        writeln!(out, "  generation {generation} was given up, its workers did not become ready: see the log")?;
    }
    for line in names.iter().filter_map(unresolved) {
        writeln!(out, "  {}", printable(&line))?;
    }
    health::print_breaker(breaker.as_ref(), out)?;
    endpoint_table(endpoints).print(colours, out)?;
    health::print(endpoints, out)?;
    worker_table(workers).print(colours, out)
}

/// What is under way and what waits, with the bounds of both.
fn load(in_flight: u64, max_in_flight: Option<u32>, queue: &Queue) -> String {
    let Queue { waiting, size, peak, overloaded, full, late, timeout } = queue;
    let most = max_in_flight.map_or_else(String::new, |most| format!("/{most}"));
    let overloaded = if *overloaded { ", overloaded" } else { "" };
    let refused = full + late + timeout;
    let why = if refused == 0 { String::new() } else { format!(" ({full} full, {late} late, {timeout} timeout)") };
    format!("in flight {in_flight}{most}, waiting {waiting}/{size}{overloaded}, peak {peak}, refused {refused}{why}")
}

fn listeners(listeners: &[Listener]) -> Table {
    let rows = listeners.iter().map(|listener| {
        let Listener { name, address, transport, connections } = listener;
        vec![Cell::text(name), Cell::text(address), Cell::text(transport), Cell::number(connections)]
    });
    Table::new("", &["LISTENER", "ADDRESS", "TRANSPORT", "CONNECTIONS"], rows.collect())
}

fn sites(sites: &[Site]) -> Table {
    let rows = sites.iter().map(|site| {
        let Site { name, hosts, listeners, certificate_expires } = site;
        let expires = certificate_expires.as_deref().unwrap_or("-");
        let date = expires.split_once('T').map_or(expires, |(date, _)| date);
        vec![Cell::text(name), Cell::text(&hosts.join(" ")), Cell::text(&listeners.join(" ")), Cell::text(date)]
    });
    Table::new("", &["SITE", "HOSTS", "LISTENERS", "CERTIFICATE UNTIL"], rows.collect())
}

fn rate_limits(limits: &[RateLimit]) -> Table {
    let rows = limits.iter().map(|limit| {
        let RateLimit { name, rate, entries, in_use, delayed, rejected, dry_run } = limit;
        let mut row = vec![Cell::text(name), Cell::text(rate), Cell::right(&format!("{in_use}/{entries}"))];
        row.extend([delayed, rejected, dry_run].map(Cell::number));
        row
    });
    Table::new("", &["RATE LIMIT", "RATE", "CLIENTS", "DELAYED", "REJECTED", "DRY RUN"], rows.collect())
}

fn concurrency_limits(limits: &[ConcurrencyLimit]) -> Table {
    let rows = limits.iter().map(|limit| {
        let ConcurrencyLimit { name, max, in_flight, clients, rejected, dry_run } = limit;
        let mut row = vec![Cell::text(name), Cell::number(u64::from(*max))];
        row.extend([in_flight, clients, rejected, dry_run].map(Cell::number));
        row
    });
    Table::new("", &["CONCURRENCY LIMIT", "MAX", "IN FLIGHT", "CLIENTS", "REJECTED", "DRY RUN"], rows.collect())
}

/// What is wrong with a name.
fn unresolved(name: &Name) -> Option<String> {
    let Name { name, state, addresses, next_ms, reason } = name;
    let next = match next_ms {
        0 => "trying now".to_owned(),
        1..1_000 => "next try in 1s".to_owned(),
        _ => format!("next try in {}", span(Duration::from_millis(*next_ms))),
    };
    let kept = match addresses {
        _ if state == "resolved" => ", the others are used".to_owned(),
        0 => String::new(),
        1 => ", its last address stays".to_owned(),
        count => format!(", its last {count} addresses stay"),
    };
    reason.as_ref().map(|reason| format!("{name}: {reason}, {next}{kept}"))
}

fn endpoint_table(endpoints: &[Endpoint]) -> Table {
    let has_names = endpoints.iter().any(|endpoint| endpoint.name.is_some());
    let has_hedges = endpoints.iter().any(|endpoint| endpoint.overtaken > 0);
    let rows = endpoints.iter().map(|endpoint| {
        let Endpoint {
            address,
            name,
            state,
            ejected: _,
            check: _,
            weight,
            priority,
            max_conns,
            in_flight,
            tunnels,
            connections,
            requests,
            failures,
            overtaken,
        } = endpoint;
        let numbers = [u64::from(*weight), (*priority).into()];
        let mut row = vec![Cell::text(address)];
        if has_names {
            row.push(Cell::text(name.as_deref().unwrap_or("-")));
        }
        row.push(Cell::state(state));
        row.extend(numbers.iter().map(Cell::number));
        row.push(Cell::right(&max_conns.map_or_else(|| in_flight.to_string(), |most| format!("{in_flight}/{most}"))));
        let numbers = [*tunnels, *connections, *requests, *failures];
        row.extend(numbers.iter().map(Cell::number));
        row.extend(has_hedges.then(|| Cell::number(overtaken)));
        row
    });
    let mut heads = vec!["ENDPOINT"];
    heads.extend(has_names.then_some("NAME"));
    heads.extend(["STATE", "WEIGHT", "PRIORITY", "IN FLIGHT", "TUNNELS", "CONNECTIONS", "REQUESTS", "FAILURES"]);
    heads.extend(has_hedges.then_some("OVERTAKEN"));
    Table::new("  ", &heads, rows.collect())
}

fn worker_table(workers: &[Worker]) -> Table {
    let rows = workers.iter().map(|worker| {
        let Worker {
            slot,
            pid,
            state,
            restarts,
            rss_bytes,
            generation,
            uptime_seconds,
            last_exit,
            says,
            alive_seconds: _,
            out,
        } = worker;
        let out = out.as_ref().map(|why| format!("out of rotation: {why}"));
        let note = out.as_deref().or(says.as_deref());
        let uptime = uptime_seconds.map(|seconds| span(Duration::from_secs(seconds)));
        vec![
            Cell::number(slot),
            Cell::maybe_number(*pid),
            Cell::state(state),
            Cell::number(restarts),
            Cell::right(&rss_bytes.map_or_else(|| "-".to_owned(), mebibytes)),
            Cell::number(generation),
            Cell::right(uptime.as_deref().unwrap_or("-")),
            Cell::text(last_exit.as_deref().unwrap_or("-")),
            Cell::text(note.unwrap_or("-")),
        ]
    });
    let heads = ["WORKER", "PID", "STATE", "RESTARTS", "MEMORY", "GENERATION", "UP", "LAST EXIT", "NOTE"];
    // Few workers say anything.
    let is_noted = workers.iter().any(|worker| worker.says.is_some() || worker.out.is_some());
    let columns = heads.len() - usize::from(!is_noted);
    let rows = rows.map(|mut row: Vec<Cell>| {
        row.truncate(columns);
        row
    });
    Table::new("  ", &heads[..columns], rows.collect())
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

/// Rows under headings; a column is as wide as its widest cell, numbers stand to the right.
struct Table {
    indent: &'static str,
    heads: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

struct Cell {
    text: String,
    align: Align,
    state: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

impl Cell {
    fn new(text: &str, align: Align, state: bool) -> Self {
        Self { text: printable(text), align, state }
    }

    fn text(text: &str) -> Self {
        Self::new(text, Align::Left, false)
    }

    fn state(text: &str) -> Self {
        Self::new(text, Align::Left, true)
    }

    fn right(text: &str) -> Self {
        Self::new(text, Align::Right, false)
    }

    fn number(number: impl std::fmt::Display) -> Self {
        Self::right(&number.to_string())
    }

    fn maybe_number(number: Option<impl std::fmt::Display>) -> Self {
        number.map_or_else(|| Self::right("-"), Self::number)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl Table {
    fn new(indent: &'static str, heads: &[&str], rows: Vec<Vec<Cell>>) -> Self {
        // A heading stands as its column does.
        let align = |column: usize| rows.first().and_then(|row| row.get(column)).map_or(Align::Left, |cell| cell.align);
        let heads = heads.iter().enumerate().map(|(column, head)| Cell::new(head, align(column), false)).collect();
        Self { indent, heads, rows }
    }

    /// Prints nothing for a table without rows.
    fn print(&self, colours: Colours, out: &mut dyn Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        if self.indent.is_empty() {
            writeln!(out)?;
        }
        let lines = || std::iter::once(&self.heads).chain(&self.rows);
        let width = |column| lines().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        for row in lines() {
            let mut line = self.indent.to_owned();
            for (cell, width) in row.iter().zip(&widths) {
                let padding = " ".repeat(width - cell.width());
                let text = if cell.state { painted(&cell.text, colours) } else { cell.text.clone() };
                match cell.align {
                    Align::Left => line.extend([text, padding]),
                    Align::Right => line.extend([padding, text]),
                }
                line.push_str("  ");
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A state in green when it takes requests, in yellow when that is about to change, in red otherwise.
fn painted(state: &str, colours: Colours) -> String {
    let state = printable(state);
    if colours == Colours::Off {
        return state;
    }
    let colour = match state.split(',').next().unwrap_or_default() {
        "ready" => 32,
        "starting" | "draining" | "drained" | "stopping" | "degraded" => 33,
        _ => 31,
    };
    format!("\x1b[{colour}m{state}\x1b[0m")
}

/// No control character of an answer reaches the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let endpoint = |address: &str, state: &str, requests| Endpoint {
            address: address.to_owned(),
            state: state.to_owned(),
            weight: 1,
            priority: 0,
            max_conns: None,
            requests,
            ..Endpoint::default()
        };
        Status {
            version: "0.1.0".to_owned(),
            pid: 42,
            generation: 3,
            uptime_seconds: 7_500,
            listeners: vec![Listener {
                name: ":443".to_owned(),
                address: "[::]:443".to_owned(),
                transport: "tls".to_owned(),
                connections: 1_234,
            }],
            sites: vec![Site {
                name: "api".to_owned(),
                hosts: vec!["api.example.com".to_owned(), "*.api.example.com".to_owned()],
                listeners: vec![":443".to_owned()],
                certificate_expires: Some("2027-01-02T03:04:05+00:00".to_owned()),
            }],
            upstreams: vec![Upstream {
                name: "app".to_owned(),
                protocol: "http1".to_owned(),
                balance: "round_robin".to_owned(),
                state: "degraded".to_owned(),
                in_flight: 3,
                max_in_flight: Some(4),
                queue: Queue { waiting: 2, size: 64, peak: 9, full: 1, timeout: 4, ..Queue::default() },
                endpoints: vec![endpoint("unix:/run/t/app-0.sock", "ready", 98_765), endpoint("x", "draining", 1)],
                workers: vec![
                    Worker {
                        slot: 0,
                        pid: Some(77),
                        state: "ready".to_owned(),
                        restarts: 1,
                        rss_bytes: Some(51_000_000),
                        generation: 2,
                        uptime_seconds: Some(65),
                        last_exit: Some("signal 9\x1b[2J".to_owned()),
                        ..Worker::default()
                    },
                    Worker { slot: 1, state: "backoff".to_owned(), ..Worker::default() },
                ],
                target: Some(2),
                ..Upstream::default()
            }],
            last_reload: Some(LastReload {
                age_seconds: 5,
                applied: true,
                message: "1 change".to_owned(),
                ..LastReload::default()
            }),
            ..Status::default()
        }
    }

    fn printed(colours: Colours) -> String {
        let mut out = Vec::new();
        print(&status(), colours, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(
            printed(Colours::Off),
            "\
tidegate 0.1.0, pid 42, generation 3, up 2h 5m
last reload applied 5s ago: 1 change

LISTENER  ADDRESS   TRANSPORT  CONNECTIONS
:443      [::]:443  tls               1234

SITE  HOSTS                              LISTENERS  CERTIFICATE UNTIL
api   api.example.com *.api.example.com  :443       2027-01-02

UPSTREAM app, http1, round_robin: degraded, 1 of 2 workers ready
  in flight 3/4, waiting 2/64, peak 9, refused 5 (1 full, 0 late, 4 timeout)
  ENDPOINT                STATE     WEIGHT  PRIORITY  IN FLIGHT  TUNNELS  CONNECTIONS  REQUESTS  FAILURES
  unix:/run/t/app-0.sock  ready          1         0          0        0            0     98765         0
  x                       draining       1         0          0        0            0         1         0
  WORKER  PID  STATE    RESTARTS    MEMORY  GENERATION     UP  LAST EXIT
       0   77  ready           1  48.6 MiB           2  1m 5s  signal 9\u{fffd}[2J
       1    -  backoff         0         -           0      -  -
"
        );
    }

    #[test]
    fn names_stand_beside_their_addresses_and_tell_why_they_do_not_resolve() {
        let name = |name: &str, addresses, next_ms, reason: Option<&str>| Name {
            name: name.to_owned(),
            addresses,
            next_ms,
            reason: reason.map(str::to_owned),
            ..Name::default()
        };
        let endpoint = |address: &str, name: Option<&str>| Endpoint {
            address: address.to_owned(),
            name: name.map(str::to_owned),
            state: "ready".to_owned(),
            ..Endpoint::default()
        };
        let upstream = Upstream {
            name: "app".to_owned(),
            endpoints: vec![endpoint("10.0.0.1:80", Some("a.internal")), endpoint("10.0.0.2:80", None)],
            names: vec![
                name("a.internal:80", 1, 9_000, None),
                name("b.internal:80", 0, 4_900, Some("no such name")),
                name("c.internal:80", 2, 0, Some("name server 10.0.0.9:53: no answer within 5s")),
                Name { state: "resolved".to_owned(), ..name("_d", 2, 9_000, Some("s1.d: no such name")) },
            ],
            ..Upstream::default()
        };
        let mut out = Vec::new();
        print_upstream(&upstream, Colours::Off, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(lines[0], "  b.internal:80: no such name, next try in 4s");
        let kept =
            "  c.internal:80: name server 10.0.0.9:53: no answer within 5s, trying now, its last 2 addresses stay";
        assert_eq!(lines[1], kept);
        assert_eq!(lines[2], "  _d: s1.d: no such name, next try in 9s, the others are used");
        assert!(lines[3].starts_with("  ENDPOINT     NAME        STATE"), "{text}");
        assert!(lines[4].starts_with("  10.0.0.1:80  a.internal  ready"), "{text}");
        assert!(lines[5].starts_with("  10.0.0.2:80  -           ready"), "{text}");
    }

    #[test]
    fn colours_change_no_width() {
        let plain = printed(Colours::Off);
        let coloured = printed(Colours::On);
        assert!(coloured.contains("\x1b[32mready\x1b[0m") && coloured.contains("\x1b[31mbackoff\x1b[0m"));
        let bare =
            ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"].iter().fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(bare, plain);
    }
}
