//! How a pool chooses one of its endpoints.
//!
//! Every policy has the same skeleton: `align` is told the endpoints whenever their list changes and keeps what it
//! knows about those that stay, and `pick` chooses among the candidates. Both run under the pool's lock.

mod least_conn;
mod round_robin;

use std::sync::Arc;

use tidegate_config::model;

use super::endpoint::Endpoint;
use least_conn::LeastConn;
use round_robin::RoundRobin;

/// The policy of a pool with its state.
#[derive(Debug)]
pub(super) enum Balance {
    RoundRobin(RoundRobin),
    LeastConn(LeastConn),
}

impl Balance {
    pub(super) fn new(kind: model::Balance) -> Self {
        match kind {
            model::Balance::RoundRobin => Self::RoundRobin(RoundRobin::default()),
            model::Balance::LeastConn => Self::LeastConn(LeastConn::default()),
        }
    }

    pub(super) fn kind(&self) -> model::Balance {
        match self {
            Self::RoundRobin(_) => model::Balance::RoundRobin,
            Self::LeastConn(_) => model::Balance::LeastConn,
        }
    }

    /// The list of endpoints has changed; `pick` is called with this list until the next change.
    pub(super) fn align(&mut self, endpoints: &[Arc<Endpoint>]) {
        match self {
            Self::RoundRobin(policy) => policy.align(endpoints),
            Self::LeastConn(policy) => policy.align(endpoints),
        }
    }

    /// Place of the chosen endpoint; `None` when no endpoint is a candidate.
    pub(super) fn pick(&mut self, endpoints: &[Arc<Endpoint>], candidate: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        match self {
            Self::RoundRobin(policy) => policy.pick(endpoints, candidate),
            Self::LeastConn(policy) => policy.pick(endpoints, candidate),
        }
    }
}
