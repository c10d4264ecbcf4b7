//! Deploys as memory allows: in a control group of this machine, where one can be made, and as a plan without a deploy.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tidegate_tests::{client::Kind, edge::Edge, load::Load, site::Site, wait::wait_for};

const SOON: Duration = Duration::from_secs(20);

/// A control group of memory, removed with its last process.
struct Group(PathBuf);

impl Group {
    /// `None` where nobody may make one.
    fn new(name: &str) -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup/memory").join(format!("tidegate-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn take(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("a process is moved");
    }

    fn limit(&self, mebibytes: u64) {
        fs::write(self.0.join("memory.limit_in_bytes"), (mebibytes << 20).to_string()).expect("a limit is set");
    }

    /// How often it was at its limit.
    fn hits(&self) -> u64 {
        fs::read_to_string(self.0.join("memory.failcnt")).expect("a count").trim().parse().expect("a number")
    }

    async fn remove(&self) {
        wait_for("the end of the group", SOON, || fs::remove_dir(&self.0).ok()).await;
    }
}

fn site(more: &str) -> Site {
    Site::proxy(&format!(
        "workers:\n  command: [\"@demo@\", --uds, \"{{socket}}\"]\n  count: 3\n  ready: {{ http: /healthz }}\n  \
         deploy: {{ strategy: auto, surge: 3, min_ready: 300ms{more} }}\nbalance: round_robin"
    ))
}

/// Three workers of about 62 MiB each that share so much memory with the rest of the program, and a deploy of them under load.
async fn deploy_within(name: &str, mebibytes: u64, plan: &str) {
    let Some(group) = Group::new(name) else {
        // The plan is tested beside its code, for both versions of control groups.
        return;
    };
    let edge = Edge::start(site("")).await;
    group.take(edge.pid());
    for worker in edge.ready_workers("app", 3).await {
        group.take(worker.pid);
    }
    for _ in 0..3 {
        assert_eq!(edge.client(Kind::Http1).get("/leak?mb=60").await.status, 200);
    }
    group.limit(mebibytes);
    let load = Load::start(&edge.clients(), 4, "/tiny", b"hello, world\n".to_vec());
    let dry = edge.home().tidegate(&["deploy", "app", "--dry-run"]).await;
    assert!(dry.stdout.contains(plan) && dry.stdout.contains("a worker takes 6"), "{}{}", dry.stdout, dry.stderr);
    let before = edge.workers("app").await;
    let deployed = edge.home().tidegate(&["deploy", "app", "--wait"]).await;
    let text = format!("{}{}", deployed.stdout, deployed.stderr);
    assert!(deployed.status.success() && text.contains(plan), "{text}");
    load.stop().await.assert_clean();
    let after = edge.workers("app").await;
    assert!(after.iter().all(|new| before.iter().all(|old| old.pid != new.pid)), "{after:?}");
    assert_eq!(group.hits(), 0, "never at the limit");
    edge.stop().await.assert_clean();
    group.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_memory_for_one_more_a_deploy_starts_one_more() {
    // About 190 MiB are used; a quarter is to stay free.
    deploy_within("one", 390, "rolling, at most 1 beyond 3 workers").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_for_one_more_one_leaves_before_one_comes() {
    deploy_within("none", 290, "each old worker leaves before its successor starts").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_changes_nothing() {
    let edge = Edge::start(site("").replace("strategy: auto", "strategy: green").replace(", surge: 3", "")).await;
    let before = edge.ready_workers("app", 3).await;
    let dry = edge.home().tidegate(&["deploy", "--dry-run", "--format", "json"]).await;
    let plans: Value = serde_json::from_str(&dry.stdout).expect("JSON and nothing else");
    let plan = &plans["upstreams"][0]["plan"];
    assert_eq!((&plan["way"], &plan["workers"], &plan["by_memory"]), (&"green".into(), &3.into(), &false.into()));
    let number = |name: &str| plan[name].as_u64().expect("a number");
    assert_eq!(number("need_bytes"), 3 * number("each_bytes"), "{plan:#}");
    assert!(number("old_bytes") >= number("each_bytes") && number("each_bytes") > 100_000, "{plan:#}");
    assert!(plan["spare_bytes"].is_u64(), "{plan:#}");
    let wrong = edge.home().tidegate(&["deploy", "nobody", "--dry-run"]).await;
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.stderr);
    let pids = |workers: &[tidegate_tests::edge::Worker]| workers.iter().map(|worker| worker.pid).collect::<Vec<_>>();
    assert_eq!(pids(&edge.workers("app").await), pids(&before));
}
