//! Tests of server, routes and client together, over real sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use async_trait::async_trait;
use tidegate_config::model::{Address, Secret};
use tokio::sync::oneshot;

use super::*;
use crate::admin::client::{AdminClient, ClientError};
use crate::admin::view::{self, Readiness, ReloadReport, Status};

const SOON: Duration = Duration::from_secs(10);

/// A program that remembers what it was told.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) stopped: AtomicBool,
    pub(crate) refuse: AtomicBool,
}

#[async_trait]
impl Control for Fake {
    async fn status(&self) -> Status {
        let upstreams = vec![view::Upstream { name: "app".to_owned(), target: Some(4), ..view::Upstream::default() }];
        Status { version: "0.1.0".to_owned(), generation: 7, upstreams, ..Status::default() }
    }

    async fn metrics(&self) -> String {
        "tidegate_config_generation 7\n".to_owned()
    }

    async fn readiness(&self) -> Readiness {
        Readiness { ready: false, reasons: vec!["upstream \"app\" has no ready worker".to_owned()] }
    }

    async fn reload(&self) -> ReloadReport {
        if self.refuse.load(Ordering::Relaxed) {
            let fault = view::Fault { text: "site.yaml:1:1: error: broken\n".to_owned(), ..view::Fault::default() };
            return ReloadReport { generation: 7, faults: vec![fault], ..ReloadReport::default() };
        }
        let changes = vec!["+ site new".to_owned()];
        ReloadReport { applied: true, generation: 8, changes, ..ReloadReport::default() }
    }

    async fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// A server on its own thread; stops when dropped.
pub(crate) struct Running {
    pub(crate) fake: Arc<Fake>,
    pub(crate) tcp: Option<std::net::SocketAddr>,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(address: &Address, guard: Guard) -> Self {
        let socket = AdminSocket::bind(address).unwrap();
        let tcp = socket.tcp_address();
        let fake = Arc::new(Fake::default());
        let control: Arc<dyn Control> = Arc::<Fake>::clone(&fake);
        let (shutdown, asked) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(socket, control, guard, async { drop(asked.await) })).unwrap();
        });
        Self { fake, tcp, shutdown: Some(shutdown), thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn socket_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("admin.sock")
}

#[test]
fn a_client_gets_status_reload_and_stop_over_the_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Unix(socket_in(&folder));
    let running = Running::start(&address, Guard::unix(None));
    let client = AdminClient::new(address, None);
    let status = client.status(SOON).unwrap();
    assert_eq!((status.generation, status.upstreams[0].target), (7, Some(4)));
    assert!(client.reload(SOON).unwrap().applied);
    running.fake.refuse.store(true, Ordering::Relaxed);
    assert!(!client.reload(SOON).unwrap().applied, "a refusal is an answer");
    client.stop(SOON).unwrap();
    assert!(running.fake.stopped.load(Ordering::Relaxed));
    drop(running);
    assert!(!socket_in(&folder).exists());
    assert!(matches!(client.status(SOON), Err(ClientError::NoSocket(_))));
}

#[test]
fn tcp_needs_the_token() {
    let address = Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let running = Running::start(&address, Guard::tcp(Secret("t0ken".to_owned())));
    let client = |token: Option<&str>| {
        AdminClient::new(Address::Tcp(running.tcp.unwrap()), token.map(|token| Secret(token.to_owned())))
    };
    assert!(client(Some("t0ken")).status(SOON).is_ok());
    assert!(matches!(client(Some("wrong")).status(SOON), Err(ClientError::Token { .. })));
    assert!(matches!(client(None).reload(SOON), Err(ClientError::Token { .. })));
}

/// The whole answer to a raw request.
fn raw(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn every_path_answers_and_nothing_else_does() {
    let running = Running::start(&Address::Tcp((Ipv4Addr::LOCALHOST, 0).into()), Guard::tcp(Secret("t".to_owned())));
    let address = running.tcp.unwrap();
    let rows = [
        ("GET /healthz", "Authorization: Bearer t", "200 OK", "ok\n"),
        ("GET /readyz", "Authorization: Bearer t", "503 ", "no ready worker"),
        ("GET /metrics", "Authorization: Bearer t", "200 OK", "tidegate_config_generation 7\n"),
        ("GET /nowhere", "Authorization: Bearer t", "404 ", "no such path"),
        ("GET /reload", "Authorization: Bearer t", "405 ", "another method"),
        ("GET /stop", "Authorization: Bearer t", "405 ", "another method"),
        ("GET /nowhere", "X-A: b", "401 ", "www-authenticate: Bearer"),
        ("GET /healthz", "X-A: b", "401 ", "Authorization: Bearer TOKEN"),
        ("POST /reload", "Authorization: Bearer t\r\nOrigin: http://evil.example", "403 ", "other sites"),
    ];
    for (request, field, status, text) in rows {
        let answer =
            raw(address, &format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{field}\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        assert!(answer.contains(text) && answer.contains("cache-control: no-store"), "{request}: {answer}");
    }
    let rebound = raw(
        address,
        "GET /status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\nAuthorization: Bearer t\r\n\r\n",
    );
    assert!(rebound.starts_with("HTTP/1.1 421 "), "{rebound}");
    assert!(!running.fake.stopped.load(Ordering::Relaxed));
}

#[test]
fn a_silent_server_and_a_stale_socket_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket_in(&folder);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let client = AdminClient::new(Address::Unix(path.clone()), None);
    let told = client.status(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(told, ClientError::Deadline { .. }), "{told}");
    drop(listener);
    let told = client.status(SOON).unwrap_err();
    assert_eq!(told.to_string(), format!("tidegate is not running: nobody listens at {}", path.display()));
}
