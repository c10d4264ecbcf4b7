//! Keys of rate limits, wherever a limit may stand: with a name, in a site, in a route. Each value has a site with a host of
//! its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_tests::{
    client::Ask,
    edge::Edge,
    site::{CERTIFICATE, LISTENERS, Site},
};

use super::{Place, Row, check, mapping, value};

/// The keys of a limit that stands under this one. Without a value for it the rate is one request in an hour.
macro_rules! limit {
    ($prefix:literal) => {
        &[
            Row {
                key: concat!($prefix, ".rate"),
                values: ["", "rate: 1000000/s"],
                observe: |place| Box::pin(second(place)),
                expected: ["429", "200"],
            },
            Row {
                key: concat!($prefix, ".burst"),
                values: ["", "burst: 1, nodelay: true"],
                observe: |place| Box::pin(second(place)),
                expected: ["429", "200"],
            },
            Row {
                key: concat!($prefix, ".nodelay"),
                values: ["rate: 2/s, burst: 1", "rate: 2/s, burst: 1, nodelay: true"],
                observe: |place| Box::pin(pace(place)),
                expected: ["late", "at once"],
            },
            Row {
                key: concat!($prefix, ".delay"),
                values: ["rate: 2/s, burst: 1, delay: 0", "rate: 2/s, burst: 1, delay: 1"],
                observe: |place| Box::pin(pace(place)),
                expected: ["late", "at once"],
            },
            Row {
                key: concat!($prefix, ".key"),
                values: ["", "key: header:x-user"],
                observe: |place| Box::pin(second(place)),
                expected: ["429", "200"],
            },
            Row {
                key: concat!($prefix, ".status"),
                values: ["", "status: 503"],
                observe: |place| Box::pin(second(place)),
                expected: ["429", "503"],
            },
            Row {
                key: concat!($prefix, ".headers"),
                values: ["", "headers: legacy"],
                observe: |place| Box::pin(told(place)),
                expected: ["nothing", "1"],
            },
            Row {
                key: concat!($prefix, ".dry_run"),
                values: ["", "dry_run: true"],
                observe: |place| Box::pin(second(place)),
                expected: ["429", "200"],
            },
            Row {
                key: concat!($prefix, ".allow"),
                values: ["", "allow: [loopback]"],
                observe: |place| Box::pin(second(place)),
                expected: ["429", "200"],
            },
            Row {
                key: concat!($prefix, ".entries"),
                values: ["", "entries: 1024"],
                observe: |place| Box::pin(entries(place)),
                expected: ["262144", "1024"],
            },
        ]
    };
}

/// Which limits hold for a site or a route.
macro_rules! choice {
    ($key:literal) => {
        &[
            Row {
                key: $key,
                values: ["", "rate_limit: tight"],
                observe: |place| Box::pin(second(place)),
                expected: ["200", "429"],
            },
            Row {
                key: concat!($key, "[].limit"),
                values: ["rate_limit: [{ limit: loose }]", "rate_limit: [{ limit: tight }]"],
                observe: |place| Box::pin(second(place)),
                expected: ["200", "429"],
            },
            Row {
                key: concat!($key, "[].cost"),
                values: ["rate_limit: [{ limit: pair }]", "rate_limit: [{ limit: pair, cost: 3 }]"],
                observe: |place| Box::pin(second(place)),
                expected: ["200", "429"],
            },
        ]
    };
}

/// Limits with names, the account of each host its own.
const LIMITS: &str = "\
rate_limits:
  tight: { rate: 1/h, key: host }
  loose: { rate: 1000000/s, key: host }
  pair: { rate: 1/h, burst: 1, nodelay: true, key: host }
";

const TABLES: [&[Row<Place>]; 5] = [
    limit!("rate_limits.<name>"),
    limit!("sites[].rate_limit"),
    limit!("sites[].routes[].rate_limit"),
    choice!("sites[].rate_limit"),
    choice!("sites[].routes[].rate_limit"),
];

pub(super) fn keys() -> Vec<&'static str> {
    TABLES.iter().flat_map(|rows| rows.iter().map(|row| row.key)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_rate_limits_act() {
    for rows in TABLES {
        let edge = Arc::new(Edge::start(site(rows)).await);
        check(rows, 8, Place::of(&edge)).await;
    }
}

/// A site for each value, which stands where the key of its row says.
fn site(rows: &[Row<Place>]) -> Site {
    let (mut limits, mut sites) = (LIMITS.to_owned(), String::new());
    for (index, row) in rows.iter().enumerate() {
        for side in [0, 1] {
            let (name, value) = (super::name(index, side), value(row, index, side));
            let limit = mapping(&value, &["rate: 1/h"]);
            let (mut of_site, mut of_route) = (String::new(), String::new());
            match row.key {
                key if key.starts_with("rate_limits.") => {
                    limits.push_str(&format!("  {name}: {limit}\n"));
                    of_site = format!(", rate_limit: {name}");
                }
                key if key.starts_with("sites[].routes[].rate_limit.") => of_route = format!(", rate_limit: {limit}"),
                key if key.starts_with("sites[].rate_limit.") => of_site = format!(", rate_limit: {limit}"),
                _ if value.is_empty() => {}
                key if key.starts_with("sites[].routes[].") => of_route = format!(", {value}"),
                _ => of_site = format!(", {value}"),
            }
            sites.push_str(&format!(
                "  - {{ name: {name}, hosts: [{name}.test.example], tls: {CERTIFICATE}{of_site}, \
                 routes: [{{ path: /, name: tried, respond: {{ body: \"\" }}{of_route} }}] }}\n"
            ));
        }
    }
    Site::new(format!("{LISTENERS}\n{limits}sites:\n{sites}"))
}

async fn ask(place: &Place, user: &str) -> tidegate_tests::client::Answer {
    place.ask(Ask::get("/").header("x-user", user)).await
}

/// The status of a second request, of another user.
async fn second(place: Place) -> String {
    ask(&place, "ann").await.assert(200, b"");
    ask(&place, "bob").await.status.as_u16().to_string()
}

/// Whether a second request waits; two in a second are half a second apart.
async fn pace(place: Place) -> String {
    ask(&place, "ann").await.assert(200, b"");
    let asked = Instant::now();
    ask(&place, "ann").await.assert(200, b"");
    if asked.elapsed() >= Duration::from_millis(200) { "late" } else { "at once" }.to_owned()
}

async fn told(place: Place) -> String {
    ask(&place, "ann").await.header("x-ratelimit-limit").unwrap_or("nothing").to_owned()
}

async fn entries(place: Place) -> String {
    let status = place.edge.status().await;
    let name = |limit: &&serde_json::Value| {
        let name = limit["name"].as_str().unwrap_or_default();
        let of_site = format!("site {}", place.name);
        name == place.name || name == of_site || name == format!("{of_site}, route tried")
    };
    let limit = status["rate_limits"].as_array().into_iter().flatten().find(name);
    limit.map_or_else(|| "none".to_owned(), |limit| limit["entries"].to_string())
}
