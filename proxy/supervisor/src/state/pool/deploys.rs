//! The record of changes of generation: when one begins, what it comes to, when it is over.

use super::{Canary, Pool};
use crate::deploy::{Cause, DeployEnd, DeployPhase, Outcome};
use crate::event::Event;
use crate::state::Turn;
use crate::state::deploy::Deploy;
use crate::state::worker::Worker;
use crate::status::GenerationState;
use crate::worker::{ExitReason, WorkerState};

impl Pool {
    pub(super) fn record_deploy(&mut self, id: Option<u64>, turn: &mut Turn<'_>) {
        if self.deploys.len() == REMEMBERED {
            self.deploys.pop_front();
        }
        self.deploys.push_back(Deploy::new(id, self.target, self.fallback, turn.now));
        turn.tell(Event::DeployBegan { pool: self.name.clone(), generation: self.target });
    }

    /// What the end of a worker says of the deploy under way; `asked`: why it was asked to end.
    pub(super) fn note_end(&mut self, worker: &Worker, asked: Option<ExitReason>) {
        let Some(deploy) = self.deploys.back_mut().filter(|deploy| deploy.ended.is_none()) else { return };
        match asked {
            None => deploy.lost += 1,
            Some(ExitReason::Reload) => deploy.longest_drain = deploy.longest_drain.max(worker.drained_in),
            Some(_) => {}
        }
    }

    /// The deploy whose outcome is open.
    pub(super) fn open_deploy(&mut self) -> Option<&mut Deploy> {
        self.deploys.back_mut().filter(|deploy| deploy.is_open())
    }

    /// What the present deploy comes to. It is over when those that leave for it are gone.
    pub(super) fn decide(&mut self, outcome: Outcome, failure: Option<Cause>) {
        if let Some(deploy) = self.open_deploy() {
            deploy.outcome = Some(outcome);
            deploy.failure = failure;
        }
    }

    /// Another one begins, or the pool ends: whatever is under way is over now.
    pub(super) fn supersede(&mut self, turn: &mut Turn<'_>) {
        self.decide(Outcome::Superseded, None);
        self.end_deploy(turn);
    }

    /// Ends the deploy that is decided, once nothing of it is left to be done.
    pub(super) fn conclude(&mut self, turn: &mut Turn<'_>) {
        let Some(deploy) = self.deploys.back().filter(|deploy| deploy.ended.is_none()) else { return };
        let is_of = |worker: &Worker| worker.id.generation == deploy.generation;
        let is_over = match deploy.outcome {
            None => false,
            Some(Outcome::Done) => self.workers.iter().all(is_of),
            Some(Outcome::Reverted) => {
                let is_back = !deploy.has_drained || self.frozen || self.is_complete();
                is_back && !self.workers.iter().any(is_of)
            }
            Some(Outcome::Frozen) => !self.workers.iter().any(|worker| is_of(worker) && !worker.state.is_staying()),
            Some(Outcome::Failed | Outcome::Superseded) => true,
        };
        if is_over {
            self.end_deploy(turn);
        }
    }

    /// How far a deploy is.
    pub(in crate::state) fn phase(&self, deploy: &Deploy) -> DeployPhase {
        let state = self.generation(deploy.generation).map(|generation| generation.state);
        match (deploy.ended, deploy.outcome, state) {
            (Some(_), ..) | (None, Some(Outcome::Failed | Outcome::Superseded), _) => DeployPhase::Over,
            (None, Some(Outcome::Done), _) => DeployPhase::Leaving,
            (None, Some(Outcome::Reverted | Outcome::Frozen), _) => DeployPhase::Reverting,
            (None, None, Some(GenerationState::Preparing)) => DeployPhase::Preparing,
            (None, None, Some(GenerationState::Canary)) => match deploy.canary {
                Some(Canary::Held(_) | Canary::Asked(_)) => DeployPhase::Holding,
                None | Some(Canary::Judged(_)) => DeployPhase::Canary,
            },
            (None, None, _) => DeployPhase::Rolling,
        }
    }

    /// Slots in which a worker of a generation is in service.
    pub(in crate::state) fn serving(&self, generation: u64) -> u32 {
        let is_served = |slot: &u32| {
            self.in_slot(*slot).any(|one| one.id.generation == generation && one.state == WorkerState::Ready)
        };
        u32::try_from(self.slots().filter(is_served).count()).unwrap_or(u32::MAX)
    }

    fn end_deploy(&mut self, turn: &mut Turn<'_>) {
        let Some(deploy) = self.deploys.back_mut().filter(|deploy| deploy.ended.is_none()) else { return };
        let Some(outcome) = deploy.outcome else { return };
        deploy.ended = Some(turn.now);
        turn.tell(Event::DeployEnded(DeployEnd {
            pool: self.name.clone(),
            generation: deploy.generation,
            id: deploy.id,
            outcome,
            took: turn.now.saturating_sub(deploy.began),
            failure: deploy.failure.clone(),
        }));
    }
}

/// Deploys of a pool that are listed.
const REMEMBERED: usize = 5;
