//! Time to take an endpoint from a pool and to give it back, by policy, number of endpoints and number of threads.
//!
//! Samples are long, so that a figure is that of picks one after the other: the pool's memory is in the second cache then, not
//! in the first one for a thousand endpoints. `lease` is what a request pays altogether: the clock, the pick, what a
//! lease counts when it begins and when it ends. `clock` is the first of it alone, `pick` the second and half of the third.

use std::{
    fmt::Write,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use divan::{Bencher, black_box};
use tidegate_config::{System, load_str, model::Address};
use tidegate_traffic::{
    Traffic,
    pool::{
        Acquired, Pool, Wanted,
        endpoint::WorkerKey,
        key::Key,
        lease::{Lease, Outcome},
    },
};

const POLICIES: [&str; 9] = [
    "round_robin",
    "least_conn",
    "random",
    "random_two",
    "ewma",
    "ip_hash",
    "{ hash: path }",
    "{ consistent: path }",
    "{ maglev: path }",
];

fn main() {
    divan::main();
}

#[divan::bench(sample_count = 100, sample_size = 10_000)]
fn clock() -> Instant {
    Instant::now()
}

/// One thread, no contention: what a request pays on a quiet shard.
#[divan::bench(args = POLICIES, consts = [2, 10, 1000], sample_count = 100, sample_size = 10_000)]
fn lease<const ENDPOINTS: u16>(bencher: Bencher<'_, '_>, policy: &str) {
    let bed = Bed::new(policy, ENDPOINTS);
    bencher.bench_local(|| bed.turn(Instant::now()));
}

/// The same at workers, whose leases note when they began.
#[divan::bench(consts = [2, 10], sample_count = 100, sample_size = 10_000)]
fn lease_of_worker<const ENDPOINTS: u16>(bencher: Bencher<'_, '_>) {
    let bed = Bed::with_workers(ENDPOINTS);
    bencher.bench_local(|| bed.turn(Instant::now()));
}

/// Without the clock, and without the leases' ends: they all end after the sample, which is short for their sake.
#[divan::bench(args = POLICIES, consts = [2, 10, 1000], sample_count = 1000, sample_size = 512)]
fn pick<const ENDPOINTS: u16>(bencher: Bencher<'_, '_>, policy: &str) {
    let bed = Bed::new(policy, ENDPOINTS);
    let now = Instant::now();
    bencher.bench_local(|| bed.take(now));
}

/// As `lease`, after other work has used up the second cache. A sample is one pick, so its figure includes what reading the
/// clock around it takes, which `clock` tells.
#[divan::bench(args = POLICIES, consts = [10, 1000], sample_count = 2000, sample_size = 1)]
fn cold<const ENDPOINTS: u16>(bencher: Bencher<'_, '_>, policy: &str) {
    let bed = Bed::new(policy, ENDPOINTS);
    let mut other = vec![0_u64; (2 << 20) / 8];
    let spoil = || other.iter_mut().step_by(8).for_each(|word| *word = black_box(*word + 1));
    bencher.with_inputs(spoil).bench_local_values(|()| bed.turn(Instant::now()));
}

/// All shards at once on the pool's one lock. Samples are long enough (about a millisecond) that the threads overlap.
#[divan::bench(threads = [1, 2, 4], sample_count = 100, sample_size = 20_000, args = POLICIES, consts = [10, 1000])]
fn contended<const ENDPOINTS: u16>(bencher: Bencher<'_, '_>, policy: &str) {
    let bed = Bed::new(policy, ENDPOINTS);
    bencher.bench(|| bed.turn(Instant::now()));
}

struct Bed {
    pool: Arc<Pool>,
    keys: Vec<Key>,
    number: AtomicU64,
}

impl Bed {
    fn new(policy: &str, endpoints: u16) -> Self {
        let key = |user: u32| match policy {
            "ip_hash" => Key::Address(Ipv4Addr::from(user.wrapping_mul(0x9e37_79b9)).into()),
            _ if policy.starts_with('{') => Key::Bytes(format!("user-{user}").into_bytes().into()),
            _ => Key::None,
        };
        Self { pool: pool(policy, endpoints), keys: (0..1024).map(key).collect(), number: AtomicU64::new(0) }
    }

    fn with_workers(count: u16) -> Self {
        let text = format!(
            "{BEFORE_UPSTREAMS}upstreams:\n  app:\n    balance: least_conn\n    workers: {{ command: [none, '{{socket}}'] }}\n"
        );
        let pool = pool_of(&text);
        for slot in 0..u32::from(count) {
            let socket = Address::Unix(format!("/run/{slot}.sock").into());
            let _ = pool.add_worker(WorkerKey { slot, spawn: u64::from(slot) + 1 }, slot + 1, socket);
        }
        Self { pool, keys: vec![Key::None], number: AtomicU64::new(0) }
    }

    fn turn(&self, now: Instant) {
        self.take(now).finish(Outcome::Ok, now);
    }

    fn take(&self, now: Instant) -> Lease {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let key = &self.keys[number as usize % self.keys.len()];
        let draw = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match self.pool.acquire(black_box(&Wanted { key, tried: &[], draw, now, tunnel: false })) {
            Acquired::Lease(lease) => lease,
            Acquired::Wait(_) | Acquired::Refuse(_) => panic!("every endpoint is ready"),
        }
    }
}

fn pool(policy: &str, endpoints: u16) -> Arc<Pool> {
    let mut text = format!("{BEFORE_UPSTREAMS}upstreams:\n  app:\n    balance: {policy}\n    servers:\n");
    for endpoint in 0..endpoints {
        let weight = 1 + endpoint % 3;
        let _ = writeln!(text, "      - {{ address: '127.0.0.1:{}', weight: {weight} }}", 9000 + endpoint);
    }
    pool_of(&text)
}

fn pool_of(text: &str) -> Arc<Pool> {
    let loaded = load_str("bench", text, &System::detect()).unwrap_or_else(|faults| panic!("{faults:?}"));
    let traffic = Traffic::build(&loaded.model, None, &tidegate_traffic::Identities::default());
    Arc::clone(traffic.pool_named("app").expect("the site file names it"))
}

const BEFORE_UPSTREAMS: &str = "\
listeners: [{ name: plain, address: '127.0.0.1:8080' }]
sites: [{ hosts: [bench.test], routes: [{ path: /, proxy: app }] }]
";
