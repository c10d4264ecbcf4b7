//! Workers that say that they live, or do not.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bed::{Bed, lives, pool, signal, until, with};

/// One that says that it lives until there is a file.
fn petting(bed: &Bed, hang: &Value) -> Value {
    let script = "echo \"told $WATCHDOG_PID $$ $WATCHDOG_USEC $NOTIFY_SOCKET\"; \
                  (while [ ! -e @ ]; do \"$0\" notify WATCHDOG=1; sleep 0.1; done) &";
    let script = script.replace('@', &bed.path("mute").display().to_string());
    with(pool(1, &script), &json!({ "hang": hang }))
}

fn asked(bed: &Bed) -> usize {
    bed.all(|line| line.pointer("/output/line")?.as_str()?.strip_prefix("asked GET /alive").map(|_| ())).len()
}

#[test]
fn one_that_says_so_is_not_asked_and_one_that_does_not_is() {
    let mut bed = Bed::new();
    bed.set(&[petting(&bed, &json!({ "suspect_after_ms": 300, "watchdog_ms": 1_000, "path": "/alive" }))]);
    let told = bed.printed("told ");
    let worker = bed.ready(0);
    let words: Vec<&str> = told.split(' ').collect();
    let pid = worker.pid.to_string();
    assert_eq!(words[..3], [&pid, &pid, "1000000"], "{told}");
    assert!(std::path::Path::new(words[3]).exists(), "{told}");
    let begun = std::time::Instant::now();
    until("two seconds", || begun.elapsed().as_secs() >= 2);
    assert_eq!(asked(&bed), 0, "it says that it lives");
    std::fs::write(bed.path("mute"), "").expect("mute");
    until("questions, with trust between them", || asked(&bed) == 2);
    assert!(lives(worker.pid));
    assert_eq!(bed.status()["workers"][0]["state"], "ready");
}

#[test]
fn one_that_neither_says_so_nor_answers_is_replaced() {
    let mut bed = Bed::new();
    let hang = json!({ "suspect_after_ms": 3_600_000, "watchdog_ms": 500, "tries": 2, "try_timeout_ms": 200 });
    bed.set(&[petting(&bed, &hang)]);
    let first = bed.ready(0);
    std::fs::write(bed.path("mute"), "").expect("mute");
    signal(first.pid, Signal::STOP);
    let problem = bed.wait("hung", |line| Some(line.pointer("/event/hung/problem")?.as_str()?.to_owned()));
    assert!(problem.starts_with("it has not said that it lives (WATCHDOG=1) for "), "{problem}");
    bed.gone(&first);
    let second = bed.ready(1);
    assert_ne!(second.pid, first.pid);
}

/// CPU time of one that is stopped before it serves, beside what `script` leaves running, and in which time; in milliseconds.
fn used(script: &str) -> (u64, u64) {
    let mut bed = Bed::new();
    let hang = json!({ "suspect_after_ms": 3_600_000, "watchdog_ms": 300, "tries": 3, "try_timeout_ms": 400 });
    bed.set(&[with(pool(1, script), &json!({ "hang": hang }))]);
    signal(bed.ready(0).pid, Signal::STOP);
    let hung = bed.wait("hung", |line| line.pointer("/event/hung").cloned());
    let milliseconds = |field: &str| {
        let time = &hung["cpu"][field];
        time["secs"].as_u64().expect("seconds") * 1_000 + time["nanos"].as_u64().expect("nanoseconds") / 1_000_000
    };
    let (used, within) = (milliseconds("used"), milliseconds("within"));
    let told = hung["evidence"][0].as_str().expect("a line");
    let expected = format!("used {}.{:02} s of CPU in {}.", used / 1_000, used % 1_000 / 10, within / 1_000);
    assert!(told.contains(&expected), "{told}, not {expected}");
    (used, within)
}

#[test]
fn what_its_processes_used_tells_one_that_computes_from_one_that_waits() {
    // What it used before is not what it uses in doubt.
    let (used_by_none, within) = used("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
    assert_eq!(used_by_none, 0, "a stopped process uses nothing");
    assert!((1_200..5_000).contains(&within), "three questions of 400 ms took {within} ms");
    // Not the main process, but one below it.
    let (used_by_loop, within) = used("(while :; do :; done) &");
    assert!(used_by_loop * 10 >= within && used_by_loop <= within + 20, "{used_by_loop} ms in {within} ms");
}
