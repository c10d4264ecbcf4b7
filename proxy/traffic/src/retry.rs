//! Whether a failed attempt is followed by another one.
//!
//! The rule that stands above the others: a request that is not idempotent is never sent a second time once a byte
//! of it may have reached an endpoint, and nothing is sent a second time once a byte of an answer has arrived.

use std::time::Duration;

/// Attempts that may have reached an endpoint, the first included. Failed connects and the replay on a fresh
/// connection are not counted: they are bounded by the number of endpoints and by one.
pub const MAX_TRIES: u32 = 2;

/// What is known when an attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// How far it got.
    pub stage: Stage,
    /// What ended it.
    pub cause: Cause,
    /// It used a connection that had served a request before.
    pub reused: bool,
    /// How much of the request had been handed to the connection.
    pub sent: Sent,
    /// Everything taken from the client's body so far can be sent again.
    pub body_replayable: bool,
    /// A byte of a response had arrived.
    pub response_started: bool,
}

/// How far an attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// There was no connection yet.
    Connect,
    /// The request was being sent.
    Send,
    /// The request was sent, and the response head had not arrived.
    Head,
}

/// What ended an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The other side refused, closed or reset, or the network said so.
    Closed,
    /// A deadline passed.
    TimedOut,
    /// What arrived is not HTTP.
    Malformed,
    /// The handshake failed: it is not whom we know, or does not know us.
    Tls,
    /// Every connection that the endpoint may have is in use; another endpoint may have room.
    Full,
    /// A limit of our own process: descriptors, local ports. No endpoint is better than another then.
    Local,
}

/// How much of a request had been handed to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Not one byte.
    Nothing,
    /// At least one byte, so the endpoint may act on it.
    Some,
}

/// What is known about the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The method is idempotent (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// Attempts so far that count against [`MAX_TRIES`], this one included.
    pub tries: u32,
    /// The replay on a fresh connection has been used.
    pub replayed: bool,
    /// Time since the first connect began.
    pub connecting_for: Duration,
    /// All connects together may take this long.
    pub total_connect: Duration,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The same endpoint on a fresh connection: the old one had been closed while it was idle.
    Replay,
    /// An endpoint that was not tried.
    Next,
    /// The failure is the answer.
    GiveUp,
}

/// Decides what follows a failed attempt.
#[must_use]
pub fn decide(failure: &Failure, history: &History) -> Verdict {
    if failure.response_started || !failure.body_replayable || failure.cause == Cause::Local {
        return Verdict::GiveUp;
    }
    if failure.stage == Stage::Connect {
        let time_left = history.connecting_for < history.total_connect;
        return if time_left { Verdict::Next } else { Verdict::GiveUp };
    }
    if !history.idempotent && failure.sent == Sent::Some {
        return Verdict::GiveUp;
    }
    if failure.reused && failure.cause == Cause::Closed && !history.replayed {
        return Verdict::Replay;
    }
    match failure.cause {
        Cause::Closed | Cause::TimedOut if history.tries < MAX_TRIES => Verdict::Next,
        _ => Verdict::GiveUp,
    }
}

/// Whether sending a request twice means the same as sending it once (RFC 9110 section 9.2.2). An unknown method is
/// not idempotent.
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURE: Failure = Failure {
        stage: Stage::Head,
        cause: Cause::Closed,
        reused: false,
        sent: Sent::Some,
        body_replayable: true,
        response_started: false,
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
        use Verdict::{GiveUp, Next, Replay};
        let rows = [
            ("connect failure, get", CONNECT, GET, Next),
            ("connect failure, post", CONNECT, POST, Next),
            ("connect failures are no tries", CONNECT, SECOND, Next),
            ("connect timeout, post", Failure { cause: Cause::TimedOut, ..CONNECT }, POST, Next),
            ("out of connect time", CONNECT, LATE, GiveUp),
            ("connect failure, body gone", Failure { body_replayable: false, ..CONNECT }, GET, GiveUp),
            ("not whom we know, post", Failure { cause: Cause::Tls, ..CONNECT }, POST, Next),
            ("endpoint is full, post", Failure { cause: Cause::Full, ..CONNECT }, POST, Next),
            ("out of descriptors", Failure { cause: Cause::Local, ..CONNECT }, GET, GiveUp),
            ("closed after a get", FAILURE, GET, Next),
            ("closed after a post", FAILURE, POST, GiveUp),
            ("closed before a byte of a post", Failure { sent: Sent::Nothing, ..FAILURE }, POST, Next),
            ("no third try", FAILURE, SECOND, GiveUp),
            ("timeout of a get", Failure { cause: Cause::TimedOut, ..FAILURE }, GET, Next),
            ("timeout of a post", Failure { cause: Cause::TimedOut, ..FAILURE }, POST, GiveUp),
            ("nonsense", Failure { cause: Cause::Malformed, ..FAILURE }, GET, GiveUp),
            ("nonsense on a reused connection", Failure { cause: Cause::Malformed, ..STALE }, GET, GiveUp),
            ("answer has begun", Failure { response_started: true, ..FAILURE }, GET, GiveUp),
            ("answer has begun on a reused connection", Failure { response_started: true, ..STALE }, GET, GiveUp),
            ("stale connection, get", STALE, GET, Replay),
            ("stale connection stands outside tries", STALE, SECOND, Replay),
            ("stale connection, post sent", STALE, POST, GiveUp),
            ("stale connection, post not sent", Failure { sent: Sent::Nothing, ..STALE }, POST, Replay),
            ("stale connection, body gone", Failure { body_replayable: false, ..STALE }, GET, GiveUp),
            ("stale connection twice", STALE, REPLAYED, Next),
            ("slow, not stale", Failure { cause: Cause::TimedOut, ..STALE }, GET, Next),
        ];
        for (what, failure, history, verdict) in rows {
            assert_eq!(decide(&failure, &history), verdict, "{what}");
        }
    }

    #[test]
    fn nothing_that_may_have_been_received_is_sent_twice() {
        let stages = [Stage::Connect, Stage::Send, Stage::Head];
        let causes = [Cause::Closed, Cause::TimedOut, Cause::Malformed, Cause::Full, Cause::Local];
        let both = [false, true];
        for (stage, cause) in stages.into_iter().flat_map(|stage| causes.map(|cause| (stage, cause))) {
            for (reused, replayed) in both.into_iter().flat_map(|first| both.map(|second| (first, second))) {
                for tries in 1..=3 {
                    let failure = Failure { stage, cause, reused, ..FAILURE };
                    let history = History { tries, replayed, ..POST };
                    if stage != Stage::Connect {
                        assert_eq!(decide(&failure, &history), Verdict::GiveUp, "{failure:?} {history:?}");
                    }
                    let answered = Failure { response_started: true, ..failure };
                    assert_eq!(decide(&answered, &GET), Verdict::GiveUp, "{answered:?}");
                }
            }
        }
    }
}
