//! Origins die and hang under load: no GET of a small page fails for it, no POST is carried out twice.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tidegate_tests::{
    binary::Binary,
    client::{Ask, Client, Connection, Kind},
    drill::{amount, say},
    edge::Edge,
    process::{Output, Process, Signal},
    site::{Port, Site},
    wait::wait_until,
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

const LIMIT: Duration = Duration::from_secs(10);
/// Connections of clients, whose requests go out at their times whatever became of those before.
const CLIENTS: u64 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_cost_no_get_and_repeat_no_post() {
    origins_die(300, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn kills_cost_no_get_and_repeat_no_post_for_a_minute() {
    origins_die(amount("TIDEGATE_DRILL_RATE", 2_000) as u64, amount("TIDEGATE_DRILL_SECONDS", 60) as u64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_by_silence_cost_one_try_each() {
    an_origin_hangs(300, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make drill"]
async fn kills_by_silence_cost_one_try_each_under_load() {
    an_origin_hangs(amount("TIDEGATE_DRILL_RATE", 2_000) as u64, amount("TIDEGATE_DRILL_SECONDS", 60) as u64).await;
}

/// One of four origins is killed and started anew every second.
async fn origins_die(rate: u64, seconds: u64) {
    let mut origins = Origin::four().await;
    let edge = edge_before(&origins, "").await;
    let load = tokio::spawn(Load { clients: edge.clients(), rate, count: rate * seconds }.run());
    let started = Instant::now();
    for second in 0..seconds {
        sleep_until(started + Duration::from_millis(second * 1_000 + 500)).await;
        origins[(second % 4) as usize].kill_and_restart();
    }
    let tally = timeout(Duration::from_secs(seconds + 30), load).await.expect("the load ends").expect("no panic");
    let executed = executed_posts(&origins);
    tally.tell(&format!("{seconds} kills at {rate}/s"), &executed);
    tally.assert_no_get_failed();
    assert!(executed.values().all(|times| *times == 1), "{:?}", executed.iter().filter(|(_, times)| **times > 1));
    assert!(tally.posts_answered > 0 && executed.len() as u64 >= tally.posts_answered, "an answer without an effect");
}

/// One of four origins stops, as a machine that has died does: its kernel takes connections, and nobody answers.
async fn an_origin_hangs(rate: u64, seconds: u64) {
    const TRY: Duration = Duration::from_millis(400);
    let mut origins = Origin::four().await;
    let edge = edge_before(&origins, "retry: { try_timeout: 400ms }\ntimeouts: { head: 3s }").await;
    let load = tokio::spawn(Load { clients: edge.clients(), rate, count: rate * seconds }.run());
    let started = Instant::now();
    sleep_until(started + Duration::from_secs(1)).await;
    let hung = origins[1].address();
    origins[1].process.signal(Signal::SIGSTOP);
    wait_until("the ejection", LIMIT, async || {
        let status = edge.status().await;
        let endpoints = status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default();
        let out =
            |endpoint: &serde_json::Value| endpoint["address"] == hung.to_string() && endpoint["state"] == "ejected";
        endpoints.iter().any(out).then_some(())
    })
    .await;
    let ejected = started.elapsed() - Duration::from_secs(1);
    let tally = timeout(Duration::from_secs(seconds + 30), load).await.expect("the load ends").expect("no panic");
    origins[1].process.signal(Signal::SIGCONT);
    // What waits in its sockets is carried out now, before and between what comes later.
    for _ in 0..10 {
        Client::new(Kind::Http1, hung).get("/count").await;
    }
    tally.tell(&format!("one of four silent at {rate}/s, ejected after {ejected:.1?}"), &executed_posts(&origins));
    tally.assert_no_get_failed();
    assert!(executed_posts(&origins).values().all(|times| *times == 1), "a POST was carried out twice");
    let slowest = tally.gets.last().copied().unwrap_or_default();
    assert!(slowest < TRY + Duration::from_millis(1_500), "{slowest:?} for a GET");
    assert!(slowest >= TRY, "{slowest:?}: none met the silent one");
}

async fn edge_before(origins: &[Origin], more: &str) -> Edge {
    let servers: Vec<_> = origins.iter().map(|origin| format!("{{ address: \"{}\" }}", origin.address())).collect();
    let app = format!("servers: [{}]\n{more}", servers.join(", "));
    Edge::start(Site::proxy(&app).and("logging: { access: off }")).await
}

/// An origin in a process of its own. It prints each request before it carries it out, and a pipe forgets nothing.
struct Origin {
    port: Port,
    process: Process,
    outputs: Vec<Output>,
}

impl Origin {
    async fn four() -> Vec<Self> {
        let origins: Vec<_> = (0..4)
            .map(|_| {
                let port = Port::free();
                let process = start(port.number);
                Self { port, outputs: vec![process.output()], process }
            })
            .collect();
        for origin in &origins {
            let address = origin.address();
            wait_until("an origin", LIMIT, async || TcpStream::connect(address).await.ok().map(drop)).await;
        }
        origins
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number).into()
    }

    fn kill_and_restart(&mut self) {
        self.process.signal(Signal::SIGKILL);
        let _ = self.process.wait(LIMIT);
        self.process = start(self.port.number);
        self.outputs.push(self.process.output());
    }
}

fn start(port: u16) -> Process {
    let mut command = Binary::UpstreamDemo.command();
    command.args(["--port", &port.to_string(), "--log-requests"]);
    Process::start(command)
}

/// How often each POST was carried out, by its number.
fn executed_posts(origins: &[Origin]) -> BTreeMap<u64, u32> {
    let mut executed = BTreeMap::new();
    for output in origins.iter().flat_map(|origin| &origin.outputs) {
        let text = output.both();
        let ids = text.lines().filter_map(|line| {
            let (_, id) = line.split_once("POST /echo?id=")?;
            id.split_whitespace().next()?.parse().ok()
        });
        ids.for_each(|id: u64| *executed.entry(id).or_default() += 1);
    }
    executed
}

/// Requests at even times: three GETs, and a POST.
struct Load {
    clients: Vec<Client>,
    rate: u64,
    count: u64,
}

#[derive(Debug, Default)]
struct Tally {
    /// From the time a GET was due to the end of its answer; sorted.
    gets: Vec<Duration>,
    /// GETs that failed before anything of an answer had come.
    failed: Vec<String>,
    /// GETs whose answer broke off.
    truncated: u64,
    posts_answered: u64,
    posts_failed: u64,
}

impl Load {
    async fn run(self) -> Tally {
        let this = Arc::new(self);
        let started = Instant::now() + Duration::from_millis(50);
        let mut running = JoinSet::new();
        for first in 0..CLIENTS {
            let this = Arc::clone(&this);
            running.spawn(async move { this.one(first, started).await });
        }
        let mut whole = Tally::default();
        while let Some(tally) = running.join_next().await {
            whole.add(tally.expect("a client does not panic"));
        }
        whole.gets.sort_unstable();
        whole
    }

    async fn one(&self, first: u64, started: Instant) -> Tally {
        let client = self.clients[first as usize % self.clients.len()];
        let (mut tally, mut connection) = (Tally::default(), None);
        for turn in (first..self.count).step_by(CLIENTS as usize) {
            let due = started + Duration::from_secs_f64(turn as f64 / self.rate as f64);
            sleep_until(due).await;
            let is_post = turn % 4 == 3;
            // Without a body, for those could be sent again as well as any GET.
            let ask = if is_post { Ask::new("POST", &format!("/echo?id={turn}")) } else { Ask::get("/tiny") };
            let answer = send(client, &mut connection, ask).await;
            let is_right = answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.is_complete());
            match (is_post, is_right, answer) {
                (true, true, _) => tally.posts_answered += 1,
                (true, false, _) => tally.posts_failed += 1,
                (false, true, _) => tally.gets.push(due.elapsed()),
                (false, false, Ok(answer)) if answer.status == 200 => tally.truncated += 1,
                (false, false, Ok(answer)) => {
                    tally.failed.push(format!("{}: {} {}", client.kind(), answer.status, answer.text()))
                }
                (false, false, Err(error)) => tally.failed.push(format!("{}: {error:#}", client.kind())),
            }
        }
        tally
    }
}

async fn send(
    client: Client,
    connection: &mut Option<Connection>,
    ask: Ask,
) -> anyhow::Result<tidegate_tests::client::Answer> {
    let mut open = match connection.take().filter(|open| !open.is_closed()) {
        Some(open) => open,
        None => client.connect().await?,
    };
    let answer = open.send(ask).await?;
    *connection = Some(open);
    Ok(answer)
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.gets.extend(other.gets);
        self.failed.extend(other.failed);
        self.truncated += other.truncated;
        self.posts_answered += other.posts_answered;
        self.posts_failed += other.posts_failed;
    }

    fn tell(&self, what: &str, executed: &BTreeMap<u64, u32>) {
        let at = |share: f64| self.gets.get((self.gets.len() as f64 * share) as usize).copied().unwrap_or_default();
        say(format_args!(
            "{what}: {} GETs right, {} failed, {} broken off; p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, slowest {:.1?}; {} POSTs \
             answered, {} failed, {} carried out, {} of them twice",
            self.gets.len(),
            self.failed.len(),
            self.truncated,
            at(0.5),
            at(0.99),
            at(0.999),
            self.gets.last().copied().unwrap_or_default(),
            self.posts_answered,
            self.posts_failed,
            executed.len(),
            executed.values().filter(|times| **times > 1).count(),
        ));
    }

    fn assert_no_get_failed(&self) {
        let few = &self.failed[..self.failed.len().min(5)];
        assert!(self.failed.is_empty(), "{} of {} GETs failed: {few:#?}", self.failed.len(), self.gets.len());
        assert_eq!(self.truncated, 0, "answers so small wait until they are whole");
        assert!(!self.gets.is_empty(), "no GET was sent");
    }
}
