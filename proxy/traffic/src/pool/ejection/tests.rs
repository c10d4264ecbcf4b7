//! Who is taken out, who stays, and that everybody comes back.

use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::*;
use tidegate_config::model::{Balance, EndpointSource, StaticServer, SuccessRate, Upstream};

use super::*;
use crate::fixtures::{servers, tcp, upstream, worker_spec};
use crate::pool::endpoint::{EndpointStatus, WorkerKey};
use crate::pool::key::Key;
use crate::pool::transition::Observer;
use crate::pool::{Acquired, EndpointIds, Wanted};

const CLOSED: Outcome = Outcome::UpstreamFault(Symptom::Closed);

/// A pool of servers with a clock that the test moves.
struct Bench {
    pool: Arc<Pool>,
    upstream: Upstream,
    start: Instant,
    now: Instant,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new(count: u16, change: impl FnOnce(&mut Upstream)) -> Self {
        let list: Vec<_> = (1..=count).map(|port| (port, 1)).collect();
        let mut upstream = upstream("app", servers(&list));
        change(&mut upstream);
        let pool = Pool::new(EndpointIds::default(), &upstream);
        let (heard, start) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
        let told = Arc::clone(&heard);
        pool.observe(Observer::new(move |transition| told.lock().unwrap().push(words(transition))));
        Self { pool, upstream, start, now: start, heard }
    }

    fn with_rule(count: u16, change: impl FnOnce(&mut model::Ejection)) -> Self {
        Self::new(count, |upstream| change(upstream.ejection.get_or_insert_default()))
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = self.start + Duration::from_secs(seconds);
        self
    }

    fn reload(&mut self, change: impl FnOnce(&mut Upstream)) {
        change(&mut self.upstream);
        self.pool.reconfigure(&self.upstream);
    }

    fn servers(&mut self) -> &mut Vec<StaticServer> {
        match &mut self.upstream.source {
            EndpointSource::Servers(servers) => servers,
            EndpointSource::Workers(_) => panic!("servers"),
        }
    }

    fn acquire(&self, tried: &[Arc<Endpoint>]) -> Option<Lease> {
        let tried: Vec<_> = tried.iter().map(|endpoint| endpoint.id()).collect();
        match self.pool.acquire(&Wanted { key: &Key::None, tried: &tried, draw: 0, now: self.now, tunnel: false }) {
            Acquired::Lease(lease) => Some(lease),
            Acquired::Wait(_) | Acquired::Refuse(_) => None,
        }
    }

    /// A lease on this endpoint, though another one's turn may be next.
    fn lease(&self, place: usize) -> Option<Lease> {
        self.pool.refresh(self.now);
        let all = self.pool.endpoints();
        if !all[place].is_in_service() {
            return None;
        }
        let others: Vec<_> = all.iter().filter(|one| one.id() != all[place].id()).cloned().collect();
        self.acquire(&others)
    }

    /// So many exchanges with this endpoint; false when it takes none.
    fn exchange(&self, place: usize, outcome: Outcome, count: usize) -> bool {
        (0..count).all(|_| self.lease(place).map(|lease| self.pool.end(lease, outcome, self.now)).is_some())
    }

    fn fail(&self, place: usize, count: usize) -> bool {
        self.exchange(place, CLOSED, count)
    }

    /// Letters of those in service now.
    fn serving(&self) -> String {
        self.pool.refresh(self.now);
        let all = self.pool.endpoints();
        let serving = ('a'..).zip(all).filter(|(_, endpoint)| endpoint.is_in_service());
        serving.map(|(letter, _)| letter).collect()
    }

    fn status(&self, place: usize) -> EndpointStatus {
        self.pool.status().endpoints.remove(place)
    }

    /// What was told since the last time.
    fn heard(&self) -> String {
        std::mem::take(&mut *self.heard.lock().unwrap()).join(", ")
    }
}

fn words(transition: &Transition) -> String {
    assert_eq!(&*transition.upstream, "app");
    match &transition.change {
        Change::Ejected { endpoint, ejected } => {
            let time = (ejected.until - ejected.since).as_secs();
            format!("{endpoint} out {time}s: {}", ejected.reason)
        }
        Change::Breaker(status) => status.state.word().to_owned(),
        Change::CheckFailing { endpoint, .. } | Change::CheckPassing { endpoint, .. } => endpoint.to_string(),
        Change::Returned { endpoint, early, .. } => format!("{endpoint} back{}", if *early { " early" } else { "" }),
    }
}

#[test]
fn three_failures_in_ten_seconds_take_a_server_out_for_ten_seconds() {
    let mut bench = Bench::new(2, |_| ());
    assert!(bench.fail(0, 2));
    assert_eq!(bench.serving(), "ab");
    assert!(bench.at(9).fail(0, 1));
    assert_eq!(bench.serving(), "b");
    assert!(bench.lease(0).is_none(), "nobody is sent there");
    let out = bench.status(0).ejected.unwrap();
    let reason = EjectionReason::Failures { count: 3, last: Symptom::Closed };
    assert_eq!(
        (out.since, out.until, out.reason, out.times),
        (bench.now, bench.start + Duration::from_secs(19), reason, 1)
    );
    assert_eq!(bench.at(18).serving(), "b");
    assert_eq!(bench.at(19).serving(), "ab");
    assert_eq!(bench.status(0).ejected, None);
    assert_eq!(bench.heard(), "127.0.0.1:1 out 10s: 3 failures, last: closed before it answered, 127.0.0.1:1 back");
}

#[test]
fn one_failure_soon_after_takes_it_out_for_longer() {
    let mut bench = Bench::new(2, |_| ());
    assert!(bench.fail(0, 3) && bench.at(10).fail(0, 1));
    assert_eq!(bench.serving(), "b");
    assert_eq!(bench.at(29).serving(), "b");
    assert_eq!(bench.at(30).serving(), "ab");
    assert!(bench.at(31).fail(0, 1));
    assert_eq!(bench.at(60).serving(), "b", "thirty seconds the third time");
    assert_eq!(bench.at(61).serving(), "ab");
}

#[test]
fn only_failures_of_the_endpoint_count() {
    let bench = Bench::new(2, |_| ());
    for outcome in [Outcome::Ok, Outcome::ClientGone, Outcome::Cancelled] {
        assert!(bench.exchange(0, outcome, 10));
    }
    (0..10).for_each(|_| drop(bench.lease(0)));
    assert_eq!(bench.serving(), "ab");
    assert_eq!(bench.heard(), "");
}

#[test]
fn the_last_one_and_half_of_the_pool_stay() {
    let bench = Bench::new(1, |_| ());
    assert!(bench.fail(0, 100), "alone it stays");
    let mut bench = Bench::new(5, |_| ());
    assert!((0..5).all(|place| bench.fail(place, 2)));
    (0..5).for_each(|place| assert!(bench.fail(place, 1)));
    assert_eq!(bench.serving(), "cde", "two of five are less than half");
    bench.at(5);
    assert!((2..5).all(|place| bench.fail(place, 10)));
    assert_eq!(bench.serving(), "cde");
    // The next failure of one that has long been due finds room.
    assert!(bench.at(10).fail(3, 1));
    assert_eq!(bench.serving(), "abce");
    let bench = Bench::with_rule(3, |rule| rule.max_ejected = 100);
    assert!((0..3).all(|place| bench.fail(place, 3)));
    assert_eq!(bench.serving(), "c");
    let bench = Bench::with_rule(9, |rule| rule.max_ejected = 10);
    assert!((0..9).all(|place| bench.fail(place, 3)));
    assert_eq!(bench.serving(), "abcdefghi", "a tenth of nine is nobody");
}

#[test]
fn whoever_the_pool_cannot_spare_comes_back_early() {
    let mut bench = Bench::new(4, |_| ());
    assert!(bench.fail(0, 3) && bench.at(1).fail(1, 3));
    assert_eq!(bench.serving(), "cd");
    bench.heard();
    bench.servers().remove(3);
    bench.reload(|_| ());
    assert_eq!(bench.serving(), "ac", "one of three may be out");
    assert_eq!(bench.heard(), "127.0.0.1:1 back early");
    bench.servers()[0].down = true;
    bench.reload(|_| ());
    assert_eq!(bench.serving(), "c", "one of two may be out");
    bench.servers()[2].down = true;
    bench.reload(|_| ());
    assert_eq!(bench.serving(), "b");
    assert_eq!(bench.heard(), "127.0.0.1:2 back early");
}

#[test]
fn what_the_file_says_of_a_server_stands_above() {
    let mut bench = Bench::new(3, |_| ());
    bench.servers()[0].max_fails = Some(0);
    bench.servers()[1].max_fails = Some(1);
    bench.servers()[1].fail_timeout = Some(Duration::from_secs(2));
    bench.reload(|_| ());
    assert!(bench.fail(0, 100) && bench.fail(2, 2) && bench.fail(1, 1));
    assert_eq!(bench.serving(), "ac");
    assert_eq!(bench.at(2).serving(), "abc");
}

#[test]
fn statuses_count_where_the_file_says_so() {
    let bench = Bench::with_rule(2, |rule| rule.statuses = vec![100, 503, 599]);
    let answer = |status, count| {
        (0..count).for_each(|_| {
            let mut lease = bench.lease(0).unwrap();
            lease.answered(status, bench.now);
            bench.pool.end(lease, Outcome::Ok, bench.now);
        });
    };
    [200, 404, 500, 502, 504, 598].into_iter().for_each(|status| answer(status, 3));
    assert_eq!(bench.serving(), "ab");
    answer(503, 2);
    answer(599, 1);
    assert_eq!(bench.serving(), "b");
    assert_eq!(bench.heard(), "127.0.0.1:1 out 10s: 3 failures, last: status 599");
    assert_eq!(bench.status(0).failures, 3);
}

#[test]
fn it_is_off_where_the_file_says_so() {
    let mut bench = Bench::new(2, |_| ());
    assert!(bench.fail(0, 3));
    assert_eq!(bench.serving(), "b");
    bench.reload(|upstream| upstream.ejection = None);
    assert_eq!(bench.serving(), "ab", "who is out comes back");
    assert!(bench.fail(0, 100));
    assert_eq!(bench.serving(), "ab");
}

#[test]
fn a_reload_keeps_who_is_out_and_what_has_failed() {
    let mut bench = Bench::new(3, |_| ());
    assert!(bench.fail(0, 3) && bench.fail(1, 2));
    bench.reload(|upstream| {
        upstream.balance = Balance::LeastConn;
        upstream.ejection.get_or_insert_default().max_ejected = 70;
    });
    assert_eq!(bench.serving(), "bc");
    assert!(bench.fail(1, 1));
    assert_eq!(bench.serving(), "c");
    assert_eq!(bench.at(10).serving(), "abc");
}

#[test]
fn backups_serve_while_all_others_are_out() {
    let mut bench = Bench::new(2, |_| ());
    bench.servers()[1].priority = 1;
    bench.reload(|_| ());
    let next = |bench: &Bench| bench.acquire(&[]).unwrap().endpoint().address().to_string();
    assert_eq!(next(&bench), "127.0.0.1:1");
    assert!(bench.fail(0, 3));
    assert_eq!(next(&bench), "127.0.0.1:2");
    bench.at(10);
    assert_eq!(next(&bench), "127.0.0.1:1");
}

#[test]
fn who_comes_back_starts_slowly() {
    let mut bench = Bench::new(2, |upstream| upstream.slow_start = Duration::from_secs(100));
    assert!(bench.fail(0, 3));
    let shares = |bench: &Bench| {
        let first = bench.pool.endpoints()[0].id();
        (0..110).filter(|_| bench.acquire(&[]).unwrap().endpoint().id() == first).count()
    };
    assert_eq!(shares(&bench), 0);
    assert_eq!(shares(bench.at(10)), 10, "a tenth of the other's");
    assert_eq!(shares(bench.at(110)), 55);
}

#[test]
fn who_is_out_is_the_last_resort_of_a_request_that_failed_elsewhere() {
    let mut bench = Bench::new(4, |_| ());
    assert!(bench.fail(0, 3) && bench.at(1).fail(1, 3));
    let all = bench.pool.endpoints();
    let met = |tried: &[usize]| {
        let tried: Vec<_> = tried.iter().map(|place| Arc::clone(&all[*place])).collect();
        let lease = bench.acquire(&tried)?;
        all.iter().position(|one| one.id() == lease.endpoint().id())
    };
    assert_eq!((met(&[2]), met(&[3])), (Some(3), Some(2)));
    assert_eq!(met(&[2, 3]), Some(0), "it comes back first");
    assert_eq!(met(&[2, 3, 0]), Some(1));
    assert_eq!(met(&[0, 1, 2, 3]), None);
    bench.servers()[0].down = true;
    bench.servers()[1].max_conns = Some(1);
    bench.reload(|upstream| upstream.ejection.get_or_insert_default().max_ejected = 100);
    let lease = bench.acquire(&all[2..]).unwrap();
    assert_eq!(lease.endpoint().id(), all[1].id());
    assert!(bench.acquire(&all[2..]).is_none(), "one is down, the other is full");
}

#[test]
fn every_balance_passes_over_who_is_out() {
    let key = vec![tidegate_config::model::Variable::Path];
    let keyed = [Balance::Hash(key.clone()), Balance::Consistent(key.clone()), Balance::Maglev(key), Balance::IpHash];
    let plain = [Balance::RoundRobin, Balance::LeastConn, Balance::Random, Balance::RandomTwo, Balance::Ewma];
    for balance in keyed.into_iter().chain(plain) {
        let mut bench = Bench::new(3, |upstream| upstream.balance = balance.clone());
        assert!(bench.fail(1, 3));
        let meets = |bench: &Bench| {
            let out = bench.pool.endpoints()[1].id();
            let met = (0..200_u64).filter(|draw| {
                let key = Key::Bytes(draw.to_string().into_bytes().into());
                let draw = crate::mix::mix(*draw);
                let wanted = Wanted { key: &key, tried: &[], draw, now: bench.now, tunnel: false };
                let Acquired::Lease(lease) = bench.pool.acquire(&wanted) else { panic!("two are in service") };
                lease.endpoint().id() == out
            });
            met.count()
        };
        assert_eq!(meets(&bench), 0, "{balance}");
        assert!(meets(bench.at(10)) > 0, "{balance}");
    }
}

#[test]
fn workers_are_held_to_the_same() {
    let pool = Pool::new(EndpointIds::default(), &upstream("app", EndpointSource::Workers(worker_spec())));
    let key = |slot| WorkerKey { slot, spawn: 1 };
    let (first, second) = (pool.add_worker(key(0), 1, tcp(1)), pool.add_worker(key(1), 2, tcp(2)));
    let now = Instant::now();
    let fail = |tried: &Arc<Endpoint>| {
        let wanted = Wanted { key: &Key::None, tried: &[tried.id()], draw: 0, now, tunnel: false };
        let Acquired::Lease(lease) = pool.acquire(&wanted) else { return false };
        pool.end(lease, CLOSED, now);
        true
    };
    assert!((0..3).all(|_| fail(&second)));
    assert!(!first.is_in_service());
    pool.remove_worker(key(1));
    assert!(first.is_in_service(), "it is the last one now");
    // The next start of the slot is another endpoint: what was before does not count.
    let next = pool.add_worker(WorkerKey { slot: 1, spawn: 2 }, 3, tcp(2));
    assert!(fail(&first) && fail(&first) && next.is_in_service());
}

/// A change of how workers are spoken to makes a new pool; requests of before still end with the old one.
#[test]
fn what_fails_in_a_pool_that_was_succeeded_counts_in_its_successor() {
    let spec = upstream("app", EndpointSource::Workers(worker_spec()));
    let old = Pool::new(EndpointIds::default(), &spec);
    let now = Instant::now();
    for slot in 0..2 {
        old.add_worker(WorkerKey { slot, spawn: 1 }, slot, tcp(1));
    }
    let lease = || match old.acquire(&Wanted { key: &Key::None, tried: &[], draw: 0, now, tunnel: false }) {
        Acquired::Lease(lease) => lease,
        other => panic!("{other:?}"),
    };
    let leases: Vec<_> = (0..6).map(|_| lease()).collect();
    let first = Arc::clone(&old.endpoints()[0]);
    let new = old.after(&spec);
    new.succeed(&old);
    for lease in leases.into_iter().filter(|lease| lease.endpoint().id() == first.id()) {
        old.end(lease, CLOSED, now);
    }
    assert!(!first.is_in_service());
    new.refresh(now + Duration::from_secs(10));
    assert!(first.is_in_service());
}

#[test]
fn who_answers_well_less_often_than_the_others_is_taken_out() {
    let rate = SuccessRate { interval: Duration::from_secs(10), min_endpoints: 5, min_requests: 20, deviations: 1.9 };
    let mut bench = Bench::with_rule(6, |rule| {
        rule.max_fails = 0;
        rule.success_rate = Some(rate);
    });
    assert_eq!(bench.serving(), "abcdef");
    assert!((0..6).all(|place| bench.exchange(place, Outcome::Ok, 20)));
    assert!(bench.fail(2, 20));
    assert_eq!(bench.at(9).serving(), "abcdef");
    assert_eq!(bench.at(10).serving(), "abdef");
    assert_eq!(bench.heard(), "127.0.0.1:3 out 10s: success rate 50.0%, of all 91.7%");
    assert_eq!(bench.at(20).serving(), "abcdef", "nobody asked: nobody is compared");
    bench.servers()[3].max_fails = Some(0);
    bench.reload(|_| ());
    assert!((0..6).all(|place| bench.exchange(place, Outcome::Ok, 20)) && bench.fail(3, 20));
    assert_eq!(bench.at(30).serving(), "abcdef", "the file says never");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Seconds pass.
    Wait(u64),
    /// A request goes where it goes, and ends so.
    Exchange(bool),
    /// One that began before the next step and ends after.
    Begin,
    End(bool),
    /// The file has other servers, by bits; some of them down.
    Reload(u8, u8),
    Cap(u8),
    Off,
}

/// The borders more often than what is between.
fn caps() -> impl Strategy<Value = u8> {
    prop_oneof![Just(50), Just(100), 1..=100_u8]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..15_u64).prop_map(Step::Wait),
        8 => any::<bool>().prop_map(Step::Exchange),
        1 => Just(Step::Begin),
        1 => any::<bool>().prop_map(Step::End),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(all, down)| Step::Reload(all, down)),
        1 => caps().prop_map(Step::Cap),
        1 => Just(Step::Off),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn the_share_holds_and_everybody_comes_back(count in 1..6_u16, cap in caps(), steps in steps()) {
        let mut bench = Bench::with_rule(count, |rule| {
            rule.max_ejected = cap;
            rule.max_fails = 2;
            rule.success_rate =
                Some(SuccessRate { interval: Duration::from_secs(5), min_endpoints: 2, min_requests: 1, deviations: 0.5 });
        });
        let mut seconds = 0;
        let mut open = Vec::new();
        for step in steps {
            match step {
                Step::Wait(time) => {
                    seconds += time;
                    bench.at(seconds);
                }
                Step::Exchange(good) => {
                    let lease = bench.acquire(&[]);
                    let can = bench.servers().iter().any(|server| !server.down);
                    prop_assert_eq!(lease.is_some(), can, "somebody serves as long as somebody may");
                    if let Some(lease) = lease {
                        prop_assert!(lease.endpoint().is_in_service());
                        bench.pool.end(lease, if good { Outcome::Ok } else { CLOSED }, bench.now);
                    }
                }
                Step::Begin => open.extend(bench.acquire(&[])),
                Step::End(good) => {
                    if let Some(lease) = open.pop() {
                        bench.pool.end(lease, if good { Outcome::Ok } else { CLOSED }, bench.now);
                    }
                }
                Step::Reload(all, down) => {
                    let listed = (0..4).filter(|place| all & (1 << place) != 0);
                    let list: Vec<_> = listed.map(|place| (place + 1, 1)).collect();
                    bench.upstream.source = servers(&list);
                    for (place, server) in bench.servers().iter_mut().enumerate() {
                        server.down = down & (1 << place) != 0;
                    }
                    bench.reload(|_| ());
                }
                Step::Cap(cap) => bench.reload(|upstream| upstream.ejection.get_or_insert_default().max_ejected = cap),
                Step::Off => bench.reload(|upstream| upstream.ejection = None),
            }
            let all = bench.pool.endpoints();
            let members: Vec<_> = all.iter().filter(|endpoint| endpoint.is_ready() && !endpoint.is_down()).collect();
            let out: Vec<_> = members.iter().filter(|endpoint| endpoint.health().is_ejected()).collect();
            let share = bench.upstream.ejection.as_ref().map_or(0, |rule| usize::from(rule.max_ejected));
            prop_assert!(out.len() * 100 <= members.len() * share, "{} of {}", out.len(), members.len());
            prop_assert!(members.is_empty() || out.len() < members.len());
            for endpoint in out {
                let until = endpoint.health().out().unwrap().until;
                prop_assert!(until > bench.now || bench.pool.lock().ejections.due.is_some_and(|due| due <= until));
                prop_assert!(until <= bench.now + Duration::from_secs(300));
            }
        }
        seconds += 301;
        bench.at(seconds).serving();
        // Whoever is compared on the way may go out, but never for longer.
        bench.reload(|upstream| upstream.ejection.get_or_insert_default().success_rate = None);
        seconds += 301;
        bench.at(seconds).serving();
        prop_assert!(bench.pool.endpoints().iter().all(|endpoint| !endpoint.health().is_ejected()));
    }
}
