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
