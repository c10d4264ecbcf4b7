//! Workers that are replaced although they serve.

use serde_json::json;

use crate::bed::{Bed, lives, pool, until, with};

#[test]
fn a_worker_that_served_its_requests_lives_until_its_replacement_is_ready() {
    let mut bed = Bed::new();
    let recycle = json!({ "recycle": { "max_requests": 5, "jitter": 0 }, "drain_timeout_ms": 600_000 });
    bed.set(&[with(pool(1, ""), &recycle)]);
    let old = bed.ready(0);
    bed.progress(&old, 5);
    let new = bed.ready(1);
    bed.wait("drain", |line| (line.pointer("/event/drain/worker")? == &old.id).then_some(()));
    assert!(lives(old.pid) && lives(new.pid));
    assert_eq!(new.slot(), old.slot());
    bed.send(&json!({ "drained": { "worker": old.id } }));
    bed.gone(&old);
    until("its end", || !lives(old.pid));
    let exit = bed.status()["workers"][0]["last_exit"].clone();
    assert_eq!(exit["reason"], "recycle_requests");
    assert!(bed.all(|line| line.pointer("/event/failure").cloned()).is_empty());
}

#[test]
fn memory_of_the_whole_tree_counts() {
    let mut bed = Bed::new();
    // The shell beside the worker holds 60 MB.
    let child = "(x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo grown; sleep 1000; : $x) &";
    bed.set(&[with(pool(1, child), &json!({ "recycle": { "hard_rss": 50_000_000 } }))]);
    let old = bed.ready(0);
    bed.gone_within(std::time::Duration::from_secs(25), &old);
    let exit = bed.status()["workers"][0]["last_exit"].clone();
    assert_eq!(exit["reason"], "memory_hard");
    until("its end", || !lives(old.pid));
}
