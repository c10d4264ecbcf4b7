//! Tests of server, routes and client together, over real sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use async_trait::async_trait;
use tidegate_config::model::{Address, Secret};
use tokio::sync::oneshot;

use super::*;
use crate::admin::client::{AdminClient, ClientError};
use crate::admin::follow::{ENDED, Feed, Page};
use crate::admin::order::{NotTaken, Order, Scale};
use crate::admin::view::{self, Readiness, ReloadReport, Status};

const SOON: Duration = Duration::from_secs(10);

/// A program that remembers what it was told.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) stopped: AtomicBool,
    pub(crate) refuse: AtomicBool,
    pub(crate) orders: Mutex<Vec<Order>>,
    pub(crate) feed: Arc<Counting>,
}

/// Entries that are their own numbers.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) count: watch::Sender<u64>,
}

impl Feed for Counting {
    fn before_last(&self, count: usize) -> u64 {
        self.count.borrow().saturating_sub(count as u64)
    }

    fn after(&self, number: u64) -> Page {
        let last = Some(*self.count.borrow()).filter(|count| *count != ENDED).unwrap_or(number);
        let lines: String = (number + 1..=last).map(|number| format!("{{\"number\":{number}}}\n")).collect();
        Page { lines: lines.into_bytes(), last: last.max(number) }
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

fn known(upstream: Option<&str>) -> Result<(), NotTaken> {
    match upstream {
        None | Some("app") => Ok(()),
        Some(name) => Err(NotTaken::NotThere(format!("\"{name}\" is no upstream with workers; they are: app"))),
    }
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

    async fn workers(&self, upstream: Option<&str>) -> Result<view::Workers, NotTaken> {
        known(upstream)?;
        let worker = view::WorkerDetail { pid: Some(42), state: "ready".to_owned(), ..view::WorkerDetail::default() };
        let group = view::WorkerGroup {
            name: "app".to_owned(),
            target: 1,
            workers: vec![worker],
            ..view::WorkerGroup::default()
        };
        Ok(view::Workers { upstreams: vec![group] })
    }

    async fn costs(&self, upstream: Option<&str>) -> Result<view::Costs, NotTaken> {
        known(upstream)?;
        Ok(view::Costs::default())
    }

    async fn order(&self, order: Order) -> Result<view::Ordered, NotTaken> {
        let (Order::Restart { upstream, .. }
        | Order::Drain { upstream, .. }
        | Order::Deploy { upstream }
        | Order::Scale { upstream, .. }) = &order;
        known(Some(upstream))?;
        let ordered = view::Ordered { upstream: upstream.clone(), target: 1, ..view::Ordered::default() };
        self.orders.lock().unwrap().push(order);
        Ok(ordered)
    }

    fn deploys(&self, upstream: Option<&str>) -> Result<view::Deploys, NotTaken> {
        known(upstream)?;
        let deploy = view::Deploy { generation: 2, phase: "canary".to_owned(), ..view::Deploy::default() };
        let group = view::DeployGroup { name: "app".to_owned(), deploys: vec![deploy] };
        Ok(view::Deploys { upstreams: vec![group] })
    }

    async fn plans(&self, upstream: Option<&str>) -> Result<view::Plans, NotTaken> {
        known(upstream)?;
        Ok(view::Plans::default())
    }

    fn events(&self, upstream: Option<&str>) -> Result<Arc<dyn Feed>, NotTaken> {
        known(upstream)?;
        Ok(self.feed.clone())
    }

    fn logs(&self, upstream: Option<&str>, _slot: Option<u32>) -> Result<Arc<dyn Feed>, NotTaken> {
        self.events(upstream)
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
fn orders_are_taken_once_and_those_that_make_no_sense_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Unix(socket_in(&folder));
    let running = Running::start(&address, Guard::unix(None));
    let client = AdminClient::new(address, None);
    let upstream = || "app".to_owned();
    let orders = [
        Order::Restart { upstream: upstream(), slot: None },
        Order::Restart { upstream: upstream(), slot: Some(3) },
        Order::Drain { upstream: upstream(), slot: 0 },
        Order::Scale { upstream: upstream(), to: Scale::To(0) },
        Order::Scale { upstream: upstream(), to: Scale::By(2) },
        Order::Scale { upstream: upstream(), to: Scale::By(-1) },
        Order::Scale { upstream: upstream(), to: Scale::File },
    ];
    for order in &orders {
        assert_eq!(client.order(order, SOON).unwrap().upstream, "app");
    }
    let refused = client.order(&Order::Drain { upstream: "apq".to_owned(), slot: 0 }, SOON).unwrap_err();
    assert!(
        refused.to_string().contains("404 Not Found: \"apq\" is no upstream with workers; they are: app"),
        "{refused}"
    );
    assert_eq!(*running.fake.orders.lock().unwrap(), orders);
}

#[test]
fn who_follows_hears_each_event_once_until_the_program_ends() {
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Unix(socket_in(&folder));
    let running = Running::start(&address, Guard::unix(None));
    let client = AdminClient::new(address, None);
    let feed = running.fake.feed.clone();
    feed.count.send_replace(20);
    let numbers = |last: Option<usize>, follow: bool, heard: &mut dyn FnMut(u64)| {
        let mut each = |line: &[u8]| {
            let number = serde_json::from_slice::<view::Event>(line).unwrap().number;
            heard(number);
            Ok(())
        };
        client.events(None, last, follow, SOON, &mut each).unwrap().unwrap();
    };
    let mut all = Vec::new();
    numbers(None, false, &mut |number| all.push(number));
    assert_eq!(all, (1..=20).collect::<Vec<_>>());
    let mut followed = Vec::new();
    numbers(Some(2), true, &mut |number| {
        followed.push(number);
        match number {
            20 => drop(feed.count.send_replace(25)),
            25 => drop(feed.count.send_replace(ENDED)),
            _ => {}
        }
    });
    assert_eq!(followed, (19..=25).collect::<Vec<_>>());
    assert_eq!(client.events_after("app", 23, SOON).unwrap().len(), 0, "an ended feed has nothing");
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
        ("GET /workers?upstream=app", "Authorization: Bearer t", "200 OK", "\"pid\":42"),
        ("GET /workers?upstream=no", "Authorization: Bearer t", "404 ", "they are: app"),
        ("GET /workers?upsteam=app", "Authorization: Bearer t", "400 ", "unknown field"),
        ("GET /workers/restart?upstream=app", "Authorization: Bearer t", "405 ", "another method"),
        ("POST /workers/scale?upstream=app", "Authorization: Bearer t", "400 ", "count or by"),
        ("POST /workers/scale?upstream=app&count=x", "Authorization: Bearer t", "400 ", "no number of workers"),
        ("POST /workers/drain?upstream=app", "Authorization: Bearer t", "400 ", "slot"),
        ("GET /logs?upstream=no", "Authorization: Bearer t", "404 ", "they are: app"),
        ("GET /logs?slot=x", "Authorization: Bearer t", "400 ", "slot"),
        ("GET /events?follow=yes", "Authorization: Bearer t", "400 ", "follow"),
        ("POST /workers/drain?upstream=app&slot=1", "X-A: b", "401 ", "www-authenticate: Bearer"),
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
