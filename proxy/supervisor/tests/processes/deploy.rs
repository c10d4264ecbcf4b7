//! Changed specs with real processes.

use serde_json::json;

use crate::bed::{Bed, kill_nine, lives, pool, with};

#[test]
fn a_changed_spec_replaces_every_worker_after_its_successor_is_ready() {
    // As it is by default depends on the memory of the machine.
    let rolling = |pool| with(pool, &json!({ "deploy": { "strategy": "rolling" } }));
    let mut bed = Bed::new();
    bed.set(&[rolling(pool(2, ""))]);
    let old = [bed.ready(0), bed.ready(1)];
    bed.set(&[rolling(pool(2, "echo v2"))]);
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
    assert_eq!(failed["cause"]["worker"]["last_lines"], json!(["cannot find module app"]));
    assert!(old.iter().all(|worker| lives(worker.pid)));
    assert!(bed.all(|line| line.pointer("/event/drain").cloned()).is_empty());
    let status = bed.status();
    assert_eq!((&status["deploys"][1]["outcome"], &status["deploys"][1]["replaces"]), (&json!("reverted"), &json!(1)));
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

#[test]
fn a_respawn_keeps_the_folder_of_its_generation_though_the_link_points_elsewhere_by_then() {
    let mut bed = Bed::new();
    let (one, two, current) = (bed.path("one"), bed.path("two"), bed.path("current"));
    for folder in [&one, &two] {
        std::fs::create_dir(folder).expect("folder");
    }
    std::os::unix::fs::symlink(&one, &current).expect("link");
    bed.set(&[with(pool(1, ""), &json!({ "cwd": current }))]);
    let first = bed.ready(0);
    std::fs::remove_file(&current).expect("link");
    std::os::unix::fs::symlink(&two, &current).expect("link");
    kill_nine(first.pid);
    let again = bed.ready(1);
    assert_eq!(folder_of(again.pid), one, "the old release until another one is asked for");
    bed.send(&json!({ "deploy": { "pool": "app", "id": 5 } }));
    let ended = bed.wait("the end", |line| line.pointer("/event/deploy_ended").filter(|end| end["id"] == 5).cloned());
    assert_eq!((&ended["outcome"], &ended["generation"]), (&json!("done"), &json!(2)));
    assert_eq!(folder_of(bed.ready(2).pid), two);
}

fn folder_of(pid: i32) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/cwd")).expect("it runs")
}
