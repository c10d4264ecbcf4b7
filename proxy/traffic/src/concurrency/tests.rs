//! Places are never more than there are, and none is lost.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::*;
use crate::fixtures::{Request, get, model, respond, route, site};

fn limit(name: &str, max: u32) -> model::ConcurrencyLimit {
    model::ConcurrencyLimit {
        name: name.to_owned(),
        max,
        key: vec![Variable::ClientAddress],
        status: 503,
        dry_run: false,
        allow: Networks::default(),
    }
}

fn by_user(name: &str, max: u32) -> model::ConcurrencyLimit {
    model::ConcurrencyLimit { key: vec![Variable::Header("x-user".to_owned())], ..limit(name, max) }
}

fn file(limits: Vec<model::ConcurrencyLimit>) -> Model {
    let mut model = model(vec![site("s", &["h"], vec![route("/", respond("x"))])], Vec::new());
    model.concurrency_limits = limits.into_iter().map(|limit| (limit.name.clone(), limit)).collect();
    model
}

/// Limits under which requests come, all of them for each.
struct Gate {
    limits: ConcurrencyLimits,
    uses: Box<[ConcurrencyLimitId]>,
}

impl Gate {
    fn new(limits: Vec<model::ConcurrencyLimit>) -> Self {
        Self::after(limits, None)
    }

    fn after(limits: Vec<model::ConcurrencyLimit>, before: Option<&Self>) -> Self {
        let names: Vec<String> = limits.iter().map(|limit| limit.name.clone()).collect();
        let model = file(limits);
        Self {
            limits: ConcurrencyLimits::new(&model, before.map(|gate| &gate.limits), &RandomState::new()),
            uses: ConcurrencyLimits::uses(&model, &names),
        }
    }

    fn enter(&self, request: &Request) -> Result<Places, Refusal> {
        let mut places = request.view(|head| self.limits.ask(&self.uses, head)).unwrap();
        places.take().map(|()| places)
    }

    /// `requests/clients rejected dry_run` of each limit.
    fn words(&self) -> String {
        let word = |limit: &ConcurrencyLimit| {
            let (table, counts) = (limit.table(), limit.counts());
            format!("{}/{} {} {}", table.requests(), table.clients(), counts.rejected(), counts.dry_run())
        };
        self.limits.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

fn user(name: &'static str) -> Request {
    get("h", "/").with("x-user", name)
}

#[test]
fn what_is_over_is_refused_until_a_place_is_free() {
    let gate = Gate::new(vec![model::ConcurrencyLimit { status: 429, ..by_user("a", 2) }]);
    let one = gate.enter(&user("ann")).unwrap();
    let _two = gate.enter(&user("ann")).unwrap();
    let refusal = gate.enter(&user("ann")).unwrap_err();
    assert_eq!((refusal.kind, refusal.status), (RefusalKind::ConcurrencyLimited, Some(429)));
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
    assert_eq!(refusal.to_string(), "concurrency_limited: concurrency limit: a");
    let _bob = gate.enter(&user("bob")).unwrap();
    assert_eq!(gate.words(), "3/2 1 0");
    drop(one);
    let _again = gate.enter(&user("ann")).unwrap();
    assert!(gate.enter(&user("ann")).is_err());
    assert_eq!(gate.words(), "3/2 2 0");
}

#[test]
fn a_request_without_the_value_counts_for_its_address() {
    let gate = Gate::new(vec![by_user("a", 1)]);
    let _one = gate.enter(&get("h", "/")).unwrap();
    assert!(gate.enter(&get("h", "/other")).is_err());
    assert!(gate.enter(&user("ann")).is_ok());
}

#[test]
fn who_is_refused_by_one_limit_has_no_place_in_another() {
    let gate = Gate::new(vec![limit("all", 3), by_user("user", 1)]);
    let _ann = gate.enter(&user("ann")).unwrap();
    let model = file(vec![limit("all", 3), by_user("user", 1)]);
    let uses = ConcurrencyLimits::uses(&model, &["all".to_owned(), "user".to_owned()]);
    let mut refused = user("ann").view(|head| gate.limits.ask(&uses, head)).unwrap();
    assert!(refused.take().is_err());
    assert_eq!(gate.words(), "1/1 0 0, 1/1 1 0", "while the refused request is still there");
    assert!(refused.take().is_ok(), "asked once only");
    assert_eq!(gate.words(), "1/1 0 0, 1/1 1 0");
}

#[test]
fn a_dry_run_counts_what_it_would_refuse_and_holds_nothing_of_it() {
    let gate = Gate::new(vec![model::ConcurrencyLimit { dry_run: true, ..limit("a", 1) }, limit("b", 3)]);
    let entered: Vec<_> = (0..4).map(|_| gate.enter(&get("h", "/"))).collect();
    assert_eq!(entered.iter().filter(|entered| entered.is_ok()).count(), 3);
    assert_eq!(gate.words(), "1/1 0 2, 3/1 1 0", "those behind a refusal are not asked");
    drop(entered);
    assert_eq!(gate.words(), "0/0 0 2, 0/0 1 0");
}

#[test]
fn who_is_allowed_takes_no_place() {
    let allow = get("h", "/").view(|head| head.client.address().to_string()).unwrap();
    let allow = allow.parse().unwrap();
    let gate = Gate::new(vec![model::ConcurrencyLimit { allow, ..limit("a", 1) }]);
    let _entered: Vec<_> = (0..3).map(|_| gate.enter(&get("h", "/")).unwrap()).collect();
    assert_eq!(gate.words(), "0/0 0 0");
}

#[test]
fn what_is_under_way_counts_on_after_a_reload() {
    let old = Gate::new(vec![limit("a", 1), limit("b", 1)]);
    let under_way = old.enter(&get("h", "/")).unwrap();
    assert!(old.enter(&get("h", "/")).is_err());
    let new = Gate::after(vec![limit("a", 2), by_user("b", 2)], Some(&old));
    assert_eq!(new.words(), "1/1 1 0, 0/0 0 0", "another key is another account");
    drop(old);
    let second = new.enter(&get("h", "/")).unwrap();
    assert!(new.enter(&get("h", "/")).is_err());
    drop(under_way);
    assert!(new.enter(&get("h", "/")).is_ok());
    drop(second);
    assert_eq!(new.words(), "0/0 2 0, 0/0 0 0");
}

#[test]
fn a_flood_leaves_no_memory_behind() {
    let table = Arc::new(Table::default());
    let places: Vec<_> = (0..100_000).map(|client| table.take(crate::mix::mix(client), 1).unwrap()).collect();
    assert_eq!((table.requests(), table.clients()), (100_000, 100_000));
    drop(places);
    assert_eq!((table.requests(), table.clients()), (0, 0));
    assert!(table.room() <= 64 * 64, "room for {}", table.room());
}

#[test]
fn threads_never_have_more_places_than_there_are() {
    const MAX: u32 = 3;
    let table = Arc::new(Table::default());
    let inside: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (table, inside) = (&table, &inside);
            scope.spawn(move || {
                for turn in 0..20_000 {
                    let client = crate::mix::mix(thread << 32 | turn) % 4;
                    let Some(place) = table.take(client, MAX) else { continue };
                    let now = inside[client as usize].fetch_add(1, Ordering::SeqCst);
                    assert!(now < MAX, "{now}");
                    if turn % 16 == 0 {
                        std::thread::yield_now();
                    }
                    inside[client as usize].fetch_sub(1, Ordering::SeqCst);
                    drop(place);
                }
            });
        }
    });
    assert_eq!((table.requests(), table.clients()), (0, 0));
}

/// A request comes, or one of those under way ends.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Begin(&'static str),
    End(usize),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => proptest::sample::select(vec!["ann", "bob", "cid", "dot"]).prop_map(Turn::Begin),
        2 => (0..64_usize).prop_map(Turn::End),
    ]
}

proptest! {
    /// Against a plain count of both limits.
    #[test]
    fn places_are_counted_exactly(
        turns in proptest::collection::vec(turn(), 0..200),
        most_of_user in 1..4_u32,
        most_of_all in 1..8_u32,
    ) {
        let gate = Gate::new(vec![limit("all", most_of_all), by_user("user", most_of_user)]);
        let mut under_way: Vec<(&str, Places)> = Vec::new();
        for turn in turns {
            match turn {
                Turn::Begin(name) => {
                    let of_user = under_way.iter().filter(|(known, _)| *known == name).count();
                    let fits = of_user < most_of_user as usize && under_way.len() < most_of_all as usize;
                    let entered = gate.enter(&user(name));
                    prop_assert_eq!(entered.is_ok(), fits);
                    under_way.extend(entered.ok().map(|places| (name, places)));
                }
                Turn::End(which) if !under_way.is_empty() => {
                    let which = which % under_way.len();
                    let (_, mut places) = under_way.swap_remove(which);
                    if which.is_multiple_of(2) {
                        places.give_back();
                        places.give_back();
                    }
                }
                Turn::End(_) => {}
            }
            let mut users: BTreeMap<&str, u64> = BTreeMap::new();
            under_way.iter().for_each(|(name, _)| *users.entry(*name).or_default() += 1);
            for (limit, clients) in gate.limits.iter().zip([under_way.len().min(1), users.len()]) {
                prop_assert_eq!((limit.table().requests(), limit.table().clients()), (under_way.len() as u64, clients));
            }
        }
        drop(under_way);
        for limit in gate.limits.iter() {
            prop_assert_eq!((limit.table().requests(), limit.table().clients()), (0, 0));
        }
    }
}
