//! Changed specs with real processes.

use serde_json::json;

use crate::bed::{Bed, lives, pool, with};

#[test]
fn a_changed_spec_replaces_every_worker_after_its_successor_is_ready() {
    let mut bed = Bed::new();
    bed.set(&[pool(2, "")]);
    let old = [bed.ready(0), bed.ready(1)];
    bed.set(&[pool(2, "echo v2")]);
    bed.wait("active", |line| (line.pointer("/event/generation_active/generation")? == 2).then_some(()));
    for worker in &old {
        bed.gone(worker);
    }
    let order = bed.all(|line| {
        let event = line.get("event")?;
        let worker = event.pointer("/ready/worker").map(|worker| ("ready", worker));
        let worker = worker.or_else(|| event.pointer("/drain/worker").map(|worker| ("drain", worker)));
        worker.map(|(what, worker)| format!("{what} {}.{}", worker["generation"], worker["slot"]))
    });
    assert_eq!(order[2..], ["ready 2.0", "drain 1.0", "ready 2.1", "drain 1.1"]);
}

#[test]
fn a_broken_release_is_given_up_and_the_old_one_serves_on() {
    let mut bed = Bed::new();
    bed.set(&[pool(2, "")]);
    let old = [bed.ready(0), bed.ready(1)];
    bed.set(&[pool(2, "echo cannot find module app >&2; exit 1")]);
    let failed = bed.wait("failed", |line| line.pointer("/event/generation_failed").cloned());
    assert_eq!(failed["generation"], 2);
    assert_eq!(failed["failure"]["last_lines"], json!(["cannot find module app"]));
    assert!(old.iter().all(|worker| lives(worker.pid)));
    assert!(bed.all(|line| line.pointer("/event/drain").cloned()).is_empty());
    let status = bed.status();
    assert_eq!((&status["state"], &status["generations"][1]["state"]), (&json!("healthy"), &json!("failed")));
}

#[test]
fn a_changed_count_or_timeout_touches_no_worker() {
    let mut bed = Bed::new();
    bed.set(&[pool(1, "")]);
    let first = bed.ready(0);
    bed.set(&[with(pool(2, ""), &json!({ "stop_timeout_ms": 100 }))]);
    let second = bed.ready(1);
    assert_eq!((second.slot(), &second.id["generation"]), (1, &json!(1)));
    assert!(lives(first.pid));
    bed.set(&[pool(1, "")]);
    bed.gone(&second);
    assert!(lives(first.pid));
}
