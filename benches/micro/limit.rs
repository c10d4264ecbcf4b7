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

/// Clients that take turns; their levels fit into no first-level cache.
const CLIENTS: u32 = 100_000;

fn main() {
    divan::main();
}

/// One thread, no contention. The clock is read here too, as the driver does for each request.
#[divan::bench(args = [
    "{ rate: 1000/s, burst: 100, nodelay: true }",
    "{ rate: 1000/s, burst: 100, nodelay: true, key: header:x-user-id }",
    "{ rate: 1/h }",
    "{ rate: 1000/s, burst: 100, nodelay: true, headers: standard }",
    "[one, two, { limit: three, cost: 5 }]",
], max_time = 1)]
fn check(bencher: Bencher<'_, '_>, limit: &str) {
    let bed = Bed::new(limit);
    bencher.bench(|| bed.ask());
}

/// All shards at once on one limit. Samples are long enough (about a millisecond) that the threads overlap.
#[divan::bench(threads = [1, 2, 4], sample_count = 50, sample_size = 10_000)]
fn contended(bencher: Bencher<'_, '_>) {
    let bed = Bed::new("{ rate: 1000/s, burst: 100, nodelay: true }");
    bencher.bench(|| bed.ask());
}

struct Bed {
    traffic: Traffic,
    clients: Vec<Client>,
    fields: http::HeaderMap,
    next: AtomicU32,
}

impl Bed {
    fn new(limit: &str) -> Self {
        let text = format!(
            "{LIMITS}sites: [{{ hosts: [bench.test], routes: [{{ path: /, respond: {{}}, rate_limit: {limit} }}] }}]\n"
        );
        let loaded = load_str("bench", &text, &System::detect()).unwrap_or_else(|faults| panic!("{faults:?}"));
        let mut fields = http::HeaderMap::new();
        fields.insert("x-user-id", http::HeaderValue::from_static("00000000-0000-4000-8000-000000000001"));
        let address = |number: u32| match number % 2 {
            0 => IpAddr::V4(Ipv4Addr::from(number.wrapping_mul(0x9e37_79b9))),
            _ => IpAddr::V6(Ipv6Addr::from(u128::from(number.wrapping_mul(0x9e37_79b9)) << 64)),
        };
        Self {
            traffic: Traffic::build(&loaded.model, None, &Identities::default()),
            clients: (0..CLIENTS).map(|number| Client::new(address(number), 1, ListenerId(0), None)).collect(),
            fields,
            next: AtomicU32::new(0),
        }
    }

    fn ask(&self) {
        let client = &self.clients[self.next.fetch_add(1, Ordering::Relaxed) as usize % self.clients.len()];
        let target = Target::parse("/").expect("a path");
        let host = Host::parse(b"bench.test").expect("a host");
        let head = HeadView {
            method: "GET",
            raw_target: "/",
            target: &target,
            host: Some(&host),
            version: HttpVersion::Http11,
            fields: &self.fields,
            upgrade: false,
            body: BodyLength::None,
            client,
        };
        let route = self.traffic.router.info(RouteId(0)).expect("there is one");
        black_box(self.traffic.limits.decide(&route.limits, black_box(&head), Instant::now()));
    }
}

const LIMITS: &str = "\
listeners: [{ name: plain, address: '127.0.0.1:8080' }]
rate_limits:
  one: { rate: 1000/s, burst: 100, nodelay: true }
  two: { rate: 100/s, burst: 100, nodelay: true }
  three: { rate: 10000/h, burst: 100, nodelay: true }
";
