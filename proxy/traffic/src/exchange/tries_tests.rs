//! Tries as the machine makes them: which follow, when, and what stays true under every policy.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_config::model::{Backoff, EndpointSource, GrpcCodes, Rate, Retry, RetryBudget, RetryOn, Statuses};

use super::tests::{CLOSED, REFUSED, Run, SLOW, any_failure};
use super::*;
use crate::fixtures::{RETRY, get, model, proxy, route, servers, site, upstream};
use crate::head::ResponseView;
use crate::retry::{Failure, Sent, Stage};
use crate::traffic::{Identities, Traffic};

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn traffic(count: u16, retry: Retry, deadline: Option<Duration>, budget: Option<RetryBudget>) -> Traffic {
    let mut route = route("/app", proxy("app"));
    (route.retry, route.deadline) = (retry, deadline);
    let ports: Vec<_> = (1..=count).map(|port| (port, 1)).collect();
    let mut upstream = upstream("app", servers(&ports));
    upstream.retry_budget = budget;
    Traffic::build(&model(vec![site("s", &["h"], vec![route])], vec![upstream]), None, &Identities::default())
}

pub(super) fn policy(tries: u32) -> Retry {
    let mut statuses = Statuses::NONE;
    statuses.insert(503);
    statuses.insert(429);
    let backoff = Backoff { base: SECOND, max: 4 * SECOND };
    let on = RetryOn { statuses, ..RETRY.on };
    Retry { tries, on, start_over: true, backoff, retry_after: Some(10 * SECOND), ..RETRY }
}

#[test]
fn an_answer_gives_way_only_to_a_try_that_is_certain() {
    let none = RetryBudget { share: 0, floor: Rate { requests: 1, per: Duration::from_secs(86_400) } };
    let once = Retry { start_over: false, ..policy(9) };
    for (what, count, method, policy, deadline, budget, status, field, word) in [
        ("another endpoint", 2, "GET", policy(2), None, None, 503, None, "discard"),
        ("the last try", 2, "GET", policy(1), None, None, 503, None, "relay"),
        ("another status", 2, "GET", policy(2), None, None, 502, None, "relay"),
        ("not idempotent", 2, "POST", policy(2), None, None, 503, None, "relay"),
        ("no other endpoint", 1, "GET", once, None, None, 503, None, "relay"),
        ("the same endpoint again", 1, "GET", policy(2), None, None, 503, None, "discard"),
        ("no budget", 2, "GET", policy(2), None, Some(none), 503, None, "relay"),
        ("as late as it asks", 2, "GET", policy(2), None, None, 429, Some("10"), "discard"),
        ("later than the file allows", 2, "GET", policy(2), None, None, 429, Some("11"), "relay"),
        ("later than the deadline", 2, "GET", policy(2), Some(5 * SECOND), None, 429, Some("5"), "relay"),
    ] {
        let mut run = Run::new(traffic(count, policy, deadline, budget));
        run.head(&get("h", "/app").method(method));
        let fields: Vec<_> = field.map(|seconds| ("retry-after", seconds)).into_iter().collect();
        assert_eq!(run.respond(status, &fields), word, "{what}");
        let held = run.loads().iter().filter(|load| load.0 > 0).count();
        assert_eq!(held, if word == "discard" && count == 2 { 2 } else { 1 }, "{what}: the next one is reserved");
    }
}

#[test]
fn waits_come_where_they_belong() {
    // The first retry at an endpoint that was not asked goes at once.
    let mut run = Run::new(traffic(2, policy(4), None, None));
    assert_eq!(run.head(&get("h", "/app")), "to 1");
    assert_eq!(run.fail(CLOSED), "to 2");
    let word = run.fail(CLOSED);
    assert!(word.starts_with("delay "), "both were asked: {word}");
    assert!(run.step(Event::DelayOver).starts_with("to "));
    // After a timeout nobody is asked again.
    let mut run = Run::new(traffic(1, policy(4), None, None));
    run.head(&get("h", "/app"));
    assert_eq!(run.fail(SLOW), "head_timeout");
    // What an answer asks for.
    let mut run = Run::new(traffic(2, policy(4), None, None));
    run.head(&get("h", "/app"));
    assert_eq!(run.respond(503, &[("retry-after", "7")]), "discard");
    assert_eq!(run.step(Event::Discarded), "delay 7s");
    assert_eq!(run.step(Event::DelayOver), "to 2");
    assert_eq!(run.loads(), [(0, 0), (1, 0)]);
    // Rounds of connects are tries.
    let mut run = Run::new(traffic(2, policy(2), None, None));
    assert_eq!(run.head(&get("h", "/app").method("POST")), "to 1");
    assert_eq!(run.fail(REFUSED), "to 2");
    assert!(run.fail(REFUSED).starts_with("delay "));
    assert!(run.step(Event::DelayOver).starts_with("to "));
    assert!(run.fail(REFUSED).starts_with("to "));
    assert_eq!(run.fail(REFUSED), "connect_failed", "two rounds of two");
}

#[test]
fn a_try_ends_early_only_if_another_one_follows() {
    let until = |run: &mut Run, method| {
        let action =
            get("h", "/app").method(method).view(|head| run.exchange.step(&run.traffic, Event::Head(head), run.now));
        let Ok(Action::Forward(attempt)) = action else { panic!("{action:?}") };
        attempt.try_until.map(|until| until - run.now)
    };
    let with = |try_timeout| Retry { try_timeout, ..policy(2) };
    let two = Some(2 * SECOND);
    for (what, count, method, policy, deadline, expected) in [
        ("a get", 2, "GET", with(two), None, two),
        ("switched off", 2, "GET", with(None), None, None),
        ("not idempotent", 2, "POST", with(two), None, None),
        ("the only endpoint", 1, "GET", with(two), None, None),
        ("the only try", 2, "GET", Retry { tries: 1, ..with(two) }, None, None),
        ("not for timeouts", 2, "GET", Retry { on: RetryOn::NOTHING, ..with(two) }, None, None),
        ("before the deadline", 2, "GET", with(two), Some(3 * SECOND), two),
        ("after the deadline", 2, "GET", with(two), Some(2 * SECOND), None),
    ] {
        let mut run = Run::new(traffic(count, policy, deadline, None));
        assert_eq!(until(&mut run, method), expected, "{what}");
    }
    // At its time it is asked once more, and pays once.
    let one = RetryBudget { share: 0, floor: Rate { requests: 1, per: Duration::from_secs(10) } };
    let mut run = Run::new(traffic(2, with(two), None, Some(one)));
    until(&mut run, "GET");
    assert!(!run.exchange.try_is_over(false, run.now), "the body is gone");
    assert_eq!(run.loads(), [(1, 0), (0, 0)]);
    assert!(run.exchange.try_is_over(true, run.now));
    assert_eq!(run.loads(), [(1, 0), (1, 0)], "the other one is certain before this one is given up");
    assert_eq!(run.fail(SLOW), "to 2");
    assert_eq!(run.loads(), [(0, 0), (1, 0)]);
    let mut other = Run::new(run.traffic);
    until(&mut other, "GET");
    assert!(!other.exchange.try_is_over(true, other.now), "the budget is spent");
    assert!(other.exchange.was_denied_a_retry());
    // An endpoint that is in service, and has no room.
    let mut model = model(
        vec![site(
            "s",
            &["h"],
            vec![{
                let mut route = route("/app", proxy("app"));
                route.retry = with(two);
                route
            }],
        )],
        vec![upstream("app", servers(&[(1, 1), (2, 1)]))],
    );
    let Some(EndpointSource::Servers(servers)) = model.upstreams.get_mut("app").map(|app| &mut app.source) else {
        panic!()
    };
    servers.iter_mut().for_each(|server| server.max_conns = Some(1));
    let traffic = Traffic::build(&model, None, &Identities::default());
    let (mut first, mut second) = (Run::new(traffic), Exchange::new(RequestId(9), Instant::now()));
    assert_eq!(until(&mut first, "GET"), two);
    let action = get("h", "/app").view(|head| second.step(&first.traffic, Event::Head(head), first.now));
    assert!(matches!(action, Ok(Action::Forward(_))));
    assert!(!first.exchange.try_is_over(true, first.now), "it would be given up for nothing");
}

#[test]
fn an_endpoint_that_is_out_is_the_last_resort_here_too() {
    for (policy, failure, what) in [
        (policy(2), CLOSED, "closed"),
        (Retry { start_over: false, ..policy(2) }, SLOW, "silent"),
        (Retry { start_over: false, ..policy(2) }, REFUSED, "not reached"),
    ] {
        let mut run = Run::new(traffic(2, policy, None, None));
        for _ in 0..6 {
            // The first endpoint fails three requests, and is left alone.
            let mut other = Exchange::new(RequestId(7), run.now);
            let seen =
                get("h", "/app").method("POST").view(|head| other.step(&run.traffic, Event::Head(head), run.now));
            let Ok(Action::Forward(attempt)) = seen else { panic!("{seen:?}") };
            if attempt.endpoint.id() == run.traffic.pools[0].endpoints()[0].id() {
                other.step(&run.traffic, Event::AttemptFailed(CLOSED), run.now);
            } else {
                other.step(&run.traffic, Event::Finished(Outcome::Ok), run.now);
            }
        }
        let first = run.head(&get("h", "/app"));
        let word = run.fail(failure);
        assert!(word.starts_with("to ") && word != first, "{what}: {first}, then {word}");
    }
}

#[test]
fn a_deadline_ends_everything_that_waits() {
    let deadline = Some(5 * SECOND);
    let mut run = Run::new(traffic(2, policy(9), deadline, None));
    run.head(&get("h", "/app"));
    run.now += 5 * SECOND;
    assert_eq!(run.fail(CLOSED), "deadline");
    assert_eq!(run.traffic.pools[0].endpoints()[0].status().failures, 1, "it was silent all the time");
    let mut run = Run::new(traffic(1, policy(9), deadline, None));
    run.head(&get("h", "/app"));
    assert_eq!(run.respond(200, &[]), "relay");
    run.now += 5 * SECOND;
    assert_eq!(run.step(Event::DeadlineOver), "deadline");
    assert_eq!(run.loads(), [(0, 0)]);
    assert_eq!(run.traffic.pools[0].endpoints()[0].status().failures, 0, "it had begun to answer");
    assert_eq!(run.step(Event::DeadlineOver), "done");
}

pub(super) fn any_policy() -> impl Strategy<Value = Retry> {
    let times = (0..3_000_u64, 0..4_000_u64, proptest::option::of(1..4_000_u64), proptest::option::of(0..5_u64));
    (1..6_u32, any::<[bool; 6]>(), times).prop_map(|(tries, switches, (base, more, try_timeout, retry_after))| {
        let [connect, closed, timeout, invalid, status, start_over] = switches;
        let mut statuses = Statuses::NONE;
        if status {
            statuses.insert(503);
        }
        Retry {
            tries,
            on: RetryOn { connect, closed, timeout, invalid, statuses },
            grpc: GrpcCodes::NONE,
            try_timeout: try_timeout.map(Duration::from_millis),
            hedge: None,
            backoff: Backoff { base: Duration::from_millis(base), max: Duration::from_millis(base + more) },
            start_over,
            retry_after: retry_after.map(Duration::from_secs),
        }
    })
}

/// What an endpoint does with an attempt, and after how many milliseconds.
#[derive(Debug, Clone)]
enum Happens {
    Fails(Failure),
    Answers(u16, Option<&'static str>),
    Hangs { replayable: bool },
}

fn anything() -> impl Strategy<Value = (u64, Happens)> {
    let answers = (
        prop_oneof![Just(200_u16), Just(503), Just(503)],
        prop_oneof![Just(None), Just(Some("0")), Just(Some("3")), Just(Some("soon"))],
    );
    let happens = prop_oneof![
        4 => any_failure().prop_map(Happens::Fails),
        3 => answers.prop_map(|(status, after)| Happens::Answers(status, after)),
        2 => any::<bool>().prop_map(|replayable| Happens::Hangs { replayable }),
    ];
    (0..2_500_u64, happens)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// Whatever a file asks for and endpoints do: a request that is not idempotent is received once at most, no more tries
    /// are made than the file and the budget allow, nothing waits beyond the deadline, and nothing leaks.
    #[test]
    fn whatever_happens(
        endpoints in 1..5_u16,
        post in any::<bool>(),
        policy in any_policy(),
        deadline in proptest::option::of(1..9_000_u64),
        floor in 1..4_u32,
        happens in proptest::collection::vec(anything(), 1..24),
    ) {
        let budget = RetryBudget { share: 0, floor: Rate { requests: floor, per: Duration::from_secs(10) } };
        let deadline = deadline.map(Duration::from_millis);
        let mut run = Run::new(traffic(endpoints, policy, deadline, Some(budget)));
        let end = deadline.map(|deadline| run.now + deadline);
        let request = get("h", "/app").method(if post { "POST" } else { "GET" });
        let started = run.now;
        let mut action = request.view(|head| run.exchange.step(&run.traffic, Event::Head(head), run.now)).unwrap();
        let (mut received, mut tries, mut retries) = (0, 0_u32, 0);
        let mut happens = happens.into_iter();
        loop {
            action = match action {
                Action::Forward(attempt) => {
                    prop_assert!(end.is_none_or(|end| run.now < end), "an attempt after the deadline");
                    prop_assert!(attempt.try_until.is_none_or(|until| end.is_none_or(|end| until < end)));
                    // The try on the connection that was stale does not count.
                    tries -= u32::from(attempt.reason == Some(Reason::Stale));
                    retries += u32::from(!matches!(attempt.reason, None | Some(Reason::Connect | Reason::Stale)));
                    let Some((later, event)) = happens.next() else { break };
                    run.now += Duration::from_millis(later);
                    let fields;
                    let event = match event {
                        Happens::Fails(failure) => {
                            received += u32::from(failure.sent == Sent::Some);
                            tries += u32::from(failure.stage != Stage::Connect);
                            Event::AttemptFailed(failure)
                        }
                        Happens::Answers(status, after) => {
                            received += 1;
                            tries += 1;
                            fields = crate::fixtures::fields(&after.map(|after| ("retry-after", after)).into_iter().collect::<Vec<_>>());
                            Event::ResponseHead(ResponseView { status, fields: &fields, replayable: true })
                        }
                        Happens::Hangs { replayable } => {
                            received += 1;
                            tries += 1;
                            if let Some(until) = attempt.try_until {
                                run.now = run.now.max(until);
                                let over = run.exchange.try_is_over(replayable, run.now);
                                prop_assert!(!over || (replayable && !post));
                            }
                            Event::AttemptFailed(Failure { body_replayable: replayable, ..SLOW })
                        }
                    };
                    run.exchange.step(&run.traffic, event, run.now)
                }
                Action::Delay { until } => {
                    prop_assert!(end.is_none_or(|end| until < end), "a wait beyond the deadline");
                    prop_assert!(until - run.now <= policy.backoff.max.max(policy.retry_after.unwrap_or_default()));
                    run.now = until;
                    run.exchange.step(&run.traffic, Event::DelayOver, run.now)
                }
                Action::Discard => {
                    prop_assert!(!post);
                    run.exchange.step(&run.traffic, Event::Discarded, run.now)
                }
                Action::Respond(_) | Action::Relay { .. } => break,
                other => panic!("{other:?}"),
            };
        }
        prop_assert!(!post || received <= 1, "received {received} times");
        prop_assert!(tries <= policy.tries, "{tries} tries of {}", policy.tries);
        if run.now - started < Duration::from_secs(9) {
            prop_assert!(retries <= floor, "{retries} retries with a budget of {floor}");
        }
        run.step(Event::Finished(Outcome::Cancelled));
        drop(std::mem::replace(&mut run.exchange, Exchange::new(RequestId(2), run.now)));
        prop_assert!(run.loads().iter().all(|load| *load == (0, 0)));
        prop_assert!(run.ends() <= 1, "one request ends once");
    }
}
