//! How many retries an upstream may get: a share of its recent requests, and a few that there may always be.
//!
//! Requests are counted by second without a lock, in a ring that every request touches with one atomic; retries are rare, and
//! are counted under a short one, so that two threads never spend the same last retry. Finagle and Envoy do the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tidegate_config::model::RetryBudget;

/// Seconds that count as recent.
const WINDOW: usize = 10;

/// The budget of one upstream; it outlives reloads.
#[derive(Debug, Default)]
pub struct Budget {
    /// When the first request came; seconds are counted from here.
    origin: OnceLock<Instant>,
    requests: [Second; WINDOW],
    /// Guards settings and retries; taken by retries and reloads only.
    retries: Mutex<Retries>,
}

/// A second's number in the upper half, from 1, and what was counted in it in the lower.
#[derive(Debug, Default)]
struct Second(AtomicU64);

#[derive(Debug, Default)]
struct Retries {
    settings: Option<RetryBudget>,
    spent: [(u32, u64); WINDOW],
}

impl Budget {
    /// Takes over what the file says; `None` is no limit.
    pub fn configure(&self, settings: Option<RetryBudget>) {
        self.lock().settings = settings;
    }

    /// A request goes to the upstream for the first time.
    pub fn deposit(&self, now: Instant) {
        let second = self.second(now);
        self.requests[second as usize % WINDOW].count(second);
    }

    /// Takes one retry out; `false` when there is none left.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        let mut retries = self.lock();
        let Some(settings) = retries.settings else { return true };
        let requests: u64 = self.requests.iter().map(|one| one.counted(second)).sum();
        let spent: u64 = retries.spent.iter().filter(|(one, _)| is_recent(*one, second)).map(|(_, count)| count).sum();
        if spent >= allowed(&settings, requests) {
            return false;
        }
        let place = &mut retries.spent[second as usize % WINDOW];
        *place = if place.0 == second { (second, place.1 + 1) } else { (second, 1) };
        true
    }

    /// Seconds since the first request, from 1.
    fn second(&self, now: Instant) -> u32 {
        let origin = *self.origin.get_or_init(|| now);
        u32::try_from(now.saturating_duration_since(origin).as_secs()).unwrap_or(u32::MAX - 1) + 1
    }

    fn lock(&self) -> MutexGuard<'_, Retries> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Second {
    fn count(&self, second: u32) {
        let first = (u64::from(second) << 32) | 1;
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            match (word >> 32).cmp(&u64::from(second)) {
                std::cmp::Ordering::Less => Some(first),
                std::cmp::Ordering::Equal => Some(word + 1),
                // Another thread's clock was read later: its second has begun, and this request is not worth a fight.
                std::cmp::Ordering::Greater => None,
            }
        });
    }

    fn counted(&self, now: u32) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        if is_recent((word >> 32) as u32, now) { word & u64::from(u32::MAX) } else { 0 }
    }
}

/// Retries that there may be in the window.
fn allowed(settings: &RetryBudget, requests: u64) -> u64 {
    let RetryBudget { share, floor } = settings;
    let share = requests.saturating_mul(u64::from(*share)) / 100;
    let floor = u128::from(floor.requests) * (WINDOW as u128 * 1_000_000_000) / floor.per.as_nanos().max(1);
    share.max(u64::try_from(floor).unwrap_or(u64::MAX))
}

/// Whether a second, 0 for none, lies in the window that ends with `now`.
const fn is_recent(second: u32, now: u32) -> bool {
    second > 0 && second <= now && now - second < WINDOW as u32
}
