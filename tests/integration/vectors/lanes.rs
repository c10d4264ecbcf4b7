//! Vectors side by side: each lane has an origin, listeners and upstreams of its own in one program, and runs one thing
//! at a time on them.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tidegate_http1::ParsePolicy;
use tidegate_tests::{
    certificates,
    edge::Edge,
    recorder::Recorder,
    site::{CERTIFICATE, Site},
    wait::wait_for,
};
use tokio::task::JoinSet;

use super::{
    client::{Answer, Client},
    meaning::{LIMITS, Request, received, text},
};

pub(super) const POLICIES: [ParsePolicy; 2] = [ParsePolicy::Strict, ParsePolicy::Lenient];

/// One origin and its ways in.
#[derive(Clone)]
pub(super) struct Lane {
    edge: Arc<Edge>,
    name: String,
    /// `None` when the origin is another program.
    pub(super) recorder: Option<Arc<Recorder>>,
    /// What a request for `/canary/<id>` is answered with.
    pub(super) canary: Canary,
    number: usize,
    canaries: u32,
    /// Bytes of each of the recorder's connections that were looked at.
    marks: Vec<usize>,
    /// Incomplete requests that may arrive, late perhaps.
    parts: usize,
}

/// A request whose answer nobody else gets.
#[derive(Clone, Copy)]
pub(super) struct Canary {
    /// The target, the id in place of `#`.
    pub(super) target: &'static str,
    /// What the answer's body holds, the id in place of `#`.
    pub(super) body: &'static str,
}

/// How a client comes to a lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// Of the listener and of the upstream.
    pub(super) policy: ParsePolicy,
    pub(super) tls: bool,
}

/// What happened to all vectors.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) runs: usize,
    pub(super) refused: usize,
    pub(super) forwarded: usize,
    pub(super) problems: Vec<String>,
}

/// What became of one run.
pub(super) enum Outcome {
    Refused,
    Forwarded,
}

impl Lane {
    /// A program before these origins, given by address.
    pub(super) async fn open(origins: Vec<(String, Option<Arc<Recorder>>, Canary)>) -> Vec<Self> {
        certificates::install_crypto();
        let site = site(&origins.iter().map(|(address, ..)| address.as_str()).collect::<Vec<_>>());
        let edge = Arc::new(Edge::start(site).await);
        let lane = |(index, (_, recorder, canary))| {
            let edge = Arc::clone(&edge);
            Self {
                edge,
                name: format!("lane{index}"),
                recorder,
                canary,
                number: index + 1,
                canaries: 0,
                marks: Vec::new(),
                parts: 0,
            }
        };
        origins.into_iter().enumerate().map(lane).collect()
    }

    pub(super) async fn connect(&self, way: Way) -> Client {
        let address = self.edge.address(&listener(&self.name, way));
        if way.tls { Client::tls(address).await } else { Client::plain(address).await }
    }

    /// Waits until the recorder has `count` more complete requests, and gives those that it has. Requests may be cut off
    /// only where a client cut one off or broke it, which [`Lane::expect_part`] was told.
    pub(super) async fn arrived(&mut self, count: usize) -> Result<Vec<Request>, String> {
        let Some(recorder) = self.recorder.clone() else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        let look = || {
            for (index, (bytes, ended)) in recorder.bytes_behind(&self.marks).into_iter().enumerate() {
                self.marks.resize(self.marks.len().max(index + 1), 0);
                let (requests, taken) = match received(&bytes) {
                    Ok(received) => received,
                    Err(problem) => return Some(Err(problem)),
                };
                all.extend(requests);
                self.marks[index] += taken;
                if taken == bytes.len() {
                    continue;
                }
                let part = text(&bytes[taken..]);
                if self.parts == 0 {
                    return Some(Err(format!("DESYNC: the origin got a part of a request: {part}")));
                }
                if ended {
                    self.marks[index] += bytes.len() - taken;
                    self.parts -= 1;
                }
            }
            (all.len() >= count).then_some(Ok(()))
        };
        wait_for("the requests at the recorder", ARRIVAL_LIMIT, look).await?;
        Ok(all)
    }

    /// A client is about to leave a request incomplete.
    pub(super) fn expect_part(&mut self) {
        self.parts += 1;
    }

    /// Sends a request with an id of its own on a new connection through the pool that the way leads to: its answer has
    /// to be its own.
    pub(super) async fn send_canary(&mut self, policy: ParsePolicy) -> Result<(), String> {
        self.canaries += 1;
        let id = format!("{}{:06}", self.number, self.canaries);
        let (target, wanted) = (self.canary.target.replace('#', &id), self.canary.body.replace('#', &id));
        let mut client = self.connect(Way { policy, tls: false }).await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: canary\r\nConnection: close\r\n\r\n").as_bytes()).await;
        let answer = client.answer(tidegate_http1::Asked::Other).await.map_err(|error| format!("canary: {error}"))?;
        let is_own = |answer: &Answer| {
            answer.complete && answer.status == 200 && String::from_utf8_lossy(&answer.body).contains(&wanted)
        };
        if !answer.as_ref().is_some_and(is_own) {
            return Err(format!("DESYNC: the canary {target} got {answer:?}"));
        }
        match client.rest().await?.len() {
            0 => Ok(()),
            count => Err(format!("DESYNC: {count} bytes behind the canary's answer")),
        }
    }
}

/// A run under way: gives the lane back, with the name of the run and its outcome.
pub(super) type Running = Pin<Box<dyn Future<Output = (Lane, String, Result<Outcome, String>)> + Send>>;

/// Does `run` for each item of `work`, spread over the lanes; one lane does one at a time.
pub(super) async fn spread<T: Send + Sync + 'static>(
    lanes: Vec<Lane>,
    work: Vec<T>,
    run: fn(Lane, Arc<T>) -> Running,
) -> Tally {
    let (queue, mut running) = (Arc::new(std::sync::Mutex::new(work.into_iter())), JoinSet::new());
    for mut lane in lanes {
        let queue = Arc::clone(&queue);
        running.spawn(async move {
            let mut tally = Tally::default();
            loop {
                let Some(item) = queue.lock().ok().and_then(|mut queue| queue.next()) else { return tally };
                let (back, name, outcome) = run(lane, Arc::new(item)).await;
                lane = back;
                tally.note(&name, outcome);
            }
        });
    }
    let mut tally = Tally::default();
    for ended in running.join_all().await {
        tally.add(ended);
    }
    tally
}

impl Tally {
    fn note(&mut self, name: &str, outcome: Result<Outcome, String>) {
        self.runs += 1;
        match outcome {
            Ok(Outcome::Refused) => self.refused += 1,
            Ok(Outcome::Forwarded) => self.forwarded += 1,
            Err(problem) => self.problems.push(format!("{name}: {problem}")),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.refused += other.refused;
        self.forwarded += other.forwarded;
        self.problems.extend(other.problems);
    }

    /// Prints the figures, and fails when there was a problem.
    pub(super) fn report(self, what: &str) {
        let Self { runs, refused, forwarded, mut problems } = self;
        let desyncs = problems.iter().filter(|problem| problem.contains("DESYNC")).count();
        let figures = format!("{what}: {runs} runs, {refused} refused, {forwarded} forwarded, {desyncs} desyncs");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{figures}\n").as_bytes());
        problems.sort();
        let shown = problems[..problems.len().min(40)].join("\n");
        assert!(problems.is_empty(), "{figures}\n{} problems:\n{shown}", problems.len());
        assert!(refused > 0 && forwarded > 0, "{figures}");
    }
}

fn listener(lane: &str, way: Way) -> String {
    format!("{lane}-{}-{}", word(way.policy), if way.tls { "tls" } else { "plain" })
}

pub(super) fn word(policy: ParsePolicy) -> &'static str {
    match policy {
        ParsePolicy::Strict => "strict",
        ParsePolicy::Lenient => "lenient",
    }
}

/// A site for each lane and policy, on a plain and a TLS listener. Plain listeners forward the path as it was sent.
fn site(origins: &[&str]) -> Site {
    let (mut listeners, mut sites, mut upstreams) = (String::new(), String::new(), String::new());
    let tidegate_http1::HeadLimits { bytes, fields, target } = LIMITS;
    for (index, origin) in origins.iter().enumerate() {
        for policy in POLICIES {
            let parsing = word(policy);
            let pool = format!("lane{index}-{parsing}");
            upstreams
                .push_str(&format!("  {pool}: {{ parsing: {parsing}, servers: [{{ address: \"{origin}\" }}] }}\n"));
            for (kind, tls, own, path) in [
                ("plain", "", String::new(), "raw"),
                ("tls", ", tls: {}", format!(", tls: {CERTIFICATE}"), "canonical"),
            ] {
                let name = format!("{pool}-{kind}");
                listeners.push_str(&format!(
                    "  - {{ name: {name}, address: \"127.0.0.1:@port:{name}@\", parsing: {parsing}, default_site: {name}\
                     {tls}, head_limits: {{ bytes: {bytes}B, fields: {fields}, target: {target}B }} }}\n"
                ));
                sites.push_str(&format!(
                    "  - {{ name: {name}, hosts: [\"*\", localhost], listeners: [{name}], forward_path: {path}{own}, \
                     routes: [{{ path: /, proxy: {pool} }}] }}\n"
                ));
            }
        }
    }
    // One shard: what a vector leaves in a pool is what the canary finds there.
    let rest =
        "server: { state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\", shards: 1 }\nlogging: { access: off }\n";
    Site::new(format!("listeners:\n{listeners}sites:\n{sites}upstreams:\n{upstreams}{rest}"))
}

const ARRIVAL_LIMIT: Duration = Duration::from_secs(20);
