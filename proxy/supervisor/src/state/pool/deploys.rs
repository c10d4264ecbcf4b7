//! The record of changes of generation: when one begins, what it comes to, when it is over.

use super::Pool;
use crate::deploy::{Cause, DeployEnd, Outcome};
use crate::event::Event;
use crate::state::Turn;
use crate::state::deploy::Deploy;
use crate::state::worker::Worker;

impl Pool {
    pub(super) fn record_deploy(&mut self, id: Option<u64>, turn: &Turn<'_>) {
        if self.deploys.len() == REMEMBERED {
            self.deploys.pop_front();
        }
        self.deploys.push_back(Deploy::new(id, self.target, self.fallback, turn.now));
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
