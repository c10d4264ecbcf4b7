//! `tidegate deploy`: a new generation proves itself before the old one is touched, nobody's request is lost by it, and the
//! command says what it came to.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_tests::{
    client::{Answer, Ask},
    drill::{amount, say},
    edge::{Edge, Worker},
    load::{Load, Tally},
    process::{Finished, Signal, is_alive, send_signal},
    site::Site,
    wait::{wait_for, wait_until},
};

const SOON: Duration = Duration::from_secs(20);
/// How long steady load is looked at before the deploys begin.
const CALM: Duration = Duration::from_secs(10);

/// Workers of a release: a folder named `release` says which, and what it has in `broken` comes before they start.
fn site(count: usize, more: &str) -> Site {
    let script = "cat release; test ! -e broken || . ./broken; exec \\\"$0\\\" --uds \\\"$1\\\"";
    Site::proxy(&format!(
        "workers:\n  command: [sh, -c, \"{script}\", \"@demo@\", \"{{socket}}\"]\n  count: {count}\n  cwd: \"@dir@/current\"\n  \
         ready: {{ http: /healthz }}\n  {more}"
    ))
}

/// A running edge whose workers are of release "1".
async fn running(count: usize, more: &str) -> Edge {
    let home = tidegate_tests::edge::Home::new(&site(count, more));
    release(home.path(), "1", "");
    let edge = Edge::launch(home).ready().await;
    edge.ready_workers("app", count).await;
    edge
}

/// Makes a release, and the one that new workers get.
fn release(home: &std::path::Path, name: &str, broken: &str) {
    let folder = home.join(format!("release-{name}"));
    std::fs::create_dir_all(&folder).expect("the directory is ours");
    std::fs::write(folder.join("release"), format!("release {name}\n")).expect("ours");
    if !broken.is_empty() {
        std::fs::write(folder.join("broken"), broken).expect("ours");
    }
    let (current, next) = (home.join("current"), home.join("next"));
    std::os::unix::fs::symlink(&folder, &next).expect("ours");
    std::fs::rename(&next, &current).expect("ours");
}

impl Release for Edge {
    fn release(&self, name: &str, broken: &str) {
        release(self.home().path(), name, broken);
    }
}

trait Release {
    fn release(&self, name: &str, broken: &str);
}

/// Which release serves in each slot, by the folder of its process.
async fn releases(edge: &Edge) -> Vec<String> {
    let workers = edge.workers("app").await;
    let folder = |worker: &Worker| std::fs::read_link(format!("/proc/{}/cwd", worker.pid)).ok();
    let name = |worker: &Worker| Some(folder(worker)?.file_name()?.to_str()?.replace("release-", ""));
    workers.iter().filter(|worker| worker.is_ready()).filter_map(name).collect()
}

fn pids(workers: &[Worker]) -> Vec<i32> {
    workers.iter().map(|worker| worker.pid).collect()
}

async fn deploy(edge: &Edge, more: &[&str]) -> Finished {
    edge.home().tidegate(&[&["deploy", "app", "--wait"], more].concat()).await
}

fn load(edge: &Edge) -> Load {
    Load::start(&edge.clients(), 8, "/tiny", b"hello, world\n".to_vec())
}

async fn some_more(load: &Load) {
    let sent = load.sent();
    wait_for("more load", SOON, || (load.sent() > sent + 50).then_some(())).await;
}

#[track_caller]
fn assert_ends(finished: &Finished, code: i32, shown: &[&str]) {
    let all = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.status.code(), Some(code), "{all}");
    for text in shown {
        assert!(all.contains(text), "no '{text}' in\n{all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_under_load_loses_no_request_and_says_how_it_went() {
    for strategy in ["rolling", "green"] {
        let edge = running(3, &format!("deploy: {{ strategy: {strategy}, min_ready: 500ms }}")).await;
        let load = load(&edge);
        some_more(&load).await;
        edge.release("2", "");
        let finished = deploy(&edge, &[]).await;
        some_more(&load).await;
        load.stop().await.assert_clean();
        let steps = [
            "app: the first new worker boots",
            "and has to stay so",
            "app: generation 2 serves",
            "app: generation 2 (instead of generation 1): done after",
        ];
        assert_ends(&finished, 0, &steps);
        assert_eq!(releases(&edge).await, ["2"; 3], "{strategy}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_does_not_start_touches_no_worker_and_shows_its_last_words() {
    let edge = running(2, "deploy: { min_ready: 500ms }").await;
    let before = pids(&edge.workers("app").await);
    let load = load(&edge);
    some_more(&load).await;
    edge.release("2", "echo \"ModuleNotFoundError: No module named 'mian'\" >&2; exit 3\n");
    let finished = deploy(&edge, &[]).await;
    some_more(&load).await;
    load.stop().await.assert_clean();
    let shown =
        ["failed and reverted after", "boot_exit: exit code 3", "| ModuleNotFoundError: No module named 'mian'"];
    assert_ends(&finished, 1, &shown);
    assert_eq!(pids(&edge.workers("app").await), before);
    // Workers that come back are of the old release, though the folder's link says something else.
    send_signal(before[0], Signal::SIGKILL);
    let back =
        |workers: &[Worker]| workers.len() == 2 && workers.iter().all(|one| one.is_ready() && one.pid != before[0]);
    edge.workers_until("app", SOON, back).await;
    assert_eq!(releases(&edge).await, ["1", "1"]);
    edge.release("3", "");
    assert_ends(&deploy(&edge, &[]).await, 0, &["done after"]);
    assert_eq!(releases(&edge).await, ["3", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_crashes_before_it_has_proven_itself_is_reverted() {
    let edge = running(2, "deploy: { min_ready: 3s }").await;
    let before = pids(&edge.workers("app").await);
    edge.release("2", "(sleep 1; echo out of luck >&2; kill -ABRT $$) &\n");
    let load = load(&edge);
    let finished = deploy(&edge, &[]).await;
    assert_ends(&finished, 1, &["crash_signal: signal 6", "| out of luck"]);
    some_more(&load).await;
    // What it had begun when it crashed nobody may send again but a GET, and that is all there was.
    load.stop().await.assert_clean();
    assert_eq!(pids(&edge.workers("app").await), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_fails_half_way_freezes_or_rolls_back() {
    for (on_failure, code, expected) in [("freeze", 4, ["2", "1", "1"]), ("rollback", 1, ["1", "1", "1"])] {
        let edge =
            running(3, &format!("deploy: {{ strategy: rolling, min_ready: 300ms, on_failure: {on_failure} }}")).await;
        edge.release("2", "test $WORKER_SLOT = 0 || { echo no room in slot $WORKER_SLOT >&2; exit 9; }\n");
        let load = load(&edge);
        let finished = deploy(&edge, &[]).await;
        some_more(&load).await;
        load.stop().await.assert_clean();
        assert_ends(&finished, code, &["boot_exit: exit code 9", "| no room in slot 1"]);
        assert_eq!(releases(&edge).await, expected, "{on_failure}");
        edge.release("3", "");
        assert_ends(&deploy(&edge, &[]).await, 0, &["done after"]);
        assert_eq!(releases(&edge).await, ["3"; 3]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_of_two_deploys_wins() {
    let edge = running(2, "deploy: { min_ready: 1500ms }").await;
    let home = edge.home();
    let (first, second) = tokio::join!(home.tidegate(&["deploy", "app", "--wait"]), async {
        wait_until("the first one to begin", SOON, async || {
            let status = edge.admin().get("/workers/deploys").await.ok()?;
            let known: Value = serde_json::from_slice(&status.body).ok()?;
            (known["upstreams"][0]["deploys"][1]["phase"] == "canary").then_some(())
        })
        .await;
        edge.release("2", "");
        home.tidegate(&["deploy", "--wait"]).await
    });
    assert_ends(&first, 5, &["generation 2 (instead of generation 1): superseded"]);
    assert_ends(&second, 0, &["generation 3 (instead of generation 1): done"]);
    assert_eq!(releases(&edge).await, ["2", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deploy_came_to_can_be_read_by_programs_and_later() {
    let edge =
        running(1, "deploy: { min_ready: 0 }\n  pre_start: [sh, -c, \"cat release; test ! -e no-migration\"]").await;
    let finished = deploy(&edge, &["--format", "json"]).await;
    assert_ends(&finished, 0, &[]);
    let deploys: Value = serde_json::from_str(&finished.stdout).expect("JSON and nothing else");
    let deploy = &deploys["upstreams"][0]["deploys"][0];
    assert_eq!((&deploy["id"], &deploy["generation"], &deploy["outcome"]), (&1.into(), &2.into(), &"done".into()));
    edge.release("2", "");
    std::fs::write(edge.home().path().join("release-2/no-migration"), "").expect("ours");
    let failed = deploy_in_the_background(&edge).await;
    assert_ends(&failed, 1, &["pre_start: exit code 1", "| release 2"]);
    let last = edge.home().tidegate(&["deploy", "--last"]).await;
    let shown = ["generation 1 (first start): done", "generation 2 (instead of generation 1): done", "reverted"];
    assert_ends(&last, 0, &shown);
}

/// Ordered without waiting, and waited for by a look at what it came to.
async fn deploy_in_the_background(edge: &Edge) -> Finished {
    let ordered = edge.home().tidegate(&["deploy", "app"]).await;
    assert_ends(&ordered, 0, &["app: deploy begins"]);
    wait_until("its end", SOON, async || {
        let last = edge.home().tidegate(&["deploy", "app", "--last"]).await;
        last.stdout.contains("reverted").then_some(())
    })
    .await;
    // The same once more, watched.
    deploy(edge, &[]).await
}

/// Deploys as fast as they go, one after the other, under load.
async fn one_after_the_other(edge: &Edge, load: Load, count: usize) -> Tally {
    some_more(&load).await;
    for number in 2..=count + 1 {
        edge.release(&number.to_string(), "");
        assert_ends(&deploy(edge, &[]).await, 0, &["done after"]);
    }
    some_more(&load).await;
    let tally = load.stop().await;
    let (p99, slowest) = (tally.p99(), tally.slowest);
    say(format!("{count} deploys: {} right answers, p99 {p99:?}, slowest {slowest:?}", tally.right));
    tally.assert_clean();
    assert_eq!(releases(edge).await, [(count + 1).to_string(), (count + 1).to_string()]);
    assert!(edge.zombies().is_empty());
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_deploys_one_after_the_other_lose_no_request() {
    let edge = running(2, "deploy: { min_ready: 0 }").await;
    one_after_the_other(&edge, load(&edge), 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn many_deploys_one_after_the_other_lose_no_request() {
    let edge = running(2, "deploy: { min_ready: 0 }").await;
    one_after_the_other(&edge, load(&edge), amount("TIDEGATE_DRILL_DEPLOYS", 50)).await;
}

/// Clients that wait most of the time, as those of an application with a database do.
fn steady(edge: &Edge) -> Load {
    let right = |answer: &Answer| {
        anyhow::ensure!(answer.status == 200 && answer.is_complete(), "status {}", answer.status);
        Ok(())
    };
    Load::asking(&edge.clients(), 8, || Ask::get("/slow?ms=20"), right)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn many_deploys_at_steady_load_double_no_time_to_an_answer() {
    let edge = running(2, "deploy: { min_ready: 0 }").await;
    let calm = steady(&edge);
    let until = Instant::now() + CALM;
    wait_for("calm times to be over", SOON, || (Instant::now() > until).then_some(())).await;
    let calm = calm.stop().await;
    calm.assert_clean();
    let busy = one_after_the_other(&edge, steady(&edge), amount("TIDEGATE_DRILL_DEPLOYS", 50)).await;
    say(format!("p99 {:?} before", calm.p99()));
    assert!(busy.p99() <= 2 * calm.p99(), "p99 {:?} in deploys, {:?} before", busy.p99(), calm.p99());
}

/// Generation and outcome of each deploy, oldest first.
async fn history(edge: &Edge) -> Vec<String> {
    let answer = edge.admin().get("/workers/deploys").await.expect("an answer");
    let known: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let deploys = known["upstreams"][0]["deploys"].as_array().cloned().unwrap_or_default();
    // One that is done goes on until the last old worker has left.
    let outcome = |one: &Value| match one["phase"].as_str() {
        Some("over") => one["outcome"].as_str().unwrap_or_default().to_owned(),
        _ => "open".to_owned(),
    };
    deploys.iter().map(|one| format!("{} {}", one["generation"], outcome(one))).collect()
}

async fn history_is(edge: &Edge, expected: &[&str]) {
    wait_until("the deploys", SOON, async || (history(edge).await == expected).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_deploys_where_it_is_to_and_only_once() {
    let mut edge = running(2, "deploy: { min_ready: 300ms }\n  on_hup: deploy").await;
    let load = load(&edge);
    some_more(&load).await;
    edge.release("2", "");
    edge.signal(Signal::SIGHUP);
    history_is(&edge, &["1 done", "2 done"]).await;
    assert_eq!(releases(&edge).await, ["2", "2"]);
    // What a changed file deploys anyhow is not deployed twice.
    edge.rewrite(&site(2, "deploy: { min_ready: 300ms }\n  on_hup: deploy\n  env: { A: \"1\" }"));
    edge.signal(Signal::SIGHUP);
    history_is(&edge, &["1 done", "2 done", "3 done"]).await;
    // A file that is refused deploys nothing; `tidegate reload` never does.
    let before = pids(&edge.workers("app").await);
    edge.rewrite(&site(2, "nonsense: 1"));
    edge.signal(Signal::SIGHUP);
    edge.wait_for_message("configuration refused", SOON).await;
    edge.reload(&site(2, "deploy: { min_ready: 300ms }\n  on_hup: deploy\n  env: { A: \"1\" }")).await;
    some_more(&load).await;
    load.stop().await.assert_clean();
    assert_eq!(history(&edge).await, ["1 done", "2 done", "3 done"]);
    assert_eq!(pids(&edge.workers("app").await), before);
}

#[tokio::test]
async fn sighup_leaves_unchanged_workers_alone_by_default() {
    let mut edge = running(2, "deploy: { min_ready: 0 }").await;
    let before = pids(&edge.workers("app").await);
    edge.release("2", "");
    edge.signal(Signal::SIGHUP);
    wait_until("the reload", SOON, async || edge.status().await["last_reload"]["applied"].as_bool()).await;
    assert_eq!((pids(&edge.workers("app").await), history(&edge).await), (before, vec!["1 done".to_owned()]));
}

#[tokio::test]
async fn a_deploy_that_takes_too_long_goes_on_without_the_command() {
    let edge = running(1, "deploy: { min_ready: 3s }").await;
    let began = Instant::now();
    let finished = deploy(&edge, &["--timeout", "1"]).await;
    assert_ends(&finished, 3, &["not done after 1 seconds; it goes on"]);
    assert!(began.elapsed() < Duration::from_secs(3));
    let old = edge.workers("app").await[0].pid;
    wait_for("the old worker's end", SOON, || (!is_alive(old)).then_some(())).await;
}

#[tokio::test]
async fn who_has_no_workers_is_told() {
    let edge = Edge::start(Site::proxy("servers: [{ address: \"127.0.0.1:9\" }]")).await;
    assert_ends(&edge.home().tidegate(&["deploy"]).await, 2, &["no upstream has workers"]);
    assert_ends(&edge.home().tidegate(&["deploy", "app"]).await, 2, &["no upstream has any"]);
}
