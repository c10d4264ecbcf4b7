//! Applications as people have them, through what happens to workers while clients go on: FastAPI on two servers, a Node
//! server without a handler of signals, and the demo.

use std::{collections::BTreeSet, time::Duration};

use anyhow::ensure;
use tidegate_tests::{
    client::{Answer, Ask},
    drill::{amount, say},
    edge::{Edge, Home, Worker},
    process::{Signal, send_signal},
    python,
    rate::Rate,
    site::Site,
};

/// Interpreters start while they share the machine.
const SOON: Duration = Duration::from_secs(40);
const WORKERS: usize = 2;

struct App {
    /// What the file says of its workers; `@bin@` is the folder of Python programs.
    workers: &'static str,
    /// Where a post is answered with 200 after a while, and where a GET is.
    post: (&'static str, &'static str),
    get: &'static str,
}

const FASTAPI_UVICORN: App = App {
    workers: "preset: uvicorn\ncommand: [\"@bin@/uvicorn\"]\napp: \"main:app\"\ncwd: \"@fastapi@\"\nready: { http: /health }",
    post: ("/slow?ms=300", r#"{"name":"rope","price":10}"#),
    get: "/items/7?q=x",
};

const FASTAPI_GRANIAN: App = App {
    workers: "preset: granian\ncommand: [\"@bin@/granian\"]\napp: \"main:app\"\ncwd: \"@fastapi@\"\nready: { http: /health }",
    post: ("/slow?ms=300", r#"{"name":"rope","price":10}"#),
    get: "/items/7?q=x",
};

const NODE: App = App { workers: "preset: node\napp: server.js\ncwd: \"@apps@\"", post: ("/?ms=300", "hi"), get: "/" };

const DEMO: App = App {
    workers: "command: [\"@demo@\", --uds, \"{socket}\"]\nready: { http: /healthz }",
    post: ("/slow?ms=300", "hi"),
    get: "/tiny",
};

impl App {
    async fn start(&self) -> Edge {
        let workers = self.workers.replace('\n', "\n  ");
        // What a program of the long form does until it is replaced takes less than a minute.
        let site = Site::proxy(&format!(
            "workers:\n  {workers}\n  count: {WORKERS}\n  env: {{ PYTHONDONTWRITEBYTECODE: \"1\" }}\n  \
             deploy: {{ min_ready: 200ms }}\n  recycle: {{ max_requests: 100, jitter: 20% }}"
        ))
        .with("bin", python::program("python").parent().expect("a file has a folder").display())
        .with("fastapi", python::fastapi_app().display())
        .with("apps", python::preset_apps().display())
        .and("logging: { access: off }");
        let edge = Edge::launch(Home::new(&site)).ready().await;
        edge.ready_workers("app", WORKERS).await;
        edge
    }

    /// Posts during what happens on purpose: they are not sent again once a worker may have seen them, so that nothing hides one
    /// that was lost. GETs while workers are killed.
    async fn live_through(&self, rounds: usize) {
        let edge = self.start().await;
        let (target, body) = self.post;
        let json = |ask: Ask| ask.header("content-type", "application/json");
        let posts = Rate::start(&edge.clients(), 100, move || json(Ask::post(target, body)), right);
        for _ in 0..rounds {
            let before = pids(&edge.workers("app").await);
            let deployed = edge.home().tidegate(&["deploy", "app", "--wait"]).await;
            assert!(deployed.status.success(), "{}{}", deployed.stdout, deployed.stderr);
            let after = pids(&edge.ready_workers("app", WORKERS).await);
            assert!(before.is_disjoint(&after), "{before:?} {after:?}");
            let another = |workers: &[Worker]| workers.iter().any(|one| one.is_ready() && !after.contains(&one.pid));
            edge.workers_until("app", SOON, another).await;
        }
        let posts = posts.stop().await;
        say(format_args!("{target}: {} posts, slowest {:.1?}", posts.sent(), posts.within(1.0)));
        posts.assert_clean();
        self.survive_kills(&edge, rounds).await;
        let stopped = edge.stop().await;
        stopped.assert_clean();
    }

    async fn survive_kills(&self, edge: &Edge, rounds: usize) {
        let target = self.get;
        let gets = Rate::start(&edge.clients(), 100, move || Ask::get(target), right);
        for _ in 0..rounds {
            let before = pids(&edge.ready_workers("app", WORKERS).await);
            let victim = *before.first().expect("there are workers");
            send_signal(victim, Signal::SIGKILL);
            let whole = |workers: &[Worker]| {
                workers.iter().filter(|one| one.is_ready() && one.pid != victim).count() >= WORKERS
            };
            edge.workers_until("app", SOON, whole).await;
        }
        let gets = gets.stop().await;
        say(format_args!("{target}: {} GETs, slowest {:.1?}", gets.sent(), gets.within(1.0)));
        gets.assert_clean();
    }
}

fn right(answer: &Answer) -> anyhow::Result<()> {
    let reason = answer.header("x-tidegate-reason").unwrap_or_default();
    ensure!(answer.status == 200 && answer.is_complete(), "{} {reason} {}", answer.status, answer.text());
    Ok(())
}

fn pids(workers: &[Worker]) -> BTreeSet<i32> {
    workers.iter().filter(|worker| worker.is_ready()).map(|worker| worker.pid).collect()
}

/// A short form that `make test` runs, and a long one.
macro_rules! both_forms {
    ($($short:ident, $long:ident: $app:expr;)*) => {$(
        // Once: all clients at once.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $short() {
            $app.live_through(1).await;
        }

        // Once: all clients at once.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "long: make drill"]
        async fn $long() {
            $app.live_through(amount("TIDEGATE_DRILL_LIVES", 4)).await;
        }
    )*};
}

both_forms! {
    fastapi_on_uvicorn_loses_nothing, fastapi_on_uvicorn_loses_nothing_for_long: FASTAPI_UVICORN;
    fastapi_on_granian_loses_nothing, fastapi_on_granian_loses_nothing_for_long: FASTAPI_GRANIAN;
    node_loses_nothing, node_loses_nothing_for_long: NODE;
    demo_loses_nothing, demo_loses_nothing_for_long: DEMO;
}
