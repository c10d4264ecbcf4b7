//! Time to take an endpoint from a pool and to give it back, by policy, number of endpoints and number of threads.

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
use tidegate_config::{System, load_str};
use tidegate_traffic::{
    Traffic,
    pool::{Acquired, Pool, Wanted, key::Key, lease::Outcome},
};

const POLICIES: [&str; 5] = ["round_robin", "least_conn", "random", "random_two", "ewma"];
const KEYED: [&str; 4] = ["ip_hash", "{ hash: path }", "{ consistent: path }", "{ maglev: path }"];

fn main() {
    divan::main();
}

/// One thread, no contention: what a request pays on a quiet shard.
#[divan::bench(args = POLICIES, consts = [2, 10, 1000], max_time = 1)]
fn lease<const ENDPOINTS: u16>(bencher: Bencher<'_, '_>, policy: &str) {
    let pool = pool(policy, ENDPOINTS);
    let number = AtomicU64::new(0);
    bencher.bench(|| take_and_return(&pool, &Key::None, &number));
}

/// The same for policies that go by a key.
#[divan::bench(args = KEYED, consts = [2, 10, 1000], max_time = 1)]
fn lease_by_key<const ENDPOINTS: u16>(bencher: Bencher<'_, '_>, policy: &str) {
    let pool = pool(policy, ENDPOINTS);
    let number = AtomicU64::new(0);
    let keys: Vec<Key> = (0..1024_u32)
        .map(|user| match policy {
            "ip_hash" => Key::Address(Ipv4Addr::from(user.wrapping_mul(0x9e37_79b9)).into()),
            _ => Key::Bytes(format!("user-{user}").into_bytes().into()),
        })
        .collect();
    bencher.bench(|| {
        let key = &keys[number.load(Ordering::Relaxed) as usize % keys.len()];
        take_and_return(&pool, key, &number);
    });
}

/// All shards at once on the pool's one lock. Samples are long enough (about a millisecond) that the threads overlap.
#[divan::bench(threads = [1, 2, 4], sample_count = 50, sample_size = 20_000, args = POLICIES)]
fn contended_lease(bencher: Bencher<'_, '_>, policy: &str) {
    let pool = pool(policy, 8);
    let number = AtomicU64::new(0);
    bencher.bench(|| take_and_return(&pool, &Key::None, &number));
}

/// The clock is read here too, as the driver does for each request.
fn take_and_return(pool: &Arc<Pool>, key: &Key, number: &AtomicU64) {
    let draw = number.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match pool.acquire(black_box(&Wanted { key, tried: &[], draw, now: Instant::now() })) {
        Acquired::Lease(lease) => lease.finish(Outcome::Ok),
        Acquired::Wait(_) | Acquired::Refuse(_) => panic!("every endpoint is ready"),
    }
}

fn pool(policy: &str, endpoints: u16) -> Arc<Pool> {
    let mut text = format!("{BEFORE_UPSTREAMS}upstreams:\n  app:\n    balance: {policy}\n    servers:\n");
    for endpoint in 0..endpoints {
        let weight = 1 + endpoint % 3;
        let _ = writeln!(text, "      - {{ address: '127.0.0.1:{}', weight: {weight} }}", 9000 + endpoint);
    }
    let loaded = load_str("bench", &text, &System::detect()).unwrap_or_else(|faults| panic!("{faults:?}"));
    let traffic = Traffic::build(&loaded.model, None, &tidegate_traffic::Identities::default());
    Arc::clone(traffic.pool_named("app").expect("the site file names it"))
}

const BEFORE_UPSTREAMS: &str = "\
listeners: [{ name: plain, address: '127.0.0.1:8080' }]
sites: [{ hosts: [bench.test], routes: [{ path: /, proxy: app }] }]
";
