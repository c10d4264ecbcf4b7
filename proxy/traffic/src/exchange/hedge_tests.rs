//! Races of two legs: when there is one, who wins it, and what stays true in whatever order things happen.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_config::model::{EndpointSource, Rate, Retry, RetryBudget};

use super::tests::{CLOSED, REFUSED, Run, SLOW, any_failure};
use super::tries_tests::{SECOND, any_policy, policy, traffic};
use super::*;
use crate::fixtures::{FieldList, Request as Asked, fields, get, model, proxy, route, servers, site, upstream};
use crate::head::ResponseView;
use crate::pool::endpoint::EndpointStatus;
use crate::retry::{Failure, Sent, Stage};
use crate::traffic::{Identities, Traffic};

const AFTER: Duration = Duration::from_millis(50);

fn hedging(tries: u32) -> Retry {
    Retry { hedge: Some(AFTER), try_timeout: Some(2 * SECOND), ..policy(tries) }
}

/// A request of two legs under way, before `count` endpoints.
fn racing(count: u16, policy: Retry) -> Run {
    let mut run = Run::new(traffic(count, policy, None, None));
    race(&mut run);
    run
}

fn race(run: &mut Run) {
    let word = run.head(&get("h", "/app"));
    assert!(word.starts_with("to "), "{word}");
    run.now += AFTER;
    let word = run.step(Event::HedgeDue);
    assert!(word.starts_with("also to "), "{word}");
}

fn answer(run: &mut Run, leg: Leg, status: u16) -> String {
    let list: FieldList = fields(&[]);
    run.step(Event::LegAnswered(leg, ResponseView { status, fields: &list, replayable: true }))
}

fn status(run: &Run, endpoint: usize) -> EndpointStatus {
    run.traffic.pools[0].endpoints()[endpoint].status()
}

fn next(run: &mut Run) {
    run.exchange = Exchange::new(RequestId(run.exchange.id().0 + 1), run.now);
}

#[test]
fn only_what_may_be_sent_twice_is_hedged() {
    let upgrade = get("h", "/app").with("connection", "upgrade").with("upgrade", "websocket");
    let mut upgrade = upgrade;
    upgrade.upgrade = true;
    for (what, request, whole, policy, deadline, expected) in [
        ("a get", get("h", "/app"), true, hedging(2), None, true),
        ("a put that is here", get("h", "/app").method("PUT"), true, hedging(2), None, true),
        ("a put that is not", get("h", "/app").method("PUT"), false, hedging(2), None, false),
        ("a post", get("h", "/app").method("POST"), true, hedging(2), None, false),
        ("an unknown method", get("h", "/app").method("FETCH"), true, hedging(2), None, false),
        ("a websocket", upgrade, true, hedging(2), None, false),
        ("without hedge", get("h", "/app"), true, policy(2), None, false),
        ("the only try", get("h", "/app"), true, hedging(1), None, false),
        ("before the deadline", get("h", "/app"), true, hedging(2), Some(AFTER + AFTER), true),
        ("after the deadline", get("h", "/app"), true, hedging(2), Some(AFTER), false),
    ] {
        let mut run = Run::new(traffic(2, policy, deadline, None));
        run.head(&request);
        let expected = expected.then(|| run.now + AFTER);
        assert_eq!(run.exchange.hedge_at(whole), expected, "{what}");
    }
}

#[test]
fn the_first_head_wins_and_the_other_leg_costs_nobody_anything() {
    for (leg, hedged) in [(Leg::First, Hedged::Lost), (Leg::Second, Hedged::Won)] {
        let mut run = racing(2, hedging(2));
        assert_eq!(run.loads(), [(1, 0), (1, 0)]);
        assert_eq!(run.exchange.hedge_at(true), None, "once");
        assert_eq!(run.step(Event::HedgeDue), "keep First", "and once only");
        assert_eq!(answer(&mut run, leg, 200), format!("keep {leg:?}"));
        let winner = usize::from(leg == Leg::Second);
        assert_eq!((status(&run, winner).in_flight, status(&run, 1 - winner).in_flight), (1, 0), "{leg:?}");
        let loser = status(&run, 1 - winner);
        assert_eq!((loser.overtaken, loser.failures, loser.abandoned), (1, 0, 0));
        assert_eq!(run.exchange.endpoint().map(|endpoint| endpoint.id()), Some(status(&run, winner).id));
        assert_eq!(run.respond(200, &[]), "relay");
        assert_eq!(run.step(Event::Finished(Outcome::Ok)), "done");
        assert_eq!((run.exchange.hedged(), run.exchange.attempts()), (Some(hedged), 2));
        assert_eq!(run.loads(), [(0, 0), (0, 0)]);
    }
}

#[test]
fn a_failure_of_one_leg_leaves_the_other() {
    for leg in [Leg::First, Leg::Second] {
        let failed = usize::from(leg == Leg::Second);
        // Who failed is blamed as ever, and the one that is left is the attempt.
        let mut run = racing(3, hedging(3));
        assert_eq!(run.step(Event::LegFailed(leg, CLOSED)), format!("keep {:?}", leg.other()));
        assert_eq!((status(&run, failed).failures, status(&run, failed).in_flight), (1, 0));
        assert_eq!(run.respond(200, &[]), "relay");
        assert_eq!(run.exchange.hedged(), Some(if leg == Leg::First { Hedged::Won } else { Hedged::Lost }));
        // An answer that would be tried again gives way to what is under way already, and is no failure by itself.
        let mut run = racing(3, hedging(2));
        assert_eq!(answer(&mut run, leg, 503), format!("keep {:?}", leg.other()));
        assert_eq!((status(&run, failed).failures, status(&run, failed).in_flight), (0, 0));
        assert_eq!(run.respond(503, &[]), "relay", "two tries are two");
        // Both, and tries are left.
        let mut run = racing(3, hedging(3));
        run.step(Event::LegFailed(leg, CLOSED));
        assert_eq!(run.fail(CLOSED).split(' ').next(), Some("delay"), "it is the second retry");
        assert_eq!(run.step(Event::DelayOver), "to 3", "whom neither leg has asked");
        assert_eq!(run.exchange.hedged(), Some(Hedged::Lost));
        assert_eq!(run.exchange.hedge_at(true), None, "one is all there is");
        let mut run = racing(3, hedging(3));
        answer(&mut run, leg, 503);
        assert_eq!(run.respond(503, &[]), "discard");
        // Both, and none is left.
        let mut run = racing(3, hedging(2));
        run.step(Event::LegFailed(leg, CLOSED));
        assert_eq!(run.fail(CLOSED), "upstream_closed");
        // Who could not be reached was no try.
        let mut run = racing(3, hedging(2));
        run.step(Event::LegFailed(leg, REFUSED));
        assert!(run.fail(CLOSED).starts_with("delay "));
        // A connection that had been closed while it was idle is nobody's fault.
        let mut run = racing(3, hedging(2));
        run.step(Event::LegFailed(leg, Failure { reused: true, ..CLOSED }));
        assert_eq!((status(&run, failed).failures, status(&run, failed).overtaken), (0, 0));
    }
}

#[test]
fn a_hedge_takes_only_what_is_free_and_paid_for() {
    let one = RetryBudget { share: 0, floor: Rate { requests: 1, per: Duration::from_secs(10) } };
    let mut run = Run::new(traffic(2, hedging(2), None, Some(one)));
    race(&mut run);
    answer(&mut run, Leg::Second, 200);
    next(&mut run);
    run.head(&get("h", "/app"));
    assert_eq!(run.step(Event::HedgeDue), "keep First");
    assert_eq!(run.exchange.hedged(), Some(Hedged::NoBudget));
    assert_eq!(run.loads().iter().map(|load| load.0).sum::<u32>(), 1, "what was reserved is given back");
    assert!(!run.exchange.was_denied_a_retry(), "a hedge is none");
    // Alone.
    let mut run = Run::new(traffic(1, hedging(2), None, None));
    run.head(&get("h", "/app"));
    assert_eq!(run.step(Event::HedgeDue), "keep First");
    assert_eq!(run.exchange.hedged(), Some(Hedged::NoEndpoint));
    // Another one that is full, although one could queue for it.
    let mut run = Run::new(full());
    run.head(&get("h", "/app"));
    let mut other = Exchange::new(RequestId(9), run.now);
    let seen = get("h", "/app").view(|head| other.step(&run.traffic, Event::Head(head), run.now));
    assert!(matches!(seen, Ok(Action::Forward(_))));
    assert_eq!(run.step(Event::HedgeDue), "keep First");
    assert_eq!(run.exchange.hedged(), Some(Hedged::NoEndpoint));
    let queue = run.traffic.pools[0].status().queue;
    assert_eq!((queue.waiting, queue.peak, queue.counts.full), (0, 0, 0), "nobody has waited");
}

/// Two endpoints with a place each.
fn full() -> Traffic {
    let mut route = route("/app", proxy("app"));
    route.retry = hedging(2);
    let mut model = model(vec![site("s", &["h"], vec![route])], vec![upstream("app", servers(&[(1, 1), (2, 1)]))]);
    let Some(EndpointSource::Servers(servers)) = model.upstreams.get_mut("app").map(|app| &mut app.source) else {
        panic!()
    };
    servers.iter_mut().for_each(|server| server.max_conns = Some(1));
    Traffic::build(&model, None, &Identities::default())
}

#[test]
fn both_legs_are_given_back_however_it_ends() {
    type End = fn(&mut Run) -> String;
    let rows: [(&str, End, &str, u64, u64); 4] = [
        ("the client leaves", |run| run.step(Event::Finished(Outcome::ClientGone)), "done", 2, 0),
        ("we end it", |run| run.step(Event::Finished(Outcome::Cancelled)), "done", 0, 0),
        (
            "the driver is dropped",
            |run| {
                next(run);
                "dropped".to_owned()
            },
            "dropped",
            2,
            0,
        ),
        (
            "the deadline",
            |run| {
                run.now += 5 * SECOND;
                run.step(Event::DeadlineOver)
            },
            "deadline",
            0,
            2,
        ),
    ];
    for (what, end, word, abandoned, failures) in rows {
        let mut run = racing(2, hedging(2));
        assert_eq!(end(&mut run), word, "{what}");
        assert_eq!(run.loads(), [(0, 0), (0, 0)], "{what}");
        let sum = |figure: fn(&EndpointStatus) -> u64| figure(&status(&run, 0)) + figure(&status(&run, 1));
        assert_eq!((sum(|one| one.abandoned), sum(|one| one.failures)), (abandoned, failures), "{what}");
    }
    // After the deadline whatever comes of a leg is too late, but for an answer.
    let mut run = Run::new(traffic(2, hedging(2), Some(5 * SECOND), None));
    race(&mut run);
    run.now += 5 * SECOND;
    assert_eq!(run.step(Event::LegFailed(Leg::Second, CLOSED)), "deadline");
    assert_eq!(run.loads(), [(0, 0), (0, 0)]);
    // What cannot be said is answered.
    let mut run = Run::new(traffic(2, hedging(2), None, None));
    run.head(&get("h", "/app"));
    assert_eq!(run.step(Event::LegFailed(Leg::Second, CLOSED)), "internal");
}

/// An endpoint that hangs loses every race, and is found out by that; one that is slow now and then is not.
#[test]
fn an_endpoint_that_never_wins_is_noticed() {
    for (answers_now_and_then, is_out) in [(false, true), (true, false)] {
        let mut run = Run::new(traffic(2, hedging(2), None, None));
        let hung = run.traffic.pools[0].endpoints()[0].id();
        for number in 0..60 {
            next(&mut run);
            run.now += 2 * AFTER;
            run.head(&get("h", "/app"));
            let first = run.exchange.endpoint().map(|endpoint| endpoint.id());
            if first == Some(hung) && !(answers_now_and_then && number % 9 == 0) {
                run.now += AFTER;
                assert_eq!(run.step(Event::HedgeDue), "also to 2");
                answer(&mut run, Leg::Second, 200);
            }
            assert_eq!(run.respond(200, &[]), "relay");
            run.step(Event::Finished(Outcome::Ok));
        }
        let status = status(&run, 0);
        assert_eq!(status.ejected.is_some(), is_out, "{status:?}");
        assert_eq!(status.failures, if is_out { 3 } else { 0 }, "{status:?}");
        assert!(status.overtaken >= 8, "losing alone says nothing for as long as a try may take: {status:?}");
    }
}

/// What an endpoint does with a leg.
#[derive(Debug, Clone)]
enum Does {
    Fails(Failure),
    Answers(u16),
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        2 => any_failure().prop_map(Does::Fails),
        2 => prop_oneof![Just(200_u16), Just(503)].prop_map(Does::Answers),
    ]
}

/// What happens next while something is under way.
#[derive(Debug, Clone)]
enum Step {
    /// To the leg, or to the only attempt.
    Does(bool, Does),
    HedgeDue,
    TryOver {
        replayable: bool,
    },
    ClientLeaves,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        6 => (any::<bool>(), does()).prop_map(|(second, does)| Step::Does(second, does)),
        4 => Just(Step::HedgeDue),
        2 => any::<bool>().prop_map(|replayable| Step::TryOver { replayable }),
        1 => Just(Step::ClientLeaves),
    ];
    proptest::collection::vec((0..900_u64, step), 1..30)
}

/// Requests as they are received, and what was begun for them.
#[derive(Default)]
struct Books {
    received: u32,
    hedges: u32,
    paid: u32,
    counted: u32,
}

impl Books {
    fn receives(&mut self, failure: Option<&Failure>) {
        let sent = failure.is_none_or(|failure| failure.sent == Sent::Some);
        let is_try = failure.is_none_or(|failure| failure.stage != Stage::Connect);
        self.received += u32::from(sent);
        self.counted += u32::from(is_try);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    /// Whatever endpoints do, in whichever order: at most one hedge, never for what must not be sent twice, never on one endpoint
    /// twice, no more tries than the file and the budget allow, and no lease is left.
    #[test]
    fn whatever_happens_to_two_legs(
        endpoints in 1..5_u16,
        post in any::<bool>(),
        whole in any::<bool>(),
        retry in any_policy(),
        after in 1..500_u64,
        deadline in proptest::option::of(1..9_000_u64),
        floor in 1..4_u32,
        steps in steps(),
    ) {
        let budget = RetryBudget { share: 0, floor: Rate { requests: floor, per: Duration::from_secs(10) } };
        let retry = Retry { hedge: Some(Duration::from_millis(after)), ..retry };
        let mut run = Run::new(traffic(endpoints, retry, deadline.map(Duration::from_millis), Some(budget)));
        let started = run.now;
        let request: Asked = get("h", "/app").method(if post { "POST" } else { "GET" });
        let mut action = request.view(|head| run.exchange.step(&run.traffic, Event::Head(head), run.now)).unwrap();
        let (mut books, mut legs) = (Books::default(), None::<(EndpointId, EndpointId)>);
        let mut other_until = None;
        let list: FieldList = fields(&[]);
        let view = |status| ResponseView { status, fields: &list, replayable: true };
        let (mut hedge_at, mut won, mut try_until) = (None, None, None);
        for (later, step) in steps {
            match action {
                Action::Forward(attempt) => {
                    // The try on the connection that was stale does not count.
                    books.counted -= u32::from(attempt.reason == Some(Reason::Stale));
                    books.paid += u32::from(!matches!(attempt.reason, None | Some(Reason::Connect | Reason::Stale)));
                    hedge_at = run.exchange.hedge_at(whole);
                    try_until = attempt.try_until;
                    prop_assert!(hedge_at.is_none() || (whole && !post && books.hedges == 0));
                }
                Action::Hedge(attempt) => {
                    books.hedges += 1;
                    books.paid += 1;
                    let first = run.exchange.endpoint().map(|endpoint| endpoint.id()).expect("a first leg");
                    prop_assert_ne!(first, attempt.endpoint.id());
                    legs = Some((first, attempt.endpoint.id()));
                    other_until = attempt.try_until;
                }
                Action::Keep(leg) => {
                    if let Some((first, second)) = legs.take() {
                        let kept = if leg == Leg::First { first } else { second };
                        prop_assert_eq!(run.exchange.endpoint().map(|endpoint| endpoint.id()), Some(kept));
                        try_until = if leg == Leg::First { try_until } else { other_until };
                    }
                    // The head that won is the answer's.
                    if let Some(status) = won.take() {
                        action = run.exchange.step(&run.traffic, Event::ResponseHead(view(status)), run.now);
                        continue;
                    }
                }
                Action::Delay { until } => {
                    run.now = until;
                    action = run.exchange.step(&run.traffic, Event::DelayOver, run.now);
                    continue;
                }
                Action::Discard => {
                    action = run.exchange.step(&run.traffic, Event::Discarded, run.now);
                    continue;
                }
                Action::Respond(_) | Action::Relay { .. } | Action::Done => break,
                other => panic!("{other:?}"),
            }
            run.now += Duration::from_millis(later);
            let under_way: u32 = run.loads().iter().map(|load| load.0).sum();
            prop_assert!(under_way <= 2 && (legs.is_none() || under_way == 2), "{}", under_way);
            let event = match step {
                Step::ClientLeaves => Event::Finished(Outcome::ClientGone),
                Step::HedgeDue => match hedge_at.take() {
                    Some(at) => {
                        run.now = run.now.max(at);
                        Event::HedgeDue
                    }
                    None => { action = Action::Keep(Leg::First); continue }
                },
                Step::TryOver { replayable } if legs.is_none() => {
                    if let Some(until) = try_until {
                        run.now = run.now.max(until);
                        let over = run.exchange.try_is_over(replayable, run.now);
                        prop_assert!(!over || (replayable && !post));
                    }
                    books.receives(None);
                    Event::AttemptFailed(Failure { body_replayable: replayable, ..SLOW })
                }
                Step::TryOver { .. } => {
                    books.receives(None);
                    Event::LegFailed(Leg::First, SLOW)
                }
                Step::Does(second, does) => {
                    let leg = if second { Leg::Second } else { Leg::First };
                    let race = legs.is_some();
                    match does {
                        // A leg that fails with a stale connection was no try, as where there is one attempt.
                        Does::Fails(failure) => {
                            let failure = Failure { reused: failure.reused && !race, ..failure };
                            books.receives(Some(&failure));
                            if race { Event::LegFailed(leg, failure) } else { Event::AttemptFailed(failure) }
                        }
                        Does::Answers(status) if race && retry.on.statuses.contains(status) => {
                            books.receives(None);
                            Event::LegAnswered(leg, view(status))
                        }
                        Does::Answers(status) if race => {
                            // The loser has received it too.
                            books.receives(None);
                            books.receives(None);
                            won = Some(status);
                            Event::LegAnswered(leg, view(status))
                        }
                        Does::Answers(status) => {
                            books.receives(None);
                            Event::ResponseHead(view(status))
                        }
                    }
                }
            };
            action = run.exchange.step(&run.traffic, event, run.now);
        }
        prop_assert!(!post || (books.received <= 1 && books.hedges == 0));
        prop_assert!(books.hedges <= 1);
        prop_assert!(books.counted <= retry.tries, "{} tries of {}", books.counted, retry.tries);
        if run.now - started < Duration::from_secs(9) {
            prop_assert!(books.paid <= floor, "{} paid with a budget of {floor}", books.paid);
        }
        run.step(Event::Finished(Outcome::Cancelled));
        next(&mut run);
        prop_assert!(run.loads().iter().all(|load| *load == (0, 0)), "{:?}", run.loads());
        prop_assert!(run.ends() <= 1, "one request ends once");
    }
}
