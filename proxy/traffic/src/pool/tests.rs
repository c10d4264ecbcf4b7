//! Sequences of the balance, counts that never leak, drains that end once, queues that wake.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use proptest::prelude::*;
use tidegate_config::model::{Balance as Kind, StaticServer};

use super::lease::{ConnPermit, Outcome, TunnelLease};
use super::queue::Called;
use super::symptom::Symptom;
use super::*;
use crate::fixtures::{servers, tcp, upstream, worker_spec};
use crate::refusal::RefusalKind;

fn pool(balance: Kind, weights: &[u32]) -> Arc<Pool> {
    Pool::new(EndpointIds::default(), &servers_upstream(balance, weights))
}

fn servers_upstream(balance: Kind, weights: &[u32]) -> Upstream {
    let list: Vec<_> = (1..).zip(weights.iter().copied()).collect();
    Upstream { balance, ..upstream("app", servers(&list)) }
}

fn workers() -> Arc<Pool> {
    Pool::new(EndpointIds::default(), &upstream("app", EndpointSource::Workers(worker_spec())))
}

fn key(slot: u32) -> WorkerKey {
    WorkerKey { slot, spawn: 1 }
}

fn add(pool: &Pool, slot: u32) -> Arc<Endpoint> {
    pool.add_worker(key(slot), 100 + slot, tcp(8000 + u16::try_from(slot).unwrap()))
}

fn acquire(pool: &Arc<Pool>, tried: &[EndpointId]) -> Acquired {
    pool.acquire(&Wanted { key: &Key::None, tried, draw: 0, now: Instant::now(), tunnel: false })
}

fn lease(pool: &Arc<Pool>) -> Lease {
    match acquire(pool, &[]) {
        Acquired::Lease(lease) => lease,
        other => panic!("{other:?}"),
    }
}

fn ticket(pool: &Arc<Pool>) -> Ticket {
    match acquire(pool, &[]) {
        Acquired::Wait(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

/// Endpoints by letters in the order of the pool.
fn letter(pool: &Pool, endpoint: &Endpoint) -> char {
    let place = pool.endpoints().iter().position(|known| known.id() == endpoint.id()).unwrap();
    char::from(b'a' + u8::try_from(place).unwrap())
}

/// The choices of `count` requests, each ended before the next.
fn sequence(pool: &Arc<Pool>, count: usize) -> String {
    (0..count).map(|_| letter(pool, lease(pool).endpoint())).collect()
}

fn counter() -> (Arc<AtomicUsize>, impl Fn() -> OnIdle) {
    let count = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&count);
    (count, move || {
        let count = Arc::clone(&shared);
        Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        })
    })
}

#[derive(Default)]
struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn smooth_weighted_round_robin_gives_nginx_sequences() {
    let rows: [(&[u32], &str); 5] = [
        (&[5, 1, 1], "aabacaaaabacaa"),
        (&[1, 1, 1], "abcabc"),
        (&[3, 2], "ababaababa"),
        (&[4, 2, 1], "abacabaabacaba"),
        (&[1], "aaa"),
    ];
    for (weights, expected) in rows {
        assert_eq!(sequence(&pool(Kind::RoundRobin, weights), expected.len()), expected, "{weights:?}");
    }
}

#[test]
fn reconfiguring_keeps_endpoints_their_figures_and_their_place() {
    let pool = pool(Kind::RoundRobin, &[5, 1, 1]);
    assert_eq!(sequence(&pool, 3), "aab");
    let before = pool.endpoints();
    let held = lease(&pool);
    pool.reconfigure(&servers_upstream(Kind::RoundRobin, &[5, 1, 1]));
    assert!(before.iter().zip(pool.endpoints()).all(|(old, new)| Arc::ptr_eq(old, &new)));
    assert_eq!(held.endpoint().in_flight(), 1);
    assert_eq!(sequence(&pool, 3), "caa");

    pool.reconfigure(&servers_upstream(Kind::RoundRobin, &[1, 7]));
    let after = pool.endpoints();
    assert_eq!(after.iter().map(|endpoint| endpoint.weight()).collect::<Vec<_>>(), [1, 7]);
    assert!(Arc::ptr_eq(&after[0], &before[0]));
    assert_eq!((before[2].state(), before[0].state()), (EndpointState::Gone, EndpointState::Ready));
    pool.reconfigure(&servers_upstream(Kind::RoundRobin, &[1, 7, 1]));
    assert_ne!(pool.endpoints()[2].id(), before[2].id(), "a name is never given twice");
}

#[test]
fn least_conn_takes_the_least_loaded_for_its_weight() {
    let pool = pool(Kind::LeastConn, &[2, 1, 1]);
    let mut held = Vec::new();
    let mut chosen = String::new();
    for _ in 0..8 {
        let lease = lease(&pool);
        chosen.push(letter(&pool, lease.endpoint()));
        held.push(lease);
    }
    // Worked out by hand: ties go by turns, which come twice as often for a. Its first one is the earliest, and when all
    // three are equal again it has had two of them, as many as are its due.
    assert_eq!(chosen, "abcaabca");
    let loads: Vec<_> = pool.endpoints().iter().map(|endpoint| endpoint.in_flight()).collect();
    assert_eq!(loads, [4, 2, 2]);

    held.retain(|lease| letter(&pool, lease.endpoint()) != 'b');
    assert_eq!(sequence(&pool, 2), "bb", "the only one without load");
}

#[test]
fn least_conn_without_load_goes_in_weighted_turn() {
    assert_eq!(sequence(&pool(Kind::LeastConn, &[5, 1, 1]), 14), "aaabcaaaaabcaa");
}

#[test]
fn tried_endpoints_are_passed_over() {
    let pool = pool(Kind::RoundRobin, &[9, 1]);
    let ids: Vec<_> = pool.endpoints().iter().map(|endpoint| endpoint.id()).collect();
    let Acquired::Lease(second) = acquire(&pool, &ids[..1]) else { panic!("one is left") };
    assert_eq!(second.endpoint().id(), ids[1]);
    let Acquired::Refuse(refusal) = acquire(&pool, &ids) else { panic!("none is left") };
    assert_eq!(refusal.kind, RefusalKind::NoEndpoint);
    assert!(refusal.detail.contains("app"), "{refusal}");
}

fn changed(upstream: &Upstream, place: usize, change: impl FnOnce(&mut StaticServer)) -> Upstream {
    let mut upstream = upstream.clone();
    let EndpointSource::Servers(servers) = &mut upstream.source else { panic!("servers") };
    change(&mut servers[place]);
    upstream
}

#[test]
fn a_full_server_passes_its_requests_on() {
    for kind in [Kind::RoundRobin, Kind::LeastConn, Kind::Random, Kind::IpHash] {
        let limited = changed(&servers_upstream(kind, &[9, 1]), 0, |server| server.max_conns = Some(2));
        let pool = Pool::new(EndpointIds::default(), &limited);
        let held: Vec<_> = (0..6).map(|_| lease(&pool)).collect();
        assert_eq!(pool.endpoints()[0].in_flight(), 2);
        drop(held);
        let both = changed(&limited, 1, |server| server.max_conns = Some(1));
        pool.reconfigure(&both);
        let _held: Vec<_> = (0..3).map(|_| lease(&pool)).collect();
        assert!(matches!(acquire(&pool, &[]), Acquired::Wait(_)), "both are full");
    }
}

#[test]
fn a_server_that_is_down_gets_nothing_until_it_is_not() {
    let up = servers_upstream(Kind::RoundRobin, &[1, 1, 1]);
    let down = changed(&up, 1, |server| server.down = true);
    let pool = Pool::new(EndpointIds::default(), &down);
    assert_eq!(sequence(&pool, 4), "acac");
    pool.reconfigure(&up);
    assert!(sequence(&pool, 3).contains('b'));
}

#[test]
fn backups_serve_while_nobody_else_can() {
    let upstream = changed(&servers_upstream(Kind::RoundRobin, &[1, 1]), 1, |server| server.priority = 1);
    let pool = Pool::new(EndpointIds::default(), &upstream);
    assert_eq!(sequence(&pool, 3), "aaa");
    let first = pool.endpoints()[0].id();
    let Acquired::Lease(backup) = acquire(&pool, &[first]) else { panic!("there is a backup") };
    assert_ne!(backup.endpoint().id(), first);
    pool.reconfigure(&changed(&upstream, 0, |server| server.down = true));
    assert_eq!(sequence(&pool, 2), "bb");
}

#[test]
fn a_new_server_starts_slowly() {
    let mut upstream = servers_upstream(Kind::RoundRobin, &[1]);
    upstream.slow_start = std::time::Duration::from_secs(100);
    let pool = Pool::new(EndpointIds::default(), &upstream);
    upstream.source = servers(&[(1, 1), (2, 1)]);
    pool.reconfigure(&upstream);
    let start = Instant::now();
    // Requests of 110 that the new one gets, by the seconds since the first.
    let share = |seconds| {
        let now = start + std::time::Duration::from_secs(seconds);
        let picks = (0..110).filter(|_| {
            let Acquired::Lease(lease) =
                pool.acquire(&Wanted { key: &Key::None, tried: &[], draw: 0, now, tunnel: false })
            else {
                panic!("both are ready")
            };
            letter(&pool, lease.endpoint()) == 'b'
        });
        picks.count()
    };
    assert_eq!(share(0), 10, "a tenth of the other's");
    assert_eq!(share(45), 37, "a half of the other's");
    assert_eq!(share(100), 55, "as much as the other");
    assert_eq!(
        sequence(&Pool::new(EndpointIds::default(), &upstream), 4),
        "abab",
        "where all are new, nobody is spared"
    );
}

#[test]
fn an_empty_pool_waits_only_while_workers_are_expected() {
    let empty = Pool::new(EndpointIds::default(), &upstream("app", servers(&[])));
    assert!(matches!(acquire(&empty, &[]), Acquired::Refuse(_)));
    let pool = workers();
    drop(ticket(&pool));
    pool.set_expecting(Expectation::Nothing);
    assert!(matches!(acquire(&pool, &[]), Acquired::Refuse(_)));
    let only = add(&pool, 0);
    pool.set_expecting(Expectation::Workers);
    assert!(matches!(acquire(&pool, &[only.id()]), Acquired::Refuse(_)), "one is ready, but it was tried");
    pool.drain_worker(key(0), Box::new(|| {}));
    assert!(matches!(acquire(&pool, &[only.id()]), Acquired::Wait(_)), "none is ready, one is expected");
}

#[test]
fn a_waiting_request_is_woken_when_a_worker_is_ready() {
    let pool = workers();
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(Arc::clone(&alarm));
    let (first, second, never_polled) = (ticket(&pool), ticket(&pool), ticket(&pool));
    for (ticket, waker) in [(&first, Waker::noop()), (&first, &waker), (&second, Waker::noop())] {
        assert!(ticket.poll(waker).is_none());
    }
    assert_eq!(pool.status().queue.waiting, 3);
    drop(second);
    assert_eq!(pool.status().queue.waiting, 2);
    add(&pool, 0);
    assert!(alarm.0.load(Ordering::SeqCst));
    let called = [first.poll(&waker), never_polled.poll(&waker)];
    assert!(called.iter().all(|called| matches!(called, Some(Called::Lease(_)))), "{called:?}");
    drop(called);
    assert_eq!(pool.status().queue.waiting, 0);
    drop(first);
    assert_eq!(lease(&pool).endpoint().status().requests, 3);
}

#[test]
fn waiting_requests_are_woken_when_hope_ends() {
    let pool = workers();
    let waiting = ticket(&pool);
    pool.set_expecting(Expectation::Workers);
    assert!(waiting.poll(Waker::noop()).is_none());
    pool.set_expecting(Expectation::Nothing);
    assert!(matches!(waiting.poll(Waker::noop()), Some(Called::Refuse(_))));
    assert!(matches!(acquire(&pool, &[]), Acquired::Refuse(_)));
}

#[test]
fn a_drain_waits_for_exchanges_but_not_for_tunnels() {
    let pool = workers();
    let endpoint = add(&pool, 0);
    let (count, on_idle) = counter();
    let (one, two) = (lease(&pool), lease(&pool));
    pool.drain_worker(key(0), on_idle());
    assert!(matches!(acquire(&pool, &[]), Acquired::Wait(_)), "a draining endpoint gets nothing new");
    one.finish(Outcome::Ok, Instant::now());
    assert_eq!(count.load(Ordering::SeqCst), 0);
    let tunnel = two.into_tunnel(Instant::now());
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!((endpoint.status().tunnels, endpoint.in_flight()), (1, 0));
    drop(tunnel);
    pool.remove_worker(key(0));
    assert_eq!(endpoint.status().tunnels, 0);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(endpoint.state(), EndpointState::Gone);
}

#[test]
fn an_idle_or_unknown_worker_is_drained_at_once() {
    let pool = workers();
    add(&pool, 0);
    let (count, on_idle) = counter();
    pool.drain_worker(key(0), on_idle());
    pool.drain_worker(key(0), on_idle());
    pool.drain_worker(key(7), on_idle());
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[test]
fn a_removed_worker_still_ends_its_drain() {
    let pool = workers();
    add(&pool, 0);
    let (count, on_idle) = counter();
    let held = lease(&pool);
    pool.drain_worker(key(0), on_idle());
    pool.remove_worker(key(0));
    pool.remove_worker(key(0));
    assert!(pool.endpoints().is_empty());
    assert_eq!(count.load(Ordering::SeqCst), 0);
    drop(held);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_callback_may_use_the_pool() {
    let pool = workers();
    add(&pool, 0);
    let inner = Arc::clone(&pool);
    pool.drain_worker(key(0), Box::new(move || inner.remove_worker(key(0))));
    assert!(pool.endpoints().is_empty());
}

#[test]
fn workers_survive_a_reload_and_known_ones_are_not_added_twice() {
    let pool = workers();
    let first = add(&pool, 0);
    assert!(Arc::ptr_eq(&first, &add(&pool, 0)));
    let again = pool.add_worker(WorkerKey { slot: 0, spawn: 2 }, 7, tcp(1));
    let mut changed = upstream("app", EndpointSource::Workers(worker_spec()));
    changed.balance = Kind::LeastConn;
    pool.reconfigure(&changed);
    let ids: Vec<_> = pool.endpoints().iter().map(|endpoint| endpoint.id()).collect();
    assert_eq!(ids, [first.id(), again.id()]);
    assert_eq!(pool.status().balance, Kind::LeastConn);
}

/// Otherwise the one who stops the workers would be told at once that they are idle, and cut their requests off.
#[test]
fn workers_that_servers_replace_still_finish_their_exchanges() {
    let pool = workers();
    let worker = add(&pool, 0);
    let held = lease(&pool);
    pool.reconfigure(&upstream("app", servers(&[(9, 1)])));
    assert_eq!(worker.state(), EndpointState::Draining);
    assert_eq!(lease(&pool).endpoint().origin(), Origin::Static);
    let (count, on_idle) = counter();
    pool.drain_worker(key(0), on_idle());
    assert_eq!(count.load(Ordering::SeqCst), 0);
    held.finish(Outcome::Ok, Instant::now());
    assert_eq!(count.load(Ordering::SeqCst), 1);
    pool.remove_worker(key(0));
    assert_eq!(pool.endpoints().len(), 1);

    pool.reconfigure(&upstream("app", EndpointSource::Workers(worker_spec())));
    drop(ticket(&pool));
}

#[test]
fn outcomes_are_counted() {
    let pool = pool(Kind::RoundRobin, &[1]);
    for outcome in [Outcome::Ok, Outcome::UpstreamFault(Symptom::Closed), Outcome::ClientGone, Outcome::Cancelled] {
        let lease = lease(&pool);
        pool.end(lease, outcome, Instant::now());
    }
    drop(lease(&pool));
    let status = pool.endpoints()[0].status();
    assert_eq!((status.requests, status.failures, status.abandoned, status.in_flight), (5, 1, 2, 0));
}

#[test]
fn permits_never_exceed_their_limit() {
    let pool = pool(Kind::RoundRobin, &[1]);
    let endpoint = &pool.endpoints()[0];
    let (open, most) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    if let Some(permit) = ConnPermit::try_new(endpoint, 2) {
                        most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        open.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                }
            });
        }
    });
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    assert_eq!(endpoint.status().connections, 0);
    assert!(ConnPermit::try_new(endpoint, 0).is_none());
}

/// Threads take, end, tunnel and drop leases while workers come, drain and go.
#[test]
fn nothing_leaks_under_concurrency() {
    let pool = workers();
    let (count, on_idle) = counter();
    let spawned = 200;
    let done = AtomicBool::new(false);
    let all = Mutex::new(vec![add(&pool, 0)]);
    std::thread::scope(|scope| {
        for thread in 0..3_usize {
            let (pool, done) = (&pool, &done);
            scope.spawn(move || {
                let mut step = thread;
                while !done.load(Ordering::SeqCst) {
                    step += 1;
                    match acquire(pool, &[]) {
                        Acquired::Lease(lease) if step % 3 == 0 => drop(lease.into_tunnel(Instant::now())),
                        Acquired::Lease(lease) if step % 3 == 1 => lease.finish(Outcome::Ok, Instant::now()),
                        Acquired::Lease(lease) => drop(lease),
                        Acquired::Wait(ticket) => drop(ticket),
                        Acquired::Refuse(refusal) => panic!("{refusal}"),
                    }
                }
            });
        }
        for slot in 1..=spawned {
            all.lock().unwrap().push(add(&pool, slot));
            pool.drain_worker(key(slot - 1), on_idle());
            if slot % 2 == 0 {
                pool.remove_worker(key(slot - 1));
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(count.load(Ordering::SeqCst), spawned as usize);
    for endpoint in all.into_inner().unwrap() {
        let status = endpoint.status();
        assert_eq!((status.in_flight, status.tunnels), (0, 0), "{status:?}");
    }
    assert_eq!(pool.status().queue.waiting, 0);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Add(u32),
    Drain(u32),
    Remove(u32),
    Acquire,
    Finish(usize),
    Drop(usize),
    Tunnel(usize),
    EndTunnel,
    Leave,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0..4_u32).prop_map(Step::Add),
        1 => (0..4_u32).prop_map(Step::Drain),
        1 => (0..4_u32).prop_map(Step::Remove),
        4 => Just(Step::Acquire),
        1 => (0..8_usize).prop_map(Step::Finish),
        1 => (0..8_usize).prop_map(Step::Drop),
        1 => (0..8_usize).prop_map(Step::Tunnel),
        1 => Just(Step::EndTunnel),
        1 => Just(Step::Leave),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn counts_return_to_zero_and_drains_end_once(steps in steps()) {
        let pool = workers();
        let mut seen: Vec<Arc<Endpoint>> = Vec::new();
        let mut drains: Vec<Arc<AtomicUsize>> = Vec::new();
        let mut leases: Vec<Lease> = Vec::new();
        let mut tunnels: Vec<TunnelLease> = Vec::new();
        let mut tickets: Vec<Ticket> = Vec::new();
        for step in steps {
            match step {
                Step::Add(slot) => seen.push(add(&pool, slot)),
                Step::Drain(slot) => {
                    let (count, on_idle) = counter();
                    let busy = leases.iter().any(|lease| matches!(lease.endpoint().origin(), Origin::Worker { key: known, .. } if known == key(slot))
                        && pool.endpoints().iter().any(|known| known.id() == lease.endpoint().id()));
                    pool.drain_worker(key(slot), on_idle());
                    prop_assert_eq!(count.load(Ordering::SeqCst), usize::from(!busy));
                    drains.push(count);
                }
                Step::Remove(slot) => pool.remove_worker(key(slot)),
                Step::Acquire => match acquire(&pool, &[]) {
                    Acquired::Lease(lease) => {
                        prop_assert_eq!(lease.endpoint().state(), EndpointState::Ready);
                        leases.push(lease);
                    }
                    Acquired::Wait(ticket) => tickets.push(ticket),
                    Acquired::Refuse(refusal) => prop_assert!(false, "{}", refusal),
                },
                Step::Finish(place) if place < leases.len() => leases.swap_remove(place).finish(Outcome::Ok, Instant::now()),
                Step::Drop(place) if place < leases.len() => drop(leases.swap_remove(place)),
                Step::Tunnel(place) if place < leases.len() => tunnels.push(leases.swap_remove(place).into_tunnel(Instant::now())),
                Step::EndTunnel => drop(tunnels.pop()),
                Step::Leave => drop(tickets.pop()),
                Step::Finish(_) | Step::Drop(_) | Step::Tunnel(_) => {}
            }
            tickets.retain(|ticket| match ticket.poll(Waker::noop()) {
                Some(Called::Lease(lease)) => {
                    leases.push(lease);
                    false
                }
                Some(Called::Refuse(_)) => false,
                None => true,
            });
            let held = seen.iter().map(|endpoint| (endpoint.id(), endpoint.in_flight() as usize)).collect::<std::collections::BTreeMap<_, _>>();
            prop_assert_eq!(held.values().sum::<usize>(), leases.len());
            prop_assert!(drains.iter().all(|count| count.load(Ordering::SeqCst) <= 1));
        }
        drop((leases, tunnels, tickets));
        prop_assert!(drains.iter().all(|count| count.load(Ordering::SeqCst) == 1));
        for endpoint in seen {
            let status = endpoint.status();
            prop_assert_eq!((status.in_flight, status.tunnels), (0, 0));
        }
        prop_assert_eq!(pool.status().queue.waiting, 0);
    }

    #[test]
    fn weights_are_kept_over_a_round(weights in proptest::collection::vec(1..20_u32, 1..6), least in any::<bool>()) {
        let kind = if least { Kind::LeastConn } else { Kind::RoundRobin };
        let total: u32 = weights.iter().sum();
        let chosen = sequence(&pool(kind, &weights), total as usize);
        for (letter, weight) in ('a'..).zip(weights) {
            prop_assert_eq!(chosen.matches(letter).count(), weight as usize);
        }
    }
}
