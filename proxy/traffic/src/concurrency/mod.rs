//! Limits of requests under way: who a request counts for, and whether there is a place for it.
//!
//! [`table`] is the memory, [`Places`] what one request has of it; this brings limits to a request. A limit belongs to a
//! model, what it counts to its name: a reload carries it over, and places that were taken before are given back to it.

mod places;
pub mod table;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_config::Networks;
use tidegate_config::model::{self, Model, Variable};

use crate::head::HeadView;
use crate::limit::client;
use crate::refusal::{Refusal, RefusalKind};
pub use places::Places;
use places::Wish;
use table::Table;

/// When a client that was refused may come again: nobody knows when a request ends.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Place of a limit in [`ConcurrencyLimits`]: the order of the model's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConcurrencyLimitId(pub u32);

/// The limits of a model.
#[derive(Debug)]
pub struct ConcurrencyLimits {
    all: Vec<Arc<ConcurrencyLimit>>,
    /// What keys are hashed with (SipHash): nobody outside can make two of them meet.
    secret: RandomState,
}

/// One limit.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    name: Arc<str>,
    max: u32,
    key: Vec<Variable>,
    status: u16,
    dry_run: bool,
    allow: Networks,
    table: Arc<Table>,
    counts: Arc<Counts>,
}

/// Requests that a limit had no place for.
#[derive(Debug, Default)]
pub struct Counts {
    rejected: AtomicU64,
    dry_run: AtomicU64,
}

impl ConcurrencyLimits {
    /// The limits of a model. Those that `previous` has by name keep their counts, and what is under way too as long as
    /// clients are told apart in the same way.
    pub(crate) fn new(model: &Model, previous: Option<&Self>, secret: &RandomState) -> Self {
        let known = |name: &str| previous?.all.iter().find(|limit| *limit.name == *name);
        let limit = |limit: &model::ConcurrencyLimit| {
            Arc::new(ConcurrencyLimit::new(limit, known(&limit.name).map(AsRef::as_ref)))
        };
        Self {
            all: model.concurrency_limits.values().map(limit).collect(),
            secret: previous.map_or(secret, |limits| &limits.secret).clone(),
        }
    }

    /// What a route goes by, those that only rehearse behind the others.
    pub(crate) fn uses(model: &Model, names: &[String]) -> Box<[ConcurrencyLimitId]> {
        let limits = &model.concurrency_limits;
        let mut names: Vec<_> = names.iter().collect();
        names.sort_by_key(|name| limits.get(*name).is_some_and(|limit| limit.dry_run));
        // A checked model has them all.
        let place = |name: &String| limits.keys().position(|known| known == name);
        let known = names.into_iter().filter_map(|name| u32::try_from(place(name)?).ok());
        known.map(ConcurrencyLimitId).collect()
    }

    /// Whom a request counts for in each of these limits; nothing is taken yet.
    #[must_use]
    pub fn ask(&self, limits: &[ConcurrencyLimitId], head: &HeadView<'_>) -> Places {
        let mut places = Places::default();
        for limit in limits.iter().filter_map(|id| self.all.get(id.0 as usize)) {
            if !limit.allow.contain(Some(head.client.address())) {
                let client = client(&limit.key, head, self.secret.build_hasher());
                places.wish(Wish { limit: Arc::clone(limit), client });
            }
        }
        places
    }

    /// Each limit, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &ConcurrencyLimit> {
        self.all.iter().map(AsRef::as_ref)
    }
}

impl ConcurrencyLimit {
    fn new(limit: &model::ConcurrencyLimit, before: Option<&Self>) -> Self {
        let model::ConcurrencyLimit { name, max, key, status, dry_run, allow } = limit;
        let same = before.filter(|before| before.key == *key);
        Self {
            name: name.as_str().into(),
            max: *max,
            key: key.clone(),
            status: *status,
            dry_run: *dry_run,
            allow: allow.clone(),
            table: same.map(|same| Arc::clone(&same.table)).unwrap_or_default(),
            counts: before.map(|before| Arc::clone(&before.counts)).unwrap_or_default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Most requests of a client that are under way.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max
    }

    /// What is under way.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Requests that were refused, and that would have been.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts a request that there is no place for; a limit that only rehearses lets it pass.
    fn turn_away(&self) -> Result<(), Refusal> {
        if self.dry_run {
            self.counts.dry_run.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.counts.rejected.fetch_add(1, Ordering::Relaxed);
        Err(Refusal {
            retry_after: Some(RETRY_AFTER),
            status: Some(self.status),
            ..Refusal::new(RefusalKind::ConcurrencyLimited, format!("concurrency limit: {}", self.name))
        })
    }
}

impl Counts {
    /// Requests that were refused.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Requests that would have been refused.
    #[must_use]
    pub fn dry_run(&self) -> u64 {
        self.dry_run.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
