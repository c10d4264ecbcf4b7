//! Starting, checking, and refusing to start.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use tidegate_tests::{
    binary::Binary,
    client::{Ask, Client, Connection, Kind},
    edge::{Edge, Home},
    process::{Process, Signal, run_to_end},
    site::{LISTENERS, Site, free_port},
    wait::{wait_blocking, wait_for, wait_until},
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
    let answered = async || client.send(Ask::get("/")).await.ok();
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
async fn the_stop_command_stops() {
    let edge = Edge::start(hello()).await;
    let finished = edge.home().tidegate(&["stop"]).await;
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    let pid = edge.pid();
    wait_for("the end", Duration::from_secs(10), || (!tidegate_tests::process::is_alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn a_second_signal_waits_for_nobody() {
    let mut edge = Edge::start(Site::demo_workers(1, &[])).await;
    let client = edge.client(Kind::Http1);
    let hanging = tokio::spawn(async move { client.send(Ask::get("/hang")).await });
    wait_until("the request in flight", Duration::from_secs(5), async || {
        (edge.status().await["upstreams"][0]["endpoints"][0]["in_flight"] == 1).then_some(())
    })
    .await;
    edge.signal(Signal::SIGTERM);
    edge.wait_until_refused("plain").await;
    assert!(tidegate_tests::process::is_alive(edge.pid()), "the first signal drains");
    let stopped = edge.stop().await;
    assert!(stopped.took < Duration::from_secs(5), "{:?}", stopped.took);
    assert!(stopped.left.is_empty(), "{:?}", stopped.left);
    hanging.abort();
}

#[tokio::test]
async fn a_listener_may_be_a_unix_socket_or_ipv6() {
    let more = "listeners:\n  - { name: unix, address: \"unix:@dir@/front.sock\" }\n  - { name: six, address: \"[::1]:@port:six@\" }\n";
    let edge = Edge::start(hello().replace("listeners:\n", more)).await;
    let stream =
        tokio::net::UnixStream::connect(edge.home().path().join("front.sock")).await.expect("somebody listens");
    let mut connection = Connection::http1(stream).await.expect("HTTP/1.1");
    connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"hello");
    let six = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, edge.home().port("six")));
    Client::new(Kind::Http1, six).get("/").await.assert(200, b"hello");
}

#[tokio::test]
async fn privileges_are_given_up_before_anything_else() {
    let site = hello().and("server: { user: nobody, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }");
    let home = Home::new(&site);
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        let finished = home.tidegate(&["run"]).await;
        assert!(finished.status.code() == Some(1) && finished.stderr.contains("nobody"), "{}", finished.stderr);
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("the system has a nobody");
    for entry in [home.path().to_owned()].into_iter().chain(files(home.path())) {
        std::os::unix::fs::chown(&entry, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).expect("we are root");
    }
    let edge = Edge::launch(home).ready().await;
    for client in edge.clients() {
        client.get("/").await.assert(200, b"hello");
    }
    for task in files(&std::path::PathBuf::from(format!("/proc/{}/task", edge.pid()))) {
        let Ok(status) = std::fs::read_to_string(task.join("status")) else { continue };
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        let ids = |id: u32| vec![id.to_string(); 4].join("\t");
        assert_eq!((field("Uid:"), field("Gid:")), (ids(nobody.uid.as_raw()), ids(nobody.gid.as_raw())), "{status}");
        assert!(!field("Groups:").split_whitespace().any(|group| group == "0"), "{status}");
        // Of all capabilities only the one to bind low ports may stay (bit 10).
        let effective = u64::from_str_radix(&field("CapEff:"), 16).expect("a mask");
        assert_eq!(effective & !(1 << 10), 0, "{status}");
    }
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
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
    for (words, code) in [(&["run"][..], 1), (&["check"], 1), (&["reload"], 1)] {
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
        client.send(Ask::get("/tiny")).await.ok().filter(|answer| answer.status == 200)
    })
    .await;
    answer.assert(200, b"hello, world\n");
    process.signal(Signal::SIGTERM);
    assert!(wait_blocking(Duration::from_secs(10), || process.status()).is_some_and(|status| status.success()));
    assert!(process.mark().living_after(Duration::from_secs(1), &[]).is_empty());
}
