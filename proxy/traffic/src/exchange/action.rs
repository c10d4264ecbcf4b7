//! What an exchange asks for.

use std::sync::Arc;
use std::time::Instant;

use tidegate_config::model::{FixedResponse, Parsing, ProxyHeader, UpstreamProtocol, UpstreamTimeouts};

use super::hedge::Leg;
use crate::edits::HeadEdits;
use crate::pool::Pool;
use crate::pool::endpoint::Endpoint;
use crate::pool::queue::Ticket;
use crate::refusal::Refusal;
use crate::retry::Reason;
use crate::traffic::TransportId;

/// What the driver is to do.
#[derive(Debug)]
pub enum Action {
    /// Answer without an endpoint.
    Respond(Answer),
    /// Wait: the client is ahead of the rate of a limit.
    Delay {
        /// Then `DelayOver`.
        until: Instant,
    },
    /// Hold the request's body, until it is complete or so much is held or no more can be. Nothing is taken from the
    /// pool meanwhile: however slow the client is, it costs no endpoint anything.
    Collect {
        /// Most bytes to hold.
        most: u64,
    },
    /// Wait for the ticket, but not beyond the given time.
    Queue {
        /// Place in the pool's queue.
        ticket: Ticket,
        /// Then `WaitExpired`.
        until: Instant,
    },
    /// Send the request to an endpoint.
    Forward(Attempt),
    /// Send the request to another endpoint as well: from now on there are two legs.
    Hedge(Attempt),
    /// This leg is the attempt from now on, alone; the other one's connection is closed. What comes of it is told as of any
    /// attempt, the response head that made it the one included.
    Keep(Leg),
    /// Drop the response, of which nothing was passed on; then `Discarded`.
    Discard,
    /// Pass the response on. After an interim head another head follows.
    Relay {
        /// Changes of its head.
        edits: HeadEdits<'static>,
        /// Afterwards bytes go both ways until one side ends.
        tunnel: bool,
    },
    /// Nothing more.
    Done,
}

/// An answer of our own.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The route's fixed response.
    Fixed(Arc<FixedResponse>),
    /// Why the request is not served.
    Refused(Refusal),
}

/// One try on one endpoint. The lease stays with the exchange.
#[derive(Debug)]
pub struct Attempt {
    /// The endpoint's pool.
    pub pool: Arc<Pool>,
    /// Where to.
    pub endpoint: Arc<Endpoint>,
    /// What it speaks.
    pub protocol: UpstreamProtocol,
    /// Its deadlines. `connect` is already cut to what is left of `total_connect`.
    pub timeouts: UpstreamTimeouts,
    /// How it is spoken to; an idle connection must have been made in the same way.
    pub transport: TransportId,
    /// Which header tells it of the client; then no connection is shared, neither taken nor kept.
    pub proxy_protocol: Option<ProxyHeader>,
    /// Idle connections to keep, for each endpoint and shard.
    pub idle_connections: usize,
    /// How HTTP/1.1 answers are read.
    pub parsing: Parsing,
    /// Use a new connection, not an idle one.
    pub fresh: bool,
    /// 1 for the first.
    pub number: u32,
    /// Why there is one more than before; `None` for the first.
    pub reason: Option<Reason>,
    /// When to ask [`Exchange::try_is_over`](super::Exchange::try_is_over), unless the head of an answer is there.
    pub try_until: Option<Instant>,
}
