//! Limits of requests under way.

use super::Variable;
use crate::Networks;

/// How many requests of one client may be under way at a time (nginx's `limit_conn`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConcurrencyLimit {
    /// Its key in the file; where it stands, for a limit without one.
    pub name: String,
    /// Most requests of a client; not zero.
    pub max: u32,
    /// What clients are told apart by; the first that a request has counts, and the client's address where it has none.
    pub key: Vec<Variable>,
    /// Status of a request that is refused.
    pub status: u16,
    /// Only count.
    pub dry_run: bool,
    /// Clients that are never limited.
    pub allow: Networks,
}
