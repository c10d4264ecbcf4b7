//! nginx's smooth weighted round robin.
//!
//! At every pick each candidate gains its weight; the one with the most (the first of equals) is chosen and pays the
//! weights of all. Weights 5, 1, 1 give a a b a c a a: in proportion, and without bursts.

use std::sync::Arc;

use crate::pool::endpoint::{Endpoint, EndpointId};

/// What each endpoint has gained, in the order of the pool.
#[derive(Debug, Default)]
pub(in crate::pool) struct RoundRobin {
    gained: Vec<(EndpointId, i64)>,
}

impl RoundRobin {
    pub(in crate::pool) fn align(&mut self, endpoints: &[Arc<Endpoint>]) {
        let gained = |id| self.gained.iter().find(|(known, _)| *known == id).map_or(0, |(_, gained)| *gained);
        self.gained = endpoints.iter().map(|endpoint| (endpoint.id(), gained(endpoint.id()))).collect();
    }

    pub(in crate::pool) fn pick(
        &mut self,
        endpoints: &[Arc<Endpoint>],
        candidate: impl Fn(&Endpoint) -> bool,
    ) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for (place, (endpoint, (_, gained))) in endpoints.iter().zip(&mut self.gained).enumerate() {
            if !candidate(endpoint) {
                continue;
            }
            let weight = i64::from(endpoint.weight());
            *gained += weight;
            total += weight;
            if best.is_none_or(|(_, most)| *gained > most) {
                best = Some((place, *gained));
            }
        }
        let (place, _) = best?;
        self.gained[place].1 -= total;
        Some(place)
    }
}
