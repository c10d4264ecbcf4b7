//! Nobody is left behind: groups, daemons, zombies, and the sudden end of the supervising process.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::bed::{
    Bed, guardian_of, kill_nine, lives, pool, session, signal, until, with, with_word, within, zombies_of,
};

/// Descendants of every kind, each with a word in its environment: a child, one of a process that has ended (the shell
/// in parentheses), one that ignores the stop signal, one with a group of its own and one with a session of its own.
const FAMILY: &str = "trap '' TERM; sleep 1000 & (sleep 1000 & exec true); (set -m; sleep 1000 & exec true)";
const DAEMON: &str = "(setsid sleep 1000 & exec true)";

/// A word that nobody else on this machine has in the environment.
fn word(name: &str) -> String {
    format!("SURVIVOR={name}-{}", std::process::id())
}

#[test]
fn a_killed_worker_takes_its_group_with_it() {
    let mut bed = Bed::new();
    let word = word("group");
    // Only the first start has a family.
    let marker = bed.path("started");
    let script = format!(
        "test -e {0} || {{ : > {0}; export {word}; trap '' TERM; sleep 1000 & (sleep 1000 & exec true); }}",
        marker.display()
    );
    bed.set(&[pool(1, &script)]);
    let worker = bed.ready(0);
    until("a family", || with_word(&word).len() >= 3);
    kill_nine(worker.pid);
    bed.gone(&worker);
    until("end of the family", || with_word(&word).is_empty());
}

#[test]
fn a_shutdown_takes_daemons_with_it() {
    let mut bed = Bed::new();
    let word = word("daemons");
    let script = format!("export {word}; {FAMILY}; {DAEMON}; (exec env -i {word} setsid sleep 1000 &)");
    bed.set(&[with(pool(1, &script), &json!({ "stop_timeout_ms": 200 }))]);
    bed.ready(0);
    until("a family", || with_word(&word).len() == 6);
    assert!(bed.shut_down().success());
    assert_eq!(with_word(&word), [0; 0]);
}

#[test]
fn a_thousand_orphans_leave_no_zombie() {
    let mut bed = Bed::new();
    // The first ends by a real-time signal.
    let script = "(sh -c 'kill -40 $$' & exec true); i=0; while [ $i -lt 1000 ]; do (true & exec true); i=$((i+1)); done; echo forked";
    bed.set(&[pool(1, script)]);
    bed.ready(0);
    bed.printed("forked");
    let supervisor = bed.pid();
    within(Duration::from_secs(3), "no zombies", || zombies_of(supervisor) == 0);
}

#[test]
fn orphans_that_end_while_nothing_else_happens_are_reaped() {
    let mut bed = Bed::new();
    bed.set(&[pool(1, "(sleep 0.3 & exec true)")]);
    bed.ready(0);
    let supervisor = bed.pid();
    until("a zombie or none", || {
        std::thread::sleep(Duration::from_millis(1));
        crate::bed::processes().iter().all(|pid| session(*pid) != Some(supervisor)) && zombies_of(supervisor) == 0
    });
}

#[test]
fn nothing_is_left_within_a_second_of_a_sigkill() {
    let mut bed = Bed::new();
    let word = word("sigkill");
    // Two more without the marker: one that only its group betrays, one that only its session does.
    let unmarked = format!("env -i {word} sleep 1000 & (set -m; env -i {word} sleep 1000 & exec true)");
    bed.set(&[pool(3, &format!("export {word}; {FAMILY}; {DAEMON}; {unmarked}"))]);
    for nth in 0..3 {
        bed.ready(nth);
    }
    until("three families", || with_word(&word).len() == 21);
    let guardian = guardian_of(bed.pid());
    bed.kill_nine();
    within(Duration::from_secs(1), "nobody left", || with_word(&word).is_empty() && !lives(guardian));
}

#[test]
fn a_sigkill_while_workers_start_leaves_nothing() {
    let word = word("starting");
    for round in 0..8 {
        let mut bed = Bed::new();
        bed.set(&[pool(8, &format!("export {word}; sleep 1000 & sleep 1000"))]);
        bed.wait("a start", |line| (line.pointer("/event/transition/to")? == "starting").then_some(()));
        // Not to wait for anything, but to meet the shim, the announcement and the command at different points.
        std::thread::sleep(Duration::from_millis(round));
        bed.kill_nine();
        within(Duration::from_secs(1), "nobody left", || {
            with_word(&word).is_empty() && with_word(&bed.path("run").to_string_lossy()).is_empty()
        });
    }
}

#[test]
fn a_guardian_that_dies_is_replaced() {
    let mut bed = Bed::new();
    let word = word("replaced");
    bed.set(&[pool(1, &format!("export {word}; {FAMILY}"))]);
    bed.ready(0);
    until("a family", || with_word(&word).len() == 4);
    let first = guardian_of(bed.pid());
    kill_nine(first);
    until("end of the first", || !lives(first));
    let second = guardian_of(bed.pid());
    assert_ne!(first, second);
    until("a guardian at work", || {
        std::fs::read_to_string(format!("/proc/{second}/wchan")).is_ok() && session(second) == Some(second)
    });
    bed.kill_nine();
    within(Duration::from_secs(1), "nobody left", || with_word(&word).is_empty());
}

#[test]
fn main_processes_die_with_the_supervisor_even_without_a_guardian() {
    let mut bed = Bed::new();
    bed.set(&[pool(2, "")]);
    let workers = [bed.ready(0), bed.ready(1)];
    let guardian = guardian_of(bed.pid());
    signal(guardian, Signal::STOP);
    bed.kill_nine();
    within(Duration::from_secs(1), "parent death", || workers.iter().all(|worker| !lives(worker.pid)));
    kill_nine(guardian);
}

#[test]
fn the_guardian_holds_nothing_and_heeds_no_terminal() {
    let mut bed = Bed::started_by("exec 9</dev/null");
    bed.set(&[pool(1, "")]);
    bed.ready(0);
    let guardian = guardian_of(bed.pid());
    assert_eq!(session(guardian), Some(guardian));
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{guardian}/fd")).expect("fd").flatten().collect();
    let mut open: Vec<String> = open
        .iter()
        .map(|entry| std::fs::read_link(entry.path()).expect("link").to_string_lossy().into_owned())
        .collect();
    open.sort();
    assert_eq!(open[..2], ["/dev/null", "/dev/null"]);
    assert!(open.len() == 3 && open[2].starts_with("pipe:"), "{open:?}");
    for polite in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        signal(guardian, polite);
    }
    let blocked = std::fs::read_to_string(format!("/proc/{guardian}/status")).expect("status");
    let blocked = blocked.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).expect("mask").to_owned();
    let blocked = u64::from_str_radix(&blocked, 16).expect("mask");
    let mask = [1, 2, 3, 15].iter().fold(0, |mask, signal| mask | 1_u64 << (signal - 1));
    assert_eq!(blocked & mask, mask);
    assert_eq!(guardian_of(bed.pid()), guardian);
}

#[test]
fn as_the_first_process_of_a_container_it_reaps_strangers() {
    // Only where we may make a process namespace; without one the testbed runs as an ordinary process.
    let mut bed = Bed::started_by(
        "unshare --pid --fork --mount-proc true 2>/dev/null && exec unshare --pid --fork --mount-proc --kill-child \"$0\" \"$1\"",
    );
    let orphans = "i=0; while [ $i -lt 50 ]; do (true & exec true); i=$((i+1)); done; echo forked";
    bed.set(&[pool(1, orphans)]);
    bed.printed("forked");
    bed.ready(0);
    let folder = bed.path("run").to_string_lossy().into_owned();
    let ours = with_word(&folder);
    within(Duration::from_secs(3), "no zombies", || ours.iter().all(|pid| zombies_of(*pid) == 0));
    assert!(bed.shut_down().success());
    until("nobody left", || with_word(&folder).is_empty());
}
