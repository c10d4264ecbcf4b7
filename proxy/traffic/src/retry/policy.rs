//! What follows a failure, or an answer that counts as one.

use std::time::Duration;

use tidegate_config::model::{Retry, RetryOn};

use super::{Cause, Failure, Heard, Reason, Sent, Stage};

/// What is known about the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The method is idempotent (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// Tries so far that count, this one included.
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
    /// An endpoint that was not asked; the one that could not be reached is no try.
    Walk,
    /// Another try, if the budget pays for it.
    Again(Reason),
    /// The failure is the answer.
    GiveUp,
}

/// Decides what follows a failed attempt.
#[must_use]
pub fn decide(failure: &Failure, history: &History, policy: &Retry) -> Verdict {
    if failure.heard == Heard::Passed || !failure.body_replayable || failure.cause == Cause::Local {
        return Verdict::GiveUp;
    }
    if failure.stage == Stage::Connect {
        let time_left = history.connecting_for < history.total_connect;
        return if time_left && policy.on.connect { Verdict::Walk } else { Verdict::GiveUp };
    }
    if !history.idempotent && failure.sent == Sent::Some {
        return Verdict::GiveUp;
    }
    if failure.reused && failure.cause == Cause::Closed && failure.heard == Heard::Nothing && !history.replayed {
        return Verdict::Replay;
    }
    match reason(failure, &policy.on) {
        Some(reason) if history.tries < policy.tries => Verdict::Again(reason),
        _ => Verdict::GiveUp,
    }
}

/// Which of the things that are tried again this failure is.
fn reason(failure: &Failure, on: &RetryOn) -> Option<Reason> {
    let (asked_for, reason) = match (failure.cause, failure.heard) {
        // Sound as far as it came: whoever answered so has died since.
        (Cause::Closed, Heard::Some) if failure.stage == Stage::Body => (on.closed, Reason::Closed),
        // An answer that breaks off in its head is none.
        (Cause::Malformed, _) | (Cause::Closed, Heard::Some) => (on.invalid, Reason::Invalid),
        (Cause::Closed, _) => (on.closed, Reason::Closed),
        (Cause::TimedOut, _) => (on.timeout, Reason::Timeout),
        (Cause::Tls | Cause::Full | Cause::Local, _) => return None,
    };
    asked_for.then_some(reason)
}

/// Whether an answer of this status, of which the client has nothing yet, may give way to another try. `replayable`:
/// everything taken from the client's body so far can be sent again.
#[must_use]
pub fn takes(status: u16, replayable: bool, history: &History, policy: &Retry) -> bool {
    policy.on.statuses.contains(status) && replayable && history.idempotent && history.tries < policy.tries
}

/// The same for a gRPC call that ended with this code. All of them are POST, so it is the file that says which may be sent
/// twice, as with gRPC's own clients (proposal A6).
#[must_use]
pub fn takes_call(code: u32, replayable: bool, history: &History, policy: &Retry) -> bool {
    policy.grpc.contains(code) && replayable && history.tries < policy.tries
}

/// After which time without the head of an answer a second leg may begin beside the first. `whole`: nothing of the request has
/// still to come from the client, and all of it can be sent again; `upgrade`: it is to become a tunnel.
#[must_use]
pub fn hedges(whole: bool, upgrade: bool, history: &History, policy: &Retry) -> Option<Duration> {
    policy.hedge.filter(|_| whole && !upgrade && history.idempotent && history.tries < policy.tries)
}

/// Whether an answer of this status ends a race of two legs. One that would be tried again waits for the other leg, which has
/// been paid for, however many tries are left.
#[must_use]
pub fn wins(status: u16, policy: &Retry) -> bool {
    !policy.on.statuses.contains(status)
}
