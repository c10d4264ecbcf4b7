//! Time to take an endpoint from a pool and to give it back, by policy, number of endpoints and number of threads.

use std::{fmt::Write, sync::Arc};

use divan::{Bencher, black_box};
use tidegate_config::{System, load_str};
use tidegate_traffic::{
    Traffic,
    pool::{Acquired, Pool, lease::Outcome},
};

fn main() {
    divan::main();
}

/// One thread, no contention: what a request pays on a quiet shard.
#[divan::bench(args = [("round_robin", 2), ("round_robin", 100), ("least_conn", 2), ("least_conn", 100)])]
fn lease(bencher: Bencher<'_, '_>, (policy, endpoints): (&str, u16)) {
    let pool = pool(policy, endpoints);
    bencher.bench(|| take_and_return(&pool));
}

/// All shards at once on the pool's one lock. Samples are long enough (about a millisecond) that the threads overlap.
#[divan::bench(threads = [1, 2, 4], sample_count = 50, sample_size = 20_000, args = ["round_robin", "least_conn"])]
fn contended_lease(bencher: Bencher<'_, '_>, policy: &str) {
    let pool = pool(policy, 8);
    bencher.bench(|| take_and_return(&pool));
}

fn take_and_return(pool: &Arc<Pool>) {
    match pool.acquire(black_box(&[])) {
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
