//! What follows which failure, how long it waits, and what it may cost.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidegate_config::model::{Backoff, GrpcCodes, Rate, Retry, RetryBudget, RetryOn, Statuses};

use super::budget::Budget;
use super::*;
use crate::fixtures::{RETRY, fields};
use crate::head::ResponseView;

const FAILURE: Failure = Failure {
    stage: Stage::Head,
    cause: Cause::Closed,
    reused: false,
    sent: Sent::Some,
    body_replayable: true,
    heard: Heard::Nothing,
};
const CONNECT: Failure = Failure { stage: Stage::Connect, sent: Sent::Nothing, ..FAILURE };
const STALE: Failure = Failure { reused: true, ..FAILURE };
const GET: History = History {
    idempotent: true,
    tries: 1,
    replayed: false,
    connecting_for: Duration::from_secs(1),
    total_connect: Duration::from_secs(5),
};
const POST: History = History { idempotent: false, ..GET };
const SECOND: History = History { tries: 2, ..GET };
const REPLAYED: History = History { replayed: true, ..GET };
const LATE: History = History { connecting_for: Duration::from_secs(5), ..POST };

#[test]
fn verdicts() {
    use Verdict::{Again, GiveUp, Replay, Walk};
    let invalid = Retry { on: RetryOn { invalid: true, ..RETRY.on }, ..RETRY };
    let four = Retry { tries: 4, ..RETRY };
    let only_statuses = Retry { on: RetryOn::NOTHING, ..RETRY };
    let nonsense = Failure { cause: Cause::Malformed, heard: Heard::Some, ..FAILURE };
    let cut = Failure { heard: Heard::Some, ..FAILURE };
    let halved = Failure { stage: Stage::Body, ..cut };
    let halved_and_gone = Failure { body_replayable: false, ..halved };
    let reused = Failure { reused: true, ..halved };
    let passed = Failure { heard: Heard::Passed, ..FAILURE };
    let slow = Failure { cause: Cause::TimedOut, ..FAILURE };
    let rows = [
        ("connect failure, get", CONNECT, GET, RETRY, Walk),
        ("connect failure, post", CONNECT, POST, RETRY, Walk),
        ("connect failures are no tries", CONNECT, SECOND, RETRY, Walk),
        ("connect timeout, post", Failure { cause: Cause::TimedOut, ..CONNECT }, POST, RETRY, Walk),
        ("out of connect time", CONNECT, LATE, RETRY, GiveUp),
        ("connect failure, body gone", Failure { body_replayable: false, ..CONNECT }, GET, RETRY, GiveUp),
        ("not whom we know, post", Failure { cause: Cause::Tls, ..CONNECT }, POST, RETRY, Walk),
        ("endpoint is full, post", Failure { cause: Cause::Full, ..CONNECT }, POST, RETRY, Walk),
        ("out of descriptors", Failure { cause: Cause::Local, ..CONNECT }, GET, RETRY, GiveUp),
        ("connect failure, switched off", CONNECT, GET, Retry::OFF, GiveUp),
        ("connect failure, not asked for", CONNECT, GET, only_statuses, GiveUp),
        ("closed after a get", FAILURE, GET, RETRY, Again(Reason::Closed)),
        ("closed after a get, switched off", FAILURE, GET, Retry::OFF, GiveUp),
        ("closed after a get, not asked for", FAILURE, GET, only_statuses, GiveUp),
        ("closed after a post", FAILURE, POST, RETRY, GiveUp),
        (
            "closed before a byte of a post",
            Failure { sent: Sent::Nothing, ..FAILURE },
            POST,
            RETRY,
            Again(Reason::Closed),
        ),
        ("no third try", FAILURE, SECOND, RETRY, GiveUp),
        ("a third of four", FAILURE, SECOND, four, Again(Reason::Closed)),
        ("timeout of a get", slow, GET, RETRY, Again(Reason::Timeout)),
        ("timeout of a post", slow, POST, RETRY, GiveUp),
        ("nonsense", nonsense, GET, RETRY, GiveUp),
        ("nonsense, asked for", nonsense, GET, invalid, Again(Reason::Invalid)),
        ("nonsense for a post, asked for", nonsense, POST, invalid, GiveUp),
        ("nonsense on a reused connection", Failure { reused: true, ..nonsense }, GET, RETRY, GiveUp),
        ("cut in its head", cut, GET, RETRY, GiveUp),
        ("cut in its head, asked for", cut, GET, invalid, Again(Reason::Invalid)),
        ("cut in its head on a reused connection", Failure { reused: true, ..cut }, GET, RETRY, GiveUp),
        ("cut between head and body", halved, GET, RETRY, Again(Reason::Closed)),
        ("cut between head and body, post", halved, POST, RETRY, GiveUp),
        ("cut between head and body, the last try", halved, SECOND, RETRY, GiveUp),
        ("cut between head and body, body of the request gone", halved_and_gone, GET, RETRY, GiveUp),
        ("cut between head and body on a reused connection", reused, GET, RETRY, Again(Reason::Closed)),
        ("cut between head and body, not asked for", halved, GET, only_statuses, GiveUp),
        (
            "cut behind its head, and the client has that",
            Failure { heard: Heard::Passed, ..halved },
            GET,
            RETRY,
            GiveUp,
        ),
        ("the client has some of it", passed, GET, invalid, GiveUp),
        ("the client has some of it, reused", Failure { reused: true, ..passed }, GET, invalid, GiveUp),
        ("stale connection, get", STALE, GET, RETRY, Replay),
        ("stale connection, switched off", STALE, GET, Retry::OFF, Replay),
        ("stale connection stands outside tries", STALE, SECOND, RETRY, Replay),
        ("stale connection, post sent", STALE, POST, RETRY, GiveUp),
        ("stale connection, post not sent", Failure { sent: Sent::Nothing, ..STALE }, POST, RETRY, Replay),
        ("stale connection, body gone", Failure { body_replayable: false, ..STALE }, GET, RETRY, GiveUp),
        ("stale connection twice", STALE, REPLAYED, RETRY, Again(Reason::Closed)),
        ("slow, not stale", Failure { cause: Cause::TimedOut, ..STALE }, GET, RETRY, Again(Reason::Timeout)),
    ];
    for (what, failure, history, policy, verdict) in rows {
        assert_eq!(decide(&failure, &history, &policy), verdict, "{what}");
    }
}

#[test]
fn answers_that_give_way() {
    let mut statuses = Statuses::NONE;
    assert!(statuses.insert(503));
    let policy = Retry { on: RetryOn { statuses, ..RetryOn::NOTHING }, ..RETRY };
    for (what, status, replayable, history, policy, expected) in [
        ("a get", 503, true, GET, policy, true),
        ("another status", 502, true, GET, policy, false),
        ("a good one", 200, true, GET, policy, false),
        ("not asked for", 503, true, GET, RETRY, false),
        ("a post", 503, true, POST, policy, false),
        ("the last try", 503, true, SECOND, policy, false),
        ("body gone", 503, false, GET, policy, false),
    ] {
        assert_eq!(takes(status, replayable, &history, &policy), expected, "{what}");
    }
}

#[test]
fn calls_that_are_made_again() {
    let policy = Retry { grpc: GrpcCodes::UNAVAILABLE.with(GrpcCodes::INTERNAL), ..RETRY };
    let code = |status: u16, given: &[(&str, &str)]| {
        grpc::code(&ResponseView { status, fields: &fields(given), replayable: true })
    };
    let head = |kind, code| [("content-type", kind), ("grpc-status", code)];
    assert_eq!(code(200, &head("application/grpc", "14")), Some(14));
    assert_eq!(code(200, &head("Application/gRPC+proto", " 0 ")), Some(0));
    assert_eq!(code(503, &head("application/grpc", "14")), None, "no call");
    assert_eq!(code(200, &head("text/html", "14")), None);
    assert_eq!(code(200, &head("application/grpc", "x")), None);
    assert_eq!(code(200, &[("content-type", "application/grpc")]), None, "an answer with messages");
    for (what, code, replayable, history, policy, expected) in [
        ("not now", 14, true, POST, policy, true),
        ("broken", 13, true, POST, policy, true),
        ("another end", 8, true, POST, policy, false),
        ("a good one", 0, true, POST, policy, false),
        ("no code", 77, true, POST, policy, false),
        ("not asked for", 14, true, POST, RETRY, false),
        ("the last try", 14, true, SECOND, policy, false),
        ("body gone", 14, false, POST, policy, false),
    ] {
        assert_eq!(takes_call(code, replayable, &history, &policy), expected, "{what}");
    }
}

fn any_failure() -> impl Strategy<Value = Failure> {
    let stage = prop_oneof![Just(Stage::Connect), Just(Stage::Send), Just(Stage::Head)];
    let cause = prop_oneof![
        Just(Cause::Closed),
        Just(Cause::TimedOut),
        Just(Cause::Malformed),
        Just(Cause::Tls),
        Just(Cause::Full),
        Just(Cause::Local)
    ];
    let heard = prop_oneof![Just(Heard::Nothing), Just(Heard::Some), Just(Heard::Passed)];
    (stage, cause, any::<bool>(), any::<bool>(), any::<bool>(), heard).prop_map(
        |(stage, cause, reused, sent, body_replayable, heard)| Failure {
            stage,
            cause,
            reused,
            sent: if sent { Sent::Some } else { Sent::Nothing },
            body_replayable,
            heard,
        },
    )
}

fn any_policy() -> impl Strategy<Value = Retry> {
    (1..=10_u32, any::<[bool; 5]>()).prop_map(|(tries, [connect, closed, timeout, invalid, status])| {
        let mut statuses = Statuses::NONE;
        if status {
            statuses.insert(503);
        }
        Retry { tries, on: RetryOn { connect, closed, timeout, invalid, statuses }, ..RETRY }
    })
}

proptest! {
    /// Whatever a file asks for.
    #[test]
    fn nothing_that_may_have_been_received_is_sent_twice(
        failure in any_failure(),
        policy in any_policy(),
        tries in 1..12_u32,
        (idempotent, replayed) in any::<(bool, bool)>(),
    ) {
        let history = History { idempotent, tries, replayed, ..GET };
        let verdict = decide(&failure, &history, &policy);
        // Before a connection there is nothing to receive.
        let received = failure.stage != Stage::Connect && failure.sent == Sent::Some;
        if received && !idempotent || failure.heard == Heard::Passed || !failure.body_replayable {
            prop_assert_eq!(verdict, Verdict::GiveUp);
        }
        if tries >= policy.tries {
            prop_assert!(!matches!(verdict, Verdict::Again(_)), "{:?}", verdict);
        }
        if replayed {
            prop_assert!(verdict != Verdict::Replay);
        }
        prop_assert!(!takes(503, failure.body_replayable, &history, &policy)
            || (idempotent && failure.body_replayable && tries < policy.tries && policy.on.statuses.contains(503)));
    }

    #[test]
    fn waits_grow_and_have_an_end(base in 0..1_000_u64, more in 0..10_000_u64, retry in 1..100_u32, draw in any::<u64>()) {
        let backoff = Backoff { base: Duration::from_millis(base), max: Duration::from_millis(base + more) };
        let wait = backoff::delay(&backoff, retry, draw);
        prop_assert!(wait <= backoff.max);
        prop_assert!(wait <= backoff.base.saturating_mul(1 << (retry - 1).min(31)));
        prop_assert!(backoff::delay(&backoff, retry, u64::MAX) >= wait);
        prop_assert_eq!(backoff::delay(&backoff, retry, 0), Duration::ZERO);
    }

    /// However requests and retries come, in any window of ten seconds there are no more than the file allows.
    #[test]
    fn the_budget_is_kept(
        share in 0..200_u32,
        floor in 1..20_u32,
        events in proptest::collection::vec((0..700_u64, 0..60_u64, 0..60_u64), 1..60),
    ) {
        let settings = RetryBudget { share, floor: Rate { requests: floor, per: Duration::from_secs(1) } };
        let (budget, start) = (Budget::default(), Instant::now());
        budget.configure(Some(settings));
        let (mut now, mut deposits, mut spent) = (0, Vec::new(), Vec::new());
        for (later, requests, retries) in events {
            now += later * 10;
            let at = start + Duration::from_millis(now);
            for _ in 0..requests {
                budget.deposit(at);
                deposits.push(now);
            }
            for _ in 0..retries {
                if budget.withdraw(at) {
                    spent.push(now);
                }
            }
            // Windows begin with whole seconds from the first event on.
            let first = start_of_window(now, *deposits.first().unwrap_or(&now).min(spent.first().unwrap_or(&now)));
            let recent = |list: &[u64]| list.iter().filter(|one| **one >= first).count() as u64;
            let allowed = (recent(&deposits) * u64::from(share) / 100).max(u64::from(floor) * 10);
            // What was allowed when it was spent may be more than what is allowed after requests have aged.
            let before = recent(&spent) - spent.iter().filter(|one| **one == now).count() as u64;
            prop_assert!(recent(&spent) <= allowed.max(before), "{} spent of {allowed}", recent(&spent));
        }
    }
}

/// Milliseconds at which the window of ten whole seconds begins.
fn start_of_window(now: u64, origin: u64) -> u64 {
    let second = (now - origin) / 1_000;
    origin + second.saturating_sub(9) * 1_000
}

#[test]
fn a_budget_fills_and_ages() {
    let (budget, start) = (Budget::default(), Instant::now());
    assert!(budget.withdraw(start), "without settings there is no limit");
    budget.configure(Some(RetryBudget { share: 20, floor: Rate { requests: 1, per: Duration::from_secs(1) } }));
    let spend = |at: f64| (0..1_000).take_while(|_| budget.withdraw(start + Duration::from_secs_f64(at))).count();
    assert_eq!(spend(0.5), 10, "the floor of ten seconds");
    (0..100).for_each(|_| budget.deposit(start + Duration::from_secs(1)));
    assert_eq!(spend(1.5), 10, "a fifth of a hundred requests");
    assert_eq!(spend(9.9), 0);
    assert_eq!(spend(10.0), 10, "what was spent in the first second is forgotten");
    assert_eq!(spend(11.0), 0, "and so are the requests of the second one, which paid for more than the floor");
    assert_eq!(spend(25.0), 10);
    budget.configure(None);
    assert_eq!(spend(25.0), 1_000);
}

#[test]
fn threads_never_spend_one_retry_twice() {
    let (budget, now) = (Budget::default(), Instant::now());
    budget.configure(Some(RetryBudget { share: 50, floor: Rate { requests: 1, per: Duration::from_secs(10) } }));
    let spent: usize = std::thread::scope(|scope| {
        let deposits: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..500).for_each(|_| budget.deposit(now)))).collect();
        deposits.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..1_000).filter(|_| budget.withdraw(now)).count())).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(spent, 1_000, "half of two thousand requests");
}

#[test]
fn waits_that_answers_ask_for() {
    const NOON: Option<&str> = Some("Sun, 06 Nov 1994 12:00:00 GMT");
    for (text, date, seconds) in [
        ("0", None, Some(0)),
        (" 120 ", NOON, Some(120)),
        ("", NOON, None),
        ("1.5", NOON, None),
        ("-1", NOON, None),
        ("99999999999", NOON, None),
        ("Sun, 06 Nov 1994 12:01:00 GMT", NOON, Some(60)),
        (" Sunday, 06-Nov-94 12:00:07 GMT ", NOON, Some(7)),
        ("Sun Nov  6 12:00:08 1994", NOON, Some(8)),
        ("Mon, 07 Nov 1994 12:00:00 GMT", NOON, Some(86_400)),
        ("Sun, 06 Nov 1994 11:59:59 GMT", NOON, Some(0)),
        ("Sun, 06 Nov 1994 12:01:00 CET", NOON, None),
        ("tomorrow", NOON, None),
        ("Sun, 06 Nov 1994 12:01:00 GMT", None, None),
        ("Sun, 06 Nov 1994 12:01:00 GMT", Some("noon"), None),
    ] {
        let asked = backoff::asked_for(text.as_bytes(), date.map(str::as_bytes));
        assert_eq!(asked, seconds.map(Duration::from_secs), "{text} at {date:?}");
    }
}
