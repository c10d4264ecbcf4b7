//! When a worker may get requests: by what it prints, says, or lets pass, and what becomes of one that fails later.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{Bed, TESTBED, custom, lives, pool, until, with};

/// The pool of one worker that listens at once, while `script` goes on beside it.
fn beside(script: &str, ready: &Value) -> Value {
    with(pool(1, &format!("({script}) &")), &json!({ "ready": ready }))
}

/// A shell's wait for a file.
fn wait_for(file: &std::path::Path) -> String {
    format!("while [ ! -e {} ]; do sleep 0.01; done", file.display())
}

fn say(text: &str) -> String {
    format!("\"$0\" notify '{text}'")
}

#[track_caller]
fn is_not_ready(bed: &Bed) {
    assert!(bed.all(|line| line.pointer("/event/ready").cloned()).is_empty());
}

#[track_caller]
fn says(bed: &mut Bed, text: &str) {
    until(text, || bed.status()["workers"][0]["says"] == text);
}

#[test]
fn a_worker_is_ready_when_it_says_so() {
    let mut bed = Bed::new();
    let go = bed.path("go");
    let script =
        format!("{}; {}; {}", say("STATUS=loading"), wait_for(&go), say("READY=1\nSTATUS=up, 0 jobs\nWATCHDOG=1"));
    bed.set(&[beside(&script, &json!("notify"))]);
    says(&mut bed, "loading");
    is_not_ready(&bed);
    std::fs::write(go, "").expect("go");
    bed.ready(0);
    says(&mut bed, "up, 0 jobs");
    assert!(!bed.status()["workers"][0]["alive"].is_null());
}

#[test]
fn others_are_not_heard() {
    let mut bed = Bed::new();
    let go = bed.path("go");
    let script = format!("echo \"at $NOTIFY_SOCKET\"; {}; {}", wait_for(&go), say("STATUS=mine"));
    bed.set(&[beside(&script, &json!("notify"))]);
    let path = bed.printed("at ");
    let stranger = std::os::unix::net::UnixDatagram::unbound().expect("socket");
    stranger.send_to(b"READY=1\nSTATUS=forged", &path).expect("send");
    std::fs::write(go, "").expect("go");
    // In order, so the first one has been looked at when the second one shows.
    says(&mut bed, "mine");
    is_not_ready(&bed);
}

#[test]
fn a_worker_is_ready_when_it_prints_so() {
    for descriptor in [1, 2] {
        let mut bed = Bed::new();
        let go = bed.path("go");
        let script =
            format!("echo cache filling >&{descriptor}; {}; echo cache filled: 3 >&{descriptor}", wait_for(&go));
        bed.set(&[beside(&script, &json!({ "log": "^cache filled: [0-9]+$" }))]);
        bed.printed("cache filling");
        is_not_ready(&bed);
        std::fs::write(go, "").expect("go");
        bed.ready(0);
    }
}

#[test]
fn a_line_that_is_printed_first_of_all_counts() {
    let mut bed = Bed::new();
    let ready = json!({ "all_of": [{ "log": "^first$" }, "connect"] });
    bed.set(&[with(pool(3, "echo first"), &json!({ "ready": ready }))]);
    for nth in 0..3 {
        bed.ready(nth);
    }
}

#[test]
fn a_worker_is_ready_after_its_delay() {
    let mut bed = Bed::new();
    bed.set(&[with(pool(1, ""), &json!({ "ready": { "delay_ms": 700 } }))]);
    bed.ready(0);
    let took = bed.wait("its way into service", |line| {
        let transition = line.pointer("/event/transition")?;
        (transition["to"] == "ready").then(|| transition["in_state"].clone())
    });
    let took = Duration::from_secs(took["secs"].as_u64().expect("seconds"))
        + Duration::from_nanos(took["nanos"].as_u64().expect("nanoseconds"));
    assert!(took >= Duration::from_millis(700), "{took:?}");
}

#[test]
fn what_was_missing_is_told() {
    let mut bed = Bed::new();
    let ready = json!({ "all_of": [{ "log": "ready to serve" }, "notify", { "http": "/healthz" }] });
    let status = bed.path("status");
    std::fs::write(&status, "503").expect("status");
    let command = [TESTBED, "worker", "{socket}", status.to_str().expect("path")];
    bed.set(&[with(custom(1, &command), &json!({ "ready": ready, "boot_timeout_ms": 500 }))]);
    let failure = bed.failure(0);
    let message = failure["message"].as_str().expect("a message");
    assert_eq!(failure["reason"], "boot_timeout");
    for part in ["no line of its output has matched \"ready to serve\"", "it has not sent READY=1", "status 503"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_boot_that_asks_for_time_gets_it() {
    let mut bed = Bed::new();
    let script = format!("{}; sleep 1; {}", say("EXTEND_TIMEOUT_USEC=8000000"), say("READY=1"));
    bed.set(&[with(beside(&script, &json!("notify")), &json!({ "boot_timeout_ms": 500 }))]);
    bed.ready(0);
    assert!(bed.all(|line| line.pointer("/event/failure").cloned()).is_empty());
}

fn rotation(bed: &Bed, nth: usize) -> Option<String> {
    let out = bed.wait_nth(nth, "rotation", |line| line.pointer("/event/rotation/out").cloned());
    out.as_str().map(str::to_owned)
}

#[test]
fn a_ready_worker_that_fails_later_is_out_until_it_passes() {
    let mut bed = Bed::new();
    let status = bed.path("status");
    let command = [TESTBED, "worker", "{socket}", status.to_str().expect("path")];
    let ready = json!({ "ready": { "http": "/healthz" }, "ready_interval_ms": 50 });
    bed.set(&[with(custom(1, &command), &ready)]);
    let worker = bed.ready(0);
    std::fs::write(&status, "503").expect("status");
    let why = rotation(&bed, 0).expect("a reason");
    assert!(why.contains("status 503"), "{why}");
    assert_eq!(bed.status()["ready"], 0);
    std::fs::write(&status, "200").expect("status");
    assert_eq!(rotation(&bed, 1), None);
    assert!(lives(worker.pid), "nobody ends it for that");
    assert_eq!(bed.status()["ready"], 1);
}

#[test]
fn a_worker_that_stops_itself_gets_no_more_requests() {
    let mut bed = Bed::new();
    let go = bed.path("go");
    let script = format!("{}; {}; {}", say("READY=1"), wait_for(&go), say("STOPPING=1"));
    bed.set(&[beside(&script, &json!("notify"))]);
    let worker = bed.ready(0);
    std::fs::write(go, "").expect("go");
    assert_eq!(rotation(&bed, 0).as_deref(), Some("it says that it is stopping"));
    assert!(lives(worker.pid));
}

#[test]
fn nothing_is_left_of_a_notification_socket() {
    let mut bed = Bed::new();
    bed.set(&[beside(&format!("echo \"at $NOTIFY_SOCKET\"; {}", say("READY=1")), &json!("notify"))]);
    let worker = bed.ready(0);
    let path = bed.printed("at ");
    assert!(std::path::Path::new(&path).exists());
    assert_eq!(std::path::Path::new(&path).parent(), worker.socket().parent());
    bed.shut_down();
    assert!(!std::path::Path::new(&path).exists());
}
