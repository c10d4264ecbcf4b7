//! How the target takes slots over: which one is next, whether there is room for a process more, and who may leave before
//! a successor is there.

use std::time::Duration;

use super::Pool;
use crate::plan::Way;
use crate::state::Turn;
use crate::state::worker::Worker;
use crate::status::GenerationState;
use crate::worker::{ExitReason, WorkerState};

impl Pool {
    /// Begins to replace slots that have no worker of the target, as many as may be at a time: one until the target has
    /// proven itself, then as many as there is room for.
    pub(super) fn roll(&mut self, turn: &mut Turn<'_>) {
        self.plan(turn);
        self.take_back_what_waits(turn);
        while !self.frozen && self.is_prepared(self.target) && !self.waits_for_canary() {
            if let Some(slot) = self.next_with_room() {
                self.take_over(slot, turn);
            } else if let Some(slot) = self.next_to_vacate() {
                self.vacate(slot, turn);
            } else {
                return;
            }
        }
    }

    /// Where a smaller count or surge leaves no room for what has not been started yet, its turn comes later. Successors that
    /// workers are replaced by have room of their own.
    fn take_back_what_waits(&mut self, turn: &mut Turn<'_>) {
        let excess = self.workers.len().saturating_sub(self.limit());
        let is_replaced = |slot| self.in_slot(slot).any(|worker: &Worker| worker.successor_wanted.is_some());
        let is_beside = |worker: &&Worker| {
            worker.id.generation == self.target
                && worker.state == WorkerState::Backoff
                && self.is_served(worker.id.slot)
                && !is_replaced(worker.id.slot)
        };
        let spare: Vec<u64> = self.workers.iter().rev().filter(is_beside).map(|worker| worker.id.spawn).collect();
        let spare = &spare[..excess.min(spare.len())];
        self.retire_where(ExitReason::Reload, |worker| spare.contains(&worker.id.spawn), turn);
    }

    fn waits_for_canary(&self) -> bool {
        let is_unproven = self.generation(self.target).is_some_and(|one| one.state == GenerationState::Canary);
        let is_begun = || self.workers.iter().any(|worker| worker.id.generation == self.target);
        self.fallback.is_some() && is_unproven && is_begun()
    }

    /// Gives a slot a worker of the target beside the one that holds it. One that waits to be started gives way: there is
    /// nobody to miss it.
    fn take_over(&mut self, slot: u32, turn: &mut Turn<'_>) {
        self.retire_where(
            ExitReason::Reload,
            |worker| worker.id.slot == slot && worker.state == WorkerState::Backoff,
            turn,
        );
        let is_fresh = self.fallback.is_some();
        let retry_at = self.slots.get(&slot).map_or(Duration::ZERO, |slot| slot.retry_at);
        let start_at = if is_fresh { turn.now } else { retry_at.max(turn.now) };
        self.add(slot, self.target, start_at, turn);
    }

    /// Lets the worker of a slot leave first.
    fn vacate(&mut self, slot: u32, turn: &mut Turn<'_>) {
        self.slots.entry(slot).or_default().is_vacated = true;
        self.note_drains(|worker| worker.id.slot == slot);
        self.retire_where(ExitReason::Reload, |worker| worker.id.slot == slot, turn);
    }

    /// Another target means nothing to slots that were vacated for the last one.
    pub(super) fn forget_vacated(&mut self) {
        for slot in self.slots.values_mut() {
            slot.is_vacated = false;
        }
    }

    /// The next slot for which a process more may run. Those that nobody serves come first.
    fn next_with_room(&self) -> Option<u32> {
        let limit = self.limit();
        let waiting = |slot: u32| self.in_slot(slot).filter(|worker| worker.state == WorkerState::Backoff).count();
        let has_room = |slot: &u32| self.workers.len() - waiting(*slot) < limit;
        self.pending().filter(has_room).min_by_key(|slot| (self.is_served(*slot), *slot))
    }

    /// The next slot whose worker may leave before there is another one.
    fn next_to_vacate(&self) -> Option<u32> {
        let unserved = self.slots().filter(|slot| !self.is_served(*slot)).count();
        let allowed = self.policy.max_unavailable.rounded_down(self.size()) as usize;
        let may_miss = match self.way() {
            Way::Rolling { .. } => allowed,
            Way::OneByOne => allowed.max(1),
            Way::Green => 0,
        };
        let is_unproven = self.generation(self.target).is_some_and(|one| one.state == GenerationState::Canary);
        let waits = self.fallback.is_some() && is_unproven && self.surge() > 0;
        if waits || unserved >= may_miss {
            return None;
        }
        self.pending().find(|slot| self.is_served(*slot))
    }

    /// Slots without a worker of the target.
    fn pending(&self) -> impl Iterator<Item = u32> {
        let has_ours = |slot| self.in_slot(slot).any(|worker: &Worker| worker.id.generation == self.target);
        self.slots().filter(move |slot| !has_ours(*slot))
    }

    /// Processes that may run, those that leave included.
    fn limit(&self) -> usize {
        self.size().saturating_add(self.surge()) as usize
    }

    /// Processes that may run beyond the count.
    fn surge(&self) -> u32 {
        self.way().surge(self.size())
    }

    /// Whether workers that are not of the target may leave a slot that it has taken over.
    pub(super) fn may_leave(&self, slot: u32, now: Duration) -> bool {
        if self.is_canary_due() {
            return false;
        }
        let is_held_back = self.fallback.is_some() && self.way() == Way::Green;
        let is_taken = |slot| self.is_taken(slot, now);
        if is_held_back { self.slots().all(is_taken) } else { is_taken(slot) }
    }

    /// Remembers that the deploy has touched workers in service, if any of these is.
    pub(super) fn note_drains(&mut self, is_leaving: impl Fn(&Worker) -> bool) {
        let is_in_service = |worker: &Worker| worker.state.is_staying() && worker.ready_at.is_some();
        let touches = self.workers.iter().any(|worker| is_in_service(worker) && is_leaving(worker));
        if let Some(deploy) = self.open_deploy().filter(|_| touches) {
            deploy.has_drained = true;
        }
    }

    fn is_served(&self, slot: u32) -> bool {
        self.in_slot(slot).any(|worker| worker.state == WorkerState::Ready)
    }
}
