//! The step machine, event by event.

use std::task::Waker;

use proptest::prelude::*;
use tidegate_config::Networks;
use tidegate_config::model::{
    ConcurrencyLimit, EndpointSource, ForwardPath, Model, Rate, RateLimit, RateLimitHeaders, RateLimitUse, SameSite,
    Sticky, Upstream, Variable,
};

use super::*;
use crate::fixtures::{
    self, FieldList, Request as Asked, fields, get, model, proxy, respond, route, servers, site, upstream,
};
use crate::head::ResponseView;
use crate::pool::endpoint::WorkerKey;
use crate::pool::key::Key;
use crate::pool::queue::Ticket;
use crate::pool::sticky::{Seal, Seals};
use crate::pool::{Acquired, Expectation, Wanted};
use crate::retry::{Cause, Failure, Heard, Sent, Stage};
use crate::traffic::{Identities, Traffic};

pub(super) const CLOSED: Failure = Failure {
    stage: Stage::Head,
    cause: Cause::Closed,
    reused: false,
    sent: Sent::Some,
    body_replayable: true,
    heard: Heard::Nothing,
};
pub(super) const REFUSED: Failure = Failure { stage: Stage::Connect, sent: Sent::Nothing, ..CLOSED };
const STALE: Failure = Failure { reused: true, ..CLOSED };
pub(super) const SLOW: Failure = Failure { cause: Cause::TimedOut, ..CLOSED };

fn traffic(ports: &[(u16, u32)]) -> Traffic {
    Traffic::build(&app(upstream("app", servers(ports))), None, &Identities::default())
}

fn app(upstream: Upstream) -> Model {
    let mut small = route("/small", proxy("app"));
    small.max_body = 10;
    let mut raw = route("/raw", proxy("app"));
    raw.forward_path = ForwardPath::Raw;
    let routes = vec![
        small,
        raw,
        route("/fixed", respond("hello")),
        route("= /lost", proxy("gone")),
        route("/app", proxy("app")),
    ];
    model(vec![site("s", &["h"], routes)], vec![upstream])
}

/// An exchange under way, with what it said last in one word.
pub(super) struct Run {
    pub(super) traffic: Traffic,
    pub(super) exchange: Exchange,
    pub(super) now: Instant,
    ticket: Option<Ticket>,
}

impl Run {
    pub(super) fn new(traffic: Traffic) -> Self {
        let now = Instant::now();
        Self { traffic, exchange: Exchange::new(RequestId(1), now), now, ticket: None }
    }

    pub(super) fn head(&mut self, request: &Asked) -> String {
        let action = request.view(|head| self.exchange.step(&self.traffic, Event::Head(head), self.now)).unwrap();
        self.word(action)
    }

    pub(super) fn step(&mut self, event: Event<'_>) -> String {
        let action = self.exchange.step(&self.traffic, event, self.now);
        self.word(action)
    }

    pub(super) fn fail(&mut self, failure: Failure) -> String {
        self.step(Event::AttemptFailed(failure))
    }

    /// Takes what the ticket has been called with.
    fn called(&mut self) -> String {
        let called = self.ticket.take().and_then(|ticket| ticket.poll(Waker::noop()));
        self.step(Event::Called(called.expect("the ticket was called")))
    }

    pub(super) fn respond(&mut self, status: u16, list: &[(&str, &str)]) -> String {
        let list: FieldList = fields(list);
        self.step(Event::ResponseHead(ResponseView { status, fields: &list, replayable: true }))
    }

    pub(super) fn word(&mut self, action: Action) -> String {
        match action {
            Action::Respond(Answer::Refused(refusal)) => refusal.reason().to_owned(),
            Action::Respond(Answer::Fixed(response)) => format!("fixed {}", response.status),
            Action::Collect { most } => format!("collect {most}"),
            Action::Delay { until } => format!("delay {:?}", until - self.now),
            Action::Queue { ticket, until } => {
                self.ticket = Some(ticket);
                format!("queue {:?}", until - self.now)
            }
            Action::Forward(attempt) => {
                let tidegate_config::model::Address::Tcp(address) = attempt.endpoint.address() else { panic!("tcp") };
                let fresh = if attempt.fresh { " fresh" } else { "" };
                assert_eq!(attempt.number, self.exchange.attempts());
                format!("to {}{fresh}", address.port())
            }
            Action::Hedge(attempt) => {
                let tidegate_config::model::Address::Tcp(address) = attempt.endpoint.address() else { panic!("tcp") };
                format!("also to {}", address.port())
            }
            Action::Keep(leg) => format!("keep {leg:?}"),
            Action::Discard => "discard".to_owned(),
            Action::Relay { tunnel, .. } => if tunnel { "tunnel" } else { "relay" }.to_owned(),
            Action::Done => "done".to_owned(),
        }
    }

    pub(super) fn loads(&self) -> Vec<(u32, u32)> {
        let endpoints = self.traffic.pools.iter().flat_map(|pool| pool.endpoints());
        endpoints.map(|endpoint| (endpoint.in_flight(), endpoint.status().tunnels)).collect()
    }

    /// Requests that endpoints answered or failed for good, as they counted them.
    pub(super) fn ends(&self) -> u64 {
        let endpoints = self.traffic.pools.iter().flat_map(|pool| pool.endpoints());
        endpoints.map(|endpoint| endpoint.served()).map(|served| served.answered + served.faults.failed()).sum()
    }
}

/// What follows the head and each failure in turn.
fn walk(ports: &[(u16, u32)], method: &'static str, failures: &[Failure]) -> Vec<String> {
    let mut run = Run::new(traffic(ports));
    let mut words = vec![run.head(&get("h", "/app").method(method))];
    words.extend(failures.iter().map(|failure| run.fail(*failure)));
    assert_eq!(run.step(Event::Finished(Outcome::Ok)), "done");
    assert!(run.loads().iter().all(|load| *load == (0, 0)), "{method} {failures:?}");
    words
}

#[test]
fn a_request_is_forwarded_relayed_and_given_back() {
    let mut run = Run::new(traffic(&[(1, 1)]));
    assert_eq!(run.head(&get("h", "/app/x")), "to 1");
    assert_eq!(run.loads(), [(1, 0)]);
    assert_eq!(run.exchange.route(), Some(RouteId(4)));
    assert_eq!(run.respond(103, &[]), "relay");
    assert_eq!(run.respond(200, &[]), "relay");
    assert_eq!(run.loads(), [(1, 0)], "held until the body has passed");
    assert_eq!(run.step(Event::Finished(Outcome::Ok)), "done");
    assert_eq!(run.loads(), [(0, 0)]);
    assert!(run.exchange.timings().response_head.is_some());
}

#[test]
fn a_body_is_collected_before_an_endpoint_is_taken() {
    let mut model = app(upstream("app", servers(&[(1, 1)])));
    for route in &mut model.sites[0].routes {
        route.buffer.request = 7;
    }
    for (body, expected) in [
        (crate::head::BodyLength::None, "to 1"),
        (crate::head::BodyLength::Known(0), "to 1"),
        (crate::head::BodyLength::Known(5), "collect 7"),
        (crate::head::BodyLength::Unknown, "collect 7"),
    ] {
        let mut run = Run::new(Traffic::build(&model, None, &Identities::default()));
        assert_eq!(run.head(&Asked { body, ..get("h", "/app") }), expected);
        if expected.starts_with("collect") {
            assert_eq!(run.loads(), [(0, 0)], "nothing is taken from the pool meanwhile");
            assert_eq!(run.step(Event::Collected), "to 1");
        }
        assert_eq!(run.loads(), [(1, 0)]);
        assert_eq!(run.step(Event::Collected), "internal", "once only");
    }
    let mut run = Run::new(Traffic::build(&model, None, &Identities::default()));
    run.head(&Asked { body: crate::head::BodyLength::Unknown, ..get("h", "/app") });
    assert_eq!(run.step(Event::Finished(Outcome::Cancelled)), "done", "a client may leave while it sends");
    assert_eq!(run.loads(), [(0, 0)]);
}

/// The usual routes, all under one limit of a request in a second with a burst of one that waits.
fn limited() -> Run {
    let mut model = app(upstream("app", servers(&[(1, 1)])));
    let limit = RateLimit {
        name: "slow".to_owned(),
        named: true,
        rate: Rate { requests: 1, per: Duration::from_secs(1) },
        burst: 1,
        delay: Some(0),
        key: vec![Variable::ClientAddress],
        status: 503,
        headers: RateLimitHeaders::Legacy,
        dry_run: false,
        allow: Networks::default(),
        entries: 1024,
    };
    model.rate_limits.insert("slow".to_owned(), limit);
    for route in &mut model.sites[0].routes {
        route.rate_limits = vec![RateLimitUse { limit: "slow".to_owned(), cost: 1 }];
        route.buffer.request = 7;
    }
    Run::new(Traffic::build(&model, None, &Identities::default()))
}

#[test]
fn a_request_is_under_way_once_its_time_has_come() {
    let mut model = app(upstream("app", servers(&[(1, 1)])));
    let rate = RateLimit {
        name: "slow".to_owned(),
        named: true,
        rate: Rate { requests: 1, per: Duration::from_secs(1) },
        burst: 1,
        delay: Some(0),
        key: vec![Variable::ClientAddress],
        status: 429,
        headers: RateLimitHeaders::Off,
        dry_run: false,
        allow: Networks::default(),
        entries: 1024,
    };
    let one = ConcurrencyLimit {
        name: "one".to_owned(),
        max: 1,
        key: vec![Variable::Header("x-user".to_owned())],
        status: 503,
        dry_run: false,
        allow: Networks::default(),
    };
    model.rate_limits.insert("slow".to_owned(), rate);
    model.concurrency_limits.insert("one".to_owned(), one);
    for route in &mut model.sites[0].routes {
        route.rate_limits = vec![RateLimitUse { limit: "slow".to_owned(), cost: 1 }];
        route.concurrency = vec!["one".to_owned()];
    }
    let mut run = Run::new(Traffic::build(&model, None, &Identities::default()));
    assert_eq!(run.head(&get("h", "/app").with("x-user", "ann")), "to 1");
    let first = std::mem::replace(&mut run.exchange, Exchange::new(RequestId(2), run.now));
    assert_eq!(run.head(&get("h", "/app").with("x-user", "ann")), "delay 1s");
    let second = std::mem::replace(&mut run.exchange, Exchange::new(RequestId(3), run.now));
    assert_eq!(run.head(&get("h", "/app").with("x-user", "bob")), "rate_limited", "asked first");
    run.exchange = second;
    run.now += Duration::from_secs(1);
    assert_eq!(under_way(&run), 1, "not while it waits for its time");
    assert_eq!(run.step(Event::DelayOver), "concurrency_limited", "for whom its head counted it");
    drop(first);
    assert_eq!(under_way(&run), 0);
}

#[test]
fn a_limit_lets_pass_delays_and_refuses() {
    let mut run = limited();
    let fields = |run: &Run| run.exchange.limit_fields().iter().map(|(_, value)| value).collect::<Vec<_>>();
    assert_eq!(run.head(&get("h", "/fixed")), "fixed 200");
    assert_eq!(fields(&run), ["2", "1", "1"]);
    run.exchange = Exchange::new(RequestId(2), run.now);
    let upload = Asked { body: crate::head::BodyLength::Unknown, ..get("h", "/app") };
    assert_eq!(run.head(&upload), "delay 1s");
    assert_eq!(run.loads(), [(0, 0)], "nothing is taken from the pool meanwhile");
    let mut second = std::mem::replace(&mut run.exchange, Exchange::new(RequestId(3), run.now));
    assert_eq!(run.head(&get("h", "/app")), "rate_limited");
    assert_eq!(fields(&run), ["2", "0", "2"], "told with the refusal too");
    assert_eq!(run.exchange.route(), Some(RouteId(4)), "a refusal is counted for its route");
    std::mem::swap(&mut run.exchange, &mut second);
    run.now += Duration::from_secs(1);
    assert_eq!(run.step(Event::DelayOver), "collect 7");
    assert_eq!(run.step(Event::DelayOver), "internal", "once only");

    run.exchange = Exchange::new(RequestId(4), run.now);
    assert_eq!(run.head(&get("h", "/fixed")), "delay 1s");
    assert_eq!(run.step(Event::Finished(Outcome::ClientGone)), "done", "a client may leave while it waits");
    run.now += Duration::from_secs(9);
    run.exchange = Exchange::new(RequestId(5), run.now);
    assert_eq!(run.head(&get("h", "/app")), "to 1");
    let action = run.exchange.step(
        &run.traffic,
        Event::ResponseHead(ResponseView {
            status: 200,
            fields: &fixtures::fields(&[("X-RateLimit-Limit", "99")]),
            replayable: true,
        }),
        run.now,
    );
    let Action::Relay { edits, .. } = action else { panic!("{action:?}") };
    let head = fixtures::rendered(&edits, &fixtures::fields(&[("X-RateLimit-Limit", "99")]));
    assert!(head.contains("x-ratelimit-limit=2 x-ratelimit-remaining=1") && !head.contains("99"), "{head}");
}

#[test]
fn what_no_route_takes_is_on_no_account() {
    let mut run = limited();
    for _ in 0..3 {
        for (request, expected) in [
            (get("h", "/none"), "no_route"),
            (get("h", "*").method("OPTIONS"), "fixed 204"),
            (Asked { body: crate::head::BodyLength::Known(11), ..get("h", "/small") }, "body_too_large"),
        ] {
            run.exchange = Exchange::new(RequestId(1), run.now);
            assert_eq!(run.head(&request), expected);
        }
    }
    run.exchange = Exchange::new(RequestId(1), run.now);
    assert_eq!(run.head(&get("h", "/app")), "to 1");
}

#[test]
fn failures_walk_the_endpoints() {
    let three = [(1, 1), (2, 1), (3, 1)];
    let rows: &[(&str, &str, &[Failure], &[&str])] = &[
        ("refused connects reach every endpoint", "GET", &[REFUSED; 3], &["to 1", "to 2", "to 3", "connect_failed"]),
        ("for any method, nothing was sent", "POST", &[REFUSED; 3], &["to 1", "to 2", "to 3", "connect_failed"]),
        ("two tries of an idempotent request", "GET", &[CLOSED, CLOSED], &["to 1", "to 2", "upstream_closed"]),
        ("a request that was sent is not repeated", "POST", &[CLOSED], &["to 1", "upstream_closed"]),
        ("nor when it was slow", "POST", &[SLOW], &["to 1", "head_timeout"]),
        ("a slow get moves on", "GET", &[SLOW, SLOW], &["to 1", "to 2", "head_timeout"]),
        ("the last failure is the answer", "GET", &[CLOSED, REFUSED, SLOW], &["to 1", "to 2", "to 3", "head_timeout"]),
        ("connects are no tries", "GET", &[REFUSED, CLOSED, REFUSED], &["to 1", "to 2", "to 3", "connect_failed"]),
        (
            "a stale connection is replayed once",
            "GET",
            &[STALE, CLOSED, CLOSED],
            &["to 1", "to 1 fresh", "to 2", "upstream_closed"],
        ),
        ("and once only", "GET", &[STALE, CLOSED, STALE], &["to 1", "to 1 fresh", "to 2", "upstream_closed"]),
        ("not for a post", "POST", &[STALE], &["to 1", "upstream_closed"]),
        ("unless not a byte was sent", "POST", &[Failure { sent: Sent::Nothing, ..STALE }], &["to 1", "to 1 fresh"]),
        (
            "nonsense is not repeated",
            "GET",
            &[Failure { cause: Cause::Malformed, ..CLOSED }],
            &["to 1", "upstream_bad_response"],
        ),
        (
            "our own limits are not the endpoint's fault",
            "GET",
            &[Failure { cause: Cause::Local, ..REFUSED }],
            &["to 1", "out_of_resources"],
        ),
        (
            "a body that is gone is not sent again",
            "PUT",
            &[Failure { body_replayable: false, ..CLOSED }],
            &["to 1", "upstream_closed"],
        ),
        (
            "an answer that began is not repeated",
            "GET",
            &[Failure { heard: Heard::Some, ..STALE }],
            &["to 1", "upstream_closed"],
        ),
        (
            "an answer that died behind its head is repeated",
            "GET",
            &[Failure { stage: Stage::Body, heard: Heard::Some, ..STALE }],
            &["to 1", "to 2"],
        ),
        (
            "but not for a post",
            "POST",
            &[Failure { stage: Stage::Body, heard: Heard::Some, ..STALE }],
            &["to 1", "upstream_closed"],
        ),
        (
            "a slow write is told apart",
            "POST",
            &[Failure { stage: Stage::Send, ..SLOW }],
            &["to 1", "upstream_write_timeout"],
        ),
        (
            "a slow connect is told apart",
            "POST",
            &[Failure { stage: Stage::Connect, sent: Sent::Nothing, ..SLOW }; 3],
            &["to 1", "to 2", "to 3", "connect_timeout"],
        ),
    ];
    for (what, method, failures, expected) in rows {
        let method: &'static str = method;
        assert_eq!(walk(&three, method, failures), *expected, "{what}");
    }
    assert_eq!(walk(&[(1, 1)], "GET", &[CLOSED]), ["to 1", "upstream_closed"], "nowhere else to go");
    assert_eq!(walk(&[(1, 1)], "GET", &[STALE, REFUSED]), ["to 1", "to 1 fresh", "connect_failed"]);
    assert_eq!(walk(&[], "GET", &[]), ["no_endpoint"]);
}

#[test]
fn a_full_endpoint_is_passed_over_without_blame() {
    let full = Failure { cause: Cause::Full, ..REFUSED };
    assert_eq!(walk(&[(1, 1), (2, 1)], "POST", &[full, full]), ["to 1", "to 2", "no_endpoint"]);
    let mut run = Run::new(traffic(&[(1, 1)]));
    run.head(&get("h", "/app"));
    run.fail(full);
    let status = run.traffic.pools[0].endpoints()[0].status();
    assert_eq!((status.failures, status.abandoned), (0, 0));
}

#[test]
fn connects_together_have_one_limit() {
    let mut run = Run::new(traffic(&[(1, 1), (2, 1), (3, 1), (4, 1)]));
    let start = get("h", "/app").view(|head| run.exchange.step(&run.traffic, Event::Head(head), run.now)).unwrap();
    let budget = |action: Action| match action {
        Action::Forward(attempt) => attempt.timeouts.connect.as_millis(),
        other => panic!("{other:?}"),
    };
    assert_eq!(budget(start), 2000);
    for expected in [2000, 1000] {
        run.now += Duration::from_secs(2);
        let next = run.exchange.step(&run.traffic, Event::AttemptFailed(REFUSED), run.now);
        assert_eq!(budget(next), expected, "cut to what is left of five seconds");
    }
    run.now += Duration::from_secs(1);
    assert_eq!(run.fail(REFUSED), "connect_failed", "although an endpoint is left");
}

#[test]
fn time_spent_waiting_for_an_answer_is_no_connect_time() {
    let mut run = Run::new(traffic(&[(1, 1), (2, 1), (3, 1)]));
    assert_eq!(run.head(&get("h", "/app")), "to 1");
    run.now += Duration::from_secs(60);
    assert_eq!(run.fail(SLOW), "to 2");
    assert_eq!(run.fail(REFUSED), "to 3");
}

#[test]
fn answers_of_our_own() {
    let rows = [
        (get("h", "/fixed"), "fixed 200"),
        (get("h", "/none"), "no_route"),
        (get("x", "/app"), "unknown_host"),
        (get("h", "/lost"), "internal"),
        (get("h", "/app").method("TRACE"), "method_not_allowed"),
        (get("h", "/app").method("CONNECT"), "method_not_allowed"),
        (get("h", "*").method("OPTIONS"), "fixed 204"),
        (get("h", "*"), "bad_request"),
        (get("h", "/app").method("PROPFIND"), "to 1"),
        (get("h", "/app").method("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "bad_request"),
        (get("h", "/app").with("x_a", "1"), "bad_request"),
        (get("h", "/app").with("expect", "tea"), "expectation_failed"),
        (Asked { body: crate::head::BodyLength::Known(11), ..get("h", "/small") }, "body_too_large"),
        (Asked { body: crate::head::BodyLength::Known(10), ..get("h", "/small") }, "to 1"),
    ];
    for (request, expected) in rows {
        let mut run = Run::new(traffic(&[(1, 1)]));
        assert_eq!(run.head(&request), expected, "{} {}", request.method, request.target);
        assert_eq!(run.step(Event::Finished(Outcome::Ok)), "done");
        assert_eq!(run.loads(), [(0, 0)]);
    }
    let mut run = Run::new(traffic(&[(1, 1)]));
    run.head(&Asked { body: crate::head::BodyLength::Known(11), ..get("h", "/small") });
    assert_eq!(run.exchange.route(), Some(RouteId(0)), "a refusal is counted for its route");
    assert_eq!(run.exchange.body_plan(), Some(&BodyPlan::stream(10)));
}

fn worker_pool() -> Run {
    let spec = upstream("app", EndpointSource::Workers(fixtures::worker_spec()));
    Run::new(Traffic::build(&app(spec), None, &Identities::default()))
}

#[test]
fn a_request_waits_for_workers_that_start() {
    let mut run = worker_pool();
    let key = WorkerKey { slot: 0, spawn: 1 };
    assert_eq!(run.head(&get("h", "/app")), "queue 10s");
    run.now += Duration::from_secs(4);
    run.traffic.pools[0].add_worker(key, 7, fixtures::tcp(9));
    assert_eq!(run.called(), "to 9");
    run.traffic.pools[0].remove_worker(key);
    assert_eq!(run.fail(REFUSED), "queue 6s", "the wait goes on, it does not begin again");
    run.traffic.pools[0].add_worker(WorkerKey { slot: 0, spawn: 2 }, 7, fixtures::tcp(9));
    assert_eq!(run.called(), "to 9");
    assert_eq!(run.respond(200, &[]), "relay");
}

fn full_upstream(ports: &[(u16, u32)]) -> Run {
    let mut full = upstream("app", servers(ports));
    full.capacity.max_in_flight_per_endpoint = Some(1);
    Run::new(Traffic::build(&app(full), None, &Identities::default()))
}

/// A lease that somebody else holds.
fn taken(run: &Run) -> Lease {
    let wanted = Wanted { key: &Key::None, tried: &[], draw: 0, now: run.now, tunnel: false };
    match run.traffic.pools[0].acquire(&wanted) {
        Acquired::Lease(lease) => lease,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_waits_for_an_endpoint_that_is_full() {
    let mut run = full_upstream(&[(1, 1)]);
    let held = taken(&run);
    assert_eq!(run.head(&get("h", "/app")), "queue 5s");
    run.now += Duration::from_secs(1);
    held.finish(Outcome::Ok, run.now);
    assert_eq!(run.called(), "to 1");
    assert_eq!(run.exchange.timings().queued, Some(run.now - Duration::from_secs(1)));
    assert_eq!(run.respond(200, &[]), "relay");

    let mut run = full_upstream(&[(1, 1)]);
    let _held = taken(&run);
    run.head(&get("h", "/app"));
    assert_eq!(run.step(Event::WaitExpired), "queue_timeout");
}

#[test]
fn a_lease_that_nobody_takes_from_its_ticket_goes_on() {
    let mut run = full_upstream(&[(1, 1)]);
    let held = taken(&run);
    run.head(&get("h", "/app"));
    drop(held);
    assert_eq!(run.loads(), [(1, 0)], "it lies in the ticket");
    run.ticket = None;
    assert_eq!(run.loads(), [(0, 0)]);
    assert_eq!(run.step(Event::WaitExpired), "queue_timeout");
}

#[test]
fn a_retry_waits_for_another_endpoint_than_the_one_that_failed() {
    let mut run = full_upstream(&[(1, 1), (2, 1)]);
    let first = taken(&run);
    assert_eq!(run.head(&get("h", "/app")), "to 2");
    assert_eq!(run.fail(REFUSED), "queue 5s", "the one that failed is free, and not for this request");
    drop(first);
    assert_eq!(run.called(), "to 1");
}

#[test]
fn a_wait_ends_in_a_refusal() {
    let mut run = worker_pool();
    run.head(&get("h", "/app"));
    assert_eq!(run.step(Event::WaitExpired), "not_ready_in_time");
    drop(run.ticket.take());
    assert_eq!(run.traffic.pools[0].status().queue.waiting, 0);

    let mut run = worker_pool();
    run.head(&get("h", "/app"));
    run.traffic.pools[0].set_expecting(Expectation::Nothing);
    assert_eq!(run.called(), "no_endpoint");
}

#[test]
fn a_worker_that_died_is_waited_for_when_another_starts() {
    let mut run = worker_pool();
    let key = WorkerKey { slot: 0, spawn: 1 };
    run.traffic.pools[0].add_worker(key, 7, fixtures::tcp(9));
    assert_eq!(run.head(&get("h", "/app")), "to 9");
    run.traffic.pools[0].remove_worker(key);
    assert_eq!(run.fail(REFUSED), "queue 10s");
    assert_eq!(run.step(Event::WaitExpired), "connect_failed", "the failure tells more than the wait");
}

#[test]
fn a_replay_goes_elsewhere_when_its_endpoint_has_left() {
    let mut run = worker_pool();
    let key = |slot| WorkerKey { slot, spawn: 1 };
    run.traffic.pools[0].add_worker(key(0), 7, fixtures::tcp(8));
    assert_eq!(run.head(&get("h", "/app")), "to 8");
    run.traffic.pools[0].add_worker(key(1), 8, fixtures::tcp(9));
    run.traffic.pools[0].drain_worker(key(0), Box::new(|| {}));
    assert_eq!(run.fail(STALE), "to 9");
    assert_eq!(run.fail(CLOSED), "upstream_closed", "no endpoint is left");
}

fn websocket() -> Asked {
    let request = get("h", "/app").with("Connection", "Upgrade").with("Upgrade", "websocket");
    Asked { upgrade: true, ..request }
}

#[test]
fn a_websocket_becomes_a_tunnel() {
    let mut run = Run::new(traffic(&[(1, 1)]));
    assert_eq!(run.head(&websocket()), "to 1");
    assert!(run.exchange.is_websocket());
    assert_eq!(run.respond(101, &[("Upgrade", "WebSocket")]), "tunnel");
    assert_eq!(run.loads(), [(0, 1)]);
    let tunnel = run.exchange.take_tunnel().unwrap();
    assert!(run.exchange.take_tunnel().is_none());
    run.step(Event::Finished(Outcome::Ok));
    assert_eq!(run.loads(), [(0, 1)], "the tunnel outlives the exchange");
    drop(tunnel);
    assert_eq!(run.loads(), [(0, 0)]);
}

/// The usual routes, all under one limit of a request under way.
fn one_at_a_time(reload_of: Option<&Traffic>) -> Traffic {
    let mut model = app(upstream("app", servers(&[(1, 1)])));
    let limit = ConcurrencyLimit {
        name: "one".to_owned(),
        max: 1,
        key: vec![Variable::ClientAddress],
        status: 503,
        dry_run: false,
        allow: Networks::default(),
    };
    model.concurrency_limits.insert("one".to_owned(), limit);
    for route in &mut model.sites[0].routes {
        route.concurrency = vec!["one".to_owned()];
        route.buffer.request = 7;
    }
    Traffic::build(&model, reload_of, &Identities::default())
}

fn under_way(run: &Run) -> u64 {
    run.traffic.concurrency.iter().map(|limit| limit.table().requests()).sum()
}

/// What another request is told meanwhile.
fn another(run: &mut Run) -> String {
    let mut other = std::mem::replace(&mut run.exchange, Exchange::new(RequestId(9), run.now));
    let word = run.head(&get("h", "/fixed"));
    std::mem::swap(&mut run.exchange, &mut other);
    word
}

#[test]
fn a_request_is_under_way_from_its_head_to_its_end() {
    let mut run = Run::new(one_at_a_time(None));
    assert_eq!(another(&mut run), "fixed 200");
    let upload = Asked { body: crate::head::BodyLength::Unknown, ..get("h", "/app") };
    assert_eq!(run.head(&upload), "collect 7");
    assert_eq!(another(&mut run), "concurrency_limited", "while the body is sent");
    assert_eq!(run.step(Event::Collected), "to 1");
    assert_eq!(run.loads(), [(1, 0)]);
    assert_eq!(another(&mut run), "concurrency_limited", "while the endpoint works");
    assert_eq!(run.respond(200, &[]), "relay");
    assert_eq!(run.step(Event::Finished(Outcome::Ok)), "done");
    assert_eq!(another(&mut run), "concurrency_limited", "while the client takes what is held of the answer");
    assert_eq!(under_way(&run), 1, "those who are refused hold nothing");
    run.exchange = Exchange::new(RequestId(2), run.now);
    assert_eq!(another(&mut run), "fixed 200");
    assert_eq!(under_way(&run), 0);
}

#[test]
fn a_request_that_fails_or_is_left_frees_its_place() {
    for end in ["fail", "leave", "deadline", "drop"] {
        let mut run = Run::new(one_at_a_time(None));
        assert_eq!(run.head(&get("h", "/app")), "to 1");
        assert_eq!(under_way(&run), 1);
        match end {
            "fail" => assert_eq!(run.fail(CLOSED), "upstream_closed"),
            "leave" => assert_eq!(run.step(Event::Finished(Outcome::ClientGone)), "done"),
            "deadline" => assert_eq!(run.step(Event::DeadlineOver), "deadline"),
            _ => {}
        }
        run.exchange = Exchange::new(RequestId(2), run.now);
        assert_eq!(under_way(&run), 0, "{end}");
    }
}

#[test]
fn a_tunnel_is_under_way_until_it_ends() {
    let mut run = Run::new(one_at_a_time(None));
    assert_eq!(run.head(&websocket()), "to 1");
    assert_eq!(run.respond(101, &[("Upgrade", "websocket")]), "tunnel");
    let tunnel = run.exchange.take_tunnel().unwrap();
    run.exchange = Exchange::new(RequestId(2), run.now);
    assert_eq!((another(&mut run).as_str(), under_way(&run)), ("concurrency_limited", 1));
    run.traffic = one_at_a_time(Some(&run.traffic));
    assert_eq!(another(&mut run), "concurrency_limited", "after a reload too");
    drop(tunnel);
    assert_eq!((another(&mut run).as_str(), under_way(&run)), ("fixed 200", 0));
}

/// Names everything alike but what differs in its last byte: a port.
#[derive(Debug)]
struct LastByte;

impl Seal for LastByte {
    fn seal(&self, message: &[u8]) -> [u8; 32] {
        [message.last().copied().unwrap_or_default(); 32]
    }
}

/// A pool of two whose clients stay by a cookie.
fn sticky_run() -> Run {
    let sticky = Sticky {
        cookie: "stay".to_owned(),
        secrets: Vec::new(),
        max_age: Some(Duration::from_secs(60)),
        path: "/".to_owned(),
        domain: None,
        secure: Some(true),
        same_site: SameSite::None,
        http_only: false,
    };
    let model = app(Upstream { sticky: Some(sticky), ..upstream("app", servers(&[(1, 1), (2, 1)])) });
    let seals: Seals = Arc::new([Arc::new(LastByte) as Arc<dyn Seal>]);
    let identities = Identities { seals: [("app".to_owned(), seals)].into(), ..Identities::default() };
    let run = Run::new(Traffic::build(&model, None, &identities));
    run.traffic.commit(&model);
    run
}

#[test]
fn answers_bind_clients_and_interim_ones_do_not() {
    let mut run = sticky_run();
    let mut answer = |request: Asked, status: u16, cookie: Option<&str>| {
        run.exchange = Exchange::new(RequestId(u128::from(status)), run.now);
        let request = cookie.into_iter().fold(request, |request, cookie| request.with("cookie", cookie));
        let to = run.head(&request);
        let upgrade = fields(&[("upgrade", "websocket")]);
        let event = Event::ResponseHead(ResponseView { status, fields: &upgrade, replayable: true });
        let Action::Relay { edits, .. } = run.exchange.step(&run.traffic, event, run.now) else { panic!("{status}") };
        let told = fixtures::rendered(&edits, &fields(&[("set-cookie", "app=1")]));
        let set = told.split_once("set-cookie=stay=").map(|(_, rest)| rest.replace(" cache-control=private", ""));
        assert!(told.contains("set-cookie=app=1"), "{told}");
        (to, set)
    };
    let rest = "; Path=/; Max-Age=60; SameSite=None; Secure";
    // "1" is 0x31 and "2" is 0x32, again and again.
    let (one, two) = ("1MTExMTExMTExMTExMTExMTExMTExMTEx", "1MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIy");
    let bound = |name: &str| Some(format!("{name}{rest}"));
    assert_eq!(answer(get("h", "/app"), 103, None), ("to 1".to_owned(), None));
    assert_eq!(answer(get("h", "/app"), 500, None), ("to 2".to_owned(), bound(two)));
    assert_eq!(answer(websocket(), 101, None), ("to 1".to_owned(), bound(one)));
    assert_eq!(answer(get("h", "/app"), 200, Some(&format!("stay={two}"))), ("to 2".to_owned(), None));
    assert_eq!(answer(websocket(), 101, Some(&format!("stay={two}"))), ("to 2".to_owned(), None));
    assert_eq!(answer(get("h", "/app"), 200, Some("stay=other")), ("to 2".to_owned(), bound(two)));
}

#[test]
fn an_answer_that_binds_a_client_is_for_no_shared_cache() {
    let mut run = sticky_run();
    let mut answer = |status: u16, said: &[(&str, &str)]| {
        run.exchange = Exchange::new(RequestId(1), run.now);
        run.head(&if status == 101 { websocket() } else { get("h", "/app") });
        let given: Vec<_> = said.iter().copied().chain([("upgrade", "websocket")]).collect();
        let given = fields(&given);
        let event = Event::ResponseHead(ResponseView { status, fields: &given, replayable: true });
        let Action::Relay { edits, .. } = run.exchange.step(&run.traffic, event, run.now) else { panic!("{status}") };
        let told = fixtures::rendered(&edits, &given);
        assert!(told.contains("set-cookie=stay="), "{told}");
        told.contains("cache-control=private")
    };
    assert!(answer(200, &[]) && answer(404, &[]) && answer(500, &[]));
    let shared =
        ["max-age=60", "public, s-maxage=9", "no-cache", "private=\"x\"", "privately", "no-cache=\"set-cookie\""];
    for said in shared {
        assert!(answer(200, &[("Cache-Control", said)]), "{said}");
    }
    for said in ["private", "max-age=60, Private ,x", "no-store", "NO-STORE"] {
        assert!(!answer(200, &[("Cache-Control", said)]), "{said}");
    }
    assert!(!answer(200, &[("Cache-Control", "max-age=1"), ("Cache-Control", "private")]));
    assert!(!answer(101, &[]), "nothing to cache");
}

#[test]
fn a_switch_that_was_not_asked_for_is_refused() {
    let plain = [("Upgrade", "websocket")];
    let cases: [(Asked, &[(&str, &str)]); 3] =
        [(get("h", "/app"), &plain), (websocket(), &[("Upgrade", "h2c")]), (websocket(), &[])];
    for (request, answer) in cases {
        let mut run = Run::new(traffic(&[(1, 1)]));
        run.head(&request);
        assert_eq!(run.respond(101, answer), "upstream_bad_response");
        assert_eq!(run.loads(), [(0, 0)]);
    }
    let mut run = Run::new(traffic(&[(1, 1)]));
    run.head(&websocket());
    assert_eq!(run.respond(403, &[]), "relay", "an endpoint may decline");
}

#[test]
fn the_path_is_forwarded_as_the_route_says() {
    let rows = [("/app//x/%2e?q=%zz", "/app/x/?q=%zz"), ("/raw//x?q", "/raw//x?q")];
    for (sent, forwarded) in rows {
        let mut run = Run::new(traffic(&[(1, 1)]));
        let request = get("h", sent);
        assert_eq!(run.head(&request), "to 1");
        let seen = request.view(|head| run.exchange.forward_target(head).into_owned()).unwrap();
        assert_eq!(seen, forwarded);
    }
}

#[test]
fn a_dropped_exchange_gives_back_its_lease() {
    let mut run = Run::new(traffic(&[(1, 1)]));
    run.head(&get("h", "/app"));
    run.exchange = Exchange::new(RequestId(2), run.now);
    assert_eq!(run.loads(), [(0, 0)]);
    assert_eq!(run.traffic.pools[0].endpoints()[0].status().abandoned, 1);
}

#[test]
fn events_out_of_order_are_answered() {
    let mut run = Run::new(traffic(&[(1, 1)]));
    assert_eq!(run.step(Event::WaitExpired), "internal");
    assert_eq!(run.step(Event::WaitExpired), "done");
    let mut run = Run::new(traffic(&[(1, 1)]));
    run.head(&get("h", "/app"));
    assert_eq!(run.head(&get("h", "/app")), "internal");
}

pub(super) fn any_failure() -> impl Strategy<Value = Failure> {
    let stage = prop_oneof![Just(Stage::Connect), Just(Stage::Send), Just(Stage::Head), Just(Stage::Body)];
    let cause = prop_oneof![5 => Just(Cause::Closed), 2 => Just(Cause::TimedOut), 1 => Just(Cause::Malformed), 1 => Just(Cause::Local), 1 => Just(Cause::Full)];
    (stage, cause, any::<bool>(), prop_oneof![4 => Just(true), 1 => Just(false)], any::<bool>()).prop_map(
        |(stage, cause, reused, body_replayable, written)| Failure {
            stage,
            cause,
            reused,
            sent: if written && stage != Stage::Connect { Sent::Some } else { Sent::Nothing },
            body_replayable,
            heard: if stage == Stage::Body { Heard::Some } else { Heard::Nothing },
        },
    )
}

proptest! {
    /// Whatever happens: attempts are bounded, a request that is not idempotent is received at most once, an
    /// endpoint is left alone after it failed (but for one replay), and no count leaks.
    #[test]
    fn attempts_are_bounded_and_safe(
        endpoints in 1..6_u16,
        post in any::<bool>(),
        failures in proptest::collection::vec(any_failure(), 0..16),
    ) {
        let ports: Vec<_> = (1..=endpoints).map(|port| (port, 1)).collect();
        let mut run = Run::new(traffic(&ports));
        let mut word = run.head(&get("h", "/app").method(if post { "POST" } else { "GET" }));
        let mut attempts = vec![word.clone()];
        let mut received = 0;
        for failure in failures {
            if !word.starts_with("to ") {
                break;
            }
            received += u32::from(failure.sent == Sent::Some);
            word = run.fail(failure);
            if word.starts_with("to ") {
                attempts.push(word.clone());
            }
        }
        prop_assert!(attempts.len() <= usize::from(endpoints) + 1);
        let most = if post { 1 } else { fixtures::RETRY.tries + 1 };
        prop_assert!(received <= most);
        let mut distinct = attempts.clone();
        distinct.sort();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), attempts.len());
        prop_assert!(attempts.iter().filter(|attempt| attempt.ends_with("fresh")).count() <= 1);
        run.step(Event::Finished(Outcome::Cancelled));
        prop_assert!(run.loads().iter().all(|load| *load == (0, 0)));
    }
}
