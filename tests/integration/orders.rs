//! What an operator orders of running workers, by the commands: they are shown, restarted, drained and scaled, and what
//! happens to them is told. No request is lost by any of it.

use std::{collections::BTreeSet, fs, time::Duration};

use serde_json::Value;
use tidegate_tests::{
    binary::Binary,
    client::{Ask, Kind},
    edge::{Edge, Worker},
    load::Load,
    process::{Finished, Process, Signal, send_signal},
    site::Site,
    wait::{wait_for, wait_until},
};

const SOON: Duration = Duration::from_secs(15);

fn pids(workers: &[Worker]) -> Vec<i32> {
    workers.iter().map(|worker| worker.pid).collect()
}

fn load(edge: &Edge) -> Load {
    Load::start(&edge.clients(), 8, "/tiny", b"hello, world\n".to_vec())
}

async fn some_more(load: &Load) {
    let sent = load.sent();
    wait_for("more load", SOON, || (load.sent() > sent + 50).then_some(())).await;
}

/// The commands' exit code, and all that they said.
fn told(finished: &Finished) -> (Option<i32>, String) {
    (finished.status.code(), format!("{}{}", finished.stdout, finished.stderr))
}

async fn detail(edge: &Edge, slot: u64) -> Value {
    let listed = edge.home().tidegate(&["workers", "app", "--format", "json"]).await;
    let listed: Value =
        serde_json::from_str(&listed.stdout).unwrap_or_else(|error| panic!("{error}: {}", listed.stdout));
    let workers = listed["upstreams"][0]["workers"].as_array().expect("workers").clone();
    workers.into_iter().find(|worker| worker["slot"] == slot).expect("the slot")
}

#[tokio::test]
async fn workers_are_shown_with_what_they_do() {
    let edge = Edge::start(Site::demo_workers(2, &[])).await;
    let workers = edge.ready_workers("app", 2).await;
    for _ in 0..10 {
        edge.client(Kind::Http1).get("/tiny").await.assert(200, b"hello, world\n");
    }
    let mut requests = 0;
    for worker in &workers {
        let detail = detail(&edge, worker.slot).await;
        assert_eq!((&detail["pid"], &detail["state"]), (&worker.pid.into(), &"ready".into()), "{detail}");
        assert!(detail["rss_bytes"].as_u64() > Some(100_000) && detail["threads"].as_u64() >= Some(1), "{detail}");
        assert!(detail["open_fds"].as_u64() >= Some(3) && detail["cpus"].is_f64(), "{detail}");
        requests += detail["requests"].as_u64().expect("a count");
    }
    assert_eq!(requests, 10);
    let table = edge.home().tidegate(&["workers"]).await;
    for shown in ["UPSTREAM app: healthy, 2 of 2 workers ready", "MEMORY", &workers[1].pid.to_string()] {
        assert!(table.stdout.contains(shown), "no '{shown}' in\n{}", table.stdout);
    }
}

#[tokio::test]
async fn who_is_not_there_is_told_with_who_is() {
    let edge = Edge::start(Site::demo_workers(2, &[])).await;
    let rows: [(&[&str], &str); 7] = [
        (&["workers", "apq"], "\"apq\" is no upstream with workers; they are: app"),
        (&["restart", "apq"], "they are: app"),
        (&["events", "apq"], "they are: app"),
        (&["restart", "app", "2"], "upstream \"app\" has no slot 2; they are: 0, 1"),
        (&["drain", "app", "7"], "they are: 0, 1"),
        (&["scale", "app", "many"], "write a number up to 1000, +1, -1 or auto"),
        (&["drain", "app"], "SLOT"),
    ];
    for (words, expected) in rows {
        let (code, text) = told(&edge.home().tidegate(words).await);
        assert!(code == Some(2) && text.contains(expected), "{words:?}: {code:?} {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_replaces_every_worker_and_loses_no_request() {
    let edge = Edge::start(Site::demo_workers(3, &[])).await;
    let before = edge.ready_workers("app", 3).await;
    let load = load(&edge);
    some_more(&load).await;
    let (code, text) = told(&edge.home().tidegate(&["restart", "app"]).await);
    assert_eq!(code, Some(0), "{text}");
    let after = edge.ready_workers("app", 3).await;
    some_more(&load).await;
    load.stop().await.assert_clean();
    let all: BTreeSet<i32> = pids(&before).into_iter().chain(pids(&after)).collect();
    assert_eq!(all.len(), 6, "{before:?} {after:?}");
    for (old, new) in before.iter().zip(&after) {
        let line = format!("app/{}: pid {} serves instead of pid {}", old.slot, new.pid, old.pid);
        assert!(text.contains(&line), "no '{line}' in\n{text}");
    }
    assert!(text.contains("app: 3 restarted in"), "{text}");

    let (code, text) = told(&edge.home().tidegate(&["restart", "app", "1"]).await);
    assert_eq!(code, Some(0), "{text}");
    let last = edge.ready_workers("app", 3).await;
    assert_eq!((last[0].pid, last[2].pid), (after[0].pid, after[2].pid));
    assert_ne!(last[1].pid, after[1].pid);
}

/// Workers that do not start while a file is there.
fn breakable() -> Site {
    let script =
        "if test -e @dir@/broken; then echo cannot import the app >&2; exit 3; fi; exec \\\"$0\\\" --uds \\\"$1\\\"";
    Site::proxy(&format!("workers: {{ command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"], count: 2 }}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_fails_says_why_and_leaves_who_serves() {
    let edge = Edge::start(breakable()).await;
    let before = edge.ready_workers("app", 2).await;
    let load = load(&edge);
    fs::write(edge.home().path().join("broken"), "").expect("the directory is ours");
    let (code, text) = told(&edge.home().tidegate(&["restart", "app"]).await);
    assert_eq!(code, Some(1), "{text}");
    for shown in ["app/0", "boot_exit", "exit code 3", "| cannot import the app", "keeps serving"] {
        assert!(text.contains(shown), "no '{shown}' in\n{text}");
    }
    some_more(&load).await;
    assert_eq!(pids(&edge.ready_workers("app", 2).await), pids(&before));
    load.stop().await.assert_clean();

    let (code, text) = told(&edge.home().tidegate(&["scale", "app", "3"]).await);
    assert!(code == Some(1) && text.contains("cannot import the app"), "{code:?} {text}");
    fs::remove_file(edge.home().path().join("broken")).expect("it is there");
    edge.ready_workers("app", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_worker_finishes_what_it_has_and_its_slot_stays_empty() {
    let mut edge = Edge::start(Site::demo_workers(2, &[])).await;
    let before = edge.ready_workers("app", 2).await;
    let client = edge.client(Kind::Http1);
    let slow = tokio::spawn(async move { client.send(Ask::post("/slow?ms=2000", "")).await });
    let busy = async || {
        let workers = edge.ready_workers("app", 2).await;
        for worker in workers {
            if detail(&edge, worker.slot).await["in_flight"] == 1 {
                return Some(worker);
            }
        }
        None
    };
    let busy = wait_until("the request in flight", SOON, busy).await;
    let slot = busy.slot.to_string();
    let load = load(&edge);
    let (code, text) = told(&edge.home().tidegate(&["drain", "app", &slot]).await);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("draining, 1 requests under way") && text.contains("tidegate restart app"), "{text}");
    let answer = slow.await.expect("no panic").expect("an answer");
    assert_eq!((answer.status.as_u16(), &answer.json()["pid"]), (200, &busy.pid.into()), "it may finish");

    assert_eq!(detail(&edge, busy.slot).await["state"], "drained");
    let table = edge.home().tidegate(&["status"]).await;
    assert!(table.stdout.contains("1 of 2 workers ready, 1 drained"), "{}", table.stdout);
    // The other one crashes, and a reload says what the file said before: the slot stays empty.
    load.stop().await.assert_clean();
    let other = before.iter().find(|worker| worker.slot != busy.slot).expect("two workers");
    send_signal(other.pid, Signal::SIGKILL);
    let reloaded = edge.reload(&Site::demo_workers(2, &[]).replace("main", "other")).await;
    assert!(reloaded.status.success(), "{}", reloaded.stderr);
    let back = |workers: &[Worker]| workers.iter().any(|worker| worker.is_ready() && worker.pid != other.pid);
    let workers = edge.workers_until("app", SOON, back).await;
    let drained: Vec<_> = workers.iter().filter(|worker| worker.state == "drained").map(|worker| worker.slot).collect();
    assert_eq!((workers.len(), drained), (2, vec![busy.slot]), "{workers:?}");

    let (code, text) = told(&edge.home().tidegate(&["restart", "app", &slot]).await);
    assert!(code == Some(0) && text.contains("serves\n"), "{code:?} {text}");
    edge.ready_workers("app", 2).await;
}

#[tokio::test]
async fn the_last_worker_can_be_drained_and_that_is_told() {
    let edge = Edge::start(Site::demo_workers(1, &[])).await;
    let (code, text) = told(&edge.home().tidegate(&["drain", "app", "0"]).await);
    assert!(code == Some(0) && text.contains("warning: no worker of app serves now"), "{code:?} {text}");
    let answer = edge.client(Kind::Http1).get("/tiny").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let (code, text) = told(&edge.home().tidegate(&["restart", "app"]).await);
    assert_eq!(code, Some(0), "{text}");
    edge.client(Kind::Http1).get("/tiny").await.assert(200, b"hello, world\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_of_workers_holds_until_it_is_given_back_or_the_file_changes_it() {
    let mut edge = Edge::start(Site::demo_workers(2, &[])).await;
    edge.ready_workers("app", 2).await;
    let load = load(&edge);
    for (number, shown, count) in [
        ("4", "app: 2 -> 4 workers", 4),
        ("+1", "app: 4 -> 5 workers", 5),
        ("-3", "app: 5 -> 2 workers", 2),
        ("-9", "app: 2 -> 1 workers", 1),
        ("3", "app: 1 -> 3 workers", 3),
    ] {
        let (code, text) = told(&edge.home().tidegate(&["scale", "app", number]).await);
        assert!(code == Some(0) && text.contains(shown), "{number}: {code:?} {text}");
        assert_eq!(edge.workers("app").await.len(), count, "{number}: {text}");
    }
    load.stop().await.assert_clean();
    let workers = edge.ready_workers("app", 3).await;
    send_signal(workers[2].pid, Signal::SIGKILL);
    let back = |workers: &[Worker]| workers.iter().map(|worker| worker.restarts).sum::<u64>() == 1;
    edge.workers_until("app", SOON, back).await;
    let same = Site::demo_workers(2, &[]).replace("main", "other");
    assert!(edge.reload(&same).await.status.success());
    assert_eq!(edge.ready_workers("app", 3).await.len(), 3, "neither a crash nor a reload takes it back");
    let table = edge.home().tidegate(&["workers", "app"]).await;
    assert!(table.stdout.contains("number chosen by an operator"), "{}", table.stdout);

    let (code, text) = told(&edge.home().tidegate(&["scale", "app", "auto"]).await);
    assert!(code == Some(0) && text.contains("3 -> 2 workers, as the file says"), "{code:?} {text}");
    let (code, text) = told(&edge.home().tidegate(&["scale", "app", "1"]).await);
    assert_eq!(code, Some(0), "{text}");
    assert!(edge.reload(&Site::demo_workers(3, &[])).await.status.success());
    edge.ready_workers("app", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_number_takes_workers_that_are_idle() {
    let edge = Edge::start(Site::demo_workers(4, &[])).await;
    let before = edge.ready_workers("app", 4).await;
    let slow = (0..2).map(|_| {
        let client = edge.client(Kind::Http1);
        tokio::spawn(async move { client.send(Ask::post("/slow?ms=5000", "")).await })
    });
    let slow: Vec<_> = slow.collect();
    let busy = wait_until("two busy workers", SOON, async || {
        let mut busy = Vec::new();
        for worker in &before {
            if detail(&edge, worker.slot).await["in_flight"] == 1 {
                busy.push(worker.clone());
            }
        }
        (busy.len() == 2).then_some(busy)
    })
    .await;
    let (code, text) = told(&edge.home().tidegate(&["scale", "app", "3"]).await);
    assert_eq!(code, Some(0), "{text}");
    let left = edge.ready_workers("app", 3).await;
    assert!(busy.iter().all(|worker| left.contains(worker)), "{busy:?} {left:?}");
    assert_eq!(left[0], before[0], "the first slot stays");
    assert!(slow.iter().all(|request| !request.is_finished()), "nobody waited for their requests");
    for request in slow {
        assert_eq!(request.await.expect("no panic").expect("an answer").status, 200);
    }
    let (code, text) = told(&edge.home().tidegate(&["scale", "app", "4"]).await);
    assert_eq!(code, Some(0), "{text}");
    let slots: Vec<u64> = edge.ready_workers("app", 4).await.iter().map(|worker| worker.slot).collect();
    assert_eq!(slots, [0, 1, 2, 3], "the number that became free is given again");
}

#[tokio::test]
async fn ttin_and_ttou_step_and_never_take_the_last_worker() {
    let mut edge = Edge::start(Site::demo_workers(1, &[])).await;
    for (signal, count) in [
        (Signal::SIGTTIN, 2),
        (Signal::SIGTTIN, 3),
        (Signal::SIGTTOU, 2),
        (Signal::SIGTTOU, 1),
        (Signal::SIGTTOU, 1),
        (Signal::SIGTTIN, 2),
    ] {
        edge.signal(signal);
        wait_until("the new number", SOON, async || {
            (edge.status().await["upstreams"][0]["target"] == count).then_some(())
        })
        .await;
        edge.workers_until("app", SOON, |workers| {
            workers.len() == count as usize && workers.iter().all(Worker::is_ready)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_told_as_they_come_until_the_end() {
    let edge = Edge::start(Site::demo_workers(2, &[])).await;
    let before = edge.ready_workers("app", 2).await;
    let past = edge.home().tidegate(&["events"]).await.stdout;
    assert!(past.contains("starting -> ready after") && past.contains("app starting -> healthy"), "{past}");
    let mut command = Binary::Tidegate.command();
    command.args(["events", "app", "--follow", "--format", "json", "-n", "1", "-c"]).arg(edge.home().site_file());
    let mut follower = Process::start(command);
    let output = follower.output();
    wait_for("the last event of the past", SOON, || (output.stdout().lines().count() == 1).then_some(())).await;
    send_signal(before[1].pid, Signal::SIGKILL);
    let events =
        || -> Vec<Value> { output.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect() };
    let failure =
        wait_for("the failure", SOON, || events().into_iter().find(|event| event["event"] == "failure")).await;
    assert_eq!(
        (&failure["upstream"], &failure["slot"], &failure["pid"], &failure["reason"], &failure["status"]),
        (&"app".into(), &1.into(), &before[1].pid.into(), &"crash_signal".into(), &"signal 9".into()),
    );
    let ready = |event: &Value| event["to"] == "ready" && event["slot"] == 1 && event["from"] == "starting";
    let ready = wait_for("the new worker", SOON, || events().into_iter().find(ready)).await;
    assert!(ready["ms"].as_u64().is_some() && ready["spawn"].as_u64() > failure["spawn"].as_u64(), "{ready}");
    let numbers: Vec<u64> = events().iter().filter_map(|event| event["number"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|a, b| a + 1 == *b), "none is missing, none comes twice: {numbers:?}");

    let stopped = edge.stop().await;
    stopped.assert_clean();
    assert!(stopped.took < Duration::from_secs(4), "who follows does not keep it: {:?}", stopped.took);
    let status = wait_for("the follower's end", SOON, || follower.status()).await;
    assert!(status.success(), "{status} {}", output.both());
    assert!(output.stdout().contains("\"stopped\""), "{}", output.both());
}

#[tokio::test]
async fn who_does_not_wait_long_enough_is_told_that_it_goes_on() {
    let edge = Edge::start(Site::demo_workers(1, &["--boot-delay", "1000"])).await;
    let before = edge.ready_workers("app", 1).await;
    let (code, text) = told(&edge.home().tidegate(&["restart", "app", "--timeout", "0"]).await);
    assert!(code == Some(3) && text.contains("not done after 0 seconds; it goes on"), "{code:?} {text}");
    let new = |workers: &[Worker]| workers.len() == 1 && workers[0].is_ready() && workers[0].pid != before[0].pid;
    let after = edge.workers_until("app", SOON, new).await;
    let (code, text) = told(&edge.home().tidegate(&["restart", "app", "--no-wait"]).await);
    assert!(code == Some(0) && text == "app: ordered\n", "{code:?} {text}");
    let new = |workers: &[Worker]| workers.len() == 1 && workers[0].is_ready() && workers[0].pid != after[0].pid;
    edge.workers_until("app", SOON, new).await;
}
