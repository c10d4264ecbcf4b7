//! Keys of `balance: { sticky: ... }`. Each value has a program of its own before two servers.

use std::{fs, os::unix::fs::PermissionsExt};

use tidegate_tests::{
    client::{Ask, Kind},
    edge::{Edge, Home},
    recorder::Recorder,
    site::Site,
};

use super::{Row, check};

const ROWS: &[Row<&'static str>] = &[
    Row {
        key: "upstreams.<name>.balance.sticky.cookie",
        values: ["", "cookie: other"],
        observe: |value| Box::pin(part(value, "=")),
        expected: ["stay", "other"],
    },
    Row {
        key: "upstreams.<name>.balance.sticky.secret",
        values: ["", "secret: \"@dir@/secret\""],
        observe: |value| Box::pin(named(value)),
        expected: ["differently", "alike"],
    },
    Row {
        key: "upstreams.<name>.balance.sticky.by",
        values: ["by: round_robin", "by: ip_hash"],
        observe: |value| Box::pin(new_clients(value)),
        expected: ["spread", "together"],
    },
    Row {
        key: "upstreams.<name>.balance.sticky.max_age",
        values: ["", "max_age: 90s"],
        observe: |value| Box::pin(attribute(value, "Max-Age")),
        expected: ["none", "Max-Age=90"],
    },
    Row {
        key: "upstreams.<name>.balance.sticky.path",
        values: ["", "path: /app"],
        observe: |value| Box::pin(attribute(value, "Path")),
        expected: ["Path=/", "Path=/app"],
    },
    Row {
        key: "upstreams.<name>.balance.sticky.domain",
        values: ["", "domain: test.example"],
        observe: |value| Box::pin(attribute(value, "Domain")),
        expected: ["none", "Domain=test.example"],
    },
    Row {
        key: "upstreams.<name>.balance.sticky.secure",
        values: ["", "secure: true"],
        observe: |value| Box::pin(attribute(value, "Secure")),
        expected: ["none", "Secure"],
    },
    Row {
        key: "upstreams.<name>.balance.sticky.same_site",
        values: ["", "same_site: strict"],
        observe: |value| Box::pin(attribute(value, "SameSite")),
        expected: ["SameSite=Lax", "SameSite=Strict"],
    },
    Row {
        key: "upstreams.<name>.balance.sticky.http_only",
        values: ["http_only: true", "http_only: false"],
        observe: |value| Box::pin(attribute(value, "HttpOnly")),
        expected: ["HttpOnly", "none"],
    },
];

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_cookies_act() {
    check(ROWS, 2, |index, side| ROWS[index].values[side]).await;
}

/// Two servers, and programs before them.
struct Bed([Recorder; 2]);

impl Bed {
    async fn new() -> Self {
        Self([Recorder::friendly().await, Recorder::friendly().await])
    }

    async fn edge(&self, value: &str) -> Edge {
        let [a, b] = self.0.each_ref().map(Recorder::address);
        let value = super::mapping(value, &["cookie: stay"]);
        let servers = format!("servers: [{{ address: \"{a}\" }}, {{ address: \"{b}\" }}]");
        let home = Home::new(&Site::proxy(&format!("balance: {{ sticky: {value} }}\n{servers}")));
        let secret = home.path().join("secret");
        fs::write(&secret, "0123456789abcdef").expect("a file");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("a mode");
        Edge::launch(home).ready().await
    }
}

async fn cookie(edge: &Edge) -> String {
    let answer = edge.client(Kind::Http1).ask(Ask::get("/")).await;
    answer.header("set-cookie").expect("a new client gets a cookie").to_owned()
}

async fn part(value: &str, end: &str) -> String {
    let bed = Bed::new().await;
    let cookie = cookie(&bed.edge(value).await).await;
    cookie.split(end).next().unwrap_or_default().to_owned()
}

async fn attribute(value: &str, name: &str) -> String {
    let bed = Bed::new().await;
    let cookie = cookie(&bed.edge(value).await).await;
    cookie.split("; ").find(|part| part.starts_with(name)).unwrap_or("none").to_owned()
}

/// How two programs with files of their own name the same server.
async fn named(value: &str) -> String {
    let bed = Bed::new().await;
    let (one, other) = (bed.edge(value).await, bed.edge(value).await);
    let names = (cookie(&one).await, cookie(&other).await);
    // Each gives the first client to the first server.
    if names.0 == names.1 { "alike" } else { "differently" }.to_owned()
}

async fn new_clients(value: &str) -> String {
    let bed = Bed::new().await;
    let edge = bed.edge(value).await;
    for _ in 0..8 {
        cookie(&edge).await;
    }
    let met = bed.0.iter().filter(|server| !server.requests().is_empty()).count();
    if met == 2 { "spread" } else { "together" }.to_owned()
}
