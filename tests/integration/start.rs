//! Starting, checking, and refusing to start.

use std::{net::TcpListener, time::Duration};

use tidegate_tests::{
    binary::Binary,
    client::{Client, Kind},
    edge::{Edge, Home},
    process::{Process, Signal, run_to_end},
    site::{LISTENERS, Site, free_port},
    wait::{wait_blocking, wait_until},
};

fn hello() -> Site {
    Site::usual("- { path: /, respond: { body: hello } }", "unused: { servers: [{ address: \"127.0.0.1:9\" }] }")
}

#[tokio::test]
async fn a_port_in_use_is_an_error_within_a_second() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let finished = Home::new(&hello().replace("127.0.0.1:@port:plain@", &address)).tidegate(&["run"]).await;
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains(&address), "{}", finished.stderr);
    assert!(finished.took < Duration::from_secs(1), "{:?}", finished.took);
}

#[tokio::test]
async fn a_second_instance_is_refused_and_the_first_serves_on() {
    let edge = Edge::start(hello()).await;
    let finished = edge.home().tidegate(&["run"]).await;
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(!finished.stderr.trim().is_empty() && finished.took < Duration::from_secs(1), "{finished:?}");
    for client in edge.clients() {
        client.get("/").await.assert(200, b"hello");
    }
    edge.status().await;
}

#[tokio::test]
async fn another_instance_cannot_share_a_port() {
    let edge = Edge::start(hello()).await;
    let same_port = hello().replace("127.0.0.1:@port:plain@", &edge.address("plain").to_string());
    let finished = Home::new(&same_port).tidegate(&["run"]).await;
    assert_eq!(finished.status.code(), Some(1), "SO_REUSEPORT hides a port in use: {}", finished.stderr);
}

#[tokio::test]
async fn a_start_after_a_kill_finds_no_obstacle() {
    let mut edge = Edge::start(hello()).await;
    edge.signal(Signal::SIGKILL);
    let again = {
        wait_blocking(Duration::from_secs(5), || (!tidegate_tests::process::is_alive(edge.pid())).then_some(()));
        edge.home().tidegate(&["check"]).await
    };
    assert!(again.status.success(), "{}", again.stderr);
    let mut command = Binary::Tidegate.command();
    command.arg("run").arg("-c").arg(edge.home().site_file()).current_dir(edge.home().path());
    let second = Process::start(command);
    let client = edge.client(Kind::Http1);
    let answered = async || client.send(tidegate_tests::client::Ask::get("/")).await.ok();
    wait_until("the second start to serve", Duration::from_secs(10), answered).await.assert(200, b"hello");
    drop(second);
}

#[tokio::test]
async fn port_zero_is_shown_in_the_status() {
    let edge = Edge::start(hello().replace("127.0.0.1:@port:plain@", "127.0.0.1:0")).await;
    let address = edge.actual_address("plain").await;
    assert_ne!(address.port(), 0);
    Client::new(Kind::Http1, address).get("/").await.assert(200, b"hello");
}

#[tokio::test]
async fn it_stops_at_once_when_nobody_is_served() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut edge = Edge::start(hello()).await;
        let connection = edge.client(Kind::Http1).connect().await.expect("the edge listens");
        edge.signal(signal);
        let stopped = edge.stop().await;
        stopped.assert_clean();
        assert!(stopped.took < Duration::from_secs(3), "{signal}: {:?}", stopped.took);
        drop(connection);
    }
}

#[tokio::test]
async fn five_faults_are_told_in_one_run() {
    let text = format!(
        "{LISTENERS}
sites:
  - hosts: [test.example]
    max_body: 10
    routs: []
    routes:
      - {{ path: /, proxy: nowhere }}
      - {{ path: '~ (', respond: {{ status: 42 }} }}
upstreams:
  app: {{ servers: [{{ address: \"127.0.0.1:80\", wait: 1 }}] }}
"
    );
    let home = Home::new(&Site::new(text));
    for words in [&["check"][..], &["run"]] {
        let finished = home.tidegate(words).await;
        let told = format!("{}{}", finished.stdout, finished.stderr);
        assert_eq!(finished.status.code(), Some(1), "{told}");
        for named in ["max_body", "routs", "nowhere", "42", "wait"] {
            assert!(told.contains(named), "no word of '{named}':\n{told}");
        }
        let places = told.matches("site.yaml:").count();
        assert!(places >= 5, "{places} places:\n{told}");
    }
    let finished = home.tidegate(&["check", "--format", "json"]).await;
    let report: serde_json::Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.stdout));
    assert_eq!(finished.status.code(), Some(1));
    assert!(
        report.to_string().matches("\"line\"").count() >= 5 || report.to_string().matches("site.yaml:").count() >= 5,
        "{report:#}"
    );
}

#[tokio::test]
async fn a_good_file_checks() {
    let finished = Home::new(&hello()).tidegate(&["check"]).await;
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let home = Home::new(&hello());
    std::fs::remove_file(home.site_file()).expect("it was written");
    for (words, code) in [(&["run"][..], 1), (&["check"], 1), (&["reload"], 3)] {
        let finished = home.tidegate(words).await;
        assert_eq!(finished.status.code(), Some(code), "{words:?}: {}", finished.stderr);
        assert!(finished.stderr.contains("site.yaml"), "{words:?}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn a_wrong_command_line_is_a_usage_error() {
    let mut command = Binary::Tidegate.command();
    command.arg("--no-such-option");
    assert_eq!(run_to_end(command, Duration::from_secs(10)).await.status.code(), Some(2));
}

#[tokio::test]
async fn the_schema_is_json() {
    let mut command = Binary::Tidegate.command();
    command.arg("schema");
    let finished = run_to_end(command, Duration::from_secs(10)).await;
    let schema: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}"));
    for key in ["listeners", "sites", "upstreams", "admin", "logging", "server"] {
        assert!(schema["properties"][key].is_object(), "no '{key}'");
    }
}

#[tokio::test]
async fn serve_needs_no_file() {
    let dir = tempfile::Builder::new().prefix("tg").tempdir().expect("a temporary directory");
    let port = free_port(&Default::default());
    let mut command = Binary::Tidegate.command();
    command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--workers", "2", "--"]);
    command.arg(Binary::UpstreamDemo.path()).args(["--uds", "{socket}"]).current_dir(dir.path());
    for (variable, name) in
        [("XDG_STATE_HOME", "state"), ("XDG_RUNTIME_DIR", "run"), ("XDG_CONFIG_HOME", "config"), ("HOME", "home")]
    {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).expect("the directory is ours");
        command.env(variable, path);
    }
    let mut process = Process::start(command);
    let client = Client::new(Kind::Http1, ([127, 0, 0, 1], port).into());
    let output = process.output();
    let answer = wait_until("an answer", Duration::from_secs(20), async || {
        assert_eq!(process.status(), None, "{}", output.both());
        client.send(tidegate_tests::client::Ask::get("/tiny")).await.ok().filter(|answer| answer.status == 200)
    })
    .await;
    answer.assert(200, b"hello, world\n");
    process.signal(Signal::SIGTERM);
    assert!(wait_blocking(Duration::from_secs(10), || process.status()).is_some_and(|status| status.success()));
    assert!(process.mark().living_after(Duration::from_secs(1), &[]).is_empty());
}
