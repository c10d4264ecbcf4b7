//! The first worker of a new generation, held for a while and compared with those of before: nobody leaves and nobody else comes
//! until that is over. It lasts as long as the policy says and no longer, whatever becomes of the worker meanwhile; one that
//! fails gives the deploy up as ever.

use std::time::Duration;

use tidegate_config::model::MaxDelta;

use super::Pool;
use crate::canary::{CanaryFigures, CanaryVerdict, Comparison};
use crate::deploy::Cause;
use crate::event::Event;
use crate::state::Turn;
use crate::state::worker::Worker;
use crate::status::GenerationState;

/// How far a comparison is.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) enum Canary {
    /// Requests are counted since then.
    Held(Duration),
    /// The data plane was asked for its figures then.
    Asked(Duration),
    /// It is over.
    Judged(Comparison),
}

impl Pool {
    /// Begins the comparison that the deploy under way is to make, once a worker of the target has proven itself, and ends it;
    /// whether the next ones may come as far as that goes.
    pub(super) fn pass_canary(&mut self, is_proven: bool, turn: &mut Turn<'_>) -> bool {
        if !self.is_canary_due() {
            return true;
        }
        let time = self.canary_time();
        let (pool, generation) = (self.name.clone(), self.target);
        match self.canary() {
            None if is_proven => {
                self.set_canary(Canary::Held(turn.now));
                turn.tell(Event::CanaryHeld { pool, generation, time });
            }
            Some(Canary::Held(since)) if turn.now >= since.saturating_add(time) => {
                self.set_canary(Canary::Asked(turn.now));
                turn.tell(Event::CanaryOver { pool, generation });
            }
            Some(Canary::Held(_) | Canary::Asked(_)) if self.is_target_alone() => {
                self.judge(Comparison::without_figures(CanaryVerdict::Alone), turn);
            }
            Some(Canary::Asked(at)) if turn.now >= at.saturating_add(PATIENCE) => {
                self.judge(Comparison::without_figures(CanaryVerdict::Unknown), turn);
            }
            _ => {}
        }
        false
    }

    /// Takes what the data plane has counted, if it is still waited for.
    pub(in crate::state) fn compare(
        &mut self,
        generation: u64,
        old: CanaryFigures,
        new: CanaryFigures,
        turn: &mut Turn<'_>,
    ) {
        if generation != self.target || !matches!(self.canary(), Some(Canary::Asked(_))) {
            return;
        }
        // Where the policy has ceased to compare nothing speaks against anybody.
        let max_delta = self.policy.canary.map_or(MaxDelta { errors: None, p95: None }, |hold| hold.max_delta);
        self.judge(Comparison::new(old, new, max_delta), turn);
    }

    fn judge(&mut self, comparison: Comparison, turn: &mut Turn<'_>) {
        self.set_canary(Canary::Judged(comparison));
        let (pool, generation) = (self.name.clone(), self.target);
        turn.tell(Event::CanaryJudged { pool, generation, comparison });
        if let Some(fallback) = self.fallback.filter(|_| comparison.verdict.is_against()) {
            self.give_up(fallback, Cause::Canary(comparison), turn);
        }
    }

    /// Whether nobody may leave for the target yet, because its first worker is to be compared with them.
    pub(super) fn is_canary_due(&self) -> bool {
        let is_first = self.generation(self.target).is_some_and(|one| one.state == GenerationState::Canary);
        let is_open = self.deploys.back().is_some_and(|deploy| deploy.is_open() && deploy.generation == self.target);
        is_first
            && is_open
            && self.fallback.is_some()
            && match self.canary() {
                // Where nobody else serves there is nobody to compare it with.
                None => self.policy.canary.is_some() && !self.is_target_alone(),
                Some(Canary::Held(_) | Canary::Asked(_)) => true,
                Some(Canary::Judged(_)) => false,
            }
    }

    /// When time alone brings the comparison on.
    pub(super) fn canary_deadline(&self) -> Option<Duration> {
        match self.canary().filter(|_| self.is_canary_due())? {
            Canary::Held(since) => Some(since.saturating_add(self.canary_time())),
            Canary::Asked(at) => Some(at.saturating_add(PATIENCE)),
            Canary::Judged(_) => None,
        }
    }

    fn canary(&self) -> Option<Canary> {
        self.deploys.back()?.canary
    }

    fn set_canary(&mut self, canary: Canary) {
        if let Some(deploy) = self.open_deploy() {
            deploy.canary = Some(canary);
        }
    }

    fn canary_time(&self) -> Duration {
        self.policy.canary.map_or(Duration::ZERO, |hold| hold.time)
    }

    /// Workers of the target serve, and nobody else does.
    fn is_target_alone(&self) -> bool {
        let mut serving = self.workers.iter().filter(|worker: &&Worker| worker.serves()).peekable();
        serving.peek().is_some() && serving.all(|worker| worker.id.generation == self.target)
    }
}

/// Figures are there at once. Should nobody bring them, nobody waits for them.
const PATIENCE: Duration = Duration::from_secs(5);
