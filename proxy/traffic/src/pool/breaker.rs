//! The circuit breaker of a pool: after too many failures nobody is sent for a while, then a few to see.
//!
//! Closed, everybody passes, and what becomes of them counts: failures in a row, and their share within a window. Open, nobody
//! passes until the cool-down is over. Half-open, as many as the quota are under way at a time; so many successes close
//! it, one failure opens it again. Every attempt counts, retries too; what began in an earlier phase does not. Closed, it costs
//! those that go well no lock: they are counted aside, and looked at by whoever takes the lock next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_config::model;

use super::lease::Outcome;
use super::status_set::StatusSet;
use super::transition::Change;
use super::{Inner, Pool};
use crate::refusal::{Refusal, RefusalKind};

/// Parts of the window that are forgotten one by one.
const PARTS: usize = 10;

/// Who passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everybody.
    Closed,
    /// Nobody.
    Open,
    /// A few.
    HalfOpen,
}

impl BreakerState {
    /// For status and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A breaker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerStatus {
    /// Who passes.
    pub state: BreakerState,
    /// Since when; `None` is since it exists.
    pub since: Option<Instant>,
    /// When the cool-down is over, while it is open.
    pub until: Option<Instant>,
    /// Why it opened last.
    pub reason: Option<String>,
    /// How often it opened.
    pub trips: u64,
}

/// What an attempt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
    /// The client left, say.
    Nothing,
}

/// The phase that an attempt began in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Phase(u64);

/// What is known of attempts, and of what they count for, without the pool's lock.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Statuses that are failures.
    statuses: StatusSet,
    /// The breaker's phase while it is closed, else [`Attempts::NOT_CLOSED`].
    closed: AtomicU64,
    /// Those of this phase that went well and were not counted yet.
    good: AtomicU32,
}

impl Attempts {
    const NOT_CLOSED: u64 = u64::MAX;

    /// Another phase begins.
    fn begin(&self, phase: u64, state: BreakerState) {
        let closed = if state == BreakerState::Closed { phase } else { Self::NOT_CLOSED };
        self.closed.store(closed, Ordering::Release);
        self.good.store(0, Ordering::Relaxed);
    }

    fn verdict(&self, outcome: Outcome, status: Option<u16>) -> Verdict {
        match (outcome, status) {
            (Outcome::Ok, Some(status)) if self.statuses.contains(status) => Verdict::Bad,
            (Outcome::Ok, _) => Verdict::Good,
            (Outcome::UpstreamFault(_), _) => Verdict::Bad,
            (Outcome::ClientGone | Outcome::Cancelled | Outcome::Overtaken, _) => Verdict::Nothing,
        }
    }

    /// Counts what takes no lock; whether that was all.
    fn note(&self, phase: Phase, verdict: Verdict) -> bool {
        if verdict == Verdict::Bad || self.closed.load(Ordering::Acquire) != phase.0 {
            return false;
        }
        if verdict == Verdict::Good {
            self.good.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    fn take_good(&self) -> u32 {
        // Mostly there are none, and a look is cheaper than a change.
        if self.good.load(Ordering::Relaxed) == 0 { 0 } else { self.good.swap(0, Ordering::Relaxed) }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Breaker {
    rule: model::Breaker,
    attempts: Arc<Attempts>,
    state: BreakerState,
    /// Number of the phase: what began in an earlier one counts nothing.
    phase: u64,
    since: Option<Instant>,
    until: Option<Instant>,
    reason: Option<String>,
    trips: u64,
    /// Trips since it was closed last.
    in_a_row: u32,
    /// Failures in a row while closed, successes while half-open.
    row: u32,
    /// Probes under way.
    probing: u32,
    window: Window,
}

/// Attempts of late.
#[derive(Debug, Default)]
struct Window {
    parts: [(u32, u32); PARTS],
    /// Start of the part that counts now, and which it is.
    current: Option<(Instant, usize)>,
}

impl Window {
    /// Moves on to `now`; a window that has passed as a whole is empty.
    fn advance(&mut self, length: Duration, now: Instant) -> &mut (u32, u32) {
        let part = (length / PARTS as u32).max(Duration::from_nanos(1));
        let (mut start, mut place) = self.current.unwrap_or((now, 0));
        let passed = now.saturating_duration_since(start).as_nanos() / part.as_nanos();
        if passed >= PARTS as u128 {
            self.parts = Default::default();
            start = now;
        } else {
            for _ in 0..passed {
                place = (place + 1) % PARTS;
                self.parts[place] = (0, 0);
                start += part;
            }
        }
        self.current = Some((start, place));
        &mut self.parts[place]
    }

    fn sums(&self) -> (u64, u64) {
        self.parts.iter().fold((0, 0), |(good, bad), part| (good + u64::from(part.0), bad + u64::from(part.1)))
    }
}

impl Breaker {
    fn new(rule: model::Breaker, phase: u64, attempts: Arc<Attempts>) -> Self {
        attempts.statuses.set(&rule.statuses);
        attempts.begin(phase, BreakerState::Closed);
        Self {
            rule,
            attempts,
            state: BreakerState::Closed,
            phase,
            since: None,
            until: None,
            reason: None,
            trips: 0,
            in_a_row: 0,
            row: 0,
            probing: 0,
            window: Window::default(),
        }
    }

    pub(super) fn status(&self) -> BreakerStatus {
        let Self { state, since, until, reason, trips, .. } = self;
        BreakerStatus { state: *state, since: *since, until: *until, reason: reason.clone(), trips: *trips }
    }

    /// Counts what went well of late; an open breaker whose cool-down is over is half-open.
    fn look(&mut self, now: Instant) {
        let good = self.attempts.take_good();
        if good > 0 && self.state == BreakerState::Closed {
            let part = self.window.advance(self.rule.window, now);
            part.0 = part.0.saturating_add(good);
            self.row = 0;
        }
        if self.state == BreakerState::Open && self.until.is_none_or(|until| until <= now) {
            self.turn(BreakerState::HalfOpen, now);
        }
    }

    /// Whether an attempt may begin now; if not, how long the cool-down still takes, if that is known.
    fn admit(&self, now: Instant) -> Result<(), Option<Duration>> {
        match self.state {
            BreakerState::Closed => Ok(()),
            BreakerState::Open => Err(self.until.map(|until| until.saturating_duration_since(now))),
            BreakerState::HalfOpen if self.probing < self.rule.probes => Ok(()),
            BreakerState::HalfOpen => Err(None),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == BreakerState::Open
    }

    /// An attempt that was admitted begins.
    fn begin(&mut self) -> Phase {
        if self.state == BreakerState::HalfOpen {
            self.probing += 1;
        }
        Phase(self.phase)
    }

    /// An attempt is over.
    fn end(&mut self, phase: Phase, verdict: Verdict, now: Instant) {
        if phase != Phase(self.phase) {
            return;
        }
        match self.state {
            BreakerState::Closed => self.count(verdict, now),
            // Nothing begins in it.
            BreakerState::Open => {}
            BreakerState::HalfOpen => {
                self.probing = self.probing.saturating_sub(1);
                match verdict {
                    Verdict::Good => {
                        self.row += 1;
                        if self.row >= self.rule.successes {
                            self.in_a_row = 0;
                            self.turn(BreakerState::Closed, now);
                        }
                    }
                    Verdict::Bad => self.trip("a probe failed".to_owned(), now),
                    Verdict::Nothing => {}
                }
            }
        }
    }

    /// An attempt is over that says nothing.
    fn release(&mut self, phase: Phase) {
        if phase == Phase(self.phase) && self.state == BreakerState::HalfOpen {
            self.probing = self.probing.saturating_sub(1);
        }
    }

    fn count(&mut self, verdict: Verdict, now: Instant) {
        let part = self.window.advance(self.rule.window, now);
        match verdict {
            Verdict::Good => {
                part.0 = part.0.saturating_add(1);
                self.row = 0;
            }
            Verdict::Bad => {
                part.1 = part.1.saturating_add(1);
                self.row = self.row.saturating_add(1);
                self.judge(now);
            }
            Verdict::Nothing => {}
        }
    }

    fn judge(&mut self, now: Instant) {
        let (good, bad) = self.window.sums();
        let all = good + bad;
        if self.rule.failures > 0 && self.row >= self.rule.failures {
            self.trip(format!("{} failures in a row", self.row), now);
        } else if all >= u64::from(self.rule.min_requests) && bad * 100 >= all * u64::from(self.rule.share) {
            self.trip(format!("{bad} of {all} requests failed"), now);
        }
    }

    fn trip(&mut self, reason: String, now: Instant) {
        let doubled = self.rule.cool_down.saturating_mul(1 << self.in_a_row.min(16));
        let time = doubled.min(self.rule.max_cool_down);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.trips += 1;
        self.reason = Some(reason);
        self.turn(BreakerState::Open, now);
        self.until = Some(now + time);
    }

    fn turn(&mut self, state: BreakerState, now: Instant) {
        self.state = state;
        self.phase += 1;
        (self.since, self.until) = (Some(now), None);
        (self.row, self.probing, self.window) = (0, 0, Window::default());
        self.attempts.begin(self.phase, state);
    }
}

/// An attempt that a breaker has admitted. Told of its end, or dropped: then it says nothing.
pub(super) struct Admitted {
    pool: Arc<Pool>,
    phase: Phase,
    ended: bool,
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Admitted").field(&self.phase).finish()
    }
}

impl Admitted {
    /// The attempt is over. `status`: that of its answer, if there was one. Not to be called with the pool's lock held.
    pub(super) fn end(mut self, outcome: Outcome, status: Option<u16>, now: Instant) {
        self.ended = true;
        let attempts = &self.pool.watched.attempts;
        let verdict = attempts.verdict(outcome, status);
        if !attempts.note(self.phase, verdict) {
            self.pool.attempt_ended(self.phase, verdict, now);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if !self.ended
            && !self.pool.watched.attempts.note(self.phase, Verdict::Nothing)
            && let Some(breaker) = &mut self.pool.lock().breaker
        {
            breaker.release(self.phase);
        }
    }
}

impl Pool {
    fn attempt_ended(&self, phase: Phase, verdict: Verdict, now: Instant) {
        let mut inner = self.lock_at(now);
        inner.gate.see(now);
        inner.with_breaker(|breaker| breaker.end(phase, verdict, now));
        if !inner.news.is_empty() {
            self.changed(inner);
        }
    }

    /// What an attempt needs of the breaker, once an endpoint is chosen.
    pub(super) fn admitted(&self, inner: &mut Inner) -> Option<Admitted> {
        let breaker = inner.breaker.as_mut()?;
        let pool = self.me.upgrade()?;
        Some(Admitted { pool, phase: breaker.begin(), ended: false })
    }

    /// Why nobody is sent now, if the breaker says so.
    pub(super) fn broken(&self, inner: &Inner, now: Instant) -> Option<Refusal> {
        let breaker = inner.breaker.as_ref()?;
        let rest = breaker.admit(now).err()?;
        let (state, reason) = (breaker.state.word(), breaker.reason.as_deref().unwrap_or_default());
        let detail = format!("upstream: {}, breaker: {state}, {reason}", self.name);
        Some(Refusal { retry_after: rest, ..Refusal::new(RefusalKind::BreakerOpen, detail) })
    }
}

impl Inner {
    /// Takes over a rule; another one begins closed.
    pub(super) fn set_breaker(&mut self, rule: Option<&model::Breaker>, attempts: &Arc<Attempts>) {
        if self.breaker.as_ref().map(|breaker| &breaker.rule) == rule {
            return;
        }
        // What began under another rule counts in no phase of this one.
        let last = self.breaker.as_ref().map(|breaker| breaker.phase + 1);
        self.phases = self.phases.max(last.unwrap_or(0));
        self.breaker = rule.map(|rule| Breaker::new(rule.clone(), self.phases, Arc::clone(attempts)));
    }

    /// Does what time alone brings.
    pub(super) fn look_at_breaker(&mut self, now: Instant) {
        if self.breaker.is_some() {
            self.with_breaker(|breaker| breaker.look(now));
        }
    }

    /// Changes the breaker, and has it told if that changes who passes.
    fn with_breaker(&mut self, change: impl FnOnce(&mut Breaker)) {
        let Some(breaker) = &mut self.breaker else { return };
        let before = breaker.state;
        change(breaker);
        if breaker.state != before {
            self.news.push(Change::Breaker(breaker.status()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{servers, upstream};
    use crate::pool::key::Key;
    use crate::pool::lease::Lease;
    use crate::pool::symptom::Symptom;
    use crate::pool::{Acquired, EndpointIds, Wanted};
    use proptest::prelude::*;
    use tidegate_config::model::Upstream;

    const RULE: model::Breaker = model::Breaker {
        statuses: Vec::new(),
        failures: 3,
        share: 50,
        window: Duration::from_secs(10),
        min_requests: 10,
        cool_down: Duration::from_secs(5),
        max_cool_down: Duration::from_secs(15),
        probes: 2,
        successes: 3,
    };

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn all(breaker: &mut Breaker, verdicts: &[Verdict], now: Instant) -> BreakerState {
        for verdict in verdicts {
            let phase = breaker.begin();
            breaker.end(phase, *verdict, now);
        }
        breaker.state
    }

    #[test]
    fn it_opens_by_failures_in_a_row_and_by_their_share() {
        use BreakerState::{Closed, Open};
        use Verdict::{Bad, Good, Nothing};
        let now = Instant::now();
        let breaker = |rule| Breaker::new(rule, 0, Arc::default());
        let new = || breaker(RULE);
        assert_eq!(all(&mut new(), &[Bad, Bad, Good, Bad, Bad, Nothing], now), Closed);
        assert_eq!(all(&mut new(), &[Bad, Nothing, Bad, Nothing, Bad], now), Open);
        assert_eq!(
            all(&mut new(), &[Good, Bad, Good, Bad, Good, Bad, Good, Bad, Good], now),
            Closed,
            "nine are too few"
        );
        assert_eq!(all(&mut new(), &[Good, Bad, Good, Bad, Good, Bad, Good, Bad, Good, Bad], now), Open);
        let mut slow = new();
        for second in 0..100 {
            let verdict = if second % 2 == 0 { Good } else { Bad };
            assert_eq!(all(&mut slow, &[verdict], at(now, 2 * second)), Closed, "five in ten seconds");
        }
        let mut never = breaker(model::Breaker { failures: 0, ..RULE });
        assert_eq!(all(&mut never, &[Bad; 9], now), Closed);
        assert_eq!(all(&mut never, &[Bad], now), Open, "by their share");
    }

    #[test]
    fn it_cools_down_longer_each_time_and_closes_by_successes() {
        use Verdict::{Bad, Good};
        let start = Instant::now();
        let mut breaker = Breaker::new(RULE, 0, Arc::default());
        let mut now = start;
        for seconds in [5, 10, 15, 15] {
            let verdicts: &[_] = if breaker.state == BreakerState::Closed { &[Bad; 3] } else { &[Bad] };
            assert_eq!(all(&mut breaker, verdicts, now), BreakerState::Open);
            assert_eq!(breaker.admit(now), Err(Some(Duration::from_secs(seconds))));
            now += Duration::from_secs(seconds);
            breaker.look(now - Duration::from_millis(1));
            assert_eq!(breaker.state, BreakerState::Open);
            breaker.look(now);
            assert_eq!(breaker.state, BreakerState::HalfOpen);
        }
        assert_eq!(all(&mut breaker, &[Good, Good], now), BreakerState::HalfOpen);
        assert_eq!(all(&mut breaker, &[Good], now), BreakerState::Closed);
        all(&mut breaker, &[Bad; 3], now);
        assert_eq!(breaker.admit(now), Err(Some(Duration::from_secs(5))), "it begins anew");
    }

    struct Bench {
        pool: Arc<Pool>,
        upstream: Upstream,
    }

    impl Bench {
        fn new() -> Self {
            let plain = upstream("app", servers(&[(1, 1), (2, 1)]));
            let upstream = Upstream { breaker: Some(RULE), ejection: None, ..plain };
            Self { pool: Pool::new(EndpointIds::default(), &upstream), upstream }
        }

        fn ask(&self, now: Instant) -> Result<Lease, Refusal> {
            match self.pool.acquire(&Wanted { key: &Key::None, tried: &[], draw: 0, now, tunnel: false }) {
                Acquired::Lease(lease) => Ok(lease),
                Acquired::Refuse(refusal) => Err(refusal),
                Acquired::Wait(_) => panic!("servers are not waited for"),
            }
        }

        fn trip(&self, now: Instant) {
            for _ in 0..3 {
                self.pool.end(self.ask(now).unwrap(), Outcome::UpstreamFault(Symptom::Closed), now);
            }
        }

        fn state(&self) -> BreakerState {
            self.pool.status().breaker.unwrap().state
        }
    }

    #[test]
    fn an_open_breaker_refuses_and_says_for_how_long() {
        let (bench, start) = (Bench::new(), Instant::now());
        let late = bench.ask(start).unwrap();
        bench.trip(start);
        let refusal = bench.ask(at(start, 2)).unwrap_err();
        assert_eq!((refusal.kind, refusal.retry_after), (RefusalKind::BreakerOpen, Some(Duration::from_secs(3))));
        assert!(refusal.detail.contains("app") && refusal.detail.contains("3 failures in a row"), "{refusal}");
        // Two probes at a time; what is dropped, or began before, is no probe.
        let now = at(start, 5);
        let (one, two) = (bench.ask(now).unwrap(), bench.ask(now).unwrap());
        assert_eq!(bench.ask(now).unwrap_err().kind, RefusalKind::BreakerOpen);
        bench.pool.end(late, Outcome::UpstreamFault(Symptom::Closed), now);
        assert!(bench.ask(now).is_err() && bench.state() == BreakerState::HalfOpen);
        drop(one);
        let three = bench.ask(now).unwrap();
        assert!(bench.ask(now).is_err());
        bench.pool.end(two, Outcome::Ok, now);
        drop(three.into_tunnel(now));
        bench.pool.end(bench.ask(now).unwrap(), Outcome::ClientGone, now);
        assert_eq!(bench.state(), BreakerState::HalfOpen);
        bench.pool.end(bench.ask(now).unwrap(), Outcome::Ok, now);
        assert_eq!(bench.state(), BreakerState::Closed);
        assert_eq!(bench.pool.status().breaker.unwrap().trips, 1);
    }

    /// Whatever `ejection` says of statuses, or nothing.
    #[test]
    fn statuses_count_on_its_own_terms() {
        let plain = upstream("app", servers(&[(1, 1)]));
        let rule = model::Breaker { statuses: vec![503], ..RULE };
        for ejection in [None, Some(model::Ejection { statuses: vec![500], max_fails: 0, ..Default::default() })] {
            let upstream = Upstream { breaker: Some(rule.clone()), ejection, ..plain.clone() };
            let (bench, now) = (Bench { pool: Pool::new(EndpointIds::default(), &upstream), upstream }, Instant::now());
            let answer = |status| {
                let mut lease = bench.ask(now).unwrap();
                lease.answered(status, now);
                bench.pool.end(lease, Outcome::Ok, now);
            };
            [500, 500, 500, 503, 503, 200, 503, 503, 500].into_iter().for_each(answer);
            assert_eq!(bench.state(), BreakerState::Closed);
            answer(503);
            assert_eq!(bench.state(), BreakerState::Open, "five of ten");
        }
    }

    #[test]
    fn what_went_well_is_counted_before_what_did_not() {
        let (bench, start) = (Bench::new(), Instant::now());
        let all = |ends: &[Outcome], now| {
            ends.iter().for_each(|end| bench.pool.end(bench.ask(now).unwrap(), *end, now));
        };
        let (good, bad) = (Outcome::Ok, Outcome::UpstreamFault(Symptom::Closed));
        all(&[bad, bad, good, bad, bad, good, good, good, bad], start);
        assert_eq!(bench.state(), BreakerState::Closed, "five of nine");
        all(&[good], at(start, 30));
        all(&[bad, good, bad, good, bad, good, bad, good], at(start, 30));
        assert_eq!(bench.state(), BreakerState::Closed, "four of nine: the first ones are forgotten");
        all(&[bad], at(start, 30));
        assert_eq!(bench.pool.status().breaker.unwrap().reason.as_deref(), Some("5 of 10 requests failed"));
    }

    #[test]
    fn a_reload_keeps_it_unless_its_rule_changes() {
        let (mut bench, now) = (Bench::new(), Instant::now());
        bench.trip(now);
        bench.pool.reconfigure(&bench.upstream);
        assert_eq!(bench.state(), BreakerState::Open);
        bench.upstream.breaker = Some(model::Breaker { probes: 9, ..RULE });
        bench.pool.reconfigure(&bench.upstream);
        assert_eq!(bench.state(), BreakerState::Closed);
        bench.trip(now);
        bench.upstream.breaker = None;
        bench.pool.reconfigure(&bench.upstream);
        assert!(bench.ask(now).is_ok() && bench.pool.status().breaker.is_none());
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Wait(u64),
        Begin,
        End(usize, u8),
        Reload(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            1 => (0..8_u64).prop_map(Step::Wait),
            4 => Just(Step::Begin),
            4 => (0..6_usize, 0..5_u8).prop_map(|(place, how)| Step::End(place, how)),
            1 => (1..4_u32).prop_map(Step::Reload),
        ];
        proptest::collection::vec(step, 0..150)
    }

    proptest! {
        /// Half-open, no more than the quota are under way; open, nobody begins; and it never stays open.
        #[test]
        fn no_more_than_the_quota_probe(steps in steps()) {
            let (mut bench, mut now) = (Bench::new(), Instant::now());
            let mut quota = RULE.probes;
            // With the beginning of the half-open phase that each belongs to.
            let mut under_way: Vec<(Lease, Option<Instant>)> = Vec::new();
            // Time never stands still, so no two phases begin at once.
            let phase = |bench: &Bench| {
                let status = bench.pool.status().breaker.unwrap();
                status.since.filter(|_| status.state == BreakerState::HalfOpen)
            };
            for step in steps {
                match step {
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Begin => {
                        now += Duration::from_nanos(1);
                        bench.pool.refresh(now);
                        let before = bench.state();
                        if let Ok(lease) = bench.ask(now) {
                            prop_assert!(before != BreakerState::Open);
                            under_way.push((lease, phase(&bench)));
                        }
                    }
                    Step::End(place, how) if place < under_way.len() => {
                        now += Duration::from_nanos(1);
                        let (lease, _) = under_way.swap_remove(place);
                        match how {
                            0 => drop(lease),
                            1 => drop(lease.into_tunnel(now)),
                            2 => bench.pool.end(lease, Outcome::Ok, now),
                            _ => bench.pool.end(lease, Outcome::UpstreamFault(Symptom::HeadTimeout), now),
                        }
                    }
                    Step::End(..) => {}
                    Step::Reload(probes) => {
                        bench.upstream.breaker = Some(model::Breaker { probes, ..RULE });
                        bench.pool.reconfigure(&bench.upstream);
                        quota = probes;
                    }
                }
                let current = phase(&bench);
                let probing = under_way.iter().filter(|one| current.is_some() && one.1 == current).count();
                prop_assert!(probing <= quota as usize, "{} of {}", probing, quota);
            }
            under_way.clear();
            now += RULE.max_cool_down;
            prop_assert!(bench.ask(now).is_ok(), "it admits somebody again");
        }
    }
}
