//! Limits that hold, queues that lose nobody, refusals that say when to come back.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::Wake;

use tidegate_config::model::{self, Address, EndpointSource, QueueOrder, Upstream};

use super::*;
use crate::fixtures::{servers, tcp, upstream, worker_spec};
use crate::mix::mix;
use crate::pool::EndpointIds;
use crate::pool::breaker::BreakerState;
use crate::pool::endpoint::{Origin, WorkerKey};
use crate::pool::key::Key;
use crate::pool::lease::{Outcome, TunnelLease};
use crate::pool::symptom::Symptom;

const MILLI: Duration = Duration::from_millis(1);

/// Servers on the ports from 1 on, with so many places each.
fn limited(count: u16, places: u32) -> Upstream {
    let list: Vec<_> = (1..=count).map(|port| (port, 1)).collect();
    let mut upstream = upstream("app", servers(&list));
    upstream.capacity.max_in_flight_per_endpoint = Some(places);
    upstream
}

fn queue(upstream: &mut Upstream) -> &mut QueuePolicy {
    upstream.capacity.queue.as_mut().expect("there is a queue")
}

fn pool(upstream: &Upstream) -> Arc<Pool> {
    Pool::new(EndpointIds::default(), upstream)
}

/// A pool, and a clock that moves when it is told to.
struct Scene {
    pool: Arc<Pool>,
    now: Instant,
    draw: u64,
}

impl Scene {
    fn new(upstream: &Upstream) -> Self {
        Self { pool: pool(upstream), now: Instant::now(), draw: 0 }
    }

    fn acquire(&self, tried: &[EndpointId]) -> Acquired {
        self.pool.acquire(&Wanted { key: &Key::None, tried, draw: self.draw, now: self.now, tunnel: false })
    }

    #[track_caller]
    fn lease(&self) -> Lease {
        match self.acquire(&[]) {
            Acquired::Lease(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn ticket(&self) -> Ticket {
        match self.acquire(&[]) {
            Acquired::Wait(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refusal(&self) -> Refusal {
        match self.acquire(&[]) {
            Acquired::Refuse(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn finish(&self, lease: Lease) {
        lease.finish(Outcome::Ok, self.now);
    }

    fn status(&self) -> QueueStatus {
        self.pool.status().queue
    }

    fn places(&self) -> Option<u32> {
        self.pool.status().places
    }
}

fn poll(ticket: &Ticket) -> Option<Called> {
    ticket.poll(Waker::noop())
}

#[track_caller]
fn leased(ticket: &Ticket) -> Lease {
    match poll(ticket) {
        Some(Called::Lease(lease)) => lease,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(ticket: &Ticket) -> Refusal {
    match poll(ticket) {
        Some(Called::Refuse(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_place_goes_to_whoever_waits_longest_and_to_nobody_else() {
    let scene = Scene::new(&limited(1, 1));
    let held = scene.lease();
    let (first, second) = (scene.ticket(), scene.ticket());
    assert!(poll(&first).is_none() && poll(&second).is_none());
    scene.finish(held);
    assert!(poll(&second).is_none(), "one place, one call");
    assert_eq!(scene.status().waiting, 1);
    let third = scene.ticket();
    let lease = leased(&first);
    assert!(poll(&first).is_none(), "a call is taken once");
    scene.finish(lease);
    scene.finish(leased(&second));
    scene.finish(leased(&third));
    scene.finish(scene.lease());
    assert_eq!(scene.status(), QueueStatus { size: 64, peak: 2, recent_peak: 2, ..QueueStatus::default() });
    let (held, waiting) = (scene.lease(), scene.ticket());
    scene.pool.mark_queue();
    assert_eq!((scene.status().peak, scene.status().recent_peak), (2, 1), "who waits already counts");
    scene.finish(held);
    scene.finish(leased(&waiting));
}

#[test]
fn a_ticket_that_is_dropped_after_its_call_passes_its_place_on() {
    let scene = Scene::new(&limited(1, 1));
    let held = scene.lease();
    let (first, second) = (scene.ticket(), scene.ticket());
    drop(held);
    drop(first);
    let lease = leased(&second);
    let endpoint = Arc::clone(lease.endpoint());
    drop((lease, second));
    let status = endpoint.status();
    assert_eq!((status.in_flight, status.requests), (0, 2), "the endpoint never heard of the one who left");
    assert_eq!(scene.pool.status().in_flight, 0);
}

#[test]
fn the_limit_of_all_endpoints_holds_beside_that_of_each() {
    let mut upstream = limited(3, 2);
    upstream.capacity.max_in_flight = Some(4);
    let scene = Scene::new(&upstream);
    let mut held: Vec<_> = (0..4).map(|_| scene.lease()).collect();
    assert_eq!(scene.places(), Some(4));
    let waits = scene.ticket();
    // A WebSocket gives its place back once it is one.
    let tunnel = held.swap_remove(0).into_tunnel(scene.now);
    let lease = leased(&waits);
    let waits = scene.ticket();
    drop(lease);
    drop((leased(&waits), tunnel, held));
    assert_eq!(scene.pool.status().in_flight, 0);
}

/// One worker with one place for a request and one for a tunnel.
fn narrow() -> Scene {
    let mut upstream = upstream("app", EndpointSource::Workers(worker_spec()));
    upstream.capacity.max_in_flight_per_endpoint = Some(1);
    upstream.capacity.max_tunnels = Some(1);
    let scene = Scene::new(&upstream);
    scene.pool.add_worker(WorkerKey { slot: 0, spawn: 1 }, 1, tcp(1));
    scene
}

fn upgrade(scene: &Scene) -> Acquired {
    scene.pool.acquire(&Wanted { key: &Key::None, tried: &[], draw: 1, now: scene.now, tunnel: true })
}

fn counts(scene: &Scene) -> (u32, u32) {
    let status = scene.pool.status().endpoints[0].clone();
    (status.in_flight, status.tunnels)
}

#[test]
fn tunnels_have_places_of_their_own() {
    let scene = narrow();
    let Acquired::Lease(lease) = upgrade(&scene) else { panic!("all is free") };
    assert_eq!(counts(&scene), (1, 1), "taken before the endpoint is asked");
    let tunnel = lease.into_tunnel(scene.now);
    assert_eq!(counts(&scene), (0, 1));
    let request = scene.lease();
    for _ in 0..2 {
        let Acquired::Refuse(refusal) = upgrade(&scene) else { panic!("no second tunnel, however free the worker") };
        assert_eq!((refusal.kind, refusal.retry_after), (RefusalKind::TunnelsFull, Some(Duration::from_secs(2))));
        let status = scene.pool.status();
        assert_eq!(status.queue.waiting, 0);
    }
    scene.finish(request);
    drop(tunnel);
    let Acquired::Lease(failed) = upgrade(&scene) else { panic!("it has ended") };
    drop(failed);
    assert_eq!(counts(&scene), (0, 0), "a handshake that failed gives both back");
}

#[test]
fn a_long_stream_gives_its_place_to_others() {
    let mut scene = narrow();
    let mut stream = scene.lease();
    let waits = scene.ticket();
    assert!(scene.pass(10_000 * MILLI).now > Instant::now());
    assert!(stream.stream(scene.now));
    let mut next = leased(&waits);
    assert_eq!(counts(&scene), (1, 1));
    assert!(!next.stream(scene.now), "no more of them than may be");
    assert_eq!(counts(&scene), (1, 1));
    let Acquired::Refuse(refusal) = upgrade(&scene) else { panic!("a stream takes the place of a tunnel") };
    assert_eq!(refusal.kind, RefusalKind::TunnelsFull);
    scene.pool.end(stream, Outcome::UpstreamFault(Symptom::ReadTimeout), scene.now);
    assert_eq!(scene.pool.status().endpoints[0].failures, 1, "its end still says something of the endpoint");
    assert!(next.stream(scene.now));
    drop(next);
    assert_eq!((counts(&scene), scene.pool.status().in_flight), ((0, 0), 0));
}

#[test]
fn a_stream_of_an_endpoint_that_leaves_always_moves() {
    let scene = narrow();
    let mut first = scene.lease();
    assert!(first.stream(scene.now));
    let mut second = scene.lease();
    assert!(!scene.pool.endpoints()[0].has_room_for_tunnel());
    let drained = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&drained);
    scene.pool.drain_worker(WorkerKey { slot: 0, spawn: 1 }, Box::new(move || told.store(true, Ordering::SeqCst)));
    assert!(!drained.load(Ordering::SeqCst), "one is in flight");
    assert!(second.stream(scene.now) && drained.load(Ordering::SeqCst));
}

#[test]
fn who_waits_for_a_tunnel_keeps_nobody_else() {
    let scene = narrow();
    let mut stream = scene.lease();
    let Acquired::Wait(tunnel) = upgrade(&scene) else { panic!("there is room for a tunnel, and none for a request") };
    let request = scene.ticket();
    // The stream takes the tunnel's place: who waits for that waits on, and the next one is served.
    assert!(stream.stream(scene.now));
    assert!(poll(&tunnel).is_none());
    scene.finish(leased(&request));
    assert!(poll(&tunnel).is_none());
    drop(stream);
    drop(leased(&tunnel).into_tunnel(scene.now));
}

#[test]
fn an_endpoint_has_a_socket_for_each_place_and_one() {
    for (exchanges, tunnels, most) in
        [(Some(1), Some(0), 2), (Some(4), Some(3), 8), (None, Some(3), 16_384), (Some(4), None, 16_384)]
    {
        let mut upstream = upstream("app", EndpointSource::Workers(worker_spec()));
        upstream.capacity.max_in_flight_per_endpoint = exchanges;
        upstream.capacity.max_tunnels = tunnels;
        let scene = Scene::new(&upstream);
        let endpoint = scene.pool.add_worker(WorkerKey { slot: 0, spawn: 1 }, 1, tcp(1));
        assert_eq!(endpoint.max_connections(), most, "{exchanges:?}, {tunnels:?}");
    }
}

#[test]
fn a_server_that_says_its_own_limit_goes_by_it() {
    let mut upstream = limited(2, 3);
    let EndpointSource::Servers(list) = &mut upstream.source else { panic!("servers") };
    list[0].max_conns = Some(1);
    let scene = Scene::new(&upstream);
    let limits: Vec<_> = scene.pool.endpoints().iter().map(|endpoint| endpoint.max_conns()).collect();
    assert_eq!((limits, scene.places()), (vec![Some(1), Some(3)], Some(4)));
}

#[test]
fn workers_have_the_limit_of_an_endpoint() {
    let mut upstream = upstream("app", EndpointSource::Workers(worker_spec()));
    upstream.capacity.max_in_flight_per_endpoint = Some(1);
    let scene = Scene::new(&upstream);
    let (first, second) = (scene.ticket(), scene.ticket());
    assert_eq!((scene.status().size, first.longest()), (QUEUE_MOST, Duration::from_secs(10)));
    scene.pool.add_worker(WorkerKey { slot: 0, spawn: 1 }, 1, tcp(1));
    let lease = leased(&first);
    assert!(poll(&second).is_none());
    assert_eq!((scene.status().size, scene.ticket().longest()), (QUEUE_LEAST, Duration::from_secs(5)));
    scene.finish(lease);
    drop(leased(&second));
}

#[test]
fn the_queue_is_as_long_as_twice_the_places() {
    for (places, limit, size) in [(1, None, 64), (100, None, 400), (5_000, None, 4_096), (100, Some(40), 80)] {
        let mut upstream = limited(2, places);
        upstream.capacity.max_in_flight = limit;
        assert_eq!(Scene::new(&upstream).status().size, size, "{places} {limit:?}");
        queue(&mut upstream).size = Some(7);
        assert_eq!(Scene::new(&upstream).status().size, 7);
    }
    assert_eq!(Scene::new(&upstream("app", servers(&[(1, 1)]))).status().size, 4_096, "no limit, no number");
}

#[test]
fn beyond_the_queue_requests_are_refused_with_the_time_to_come_back() {
    let mut upstream = limited(1, 2);
    queue(&mut upstream).size = Some(3);
    let mut scene = Scene::new(&upstream);
    // Half a second each, so three that wait and one more take a second at two places.
    for _ in 0..64 {
        let lease = scene.lease();
        scene.pass(500 * MILLI).finish(lease);
    }
    let _held = [scene.lease(), scene.lease()];
    let _tickets = [scene.ticket(), scene.ticket(), scene.ticket()];
    for (draw, seconds) in [(0, 1), (1, 2), (2, 3)] {
        scene.draw = draw;
        let refusal = scene.refusal();
        assert_eq!(refusal.kind, RefusalKind::QueueFull);
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(seconds)), "spread by the draw");
    }
    assert_eq!(scene.status().counts, QueueCounts { full: 3, ..QueueCounts::default() });
    let expired = scene.pool.wait_expired(&[], 0, scene.now);
    assert_eq!(expired.kind, RefusalKind::QueueTimeout);
    assert_eq!(scene.status().counts, QueueCounts { full: 3, timeout: 1, late: 0 });
}

#[test]
fn who_is_refused_is_told_half_a_minute_at_the_most() {
    let mut upstream = limited(1, 1);
    queue(&mut upstream).size = Some(1);
    let mut scene = Scene::new(&upstream);
    let lease = scene.lease();
    scene.pass(Duration::from_secs(600)).finish(lease);
    let (_held, _ticket) = (scene.lease(), scene.ticket());
    assert_eq!(scene.refusal().retry_after, Some(LONGEST_RETRY));
}

#[test]
fn without_a_queue_nobody_waits() {
    let mut upstream = limited(1, 1);
    upstream.capacity.queue = None;
    let scene = Scene::new(&upstream);
    let _held = scene.lease();
    assert_eq!(scene.refusal().kind, RefusalKind::QueueFull);
    upstream.source = EndpointSource::Workers(worker_spec());
    assert_eq!(Scene::new(&upstream).refusal().kind, RefusalKind::NotReadyInTime);
}

#[test]
fn a_request_is_never_handed_an_endpoint_it_has_tried_and_stops_nobody_who_may() {
    let scene = Scene::new(&limited(2, 1));
    let (one, two) = (scene.lease(), scene.lease());
    let failed = one.endpoint().id();
    let Acquired::Wait(retry) = scene.acquire(&[failed]) else { panic!("the other one is full") };
    let behind = scene.ticket();
    scene.finish(one);
    assert!(poll(&retry).is_none(), "it has tried this one");
    let lease = leased(&behind);
    assert_eq!(lease.endpoint().id(), failed);
    scene.finish(lease);
    assert_eq!(scene.lease().endpoint().id(), failed, "what the one who waits cannot use is anybody's");
    scene.finish(two);
    assert_ne!(leased(&retry).endpoint().id(), failed);
}

#[test]
fn nobody_new_overtakes_who_waits() {
    let scene = Scene::new(&limited(1, 1));
    let held = scene.lease();
    let first = scene.ticket();
    scene.finish(held);
    // The place lies in the first one's ticket; who comes now waits, and gets it when the first one leaves.
    let second = scene.ticket();
    assert!(poll(&second).is_none());
    drop(first);
    drop(leased(&second));
}

#[test]
fn a_full_owner_of_a_key_leaves_its_requests_to_anybody() {
    let mut upstream = limited(2, 1);
    upstream.balance = tidegate_config::model::Balance::Consistent(vec![tidegate_config::model::Variable::Path]);
    let scene = Scene::new(&upstream);
    let key = Key::Bytes(Box::from(&b"ann"[..]));
    let acquire = || scene.pool.acquire(&Wanted { key: &key, tried: &[], draw: 0, now: scene.now, tunnel: false });
    let (Acquired::Lease(owner), Acquired::Lease(other)) = (acquire(), acquire()) else { panic!("two places") };
    let Acquired::Wait(ticket) = acquire() else { panic!("both are full") };
    scene.finish(other);
    let lease = leased(&ticket);
    assert_ne!(lease.endpoint().id(), owner.endpoint().id(), "it takes what is free");
    let Acquired::Wait(ticket) = acquire() else { panic!("both are full") };
    drop(lease);
    let one = leased(&ticket);
    let id = owner.endpoint().id();
    drop((one, owner));
    let Acquired::Lease(again) = acquire() else { panic!("both are free") };
    assert_eq!(again.endpoint().id(), id, "and its owner while that is free");
}

#[test]
fn who_waits_for_an_endpoint_that_leaves_is_refused_when_nothing_else_is_there() {
    let mut upstream = limited(2, 1);
    let scene = Scene::new(&upstream);
    let (one, two) = (scene.lease(), scene.lease());
    let Acquired::Wait(retry) = scene.acquire(&[one.endpoint().id()]) else { panic!("the other one is full") };
    let fresh = scene.ticket();
    upstream.source = servers(&[(1, 1)]);
    scene.pool.reconfigure(&upstream);
    assert_eq!(one.endpoint().address(), &tcp(1));
    assert_eq!(refused(&retry).kind, RefusalKind::NoEndpoint);
    assert!(poll(&fresh).is_none());
    scene.finish(two);
    assert!(poll(&fresh).is_none(), "that one is gone");
    scene.finish(one);
    drop(leased(&fresh));
}

#[test]
fn a_reload_that_raises_limits_serves_those_who_wait_and_one_that_lowers_them_takes_nothing_away() {
    let mut upstream = limited(1, 1);
    let scene = Scene::new(&upstream);
    let held = scene.lease();
    let tickets: Vec<_> = (0..4).map(|_| scene.ticket()).collect();
    upstream.capacity.max_in_flight_per_endpoint = Some(3);
    scene.pool.reconfigure(&upstream);
    let served: Vec<_> = tickets.iter().filter_map(poll).collect();
    assert_eq!((served.len(), scene.status().waiting), (2, 2));
    upstream.capacity.max_in_flight_per_endpoint = Some(1);
    upstream.capacity.queue = None;
    scene.pool.reconfigure(&upstream);
    assert_eq!(scene.pool.endpoints()[0].in_flight(), 3);
    drop(served);
    assert!(tickets.iter().all(|ticket| poll(ticket).is_none()), "one is still under way");
    drop(held);
    assert_eq!(tickets.iter().filter_map(poll).map(drop).count(), 2, "one after the other");
    upstream.capacity.max_in_flight_per_endpoint = None;
    scene.pool.reconfigure(&upstream);
    assert_eq!(scene.places(), None);
}

/// One place of which each exchange takes so long, and a request every so often: who is served and who is not.
fn rush(upstream: &Upstream, service: Duration, every: Duration, requests: u32) -> BTreeMap<&'static str, u32> {
    let mut scene = Scene::new(upstream);
    let mut held = Some((scene.lease(), scene.now + service));
    let mut waiting: Vec<(Ticket, Instant)> = Vec::new();
    let mut ends: BTreeMap<&'static str, u32> = BTreeMap::new();
    let (mut next, mut left) = (scene.now + every, requests);
    while left > 0 || !waiting.is_empty() {
        scene.pass(MILLI);
        if held.as_ref().is_some_and(|(_, until)| *until <= scene.now) {
            let (lease, _) = held.take().expect("just seen");
            scene.finish(lease);
        }
        if left > 0 && next <= scene.now {
            (next, left) = (next + every, left - 1);
            match scene.acquire(&[]) {
                Acquired::Lease(lease) => {
                    held = Some((lease, scene.now + service));
                    *ends.entry("served").or_default() += 1;
                }
                Acquired::Wait(ticket) => waiting.push((ticket, scene.now)),
                Acquired::Refuse(refusal) => *ends.entry(refusal.reason()).or_default() += 1,
            }
        }
        waiting.retain(|(ticket, since)| match poll(ticket) {
            None => true,
            Some(Called::Refuse(refusal)) => {
                *ends.entry(refusal.reason()).or_default() += 1;
                false
            }
            Some(Called::Lease(lease)) => {
                let slow = scene.now.duration_since(*since) > service * 4;
                *ends.entry(if slow { "served late" } else { "served" }).or_default() += 1;
                held = Some((lease, scene.now + service));
                false
            }
        });
    }
    ends
}

#[test]
fn under_overload_the_newest_are_served_soon_and_late_ones_are_refused() {
    let upstream = limited(1, 1);
    // Twice as many as can be served, for ten seconds.
    let adaptive = rush(&upstream, 20 * MILLI, 10 * MILLI, 1_000);
    let of = |ends: &BTreeMap<_, _>, end| ends.get(end).copied().unwrap_or_default();
    assert!(of(&adaptive, "served") > 400, "{adaptive:?}");
    assert!(of(&adaptive, "served late") < 30, "{adaptive:?}");
    assert!(of(&adaptive, "queue_late") > 400, "{adaptive:?}");

    let mut fifo = upstream.clone();
    queue(&mut fifo).order = QueueOrder::Fifo;
    let fifo = rush(&fifo, 20 * MILLI, 10 * MILLI, 1_000);
    assert!(of(&fifo, "served late") > 400 && of(&fifo, "queue_late") == 0, "{fifo:?}");

    // As many as can be served: nobody is refused.
    let even = rush(&upstream, 20 * MILLI, 21 * MILLI, 1_000);
    assert_eq!(even, BTreeMap::from([("served", 1_000)]));
}

#[test]
fn a_wait_for_workers_is_no_overload() {
    let mut upstream = upstream("app", EndpointSource::Workers(worker_spec()));
    upstream.capacity.max_in_flight_per_endpoint = Some(1);
    let mut scene = Scene::new(&upstream);
    let tickets: Vec<_> = (0..20)
        .map(|_| {
            scene.pass(300 * MILLI);
            scene.ticket()
        })
        .collect();
    scene.pass(3_000 * MILLI);
    scene.pool.add_worker(WorkerKey { slot: 0, spawn: 1 }, 1, tcp(1));
    // Served in the order they came, quickly now: their seconds before are nobody's fault.
    for ticket in &tickets {
        let lease = leased(ticket);
        scene.pass(MILLI).finish(lease);
    }
    assert_eq!(scene.status().counts, QueueCounts::default());
}

/// A pool of workers that has none, and what it is told of the next one.
fn unborn(hold: u64) -> Scene {
    let mut upstream = upstream("app", EndpointSource::Workers(worker_spec()));
    queue(&mut upstream).hold = Duration::from_secs(hold);
    Scene::new(&upstream)
}

fn foresee(scene: &Scene, starts_in: u64, boot: u64) {
    let next_start = scene.now + Duration::from_secs(starts_in);
    scene.pool.foresee(Some(Outlook { next_start, boot: Duration::from_secs(boot) }));
}

#[test]
fn who_did_not_get_a_worker_is_told_when_there_will_be_one() {
    let mut scene = unborn(10);
    let _waits = scene.ticket();
    let refused = |scene: &Scene| scene.pool.wait_expired(&[], scene.draw, scene.now);
    assert_eq!(refused(&scene).retry_after, Some(Duration::from_secs(1)), "nothing is known");
    for (starts_in, boot, passed, draw, told) in [
        (0, 8, 2_000, 0, 6),
        (0, 8, 2_001, 0, 6),
        (0, 8, 1_999, 0, 7),
        (0, 8, 2_000, 1, 7),
        (0, 8, 2_000, 2, 8),
        (0, 8, 9_000, 0, 1),
        (3, 5, 0, 0, 8),
        (3, 0, 0, 0, 3),
        (0, 0, 0, 0, 1),
        (9, 28, 0, 2, 30),
    ] {
        foresee(&scene, starts_in, boot);
        scene.draw = draw;
        let refusal = refused(scene.pass(Duration::from_millis(passed)));
        let row = format!("starts in {starts_in} s, boots for {boot} s, {passed} ms later, draw {draw}");
        assert_eq!(
            (refusal.kind, refusal.retry_after),
            (RefusalKind::NotReadyInTime, Some(Duration::from_secs(told))),
            "{row}"
        );
    }
}

#[test]
fn nobody_waits_for_a_worker_that_starts_too_late() {
    let mut scene = unborn(10);
    foresee(&scene, 9, 5);
    let waits = scene.ticket();
    assert!(poll(&waits).is_none());
    foresee(&scene, 12, 5);
    let expected = (RefusalKind::NoWorker, Some(Duration::from_secs(17)));
    for refusal in [refused(&waits), scene.refusal()] {
        assert_eq!((refusal.kind, refusal.retry_after), expected);
    }
    scene.pass(2_001 * MILLI);
    assert!(poll(&scene.ticket()).is_none(), "it comes nearer");
}

#[test]
fn a_pool_without_workers_says_why() {
    let scene = unborn(10);
    let key = WorkerKey { slot: 0, spawn: 1 };
    for (expectation, kind) in [
        (Expectation::Crashloop, RefusalKind::Crashloop),
        (Expectation::Stopped, RefusalKind::NoWorker),
        (Expectation::Nothing, RefusalKind::NoEndpoint),
    ] {
        scene.pool.set_expecting(Expectation::Workers);
        let waits = scene.ticket();
        scene.pool.set_expecting(expectation);
        assert_eq!(refused(&waits).kind, kind);
        assert_eq!(scene.refusal().kind, kind);
    }
    scene.pool.set_expecting(Expectation::Crashloop);
    foresee(&scene, 20, 4);
    assert_eq!(scene.refusal().retry_after, Some(Duration::from_secs(24)), "no wait, but a time");
    scene.pool.add_worker(key, 1, tcp(1));
    let lease = scene.lease();
    assert_eq!(lease.endpoint().status().origin, Origin::Worker { key, pid: 1 }, "those that are ready serve on");
    scene.pool.set_expecting(Expectation::Stopped);
    scene.pool.drain_worker(key, Box::new(|| {}));
    assert_eq!(scene.refusal().kind, RefusalKind::Draining);
    drop(lease);
    scene.pool.remove_worker(key);
    assert_eq!(scene.refusal().kind, RefusalKind::NoWorker);
}

#[test]
fn a_pool_and_its_successor_share_the_places_of_their_workers() {
    let mut upstream = upstream("app", EndpointSource::Workers(worker_spec()));
    upstream.capacity.max_in_flight_per_endpoint = Some(1);
    let old = Scene::new(&upstream);
    old.pool.add_worker(WorkerKey { slot: 0, spawn: 1 }, 1, tcp(1));
    let next = Scene { pool: old.pool.after(&upstream), now: old.now, draw: 0 };
    next.pool.succeed(&old.pool);
    let held = old.lease();
    let (of_next, of_old) = (next.ticket(), old.ticket());
    assert!(poll(&of_next).is_none());
    next.finish(held);
    let called = [poll(&of_next), poll(&of_old)];
    assert_eq!(called.iter().flatten().count(), 1, "{called:?}");
    drop(called);
    let second = [poll(&of_next), poll(&of_old)];
    assert_eq!(second.iter().flatten().count(), 1, "the place of one goes to the other: {second:?}");
}

/// Two servers with one place each; the second one is out for ten seconds, the first one is busy.
fn one_is_out() -> (Scene, Lease) {
    let mut upstream = limited(2, 1);
    upstream.ejection = Some(model::Ejection { max_fails: 1, max_ejected: 50, ..Default::default() });
    let scene = Scene::new(&upstream);
    let (first, second) = (scene.lease(), scene.lease());
    scene.pool.end(second, Outcome::UpstreamFault(Symptom::Closed), scene.now);
    (scene, first)
}

#[test]
fn who_waits_gets_an_endpoint_that_comes_back_by_the_clock_alone() {
    let (mut scene, _held) = one_is_out();
    let ticket = scene.ticket();
    let back = ticket.look(scene.now).expect("it comes back");
    assert_eq!(back - scene.now, Duration::from_secs(10));
    scene.now = back - MILLI;
    assert_eq!(ticket.look(scene.now), Some(back));
    assert!(poll(&ticket).is_none());
    scene.pass(MILLI);
    assert_eq!(ticket.look(scene.now), None, "nothing more to come");
    assert_eq!(leased(&ticket).endpoint().address(), &tcp(2));
}

#[test]
fn who_waits_hears_of_a_new_time_to_look() {
    let mut upstream = limited(2, 2);
    upstream.ejection = Some(model::Ejection { max_fails: 1, max_ejected: 50, ..Default::default() });
    let mut scene = Scene::new(&upstream);
    let mut held = [(); 4].map(|()| Some(scene.lease()));
    let mut waiting = Waiting::new(scene.ticket());
    assert!(waiting.run(scene.now).is_none());
    assert_eq!(waiting.look_at, None, "nothing comes by the clock alone");
    let failed = held[1].take().expect("held");
    scene.pass(MILLI);
    scene.pool.end(failed, Outcome::UpstreamFault(Symptom::Closed), scene.now);
    assert!(waiting.woken.0.load(Ordering::SeqCst));
    assert!(waiting.run(scene.now).is_none());
    assert_eq!(waiting.look_at, Some(scene.now + Duration::from_secs(10)));
}

#[test]
fn nobody_waits_while_the_breaker_is_open() {
    let mut upstream = limited(1, 1);
    upstream.breaker = Some(model::Breaker { failures: 1, ..BREAKER });
    let mut scene = Scene::new(&upstream);
    let held = scene.lease();
    let tickets = [scene.ticket(), scene.ticket()];
    scene.pool.end(held, Outcome::UpstreamFault(Symptom::Closed), scene.now);
    for ticket in tickets {
        assert_eq!(refused(&ticket).kind, RefusalKind::BreakerOpen);
    }
    assert_eq!(scene.refusal().kind, RefusalKind::BreakerOpen);
    scene.pass(20 * MILLI);
    scene.finish(scene.lease());
}

#[test]
fn who_has_failed_everywhere_else_need_not_wait_for_the_clock() {
    let (scene, held) = one_is_out();
    let busy = held.endpoint().id();
    let out = scene.pool.endpoints().iter().find(|one| one.id() != busy).expect("two").id();
    // What it waits for leaves: the other one is out of service, and better than none.
    let third = WorkerKey { slot: 0, spawn: 1 };
    scene.pool.add_worker(third, 1, tcp(3));
    let taken = scene.lease();
    let Acquired::Wait(ticket) = scene.acquire(&[busy]) else { panic!("the worker is busy") };
    scene.pool.remove_worker(third);
    assert_eq!(leased(&ticket).endpoint().id(), out);
    drop(taken);
}

/// Endpoints leave and come back within a walk.
fn ejection() -> model::Ejection {
    let fail_timeout = 30 * MILLI;
    model::Ejection { max_fails: 2, fail_timeout, max_time: 3 * fail_timeout, max_ejected: 80, ..Default::default() }
}

const BREAKER: model::Breaker = model::Breaker {
    statuses: Vec::new(),
    failures: 3,
    share: 50,
    window: Duration::from_millis(100),
    min_requests: 10,
    cool_down: Duration::from_millis(20),
    max_cool_down: Duration::from_millis(60),
    probes: 2,
    successes: 2,
};

/// A request that waits as the drivers have it wait.
struct Waiting {
    ticket: Ticket,
    tried: Vec<EndpointId>,
    tunnel: bool,
    woken: Arc<Woken>,
    look_at: Option<Instant>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Waiting {
    fn new(ticket: Ticket) -> Self {
        Self { ticket, tried: Vec::new(), tunnel: false, woken: Arc::default(), look_at: None }
    }

    fn run(&mut self, now: Instant) -> Option<Called> {
        loop {
            self.woken.0.store(false, Ordering::SeqCst);
            let called = self.ticket.poll(&Waker::from(Arc::clone(&self.woken)));
            if called.is_some() {
                return called;
            }
            self.look_at = self.ticket.look(now);
            if !self.woken.0.load(Ordering::SeqCst) {
                return None;
            }
        }
    }
}

/// What a random walk holds, and what must be true after every step of it.
struct Walk {
    upstream: Upstream,
    pool: Arc<Pool>,
    random: u64,
    now: Instant,
    leases: Vec<Lease>,
    /// Leases that are to become tunnels.
    handshakes: Vec<Lease>,
    /// Leases that have become streams.
    streams: Vec<Lease>,
    tunnels: Vec<TunnelLease>,
    tickets: Vec<Waiting>,
    spawn: u64,
    /// Queue entries that came to an end, by how.
    ends: [u64; 3],
    begun: u64,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut upstream = limited(4, 2);
        upstream.capacity.max_in_flight = Some(6);
        upstream.capacity.max_tunnels = Some(1);
        queue(&mut upstream).size = Some(12);
        upstream.ejection = Some(ejection());
        let pool = pool(&upstream);
        Self {
            upstream,
            pool,
            random: seed,
            now: Instant::now(),
            leases: Vec::new(),
            handshakes: Vec::new(),
            streams: Vec::new(),
            tunnels: Vec::new(),
            tickets: Vec::new(),
            spawn: 0,
            ends: [0; 3],
            begun: 0,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.random) % bound.max(1) as u64) as usize
    }

    fn step(&mut self) {
        match self.below(100) {
            0..40 => self.acquire(),
            40..66 => self.finish(),
            66..69 => {
                let place = self.below(self.leases.len());
                drop((place < self.leases.len()).then(|| self.leases.swap_remove(place)));
            }
            69 => {
                let lease = self.handshakes.pop();
                self.tunnels.extend(lease.map(|lease| lease.into_tunnel(self.now)));
            }
            70..72 => self.stream(),
            72 if self.below(2) == 0 => drop(self.tunnels.pop()),
            72 => drop(self.streams.pop()),
            73..80 => {
                let place = self.below(self.tickets.len());
                drop((place < self.tickets.len()).then(|| self.tickets.swap_remove(place)));
                self.ends[2] += 1;
            }
            80..94 => self.poll(),
            94..97 => {
                let passed = self.below(40) as u32;
                self.now += MILLI * passed;
                self.run_timers();
            }
            97 => self.reload(),
            98 => self.workers(),
            _ => {
                let expectation = [Expectation::Nothing, Expectation::Workers][self.below(2)];
                self.pool.set_expecting(expectation);
            }
        }
        self.check();
    }

    fn acquire(&mut self) {
        let endpoints = self.pool.endpoints();
        let count = [0, 0, 0, 1, 2][self.below(5)].min(endpoints.len());
        let tried: Vec<_> = (0..count).map(|_| endpoints[self.below(endpoints.len())].id()).collect();
        let (draw, tunnel) = (self.random, self.below(6) == 0);
        match self.pool.acquire(&Wanted { key: &Key::None, tried: &tried, draw, now: self.now, tunnel }) {
            Acquired::Lease(lease) => self.take(lease, &tried, tunnel),
            Acquired::Wait(ticket) => {
                self.begun += 1;
                let mut waiting = Waiting { tried, tunnel, ..Waiting::new(ticket) };
                assert!(waiting.run(self.now).is_none(), "nobody came in between");
                self.tickets.push(waiting);
            }
            Acquired::Refuse(_) => {}
        }
    }

    fn take(&mut self, lease: Lease, tried: &[EndpointId], tunnel: bool) {
        assert!(!tried.contains(&lease.endpoint().id()), "an endpoint that was tried");
        if tunnel { self.handshakes.push(lease) } else { self.leases.push(lease) }
    }

    /// An answer turns out to be long.
    fn stream(&mut self) {
        let Some(mut lease) = self.leases.pop() else { return };
        let before = lease.endpoint().status();
        let streams = lease.stream(self.now);
        let after = lease.endpoint().status();
        let is_free = before.max_tunnels.is_none_or(|most| before.tunnels < most);
        assert_eq!(streams, is_free || !lease.endpoint().is_ready(), "{before:?}");
        if streams {
            assert!(lease.stream(self.now), "it is one already");
            // Its place may be somebody's already who is to become a tunnel.
            assert!(after.tunnels > before.tunnels);
            assert!(after.max_tunnels.is_none_or(|most| after.tunnels <= most.max(before.tunnels + 1)), "{after:?}");
            self.streams.push(lease);
        } else {
            assert_eq!((after.in_flight, after.tunnels), (before.in_flight, before.tunnels));
            self.leases.push(lease);
        }
    }

    fn finish(&mut self) {
        let place = self.below(self.leases.len());
        if place < self.leases.len() {
            let outcome = match self.below(6) {
                0 => Outcome::UpstreamFault(Symptom::Closed),
                _ => Outcome::Ok,
            };
            self.pool.end(self.leases.swap_remove(place), outcome, self.now);
        }
    }

    /// Whoever waits looks when it was to look, or was woken. Then nobody waits for what the clock has brought.
    fn run_timers(&mut self) {
        let now = self.now;
        for place in (0..self.tickets.len()).rev() {
            let waiting = &mut self.tickets[place];
            if (waiting.woken.0.load(Ordering::SeqCst) || waiting.look_at.is_some_and(|at| at <= now))
                && let Some(called) = waiting.run(now)
            {
                self.end_wait(place, called);
            }
        }
        if self.pool.status().queue.waiting > 0 {
            let endpoints = self.pool.endpoints();
            let ready = endpoints.iter().filter(|endpoint| endpoint.is_ready());
            let out: Vec<_> = ready.filter_map(|one| one.health().out()).collect();
            assert!(out.iter().all(|out| out.until > now), "some wait although others are to come back: {out:?}");
        }
    }

    /// Takes what somebody was called with.
    fn poll(&mut self) {
        let place = self.below(self.tickets.len());
        let Some(waiting) = self.tickets.get_mut(place) else { return };
        if let Some(called) = waiting.run(self.now) {
            self.end_wait(place, called);
        }
    }

    fn end_wait(&mut self, place: usize, called: Called) {
        let Waiting { ticket, tried, tunnel, .. } = self.tickets.swap_remove(place);
        assert!(poll(&ticket).is_none(), "called twice");
        drop(ticket);
        match called {
            Called::Lease(lease) => {
                self.ends[0] += 1;
                self.take(lease, &tried, tunnel);
            }
            Called::Refuse(_) => self.ends[1] += 1,
        }
    }

    fn reload(&mut self) {
        let ports: Vec<_> = (1..=4).filter(|_| self.below(4) > 0).map(|port| (port, 1)).collect();
        let workers = self.below(4) == 0;
        self.upstream.source = if workers {
            EndpointSource::Workers(worker_spec())
        } else {
            servers(if ports.is_empty() { &[(1, 1)] } else { &ports })
        };
        let places = self.below(4) as u32;
        self.upstream.capacity.max_in_flight_per_endpoint = Some(places).filter(|places| *places > 0);
        let places = self.below(9) as u32;
        self.upstream.capacity.max_in_flight = Some(places).filter(|places| *places > 0);
        let places = self.below(4) as u32;
        self.upstream.capacity.max_tunnels = Some(places).filter(|places| *places < 3);
        let target = self.below(3) as u32;
        queue(&mut self.upstream).target = Some(MILLI * target).filter(|target| !target.is_zero());
        self.upstream.ejection = (self.below(3) > 0).then(ejection);
        self.upstream.breaker = (self.below(3) == 0).then_some(BREAKER);
        self.pool.reconfigure(&self.upstream);
    }

    fn workers(&mut self) {
        self.spawn += 1;
        let key = |spawn| WorkerKey { slot: 0, spawn };
        match self.below(3) {
            0 if matches!(self.upstream.source, EndpointSource::Workers(_)) => {
                self.pool.add_worker(key(self.spawn), 1, tcp(9));
            }
            1 => self.pool.drain_worker(key(self.spawn.saturating_sub(1)), Box::new(|| {})),
            _ => self.pool.remove_worker(key(self.spawn.saturating_sub(2))),
        }
    }

    fn check(&self) {
        let status = self.pool.status();
        // A lease lies in a ticket, or is with us; and every ticket waits, or has been called.
        let called = self.tickets.len() - status.queue.waiting;
        let held = status.in_flight as usize - self.leases.len() - self.handshakes.len();
        assert!(held <= called, "{held} leases lie in {called} tickets");
        assert!(status.queue.waiting <= 12 && self.begun >= self.ends[0] + self.ends[1]);
        let open = status.breaker.is_some_and(|breaker| breaker.state == BreakerState::Open);
        assert!(!open || status.queue.waiting == 0, "nobody waits for what an open breaker would refuse");
        // Whatever is free now, nobody waits for it.
        let endpoints = self.pool.endpoints();
        let free: Vec<_> = endpoints.iter().filter(|one| one.is_in_service() && one.has_room()).collect();
        let room = self.upstream.capacity.max_in_flight.is_none_or(|most| status.in_flight < most);
        if room && !free.is_empty() {
            let inner = self.pool.lock();
            let mut place = None;
            let policy = self.upstream.capacity.queue.expect("always");
            while let Some((number, entry)) = inner.queue.after(place, &policy) {
                let mut usable = free.iter().filter(|one| !entry.is_tunnel() || one.has_room_for_tunnel());
                assert!(usable.all(|one| entry.tried().contains(&one.id())), "one waits for what is free");
                place = Some(number);
            }
        }
    }

    /// Nothing is left over when all have gone.
    fn end(mut self) -> [u64; 3] {
        self.tickets.clear();
        self.leases.clear();
        self.handshakes.clear();
        self.streams.clear();
        self.tunnels.clear();
        let status = self.pool.status();
        assert_eq!((status.in_flight, status.queue.waiting), (0, 0));
        for endpoint in self.pool.endpoints() {
            let status = endpoint.status();
            assert_eq!((status.in_flight, status.tunnels), (0, 0), "{status:?}");
        }
        self.ends
    }
}

/// A walk of so many steps. Limits of endpoints that are lowered are exceeded until those under way are over, so they
/// are looked at where they are taken.
fn walk(seeds: std::ops::Range<u64>, steps: u64) {
    let mut ends = [0; 3];
    for seed in seeds {
        let mut walk = Walk::new(mix(seed));
        (0..steps).for_each(|_| walk.step());
        ends.iter_mut().zip(walk.end()).for_each(|(sum, count)| *sum += count);
    }
    let [served, refused, left] = ends;
    assert!(served > 100 && refused > 100 && left > 100, "every way to end: {ends:?}");
}

#[test]
fn a_random_walk_loses_nothing_and_exceeds_nothing() {
    walk(0..40, 1_000);
}

#[test]
#[ignore = "long: make drill"]
fn queue_random_walk_of_two_million_steps() {
    walk(1_000..1_200, 10_000);
}

/// Threads that take, finish, drop, wait and leave, on few places: counted by themselves.
fn stress(rounds: u64, size: Option<usize>) {
    const THREADS: u64 = 4;
    const PLACES: i64 = 2;
    const MOST: i64 = 3;
    let mut upstream = limited(2, PLACES as u32);
    upstream.capacity.max_in_flight = Some(MOST as u32);
    upstream.capacity.queue = size.map(|_| QueuePolicy { size, ..QueuePolicy::default() });
    let pool = pool(&upstream);
    let ids: Vec<_> = pool.endpoints().iter().map(|endpoint| endpoint.id()).collect();
    let at: Vec<AtomicI64> = ids.iter().map(|_| AtomicI64::new(0)).collect();
    let (all, served, stuck) = (AtomicI64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let use_lease = |lease: Lease, random: u64| {
        let place = ids.iter().position(|id| *id == lease.endpoint().id()).expect("one of them");
        let (here, everywhere) = (at[place].fetch_add(1, Ordering::SeqCst), all.fetch_add(1, Ordering::SeqCst));
        assert!(here < PLACES && everywhere < MOST, "{here} here, {everywhere} in all, and one more");
        served.fetch_add(1, Ordering::SeqCst);
        if random.is_multiple_of(3) {
            std::thread::yield_now();
        }
        at[place].fetch_sub(1, Ordering::SeqCst);
        all.fetch_sub(1, Ordering::SeqCst);
        if random.is_multiple_of(5) { drop(lease) } else { lease.finish(Outcome::Ok, Instant::now()) }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pool, use_lease, ids, stuck) = (&pool, &use_lease, &ids, &stuck);
            scope.spawn(move || {
                for round in 0..rounds {
                    let random = mix(thread << 32 | round);
                    let tried = if random.is_multiple_of(7) { &ids[..1] } else { &[] };
                    let now = Instant::now();
                    match pool.acquire(&Wanted { key: &Key::None, tried, draw: random, now, tunnel: false }) {
                        Acquired::Lease(lease) => use_lease(lease, random),
                        Acquired::Refuse(_) => {}
                        Acquired::Wait(ticket) if random.is_multiple_of(4) => drop(ticket),
                        Acquired::Wait(ticket) => {
                            let waker = Waker::from(Arc::new(Unpark(Mutex::new(Some(std::thread::current())))));
                            loop {
                                if let Some(called) = ticket.poll(&waker) {
                                    if let Called::Lease(lease) = called {
                                        use_lease(lease, random);
                                    }
                                    break;
                                }
                                std::thread::park_timeout(Duration::from_secs(5));
                                if now.elapsed() > Duration::from_secs(5) {
                                    stuck.store(true, Ordering::SeqCst);
                                    break;
                                }
                            }
                        }
                    }
                }
            });
        }
    });
    let status = pool.status();
    assert!(!stuck.load(Ordering::SeqCst), "somebody waited although places were free: {status:?}");
    assert_eq!((status.in_flight, status.queue.waiting), (0, 0));
    let requests: u64 = status.endpoints.iter().map(|endpoint| endpoint.requests).sum();
    assert_eq!(requests, served.load(Ordering::SeqCst));
}

/// One gives the only place back while the other begins to wait for it: one of both has to see the other, and there is
/// nobody else who would.
#[test]
fn a_place_given_back_while_somebody_joins_is_not_lost() {
    let scene = Scene::new(&limited(1, 1));
    let (held, turn) = (Mutex::new(None), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                turn.wait();
                let lease: Option<Lease> = held.lock().expect("not poisoned").take();
                turn.wait();
                drop(lease);
                turn.wait();
            }
        });
        for round in 0..20_000 {
            *held.lock().expect("not poisoned") = Some(scene.lease());
            turn.wait();
            turn.wait();
            let acquired = scene.acquire(&[]);
            turn.wait();
            if let Acquired::Wait(ticket) = acquired {
                assert!(poll(&ticket).is_some(), "round {round}");
            }
        }
    });
}

/// Wakes a thread.
struct Unpark(Mutex<Option<std::thread::Thread>>);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        if let Some(thread) = self.0.lock().expect("not poisoned").take() {
            thread.unpark();
        }
    }
}

#[test]
fn threads_that_meet_lose_no_place() {
    stress(5_000, Some(8));
    stress(20_000, None);
}

#[test]
#[ignore = "long: make drill"]
fn queue_stress_of_two_million_rounds() {
    stress(250_000, Some(8));
    stress(250_000, None);
}

/// A pool of workers with eleven places each, of which new ones take a hundred seconds to grow into theirs.
fn growing() -> Scene {
    let mut upstream = upstream("app", EndpointSource::Workers(worker_spec()));
    upstream.capacity.max_in_flight_per_endpoint = Some(11);
    upstream.slow_start = Duration::from_secs(100);
    Scene::new(&upstream)
}

fn start(scene: &Scene, slot: u32) -> Arc<Endpoint> {
    let address = Address::Unix(format!("/{slot}").into());
    scene.pool.add_worker(WorkerKey { slot, spawn: u64::from(slot) + 1 }, 1, address)
}

#[test]
fn a_new_worker_grows_into_its_places_beside_others() {
    let mut scene = growing();
    let (first, second) = (start(&scene, 0), start(&scene, 1));
    let most = |endpoints: [&Endpoint; 2]| endpoints.map(|endpoint| endpoint.max_conns().expect("a limit"));
    scene.finish(scene.lease());
    assert_eq!(most([&first, &second]), [11, 11], "where all are new, nobody could take the load");
    scene.pass(Duration::from_secs(100));
    scene.finish(scene.lease());
    let third = start(&scene, 2);
    assert_eq!((most([&first, &third]), scene.places()), ([11, 1], Some(23)));
    let mut seen = Vec::new();
    scene.finish(scene.lease());
    for _ in 0..=10 {
        scene.pass(Duration::from_secs(10));
        scene.finish(scene.lease());
        seen.push(most([&first, &third])[1]);
    }
    assert_eq!(seen, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11]);
    // Whoever was seasoned leaves: the new one takes what there is to take.
    let fourth = start(&scene, 3);
    assert_eq!(most([&first, &fourth]), [11, 1]);
    for slot in 0..3 {
        scene.pool.drain_worker(WorkerKey { slot, spawn: u64::from(slot) + 1 }, Box::new(|| {}));
    }
    assert_eq!(fourth.max_conns(), Some(11));
}

#[derive(Default)]
struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn who_waits_gets_the_next_place_of_a_new_worker_when_it_opens() {
    let mut scene = growing();
    start(&scene, 0);
    scene.finish(scene.lease());
    scene.pass(Duration::from_secs(100));
    let mut held: Vec<_> = (0..11).map(|_| scene.lease()).collect();
    let (first, second) = (scene.ticket(), scene.ticket());
    let alarm = Arc::new(Alarm::default());
    assert!(second.poll(&Waker::from(Arc::clone(&alarm))).is_none());
    assert_eq!(second.look(scene.now), None);
    let new = start(&scene, 1);
    held.push(leased(&first));
    assert!(alarm.0.load(Ordering::SeqCst), "it has to look again");
    assert_eq!((new.in_flight(), new.max_conns()), (1, Some(1)));
    let next = second.look(scene.now).expect("the next step");
    assert_eq!(next, scene.now + Duration::from_secs(10));
    assert!(poll(&second).is_none());
    scene.now = next;
    let _ = second.look(scene.now);
    held.push(leased(&second));
    assert_eq!((new.in_flight(), new.max_conns()), (2, Some(2)));
}
