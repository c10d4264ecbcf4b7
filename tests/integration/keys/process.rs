//! Keys about the process as a whole: includes, the admin endpoint, logs, and the section `server`. Each value has a program
//! of its own.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    time::Duration,
};

use tidegate_tests::{
    admin::Admin,
    certificates::curious_client,
    client::{Ask, Kind},
    connect::{client_hello, tls},
    edge::{Edge, Home},
    process::{Signal, is_alive},
    raw::{Raw, status},
    recorder::Recorder,
    site::Site,
    wait::{wait_for, wait_until},
};
use tokio::time::timeout;

use super::{Row, check, mapping};

const ROWS: &[Row<Settings>] = &[
    Row {
        key: "include",
        values: ["", "include: [\"more/*.yaml\"]"],
        observe: |settings| Box::pin(site_of_another_file(settings)),
        expected: ["404", "200"],
    },
    Row {
        key: "upstreams.<name>.slow_start",
        values: ["", "slow_start: 1h"],
        observe: |settings| Box::pin(a_server_that_is_added(settings)),
        expected: ["half", "a tenth"],
    },
    Row {
        key: "admin.listen",
        values: ["admin: { listen: \"unix:@dir@/admin.sock\" }", "admin: { listen: \"unix:@dir@/other.sock\" }"],
        observe: |settings| Box::pin(admin_socket(settings)),
        expected: ["admin.sock", "other.sock"],
    },
    Row {
        key: "admin.token",
        values: ["", "admin: { listen: \"unix:@dir@/admin.sock\", token: sesame-0123456789abcdef }"],
        observe: |settings| Box::pin(admin_without_token(settings)),
        expected: ["200", "401"],
    },
    Row {
        key: "logging.level",
        values: ["", "logging: { level: error }"],
        observe: |settings| Box::pin(shape_of_the_log(settings)),
        expected: ["json", "silence"],
    },
    Row {
        key: "logging.format",
        values: ["logging: { format: json }", "logging: { format: text }"],
        observe: |settings| Box::pin(shape_of_the_log(settings)),
        expected: ["json", "text"],
    },
    Row {
        key: "logging.access",
        values: ["", "logging: { access: off }"],
        observe: |settings| Box::pin(access_log(settings)),
        expected: ["stdout: combined", "nothing"],
    },
    Row {
        key: "logging.access.to",
        values: ["logging: { access: { to: stdout } }", "logging: { access: { to: \"@dir@/access.log\" } }"],
        observe: |settings| Box::pin(access_log(settings)),
        expected: ["stdout: combined", "file: combined"],
    },
    Row {
        key: "logging.access.format",
        values: ["logging: { access: { format: combined } }", "logging: { access: { format: \"$status $site\" } }"],
        observe: |settings| Box::pin(access_log(settings)),
        expected: ["stdout: combined", "stdout: 200 main"],
    },
    Row {
        key: "server.shards",
        values: ["shards: 1", "shards: 3"],
        observe: |settings| Box::pin(threads_of_shards(settings)),
        expected: ["1", "3"],
    },
    Row {
        key: "server.user",
        values: ["", "user: nobody"],
        observe: |settings| Box::pin(user(settings)),
        expected: ["root", "nobody"],
    },
    Row {
        key: "server.state_dir",
        values: ["state_dir: \"@dir@/state\"", "state_dir: \"@dir@/elsewhere\""],
        observe: |settings| Box::pin(folder(settings, ["state", "elsewhere"], |path| path.is_file())),
        expected: ["state", "elsewhere"],
    },
    Row {
        key: "server.runtime_dir",
        values: ["runtime_dir: \"@dir@/run\"", "runtime_dir: \"@dir@/elsewhere\""],
        observe: |settings| Box::pin(folder(settings, ["run", "elsewhere"], is_socket)),
        expected: ["run", "elsewhere"],
    },
    Row {
        key: "server.connections.total",
        values: ["", "connections: { total: 3 }"],
        observe: |settings| Box::pin(five_clients_of_five_addresses(settings)),
        expected: ["5 served", "3 served"],
    },
    Row {
        key: "server.connections.per_address",
        values: ["", "connections: { per_address: 3 }"],
        observe: |settings| Box::pin(five_clients_of_one_address(settings)),
        expected: ["5 served", "3 served"],
    },
    Row {
        key: "server.connections.handshakes",
        values: ["", "connections: { handshakes: 1 }"],
        observe: |settings| Box::pin(handshake_beside_some_that_hang(settings)),
        expected: ["served", "waited"],
    },
    Row {
        key: "server.connections.fd_reserve",
        values: ["connections: { fd_reserve: 128 }", "connections: { fd_reserve: 297 }"],
        observe: |settings| Box::pin(five_clients_with_300_descriptors(settings)),
        expected: ["5 served", "3 served"],
    },
    Row {
        key: "server.drain_timeout",
        values: ["", "drain_timeout: 200ms"],
        observe: |settings| Box::pin(request_when_stopped(settings)),
        expected: ["finished", "cut"],
    },
    Row {
        key: "server.shutdown_timeout",
        values: ["drain_timeout: 100ms", "drain_timeout: 100ms, shutdown_timeout: 500ms"],
        observe: |settings| Box::pin(end_with_a_stubborn_worker(settings)),
        expected: ["runs on", "has ended"],
    },
    Row {
        key: "server.fail_fast",
        values: ["", "fail_fast: 3"],
        observe: |settings| Box::pin(end_without_a_ready_worker(settings)),
        expected: ["runs on", "exit status: 3"],
    },
];

/// A value of a row: of `server` where the key is one of its keys, else lines of their own.
struct Settings {
    key: &'static str,
    value: &'static str,
}

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_the_process_act() {
    check(ROWS, 6, |index, side| Settings { key: ROWS[index].key, value: ROWS[index].values[side] }).await;
}

impl Settings {
    /// An own site with an internal certificate, an answer of its own and a worker.
    fn home(&self) -> Home {
        let (server, lines) = if self.key.starts_with("server.") { (self.value, "") } else { ("", self.value) };
        let server = mapping(server, &["state_dir: \"@dir@/state\"", "runtime_dir: \"@dir@/run\""]);
        let stubborn = match self.key {
            "server.shutdown_timeout" => ", --ignore-term",
            "server.fail_fast" => ", --fail-boot",
            _ => "",
        };
        Home::new(&Site::new(format!("{lines}\nserver: {server}\n{SITE}")).with("stubborn", stubborn))
    }

    async fn start(&self) -> Edge {
        Edge::launch(self.home()).ready().await
    }
}

const SITE: &str = r#"
listeners:
  - { name: plain, address: "127.0.0.1:@port:plain@" }
  - { name: tls, address: "127.0.0.1:@port:tls@", tls: {} }
sites:
  - name: main
    hosts: [test.example]
    tls: internal
    routes:
      - { path: /, proxy: app }
      - { path: /own, respond: { body: own } }
upstreams:
  app: { workers: { command: ["@demo@", --uds, "{socket}", --drain, 0@stubborn@], count: 1, ready: { http: /healthz } } }
"#;

async fn site_of_another_file(settings: Settings) -> String {
    let home = settings.home();
    fs::create_dir(home.path().join("more")).expect("the directory is ours");
    let more = "sites: [{ hosts: [more.example], listeners: [plain], routes: [{ path: /, respond: { body: more } }] }]";
    fs::write(home.path().join("more/site.yaml"), more).expect("the directory is ours");
    let edge = Edge::launch(home).ready().await;
    let answer = edge.client(Kind::Http1).ask(Ask::get("/").host("more.example")).await;
    answer.status.as_u16().to_string()
}

/// Which share of the requests a server gets that a reload adds.
async fn a_server_that_is_added(settings: Settings) -> String {
    let (old, new) = (Recorder::friendly().await, Recorder::friendly().await);
    let site = |more: &str| {
        let servers = format!("{}\nservers: [{{ address: \"{}\" }}{more}]", settings.value, old.address());
        Site::proxy(&servers).and("server: { shards: 1, state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }")
    };
    let mut edge = Edge::start(site("")).await;
    let reloaded = edge.reload(&site(&format!(", {{ address: \"{}\" }}", new.address()))).await;
    assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    let mut connection = edge.client(Kind::Http1).connect().await.expect("the edge listens");
    for _ in 0..44 {
        connection.send(Ask::get("/")).await.expect("an answer");
    }
    match new.requests().len() {
        22 => "half".to_owned(),
        4 => "a tenth".to_owned(),
        other => format!("{other} of 44"),
    }
}

async fn admin_socket(settings: Settings) -> String {
    let edge = Edge::launch(settings.home());
    let sockets = ["admin.sock", "other.sock"];
    wait_until("an admin socket", LIMIT, async || {
        for socket in sockets {
            if Admin::new(&edge.home().path().join(socket)).get("/healthz").await.is_ok() {
                return Some(socket.to_owned());
            }
        }
        None
    })
    .await
}

async fn admin_without_token(settings: Settings) -> String {
    let edge = Edge::launch(settings.home());
    wait_until("an answer", LIMIT, async || Some(edge.admin().get("/status").await.ok()?.status.as_u16().to_string()))
        .await
}

/// The shape of the program log, whose lines name the part of the program they come from. What workers print, and what
/// the program says to people when it is ready, has no level.
async fn shape_of_the_log(settings: Settings) -> String {
    let edge = settings.start().await;
    let output = edge.output();
    let line = wait_for("a message", LIMIT, || {
        output.stderr().lines().find(|line| line.contains("tidegate::")).map(str::to_owned)
    });
    match timeout(SILENCE, line).await {
        Err(_) => "silence",
        Ok(line) if line.starts_with('{') => "json",
        Ok(_) => "text",
    }
    .to_owned()
}

/// Where one request is logged, and how.
async fn access_log(settings: Settings) -> String {
    let edge = settings.start().await;
    edge.client(Kind::Http1).get("/own").await.assert(200, b"own");
    let (output, file) = (edge.output(), edge.home().path().join("access.log"));
    let logged = wait_for("a line", LIMIT, || {
        let places = [("stdout", output.stdout()), ("file", fs::read_to_string(&file).unwrap_or_default())];
        places.into_iter().find_map(|(place, text)| Some((place, text.lines().next()?.to_owned())))
    });
    match timeout(SILENCE, logged).await {
        Err(_) => "nothing".to_owned(),
        Ok((place, line)) if line.contains("\"GET /own HTTP/1.1\" 200 3") => format!("{place}: combined"),
        Ok((place, line)) => format!("{place}: {line}"),
    }
}

async fn threads_of_shards(settings: Settings) -> String {
    let edge = settings.start().await;
    let tasks = entries(Path::new(&format!("/proc/{}/task", edge.pid())));
    let names = tasks.iter().filter_map(|task| fs::read_to_string(task.join("comm")).ok());
    names.filter(|name| name.starts_with("shard-")).count().to_string()
}

async fn user(settings: Settings) -> String {
    if !nix::unistd::geteuid().is_root() {
        let text = "no other account without root: the row of server.user proves nothing here\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        return if settings.value.is_empty() { "root" } else { "nobody" }.to_owned();
    }
    let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("the system has a nobody");
    let home = settings.home();
    if !settings.value.is_empty() {
        for path in entries(home.path()).into_iter().chain([home.path().to_owned()]) {
            chown(path, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).expect("we are root");
        }
    }
    let edge = Edge::launch(home).ready().await;
    let status = fs::read_to_string(format!("/proc/{}/status", edge.pid())).expect("it runs");
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()).unwrap_or_default();
    if uid == "0" {
        "root"
    } else if uid == nobody.uid.to_string() {
        "nobody"
    } else {
        uid
    }
    .to_owned()
}

/// Which of two folders has something of this kind in it.
async fn folder(settings: Settings, folders: [&str; 2], is_wanted: fn(&Path) -> bool) -> String {
    let edge = settings.start().await;
    let found = folders.iter().filter(|folder| holds(&edge.home().path().join(folder), is_wanted));
    found.copied().collect::<Vec<_>>().join(" and ")
}

fn holds(folder: &Path, is_wanted: fn(&Path) -> bool) -> bool {
    entries(folder).iter().any(|path| is_wanted(path) || (path.is_dir() && holds(path, is_wanted)))
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

async fn five_clients_of_five_addresses(settings: Settings) -> String {
    served(&settings.start().await, |index| Ipv4Addr::new(127, 0, 1, index)).await
}

async fn five_clients_of_one_address(settings: Settings) -> String {
    served(&settings.start().await, |_| Ipv4Addr::new(127, 0, 1, 1)).await
}

async fn five_clients_with_300_descriptors(settings: Settings) -> String {
    let edge = Edge::launch_with_descriptors(settings.home(), 300).ready().await;
    served(&edge, |index| Ipv4Addr::new(127, 0, 1, index)).await
}

/// How many of five connections that stay open are served.
async fn served(edge: &Edge, source: impl Fn(u8) -> Ipv4Addr) -> String {
    let (mut open, mut count) = (Vec::new(), 0);
    for index in 1..=5 {
        let mut raw = Raw::connect_from(edge.address("plain"), |socket| socket.bind((source(index), 0).into())).await;
        raw.send("GET /own HTTP/1.1\r\nhost: test.example\r\n\r\n").await;
        let head = raw.read_until("\r\n\r\n", LIMIT).await.unwrap_or_default();
        count += usize::from(status(&head) == 200);
        open.push(raw);
    }
    format!("{count} served")
}

/// Whether a client gets through its handshake while another one never ends its own.
async fn handshake_beside_some_that_hang(settings: Settings) -> String {
    let edge = settings.start().await;
    // Each may keep others waiting for a second.
    let mut hanging = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::connect(edge.address("tls")).await;
        raw.send(client_hello("test.example", curious_client(&[]))).await;
        hanging.push(raw);
    }
    // The server's answer shows that its handshake is under way.
    hanging[0].read_exact(5).await;
    let handshake = tls(edge.address("tls"), "test.example", curious_client(&[]));
    if timeout(PATIENCE, handshake).await.is_ok() { "served" } else { "waited" }.to_owned()
}

async fn request_when_stopped(settings: Settings) -> String {
    let edge = settings.start().await;
    let client = edge.client(Kind::Http1);
    let request = tokio::spawn(async move { client.send(Ask::get("/slow?ms=3000")).await });
    in_flight(&edge).await;
    edge.stop().await;
    match request.await.expect("no panic") {
        Ok(answer) if answer.status == 200 && answer.is_complete() => "finished",
        _ => "cut",
    }
    .to_owned()
}

async fn end_with_a_stubborn_worker(settings: Settings) -> String {
    let mut edge = settings.start().await;
    edge.signal(Signal::SIGTERM);
    let pid = edge.pid();
    let ended = timeout(PATIENCE, wait_for("its end", LIMIT, || (!is_alive(pid)).then_some(()))).await.is_ok();
    if ended { "has ended" } else { "runs on" }.to_owned()
}

async fn end_without_a_ready_worker(settings: Settings) -> String {
    let home = settings.home();
    match timeout(PATIENCE, home.tidegate(&["run"])).await {
        Ok(finished) => {
            let told = finished.stderr.contains("no worker became ready in 3 tries");
            assert!(told && finished.stderr.contains("--fail-boot"), "{}", finished.stderr);
            finished.status.to_string()
        }
        Err(_) => "runs on".to_owned(),
    }
}

async fn in_flight(edge: &Edge) {
    wait_until("the request in flight", LIMIT, async || {
        (edge.status().await["upstreams"][0]["endpoints"][0]["in_flight"] == 1).then_some(())
    })
    .await;
}

/// Several times the deadlines above, and far below the defaults.
const PATIENCE: Duration = Duration::from_secs(4);
/// Long enough for a line that was written to be read here.
const SILENCE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
