//! Keys of how names of servers are resolved, in the file and in an upstream. Each value has a program of its own, and two
//! name servers to choose from.

use std::time::Duration;

use serde_json::Value;
use tidegate_tests::{
    edge::{Edge, Home},
    name_server::{Manner, NameServer},
    site::Site,
    wait::wait_until,
};
use tokio::time::timeout;

use super::{Row, check, mapping};

/// Rows for a key that stands in both mappings.
macro_rules! both {
    ($key:literal, $values:expr, $look:ident, $expected:expr) => {
        &[
            Row {
                key: concat!("dns.", $key),
                values: $values,
                observe: |given| Box::pin($look(Names::of_file(given))),
                expected: $expected,
            },
            Row {
                key: concat!("upstreams.<name>.dns.", $key),
                values: $values,
                observe: |given| Box::pin($look(Names::of_upstream(given))),
                expected: $expected,
            },
        ]
    };
}

const SERVERS: &[Row<&'static str>] =
    both!("servers", ["servers: [\"@first@\"]", "servers: [\"@second@\"]"], who_is_asked, ["first", "second"]);
const MIN_TTL: &[Row<&'static str>] =
    both!("min_ttl", ["min_ttl: 20ms", "min_ttl: 1m"], how_often_without_ttl, ["often", "once"]);
const MAX_TTL: &[Row<&'static str>] =
    both!("max_ttl", ["max_ttl: 1s", "max_ttl: 2m"], how_often_with_long_ttl, ["often", "once"]);
const TIMEOUT: &[Row<&'static str>] =
    both!("timeout", ["timeout: 200ms", "timeout: 300ms"], patience, ["200ms", "300ms"]);
const FAMILIES: &[Row<&'static str>] = both!(
    "families",
    ["families: ipv6", "families: prefer_ipv4"],
    addresses_of_a_host_with_both,
    ["[::1]:1", "127.0.0.2:1"]
);
const KEEP_MISSING: &[Row<&'static str>] =
    both!("keep_missing", ["", "keep_missing: 0s"], addresses_of_a_name_that_is_gone, ["kept", "dropped"]);
const SERVER: &[Row<&'static str>] = &[Row {
    key: "upstreams.<name>.servers[].srv",
    values: ["address: \"api.test:1\"", "srv: api.test"],
    observe: |given| Box::pin(kind_of_question(given)),
    expected: ["A", "SRV"],
}];

const TABLES: [&[Row<&'static str>]; 7] = [SERVERS, MIN_TTL, MAX_TTL, TIMEOUT, FAMILIES, KEEP_MISSING, SERVER];

pub(super) fn keys() -> Vec<&'static str> {
    TABLES.iter().flat_map(|rows| rows.iter().map(|row| row.key)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_names_act() {
    for rows in TABLES {
        check(rows, 4, |index, side| rows[index].values[side]).await;
    }
}

const NAME: &str = "api.test";
const SOON: Duration = Duration::from_secs(15);

/// Where the value of a row stands.
struct Names {
    given: &'static str,
    in_upstream: bool,
    server: &'static str,
}

/// A program with the name servers that it may ask.
struct Asking {
    edge: Edge,
    first: NameServer,
    second: NameServer,
}

impl Names {
    fn of_file(given: &'static str) -> Self {
        Self { given, in_upstream: false, server: "address: \"api.test:1\"" }
    }

    fn of_upstream(given: &'static str) -> Self {
        Self { in_upstream: true, ..Self::of_file(given) }
    }

    /// Starts the program, with what `prepare` tells the name servers before.
    async fn start(self, prepare: impl Fn(&NameServer)) -> Asking {
        let (first, second) = (NameServer::start().await, NameServer::start().await);
        [&first, &second].into_iter().for_each(prepare);
        let dns = format!("dns: {}", mapping(self.given, &["servers: [\"@first@\"]"]));
        let servers = format!("servers: [{{ {} }}]", self.server);
        let site = match self.in_upstream {
            true => Site::proxy(&format!("{servers}\n{dns}")),
            false => Site::proxy(&servers).and(&dns),
        };
        let site = site.with("first", first.address()).with("second", second.address());
        Asking { edge: Edge::launch(Home::new(&site)), first, second }
    }
}

impl Asking {
    async fn upstream(&self) -> Option<Value> {
        Some(self.edge.admin().status().await.ok()?["upstreams"][0].clone())
    }

    async fn addresses(&self) -> Vec<String> {
        let upstream = self.upstream().await.unwrap_or_default();
        let endpoints = upstream["endpoints"].as_array().cloned().unwrap_or_default();
        endpoints.iter().filter_map(|endpoint| Some(endpoint["address"].as_str()?.to_owned())).collect()
    }

    /// Waits until the name is in this state, and returns why.
    async fn reason(&self, state: &str) -> String {
        wait_until(state, SOON, async || {
            let name = self.upstream().await?["names"][0].clone();
            (name["state"] == state).then(|| name["reason"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }

    /// Whether the name is asked for again before long.
    async fn often(&self) -> String {
        self.reason("resolved").await;
        let asked = self.first.count(NAME);
        let again = wait_until("more questions", SOON, async || (self.first.count(NAME) > asked + 1).then_some(()));
        let often = timeout(Duration::from_secs(4), again).await.is_ok();
        if often { "often" } else { "once" }.to_owned()
    }
}

async fn who_is_asked(names: Names) -> String {
    let asking = names.start(|_| {}).await;
    asking.reason("missing").await;
    let asked = [&asking.first, &asking.second].map(|server| server.count(NAME) > 0);
    match asked {
        [true, false] => "first",
        [false, true] => "second",
        [..] => "another",
    }
    .to_owned()
}

async fn how_often_without_ttl(names: Names) -> String {
    names.start(|server| server.host(NAME, &["127.0.0.2"], 0)).await.often().await
}

async fn how_often_with_long_ttl(names: Names) -> String {
    names.start(|server| server.host(NAME, &["127.0.0.2"], 3_600)).await.often().await
}

async fn patience(names: Names) -> String {
    let asking = names.start(|server| server.be(Manner::Silent)).await;
    let reason = asking.reason("failed").await;
    reason.rsplit(' ').next().unwrap_or_default().to_owned()
}

async fn addresses_of_a_host_with_both(names: Names) -> String {
    let asking = names.start(|server| server.host(NAME, &["127.0.0.2", "::1"], 60)).await;
    asking.reason("resolved").await;
    asking.addresses().await.join(" ")
}

async fn addresses_of_a_name_that_is_gone(names: Names) -> String {
    let asking = names.start(|server| server.host(NAME, &["127.0.0.2"], 1)).await;
    asking.reason("resolved").await;
    asking.first.remove(NAME);
    asking.reason("missing").await;
    if asking.addresses().await.is_empty() { "dropped" } else { "kept" }.to_owned()
}

async fn kind_of_question(given: &'static str) -> String {
    let names = Names { given: "", in_upstream: false, server: given };
    let asking = names.start(|_| {}).await;
    asking.reason("missing").await;
    asking.first.asked()[0].kind.clone()
}
