//! Keys of concurrency limits, wherever a limit may stand: with a name, in a site, in a route. Each value has a site with a
//! host of its own.

use std::{sync::Arc, time::Duration};

use tidegate_tests::{
    client::Ask,
    edge::Edge,
    recorder::{OK, Recorder, Step},
    site::{CERTIFICATE, LISTENERS, Site},
    wait::wait_until,
};

use super::{Place, Row, check, mapping, value};

/// A site before a server that never answers `/stall`.
struct Busy {
    place: Place,
    server: Arc<Recorder>,
}

/// The keys of a limit that stands under this one. Without a value for it, one request may be under way.
macro_rules! limit {
    ($prefix:literal) => {
        &[
            Row {
                key: concat!($prefix, ".max"),
                values: ["", "max: 2"],
                observe: |place| Box::pin(second(place)),
                expected: ["503", "200"],
            },
            Row {
                key: concat!($prefix, ".key"),
                values: ["", "key: header:x-user"],
                observe: |place| Box::pin(second(place)),
                expected: ["503", "200"],
            },
            Row {
                key: concat!($prefix, ".status"),
                values: ["", "status: 429"],
                observe: |place| Box::pin(second(place)),
                expected: ["503", "429"],
            },
            Row {
                key: concat!($prefix, ".dry_run"),
                values: ["", "dry_run: true"],
                observe: |place| Box::pin(second(place)),
                expected: ["503", "200"],
            },
            Row {
                key: concat!($prefix, ".allow"),
                values: ["", "allow: [loopback]"],
                observe: |place| Box::pin(second(place)),
                expected: ["503", "200"],
            },
        ]
    };
}

/// Which limits hold for a site or a route.
macro_rules! choice {
    ($key:literal) => {
        &[Row {
            key: $key,
            values: ["concurrency: [loose]", "concurrency: [loose, tight]"],
            observe: |place| Box::pin(second(place)),
            expected: ["200", "503"],
        }]
    };
}

/// Limits with names, the account of each host its own.
const LIMITS: &str = "\
concurrency_limits:
  tight: { max: 1, key: host }
  loose: { max: 1000, key: host }
";

const TABLES: [&[Row<Busy>]; 5] = [
    limit!("concurrency_limits.<name>"),
    limit!("sites[].concurrency"),
    limit!("sites[].routes[].concurrency"),
    choice!("sites[].concurrency"),
    choice!("sites[].routes[].concurrency"),
];

pub(super) fn keys() -> Vec<&'static str> {
    TABLES.iter().flat_map(|rows| rows.iter().map(|row| row.key)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_concurrency_limits_act() {
    for rows in TABLES {
        let script = |target: &str| match target {
            "/stall" => vec![Step::Stall],
            _ => vec![Step::Send(OK.into())],
        };
        let server = Arc::new(Recorder::start(move |seen| script(seen.target())).await);
        let edge = Arc::new(Edge::start(site(rows, &server)).await);
        let mut place = Place::of(&edge);
        check(rows, 8, |index, side| Busy { place: place(index, side), server: Arc::clone(&server) }).await;
    }
}

/// A site for each value, which stands where the key of its row says.
fn site(rows: &[Row<Busy>], server: &Recorder) -> Site {
    let (mut limits, mut sites) = (LIMITS.to_owned(), String::new());
    for (index, row) in rows.iter().enumerate() {
        for side in [0, 1] {
            let (name, value) = (super::name(index, side), value(row, index, side));
            let limit = mapping(&value, &["max: 1"]);
            let (mut of_site, mut of_route) = (String::new(), String::new());
            match row.key {
                key if key.starts_with("concurrency_limits.") => {
                    limits.push_str(&format!("  {name}: {limit}\n"));
                    of_site = format!(", concurrency: {name}");
                }
                key if key.starts_with("sites[].routes[].concurrency.") => of_route = format!(", concurrency: {limit}"),
                key if key.starts_with("sites[].concurrency.") => of_site = format!(", concurrency: {limit}"),
                key if key.starts_with("sites[].routes[].") => of_route = format!(", {value}"),
                _ => of_site = format!(", {value}"),
            }
            sites.push_str(&format!(
                "  - {{ name: {name}, hosts: [{name}.test.example], tls: {CERTIFICATE}{of_site}, \
                 routes: [{{ path: /, proxy: app{of_route} }}] }}\n"
            ));
        }
    }
    let address = server.address();
    Site::new(format!(
        "{LISTENERS}\n{limits}sites:\n{sites}upstreams:\n  app: {{ servers: [{{ address: \"{address}\" }}] }}\n"
    ))
}

/// The status of a request while one of another user is under way.
async fn second(Busy { place, server }: Busy) -> String {
    let (client, host) = (place.client(), place.host());
    let ask = Ask::get("/stall").host(&host).header("x-place", &place.name).header("x-user", "ann");
    let held = tokio::spawn(async move { client.send(ask).await });
    wait_until("a request under way", Duration::from_secs(10), async || {
        let requests = server.requests();
        requests.iter().any(|seen| seen.header("x-place") == Some(&place.name)).then_some(())
    })
    .await;
    let status = place.ask(Ask::get("/").header("x-user", "bob")).await.status.as_u16().to_string();
    held.abort();
    status
}
