//! What workers print: shown by a command, kept in files that begin anew, and never in the way of a request.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::Value;
use tidegate_tests::{
    binary::Binary,
    client::{Client, Kind},
    edge::{Edge, Home},
    process::{Process, Signal, send_signal},
    site::Site,
    wait::{wait_for, wait_until},
};

const SOON: Duration = Duration::from_secs(15);

/// Two workers that print who they are before they serve; `more` is what stands beside their command.
fn talking(more: &str) -> Site {
    let script = "echo slot $WORKER_SLOT is here; echo to stderr >&2; exec \\\"$0\\\" --uds \\\"$1\\\"";
    Site::proxy(&format!("workers:\n  command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"]\n  count: 2\n{more}"))
}

async fn logs(edge: &Edge, words: &[&str]) -> String {
    let finished = edge.home().tidegate(&[&["logs"], words].concat()).await;
    assert!(finished.status.success(), "{}", finished.stderr);
    finished.stdout
}

/// Without what the demo itself says.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.contains("listens on")).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn the_last_lines_are_shown_of_all_workers_or_one() {
    let edge = Edge::start(talking("")).await;
    let workers = edge.ready_workers("app", 2).await;
    let all = logs(&edge, &[]).await;
    assert_eq!(
        sorted(&all),
        ["app/0 | slot 0 is here", "app/0 | to stderr", "app/1 | slot 1 is here", "app/1 | to stderr"]
    );
    assert_eq!(sorted(&logs(&edge, &["app/1"]).await), ["slot 1 is here", "to stderr"]);
    assert_eq!(logs(&edge, &["app", "-n", "1"]).await.lines().count(), 1);
    let json = logs(&edge, &["app/0", "--format", "json"]).await;
    let first: Value = serde_json::from_str(json.lines().next().expect("a line")).expect("an object");
    assert_eq!(
        (&first["upstream"], &first["slot"], &first["pid"], &first["stream"], &first["line"]),
        (&"app".into(), &0.into(), &workers[0].pid.into(), &"stdout".into(), &"slot 0 is here".into()),
    );
    // What a worker said last can be read when it is gone.
    send_signal(workers[0].pid, Signal::SIGKILL);
    edge.workers_until("app", SOON, |now| now[0].is_ready() && now[0].pid != workers[0].pid).await;
    assert_eq!(sorted(&logs(&edge, &["app/0"]).await).len(), 4);

    for (words, expected) in [(["logs", "apq"], "they are: app"), (["logs", "app/x"], "such as app/0")] {
        let refused = edge.home().tidegate(&words).await;
        assert!(refused.status.code() == Some(2) && refused.stderr.contains(expected), "{}", refused.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_sees_each_line_once_as_it_comes() {
    let edge = Edge::start(Site::demo_workers(1, &["--log-requests"])).await;
    let mut command = Binary::Tidegate.command();
    command.args(["logs", "app", "-f", "-n", "0", "-c"]).arg(edge.home().site_file());
    let mut follower = Process::start(command);
    let output = follower.output();
    let client = edge.client(Kind::Http1);
    // Whether it has begun to follow only a line can tell.
    wait_until("the follower", SOON, async || {
        client.get("/tiny").await;
        output.stdout().contains("/tiny").then_some(())
    })
    .await;
    for number in 0..200 {
        client.get(&format!("/tiny?number={number}")).await.assert(200, b"hello, world\n");
    }
    wait_for("the last line", SOON, || output.stdout().contains("number=199").then_some(())).await;
    let stdout = output.stdout();
    let numbers =
        stdout.lines().filter_map(|line| line.split("number=").nth(1)?.split([' ', '"']).next()?.parse().ok());
    assert_eq!(numbers.collect::<Vec<u32>>(), (0..200).collect::<Vec<_>>());
    edge.stop().await.assert_clean();
    let status = wait_for("the follower's end", SOON, || follower.status()).await;
    assert!(status.success(), "{status} {}", output.both());
}

fn read(edge: &Edge, name: &str) -> String {
    fs::read_to_string(edge.home().path().join(name)).unwrap_or_default()
}

async fn line_in(edge: &Edge, name: &str, text: &str) {
    wait_for(&format!("'{text}' in {name}"), SOON, || read(edge, name).contains(text).then_some(())).await;
}

#[tokio::test]
async fn lines_move_to_another_file_and_workers_stay() {
    let mut edge = Edge::start(talking("  logs: { file: one.log }")).await;
    let before = edge.ready_workers("app", 2).await;
    line_in(&edge, "one.log", " app/1 | slot 1 is here\n").await;
    assert!(!edge.output().stderr().contains("slot 1 is here"), "not in the program log too");
    // Somebody renames the file, and says so.
    fs::rename(edge.home().path().join("one.log"), edge.home().path().join("one.log.1")).expect("it is there");
    edge.signal(Signal::SIGUSR1);
    wait_for("the new file", SOON, || edge.home().path().join("one.log").exists().then_some(())).await;
    send_signal(before[0].pid, Signal::SIGKILL);
    line_in(&edge, "one.log", "slot 0 is here").await;

    let before = edge.ready_workers("app", 2).await;
    let reloaded = edge.reload(&talking("  logs: { file: two.log, format: json }")).await;
    assert!(reloaded.status.success() && reloaded.stdout.contains("workers.logs.file"), "{}", reloaded.stdout);
    assert_eq!(edge.ready_workers("app", 2).await, before, "nobody is replaced for it");
    send_signal(before[1].pid, Signal::SIGKILL);
    line_in(&edge, "two.log", "slot 1 is here").await;
    for line in read(&edge, "two.log").lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!((&object["upstream"], &object["slot"]), (&"app".into(), &1.into()));
    }

    let refused = edge.reload(&talking("  logs: { file: missing/app.log }")).await;
    assert!(refused.status.code() == Some(1) && refused.stderr.contains("create its folder"), "{}", refused.stderr);
    let stopped = edge.stop().await;
    stopped.assert_clean();
}

#[tokio::test]
async fn a_folder_that_is_missing_is_told_at_the_start() {
    let home = Home::new(&talking("  logs: { file: missing/app.log }"));
    let mut command = Binary::Tidegate.command();
    command.arg("run").arg("-c").arg(home.site_file());
    let finished = tidegate_tests::process::run_to_end(command, SOON).await;
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("upstreams.app.workers.logs: cannot open"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_begins_anew_and_no_line_is_lost_by_it() {
    let logs = "\n      logs: { file: app.log, max_size: 64KiB, keep: 3, compress: gzip }";
    let site = Site::demo_workers(1, &[]).replace("count: 1", &format!("count: 1{logs}"));
    let edge = Edge::start(site).await;
    // Lines of 100 bytes for some twenty files. They are fewer than may come in one second, so that none may be dropped
    // however late they are printed or read.
    let answer = edge.client(Kind::Http1).get("/log?mb=1&ms=800").await.json();
    let printed = answer["lines"].as_u64().expect("a count");
    assert!((5_000..10_000).contains(&printed), "{printed}");
    let files = || -> Vec<PathBuf> {
        let entries =
            fs::read_dir(edge.home().path()).expect("the directory is ours").flatten().map(|entry| entry.path());
        entries.filter(|path| path.to_string_lossy().contains("app.log")).collect()
    };
    let settled = || {
        let plain = files().iter().filter(|path| path.extension().is_some_and(|end| end != "gz")).count();
        let compressed = files().iter().filter(|path| path.extension().is_some_and(|end| end == "gz")).count();
        (plain == 1 && compressed == 3).then_some(())
    };
    wait_for("three compressed files", SOON, settled).await;
    for file in files() {
        let size = fs::metadata(&file).expect("it is there").len();
        assert!(size <= 64 << 10, "{} has {size} bytes", file.display());
    }
    let remembered = logs_count(&edge).await;
    assert_eq!(remembered, 1_000);
    assert!(!edge.admin().metrics().await.expect("metrics").contains("tidegate_worker_log_lines_dropped_total{"));
}

async fn logs_count(edge: &Edge) -> u64 {
    logs(edge, &["app/0", "-n", "5000"]).await.lines().count() as u64
}

/// The time that half of the requests, and that all but one of a hundred, took less than.
async fn latencies(client: &Client, time: Duration) -> [Duration; 2] {
    let mut took = Vec::new();
    let begun = Instant::now();
    let mut connection = client.connect().await.expect("the listener is there");
    while begun.elapsed() < time {
        let sent = Instant::now();
        let answer = connection.send(tidegate_tests::client::Ask::get("/tiny")).await.expect("an answer");
        answer.assert(200, b"hello, world\n");
        took.push(sent.elapsed());
    }
    took.sort_unstable();
    [took[took.len() / 2], took[took.len() * 99 / 100]]
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_lines_slows_neither_its_worker_nor_the_requests_of_others() {
    let demo = "command: [\"@demo@\", --uds, \"{socket}\"], count: 1";
    let site = Site::usual(
        "- { path: /log, proxy: loud }\n- { path: /, proxy: quiet }",
        &format!("loud: {{ workers: {{ {demo}, logs: {{ file: loud.log }} }} }}\nquiet: {{ workers: {{ {demo} }} }}"),
    );
    let edge = Edge::start(site).await;
    let client = edge.client(Kind::Http1);
    // Each window without the flood has one with it as its neighbour, so that whatever else the machine does meets both.
    let (mut half, mut most) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let quiet = latencies(&client, Duration::from_millis(700)).await;
        let flood = edge.client(Kind::Http1);
        let flood = tokio::spawn(async move { flood.get("/log?mb=20&ms=1000").await.json() });
        let loud = latencies(&client, Duration::from_millis(700)).await;
        let flood = flood.await.expect("no panic");
        let (lines, ms) = (flood["lines"].as_u64().expect("a count"), flood["ms"].as_u64().expect("a time"));
        assert!(lines > 150_000, "{lines} lines in {ms} ms: the flood was none");
        assert!(ms < 2_000, "{lines} lines took {ms} ms: the worker was held up");
        half.push(loud[0].as_secs_f64() / quiet[0].as_secs_f64());
        most.push(loud[1].as_secs_f64() / quiet[1].as_secs_f64());
    }
    assert!(median(half.clone()) < 2.0, "the usual request takes so many times longer: {half:?}");
    assert!(median(most.clone()) < 4.0, "the slowest of a hundred takes so many times longer: {most:?}");

    // About a million lines came, ten thousand a second may: the others are told of and counted.
    let metrics = edge.admin().metrics().await.expect("metrics");
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix("tidegate_worker_log_lines_dropped_total{slot=\"0\",upstream=\"loud\"} "));
    let dropped: u64 = dropped.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in\n{metrics}"));
    assert!(dropped > 500_000, "{dropped}");
    let told =
        || read(&edge, "loud.log").lines().filter(|line| line.contains("lines: more than 10000 in one second")).count();
    wait_for("what was dropped in the log", SOON, || (told() >= 5).then_some(())).await;
    assert!(logs(&edge, &["loud"]).await.contains("loud/0 | xxxx"));
}
