//! An application under development: an edit is served at once, and one that does not start is shown until it is mended.

use std::{fs, path::PathBuf, time::Duration};

use tidegate_tests::{
    client::{Answer, Ask, Kind},
    edge::{Edge, Home},
    load::Load,
    process::is_alive,
    python,
    site::Site,
    wait::{wait_for, wait_until},
};

/// "Within seconds", on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(15);

fn site(count: u32) -> Site {
    let workers = format!(
        "workers: {{ preset: uvicorn, command: [\"@uvicorn@\"], app: \"main:app\", count: {count}, cwd: \"@dir@/app\", watch: [app], \
         env: {{ PYTHONDONTWRITEBYTECODE: \"1\" }} }}"
    );
    // A page for the operator's users: what developers wait for goes before it.
    let pages = "    error_pages: { 5xx: \"@dir@/sorry.html\" }\n    routes:";
    Site::proxy(&workers).replace("    routes:", pages).with("uvicorn", python::program("uvicorn").display())
}

/// The module of one version: `/version` says its name, everything else the same always.
fn version(name: &str) -> String {
    format!(
        "from pathlib import Path\n\n\
         async def app(scope, receive, send):\n\
         \x20   if scope['type'] != 'http':\n\
         \x20       raise RuntimeError('no lifespan here')\n\
         \x20   body = b'{name}' if scope['path'] == '/version' else b'hello, world\\n'\n\
         \x20   await send({{'type': 'http.response.start', 'status': 200, 'headers': []}})\n\
         \x20   await send({{'type': 'http.response.body', 'body': body}})\n"
    )
}

const BROKEN: &str = "raise RuntimeError('<script>alert(1)</script> & more')\n";

struct Project {
    edge: Edge,
    module: PathBuf,
}

impl Project {
    async fn start(count: u32, text: &str) -> Self {
        let home = Home::new(&site(count));
        let folder = home.path().join("app");
        fs::create_dir(&folder).expect("the directory is ours");
        fs::write(home.path().join("sorry.html"), "<h1>sorry</h1>\n").expect("the directory is ours");
        let module = folder.join("main.py");
        fs::write(&module, text).expect("the directory is ours");
        Self { edge: Edge::launch(home), module }
    }

    /// As editors do it: a new file in place of the old one.
    fn save(&self, text: &str) {
        let new = self.module.with_extension("py~");
        fs::write(&new, text).expect("the directory is ours");
        fs::rename(&new, &self.module).expect("the directory is ours");
    }

    async fn answers(&self, what: &str, ask: impl Fn() -> Ask, is_it: impl Fn(&Answer) -> bool) -> Answer {
        let probe = async || self.edge.client(Kind::Http1).send(ask()).await.ok().filter(&is_it);
        wait_until(what, SOON, probe).await
    }

    async fn serves(&self, name: &str) {
        let is_it = |answer: &Answer| answer.status == 200 && answer.text() == name;
        self.answers(&format!("version {name}"), || Ask::get("/version"), is_it).await;
    }

    async fn shows_why(&self) {
        let page = || Ask::get("/version").header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let is_it = |answer: &Answer| answer.status == 500;
        let page = self.answers("the page of the broken version", page, is_it).await;
        assert_eq!(page.header("x-tidegate-reason"), Some("broken_version"));
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        let text = page.text();
        assert!(text.contains("RuntimeError: &lt;script&gt;alert(1)&lt;/script&gt; &amp; more"), "{text}");
        assert!(!text.contains("<script") && text.contains("main.py&quot;, line 1"), "{text}");
        let plain = self.edge.client(Kind::Http1).get("/version").await;
        assert!(plain.status == 500 && plain.text().contains("RuntimeError: <script>"), "{}", plain.text());
        let json = self.edge.client(Kind::H2c).send(Ask::get("/").header("accept", "application/json")).await;
        let json = json.expect("an answer").json();
        let output = json["output"].as_str().expect("the output");
        assert!(json["reason"] == "broken_version" && output.contains("Traceback"), "{json}");
    }
}

async fn some_more(load: &Load) {
    let sent = load.sent();
    wait_for("more load", SOON, || (load.sent() > sent + 50).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_is_served_at_once_and_costs_no_request() {
    let project = Project::start(2, &version("one")).await;
    project.serves("one").await;
    let load = Load::start(&project.edge.clients(), 8, "/", b"hello, world\n".to_vec());
    some_more(&load).await;
    project.save(&version("two"));
    project.serves("two").await;
    // Many saves in a row, as of a whole tree that is checked out: the last one counts.
    for number in 0..20 {
        project.save(&version(&format!("{number}")));
        fs::write(project.module.with_file_name(format!("{number}.py")), "").expect("the directory is ours");
    }
    project.serves("19").await;
    some_more(&load).await;
    load.stop().await.assert_clean();
    let deploys = project.edge.home().tidegate(&["deploy", "app", "--last", "--format", "json"]).await;
    assert!(deploys.stdout.contains("\"done\""), "{}{}", deploys.stdout, deploys.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_does_not_start_is_shown_until_it_is_mended() {
    let project = Project::start(1, &version("one")).await;
    project.serves("one").await;
    let before = project.edge.ready_workers("app", 1).await;
    project.save(BROKEN);
    project.shows_why().await;
    let after = project.edge.ready_workers("app", 1).await;
    assert_eq!(after[0].pid, before[0].pid, "the old one stays");
    // Broken in another way, still shown: no answer of the old version comes between.
    project.save("def app(:\n");
    let is_it = |answer: &Answer| {
        assert_eq!(answer.status, 500, "{}", answer.text());
        answer.text().contains("SyntaxError")
    };
    project.answers("the other failure", || Ask::get("/version"), is_it).await;
    project.save(&version("two"));
    project.serves("two").await;
    wait_for("the end of the old one", SOON, || (!is_alive(before[0].pid)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_version_that_does_not_start_is_shown_too() {
    let project = Project::start(1, BROKEN).await;
    project.shows_why().await;
    project.save(&version("one"));
    project.serves("one").await;
}
