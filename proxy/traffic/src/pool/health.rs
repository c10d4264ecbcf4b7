//! What is known of one endpoint's health. Changed under the lock of its pool only; read by anybody.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_config::model;

use super::check::{CheckResult, CheckStatus, Checks};
use super::ejection::{Ejected, EjectionReason, Record, Rule, Tally};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Health {
    ejected: AtomicBool,
    /// Its checks fail.
    failing: AtomicBool,
    /// Exchanges since endpoints were last compared; counted only where they are.
    good: AtomicU32,
    bad: AtomicU32,
    /// Guards what few look at: failures, and what the file says of this endpoint. Taken after the pool's lock.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    record: Record,
    checks: Checks,
    max_fails: Option<u32>,
    fail_timeout: Option<Duration>,
}

impl Health {
    /// Whether it may get requests as far as its health is concerned.
    pub(super) fn is_good(&self) -> bool {
        !self.is_ejected() && !self.is_failing()
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// How its checks go, once one has ended.
    pub(super) fn check(&self) -> Option<CheckStatus> {
        self.lock().checks.status().cloned()
    }

    /// See [`Checks::observe`].
    pub(super) fn observe(&self, result: CheckResult, rule: &model::HealthCheck, now: Instant) -> bool {
        let mut state = self.lock();
        let changed = state.checks.observe(result, rule, now);
        self.failing.store(state.checks.status().is_some_and(|status| !status.passing), Ordering::Relaxed);
        changed
    }

    pub(super) fn forget_checks(&self) {
        self.lock().checks = Checks::default();
        self.failing.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Takes over what the file says of this one.
    pub(super) fn configure(&self, max_fails: Option<u32>, fail_timeout: Option<Duration>) {
        let mut state = self.lock();
        (state.max_fails, state.fail_timeout) = (max_fails, fail_timeout);
    }

    /// Its time out, while it is.
    pub(super) fn out(&self) -> Option<Ejected> {
        if self.is_ejected() { self.lock().record.out() } else { None }
    }

    /// Whether the file says that it is never taken out.
    pub(super) fn is_exempt(&self) -> bool {
        self.lock().max_fails == Some(0)
    }

    /// See [`Record::fail`].
    pub(super) fn fail(&self, began: Instant, now: Instant, policy: &model::Ejection) -> Option<u32> {
        let mut state = self.lock();
        let rule = state.rule(policy);
        state.record.fail(began, now, &rule)
    }

    pub(super) fn eject(&self, reason: EjectionReason, now: Instant, policy: &model::Ejection) -> Ejected {
        let mut state = self.lock();
        let rule = state.rule(policy);
        let ejected = state.record.eject(reason, now, &rule);
        self.ejected.store(true, Ordering::Relaxed);
        ejected
    }

    /// Ends its time out; what that was.
    pub(super) fn come_back(&self, now: Instant) -> Option<Ejected> {
        let mut state = self.lock();
        let out = state.record.out()?;
        state.record.come_back(now);
        self.ejected.store(false, Ordering::Relaxed);
        Some(out)
    }

    pub(super) fn count_good(&self) {
        self.good.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_bad(&self) {
        self.bad.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted since the last time.
    pub(super) fn take_tally(&self) -> Tally {
        Tally { good: self.good.swap(0, Ordering::Relaxed), bad: self.bad.swap(0, Ordering::Relaxed) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rule(&self, policy: &model::Ejection) -> Rule {
        let fail_timeout = self.fail_timeout.unwrap_or(policy.fail_timeout);
        Rule {
            max_fails: self.max_fails.unwrap_or(policy.max_fails),
            fail_timeout,
            max_time: policy.max_time.max(fail_timeout),
        }
    }
}
