//! Active checks: what their results come to. Who asks, and how, is decided elsewhere.
//!
//! A server is taken for well until its first check has ended, which counts at once; later it takes so many in a row. The
//! results of a definition that is not the pool's any more count nothing.

use std::fmt;
use std::time::{Duration, Instant};

use tidegate_config::model;

use super::endpoint::EndpointId;
use super::transition::Change;
use super::{Inner, Pool};

/// One check that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// How an endpoint's checks go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckStatus {
    /// Whether it is taken for well.
    pub passing: bool,
    /// Since when.
    pub since: Instant,
    /// Why it was taken for unwell, while it is.
    pub failure: Option<String>,
    /// The last one.
    pub last: CheckResult,
    /// When it ended.
    pub last_at: Instant,
}

/// Results so far.
#[derive(Debug, Default)]
pub(super) struct Checks {
    status: Option<CheckStatus>,
    /// Results in a row that speak against what it is taken for.
    against: u32,
}

impl Checks {
    pub(super) fn status(&self) -> Option<&CheckStatus> {
        self.status.as_ref()
    }

    /// Takes over a result; whether what it is taken for has changed.
    pub(super) fn observe(&mut self, result: CheckResult, rule: &model::HealthCheck, now: Instant) -> bool {
        let passed = result.failure.is_none();
        let Some(status) = &mut self.status else {
            let failure = result.failure.clone();
            self.status = Some(CheckStatus { passing: passed, since: now, failure, last: result, last_at: now });
            return !passed;
        };
        let failure = result.failure.clone();
        (status.last, status.last_at) = (result, now);
        if passed == status.passing {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let enough = if passed { rule.rise } else { rule.fall };
        if self.against < enough {
            return false;
        }
        self.against = 0;
        (status.passing, status.since, status.failure) = (passed, now, failure);
        true
    }
}

impl Pool {
    /// Takes over the result of a check of one of its endpoints by this definition.
    pub fn checked(&self, endpoint: EndpointId, by: &model::HealthCheck, result: CheckResult, now: Instant) {
        let mut inner = self.lock_at(now);
        let known = inner.endpoints.iter().find(|known| known.id() == endpoint).cloned();
        let (Some(endpoint), true) = (known, inner.check.as_ref() == Some(by)) else { return };
        let before = endpoint.health().check();
        if !endpoint.health().observe(result, by, now) {
            return;
        }
        endpoint.note_health();
        let address = endpoint.address().clone();
        let passing = !endpoint.health().is_failing();
        if passing {
            inner.warming.begin(endpoint.id());
            let after = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before.since));
            inner.news.push(Change::CheckPassing { endpoint: address, after });
        } else {
            let why = endpoint.health().check().and_then(|check| check.failure).unwrap_or_default();
            inner.news.push(Change::CheckFailing { endpoint: address, why });
        }
        inner.align(&self.lineage);
        self.changed(inner);
    }
}

impl Inner {
    /// Takes over a definition; another one begins anew.
    pub(super) fn set_check(&mut self, check: Option<&model::HealthCheck>) {
        if self.check.as_ref() == check {
            return;
        }
        self.check = check.cloned();
        for endpoint in &self.endpoints {
            endpoint.health().forget_checks();
            endpoint.note_health();
        }
    }

    /// Endpoints that are out because their checks fail.
    pub(super) fn failing(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.is_ready() && endpoint.health().is_failing()).count()
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.failure.as_deref().unwrap_or("passed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{servers, upstream};
    use crate::pool::ejection::EjectionReason;
    use crate::pool::endpoint::Endpoint;
    use crate::pool::key::Key;
    use crate::pool::lease::Outcome;
    use crate::pool::symptom::Symptom;
    use crate::pool::{Acquired, EndpointIds, Wanted};
    use proptest::prelude::*;
    use std::sync::Arc;
    use tidegate_config::model::{CheckKind, EndpointSource, HealthCheck, Upstream};

    fn rule(rise: u32, fall: u32) -> HealthCheck {
        let time = Duration::from_secs(1);
        HealthCheck { kind: CheckKind::Connect, interval: time, jitter: time, timeout: time, rise, fall, port: None }
    }

    fn result(passed: bool) -> CheckResult {
        CheckResult { failure: (!passed).then(|| "status 503".to_owned()), took: Duration::ZERO }
    }

    fn bench(count: u16, rule: &HealthCheck) -> (Arc<Pool>, Upstream) {
        let list: Vec<_> = (1..=count).map(|port| (port, 1)).collect();
        let upstream = Upstream { health_check: Some(rule.clone()), ..upstream("app", servers(&list)) };
        (Pool::new(EndpointIds::default(), &upstream), upstream)
    }

    fn serving(pool: &Pool) -> String {
        let all = pool.endpoints();
        ('a'..).zip(&all).filter(|(_, one)| one.is_in_service()).map(|(letter, _)| letter).collect()
    }

    fn check(pool: &Pool, rule: &HealthCheck, place: usize, results: &[bool]) {
        let endpoint = pool.endpoints()[place].id();
        results.iter().for_each(|passed| pool.checked(endpoint, rule, result(*passed), Instant::now()));
    }

    fn acquire(pool: &Arc<Pool>, tried: &[EndpointId]) -> Acquired {
        pool.acquire(&Wanted { key: &Key::None, tried, draw: 0, now: Instant::now(), tunnel: false })
    }

    #[test]
    fn the_first_result_counts_at_once_and_later_ones_in_a_row() {
        let rule = rule(2, 3);
        let rows: [(&[bool], &[bool]); 5] = [
            (&[false], &[false]),
            (&[true, false, false, false], &[true, true, true, false]),
            (&[true, false, false, true, false, false], &[true; 6]),
            (&[false, true, true], &[false, false, true]),
            (&[false, true, false, true, false], &[false; 5]),
        ];
        for (results, expected) in rows {
            let mut checks = Checks::default();
            let mut seen = Vec::new();
            for passed in results {
                let before = checks.status().is_none_or(|status| status.passing);
                let changed = checks.observe(result(*passed), &rule, Instant::now());
                let passing = checks.status().unwrap().passing;
                assert_eq!(changed, before != passing, "{results:?}");
                seen.push(passing);
            }
            assert_eq!(seen, expected, "{results:?}");
        }
    }

    #[test]
    fn who_fails_is_passed_over_even_if_nobody_is_left() {
        let rule = rule(1, 1);
        let (pool, _) = bench(2, &rule);
        check(&pool, &rule, 0, &[false]);
        assert_eq!(serving(&pool), "b");
        check(&pool, &rule, 1, &[false]);
        assert_eq!(serving(&pool), "");
        let Acquired::Refuse(refusal) = acquire(&pool, &[]) else { panic!("nobody is in service") };
        assert!(refusal.detail.contains("checks fail: 2"), "{refusal}");
        let Acquired::Refuse(_) = acquire(&pool, &[pool.endpoints()[0].id()]) else { panic!("nor as a last resort") };
        check(&pool, &rule, 0, &[true]);
        assert_eq!(serving(&pool), "a");
    }

    #[test]
    fn a_changed_definition_begins_anew_and_late_results_count_nothing() {
        let (old, new) = (rule(1, 1), rule(1, 2));
        let (pool, mut upstream) = bench(2, &old);
        check(&pool, &old, 0, &[false]);
        pool.reconfigure(&upstream);
        assert_eq!(serving(&pool), "b", "the same definition goes on");
        upstream.health_check = Some(new.clone());
        pool.reconfigure(&upstream);
        assert_eq!(serving(&pool), "ab");
        check(&pool, &old, 0, &[false]);
        assert_eq!(serving(&pool), "ab");
        check(&pool, &new, 0, &[false]);
        assert_eq!(serving(&pool), "b");
        upstream.health_check = None;
        pool.reconfigure(&upstream);
        assert_eq!(serving(&pool), "ab");
        assert_eq!(pool.status().endpoints[0].check, None);
    }

    /// Two upstreams with one server, whose checks differ.
    #[test]
    fn health_belongs_to_the_pool() {
        let rule = rule(1, 1);
        let ((one, _), (other, _)) = (bench(1, &rule), bench(1, &rule));
        check(&one, &rule, 0, &[false]);
        assert_eq!((serving(&one), serving(&other)), (String::new(), "a".to_owned()));
    }

    #[test]
    fn checks_take_back_what_ejection_cannot_spare() {
        let rule = rule(1, 1);
        let (pool, _) = bench(2, &rule);
        let now = Instant::now();
        for _ in 0..6 {
            let Acquired::Lease(lease) = acquire(&pool, &[pool.endpoints()[1].id()]) else { break };
            pool.end(lease, Outcome::UpstreamFault(Symptom::Closed), now);
        }
        assert_eq!(serving(&pool), "b");
        check(&pool, &rule, 1, &[false]);
        assert_eq!(serving(&pool), "a", "ejected, but the only one that passes its checks");
        let reason = EjectionReason::Failures { count: 1, last: Symptom::Closed };
        assert_eq!(reason.token(), "upstream_closed");
    }

    #[test]
    fn backups_serve_while_the_checks_of_others_fail() {
        let rule = rule(1, 1);
        let (pool, mut upstream) = bench(2, &rule);
        if let EndpointSource::Servers(servers) = &mut upstream.source {
            servers[1].priority = 1;
        }
        pool.reconfigure(&upstream);
        let next = || match acquire(&pool, &[]) {
            Acquired::Lease(lease) => lease.endpoint().address().to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(next(), "127.0.0.1:1");
        check(&pool, &rule, 0, &[false]);
        assert_eq!(next(), "127.0.0.1:2");
        check(&pool, &rule, 0, &[true]);
        assert_eq!(next(), "127.0.0.1:1");
    }

    proptest! {
        /// Whatever the checks and the requests of random times say: who passes is never kept out for longer than an ejection,
        /// and while somebody passes somebody serves.
        #[test]
        fn whoever_passes_serves(steps in proptest::collection::vec((0..4_usize, any::<bool>(), 0..4_u64, any::<bool>()), 0..150)) {
            let rule = rule(1, 1);
            let (pool, _) = bench(4, &rule);
            let mut now = Instant::now();
            for (place, passed, seconds, is_check) in steps {
                now += Duration::from_secs(seconds);
                let all: Vec<Arc<Endpoint>> = pool.endpoints();
                if is_check {
                    pool.checked(all[place].id(), &rule, result(passed), now);
                } else if let Acquired::Lease(lease) = pool.acquire(&Wanted { key: &Key::None, tried: &[], draw: 0, now, tunnel: false }) {
                    prop_assert!(!lease.endpoint().health().is_failing());
                    let outcome = if passed { Outcome::Ok } else { Outcome::UpstreamFault(Symptom::Closed) };
                    pool.end(lease, outcome, now);
                }
                let passing = all.iter().filter(|one| !one.health().is_failing()).count();
                let in_service = all.iter().filter(|one| one.is_in_service()).count();
                prop_assert_eq!(passing > 0, in_service > 0);
            }
            now += Duration::from_secs(301);
            pool.refresh(now);
            for endpoint in pool.endpoints() {
                prop_assert_eq!(endpoint.is_in_service(), !endpoint.health().is_failing());
            }
        }
    }
}
