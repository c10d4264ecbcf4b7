//! Policies by themselves: exact sequences and oracles where a policy is deterministic, shares where chance decides.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidegate_config::model::{self, Address, EndpointSource, ServerAddress, StaticServer, Upstream, Variable};

use super::round_robin::{Plain, RoundRobin, members};
use super::{Balance, Choice, Member, Policy, Ring};
use crate::fixtures::{tcp, upstream};
use crate::mix::mix;
use crate::pool::endpoint::{Endpoint, EndpointId, Origin};
use crate::pool::key::Key;
use crate::pool::lineage::Lineage;
use crate::pool::servers::{Resolved, Share};
use crate::pool::{EndpointIds, Pool};

/// Endpoints on ports from 1 on.
pub(super) fn endpoints(weights: &[u32], lineage: &Arc<Lineage>) -> Vec<Arc<Endpoint>> {
    let ports = 1..;
    ports.zip(weights).map(|(port, weight)| endpoint(tcp(port), *weight, u64::from(port), lineage)).collect()
}

fn endpoint(address: Address, weight: u32, id: u64, lineage: &Arc<Lineage>) -> Arc<Endpoint> {
    let endpoint = Endpoint::new(EndpointId(id), address.clone(), None, Origin::Static, Arc::clone(lineage));
    endpoint.configure(
        &StaticServer {
            address: address.into(),
            weight,
            priority: 0,
            max_conns: None,
            down: false,
            max_fails: None,
            fail_timeout: None,
        },
        None,
    );
    Arc::new(endpoint)
}

/// A balance over some endpoints, and how a test asks it.
struct Table {
    balance: Balance,
    endpoints: Vec<Arc<Endpoint>>,
    lineage: Arc<Lineage>,
    now: Instant,
    draws: u64,
}

impl Table {
    fn new(kind: model::Balance, weights: &[u32]) -> Self {
        let lineage = Arc::default();
        let endpoints = endpoints(weights, &lineage);
        Self::of(kind, endpoints, lineage)
    }

    fn of(kind: model::Balance, endpoints: Vec<Arc<Endpoint>>, lineage: Arc<Lineage>) -> Self {
        let mut balance = Balance::new(kind);
        balance.align(members(&endpoints), &lineage.marks);
        Self { balance, endpoints, lineage, now: Instant::now(), draws: 0 }
    }

    fn align(&mut self, endpoints: &[Arc<Endpoint>]) {
        self.balance.align(members(endpoints), &self.lineage.marks);
    }

    fn pick(&mut self, key: &Key, candidate: impl Fn(&Endpoint) -> bool) -> Option<Arc<Endpoint>> {
        self.draws += 1;
        let choice = Choice { key, draw: mix(self.draws), now: self.now, all: false };
        self.balance.pick(&choice, &self.lineage.marks, candidate)
    }

    /// The letter of the choice: a for the first endpoint.
    fn letter(&mut self, key: &Key) -> char {
        let chosen = self.pick(key, |_| true).unwrap();
        let place = self.endpoints.iter().position(|known| known.id() == chosen.id()).unwrap();
        (b'a' + place as u8) as char
    }

    fn counts(&mut self, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; self.endpoints.len()];
        for _ in 0..picks {
            let chosen = self.pick(&Key::None, |_| true).unwrap();
            counts[chosen.id().0 as usize - 1] += 1;
        }
        counts
    }
}

fn key(number: usize) -> Key {
    Key::Bytes(format!("user-{number}").into_bytes().into())
}

/// Chi-square of counts against shares by weight.
fn chi_square(counts: &[usize], weights: &[u32]) -> f64 {
    let (picks, total) = (counts.iter().sum::<usize>() as f64, f64::from(weights.iter().sum::<u32>()));
    let expected = weights.iter().map(|weight| picks * f64::from(*weight) / total);
    counts.iter().zip(expected).map(|(count, expected)| (*count as f64 - expected).powi(2) / expected).sum()
}

#[test]
fn random_choices_keep_the_weights() {
    let weights = [1, 2, 3, 10, 50, 7];
    let counts = Table::new(model::Balance::Random, &weights).counts(100_000);
    // 5 degrees of freedom: 20.5 is passed once in a thousand runs, and the draws are the same in each.
    assert!(chi_square(&counts, &weights) < 20.5, "{counts:?}");
}

#[test]
fn random_two_takes_the_one_with_less_to_do() {
    let mut table = Table::new(model::Balance::RandomTwo, &[1, 1]);
    let busy = Arc::clone(&table.endpoints[0]);
    busy.begin_exchange();
    assert_eq!(table.counts(200), [0, 200], "two of two are compared each time");
    busy.end_exchange();
    // Equal loads: the first draw stands.
    let counts = Table::new(model::Balance::RandomTwo, &[1, 1, 1]).counts(30_000);
    assert!(chi_square(&counts, &[1, 1, 1]) < 13.8, "{counts:?}");
}

#[test]
fn ewma_avoids_the_slow_and_comes_back_to_it() {
    let mut table = Table::new(model::Balance::Ewma, &[1, 1]);
    table.endpoints[0].observe(Duration::from_millis(500), table.now);
    table.endpoints[1].observe(Duration::from_millis(5), table.now);
    assert_eq!(table.counts(100), [0, 100]);
    // The fast one answers on; the slow one is forgotten meanwhile, and chosen again.
    table.now += Duration::from_secs(60);
    table.endpoints[1].observe(Duration::from_millis(5), table.now);
    assert_eq!(table.counts(100), [100, 0]);
}

/// `ngx_http_upstream_get_ip_hash_peer`, written down once more from its description: 113, 6271, start 89.
#[test]
fn ip_hash_is_that_of_nginx() {
    let weights = [3_u32, 1, 2];
    let mut table = Table::new(model::Balance::IpHash, &weights);
    for number in 0..2_000_u32 {
        let address = Ipv4Addr::from(mix(u64::from(number)) as u32);
        let [a, b, c, _] = address.octets().map(u64::from);
        let hash = (((89 * 113 + a) % 6271 * 113 + b) % 6271 * 113 + c) % 6271;
        let expected = match hash % 6 {
            0..3 => 'a',
            3 => 'b',
            _ => 'c',
        };
        assert_eq!(table.letter(&Key::Address(IpAddr::V4(address))), expected, "{address}");
    }
    let network = |last| Key::Address(IpAddr::from([192, 0, 2, last]));
    let one = table.letter(&network(1));
    assert!((2..=255).all(|last| table.letter(&network(last)) == one), "a network of 256 stays together");
    let six = |text: &str| Key::Address(text.parse().unwrap());
    let letters: HashSet<char> = (0..64).map(|last| table.letter(&six(&format!("2001:db8::{last:x}")))).collect();
    assert_eq!(letters.len(), 3, "all of an IPv6 address counts");
}

/// Values of nginx 1.22 with `hash $arg_k;` and three servers of weights 3, 1, 2, worked out from its source:
/// ((crc32(key) >> 16) & 0x7fff) % 6.
#[test]
fn hash_is_that_of_memcached() {
    let mut table = Table::new(model::Balance::Hash(vec![Variable::Path]), &[3, 1, 2]);
    for number in 0..2_000 {
        let Key::Bytes(bytes) = key(number) else { unreachable!() };
        let expected = match ((crc32(&bytes) >> 16) & 0x7fff) % 6 {
            0..3 => 'a',
            3 => 'b',
            _ => 'c',
        };
        assert_eq!(table.letter(&key(number)), expected, "{number}");
    }
}

/// Weights so large that numbers are searched instead of looked up.
#[test]
fn hash_by_search_is_hash_by_table() {
    let kind = || model::Balance::Hash(vec![Variable::Path]);
    // Hashes go up to 32,767: the first member has those below 20,000, whatever the rest weighs.
    let (mut small, mut large) =
        (Table::new(kind(), &[20_000, 10_000, 5_000]), Table::new(kind(), &[20_000, 10_000, 65_535]));
    let letters = |table: &mut Table| (0..2_000).map(|number| table.letter(&key(number))).collect::<String>();
    assert_eq!(letters(&mut small), letters(&mut large));
}

/// CRC-32 bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

/// pingora-ketama is another implementation of nginx's ring.
#[test]
fn consistent_is_ketama() {
    let weights = [1_u32, 2, 5, 1, 3];
    let mut table = Table::new(model::Balance::Consistent(vec![Variable::Path]), &weights);
    let buckets: Vec<_> = table
        .endpoints
        .iter()
        .zip(weights)
        .map(|(endpoint, weight)| pingora_ketama::Bucket::new(endpoint.address().to_string().parse().unwrap(), weight))
        .collect();
    let oracle = pingora_ketama::Continuum::new(&buckets);
    for number in 0..20_000 {
        let Key::Bytes(bytes) = key(number) else { unreachable!() };
        let chosen = table.pick(&key(number), |_| true).unwrap();
        assert_eq!(chosen.address().to_string(), oracle.node(&bytes).unwrap().to_string(), "{number}");
    }
}

/// A ring of weights in the thousands is bounded, and its shares are kept.
#[test]
fn a_ring_does_not_grow_with_the_weights() {
    let weights = [65_535_u32, 65_535, 32_768, 1];
    let mut table = Table::new(model::Balance::Consistent(vec![Variable::Path]), &weights);
    let mut counts = [0_usize; 4];
    owners(&mut table, 20_000).into_iter().for_each(|owner| counts[owner.0 as usize - 1] += 1);
    for (count, share) in counts.into_iter().zip([0.4, 0.4, 0.2, 0.0]) {
        assert!((count as f64 / 20_000.0 - share).abs() < 0.02, "{counts:?}");
    }
}

type Members = Vec<(Address, u32)>;

/// What is built without the lock is what is looked for with it: else each change would build twice, and once with it.
#[test]
fn rings_that_are_prepared_are_those_that_are_needed() {
    let kind = model::Balance::Consistent(vec![Variable::Path]);
    let name = ServerAddress::Service { name: "_http._tcp.internal".to_owned() };
    let server = |address: ServerAddress, weight, priority, down| StaticServer {
        address,
        weight,
        priority,
        down,
        max_conns: None,
        max_fails: None,
        fail_timeout: None,
    };
    let used = |pool: &Pool| -> Vec<Members> {
        let inner = pool.lock();
        let rings = inner.balance.tiers.iter().map(|tier| match &tier.policy {
            Policy::Consistent(ring, _) => ring.of.clone(),
            other => panic!("{other:?}"),
        });
        rings.collect()
    };
    let prepared =
        |pool: &Pool| -> Vec<Members> { pool.lock().balance.prepared.iter().map(|ring| ring.of.clone()).collect() };
    let lists = [
        vec![server(tcp(1).into(), 1, 0, false)],
        vec![server(tcp(2).into(), 0, 1, false), server(tcp(1).into(), 3, 0, true), server(tcp(3).into(), 2, 1, false)],
        vec![server(name.clone(), 2, 1, false), server(tcp(1).into(), 1, 0, false)],
    ];
    let share = |weight, tier| Some(Share { weight, tier });
    let found = |port: u16, share| {
        let Address::Tcp(address) = tcp(port) else { unreachable!("it is TCP") };
        Resolved { address, host: "api.internal".into(), share }
    };
    let pool = Pool::new(EndpointIds::default(), &upstream("app", EndpointSource::Servers(lists[0].clone())));
    for list in &lists {
        let upstream = Upstream { balance: kind.clone(), ..upstream("app", EndpointSource::Servers(list.clone())) };
        pool.prepare(Some(&kind), |servers| servers.configure(list));
        let expected = prepared(&pool);
        pool.reconfigure(&upstream);
        assert_eq!(used(&pool), expected, "{list:?}");
    }
    for found in [vec![found(5, None), found(6, None)], vec![found(6, share(0, 1)), found(7, share(9, 0))], Vec::new()]
    {
        pool.prepare(None, |servers| servers.resolve(&name, found.clone()));
        let expected = prepared(&pool);
        pool.resolve(&name, found.clone());
        assert_eq!(used(&pool), expected, "{found:?}");
    }
}

#[test]
fn a_prepared_ring_is_taken_as_it_is() {
    let mut table = Table::new(model::Balance::Consistent(vec![Variable::Path]), &[1, 2]);
    let list: Vec<_> = table.endpoints.iter().map(|one| (0, one.address().clone(), one.weight())).take(1).collect();
    let rings = Ring::of_tiers(list.into_iter());
    let place = rings[0].of.as_ptr();
    table.balance.prepare(rings);
    let one = table.endpoints[..1].to_vec();
    table.align(&one);
    let Policy::Consistent(ring, _) = &table.balance.tiers[0].policy else { unreachable!("it is a ring") };
    assert!(std::ptr::eq(ring.of.as_ptr(), place) && table.balance.prepared.is_empty());
}

/// A unix socket has no port (`ngx_http_upstream_init_chash`).
#[test]
fn a_ring_may_have_sockets() {
    let lineage = Arc::default();
    let sockets = ["/run/a", "/run/b"].map(|path| Address::Unix(path.into()));
    let list = sockets.into_iter().zip(1..).map(|(address, id)| endpoint(address, 1, id, &lineage)).collect();
    let mut table = Table::of(model::Balance::Consistent(vec![Variable::Path]), list, lineage);
    let letters: HashSet<char> = (0..100).map(|number| table.letter(&key(number))).collect();
    assert_eq!(letters.len(), 2);
}

fn consistent_kinds() -> [model::Balance; 2] {
    [model::Balance::Consistent(vec![Variable::Path]), model::Balance::Maglev(vec![Variable::Path])]
}

fn owners(table: &mut Table, keys: usize) -> Vec<EndpointId> {
    (0..keys).map(|number| table.pick(&key(number), |_| true).unwrap().id()).collect()
}

/// An endpoint that comes takes about its share, from all; one that goes gives its keys away, and hardly others move.
#[test]
fn few_keys_move() {
    for kind in consistent_kinds() {
        let mut table = Table::new(kind.clone(), &[1; 10]);
        let all = table.endpoints.clone();
        let before = owners(&mut table, 10_000);
        table.align(&all[..9]);
        let after = owners(&mut table, 10_000);
        let moved = |from: &[EndpointId], to: &[EndpointId], wrongly: &dyn Fn(EndpointId, EndpointId) -> bool| {
            let pairs = from.iter().zip(to).filter(|(old, new)| old != new);
            let wrong = pairs.clone().filter(|(old, new)| wrongly(**old, **new)).count();
            (pairs.count(), wrong)
        };
        let (count, others) = moved(&before, &after, &|old, _| old != all[9].id());
        let strays = if matches!(kind, model::Balance::Maglev(_)) { 400 } else { 0 };
        assert!((800..1_500).contains(&count), "{kind}: {count} moved");
        assert!(others <= strays, "{kind}: {others} others moved");
        table.align(&all);
        assert_eq!(owners(&mut table, 10_000), before, "{kind}: who comes back has its keys again");
    }
}

#[test]
fn shares_of_keys_follow_the_weights() {
    for kind in consistent_kinds() {
        let mut table = Table::new(kind.clone(), &[1, 1, 2, 4]);
        let mut counts = [0_usize; 4];
        owners(&mut table, 20_000).into_iter().for_each(|owner| counts[owner.0 as usize - 1] += 1);
        for (count, weight) in counts.into_iter().zip([1.0, 1.0, 2.0, 4.0]) {
            let share = count as f64 / 20_000.0;
            assert!((share - weight / 8.0).abs() < 0.035, "{kind}: {counts:?}");
        }
    }
}

/// Only the keys of whoever cannot serve go elsewhere, and they spread.
#[test]
fn keys_of_one_out_of_service_spread() {
    let all = [model::Balance::Hash(vec![Variable::Path])].into_iter().chain(consistent_kinds());
    for kind in all {
        let mut table = Table::new(kind.clone(), &[1; 4]);
        let out = table.endpoints[2].id();
        let before = owners(&mut table, 4_000);
        let after: Vec<_> =
            (0..4_000).map(|number| table.pick(&key(number), |one| one.id() != out).unwrap().id()).collect();
        let mut heirs = BTreeMap::<EndpointId, usize>::new();
        for (old, new) in before.iter().zip(&after) {
            assert!(*new != out && (*old == out || old == new), "{kind}");
            if *old == out {
                *heirs.entry(*new).or_default() += 1;
            }
        }
        // nginx's plain hash: a sum of checksums, in which keys of one length have one heir.
        let spreads = !matches!(kind, model::Balance::Hash(_));
        assert!(!heirs.is_empty(), "{kind}");
        assert!(!spreads || heirs.len() == 3 && heirs.values().all(|count| *count > 150), "{kind}: {heirs:?}");
        assert!(table.pick(&key(1), |_| false).is_none(), "{kind}");
    }
}

#[test]
fn requests_without_a_key_go_in_turn() {
    for kind in consistent_kinds() {
        let mut table = Table::new(kind, &[2, 1]);
        assert_eq!((0..6).map(|_| table.letter(&Key::None)).collect::<String>(), "abaaba");
    }
}

#[test]
fn least_conn_sees_leases_that_end_elsewhere() {
    let mut table = Table::new(model::Balance::LeastConn, &[1; 5_000]);
    let all = table.endpoints.clone();
    all.iter().for_each(|endpoint| assert!(endpoint.begin_exchange()));
    // The last two share a mark with others, and are found all the same.
    for place in [4_999, 4_100, 17, 903] {
        all[place].end_exchange();
        assert_eq!(table.pick(&Key::None, |_| true).unwrap().id(), all[place].id());
        all[place].begin_exchange();
    }
}

/// Picks that find the first tier full look at its loads too, and must not lose those of the second.
#[test]
fn least_conn_sees_the_loads_of_every_tier() {
    let lineage = Arc::default();
    let list = endpoints(&[1; 4], &lineage);
    for (endpoint, priority) in list.iter().zip([0, 0, 1, 1]) {
        let address = endpoint.address().clone();
        endpoint.configure(
            &StaticServer {
                address: address.into(),
                weight: 1,
                priority,
                max_conns: None,
                down: false,
                max_fails: None,
                fail_timeout: None,
            },
            None,
        );
    }
    let mut table = Table::of(model::Balance::LeastConn, list.clone(), lineage);
    for _ in 0..10 {
        let chosen = table.pick(&Key::None, |one| one.priority() == 1).unwrap();
        chosen.begin_exchange();
    }
    assert_eq!(list.iter().map(|one| one.in_flight()).collect::<Vec<_>>(), [0, 0, 5, 5]);
    (0..5).for_each(|_| list[3].end_exchange());
    for _ in 0..5 {
        let chosen = table.pick(&Key::None, |one| one.priority() == 1).unwrap();
        assert_eq!(chosen.id(), list[3].id());
        chosen.begin_exchange();
    }
}

#[test]
fn lower_tiers_wait_until_nobody_above_can_serve() {
    let lineage = Arc::default();
    let list = endpoints(&[1, 1, 1], &lineage);
    for (endpoint, priority) in list.iter().zip([0, 2, 1]) {
        let address = endpoint.address().clone();
        endpoint.configure(
            &StaticServer {
                address: address.into(),
                weight: 1,
                priority,
                max_conns: None,
                down: false,
                max_fails: None,
                fail_timeout: None,
            },
            None,
        );
    }
    let mut table = Table::of(model::Balance::RoundRobin, list.clone(), lineage);
    assert_eq!((0..3).map(|_| table.letter(&Key::None)).collect::<String>(), "aaa");
    let without_first = |one: &Endpoint| one.id() != list[0].id();
    assert_eq!(table.pick(&Key::None, without_first).unwrap().id(), list[2].id());
    let last = table.pick(&Key::None, |one| without_first(one) && one.id() != list[2].id());
    assert_eq!(last.unwrap().id(), list[1].id());
}

proptest! {
    /// The grouped form chooses as nginx's loop over all does, whoever is passed over.
    #[test]
    fn round_robin_is_that_of_nginx(
        weights in proptest::collection::vec(1..9_u32, 1..12),
        passed in proptest::collection::vec(proptest::collection::hash_set(0..12_usize, 0..4), 0..60),
    ) {
        let lineage = Arc::default();
        let members: Vec<Member> = members(&endpoints(&weights, &lineage));
        let (mut grouped, mut plain) = (RoundRobin::default(), Plain::new(weights.len()));
        grouped.align(&members);
        for (turn, passed) in passed.iter().enumerate() {
            let fits = |place: usize| !passed.contains(&place);
            let ours = grouped.pick(&members, passed.is_empty(), |one| fits(one.id().0 as usize - 1));
            prop_assert_eq!(ours, plain.pick(&weights, fits), "turn {}", turn);
            // Telling the same members again changes nothing.
            if turn % 7 == 3 {
                grouped.align(&members);
            }
        }
    }

    /// The tree's choice is the one that comparing all gives.
    #[test]
    fn least_conn_is_the_least(
        weights in proptest::collection::vec(1..5_u32, 1..20),
        steps in proptest::collection::vec((0..20_usize, any::<bool>(), 0..20_usize), 0..80),
    ) {
        let mut table = Table::new(model::Balance::LeastConn, &weights);
        let all = table.endpoints.clone();
        for (place, begins, passed) in steps {
            if let Some(endpoint) = all.get(place) {
                if begins {
                    endpoint.begin_exchange();
                } else if endpoint.in_flight() > 0 {
                    endpoint.end_exchange();
                }
            }
            let fits = |one: &Endpoint| one.id().0 as usize != passed + 1;
            let load = |one: &Arc<Endpoint>| f64::from(one.in_flight()) / f64::from(one.weight());
            let least = all.iter().filter(|one| fits(one)).map(load).fold(f64::INFINITY, f64::min);
            let chosen = table.pick(&Key::None, fits);
            prop_assert_eq!(chosen.is_some(), least.is_finite());
            if let Some(chosen) = chosen {
                prop_assert!(fits(&chosen));
                prop_assert_eq!(load(&chosen), least);
            }
        }
    }
}
