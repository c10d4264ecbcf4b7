//! What an exchange is told.

use super::hedge::Leg;
use crate::head::{HeadView, ResponseView};
use crate::pool::lease::Outcome;
use crate::pool::queue::Called;
use crate::retry::Failure;

/// What has happened.
pub enum Event<'a> {
    /// The request head has arrived and is well formed.
    Head(&'a HeadView<'a>),
    /// The time of `Delay` has come.
    DelayOver,
    /// As much of the body as `Collect` asks for is held.
    Collected,
    /// The ticket of `Queue` says what the wait has come to.
    Called(Called),
    /// The time of `Queue` is over.
    WaitExpired,
    /// The attempt of `Forward` ended before a response head.
    AttemptFailed(Failure),
    /// A response head has arrived: interim (1xx), the 101 of an upgrade, or final.
    ResponseHead(ResponseView<'a>),
    /// The response of `Discard` is gone.
    Discarded,
    /// The time of [`Exchange::hedge_at`](super::Exchange::hedge_at) has come.
    HedgeDue,
    /// One of two legs ended before a response head. Said only while the other one is under way.
    LegFailed(Leg, Failure),
    /// The final response head of one of two legs has arrived. Said only while the other one is under way.
    LegAnswered(Leg, ResponseView<'a>),
    /// The time for the whole request is over.
    DeadlineOver,
    /// The exchange is over: the answer was sent, or something made that impossible.
    Finished(Outcome),
}
