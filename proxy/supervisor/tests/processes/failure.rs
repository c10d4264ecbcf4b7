//! What is said when a worker fails.

use serde_json::{Value, json};

use crate::bed::{Bed, custom, kill_nine, pool, until, with};

#[test]
fn a_crash_loop_backs_off_and_is_reported_with_the_last_lines() {
    let mut bed = Bed::new();
    bed.set(&[custom(1, &["sh", "-c", "echo one; echo boom >&2; exit 3"])]);
    let failure = bed.failure(0);
    assert_eq!((&failure["reason"], &failure["status"]), (&json!("boot_exit"), &json!({ "code": 3 })));
    let mut lines: Vec<&str> =
        failure["last_lines"].as_array().expect("lines").iter().filter_map(Value::as_str).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["boom", "one"]);
    bed.wait("crash loop", |line| (line.pointer("/event/pool_state/to")? == "crashloop").then_some(()));
    let waits: Vec<u64> = bed.all(|line| {
        let transition = line.pointer("/event/transition").filter(|one| one["from"] == "backoff")?;
        transition["in_state"]["nanos"].as_u64().map(|nanos| nanos / 1_000_000)
    });
    assert_eq!(waits.len(), 5);
    for (wait, least) in waits.iter().zip([0, 80, 160, 320, 640]) {
        assert!(*wait >= least, "{waits:?}");
    }
}

#[track_caller]
fn check(changes: &Value, expected: &str) {
    let mut bed = Bed::new();
    bed.set(&[with(pool(1, ""), changes)]);
    let failure = bed.failure(0);
    assert_eq!(failure["message"], expected);
    assert_eq!(failure["reason"], "boot_exit");
}

#[test]
fn a_command_that_cannot_run_is_named() {
    check(&json!({ "command": ["no-such-program-here"] }), "command \"no-such-program-here\": not found in PATH");
    check(&json!({ "command": ["/no/such"] }), "command \"/no/such\": No such file or directory");
    check(&json!({ "command": ["/etc/passwd"] }), "command \"/etc/passwd\": Permission denied");
}

#[test]
fn a_missing_user_or_folder_is_named() {
    check(&json!({ "user": "nobody-of-this-name" }), "user \"nobody-of-this-name\": not found");
    check(&json!({ "cwd": "/no/such/folder" }), "cwd \"/no/such/folder\": No such file or directory (os error 2)");
}

#[test]
fn a_script_without_an_interpreter_is_explained() {
    let mut bed = Bed::new();
    let script = bed.path("script");
    std::fs::write(&script, "echo hello").expect("script");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    bed.set(&[custom(1, &[script.to_str().expect("path")])]);
    let message = bed.failure(0)["message"].as_str().expect("text").to_owned();
    assert!(message.ends_with("neither a program nor a script with a first line like \"#!/bin/sh\""), "{message}");
}

#[test]
fn a_worker_that_never_listens_is_killed_and_the_probe_explained() {
    let mut bed = Bed::new();
    bed.set(&[with(custom(1, &["sleep", "1000"]), &json!({ "boot_timeout_ms": 300 }))]);
    let failure = bed.failure(0);
    assert_eq!((&failure["reason"], &failure["status"]), (&json!("boot_timeout"), &json!({ "signal": 9 })));
    let message = failure["message"].as_str().expect("text");
    assert!(message.starts_with("not ready: unix:") && message.contains("No such file"), "{message}");
}

#[test]
fn a_socket_path_that_is_too_long_is_refused_before_a_start() {
    let mut bed = Bed::new();
    bed.set(&[with(pool(1, ""), &json!({ "name": "x".repeat(100) }))]);
    let failure = bed.failure(0);
    assert_eq!(failure["status"], "not_started");
    assert!(failure["message"].as_str().expect("text").contains("the kernel takes 107"), "{failure}");
}

#[test]
fn a_worker_that_the_kernel_kills_for_want_of_memory_is_told_apart() {
    let group = std::path::Path::new("/sys/fs/cgroup/memory").join(format!("tidegate-test-{}", std::process::id()));
    if std::fs::create_dir(&group).is_err() {
        // Without such a group there is nobody to kill; the count itself is tested beside its code.
        return;
    }
    let group = group.to_str().expect("text");
    let mut bed =
        Bed::started_by(&format!("echo 200000000 > {group}/memory.limit_in_bytes; echo $$ > {group}/cgroup.procs"));
    bed.set(&[custom(1, &["sh", "-c", "x=$(head -c 400000000 /dev/zero | tr '\\0' x); sleep 1000", "{socket}"])]);
    let failure = bed.failure(0);
    assert_eq!((&failure["reason"], &failure["status"]), (&json!("oom"), &json!({ "signal": 9 })));
    bed.set(&[pool(1, "")]);
    kill_nine(bed.ready(0).pid);
    let reasons = || bed.all(|line| line.pointer("/event/failure/reason").cloned());
    until("the other failure", || reasons().contains(&json!("crash_signal")));
    assert!(bed.shut_down().success());
    until("the end of the group", || std::fs::remove_dir(group).is_ok());
}
