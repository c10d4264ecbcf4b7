//! The same application with as many processes twice: as workers of ours, and under gunicorn behind nginx. What goes wrong for
//! clients while workers die, hang, are replaced and are renewed.
//!
//! Ours has to lose nothing; of the other one it is only told. `make drill DRILL=stacks` prints the table of
//! `benches/RESULTS.md`.

mod peer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::ensure;
use peer::Peer;
use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    drill::{amount, say},
    edge::{Edge, Home},
    process::{Signal, send_signal},
    python,
    rate::{Outcomes, Rate},
    site::Site,
    wait::{wait_for, wait_until},
};
use tokio::time::{Instant, sleep_until};

/// Longer than a boot under load.
const SOON: Duration = Duration::from_secs(30);
/// After which a client goes away.
const PATIENCE: Duration = Duration::from_secs(10);
const WORKERS: usize = 4;
const APPLICATION: &str = include_str!("stacks/app.py");

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    Tidegate,
    Gunicorn,
}

enum Stack {
    Tidegate(Box<Edge>),
    Gunicorn(Box<Peer>),
}

/// How workers are replaced although they serve well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recycle {
    Never,
    /// After so many requests, and up to a fifth more.
    After(usize),
}

impl Stack {
    async fn start(make: Make, recycle: Recycle) -> Self {
        match make {
            Make::Tidegate => Self::Tidegate(Box::new(tidegate(recycle).await)),
            Make::Gunicorn => Self::Gunicorn(Box::new(gunicorn(recycle).await)),
        }
    }

    fn folder(&self) -> &Path {
        match self {
            Self::Tidegate(edge) => edge.home().path(),
            Self::Gunicorn(peer) => peer.dir.path(),
        }
    }

    fn client(&self) -> Client {
        match self {
            Self::Tidegate(edge) => edge.client(Kind::Http1),
            Self::Gunicorn(peer) => Client::new(Kind::Http1, peer.address()),
        }
    }

    async fn workers(&self) -> BTreeSet<i32> {
        match self {
            Self::Tidegate(edge) => {
                let workers = edge.workers("app").await;
                workers.iter().filter(|worker| worker.is_ready()).map(|worker| worker.pid).collect()
            }
            Self::Gunicorn(peer) => peer.workers(),
        }
    }

    /// Has the release in the folder taken; whether all workers are of it in the end.
    async fn reload(&mut self) -> bool {
        match self {
            Self::Tidegate(edge) => edge.home().tidegate(&["deploy", "app", "--wait"]).await.status.success(),
            Self::Gunicorn(peer) => peer.reload(SOON).await,
        }
    }

    fn is_running(&mut self) -> bool {
        match self {
            Self::Tidegate(_) => true,
            Self::Gunicorn(peer) => peer.is_running(),
        }
    }
}

async fn tidegate(recycle: Recycle) -> Edge {
    let recycle = match recycle {
        Recycle::Never => String::new(),
        Recycle::After(requests) => format!("recycle: {{ max_requests: {requests}, jitter: 20% }}"),
    };
    let site = Site::proxy(&format!(
        "retry: {{ try_timeout: 2s }}\nworkers:\n  preset: uvicorn\n  command: [\"@bin@/uvicorn\"]\n  app: \"app:app\"\n  \
         args: [--no-access-log]\n  cwd: \"@dir@\"\n  env: {{ PYTHONDONTWRITEBYTECODE: \"1\" }}\n  count: {WORKERS}\n  \
         deploy: {{ min_ready: 0 }}\n  {recycle}"
    ))
    .with("bin", python::program("python").parent().expect("a file has a folder").display())
    .and("logging: { access: off }");
    let home = Home::new(&site);
    release(home.path(), "1");
    let edge = Edge::launch(home).ready().await;
    edge.ready_workers("app", WORKERS).await;
    edge
}

async fn gunicorn(recycle: Recycle) -> Peer {
    let dir = tempfile::Builder::new().prefix("tg").tempdir().expect("the system has a temporary directory");
    release(dir.path(), "1");
    let (requests, jitter) = match recycle {
        Recycle::Never => (0, 0),
        Recycle::After(requests) => (requests, requests / 5),
    };
    let options = ["--max-requests", &requests.to_string(), "--max-requests-jitter", &jitter.to_string()];
    Peer::start(dir, WORKERS, &options).await
}

/// Puts a release into the folder, as one step.
fn release(folder: &Path, name: &str) {
    put(folder, &APPLICATION.replace("@release@", name));
}

fn put(folder: &Path, text: &str) {
    fs::write(folder.join("next.py"), text).expect("the directory is ours");
    fs::rename(folder.join("next.py"), folder.join("app.py")).expect("ours");
}

/// Who answered first when, and requests at an even rate.
struct Scene {
    stack: Stack,
    rate: Rate,
    seen: Arc<Mutex<BTreeMap<i64, Instant>>>,
}

impl Scene {
    async fn open(make: Make, recycle: Recycle) -> Self {
        let stack = Stack::start(make, recycle).await;
        let seen = Arc::<Mutex<BTreeMap<i64, Instant>>>::default();
        let noted = Arc::clone(&seen);
        let check = move |answer: &Answer| {
            ensure!(answer.status == 200 && answer.is_complete(), "{}", answer.status);
            let pid = answer.json()["pid"].as_i64().unwrap_or_default();
            noted.lock().expect("no panic").entry(pid).or_insert_with(Instant::now);
            Ok(())
        };
        let per_second = amount("TIDEGATE_DRILL_STACK_RATE", 200) as u64;
        let rate = Rate::start(&[stack.client()], per_second, || Ask::get("/").within(PATIENCE), check);
        let scene = Self { stack, rate, seen };
        scene.pause(Duration::from_secs(1)).await;
        scene
    }

    /// Lets the load go on as it is for a while.
    async fn pause(&self, time: Duration) {
        sleep_until(Instant::now() + time).await;
    }

    /// Processes that have answered.
    fn answered(&self) -> usize {
        self.seen.lock().expect("no panic").len()
    }

    /// When another process than these answers, the first one.
    async fn another_answers(&self, known: &BTreeSet<i64>) -> Instant {
        wait_for("another worker's answer", SOON, || {
            let seen = self.seen.lock().expect("no panic");
            seen.iter().find(|(pid, _)| !known.contains(pid)).map(|(_, at)| *at)
        })
        .await
    }

    async fn close(self, what: &str, note: &str) -> Outcomes {
        let make = match self.stack {
            Stack::Tidegate(_) => "Tidegate",
            Stack::Gunicorn(_) => "nginx + gunicorn",
        };
        let outcomes = self.rate.stop().await;
        let [half, most, slowest] = [0.5, 0.99, 1.0].map(|share| outcomes.within(share));
        say(format_args!(
            "| {what} | {make} | {} of {} | {half:.1?} | {most:.1?} | {slowest:.1?} | {note} |",
            outcomes.failed.len(),
            outcomes.sent()
        ));
        if let Some((at, why)) = outcomes.failed.first() {
            say(format_args!("  first failure after {at:.1?}: {why}"));
        }
        outcomes
    }
}

async fn kills(make: Make, count: usize, every: Duration) -> Outcomes {
    let scene = Scene::open(make, Recycle::Never).await;
    let mut gaps = Vec::new();
    for _ in 0..count {
        let known: BTreeSet<i64> = scene.seen.lock().expect("no panic").keys().copied().collect();
        let victim = *scene.stack.workers().await.first().expect("there are workers");
        let killed = Instant::now();
        send_signal(victim, Signal::SIGKILL);
        gaps.push(scene.another_answers(&known).await - killed);
        sleep_until(killed + every).await;
    }
    gaps.sort_unstable();
    let note = format!("successor answers after {:.1?} (median), {:.1?} at most", gaps[count / 2], gaps[count - 1]);
    scene.close(&format!("kill -9, {count} times"), &note).await
}

async fn silence(make: Make, limit: Duration) -> Outcomes {
    let scene = Scene::open(make, Recycle::Never).await;
    let before = scene.stack.workers().await;
    let victim = *before.first().expect("there are workers");
    let stopped = Instant::now();
    send_signal(victim, Signal::SIGSTOP);
    let whole = async || {
        let now = scene.stack.workers().await;
        (now.len() == WORKERS && !now.contains(&victim)).then_some(stopped.elapsed())
    };
    let replaced = wait_until("its successor", limit, whole).await;
    scene.pause(Duration::from_secs(5)).await;
    scene.close("SIGSTOP of one worker", &format!("replaced after {replaced:.1?}")).await
}

async fn reloads(make: Make, count: usize) -> Outcomes {
    let mut scene = Scene::open(make, Recycle::Never).await;
    let mut done = 0;
    for number in 0..count {
        release(scene.stack.folder(), &(number + 2).to_string());
        done += usize::from(scene.stack.reload().await);
    }
    let outcomes = scene.close(&format!("reload, {count} times"), &format!("{done} done")).await;
    assert!(make == Make::Gunicorn || done == count, "{done} of {count}");
    outcomes
}

async fn broken_release(make: Make) -> Outcomes {
    let mut scene = Scene::open(make, Recycle::Never).await;
    put(scene.stack.folder(), "import there_is_no_such_module\n");
    let taken = scene.stack.reload().await;
    scene.pause(Duration::from_secs(5)).await;
    let running = if scene.stack.is_running() { "the old release serves" } else { "the server has ended" };
    assert!(!taken, "a release that cannot be imported was taken");
    scene.close("broken release", running).await
}

async fn recycles(make: Make, time: Duration) -> Outcomes {
    let scene = Scene::open(make, Recycle::After(200)).await;
    scene.pause(time).await;
    let replaced = scene.answered().saturating_sub(WORKERS);
    assert!(replaced > 0, "nobody was replaced");
    scene.close(&format!("recycle every 200 requests, {time:?}"), &format!("{replaced} replaced")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stacks_of_ours_lose_nothing() {
    kills(Make::Tidegate, 2, Duration::from_secs(1)).await.assert_clean();
    reloads(Make::Tidegate, 3).await.assert_clean();
    broken_release(Make::Tidegate).await.assert_clean();
    recycles(Make::Tidegate, Duration::from_secs(8)).await.assert_clean();
}

// Each drill for one after the other or for both at once, so that they meet the same machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn stacks_side_by_side() {
    say("| drill | stack | failed | p50 | p99 | slowest | |\n|---|---|---|---|---|---|---|");
    let mut outcomes = Vec::new();
    let seconds = Duration::from_secs(amount("TIDEGATE_DRILL_SECONDS", 600) as u64);
    for make in [Make::Gunicorn, Make::Tidegate] {
        outcomes.push(kills(make, 10, Duration::from_secs(9)).await);
    }
    for make in [Make::Gunicorn, Make::Tidegate] {
        outcomes.push(silence(make, Duration::from_secs(90)).await);
    }
    for make in [Make::Gunicorn, Make::Tidegate] {
        outcomes.push(reloads(make, amount("TIDEGATE_DRILL_DEPLOYS", 50)).await);
    }
    for make in [Make::Gunicorn, Make::Tidegate] {
        outcomes.push(broken_release(make).await);
    }
    // The long one of both at once.
    let (theirs, ours) = tokio::join!(recycles(Make::Gunicorn, seconds), recycles(Make::Tidegate, seconds));
    outcomes.extend([theirs, ours]);
    outcomes.iter().skip(1).step_by(2).for_each(Outcomes::assert_clean);
}
