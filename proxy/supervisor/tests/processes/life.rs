//! Start, readiness, stop.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::json;

use crate::bed::{Bed, TESTBED, custom, kill_nine, lives, pool, until, with};

fn ask(mut connection: impl Read + Write) -> String {
    connection.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("send");
    let mut text = String::new();
    connection.read_to_string(&mut text).expect("receive");
    text.rsplit("\r\n").next().expect("body").to_owned()
}

#[test]
fn workers_start_and_answer_on_their_own_sockets() {
    let mut bed = Bed::new();
    bed.set(&[pool(3, "")]);
    let mut slots = Vec::new();
    for nth in 0..3 {
        let worker = bed.ready(nth);
        let connection = UnixStream::connect(worker.socket()).expect("connect");
        assert_eq!(ask(connection), worker.pid.to_string());
        slots.push(worker.slot());
    }
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2]);
    bed.wait("active", |line| line.pointer("/event/generation_active").cloned());
    assert_eq!(bed.status()["state"], "healthy");
}

#[test]
fn workers_get_a_port_of_their_own() {
    let mut bed = Bed::new();
    bed.set(&[with(custom(2, &[TESTBED, "worker", "{port}"]), &json!({ "transport": "port" }))]);
    let workers = [bed.ready(0), bed.ready(1)];
    assert_ne!(workers[0].address, workers[1].address);
    for worker in workers {
        let address = worker.address["tcp"].as_str().expect("a port");
        assert_eq!(ask(TcpStream::connect(address).expect("connect")), worker.pid.to_string());
    }
}

#[test]
fn workers_inherit_a_socket_that_is_theirs() {
    let mut bed = Bed::new();
    let slow = ["sh", "-c", "sleep 0.4; exec \"$0\" worker fd", TESTBED];
    bed.set(&[with(custom(2, &slow), &json!({ "transport": "fd", "ready": { "http": "/" } }))]);
    // It accepts connections before its program runs, and is not taken for ready by that.
    let path = bed.path("run/workers/app");
    let socket = || std::fs::read_dir(&path).ok()?.flatten().map(|entry| entry.path()).next();
    until("a socket", || socket().is_some_and(|socket| UnixStream::connect(socket).is_ok()));
    assert!(bed.all(|line| line.pointer("/event/ready").cloned()).is_empty());
    let workers = [bed.ready(0), bed.ready(1)];
    assert_ne!(workers[0].address, workers[1].address);
    for worker in &workers {
        let connection = UnixStream::connect(worker.socket()).expect("connect");
        let named = rustix::net::sockopt::socket_peercred(&connection).expect("credentials");
        assert_eq!(named.pid.as_raw_nonzero().get(), worker.pid, "the kernel names the worker itself");
        assert_eq!(ask(connection), worker.pid.to_string());
    }
    kill_nine(workers[0].pid);
    bed.gone(&workers[0]);
    let back = bed.ready(2);
    assert!(back.socket() != workers[0].socket() && !workers[0].socket().exists());
    assert!(bed.shut_down().success());
    assert!(!back.socket().exists() && !workers[1].socket().exists());
}

#[test]
fn a_worker_is_ready_when_its_page_says_so() {
    let mut bed = Bed::new();
    let status = bed.path("status");
    std::fs::write(&status, "503").expect("status");
    let command = [TESTBED, "worker", "{socket}", status.to_str().expect("path")];
    bed.set(&[with(custom(1, &command), &json!({ "ready": { "http": "/healthz" } }))]);
    bed.wait_nth(2, "third probe", |line| {
        (line.pointer("/output/line")? == "asked GET /healthz HTTP/1.1").then_some(())
    });
    assert!(bed.all(|line| line.pointer("/event/ready").cloned()).is_empty());
    std::fs::write(&status, "404").expect("status");
    bed.ready(0);
}

#[test]
fn a_killed_worker_is_back() {
    let mut bed = Bed::new();
    bed.set(&[pool(2, "")]);
    let workers = [bed.ready(0), bed.ready(1)];
    kill_nine(workers[0].pid);
    bed.gone(&workers[0]);
    let failure = bed.failure(0);
    assert_eq!((&failure["reason"], &failure["status"]), (&json!("crash_signal"), &json!({ "signal": 9 })));
    let back = bed.ready(2);
    assert_eq!(back.slot(), workers[0].slot());
    assert_ne!(back.socket(), workers[0].socket());
    assert!(lives(workers[1].pid) && !workers[0].socket().exists());
    let slot = usize::try_from(back.slot()).expect("small");
    assert_eq!(bed.status()["workers"][slot]["restarts"], 1);
}

#[test]
fn a_drain_ends_when_the_data_plane_says_so() {
    let mut bed = Bed::new();
    bed.set(&[with(pool(1, ""), &json!({ "drain_timeout_ms": 600_000 }))]);
    let worker = bed.ready(0);
    bed.send(&json!({ "restart_worker": { "pool": "app", "slot": 0 } }));
    bed.wait("drain", |line| (line.pointer("/event/drain/worker")? == &worker.id).then_some(()));
    assert!(lives(worker.pid));
    bed.send(&json!({ "drained": { "worker": worker.id } }));
    bed.gone(&worker);
    assert_ne!(bed.ready(1).pid, worker.pid);
    assert!(bed.all(|line| line.pointer("/event/failure").cloned()).is_empty());
}

#[test]
fn a_worker_that_ignores_the_stop_signal_is_killed_with_its_group() {
    let mut bed = Bed::new();
    let stubborn = "trap '' TERM; sleep 1000 & echo child $!";
    bed.set(&[with(pool(1, stubborn), &json!({ "stop_timeout_ms": 300 }))]);
    let worker = bed.ready(0);
    let child: i32 = bed.printed("child ").parse().expect("pid");
    assert!(lives(child));
    bed.send(&json!({ "set_count": { "pool": "app", "count": 0 } }));
    bed.gone(&worker);
    until("end of the group", || !lives(worker.pid) && !lives(child));
    let (stopping, gone) = bed.wait("times", |line| {
        let transition = line.pointer("/event/transition").filter(|one| one["from"] == "stopping")?;
        Some((transition["in_state"]["nanos"].as_u64()?, transition["reason"].clone()))
    });
    assert!(stopping >= 300_000_000, "{stopping}");
    assert_eq!(gone, "scale_down");
}

#[test]
fn a_shutdown_leaves_no_process_and_no_socket() {
    let mut bed = Bed::new();
    bed.set(&[pool(2, "")]);
    let workers = [bed.ready(0), bed.ready(1)];
    assert!(bed.shut_down().success());
    assert!(workers.iter().all(|worker| !lives(worker.pid) && !worker.socket().exists()));
    bed.wait("stopped", |line| (line["event"] == "stopped").then_some(()));
}

#[test]
fn the_supervisor_outlives_a_defect() {
    let mut bed = Bed::started_by("export PANIC_ONCE=1");
    bed.set(&[pool(2, "")]);
    let fault = bed.wait("fault", |line| line.pointer("/event/fault/message").cloned());
    assert_eq!(fault, "a defect of the sink");
    let worker = bed.ready(0);
    kill_nine(worker.pid);
    assert_eq!(bed.ready(1).slot(), worker.slot());
    assert!(bed.shut_down().success());
}
