//! A small answer is one write to its client, and a small request one write to its endpoint: a head that leaves alone costs a
//! system call, and the reader a turn. The kernel tells, by strace.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use tempfile::TempDir;
use tidegate_tests::{
    client::{Ask, Kind},
    edge::Edge,
    every_client,
    process::{Process, Signal},
    recorder::{OK, Recorder, Step},
    site::Site,
    wait::wait_for,
};

every_client! {
    an_exchange_is_two_writes,
}

const ROUNDS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);

async fn an_exchange_is_two_writes(kind: Kind) {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n";
    let origin = Recorder::start(move |seen| {
        vec![Step::Send(if seen.target() == "/chunked" { chunked.into() } else { OK.into() })]
    })
    .await;
    let edge = Edge::start(Site::proxy_to(origin.address())).await;
    // How many writes an exchange takes. The end of a body of unknown length is one of its own, so far.
    let all: [(fn() -> Ask, usize); 3] =
        [(|| Ask::get("/"), 2), (|| Ask::post("/", "abc"), 2), (|| Ask::get("/chunked"), 3)];
    for (ask, most) in all {
        // HTTP/2 clients send the head and the body of a request apart.
        if kind.is_h2() && ask().to_string().starts_with("POST") {
            continue;
        }
        let mut connection = edge.client(kind).connect().await.expect("a connection");
        // What a connection needs once: settings of HTTP/2, tickets of TLS.
        for _ in 0..3 {
            connection.send(ask()).await.expect("an answer").assert(200, b"ok\n");
        }
        let trace = Trace::of(edge.pid()).await;
        for _ in 0..ROUNDS {
            connection.send(ask()).await.expect("an answer").assert(200, b"ok\n");
        }
        check(&trace.stop(), most, &format!("{} over {kind}", ask()));
        if kind == Kind::Http1 {
            let trace = Trace::of(edge.pid()).await;
            for _ in 0..ROUNDS {
                edge.client(kind).ask(ask()).await.assert(200, b"ok\n");
            }
            check(&trace.stop(), most, &format!("{} on connections of their own", ask()));
        }
    }
}

fn check(writes: &[String], most: usize, what: &str) {
    // The request, and the head with the first bytes of the body.
    assert!((2 * ROUNDS..=most * ROUNDS).contains(&writes.len()), "{} for {what}: {writes:#?}", writes.len());
    for head in writes.iter().filter(|write| write.contains("\"HTTP/1.1 200")) {
        assert!(head.contains("ok\\n"), "a head alone for {what}: {head}");
    }
}

/// The writes of a process to its sockets, while it lives.
struct Trace {
    strace: Process,
    file: PathBuf,
    _folder: TempDir,
}

impl Trace {
    /// Begins; every thread is watched when it returns.
    async fn of(pid: i32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("writes");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-s", "400", "-e", "trace=sendto,sendmsg,writev", "-p", &pid.to_string(), "-o"]);
        command.arg(&file);
        let strace = Process::start(command);
        wait_for("strace at every thread", PATIENCE, || {
            threads(pid).iter().all(|thread| is_traced(thread)).then_some(())
        })
        .await;
        Self { strace, file, _folder: folder }
    }

    /// Ends, and gives the calls that were seen.
    fn stop(mut self) -> Vec<String> {
        self.strace.signal(Signal::SIGINT);
        assert!(self.strace.wait(PATIENCE).is_some(), "strace does not end");
        let text = fs::read_to_string(&self.file).expect("strace wrote it");
        // The rest of a call that another thread interrupted is a line of its own.
        let calls = text.lines().filter(|line| line.contains('(') && !line.contains("resumed>"));
        calls.map(str::to_owned).collect()
    }
}

fn threads(pid: i32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is alive");
    tasks.filter_map(|task| Some(task.ok()?.path())).collect()
}

fn is_traced(thread: &std::path::Path) -> bool {
    let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
}
