//! Which addresses a pool has when names come, change and go.

use proptest::prelude::*;
use std::sync::Arc;
use tidegate_config::model::{Balance, EndpointSource, Upstream};

use super::*;
use crate::fixtures::{tcp, upstream, worker_spec};
use crate::pool::endpoint::Endpoint;
use crate::pool::endpoint::EndpointState;
use crate::pool::key::Key;
use crate::pool::lease::Lease;
use crate::pool::{Acquired, EndpointIds, Pool, Wanted};

fn host(name: &str) -> ServerAddress {
    ServerAddress::Host { name: name.to_owned(), port: 80 }
}

fn server(address: impl Into<ServerAddress>) -> StaticServer {
    StaticServer {
        address: address.into(),
        weight: 1,
        priority: 0,
        max_conns: None,
        down: false,
        max_fails: None,
        fail_timeout: None,
    }
}

fn of(servers: Vec<StaticServer>) -> Upstream {
    upstream("app", EndpointSource::Servers(servers))
}

fn found(host: &str, last: &[u8]) -> Vec<Resolved> {
    let one = |last: &u8| Resolved { address: ([10, 0, 0, *last], 80).into(), host: host.into(), share: None };
    last.iter().map(one).collect()
}

fn acquire(pool: &Arc<Pool>) -> Acquired {
    pool.acquire(&Wanted { key: &Key::None, tried: &[], draw: 0, now: std::time::Instant::now(), tunnel: false })
}

fn lease(pool: &Arc<Pool>) -> Lease {
    match acquire(pool) {
        Acquired::Lease(lease) => lease,
        other => panic!("{other:?}"),
    }
}

fn addresses(pool: &Pool) -> Vec<String> {
    pool.endpoints().iter().map(|endpoint| endpoint.address().to_string()).collect()
}

fn by_address(pool: &Pool, address: &str) -> Arc<Endpoint> {
    let mut endpoints = pool.endpoints().into_iter();
    endpoints.find(|endpoint| endpoint.address().to_string() == address).expect("it is there")
}

#[test]
fn a_request_waits_for_the_first_answer_and_not_for_a_second() {
    let pool = Pool::new(EndpointIds::default(), &of(vec![server(host("a")), server(host("b"))]));
    let Acquired::Wait(ticket) = acquire(&pool) else { panic!("names are expected") };
    let waker = std::task::Waker::noop();
    assert!(ticket.poll(waker).is_none());
    pool.resolve(&host("a"), Vec::new());
    assert!(ticket.poll(waker).is_none(), "the other one may still come");
    pool.resolve(&host("b"), Vec::new());
    assert!(ticket.poll(waker).is_some(), "nothing is expected any more");
    let Acquired::Refuse(_) = acquire(&pool) else { panic!("there is nobody to wait for") };
    pool.resolve(&host("a"), found("a", &[1]));
    assert_eq!(lease(&pool).endpoint().host().map(AsRef::as_ref), Some("a"));
}

#[test]
fn who_stays_keeps_what_is_known_and_who_leaves_finishes() {
    let pool = Pool::new(EndpointIds::default(), &of(vec![server(host("a"))]));
    assert_eq!(pool.resolve(&host("a"), found("a", &[1, 2])), []);
    let (first, second) = (lease(&pool), lease(&pool));
    let (stays, leaves) = (Arc::clone(first.endpoint()), Arc::clone(second.endpoint()));
    let kept = match &stays.address() {
        Address::Tcp(address) if address.ip().to_string().ends_with('1') => 1,
        _ => 2,
    };
    let gone = pool.resolve(&host("a"), found("a", &[9, kept]));
    assert_eq!(gone, [leaves.id()]);
    assert_eq!((stays.state(), leaves.state()), (EndpointState::Ready, EndpointState::Gone));
    assert_eq!(by_address(&pool, &stays.address().to_string()).id(), stays.id());
    assert_eq!((stays.in_flight(), leaves.in_flight()), (1, 1));
    drop((first, second));
    assert_eq!((stays.in_flight(), leaves.in_flight()), (0, 0));
    assert_eq!(stays.status().requests, 1);
}

#[test]
fn a_reload_keeps_what_names_resolve_to() {
    let both = vec![server(host("a")), server(host("b")), server(tcp(7))];
    let pool = Pool::new(EndpointIds::default(), &of(both));
    pool.resolve(&host("a"), found("a", &[1]));
    pool.resolve(&host("b"), found("b", &[2]));
    let id = by_address(&pool, "10.0.0.1:80").id();
    let heavy = StaticServer { weight: 5, max_conns: Some(3), ..server(host("a")) };
    pool.reconfigure(&of(vec![heavy, server(tcp(7))]));
    assert_eq!(addresses(&pool), ["10.0.0.1:80", &tcp(7).to_string()]);
    let endpoint = by_address(&pool, "10.0.0.1:80");
    assert_eq!((endpoint.id(), endpoint.weight(), endpoint.max_conns()), (id, 5, Some(3)));
    // Told of before the file has it.
    pool.resolve(&host("c"), found("c", &[3]));
    assert_eq!(addresses(&pool).len(), 2);
    pool.reconfigure(&of(vec![server(host("c"))]));
    assert_eq!(addresses(&pool), ["10.0.0.3:80"]);
    // What was forgotten is expected anew.
    pool.reconfigure(&of(vec![server(host("b"))]));
    assert!(matches!(acquire(&pool), Acquired::Wait(_)));
}

#[test]
fn two_names_of_one_address_are_one_endpoint_with_the_settings_of_the_first() {
    let first = StaticServer { weight: 2, ..server(host("a")) };
    let second = StaticServer { weight: 9, ..server(host("b")) };
    let pool = Pool::new(EndpointIds::default(), &of(vec![first, second]));
    pool.resolve(&host("b"), found("b", &[1]));
    let by_second = pool.endpoints()[0].id();
    pool.resolve(&host("a"), found("a", &[1, 2]));
    assert_eq!(addresses(&pool), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(pool.endpoints()[0].weight(), 2);
    // Connections that were verified as one host are not those of another.
    assert_ne!(pool.endpoints()[0].id(), by_second);
    pool.resolve(&host("a"), found("a", &[2]));
    assert_eq!(addresses(&pool), ["10.0.0.2:80", "10.0.0.1:80"]);
    assert_eq!(pool.endpoints()[1].weight(), 9);
}

#[test]
fn records_say_weight_and_tier() {
    let service = ServerAddress::Service { name: "_http._tcp.a".to_owned() };
    let entry = StaticServer { priority: 3, ..server(service.clone()) };
    let pool = Pool::new(EndpointIds::default(), &of(vec![entry]));
    let mut records = found("x", &[1, 2, 3]);
    for (record, (weight, tier)) in records.iter_mut().zip([(30, 0), (10, 0), (0, 1)]) {
        record.share = Some(Share { weight, tier });
    }
    pool.resolve(&service, records);
    let told: Vec<_> = pool.endpoints().iter().map(|endpoint| (endpoint.weight(), endpoint.priority())).collect();
    assert_eq!(told, [(30, 3), (10, 3), (1, 4)]);
    let picks: Vec<String> = (0..40).map(|_| lease(&pool).endpoint().address().to_string()).collect();
    let count = |address: &str| picks.iter().filter(|pick| *pick == address).count();
    assert_eq!([count("10.0.0.1:80"), count("10.0.0.2:80"), count("10.0.0.3:80")], [30, 10, 0]);
}

#[test]
fn a_name_is_of_no_use_to_workers() {
    let pool = Pool::new(EndpointIds::default(), &of(vec![server(host("a"))]));
    pool.resolve(&host("a"), found("a", &[1]));
    pool.reconfigure(&upstream("app", EndpointSource::Workers(worker_spec())));
    assert_eq!(addresses(&pool), Vec::<String>::new());
    pool.resolve(&host("a"), found("a", &[1]));
    assert_eq!(addresses(&pool), Vec::<String>::new());
}

#[test]
fn whoever_comes_later_starts_slowly_and_the_first_do_not() {
    let slow = Upstream {
        balance: Balance::RoundRobin,
        slow_start: std::time::Duration::from_secs(1_000),
        ..of(vec![server(host("a"))])
    };
    let pool = Pool::new(EndpointIds::default(), &slow);
    pool.resolve(&host("a"), found("a", &[1]));
    pool.resolve(&host("a"), found("a", &[1, 2]));
    let picks = (0..110).filter(|_| lease(&pool).endpoint().address().to_string() == "10.0.0.2:80").count();
    assert_eq!(picks, 10);
}

proptest! {
    /// Whatever names are told of in whichever order: the pool has the union of the last words, each address once, and an
    /// endpoint that was in the one before and is in the next is the same.
    #[test]
    fn a_pool_has_what_was_told_last(
        steps in prop::collection::vec((0_usize..3, prop::collection::btree_set(1_u8..9, 0..5)), 1..30),
    ) {
        let names = ["a", "b", "c"];
        let servers = names.iter().map(|name| server(host(name))).collect();
        let pool = Pool::new(EndpointIds::default(), &of(servers));
        let mut told: [Vec<u8>; 3] = Default::default();
        for (place, set) in steps {
            let before: Vec<_> = pool.endpoints();
            told[place] = set.into_iter().collect();
            let gone = pool.resolve(&host(names[place]), found(names[place], &told[place]));
            let mut expected: Vec<(u8, &str)> = Vec::new();
            for (list, name) in told.iter().zip(names) {
                for last in list {
                    if !expected.iter().any(|(known, _)| known == last) {
                        expected.push((*last, name));
                    }
                }
            }
            let after = pool.endpoints();
            let seen: Vec<(u8, String)> = after.iter().map(|endpoint| {
                let Address::Tcp(SocketAddr::V4(address)) = endpoint.address() else { panic!("IPv4") };
                (address.ip().octets()[3], endpoint.host().unwrap().to_string())
            }).collect();
            let expected: Vec<_> = expected.into_iter().map(|(last, name)| (last, name.to_owned())).collect();
            prop_assert_eq!(seen, expected);
            for endpoint in &before {
                let same = |other: &&Arc<Endpoint>| other.address() == endpoint.address() && other.host() == endpoint.host();
                match after.iter().find(same) {
                    Some(kept) => prop_assert_eq!(kept.id(), endpoint.id()),
                    None => prop_assert!(gone.contains(&endpoint.id())),
                }
            }
            prop_assert!(gone.iter().all(|id| !after.iter().any(|endpoint| endpoint.id() == *id)));
        }
    }
}
