//! Clients that stay with an endpoint by a cookie.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use tidegate_tests::{
    client::{Answer, Ask, Client, Kind},
    edge::{Edge, Home, Worker},
    every_client,
    h2_origin::H2Origin,
    process::{Signal, send_signal},
    recorder::Recorder,
    site::Site,
};

every_client! {
    a_client_stays_where_it_came,
    made_up_cookies_are_replaced,
    a_client_of_http2_servers_stays,
    a_reload_and_a_restart_keep_clients,
    a_slot_keeps_its_clients,
    who_goes_out_of_service_loses_its_clients,
    secrets_rotate,
}

const STICKY: &str = "balance: { sticky: { cookie: stay, by: round_robin } }";

/// Three servers that say their names, and what stands in the file of them.
struct Trio([Recorder; 3]);

impl Trio {
    async fn start() -> Self {
        Self([Self::named("a").await, Self::named("b").await, Self::named("c").await])
    }

    async fn named(name: &str) -> Recorder {
        Recorder::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nset-cookie: app=1\r\n\r\n{name}")).await
    }

    /// `extra` beside the servers, `down` the place of one that is.
    fn app(&self, extra: &str, down: Option<usize>) -> String {
        let server = |place: usize| {
            let down = if down == Some(place) { ", down: true" } else { "" };
            format!("{{ address: \"{}\"{down} }}", self.0[place].address())
        };
        format!("{extra}\nservers: [{}, {}, {}]", server(0), server(1), server(2))
    }

    fn site(&self, extra: &str) -> Site {
        Site::proxy(&self.app(extra, None))
    }
}

/// A browser with one cookie.
struct Browser {
    client: Client,
    cookie: Option<String>,
}

impl Browser {
    fn new(edge: &Edge, kind: Kind) -> Self {
        Self { client: edge.client(kind), cookie: None }
    }

    fn with(edge: &Edge, kind: Kind, cookie: &str) -> Self {
        Self { client: edge.client(kind), cookie: Some(cookie.to_owned()) }
    }

    /// The same browser before a program that was started anew, or with another one.
    fn before(&self, edge: &Edge) -> Self {
        Self { client: edge.client(self.client.kind()), cookie: self.cookie.clone() }
    }

    async fn visit(&mut self) -> Answer {
        let mut ask = Ask::get("/").header("cookie", "other=1");
        if let Some(cookie) = &self.cookie {
            ask = ask.header("cookie", &format!("stay={cookie}; last=2"));
        }
        let answer = self.client.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        if let Some(set) = set_cookie(&answer) {
            self.cookie = set.split([';', '=']).nth(1).map(str::to_owned);
        }
        answer
    }

    /// Who serves it, and that its cookie stays as it is.
    async fn stays(&mut self) -> String {
        let answer = self.visit().await;
        assert_eq!(set_cookie(&answer), None, "a cookie is set when it changes");
        assert_eq!(answer.header("cache-control"), None, "without it a cache may have the answer");
        answer.text()
    }

    /// Who serves it now, and that it has another cookie.
    async fn moves(&mut self) -> String {
        let before = self.cookie.clone();
        let answer = self.visit().await;
        assert!(set_cookie(&answer).is_some(), "{:?}", answer.headers);
        assert_ne!(self.cookie, before);
        answer.text()
    }
}

fn set_cookie(answer: &Answer) -> Option<String> {
    let all = answer.headers.get_all("set-cookie").iter();
    let mut ours = all.filter_map(|value| value.to_str().ok()).filter(|value| value.starts_with("stay="));
    let first = ours.next().map(str::to_owned);
    assert_eq!(ours.next(), None, "one cookie at a time");
    first
}

async fn counted(edge: &Edge, result: &str) -> String {
    let metrics = edge.admin().metrics().await.expect("metrics");
    let line = format!("tidegate_sticky_requests_total{{result=\"{result}\",upstream=\"app\"}} ");
    metrics.lines().find_map(|known| known.strip_prefix(&line)).unwrap_or_default().to_owned()
}

async fn a_client_stays_where_it_came(kind: Kind) {
    let trio = Trio::start().await;
    let edge = Edge::start(trio.site(STICKY)).await;
    let mut met = String::new();
    for _ in 0..6 {
        let mut browser = Browser::new(&edge, kind);
        let answer = browser.visit().await;
        let cookie = browser.cookie.clone().expect("a new client gets a cookie");
        let secure = if kind.is_tls() { "; Secure" } else { "" };
        let expected = format!("stay={cookie}; Path=/; HttpOnly; SameSite=Lax{secure}");
        assert_eq!(set_cookie(&answer).as_deref(), Some(expected.as_str()));
        assert!(answer.headers.get_all("set-cookie").iter().any(|value| value == "app=1"), "the server's own stays");
        assert_eq!(answer.header("cache-control"), Some("private"), "for no shared cache");
        let port = trio.0[0].socket_address().port().to_string();
        assert!(cookie.len() == 33 && !cookie.contains(&port), "{cookie}");
        let server = answer.text();
        for _ in 0..4 {
            assert_eq!(browser.stays().await, server);
        }
        met.push_str(&server);
    }
    assert!(["a", "b", "c"].iter().all(|name| met.contains(name)), "new clients spread: {met}");
    for server in &trio.0 {
        for seen in server.requests() {
            let cookies = seen.headers("cookie").join("|");
            assert!(["other=1", "other=1; last=2"].contains(&cookies.as_str()), "forwarded: {cookies}");
        }
    }
    assert_eq!((counted(&edge, "new").await, counted(&edge, "kept").await), ("6".to_owned(), "24".to_owned()));
}

async fn made_up_cookies_are_replaced(kind: Kind) {
    let trio = Trio::start().await;
    let edge = Edge::start(trio.site(STICKY)).await;
    let mut honest = Browser::new(&edge, kind);
    let server = honest.visit().await.text();
    let good = honest.cookie.clone().expect("a cookie");
    let last = if good.ends_with('A') { 'B' } else { 'A' };
    let made_up = [
        format!("{}{last}", &good[..32]),
        format!("2{}", &good[1..]),
        "x".to_owned(),
        "%00".to_owned(),
        "y".repeat(4000),
    ];
    for cookie in &made_up {
        Browser::with(&edge, kind, cookie).moves().await;
    }
    assert_eq!(counted(&edge, "unknown").await, made_up.len().to_string());
    assert_eq!(honest.stays().await, server);
    // A site beside ours can put another one before it.
    let answer = edge.client(kind).ask(Ask::get("/").header("cookie", &format!("stay=x; stay={good}"))).await;
    assert_eq!((answer.text(), set_cookie(&answer)), (server, None));
}

async fn a_client_of_http2_servers_stays(kind: Kind) {
    let servers = [H2Origin::named("a").await, H2Origin::named("b").await, H2Origin::named("c").await];
    let [a, b, c] = servers.each_ref().map(H2Origin::address);
    let list = format!("servers: [{{ address: \"{a}\" }}, {{ address: \"{b}\" }}, {{ address: \"{c}\" }}]");
    let edge = Edge::start(Site::proxy(&format!("protocol: h2\n{STICKY}\n{list}"))).await;
    for _ in 0..3 {
        let mut browser = Browser::new(&edge, kind);
        let server = browser.moves().await;
        for _ in 0..3 {
            assert_eq!(browser.stays().await, server);
        }
    }
    for seen in servers.iter().flat_map(H2Origin::requests) {
        let cookies = seen.header("cookie").unwrap_or_default().to_owned();
        assert!(["other=1", "other=1; last=2"].contains(&cookies.as_str()), "forwarded: {cookies}");
    }
}

async fn a_reload_and_a_restart_keep_clients(kind: Kind) {
    let state = tempfile::tempdir().expect("a directory");
    let trio = Trio::start().await;
    let kept = format!("server: {{ state_dir: \"{}/state\", runtime_dir: \"@dir@/run\" }}", state.path().display());
    let site = |extra: &str| trio.site(extra).and(&kept);
    let mut edge = Edge::start(site(STICKY)).await;
    let mut browsers = [Browser::new(&edge, kind), Browser::new(&edge, kind), Browser::new(&edge, kind)];
    let mut servers = Vec::new();
    for browser in &mut browsers {
        servers.push(browser.moves().await);
    }
    let changed = "balance: { sticky: { cookie: stay, by: random, max_age: 1h } }\nslow_start: 1s";
    let reloaded = edge.reload(&site(changed)).await;
    assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    assert!(reloaded.stdout.contains("balance.sticky.max_age: none -> 1h"), "{}", reloaded.stdout);
    for (browser, server) in browsers.iter_mut().zip(&servers) {
        assert_eq!(browser.stays().await, *server);
    }
    edge.stop().await.assert_clean();
    let mode = fs::metadata(state.path().join("state/sticky/secret")).expect("a secret").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let edge = Edge::start(site(STICKY)).await;
    for (browser, server) in browsers.iter().zip(&servers) {
        assert_eq!(browser.before(&edge).stays().await, *server);
    }
    // A secret of another program.
    let other = Edge::start(trio.site(STICKY)).await;
    browsers[0].before(&other).moves().await;
}

async fn a_slot_keeps_its_clients(kind: Kind) {
    let workers = "workers:\n  command: [\"@demo@\", --uds, \"{socket}\"]\n  count: 3\n  ready: { http: /healthz }";
    let edge = Edge::start(Site::proxy(&format!("{STICKY}\n{workers}"))).await;
    let before = edge.ready_workers("app", 3).await;
    let slot = |facts: serde_json::Value| facts["slot"].as_str().expect("a slot").parse::<usize>().expect("a number");
    let mut browser = Browser::new(&edge, kind);
    let mine = slot(browser.visit().await.json());
    assert!(set_cookie(&browser.visit().await).is_none());
    send_signal(before[mine].pid, Signal::SIGKILL);
    let is_back = |workers: &[Worker]| {
        workers.iter().filter(|worker| worker.is_ready()).count() == 3 && workers[mine].pid != before[mine].pid
    };
    let after = edge.workers_until("app", Duration::from_secs(10), is_back).await;
    for _ in 0..4 {
        let answer = browser.visit().await;
        let facts = answer.json();
        assert_eq!((facts["pid"].as_i64(), slot(facts)), (Some(after[mine].pid.into()), mine));
        assert_eq!(set_cookie(&answer), None);
    }
}

async fn who_goes_out_of_service_loses_its_clients(kind: Kind) {
    let trio = Trio::start().await;
    let mut edge = Edge::start(trio.site(STICKY)).await;
    let mut browser = Browser::new(&edge, kind);
    let first = browser.moves().await;
    let place = "abc".find(first.as_str()).expect("a name");
    let first_cookie = browser.cookie.clone().expect("a cookie");
    let reloaded = edge.reload(&Site::proxy(&trio.app(STICKY, Some(place)))).await;
    assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    let second = browser.moves().await;
    assert_ne!(second, first);
    assert_eq!(counted(&edge, "moved").await, "1");
    // What it has begun is there now, so it stays when the first one is back.
    let reloaded = edge.reload(&trio.site(STICKY)).await;
    assert!(reloaded.status.success(), "{}{}", reloaded.stdout, reloaded.stderr);
    assert_eq!(browser.stays().await, second);
    assert_eq!(Browser::with(&edge, kind, &first_cookie).stays().await, first, "who was away meanwhile");
}

async fn secrets_rotate(kind: Kind) {
    let trio = Trio::start().await;
    let folder = tempfile::tempdir().expect("a directory");
    let secret = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        path
    };
    let (old, new) = (secret("old", "an old secret 0123456789\n"), secret("new", "a new secret 0123456789"));
    let site = |secrets: &[&Path]| {
        let list: Vec<_> = secrets.iter().map(|path| format!("\"{}\"", path.display())).collect();
        trio.site(&format!("balance: {{ sticky: {{ cookie: stay, by: round_robin, secret: [{}] }} }}", list.join(", ")))
    };
    let mut edge = Edge::start(site(&[&old])).await;
    let mut browser = Browser::new(&edge, kind);
    let server = browser.moves().await;
    let left_behind = browser.cookie.clone().expect("a cookie");
    // Another program with the same secret, as on another host.
    let other = Edge::start(site(&[&old])).await;
    assert_eq!(browser.before(&other).stays().await, server);
    assert!(edge.reload(&site(&[&new, &old])).await.status.success());
    assert_eq!(browser.moves().await, server, "the same server by another name");
    assert!(edge.reload(&site(&[&new])).await.status.success());
    assert_eq!(browser.stays().await, server);
    Browser::with(&edge, kind, &left_behind).moves().await;
    // A secret that is none changes nothing.
    let refused = edge.reload(&site(&[&secret("short", "short")])).await;
    assert!(!refused.status.success() && refused.stderr.contains("secret has 5 bytes"), "{}", refused.stderr);
    assert_eq!(browser.stays().await, server);
}

// Once: no client is involved.
#[tokio::test]
async fn a_check_names_secrets_that_are_none() {
    let trio = Trio::start().await;
    let home = Home::new(&trio.site("balance: { sticky: { cookie: stay, secret: absent } }"));
    let checked = home.tidegate(&["check"]).await;
    assert!(!checked.status.success());
    assert!(checked.stderr.contains("absent: error: cannot be read"), "{}", checked.stderr);
}
