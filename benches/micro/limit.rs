//! Time to ask the limits of a route, by what clients are told apart by, number of limits and number of threads.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use divan::Bencher;
use tidegate_config::{System, load_str};
use tidegate_traffic::{
    BodyLength, Client, HeadView, Host, HttpVersion, Identities, ListenerId, RouteId, Target, Traffic,
};

fn main() {
    divan::main();
}

/// One thread, no contention. The clock is read here too, as the driver does for each request; the rest of a request's memory
/// would be in use by then, so clients that take turns are few enough to be at hand. Every request is admitted, but those at
/// one in an hour.
#[divan::bench(args = [
    "{ rate: 1000000/s, burst: 100000, nodelay: true }",
    "{ rate: 1000000/s, burst: 100000, nodelay: true, key: header:x-user-id }",
    "{ rate: 1000000/s, burst: 100000, nodelay: true, key: cookie:sid }",
    "{ rate: 1/h }",
    "{ rate: 1000000/s, burst: 100000, nodelay: true, headers: standard }",
    "[one, { limit: two, cost: 5 }]",
    "[one, { limit: two, cost: 5 }, three]",
], consts = [1_000, 100_000], sample_count = 100, sample_size = 10_000)]
fn check<const CLIENTS: u32>(bencher: Bencher<'_, '_>, limit: &str) {
    let bed = Bed::new(limit, CLIENTS);
    bed.with_head(|head| bencher.bench_local(|| bed.ask(head)));
}

/// What the clock alone takes, which is in every figure here.
#[divan::bench(sample_count = 100, sample_size = 10_000)]
fn clock() -> Instant {
    Instant::now()
}

/// All shards at once on one limit. Samples are long enough (about a millisecond) that the threads overlap.
#[divan::bench(threads = [1, 2, 4], sample_count = 50, sample_size = 10_000)]
fn contended(bencher: Bencher<'_, '_>) {
    let bed = Bed::new("{ rate: 1000000/s, burst: 100000, nodelay: true }", 1_000);
    bencher.bench(|| bed.with_head(|head| bed.ask(head)));
}

struct Bed {
    traffic: Traffic,
    clients: Vec<Client>,
    /// Of several users, so that none is ahead of the rate.
    fields: Vec<http::HeaderMap>,
    next: AtomicU32,
}

impl Bed {
    fn new(limit: &str, clients: u32) -> Self {
        let text = format!(
            "{LIMITS}sites: [{{ hosts: [bench.test], routes: [{{ path: /, respond: {{}}, rate_limit: {limit} }}] }}]\n"
        );
        let loaded = load_str("bench", &text, &System::detect()).unwrap_or_else(|faults| panic!("{faults:?}"));
        let address = |number: u32| match number % 2 {
            0 => IpAddr::V4(Ipv4Addr::from(number.wrapping_mul(0x9e37_79b9))),
            _ => IpAddr::V6(Ipv6Addr::from(u128::from(number.wrapping_mul(0x9e37_79b9)) << 64)),
        };
        let bed = Self {
            traffic: Traffic::build(&loaded.model, None, &Identities::default()),
            clients: (0..clients).map(|number| Client::new(address(number), 1, ListenerId(0), None)).collect(),
            fields: (0..32).map(fields).collect(),
            next: AtomicU32::new(0),
        };
        // The table's memory comes with its first clients.
        bed.with_head(|head| (0..clients).for_each(|_| bed.ask(head)));
        bed
    }

    fn with_head<T>(&self, look: impl FnOnce(&HeadView<'_>) -> T) -> T {
        let target = Target::parse("/").expect("a path");
        let host = Host::parse(b"bench.test").expect("a host");
        let head = HeadView {
            method: "GET",
            raw_target: "/",
            target: &target,
            host: Some(&host),
            version: HttpVersion::Http11,
            fields: &self.fields[0],
            upgrade: false,
            body: BodyLength::None,
            client: &self.clients[0],
        };
        look(&head)
    }

    fn ask(&self, head: &HeadView<'_>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        let client = &self.clients[number % self.clients.len()];
        let head = HeadView { client, fields: &self.fields[number % self.fields.len()], ..*head };
        let route = self.traffic.router.info(RouteId(0)).expect("there is one");
        black_box(self.traffic.limits.decide(&route.limits, black_box(&head), Instant::now()));
    }
}

fn fields(user: u8) -> http::HeaderMap {
    let value = |text: String| http::HeaderValue::try_from(text).expect("plain text");
    let mut fields = http::HeaderMap::new();
    fields.insert("x-user-id", value(format!("00000000-0000-4000-8000-0000000000{user:02x}")));
    fields.insert("cookie", value(format!("theme=dark; sid=6f1d2c3b4a5968778695a4b3c2d1e0{user:02x}")));
    fields
}

const LIMITS: &str = "\
listeners: [{ name: plain, address: '127.0.0.1:8080' }]
rate_limits:
  one: { rate: 1000000/s, burst: 100000, nodelay: true }
  two: { rate: 500000/s, burst: 100000, nodelay: true }
  three: { rate: 50000000/m, burst: 100000, nodelay: true }
";
