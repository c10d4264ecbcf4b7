//! Keys of upstreams with fixed servers. Each value has an upstream, and a site that forwards to it.

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_tests::{
    client::{Answer, Ask, Connection},
    edge::Edge,
    h2_origin::H2Origin,
    hole::Hole,
    recorder::{OK, Recorder, Seen, Step},
    site::Site,
    wait::wait_until,
};
use tokio::time::timeout;

use super::{Place, Row, check, mapping, value};

const ROWS: &[Row<Origins>] = &[
    Row {
        key: "upstreams.<name>.protocol",
        values: ["servers: [{ address: \"@h2@\" }]", "servers: [{ address: \"@h2@\" }], protocol: h2"],
        observe: |origins| Box::pin(status_of(origins, Ask::get("/"))),
        expected: ["502", "200"],
    },
    Row {
        key: "upstreams.<name>.proxy_protocol",
        values: ["", "proxy_protocol: v1"],
        observe: |origins| Box::pin(first_word(origins)),
        expected: ["GET", "PROXY"],
    },
    Row {
        key: "upstreams.<name>.max_tunnels",
        values: ["", "max_tunnels: 0"],
        observe: |origins| Box::pin(upgrade(origins)),
        expected: ["200", "503"],
    },
    Row {
        key: "upstreams.<name>.stream_after",
        values: ["max_in_flight_per_endpoint: 1", "max_in_flight_per_endpoint: 1, stream_after: 200ms"],
        observe: |origins| Box::pin(beside_a_stream(origins)),
        expected: ["waiting", "200"],
    },
    Row {
        key: "upstreams.<name>.request_start",
        values: ["", "request_start: true"],
        observe: |origins| Box::pin(request_start(origins)),
        expected: ["the client's", "ours"],
    },
    Row {
        key: "upstreams.<name>.server_timing",
        values: ["", "server_timing: true"],
        observe: |origins| Box::pin(server_timing(origins)),
        expected: ["nothing", "queue;dur=0.0"],
    },
    Row {
        key: "upstreams.<name>.balance",
        values: [BOTH, "servers: [{ address: \"@first@\" }, { address: \"@second@\" }], balance: least_conn"],
        observe: |origins| Box::pin(beside_a_slow_request(origins)),
        expected: ["both", "the idle one"],
    },
    Row {
        key: "upstreams.<name>.balance.hash",
        values: [
            "servers: [{ address: \"@first@\" }, { address: \"@second@\" }], balance: { hash: header:x-who }",
            "servers: [{ address: \"@first@\" }, { address: \"@second@\" }], balance: { hash: host }",
        ],
        observe: |origins| Box::pin(sixteen_people(origins)),
        expected: ["both", "one"],
    },
    Row {
        key: "upstreams.<name>.balance.consistent",
        values: [
            "servers: [{ address: \"@first@\" }, { address: \"@second@\" }], balance: { consistent: header:x-who }",
            "servers: [{ address: \"@first@\" }, { address: \"@second@\" }], balance: { consistent: host }",
        ],
        observe: |origins| Box::pin(sixteen_people(origins)),
        expected: ["both", "one"],
    },
    Row {
        key: "upstreams.<name>.balance.maglev",
        values: [
            "servers: [{ address: \"@first@\" }, { address: \"@second@\" }], balance: { maglev: header:x-who }",
            "servers: [{ address: \"@first@\" }, { address: \"@second@\" }], balance: { maglev: host }",
        ],
        observe: |origins| Box::pin(sixteen_people(origins)),
        expected: ["both", "one"],
    },
    Row {
        key: "upstreams.<name>.servers[].address",
        values: ["servers: [{ address: \"@first@\" }]", "servers: [{ address: \"@second@\" }]"],
        observe: |origins| Box::pin(shares(origins)),
        expected: ["8:0", "0:8"],
    },
    Row {
        key: "upstreams.<name>.servers[].weight",
        values: [BOTH, "servers: [{ address: \"@first@\" }, { address: \"@second@\", weight: 3 }]"],
        observe: |origins| Box::pin(shares(origins)),
        expected: ["4:4", "2:6"],
    },
    Row {
        key: "upstreams.<name>.servers[].backup",
        values: [BOTH, "servers: [{ address: \"@first@\", backup: true }, { address: \"@second@\" }]"],
        observe: |origins| Box::pin(shares(origins)),
        expected: ["4:4", "0:8"],
    },
    Row {
        key: "upstreams.<name>.servers[].priority",
        values: [BOTH, "servers: [{ address: \"@first@\" }, { address: \"@second@\", priority: 7 }]"],
        observe: |origins| Box::pin(shares(origins)),
        expected: ["4:4", "8:0"],
    },
    Row {
        key: "upstreams.<name>.servers[].down",
        values: [BOTH, "servers: [{ address: \"@first@\", down: true }, { address: \"@second@\" }]"],
        observe: |origins| Box::pin(shares(origins)),
        expected: ["4:4", "0:8"],
    },
    Row {
        key: "upstreams.<name>.servers[].max_conns",
        values: [BOTH, "servers: [{ address: \"@first@\", max_conns: 1 }, { address: \"@second@\" }]"],
        observe: |origins| Box::pin(four_at_once(origins)),
        expected: ["2:2", "1:3"],
    },
    Row {
        key: "upstreams.<name>.timeouts.connect",
        values: [
            "servers: [{ address: \"@hole@\" }]",
            "servers: [{ address: \"@hole@\" }], timeouts: { connect: 200ms }",
        ],
        observe: |origins| Box::pin(how_soon(origins, Duration::from_millis(1_500))),
        expected: ["504 late", "504 soon"],
    },
    Row {
        key: "upstreams.<name>.timeouts.total_connect",
        values: [
            "servers: [{ address: \"@hole@\" }, { address: \"@pit@\" }], timeouts: { connect: 1s }",
            "servers: [{ address: \"@hole@\" }, { address: \"@pit@\" }], timeouts: { connect: 1s, total_connect: 1s }",
        ],
        observe: |origins| Box::pin(how_soon(origins, Duration::from_millis(1_600))),
        expected: ["504 late", "504 soon"],
    },
    Row {
        key: "upstreams.<name>.timeouts.head",
        values: ["", "timeouts: { head: 300ms }"],
        observe: |origins| Box::pin(patiently(origins, Ask::get("/stall"))),
        expected: ["waiting", "504"],
    },
    Row {
        key: "upstreams.<name>.timeouts.read",
        values: ["", "timeouts: { read: 300ms }"],
        observe: |origins| Box::pin(patiently(origins, Ask::get("/half"))),
        expected: ["waiting", "200 cut"],
    },
    Row {
        key: "upstreams.<name>.timeouts.write",
        values: [
            "servers: [{ address: \"@deaf@\" }]",
            "servers: [{ address: \"@deaf@\" }], timeouts: { write: 300ms }",
        ],
        observe: |origins| Box::pin(patiently(origins, Ask::post("/", vec![b'x'; BIG]))),
        expected: ["waiting", "504"],
    },
    Row {
        key: "upstreams.<name>.timeouts.idle",
        values: ["", "timeouts: { idle: 300ms }"],
        observe: |origins| Box::pin(idle_connection(origins)),
        expected: ["kept", "closed"],
    },
    Row {
        key: "upstreams.<name>.idle_connections",
        values: ["", "idle_connections: 0"],
        observe: |origins| Box::pin(connections_for_two_requests(origins)),
        expected: ["1", "2"],
    },
    Row {
        key: "upstreams.<name>.parsing",
        values: ["", "parsing: lenient"],
        observe: |origins| Box::pin(status_of(origins, Ask::get("/line-feeds"))),
        expected: ["502", "200"],
    },
];

const BOTH: &str = "servers: [{ address: \"@first@\" }, { address: \"@second@\" }]";

/// A place, and the servers behind it.
struct Origins {
    place: Place,
    first: Arc<Recorder>,
    second: Arc<Recorder>,
}

pub(super) fn keys() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_upstreams_act() {
    let (first, second) = (Arc::new(Recorder::start(origin).await), Arc::new(Recorder::start(origin).await));
    let h2 = H2Origin::named("ok").await;
    let (hole, pit) = (Hole::open(), Hole::open());
    // Nobody accepts, so nobody reads.
    let deaf = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let site = site().with("first", first.address()).with("second", second.address()).with("h2", h2.address());
    let site = site.with("hole", hole.address()).with("pit", pit.address());
    let site = site.with("deaf", deaf.local_addr().expect("it is bound"));
    let edge = Arc::new(Edge::start(site).await);
    let mut places = Place::of(&edge);
    let origins =
        |index, side| Origins { place: places(index, side), first: Arc::clone(&first), second: Arc::clone(&second) };
    check(ROWS, 8, origins).await;
}

fn site() -> Site {
    let (mut sites, mut upstreams) = (String::new(), String::new());
    for (index, row) in ROWS.iter().enumerate() {
        for side in [0, 1] {
            let name = super::name(index, side);
            sites.push_str(&format!(
                "  - {{ hosts: [{name}.test.example], max_body: 64MiB, routes: [{{ path: /, proxy: {name} }}] }}\n"
            ));
            let defaults = ["servers: [{ address: \"@first@\" }]"];
            upstreams.push_str(&format!("  {name}: {}\n", mapping(&value(row, index, side), &defaults)));
        }
    }
    let listeners = "listeners: [{ name: plain, address: \"127.0.0.1:@port:plain@\" }]";
    Site::new(format!("{listeners}\nsites:\n{sites}upstreams:\n{upstreams}"))
}

fn origin(seen: &Seen) -> Vec<Step> {
    match seen.target() {
        "/stall" => vec![Step::Stall],
        "/half" => vec![Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".into()), Step::Stall],
        "/line-feeds" => vec![Step::Send(OK.replace('\r', "").into())],
        _ => vec![Step::Send(OK.into())],
    }
}

impl Origins {
    /// A client's connection: requests on it meet the same shard, with its turn and its idle connections.
    async fn connection(&self) -> Connection {
        self.place.client().connect().await.expect("the edge listens")
    }

    fn addressed(&self, ask: Ask) -> Ask {
        ask.host(&self.place.host()).header("x-place", &self.place.name)
    }

    async fn send(&self, connection: &mut Connection, ask: Ask) -> Answer {
        connection.send(self.addressed(ask)).await.expect("an answer")
    }

    /// How many requests of this place a server got, those for `target` alone.
    fn requests(&self, at: &Recorder, target: &str) -> usize {
        at.requests().iter().filter(|seen| self.is_ours(seen) && seen.target() == target).count()
    }

    fn is_ours(&self, seen: &Seen) -> bool {
        seen.header("x-place") == Some(&self.place.name)
    }
}

async fn status_of(origins: Origins, ask: Ask) -> String {
    origins.place.ask(ask).await.status.as_u16().to_string()
}

/// Who gets four requests in turn while one server works on another one.
async fn beside_a_slow_request(origins: Origins) -> String {
    let ask = origins.addressed(Ask::get("/stall"));
    let client = origins.place.client();
    let slow = tokio::spawn(async move { client.send(ask).await });
    let stalled = wait_until("the slow request", LIMIT, async || {
        [&origins.first, &origins.second].into_iter().find(|at| origins.requests(at, "/stall") == 1)
    })
    .await;
    let mut connection = origins.connection().await;
    for _ in 0..4 {
        origins.send(&mut connection, Ask::get("/")).await.assert(200, b"ok\n");
    }
    slow.abort();
    if origins.requests(stalled, "/") == 0 { "the idle one" } else { "both" }.to_owned()
}

async fn shares(origins: Origins) -> String {
    let mut connection = origins.connection().await;
    for _ in 0..8 {
        origins.send(&mut connection, Ask::get("/")).await.assert(200, b"ok\n");
    }
    format!("{}:{}", origins.requests(&origins.first, "/"), origins.requests(&origins.second, "/"))
}

/// Whether people who are told apart by a field meet different servers.
async fn sixteen_people(origins: Origins) -> String {
    let mut connection = origins.connection().await;
    for number in 0..16 {
        origins.send(&mut connection, Ask::get("/").header("x-who", &number.to_string())).await.assert(200, b"ok\n");
    }
    let met = [&origins.first, &origins.second].into_iter().filter(|at| origins.requests(at, "/") > 0).count();
    if met == 2 { "both" } else { "one" }.to_owned()
}

/// Who gets four requests that all take long.
async fn four_at_once(origins: Origins) -> String {
    let asks: Vec<_> = (0..4)
        .map(|_| {
            let (client, ask) = (origins.place.client(), origins.addressed(Ask::get("/stall")));
            tokio::spawn(async move { client.send(ask).await })
        })
        .collect();
    let count = || [&origins.first, &origins.second].map(|at| origins.requests(at, "/stall"));
    wait_until("four requests", LIMIT, async || (count().iter().sum::<usize>() == 4).then_some(())).await;
    asks.iter().for_each(tokio::task::JoinHandle::abort);
    let [first, second] = count();
    format!("{first}:{second}")
}

async fn how_soon(origins: Origins, border: Duration) -> String {
    let asked = Instant::now();
    let answer = origins.place.ask(Ask::get("/")).await;
    let soon = if asked.elapsed() < border { "soon" } else { "late" };
    format!("{} {soon}", answer.status.as_u16())
}

/// The status, or that there is none some deadlines later.
async fn patiently(origins: Origins, ask: Ask) -> String {
    match timeout(PATIENCE, origins.place.ask(ask)).await {
        Err(_) => "waiting".to_owned(),
        Ok(answer) if answer.is_complete() => answer.status.as_u16().to_string(),
        Ok(answer) => format!("{} cut", answer.status.as_u16()),
    }
}

async fn idle_connection(origins: Origins) -> String {
    origins.place.ask(Ask::get("/")).await.assert(200, b"ok\n");
    let ended = wait_until("the end of the connection", LIMIT, async || {
        let connections = origins.first.connections();
        let ours = connections.iter().find(|recorded| recorded.requests.iter().any(|seen| origins.is_ours(seen)));
        ours.is_some_and(|recorded| recorded.ended).then_some(())
    });
    if timeout(PATIENCE, ended).await.is_ok() { "closed" } else { "kept" }.to_owned()
}

async fn connections_for_two_requests(origins: Origins) -> String {
    let mut connection = origins.connection().await;
    for _ in 0..2 {
        origins.send(&mut connection, Ask::get("/")).await.assert(200, b"ok\n");
    }
    let connections = origins.first.connections();
    let ours = |seen: &Seen| origins.is_ours(seen);
    connections.iter().filter(|recorded| recorded.requests.iter().any(ours)).count().to_string()
}

/// Several times the deadlines above, and far below the defaults.
const PATIENCE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);
/// More than the buffers of all sockets in between.
const BIG: usize = 16 << 20;

/// What the connection of a request begins with.
/// What becomes of a request for a WebSocket, of which these servers know nothing.
async fn upgrade(origins: Origins) -> String {
    let ask = Ask::get("/").header("connection", "upgrade").header("upgrade", "websocket");
    let ask = ask.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    status_of(origins, ask).await
}

/// What becomes of a request while an answer that has begun goes on and on.
async fn beside_a_stream(origins: Origins) -> String {
    let mut connection = origins.connection().await;
    let _streams = connection.start(origins.addressed(Ask::get("/half"))).await.expect("a head");
    patiently(origins, Ask::get("/")).await
}

async fn request_start(origins: Origins) -> String {
    origins.place.ask(Ask::get("/").header("x-request-start", "t=1")).await;
    let name = Some(origins.place.name.as_str());
    let requests = origins.first.requests();
    let seen = requests.iter().find(|seen| seen.header("x-place") == name).expect("the request came");
    if seen.header("x-request-start") == Some("t=1") { "the client's" } else { "ours" }.to_owned()
}

async fn server_timing(origins: Origins) -> String {
    let answer = origins.place.ask(Ask::get("/")).await;
    answer.header("server-timing").unwrap_or("nothing").to_owned()
}

async fn first_word(origins: Origins) -> String {
    origins.place.ask(Ask::get("/")).await;
    let name = Some(origins.place.name.as_str());
    let requests = origins.first.requests();
    let seen = requests.iter().find(|seen| seen.header("x-place") == name).expect("the request came");
    seen.line().split(' ').next().unwrap_or_default().to_owned()
}
