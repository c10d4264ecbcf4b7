//! The decisions about one request: which site and route, which endpoint, what is changed in a head, whether a
//! failure is tried again, and what is refused.
//!
//! Nothing here opens a socket, waits, reads the clock or draws a random number: times and identifiers are passed
//! in. A driver feeds [`exchange::Exchange::step`] with events and does the input and output that the returned
//! actions ask for, so that every client protocol and every upstream protocol shares one set of decisions.

pub mod body;
pub mod body_rate;
pub mod concurrency;
pub mod cost;
pub mod edits;
pub mod exchange;
pub mod filter;
pub mod head;
pub mod host;
pub mod limit;
pub mod mix;
mod parameters;
pub mod pool;
pub mod proxy_header;
pub mod refusal;
pub mod request_id;
pub mod retry;
pub mod router;
mod sticky_cookie;
pub mod stream_budget;
pub mod target;
pub mod traffic;
pub mod trusted;
pub mod variable;
pub mod whole;

#[cfg(test)]
mod fixtures;

pub use exchange::{Action, Answer, Attempt, Event, Exchange, Hedged, Leg};
pub use head::{
    BodyLength, Client, ClientIdentity, Fields, HeadView, HttpVersion, ListenerId, ResponseView, TlsClient,
    TlsPolicyId, TlsPolicyRef,
};
pub use host::Host;
pub use refusal::{Fault, Refusal, RefusalKind};
pub use request_id::RequestId;
pub use router::{PoolId, RouteId};
pub use target::Target;
pub use traffic::{Identities, Traffic, TransportId};
