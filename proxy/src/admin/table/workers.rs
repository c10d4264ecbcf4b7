//! Workers and what happened to them, for people.

use std::io::{self, Write};
use std::time::Duration;

use super::{Cell, Colours, Table, mebibytes, painted, printable};
use crate::admin::view::{Event, LogLine, WorkerDetail, WorkerExit, WorkerGroup, Workers, span};

/// Prints a table for each upstream.
///
/// # Errors
/// When `out` cannot be written.
pub fn print_workers(workers: &Workers, colours: Colours, out: &mut dyn Write) -> io::Result<()> {
    if workers.upstreams.is_empty() {
        return writeln!(out, "no upstream has workers");
    }
    for (index, group) in workers.upstreams.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let WorkerGroup { name, state, target, scaled, ready, workers } = group;
        let drained = workers.iter().filter(|worker| worker.state == "drained").count();
        let drained = if drained > 0 { format!(", {drained} drained") } else { String::new() };
        let scaled = if *scaled { ", number chosen by an operator" } else { "" };
        writeln!(
            out,
            "UPSTREAM {}: {}, {ready} of {target} workers ready{drained}{scaled}",
            printable(name),
            painted(state, colours)
        )?;
        table(workers).print(colours, out)?;
    }
    Ok(())
}

fn table(workers: &[WorkerDetail]) -> Table {
    let rows = workers.iter().map(|worker| {
        let WorkerDetail {
            slot,
            spawn: _,
            pid,
            state,
            replaced_for,
            generation,
            age_seconds,
            requests,
            failures,
            in_flight: _,
            oldest_ms: _,
            abandoned: _,
            max_in_flight: _,
            connections,
            tunnels,
            rss_bytes,
            cpus,
            cpu_seconds: _,
            threads,
            open_fds,
            restarts,
            last_exit,
        } = worker;
        let state = match replaced_for {
            Some(reason) => format!("{state}, {reason} next"),
            None => state.clone(),
        };
        let or_dash = |text: Option<String>| Cell::right(&text.unwrap_or_else(|| "-".to_owned()));
        vec![
            Cell::number(slot),
            Cell::maybe_number(*pid),
            Cell::state(&state),
            Cell::number(generation),
            or_dash(age_seconds.map(|seconds| span(Duration::from_secs(seconds)))),
            Cell::right(&under_way(worker)),
            Cell::number(requests),
            Cell::number(failures),
            Cell::number(connections),
            Cell::number(tunnels),
            or_dash(cpus.map(|cpus| format!("{:.0}%", cpus * 100.0))),
            or_dash(rss_bytes.map(mebibytes)),
            Cell::maybe_number(*threads),
            Cell::maybe_number(*open_fds),
            Cell::number(restarts),
            Cell::text(&last_exit.as_ref().map_or_else(|| "-".to_owned(), last_exit_text)),
        ]
    });
    let heads = [
        "WORKER",
        "PID",
        "STATE",
        "GENERATION",
        "UP",
        "IN FLIGHT",
        "REQUESTS",
        "FAILURES",
        "CONNECTIONS",
        "TUNNELS",
        "CPU",
        "MEMORY",
        "THREADS",
        "FILES",
        "RESTARTS",
        "LAST EXIT",
    ];
    Table::new("  ", &heads, rows.collect())
}

/// What deserves a look is told only where there is some: a column for it would be empty nearly always.
fn under_way(worker: &WorkerDetail) -> String {
    let WorkerDetail { in_flight, max_in_flight, oldest_ms, abandoned, .. } = worker;
    let most = max_in_flight.map(|most| format!("/{most}")).unwrap_or_default();
    let oldest = oldest_ms.map(Duration::from_millis).filter(|age| *age >= NOTABLE_AGE);
    let oldest = oldest.map(|age| format!(", oldest {}", span(age))).unwrap_or_default();
    let abandoned = if *abandoned > 0 { format!(", {abandoned} abandoned") } else { String::new() };
    format!("{in_flight}{most}{oldest}{abandoned}")
}

/// A request that is older is told of.
const NOTABLE_AGE: Duration = Duration::from_secs(1);

fn last_exit_text(exit: &WorkerExit) -> String {
    let WorkerExit { reason, status, age_seconds } = exit;
    format!("{reason}: {status}, {} ago", span(Duration::from_secs(*age_seconds)))
}

/// Prints an event on a line, its output on more.
///
/// # Errors
/// When `out` cannot be written.
pub fn print_event(event: &Event, out: &mut dyn Write) -> io::Result<()> {
    let Event { time, lines, .. } = event;
    let words = [Some(time.clone()), who(event), Some(what(event))].into_iter().flatten();
    let text = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    writeln!(out, "{}", printable(&text))?;
    lines.iter().try_for_each(|line| writeln!(out, "    | {}", printable(line)))
}

/// Prints a line of a worker, behind its name where there may be others.
///
/// # Errors
/// When `out` cannot be written.
pub fn print_log_line(line: &LogLine, is_named: bool, out: &mut dyn Write) -> io::Result<()> {
    let LogLine { upstream, slot, stream, line, .. } = line;
    // What is no terminal's business was escaped when the line was read; a tab was not.
    let text = line.split('\t').map(printable).collect::<Vec<_>>().join("\t");
    match stream.as_str() {
        "tidegate" => writeln!(out, "-- {text} --"),
        _ if is_named => {
            let slot = slot.map_or_else(|| "pre_start".to_owned(), |slot| slot.to_string());
            writeln!(out, "{}/{slot} | {text}", printable(upstream))
        }
        _ => writeln!(out, "{text}"),
    }
}

fn who(event: &Event) -> Option<String> {
    let upstream = event.upstream.as_ref()?;
    let slot = event.slot.map(|slot| format!("/{slot}")).unwrap_or_default();
    let pid = event.pid.map(|pid| format!(" pid {pid}")).unwrap_or_default();
    Some(format!("{upstream}{slot}{pid}"))
}

fn what(event: &Event) -> String {
    let Event { event: kind, from, to, reason, ms, status, message, generation, .. } = event;
    let (from, to) = (from.as_deref().unwrap_or("-"), to.as_deref().unwrap_or("-"));
    let duration = ms.map(|ms| format!("{:.1?}", Duration::from_millis(ms))).unwrap_or_default();
    let because = reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
    let generation = generation.unwrap_or_default();
    match kind.as_str() {
        "transition" => format!("{from} -> {to} after {duration}{because}"),
        "pool" => format!("{from} -> {to}"),
        "scaled" => format!("{from} -> {to} workers{because}"),
        "deploy" => {
            let message = message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            format!("deploy of generation {generation} ended after {duration}{because}{message}")
        }
        "deploy_planned" => format!("deploy of generation {generation} planned{because}"),
        "deploy_began" => format!("deploy of generation {generation} begins"),
        "generation_active" => format!("generation {generation} serves"),
        _ => {
            let name = match kind.as_str() {
                "failure" => "failed".to_owned(),
                "generation_failed" => format!("generation {generation} given up"),
                "restart_failed" => "restart given up".to_owned(),
                other => other.replace('_', " "),
            };
            let status = status.as_ref().map(|status| format!(": {status} after {duration}")).unwrap_or_default();
            let message = message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            format!("{name}{because}{status}{message}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn workers_stand_in_columns() {
        let busy = WorkerDetail {
            slot: 0,
            spawn: Some(7),
            pid: Some(4_242),
            state: "ready".to_owned(),
            replaced_for: Some("operator".to_owned()),
            generation: 2,
            age_seconds: Some(65),
            requests: 1_234,
            failures: 5,
            in_flight: 3,
            oldest_ms: Some(12_345),
            abandoned: 1,
            max_in_flight: Some(8),
            connections: 4,
            tunnels: 1,
            rss_bytes: Some(51 << 20),
            cpus: Some(0.526),
            cpu_seconds: Some(12.5),
            threads: Some(9),
            open_fds: Some(33),
            restarts: 1,
            last_exit: Some(WorkerExit {
                reason: "crash_signal".to_owned(),
                status: "signal 9".to_owned(),
                age_seconds: 70,
            }),
        };
        let drained = WorkerDetail { slot: 1, state: "drained".to_owned(), ..WorkerDetail::default() };
        let group = WorkerGroup {
            name: "app".to_owned(),
            state: "healthy".to_owned(),
            target: 2,
            scaled: true,
            ready: 1,
            workers: vec![busy, drained],
        };
        let printed = text(|out| print_workers(&Workers { upstreams: vec![group] }, Colours::Off, out));
        assert_eq!(
            printed,
            "\
UPSTREAM app: healthy, 1 of 2 workers ready, 1 drained, number chosen by an operator
  WORKER   PID  STATE                 GENERATION     UP                     IN FLIGHT  REQUESTS  FAILURES  CONNECTIONS  TUNNELS  CPU    MEMORY  THREADS  FILES  RESTARTS  LAST EXIT
       0  4242  ready, operator next           2  1m 5s  3/8, oldest 12s, 1 abandoned      1234         5            4        1  53%  51.0 MiB        9     33         1  crash_signal: signal 9, 1m 10s ago
       1     -  drained                        0      -                             0         0         0            0        0    -         -        -      -         0  -
"
        );
    }

    #[test]
    fn events_are_sentences() {
        let of_worker = |kind: &str| Event {
            time: "T".to_owned(),
            event: kind.to_owned(),
            upstream: Some("app".to_owned()),
            slot: Some(1),
            pid: Some(42),
            ..Event::default()
        };
        let word = |word: &str| Some(word.to_owned());
        let rows = [
            (
                Event {
                    from: word("ready"),
                    to: word("draining"),
                    reason: word("operator"),
                    ms: Some(1_500),
                    ..of_worker("transition")
                },
                "T app/1 pid 42 ready -> draining after 1.5s, operator\n",
            ),
            (
                Event {
                    reason: word("boot_exit"),
                    status: word("exit code 3"),
                    ms: Some(20),
                    message: word("why\u{1b}[2J"),
                    lines: vec!["last".to_owned()],
                    ..of_worker("failure")
                },
                "T app/1 pid 42 failed, boot_exit: exit code 3 after 20.0ms: why\u{fffd}[2J\n    | last\n",
            ),
            (
                Event {
                    slot: None,
                    pid: None,
                    from: word("2"),
                    to: word("4"),
                    reason: word("operator"),
                    ..of_worker("scaled")
                },
                "T app 2 -> 4 workers, operator\n",
            ),
            (of_worker("killed"), "T app/1 pid 42 killed\n"),
            (Event { message: word("more"), ..of_worker("of_the_future") }, "T app/1 pid 42 of the future: more\n"),
        ];
        for (event, expected) in rows {
            assert_eq!(text(|out| print_event(&event, out)), expected);
        }
    }
}
