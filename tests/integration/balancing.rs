//! Who gets a request: the choice is the same for every client.

use std::collections::BTreeSet;

use tidegate_tests::{
    client::{Ask, Connection, Kind},
    edge::Edge,
    every_client,
    recorder::Recorder,
    site::Site,
};

every_client! {
    a_key_stays_with_its_server,
    an_address_stays_with_its_server,
    chance_and_load_use_every_server,
    backups_take_over_and_give_back,
}

/// Three servers that record what they get, and an edge before them.
struct Trio {
    servers: [Recorder; 3],
    edge: Edge,
}

impl Trio {
    /// `extra` goes into the upstream, `more` to the two servers that are no backup.
    async fn start(extra: &str, more: &str) -> Self {
        let servers = [Recorder::friendly().await, Recorder::friendly().await, Recorder::friendly().await];
        let edge = Edge::start(Self::site(&servers, extra, more)).await;
        Self { servers, edge }
    }

    fn site(servers: &[Recorder; 3], extra: &str, more: &str) -> Site {
        let [a, b, c] = servers.each_ref().map(Recorder::address);
        Site::proxy(&format!(
            "{extra}\nservers: [{{ address: \"{a}\"{more} }}, {{ address: \"{b}\"{more} }}, {{ address: \"{c}\", backup: true }}]"
        ))
    }

    async fn connect(&self, kind: Kind) -> Connection {
        self.edge.client(kind).connect().await.expect("the edge listens")
    }

    fn counts(&self) -> [usize; 3] {
        self.servers.each_ref().map(|server| server.requests().len())
    }

    /// The servers that got a request with this field value.
    fn met(&self, name: &str, value: &str) -> BTreeSet<usize> {
        let has = |server: &Recorder| server.requests().iter().any(|seen| seen.header(name) == Some(value));
        (0..3).filter(|place| has(&self.servers[*place])).collect()
    }
}

async fn a_key_stays_with_its_server(kind: Kind) {
    for balance in ["hash", "consistent", "maglev"] {
        let trio = Trio::start(&format!("balance: {{ {balance}: [header:x-who, cookie:who] }}"), "").await;
        for _ in 0..3 {
            let mut connection = trio.connect(kind).await;
            for who in 0..12 {
                let ask = match who % 2 {
                    0 => Ask::get("/").header("x-who", &who.to_string()),
                    _ => Ask::get("/").header("cookie", &format!("a=b; who={who}")),
                };
                let ask = ask.header("x-number", &who.to_string());
                connection.send(ask).await.expect("an answer").assert(200, b"ok\n");
            }
        }
        for who in 0..12 {
            assert_eq!(trio.met("x-number", &who.to_string()).len(), 1, "{balance}: {who} met several servers");
        }
        let [a, b, c] = trio.counts();
        assert!(a > 0 && b > 0 && c == 0 && a + b == 36, "{balance}: {a} {b} {c}");
    }
}

async fn an_address_stays_with_its_server(kind: Kind) {
    let trio = Trio::start("balance: ip_hash", "").await;
    for _ in 0..6 {
        trio.connect(kind).await.send(Ask::get("/")).await.expect("an answer").assert(200, b"ok\n");
    }
    let [a, b, c] = trio.counts();
    assert!([a, b].contains(&6) && a + b + c == 6, "{a} {b} {c}");
}

async fn chance_and_load_use_every_server(kind: Kind) {
    for balance in ["random", "random_two", "ewma", "least_conn"] {
        let trio = Trio::start(&format!("balance: {balance}"), "").await;
        let mut connection = trio.connect(kind).await;
        for _ in 0..40 {
            connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"ok\n");
        }
        // By chance alone a server is left out once in 2^39 runs.
        let [a, b, c] = trio.counts();
        assert!(a > 0 && b > 0 && c == 0 && a + b == 40, "{balance}: {a} {b} {c}");
    }
}

async fn backups_take_over_and_give_back(kind: Kind) {
    let Trio { servers, mut edge } = Trio::start("balance: round_robin", ", down: true").await;
    let backup = &servers[2];
    let mut connection = edge.client(kind).connect().await.expect("the edge listens");
    for _ in 0..4 {
        connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"ok\n");
    }
    assert_eq!(backup.requests().len(), 4);
    let reloaded = edge.reload(&Trio::site(&servers, "balance: round_robin", "")).await;
    assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    let mut connection = edge.client(kind).connect().await.expect("the edge listens");
    for _ in 0..4 {
        connection.send(Ask::get("/")).await.expect("an answer").assert(200, b"ok\n");
    }
    assert_eq!(servers.each_ref().map(|server| server.requests().len()), [2, 2, 4]);
}
