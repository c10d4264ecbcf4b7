//! What runs once before the workers of a generation, with real processes.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bed::{Bed, lives, pool, signal, until, with};

/// Workers of which the version stands in their script, with this before them.
fn migrated(version: &str, script: &str) -> Value {
    let hook = json!({ "command": ["sh", "-c", script, "pre_start", "{pool}", "{generation}"], "timeout_ms": 10_000 });
    with(pool(2, &format!("echo {version}")), &json!({ "pre_start": hook }))
}

fn hook_output(line: &Value) -> Option<&Value> {
    line.get("output").filter(|output| output["slot"].is_null())
}

#[test]
fn it_runs_once_in_the_workers_folder_with_what_is_the_same_for_all_workers() {
    let mut bed = Bed::new();
    let folder = bed.path("work");
    std::fs::create_dir(&folder).expect("folder");
    let script =
        "pwd; echo of $1 $2 $WORKER_GENERATION $COMMON; env | grep -c -e WORKER_SLOT -e ^OWN= -e NODE_APP; id -u";
    let env = json!({ "COMMON": "{pool}-all", "OWN": "{slot}" });
    bed.set(&[with(migrated("v1", script), &json!({ "cwd": folder, "env": env }))]);
    bed.ready(0);
    bed.ready(1);
    let lines = bed.all(|line| hook_output(line)?["line"].as_str().map(str::to_owned));
    let uid = rustix::process::getuid().as_raw().to_string();
    assert_eq!(lines, [folder.to_str().expect("text"), "of app 1 1 app-all", "0", &uid]);
    let order = bed.all(|line| {
        let event = line.get("event")?;
        let hook = event.pointer("/hook_ended/status").map(|status| format!("hook {status}"));
        hook.or_else(|| event.get("ready").map(|_| "ready".to_owned()))
    });
    assert_eq!(order, ["hook {\"code\":0}", "ready", "ready"]);
}

#[test]
fn a_failure_leaves_the_old_workers_alone_and_shows_its_last_lines() {
    let mut bed = Bed::new();
    bed.set(&[pool(2, "")]);
    let old = [bed.ready(0), bed.ready(1)];
    bed.set(&[migrated("v2", "echo migrating; echo column exists already >&2; exit 3")]);
    let ended =
        bed.wait("the end", |line| line.pointer("/event/deploy_ended").filter(|end| end["generation"] == 2).cloned());
    assert_eq!(ended["outcome"], "reverted");
    let failure = &ended["failure"]["pre_start"];
    assert_eq!(failure["status"], json!({ "code": 3 }));
    let mut lines: Vec<&str> =
        failure["last_lines"].as_array().expect("lines").iter().filter_map(Value::as_str).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["column exists already", "migrating"]);
    assert!(old.iter().all(|worker| lives(worker.pid)));
    assert!(bed.all(|line| line.pointer("/event/drain").cloned()).is_empty());
}

#[test]
fn one_that_cannot_be_started_says_why() {
    let mut bed = Bed::new();
    bed.set(&[pool(1, "")]);
    bed.ready(0);
    let hook = json!({ "command": ["/nowhere/migrate"], "timeout_ms": 10_000 });
    bed.set(&[with(pool(1, "echo v2"), &json!({ "pre_start": hook }))]);
    let failed = bed.wait("a failure", |line| line.pointer("/event/hook_failed").cloned());
    let message = failed["message"].as_str().expect("text");
    assert!(message.contains("/nowhere/migrate") && message.contains("No such file"), "{message}");
}

#[test]
fn one_that_takes_too_long_ends_with_everything_it_started() {
    let mut bed = Bed::new();
    bed.set(&[pool(1, "")]);
    bed.ready(0);
    let script = "trap '' TERM; sleep 1000 & echo child $!; wait; wait; sleep 1000";
    let slow = with(migrated("v2", script), &json!({ "stop_timeout_ms": 100 }));
    bed.set(&[with(slow, &json!({ "pre_start": { "command": ["sh", "-c", script], "timeout_ms": 300 } }))]);
    let child: i32 = bed.printed("child ").parse().expect("a pid");
    let failed = bed.wait("a failure", |line| line.pointer("/event/hook_failed").cloned());
    assert_eq!((&failed["status"], &failed["message"]), (&json!({ "signal": 9 }), &json!("not over within 300ms")));
    until("the child's end", || !lives(child));
}

#[test]
fn it_dies_with_us_and_is_stopped_by_a_shutdown() {
    for by_force in [true, false] {
        let mut bed = Bed::new();
        bed.set(&[migrated("v1", "echo pid $$; exec sleep 1000")]);
        let pid: i32 = bed.printed("pid ").parse().expect("a pid");
        if by_force {
            bed.kill_nine();
        } else {
            assert!(bed.shut_down().success());
        }
        until("its end", || !lives(pid));
    }
}

#[test]
fn one_that_is_killed_from_outside_has_failed() {
    let mut bed = Bed::new();
    bed.set(&[pool(1, "")]);
    bed.ready(0);
    bed.set(&[migrated("v2", "echo pid $$; exec sleep 1000")]);
    let pid = bed.printed("pid ").parse().expect("a pid");
    signal(pid, Signal::KILL);
    let failed = bed.wait("a failure", |line| line.pointer("/event/hook_failed").cloned());
    assert_eq!(failed["status"], json!({ "signal": 9 }));
}
