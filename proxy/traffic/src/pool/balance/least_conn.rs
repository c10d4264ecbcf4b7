//! Fewest requests in flight for the weight; among equals, smooth weighted round robin, as in nginx.

use std::sync::Arc;

use super::round_robin::RoundRobin;
use crate::pool::endpoint::Endpoint;

/// The order among equals.
#[derive(Debug, Default)]
pub(in crate::pool) struct LeastConn {
    ties: RoundRobin,
}

impl LeastConn {
    pub(in crate::pool) fn align(&mut self, endpoints: &[Arc<Endpoint>]) {
        self.ties.align(endpoints);
    }

    pub(in crate::pool) fn pick(
        &mut self,
        endpoints: &[Arc<Endpoint>],
        candidate: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let least = endpoints.iter().map(AsRef::as_ref).filter(|endpoint| candidate(endpoint)).map(Load::of).min()?;
        self.ties.pick(endpoints, |endpoint| candidate(endpoint) && Load::of(endpoint) <= least)
    }
}

/// Requests in flight for each unit of weight, compared without division.
#[derive(Clone, Copy)]
struct Load {
    in_flight: u64,
    weight: u64,
}

impl Load {
    fn of(endpoint: &Endpoint) -> Self {
        Self { in_flight: endpoint.in_flight().into(), weight: endpoint.weight().into() }
    }
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.in_flight * other.weight).cmp(&(other.in_flight * self.weight))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Load {}
