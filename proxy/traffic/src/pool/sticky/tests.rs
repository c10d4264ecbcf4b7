//! Whose cookie is honoured, what replaces it, and that nobody makes one up.

use std::time::Instant;

use proptest::prelude::*;
use tidegate_config::model::{Balance as Kind, EndpointSource, Upstream};

use super::*;
use crate::fixtures::{servers, tcp, upstream, worker_spec};
use crate::mix::mix;
use crate::pool::endpoint::WorkerKey;
use crate::pool::key::Key;
use crate::pool::lease::{Lease, Outcome};
use crate::pool::{Acquired, EndpointIds, Wanted};

/// Stands in for a hash with a key: every bit depends on all of the message.
#[derive(Debug)]
struct Mixed(u64);

impl Seal for Mixed {
    fn seal(&self, message: &[u8]) -> [u8; 32] {
        let state = message.iter().fold(self.0, |state, byte| mix(state ^ u64::from(*byte)));
        let words: Vec<u8> = (0..4).flat_map(|word| mix(state.wrapping_add(word)).to_le_bytes()).collect();
        words.try_into().unwrap()
    }
}

fn seals(keys: &[u64]) -> Seals {
    keys.iter().map(|key| Arc::new(Mixed(*key)) as Arc<dyn Seal>).collect()
}

fn three() -> Upstream {
    upstream("app", servers(&[(1, 1), (2, 1), (3, 1)]))
}

fn pool_of(upstream: &Upstream) -> Arc<Pool> {
    let pool = Pool::new(EndpointIds::default(), upstream);
    pool.name_by(Some(&seals(&[7])));
    pool
}

fn ask(pool: &Arc<Pool>, asked: Asked, tried: &[EndpointId]) -> Lease {
    let key = asked.token().map_or(Key::None, |token| Key::Named(*token, [192, 0, 2, 7].into()));
    match pool.acquire(&Wanted { key: &key, tried, draw: 0, now: Instant::now(), tunnel: false }) {
        Acquired::Lease(lease) => lease,
        other => panic!("{other:?}"),
    }
}

/// Who serves a client with this cookie, and the one that it has afterwards.
fn served(pool: &Arc<Pool>, cookie: &str) -> (String, String) {
    let asked = Asked::of(Some(cookie.as_bytes()).filter(|cookie| !cookie.is_empty()));
    let lease = ask(pool, asked, &[]);
    let after = match pool.bond(asked, lease.endpoint().id()).unwrap() {
        Bond::Kept => cookie.to_owned(),
        Bond::Set(token) => text(&token),
    };
    let address = lease.endpoint().address().to_string();
    lease.finish(Outcome::Ok, Instant::now());
    (address, after)
}

fn text(token: &Token) -> String {
    String::from_utf8(token.text().as_bytes().to_vec()).unwrap()
}

fn counts(pool: &Pool) -> [u64; 4] {
    pool.bonds().unwrap().all().map(|(_, count)| count)
}

#[test]
fn a_client_stays() {
    let pool = pool_of(&three());
    let (address, cookie) = served(&pool, "");
    assert_eq!(cookie.len(), Token::TEXT);
    for _ in 0..7 {
        assert_eq!(served(&pool, &cookie), (address.clone(), cookie.clone()));
    }
    let others: Vec<_> = (0..3).map(|_| served(&pool, "").0).collect();
    assert!(others.iter().any(|other| *other != address), "new clients go in turn: {others:?}");
    assert_eq!(counts(&pool), [4, 7, 0, 0]);
}

#[test]
fn names_are_those_of_another_process_and_of_no_other_upstream() {
    let name = |upstream: &Upstream| served(&pool_of(upstream), "").1;
    assert_eq!(name(&three()), name(&three()));
    assert_ne!(name(&three()), name(&upstream("api", servers(&[(1, 1)]))));
    let other = Pool::new(EndpointIds::default(), &three());
    other.name_by(Some(&seals(&[8])));
    assert_ne!(served(&other, "").1, name(&three()), "another secret");
}

#[test]
fn a_reload_keeps_names_and_counts() {
    let pool = pool_of(&three());
    let (address, cookie) = served(&pool, "");
    let changed = Upstream { balance: Kind::LeastConn, ..upstream("app", servers(&[(9, 1), (3, 1), (2, 5), (1, 1)])) };
    pool.reconfigure(&changed);
    assert_eq!(served(&pool, &cookie).0, address, "before the secrets are told again");
    pool.name_by(Some(&seals(&[7])));
    assert_eq!(served(&pool, &cookie), (address, cookie));
    assert_eq!(counts(&pool), [1, 2, 0, 0]);
}

#[test]
fn who_cannot_be_served_there_moves_and_stays_there() {
    let pool = pool_of(&three());
    let (address, cookie) = served(&pool, "");
    // A server that is full.
    let full = |max_conns| {
        let EndpointSource::Servers(mut list) = servers(&[(1, 1), (2, 1), (3, 1)]) else { unreachable!() };
        list[0].max_conns = max_conns;
        upstream("app", EndpointSource::Servers(list))
    };
    pool.reconfigure(&full(Some(1)));
    let asked = Asked::of(Some(cookie.as_bytes()));
    let busy = ask(&pool, asked, &[]);
    assert_eq!(busy.endpoint().address().to_string(), address);
    let (other, moved) = served(&pool, &cookie);
    assert_ne!((&other, &moved), (&address, &cookie));
    drop(busy);
    assert_eq!(served(&pool, &moved).0, other, "its session is there now");
    // One that has failed it.
    let lease = ask(&pool, Asked::of(Some(moved.as_bytes())), &[ask(&pool, asked, &[]).endpoint().id()]);
    assert_eq!(lease.endpoint().address().to_string(), other);
    drop(lease);
    // One that is down, and one that is gone.
    pool.reconfigure(&upstream("app", servers(&[(2, 1), (3, 1)])));
    let (third, cookie) = served(&pool, &cookie);
    assert_ne!(third, address);
    assert_eq!(served(&pool, &cookie).0, third);
    assert_eq!(counts(&pool), [1, 2, 1, 1], "the cookie of a server that is gone is any other");
}

#[test]
fn seals_rotate() {
    let pool = pool_of(&three());
    let (address, old) = served(&pool, "");
    pool.name_by(Some(&seals(&[9, 7])));
    let (still, new) = served(&pool, &old);
    assert_eq!(still, address);
    assert_ne!(new, old);
    assert_eq!(served(&pool, &new), (address.clone(), new.clone()));
    pool.name_by(Some(&seals(&[9])));
    assert_eq!(served(&pool, &new), (address, new));
    assert_ne!(served(&pool, &old).1, old, "its seal is gone");
    assert_eq!(counts(&pool), [1, 3, 0, 1]);
    pool.name_by(None);
    assert!(pool.bonds().is_none());
    assert_eq!(pool.bond(Asked::Nothing, EndpointId(0)), None);
}

#[test]
fn a_slot_keeps_its_name_when_its_worker_is_another() {
    let pool = pool_of(&upstream("app", EndpointSource::Workers(worker_spec())));
    let start = |slot: u32, spawn: u64| {
        let port = u16::try_from(spawn).unwrap();
        pool.add_worker(WorkerKey { slot, spawn }, 100, tcp(port)).address().to_string()
    };
    let (first, second) = (start(0, 1), start(1, 2));
    let clients = [served(&pool, ""), served(&pool, "")];
    assert_eq!(clients.each_ref().map(|(address, _)| address), [&first, &second]);
    // Both are there for a while, and then the later one.
    let next = start(0, 3);
    assert_eq!(served(&pool, &clients[0].1), (next.clone(), clients[0].1.clone()));
    pool.drain_worker(WorkerKey { slot: 0, spawn: 1 }, Box::new(|| {}));
    pool.remove_worker(WorkerKey { slot: 0, spawn: 1 });
    assert_eq!(served(&pool, &clients[0].1).0, next);
    assert_eq!(served(&pool, &clients[1].1).0, second);
    // One that drains gets nobody, not even those who stayed with it.
    pool.drain_worker(WorkerKey { slot: 1, spawn: 2 }, Box::new(|| {}));
    assert_eq!(served(&pool, &clients[1].1).0, next);
}

#[test]
fn without_a_cookie_the_fallback_has_the_address() {
    let pool = pool_of(&Upstream { balance: Kind::IpHash, ..three() });
    let stale = Asked::of(Some(text(&Token([3; Token::BYTES])).as_bytes()));
    let places: Vec<_> = (0..4).map(|_| ask(&pool, stale, &[]).endpoint().id()).collect();
    assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
}

#[test]
fn other_forms_are_none() {
    let (_, cookie) = served(&pool_of(&three()), "");
    assert!(Token::parse(cookie.as_bytes()).is_some());
    let changed = [
        String::new(),
        "1".to_owned(),
        cookie[1..].to_owned(),
        format!("2{}", &cookie[1..]),
        format!("{cookie}="),
        format!("{cookie}A"),
        cookie[..32].to_owned(),
        format!("\"{cookie}\""),
        cookie.replace(&cookie[5..6], "+"),
        cookie.replace(&cookie[5..6], "é"),
    ];
    for other in changed {
        assert!(Token::parse(other.as_bytes()).is_none(), "{other}");
    }
}

proptest! {
    /// Whatever a client sends is taken for what it is, and only a name that was given chooses.
    #[test]
    fn nobody_makes_up_a_cookie(bytes in proptest::collection::vec(any::<u8>(), 0..64), near in any::<bool>(), at in 1..33_usize) {
        let pool = pool_of(&three());
        let (_, cookie) = served(&pool, "");
        let mut made_up = bytes;
        if near {
            // One character of a good one is another.
            made_up = cookie.clone().into_bytes();
            made_up[at] = if made_up[at] == b'A' { b'B' } else { b'A' };
        }
        let asked = Asked::of(Some(&made_up));
        let lease = ask(&pool, asked, &[]);
        let expected = if made_up == cookie.as_bytes() { [1, 1, 0, 0] } else { [1, 0, 0, 1] };
        pool.bond(asked, lease.endpoint().id());
        prop_assert_eq!(counts(&pool), expected);
    }

    #[test]
    fn text_and_token_are_one(bytes in any::<[u8; 24]>()) {
        let token = Token(bytes);
        prop_assert!(Token::parse(token.text().as_bytes()).is_some_and(|read| read == token));
    }
}
