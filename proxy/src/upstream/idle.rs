//! Idle connections of one shard, by endpoint, the most recently used first.
//!
//! The newest is taken first, so that a burst's extra connections age and leave. The pool belongs to one shard;
//! its lock is only ever contended by the shard's own sweep.

use super::connection::Connection;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidegate_traffic::pool::endpoint::EndpointId;
use tokio::time::Instant;

#[derive(Debug)]
struct Idle {
    connection: Connection,
    until: Instant,
}

/// The idle connections of a shard.
#[derive(Debug, Default)]
pub(crate) struct IdlePool {
    by_endpoint: Mutex<HashMap<EndpointId, VecDeque<Idle>>>,
}

impl IdlePool {
    /// Takes a connection that is still usable at `now`. `careful` asks the kernel itself, for one system call more.
    pub(crate) fn take(&self, endpoint: EndpointId, now: Instant, careful: bool) -> Option<Connection> {
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = by_endpoint.get_mut(&endpoint)?;
        while let Some(idle) = queue.pop_back() {
            if idle.until > now && idle.connection.is_quiet() && (!careful || idle.connection.is_open()) {
                let mut connection = idle.connection;
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for `keep` at the most, and no more than `cap` for its endpoint: the oldest gives way.
    pub(crate) fn put(
        &self,
        endpoint: EndpointId,
        mut connection: Connection,
        cap: usize,
        keep: Duration,
        now: Instant,
    ) {
        if cap == 0 || !connection.is_quiet() {
            return;
        }
        connection.shrink();
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = by_endpoint.entry(endpoint).or_default();
        queue.push_back(Idle { connection, until: now + keep });
        if queue.len() > cap {
            queue.pop_front();
        }
    }

    /// Closes what is overdue or closed by the other side, and everything of endpoints that `keeps` denies.
    pub(crate) fn sweep(&self, now: Instant, keeps: impl Fn(EndpointId) -> bool) {
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        by_endpoint.retain(|endpoint, queue| {
            if !keeps(*endpoint) {
                return false;
            }
            queue.retain(|idle| idle.until > now && idle.connection.is_quiet());
            !queue.is_empty()
        });
    }

    /// Closes every idle connection to `endpoint`.
    pub(crate) fn forget(&self, endpoint: EndpointId) {
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        by_endpoint.remove(&endpoint);
    }
}
