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
/// would be in use by then, so clients that take turns are few enough to be at hand.
#[divan::bench(args = [
    "{ rate: 1000/s, burst: 100, nodelay: true }",
    "{ rate: 1000/s, burst: 100, nodelay: true, key: header:x-user-id }",
    "{ rate: 1/h }",
    "{ rate: 1000/s, burst: 100, nodelay: true, headers: standard }",
    "[one, two, { limit: three, cost: 5 }]",
], consts = [1_000, 100_000], sample_count = 100, sample_size = 10_000)]
fn check<const CLIENTS: u32>(bencher: Bencher<'_, '_>, limit: &str) {
    let bed = Bed::new(limit, CLIENTS);
    bed.with_head(|head| bencher.bench_local(|| bed.ask(head)));
}

/// All shards at once on one limit. Samples are long enough (about a millisecond) that the threads overlap.
#[divan::bench(threads = [1, 2, 4], sample_count = 50, sample_size = 10_000)]
fn contended(bencher: Bencher<'_, '_>) {
    let bed = Bed::new("{ rate: 1000/s, burst: 100, nodelay: true }", 1_000);
    bencher.bench(|| bed.with_head(|head| bed.ask(head)));
}

struct Bed {
    traffic: Traffic,
    clients: Vec<Client>,
    fields: http::HeaderMap,
    next: AtomicU32,
}

impl Bed {
    fn new(limit: &str, clients: u32) -> Self {
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
        let bed = Self {
            traffic: Traffic::build(&loaded.model, None, &Identities::default()),
            clients: (0..clients).map(|number| Client::new(address(number), 1, ListenerId(0), None)).collect(),
            fields,
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
            fields: &self.fields,
            upgrade: false,
            body: BodyLength::None,
            client: &self.clients[0],
        };
        look(&head)
    }

    fn ask(&self, head: &HeadView<'_>) {
        let client = &self.clients[self.next.fetch_add(1, Ordering::Relaxed) as usize % self.clients.len()];
        let head = HeadView { client, ..*head };
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
