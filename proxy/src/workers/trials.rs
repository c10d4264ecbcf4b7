//! Requests counted while the first worker of a new generation is held: its own, and those of all other workers of the pool.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_supervisor::CanaryFigures;
use tidegate_traffic::pool::endpoint::Endpoint;
use tidegate_traffic::pool::trial::{Figures, Trial};

/// Comparisons under way, by pool.
#[derive(Default)]
pub(super) struct Trials {
    pools: HashMap<Arc<str>, Held>,
}

/// One of them.
struct Held {
    generation: u64,
    old: Arc<Trial>,
    new: Arc<Trial>,
    endpoints: Vec<Arc<Endpoint>>,
}

impl Trials {
    /// The first worker of a generation is held for a time; `living` are all workers with their generations.
    pub(super) fn begin(
        &mut self,
        pool: &Arc<str>,
        generation: u64,
        time: Duration,
        living: impl Iterator<Item = (u64, Arc<Endpoint>)>,
    ) {
        self.end(pool);
        let now = Instant::now();
        let (old, new) = (Trial::new(now, time), Trial::new(now, time));
        let mut held = Held { generation, old, new, endpoints: Vec::new() };
        living.for_each(|(of, endpoint)| held.take(of, endpoint));
        self.pools.insert(pool.clone(), held);
    }

    /// A worker may have requests from now on.
    pub(super) fn ready(&mut self, pool: &str, generation: u64, endpoint: Arc<Endpoint>) {
        if let Some(held) = self.pools.get_mut(pool) {
            held.take(generation, endpoint);
        }
    }

    /// Nothing is counted any more. Figures of the old workers and the new one, if that generation is held.
    pub(super) fn figures(&mut self, pool: &str, generation: u64) -> Option<(CanaryFigures, CanaryFigures)> {
        let (old, new) = self.end(pool).filter(|(held, ..)| *held == generation).map(|(_, old, new)| (old, new))?;
        let now = Instant::now();
        Some((figures(old.figures(now)), figures(new.figures(now))))
    }

    /// The same, for nobody.
    pub(super) fn end(&mut self, pool: &str) -> Option<(u64, Arc<Trial>, Arc<Trial>)> {
        let Held { generation, old, new, endpoints } = self.pools.remove(pool)?;
        endpoints.iter().for_each(|endpoint| endpoint.put_on_trial(None));
        Some((generation, old, new))
    }
}

impl Held {
    fn take(&mut self, generation: u64, endpoint: Arc<Endpoint>) {
        let side = if generation == self.generation { &self.new } else { &self.old };
        endpoint.put_on_trial(Some(side.clone()));
        self.endpoints.push(endpoint);
    }
}

fn figures(counted: Figures) -> CanaryFigures {
    let Figures { requests, failed, p95 } = counted;
    CanaryFigures { requests, failed, p95 }
}
