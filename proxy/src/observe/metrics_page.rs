//! Holds the page of metrics against a scrape of all there are. With `BLESS=1` the page's table is written anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tidegate_supervisor::{DeployEnd, Event, ExitReason, Outcome, ScaledBy, Transition, WorkerId, WorkerState};

use super::metrics::{ConcurrencySample, LimitSample, Metrics, PoolSample, RouteKey, Samples};
use super::worker_sample::{GroupSample, SlotSample};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
const HEAD: &str = "| metric | type | labels | meaning |\n|---|---|---|---|\n";

#[test]
fn the_page_lists_every_metric_with_its_type_and_labels() {
    let table = table(&scrape());
    let page = std::fs::read_to_string(PAGE).expect("the page");
    let at = page.find(HEAD).expect("its table");
    if std::env::var_os("BLESS").is_some() {
        let text = format!("{}{table}", &page[..at]);
        return std::fs::write(Path::new(PAGE), text).expect("written");
    }
    assert!(page[at..] == table, "the page is not true any more; BLESS=1 writes this table:\n{table}");
}

/// What is sent for each family: type, labels and help.
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

fn table(text: &str) -> String {
    let mut table = HEAD.to_owned();
    for (name, Family { kind, labels, help }) in families(text) {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    table
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            last = name.to_owned();
            let family = Family { kind: String::new(), labels: BTreeSet::new(), help: help.to_owned() };
            assert!(families.insert(last.clone(), family).is_none(), "{name} comes twice");
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert_eq!(name, last);
            families.get_mut(name).expect("its help came first").kind = kind.to_owned();
        } else {
            let labels =
                line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
            let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            families.get_mut(&last).expect("its help came first").labels.extend(names.filter(|name| name != "le"));
        }
    }
    families
}

/// Of a program in which everything has happened once.
fn scrape() -> String {
    let metrics = Metrics::new("0.0.0").expect("sound names");
    let key = RouteKey { site: "s".to_owned(), route: "r".to_owned(), upstream: "u".to_owned() };
    metrics.route(&key).answered_after(Duration::ZERO);
    metrics.listener("l").refused("per_address");
    let _ = metrics.upstream("u").queued();
    let _ = metrics.refusals("no_worker");
    let health = metrics.health();
    health.ejected("u", "connect");
    health.checked("u", "passed");
    health.tripped("u");
    metrics.workers().log_lines_dropped("u", Some(0), 1);
    metrics.spool().fell_back("disk");
    metrics.config_applied(1, SystemTime::now());
    live(&metrics);
    metrics.render(&samples())
}

/// A worker's life.
fn live(metrics: &Metrics) {
    use WorkerState::{Backoff, Draining, Exited, Ready, Starting, Stopping};
    let pool: Arc<str> = Arc::from("u");
    let worker = WorkerId { pool: pool.clone(), slot: 0, generation: 1, spawn: 1 };
    for states in [Backoff, Starting, Ready, Draining, Stopping, Exited].windows(2) {
        let (from, to, in_state) = (states[0], states[1], Duration::ZERO);
        let reason = Some(ExitReason::RecycleRss);
        let change = Transition { worker: worker.clone(), pid: None, from, to, reason, in_state };
        metrics.life().hear(&Event::Transition(change), Instant::now());
    }
    let end = DeployEnd {
        pool: pool.clone(),
        generation: 1,
        id: None,
        outcome: Outcome::Done,
        took: Duration::ZERO,
        failure: None,
    };
    for event in
        [Event::Killed { worker }, Event::Scaled { pool, from: 1, to: 2, by: ScaledBy::File }, Event::DeployEnded(end)]
    {
        metrics.life().hear(&event, Instant::now());
    }
}

fn samples() -> Samples {
    let pool = PoolSample {
        upstream: "u".to_owned(),
        refused: vec![("full", 1)],
        breaker: Some(0),
        endpoints: vec![("ready", 1)],
        workers: vec![("ready", 1)],
        restarts: Some(0),
        sticky: vec![("kept", 1)],
        ..PoolSample::default()
    };
    let slot = SlotSample {
        states: vec!["ready"],
        start_time: Some(1.0),
        max_in_flight: Some(1),
        rss_bytes: Some(1),
        pss_bytes: Some(1),
        threads: Some(1),
        open_fds: Some(1),
        cpu_seconds: Some(1.0),
        requests: vec![("answered", 1)],
        failures: vec![("connect", 1)],
        ..SlotSample::default()
    };
    let group = GroupSample { upstream: "u".to_owned(), state: "healthy", slots: vec![slot], ..GroupSample::default() };
    let limit = LimitSample { limit: "l".to_owned(), requests: vec![("delayed", 1)] };
    let concurrency = ConcurrencySample { limit: "l".to_owned(), requests: vec![("rejected", 1)], in_flight: 1 };
    Samples { pools: vec![pool], limits: vec![limit], concurrency: vec![concurrency], workers: vec![group] }
}
