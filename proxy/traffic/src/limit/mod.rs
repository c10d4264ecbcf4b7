//! Limits of request rates: what a client is told apart by, what becomes of its request, what it is told of it.
//!
//! [`policy`] is the arithmetic, [`levels`] the memory; this brings both to a request. A limit belongs to a model, its
//! levels and counts to its name: a reload carries them over.

mod fields;
pub mod levels;
pub mod policy;

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tidegate_config::Networks;
use tidegate_config::model::{self, Model, Variable};

use crate::head::HeadView;
use crate::refusal::{Refusal, RefusalKind};
use crate::variable;
pub use fields::LimitFields;
use fields::Notice;
use levels::{Claim, Levels, Table};
use policy::{Policy, Verdict};

/// Place of a limit in [`Limits`]: the order of the model's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitId(pub u32);

/// A limit as a route goes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitUse {
    /// Which.
    pub limit: LimitId,
    /// What a request counts.
    pub cost: u32,
}

/// The limits of a model.
#[derive(Debug)]
pub struct Limits {
    all: Vec<Limit>,
    /// What keys are hashed with (SipHash): nobody outside can make two of them meet.
    secret: RandomState,
}

/// One limit.
#[derive(Debug)]
pub struct Limit {
    name: Arc<str>,
    policy: Policy,
    key: Vec<Variable>,
    status: u16,
    /// What clients are told; nothing where the file does not ask for it.
    notice: Option<Arc<Notice>>,
    dry_run: bool,
    allow: Networks,
    entries: usize,
    levels: Arc<dyn Levels>,
    counts: Arc<Counts>,
}

/// Requests that a limit did not let pass as they came.
#[derive(Debug, Default)]
pub struct Counts {
    delayed: AtomicU64,
    rejected: AtomicU64,
    dry_run: AtomicU64,
}

/// What becomes of a request under all limits of its route.
#[derive(Debug, Default)]
pub struct Decision {
    /// How long it waits first.
    pub delay: Duration,
    /// Why it is refused.
    pub refusal: Option<Refusal>,
    /// What the client is told.
    pub fields: LimitFields,
}

impl Limits {
    /// The limits of a model. Those that `previous` has by name keep their counts, and their levels too as long as clients
    /// are told apart in the same way.
    pub(crate) fn new(model: &Model, previous: Option<&Self>, secret: &RandomState) -> Self {
        let known = |name: &str| previous?.all.iter().find(|limit| *limit.name == *name);
        Self {
            all: model.rate_limits.values().map(|limit| Limit::new(limit, known(&limit.name))).collect(),
            secret: previous.map_or(secret, |limits| &limits.secret).clone(),
        }
    }

    /// What a route goes by, those that only rehearse behind the others.
    pub(crate) fn uses(model: &Model, uses: &[model::RateLimitUse]) -> Box<[LimitUse]> {
        let limits = &model.rate_limits;
        let place = |name: &String| limits.keys().position(|known| known == name);
        let mut uses: Vec<_> = uses.iter().collect();
        uses.sort_by_key(|one| limits.get(&one.limit).is_some_and(|limit| limit.dry_run));
        let known = uses.into_iter().filter_map(|one| {
            // A checked model has them all.
            let place = u32::try_from(place(&one.limit)?).ok()?;
            Some(LimitUse { limit: LimitId(place), cost: one.cost })
        });
        known.collect()
    }

    /// Decides on a request and puts it on the account of its client, unless it is refused. With several limits all must
    /// admit it: none is charged for what another refuses, and the longest delay counts.
    #[must_use]
    pub fn decide(&self, uses: &[LimitUse], head: &HeadView<'_>, now: Instant) -> Decision {
        let mut asked = SmallVec::new();
        uses.iter().for_each(|one| self.ask(*one, head, &mut asked));
        let strict = asked.partition_point(|asked| !asked.limit.dry_run);
        let mut decision = decide_strict(&mut asked[..strict], now);
        if decision.refusal.is_some() {
            // Those behind were never asked.
            asked.truncate(strict);
        }
        asked.iter_mut().skip(strict).for_each(|asked| asked.rehearse(now));
        decision.fields = LimitFields::new(&asked);
        decision
    }

    /// Asks a limit of the snapshot too, if it holds for this client.
    fn ask<'a>(&'a self, one: LimitUse, head: &HeadView<'_>, asked: &mut SmallVec<[Asked<'a>; 4]>) {
        let Some(limit) = self.all.get(one.limit.0 as usize) else { return };
        if limit.allow.contain(Some(head.client.address())) {
            return;
        }
        // Limits of one route mostly tell clients apart by the same.
        let same = asked.iter().find(|known| known.limit.key == limit.key).map(|known| known.client);
        let client = same.unwrap_or_else(|| client(&limit.key, head, self.secret.build_hasher()));
        asked.push(Asked { limit, client, price: limit.policy.price(one.cost), level: 0, charged: false });
    }

    /// Each limit, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Limit> {
        self.all.iter()
    }
}

/// All must admit the request. The last one decides and is charged in one step, so that a limit that stands alone is exact;
/// those before it are asked first and charged afterwards, as nginx does it.
fn decide_strict(asked: &mut [Asked<'_>], now: Instant) -> Decision {
    let mut decision = Decision::default();
    let mut refused: Option<(&Limit, Duration)> = None;
    let last = asked.len().saturating_sub(1);
    for (place, asked) in asked.iter_mut().enumerate() {
        let verdict = if place == last && refused.is_none() { asked.take(now) } else { asked.look(now) };
        if let Verdict::Reject(early) = verdict {
            asked.limit.counts.rejected.fetch_add(1, Ordering::Relaxed);
            refused = refused.filter(|(_, known)| *known >= early).or(Some((asked.limit, early)));
        }
    }
    if let Some((limit, early)) = refused {
        return Decision { refusal: Some(limit.refusal(early)), ..Decision::default() };
    }
    for asked in asked {
        if !asked.charged {
            asked.charge(now);
        }
        let delay = asked.limit.policy.delay(asked.level);
        if !delay.is_zero() {
            asked.limit.counts.delayed.fetch_add(1, Ordering::Relaxed);
        }
        decision.delay = decision.delay.max(delay);
    }
    decision
}

/// A limit and a client whose request it is asked about.
#[derive(Debug)]
struct Asked<'a> {
    limit: &'a Limit,
    client: u64,
    price: u64,
    /// Before this request.
    level: u64,
    charged: bool,
}

impl Asked<'_> {
    /// Decides without charging.
    fn look(&mut self, now: Instant) -> Verdict {
        self.claim(0, 0, now)
    }

    /// Decides and charges, unless it rejects.
    fn take(&mut self, now: Instant) -> Verdict {
        let verdict = self.claim(self.limit.policy.most(), self.price, now);
        self.charged = matches!(verdict, Verdict::Admit(_));
        verdict
    }

    /// Charges, whoever came in between.
    fn charge(&mut self, now: Instant) {
        self.claim(u64::MAX, self.price, now);
        self.charged = true;
    }

    /// Counts what the limit would do.
    fn rehearse(&mut self, now: Instant) {
        if self.take(now) != Verdict::Admit(Duration::ZERO) {
            self.limit.counts.dry_run.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn claim(&mut self, most: u64, price: u64, now: Instant) -> Verdict {
        self.level = self.limit.levels.claim(Claim { client: self.client, most, price }, now);
        self.limit.policy.judge(self.level)
    }

    /// With this request, if it was charged.
    fn level_now(&self) -> u64 {
        if self.charged { self.level.saturating_add(self.price) } else { self.level }
    }
}

/// Who a request counts for: the value of the first variable that it has, else its client's address. An IPv6 client owns a
/// network of 64 bits and would otherwise be a new one as often as it likes (RFC 6177 section 2).
pub(crate) fn client(key: &[Variable], head: &HeadView<'_>, mut hasher: impl Hasher) -> u64 {
    let mut own = key.iter().enumerate().take_while(|(_, variable)| **variable != Variable::ClientAddress);
    // The first byte keeps values of different variables apart, and values from addresses.
    let found = own.find_map(|(place, variable)| {
        variable::look(variable, head, |value| {
            hasher.write_u8(u8::try_from(place).unwrap_or(u8::MAX));
            hasher.write(value);
        })
    });
    match (found, head.client.address()) {
        (Some(()), _) => {}
        // One word, which is hashed at once.
        (None, IpAddr::V4(address)) => hasher.write_u64(u64::from(address.to_bits()) << 8 | u64::from(b'4')),
        (None, IpAddr::V6(address)) => {
            hasher.write_u8(b'6');
            hasher.write_u64((address.to_bits() >> 64) as u64);
        }
    }
    hasher.finish()
}

impl Limit {
    fn new(limit: &model::RateLimit, before: Option<&Self>) -> Self {
        let model::RateLimit {
            name,
            named,
            rate: _,
            burst: _,
            delay: _,
            key,
            status,
            headers,
            dry_run,
            allow,
            entries,
        } = limit;
        let policy = Policy::new(limit);
        let same = before.filter(|before| before.key == *key && before.entries == *entries);
        Self {
            name: name.as_str().into(),
            policy,
            key: key.clone(),
            status: *status,
            notice: Notice::new(*headers, name, *named, policy).map(Arc::new),
            dry_run: *dry_run,
            allow: allow.clone(),
            entries: *entries,
            levels: same.map_or_else(|| Arc::new(Table::new(*entries)) as Arc<dyn Levels>, |same| same.levels.clone()),
            counts: before.map(|before| before.counts.clone()).unwrap_or_default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Clients that are ahead of the rate. Looks through everything, which takes a while for large limits.
    #[must_use]
    pub fn in_use(&self, now: Instant) -> usize {
        self.levels.in_use(now)
    }

    /// Clients that are remembered at a time.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Requests that had to wait, that were refused, and that would have been either.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn refusal(&self, early: Duration) -> Refusal {
        // A flood of refusals pays for this text, so it is put together in one piece of memory.
        let mut detail = String::with_capacity(48 + self.name.len());
        detail.push_str("rate limit: ");
        detail.push_str(&self.name);
        // Writing to a string does not fail.
        let _ = write!(detail, ", too early by {} ms", u64::try_from(early.as_millis()).unwrap_or(u64::MAX));
        Refusal {
            retry_after: Some(early),
            status: Some(self.status),
            ..Refusal::new(RefusalKind::RateLimited, detail)
        }
    }
}

impl Counts {
    /// Requests that had to wait.
    #[must_use]
    pub fn delayed(&self) -> u64 {
        self.delayed.load(Ordering::Relaxed)
    }

    /// Requests that were refused.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Requests that would have had to wait or been refused.
    #[must_use]
    pub fn dry_run(&self) -> u64 {
        self.dry_run.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
