//! Every key of the site file acts: for each there is a row with two values, and something seen from outside that differs
//! with them.
//!
//! Rows are data; how a value is seen is a function of its own beside the table. Rows about listeners, sites, upstreams
//! and workers share one running program for each table, with a listener, site or upstream for either value; rows about the
//! whole process start one for either value. A key without a row, and a row without a key, fail the test below.

mod breaker;
mod buffer;
mod concurrency;
mod deploys;
mod dns;
mod ejection;
mod hang;
mod health_check;
mod launch;
mod listeners;
mod presets;
mod process;
mod queue;
mod rate_limits;
mod readiness;
mod recycle;
mod restart;
mod retries;
mod sites;
mod sticky;
mod tls_policies;
mod upstream_tls;
mod upstreams;
mod worker_logs;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
};

use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    edge::Edge,
    raw::End,
};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
};

/// A key, two values for it as they stand in the file, and what each of them makes visible.
///
/// `P` is the place where a value is looked at: a part of a shared program, or a program of its own.
struct Row<P: 'static> {
    /// As `tidegate_config::keys` names it.
    key: &'static str,
    /// Empty where the key is left out. `PLACE` is replaced by the name of the place.
    values: [&'static str; 2],
    /// What is seen; a word or two.
    observe: fn(P) -> Seeing,
    /// One for each value.
    expected: [&'static str; 2],
}

/// What a row sees, once it has looked.
type Seeing = Pin<Box<dyn Future<Output = String>>>;

/// A listener, site or upstream of a shared program.
struct Place {
    /// The program.
    edge: Arc<Edge>,
    /// The name of the listener and its port, of the site and first label of its host, or of the upstream.
    name: String,
}

impl<P> Row<P> {
    /// Two different values, at least one of them with the key's own name, and two different outcomes.
    fn assert_sound(&self) {
        let Self { key, values, expected, .. } = self;
        assert_ne!(values[0], values[1], "{key}: a row needs two values");
        assert_ne!(expected[0], expected[1], "{key}: a key whose values show no difference is not proven to act");
        let name = key.rsplit('.').next().unwrap_or(key);
        assert!(values.iter().any(|value| value.contains(&format!("{name}:"))), "{key}: no value names the key");
    }
}

/// Looks at both values of each row, `at_once` of them at the same time, and tells of all rows that are wrong.
async fn check<P>(rows: &'static [Row<P>], at_once: usize, mut place: impl FnMut(usize, usize) -> P) {
    let (turns, local) = (Arc::new(Semaphore::new(at_once)), LocalSet::new());
    let mut running = JoinSet::new();
    let mut tasks = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        row.assert_sound();
        for side in [0, 1] {
            let (turns, place) = (Arc::clone(&turns), place(index, side));
            let look = async move {
                let _turn = turns.acquire_owned().await;
                (row.observe)(place).await
            };
            let task = running.spawn_local_on(look, &local);
            tasks.insert(task.id(), (row, side));
        }
    }
    let mut wrong = Vec::new();
    while let Some(ended) = local.run_until(running.join_next_with_id()).await {
        match ended {
            Ok((id, seen)) => {
                let (row, side) = tasks[&id];
                if seen != row.expected[side] {
                    let (value, expected) = (row.values[side], row.expected[side]);
                    wrong.push(format!("{} with '{value}': expected '{expected}', seen '{seen}'", row.key));
                }
            }
            Err(failed) => {
                let (row, side) = tasks[&failed.id()];
                let panic = failed.into_panic();
                let told = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
                wrong.push(format!("{} with '{}': {}", row.key, row.values[side], told.unwrap_or("a panic")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The name of the place for one value of a row.
fn name(index: usize, side: usize) -> String {
    format!("row{index}{}", ["a", "b"][side])
}

/// The value for a place.
fn value<P>(row: &Row<P>, index: usize, side: usize) -> String {
    row.values[side].replace("PLACE", &name(index, side))
}

/// Parts of a mapping in one line: `given`, and of `defaults` those whose key it does not have.
fn mapping(given: &str, defaults: &[&str]) -> String {
    let missing = defaults.iter().filter(|default| {
        let key = default.split(':').next().unwrap_or_default();
        !given.starts_with(&format!("{key}:"))
    });
    let parts: Vec<&str> = missing.copied().chain([given]).filter(|part| !part.is_empty()).collect();
    format!("{{ {} }}", parts.join(", "))
}

impl Place {
    /// Places in one program, by the numbers of row and side.
    fn of(edge: &Arc<Edge>) -> impl FnMut(usize, usize) -> Self {
        let edge = Arc::clone(edge);
        move |index, side| Self { edge: Arc::clone(&edge), name: name(index, side) }
    }

    /// The host of the site with this name.
    fn host(&self) -> String {
        format!("{}.test.example", self.name)
    }

    /// The client of the listener all sites have.
    fn client(&self) -> Client {
        self.edge.client(Kind::Http1)
    }

    /// The answer to a request for this place's host, which the origin can tell by the field `x-place`.
    async fn ask(&self, ask: Ask) -> Answer {
        self.client().ask(ask.host(&self.host()).header("x-place", &self.name)).await
    }
}

/// How a connection ended, as a word.
fn ending(end: End) -> &'static str {
    match end {
        End::Open => "open",
        End::Closed => "closed",
        End::Reset => "reset",
    }
}

#[test]
fn every_key_has_its_row_and_every_row_its_key() {
    let tables = [
        breaker::keys(),
        buffer::keys(),
        concurrency::keys(),
        deploys::keys(),
        dns::keys(),
        ejection::keys(),
        hang::keys(),
        health_check::keys(),
        listeners::keys(),
        presets::keys(),
        sites::keys(),
        sticky::keys(),
        upstreams::keys(),
        worker_logs::keys(),
        workers::keys(),
        process::keys(),
        queue::keys(),
        rate_limits::keys(),
        readiness::keys(),
        launch::keys(),
        recycle::keys(),
        restart::keys(),
        retries::keys(),
        tls_policies::keys(),
        upstream_tls::keys(),
    ];
    let rows: Vec<&str> = tables.concat();
    let known: BTreeSet<&str> = rows.iter().copied().collect();
    let twice: Vec<_> = known.iter().filter(|key| rows.iter().filter(|row| row == key).count() > 1).collect();
    assert!(twice.is_empty(), "keys with two rows: {twice:#?}");
    let keys = tidegate_config::keys();
    let keys: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
    let without_row: Vec<_> = keys.difference(&known).collect();
    assert!(without_row.is_empty(), "keys that no row proves to act: {without_row:#?}");
    let without_key: Vec<_> = known.difference(&keys).collect();
    assert!(without_key.is_empty(), "rows for keys that do not exist: {without_key:#?}");
}

#[tokio::test]
#[should_panic(expected = "seen 'same'")]
async fn a_key_that_does_not_act_is_found() {
    const ROWS: &[Row<()>] = &[Row {
        key: "a.b",
        values: ["", "b: 1"],
        observe: |()| Box::pin(async { "same".to_owned() }),
        expected: ["same", "other"],
    }];
    check(ROWS, 1, |_, _| ()).await;
}
