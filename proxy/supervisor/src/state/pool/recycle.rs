//! Workers that serve well and are replaced all the same: after so many requests, at an age, or for what memory they hold.
//!
//! One at a time, and only while nothing else changes in the pool. A worker over its hard memory limit is the exception: it
//! does not wait for others.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_config::model::Recycle;

use super::Pool;
use crate::backoff::Jitter;
use crate::event::Event;
use crate::progress::ProgressBySpawn;
use crate::state::Turn;
use crate::state::worker::Worker;
use crate::worker::{ExitReason, WorkerState};

/// What counts against the limits of one worker.
#[derive(Debug)]
pub(in crate::state) struct Wear {
    /// Where its limits of requests and of age lie within the jitter, from 0 to 1.
    draws: [f64; 2],
    requests: u64,
    in_flight: u32,
    /// Bytes at the last sample.
    rss: Option<u64>,
    /// Bytes at the first sample in service: about what a new one needs.
    new_rss: Option<u64>,
    /// Samples in a row above the soft limit.
    high: u32,
    /// Somebody was told that there is no memory for its replacement.
    postponed: bool,
}

/// What a pool remembers of its recycles.
#[derive(Debug, Default)]
pub(super) struct Recycles {
    policy: Recycle,
    last_begun: Option<Duration>,
    /// Somebody was told that its limits are too low.
    told: bool,
}

/// How a worker can be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The new one first.
    Both,
    /// There is no memory for both: the old one leaves first.
    OneByOne,
    /// There is no memory for both, and nobody else who would serve meanwhile.
    None,
}

/// `need` and `room` in bytes, where known; so many `others` serve beside the worker.
fn way(need: Option<u64>, room: Option<u64>, others: usize) -> Way {
    let fits = need.zip(room).is_none_or(|(need, room)| need <= room);
    match others {
        _ if fits => Way::Both,
        0 => Way::None,
        _ => Way::OneByOne,
    }
}

impl Wear {
    pub(super) fn new(jitter: &mut Jitter) -> Self {
        let draws = [jitter.next(), jitter.next()];
        Self { draws, requests: 0, in_flight: 0, rss: None, new_rss: None, high: 0, postponed: false }
    }

    /// Requests under way, and bytes, as far as known.
    pub(super) fn load(&self) -> (u32, u64) {
        (self.in_flight, self.rss.unwrap_or(0))
    }

    fn weigh(&mut self, rss: u64, policy: &Recycle) {
        self.rss = Some(rss);
        self.new_rss.get_or_insert(rss);
        self.high = if policy.max_rss.is_some_and(|most| rss > most) { self.high + 1 } else { 0 };
    }

    /// Which limit it has reached at this age, the most urgent one.
    fn reached(&self, policy: &Recycle, age: Duration) -> Option<ExitReason> {
        let is_worn = policy.max_requests.is_some_and(|most| self.requests >= self.requests_limit(most, policy));
        let is_old = policy.max_lifetime.is_some_and(|life| age >= self.life(life, policy));
        if self.is_over_hard_limit(policy) {
            Some(ExitReason::MemoryHard)
        } else if self.high >= SAMPLES {
            Some(ExitReason::RecycleRss)
        } else if is_worn {
            Some(ExitReason::RecycleRequests)
        } else if is_old {
            Some(ExitReason::RecycleLifetime)
        } else {
            None
        }
    }

    fn is_over_hard_limit(&self, policy: &Recycle) -> bool {
        policy.hard_rss.zip(self.rss).is_some_and(|(most, rss)| rss > most)
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn requests_limit(&self, most: u64, policy: &Recycle) -> u64 {
        most.saturating_add((most as f64 * share(policy) * self.draws[0]) as u64)
    }

    fn life(&self, life: Duration, policy: &Recycle) -> Duration {
        life.mul_f64(1.0 + share(policy) * (self.draws[1] - 0.5))
    }
}

fn share(policy: &Recycle) -> f64 {
    f64::from(policy.jitter) / 100.0
}

impl Pool {
    /// Takes over the limits; they hold for workers that serve too.
    pub(super) fn set_recycle(&mut self, policy: Recycle) {
        if self.recycles.policy == policy {
            return;
        }
        self.recycles = Recycles { policy, last_begun: self.recycles.last_begun, told: false };
        for slot in self.slots.values_mut() {
            slot.recycled = None;
        }
        for worker in &mut self.workers {
            worker.wear.high = 0;
            worker.wear.postponed = false;
        }
    }

    /// Takes the resident memory of process trees in bytes, by spawn number.
    pub(in crate::state) fn weigh(&mut self, rss: &BTreeMap<u64, u64>) {
        for worker in self.workers.iter_mut().filter(|worker| worker.ready_at.is_some()) {
            if let Some(rss) = rss.get(&worker.id.spawn) {
                worker.wear.weigh(*rss, &self.recycles.policy);
            }
        }
    }

    /// Takes what workers have done by now.
    pub(in crate::state) fn take_progress(&mut self, figures: &ProgressBySpawn, now: Duration) {
        for worker in &mut self.workers {
            if let Some(progress) = figures.get(&worker.id.spawn) {
                worker.wear.requests = progress.requests;
                worker.wear.in_flight = progress.in_flight;
                worker.doubts.note(*progress, self.hangs.spares_full(), now);
            }
        }
    }

    /// Kills what is over its hard limit and need not be waited for, whatever else goes on.
    pub(super) fn kill_heavy(&mut self, turn: &mut Turn<'_>) {
        self.kill_replaced(turn);
        if self.is_paused(turn.now) || self.is_at_rest() || self.others() == 0 {
            return;
        }
        if let Some((at, reason @ ExitReason::MemoryHard)) = self.most_worn(turn.now) {
            self.workers[at].kill_for(reason, turn);
            self.note_recycle(at, turn.now);
        }
    }

    /// Begins with the next worker that has reached a limit, if nothing else goes on.
    pub(super) fn recycle(&mut self, turn: &mut Turn<'_>) {
        self.tell_of_low_limits(turn);
        if self.is_paused(turn.now) || !self.is_at_rest() {
            return;
        }
        let Some((at, reason)) = self.most_worn(turn.now) else { return };
        let need = self.workers.iter().filter_map(|worker| worker.wear.new_rss).max();
        let way = way(need, turn.room, self.others());
        let worker = &mut self.workers[at];
        match way {
            Way::Both => worker.replace(reason, turn),
            _ if reason == ExitReason::MemoryHard => worker.kill_for(reason, turn),
            Way::OneByOne => worker.retire(reason, turn),
            Way::None => {
                if !std::mem::replace(&mut worker.wear.postponed, true) {
                    turn.tell(Event::RecyclePostponed { worker: worker.id.clone(), reason });
                }
                return;
            }
        }
        self.note_recycle(at, turn.now);
    }

    fn note_recycle(&mut self, at: usize, now: Duration) {
        self.recycles.last_begun = Some(now);
        self.slots.entry(self.workers[at].id.slot).or_default().recycled = Some(now);
    }

    fn is_paused(&self, now: Duration) -> bool {
        self.crashloop.is_some() || self.recycles.last_begun.is_some_and(|at| now < at + PAUSE)
    }

    /// How many serve beside one that does.
    fn others(&self) -> usize {
        let ready = self.workers.iter().filter(|worker| worker.state == WorkerState::Ready);
        ready.count().saturating_sub(1)
    }

    /// What is over its hard limit goes as soon as its successor has started.
    fn kill_replaced(&mut self, turn: &mut Turn<'_>) {
        for at in 0..self.workers.len() {
            let worker = &self.workers[at];
            let is_over = worker.wear.is_over_hard_limit(&self.recycles.policy);
            let is_waiting = worker.state == WorkerState::Ready && worker.successor_wanted.is_some();
            if is_over && is_waiting && self.successor(worker).is_some_and(|next| next.state.has_process()) {
                self.workers[at].kill_for(ExitReason::MemoryHard, turn);
            }
        }
    }

    /// Everybody serves, nobody leaves and nobody is to be replaced.
    fn is_at_rest(&self) -> bool {
        let rests = |worker: &Worker| worker.state == WorkerState::Ready && worker.successor_wanted.is_none();
        self.fallback.is_none() && self.is_complete() && self.workers.iter().all(rests)
    }

    /// The worker that is to leave next: over the hard limit, or else the oldest that has reached any other.
    fn most_worn(&self, now: Duration) -> Option<(usize, ExitReason)> {
        let is_at_rest = self.is_at_rest();
        let candidates = self.workers.iter().enumerate().filter_map(|(at, worker)| {
            let reason = self.reached(worker, now)?;
            let may_leave = is_at_rest || reason == ExitReason::MemoryHard;
            (may_leave && self.held_until(worker) <= now).then_some((at, reason, worker.id.spawn))
        });
        let next = candidates.min_by_key(|(_, reason, spawn)| (*reason != ExitReason::MemoryHard, *spawn));
        next.map(|(at, reason, _)| (at, reason))
    }

    /// The limit that a worker in service has reached, unless it is being replaced already.
    fn reached(&self, worker: &Worker, now: Duration) -> Option<ExitReason> {
        let began = worker.ready_at.filter(|_| worker.state == WorkerState::Ready)?;
        let is_free = worker.successor_wanted.is_none();
        worker.wear.reached(&self.recycles.policy, now.saturating_sub(began)).filter(|_| is_free)
    }

    /// The successor of a recycled worker that reaches a limit as fast as that is not recycled in a loop.
    fn held_until(&self, worker: &Worker) -> Duration {
        let recycled = self.slots.get(&worker.id.slot).and_then(|slot| slot.recycled);
        let began = worker.ready_at.unwrap_or_default();
        match recycled {
            Some(at) if at <= began => began + Recycle::SHORTEST_LIFE,
            _ => began,
        }
    }

    fn tell_of_low_limits(&mut self, turn: &mut Turn<'_>) {
        if self.recycles.told {
            return;
        }
        let low = self.workers.iter().find_map(|worker| {
            let reason = self.reached(worker, turn.now)?;
            (self.held_until(worker) > turn.now).then(|| (worker.id.clone(), reason))
        });
        if let Some((worker, reason)) = low {
            self.recycles.told = true;
            turn.tell(Event::RecycleTooOften { worker, reason });
        }
    }

    /// When time alone has a worker recycled.
    pub(super) fn recycle_deadline(&self, now: Duration) -> Option<Duration> {
        let policy = &self.recycles.policy;
        let pause_ends = self.recycles.last_begun.map_or(Duration::ZERO, |at| at + PAUSE);
        let due = self.workers.iter().filter_map(|worker| {
            let began = worker.ready_at.filter(|_| worker.state == WorkerState::Ready)?;
            let reached = match self.reached(worker, now) {
                Some(_) => Some(now),
                None => policy.max_lifetime.map(|life| began.saturating_add(worker.wear.life(life, policy))),
            };
            Some(reached?.max(self.held_until(worker)).max(pause_ends))
        });
        due.filter(|at| *at > now).min()
    }
}

/// Samples in a row above the soft limit that make a verdict: one alone may be a moment's peak.
const SAMPLES: u32 = 2;
/// From one recycle to the next.
const PAUSE: Duration = Duration::from_secs(5);
