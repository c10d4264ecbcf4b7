//! How a new generation takes over: the first worker's proof, how many at a time, and what a failure comes to.

use std::time::Duration;

use tidegate_config::model::{DeployPolicy, DeployStrategy, OnFailure, Portion, WorkerSpec};

use super::world::{World, release, seconds};
use crate::capacity::Capacity;
use crate::command::Command;
use crate::deploy::{Boots, Cause, DeployEnd, Outcome};
use crate::event::Event;
use crate::memory::{Bound, Memory};
use crate::state::Input;
use crate::status::GenerationState;
use crate::worker::{ExitReason, ExitStatus, WorkerState};

/// Workers that must stay ready for two seconds.
fn careful(count: u32, command: &str, policy: DeployPolicy) -> WorkerSpec {
    WorkerSpec { deploy: DeployPolicy { min_ready: seconds(2), ..policy }, ..release(count, command) }
}

fn rolling(surge: u32) -> DeployPolicy {
    DeployPolicy { strategy: DeployStrategy::Rolling, surge: Portion::Count(surge), ..DeployPolicy::default() }
}

fn green() -> DeployPolicy {
    DeployPolicy { strategy: DeployStrategy::Green, ..DeployPolicy::default() }
}

/// That many of "v1" serve, and "v2" has been asked for.
fn deploying(count: u32, policy: DeployPolicy) -> World {
    let mut world = World::new();
    world.set(&[("app", careful(count, "v1", policy))]);
    world.boot_all();
    world.events.clear();
    world.set(&[("app", careful(count, "v2", policy))]);
    world
}

impl World {
    /// How deploys ended, with the numbers of their generations.
    fn outcomes(&self) -> Vec<(u64, Outcome)> {
        self.deploy_ends().into_iter().map(|end| (end.generation, end.outcome)).collect()
    }

    fn deploy_ends(&self) -> Vec<&DeployEnd> {
        let mut ends = Vec::new();
        for event in &self.events {
            if let Event::DeployEnded(end) = event {
                ends.push(end);
            }
        }
        ends
    }

    fn deploy(&mut self, id: u64) {
        self.command(Command::Deploy { pool: "app".to_owned(), id });
    }

    /// Those that drain have no request, and end when they are told to.
    fn let_go(&mut self) {
        for worker in self.in_state(WorkerState::Draining) {
            self.command(Command::Drained { worker });
        }
        self.end_leaving();
    }

    /// Slots in which a worker boots.
    fn booting_slots(&self) -> Vec<u32> {
        self.booting().iter().map(|id| id.slot).collect()
    }

    /// The first worker has proven itself, and the next ones boot.
    fn past_canary(&mut self) {
        self.boot_all();
        self.pass(seconds(2));
        self.let_go();
    }
}

#[test]
fn one_worker_proves_itself_before_anybody_leaves_or_another_one_starts() {
    let mut world = deploying(4, rolling(2));
    assert_eq!(world.booting_slots(), [0]);
    world.boot_all();
    world.pass(Duration::from_millis(1_999));
    assert_eq!((world.processes.len(), world.ready()), (5, 5));
    assert!(world.in_state(WorkerState::Draining).is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.in_state(WorkerState::Draining).len(), 1);
    assert_eq!(world.booting_slots(), [1], "one that leaves counts as long as it has a process");
    world.let_go();
    assert_eq!(world.booting_slots(), [1, 2]);
    assert_eq!(world.processes.len(), 6);
}

#[test]
fn a_deploy_is_done_when_the_old_ones_are_gone() {
    let mut world = deploying(2, rolling(2));
    world.past_canary();
    world.boot_all();
    world.pass(seconds(2));
    assert!(world.events.contains(&Event::GenerationActive { pool: "app".into(), generation: 2 }));
    assert_eq!((world.outcomes(), world.in_state(WorkerState::Draining).len()), (vec![], 1));
    world.pass(seconds(3));
    world.let_go();
    assert_eq!(world.outcomes(), [(2, Outcome::Done)]);
    assert_eq!((world.deploy_ends()[0].took, &world.deploy_ends()[0].failure), (seconds(7), &None));
    let pool = world.pool();
    let deploy = pool.deploys.last().expect("a deploy");
    assert_eq!((deploy.replaces, deploy.ready_after), (Some(1), Some(Duration::ZERO)));
}

#[test]
fn a_deploy_knows_its_boots_its_longest_drain_and_who_was_lost() {
    let mut world = deploying(2, rolling(1));
    world.pass(seconds(3));
    world.boot_all();
    world.pass(seconds(2));
    // The first old one takes its time.
    world.pass(seconds(4));
    world.let_go();
    world.pass(seconds(1));
    world.boot_all();
    world.crash_old();
    world.pass(seconds(2));
    let deploy = world.pool().deploys.pop().expect("a deploy");
    assert_eq!(deploy.outcome, Some(Outcome::Done));
    assert_eq!(deploy.boots, Some(Boots { count: 2, shortest: seconds(1), longest: seconds(3) }));
    assert_eq!((deploy.longest_drain, deploy.lost), (Some(seconds(4)), 1));
}

#[test]
fn a_first_worker_that_does_not_stay_ready_changes_nothing() {
    let mut world = deploying(3, rolling(1));
    world.boot_all();
    world.pass(Duration::from_millis(1_900));
    let canary = world.only_of(2);
    world.exit(&canary, ExitStatus::Code(3));
    assert_eq!(world.outcomes(), [(2, Outcome::Reverted)]);
    assert_eq!(world.deploy_ends()[0].failure.as_ref().map_or(&[][..], Cause::last_lines), ["last words"]);
    assert!(!world.events.iter().any(|event| matches!(event, Event::Drain { .. })));
    world.pass(seconds(120));
    assert_eq!((world.generations(), world.processes.len()), (vec![1, 1, 1], 3));
}

impl World {
    /// The last worker of the first generation is killed.
    fn crash_old(&mut self) {
        let old = self.only_of(1);
        self.exit(&old, ExitStatus::Signal(9));
    }

    /// The one worker of a generation that has a process.
    fn only_of(&self, generation: u64) -> crate::worker::WorkerId {
        let mut all = self.processes.values().filter(|process| process.id.generation == generation);
        let only = all.next().expect("one").id.clone();
        assert!(all.next().is_none());
        only
    }
}

#[test]
fn green_starts_the_whole_set_before_the_first_one_leaves() {
    let mut world = deploying(3, green());
    assert_eq!(world.booting_slots(), [0], "one comes first here too");
    world.boot_all();
    world.pass(seconds(2));
    world.boot_all();
    assert_eq!((world.processes.len(), world.ready()), (6, 6));
    assert!(world.in_state(WorkerState::Draining).is_empty(), "the last ones have not stayed ready");
    world.pass(seconds(2));
    assert_eq!(world.in_state(WorkerState::Draining).len(), 3);
    world.calm();
    assert_eq!((world.generations(), world.outcomes()), (vec![2, 2, 2], vec![(2, Outcome::Done)]));
}

#[test]
fn green_reverts_whole_however_late_it_fails() {
    let mut world = deploying(3, green());
    world.boot_all();
    world.pass(seconds(2));
    let last = world.booting().pop().expect("one that boots");
    world.boot_all();
    world.pass(Duration::from_millis(1_999));
    world.exit(&last, ExitStatus::Signal(11));
    let leaving = world.in_state(WorkerState::Draining);
    assert!(leaving.len() == 2 && leaving.iter().all(|id| id.generation == 2), "{leaving:?}");
    assert_eq!(world.outcomes(), [], "requests at the new ones may finish");
    world.calm();
    assert_eq!((world.generations(), world.outcomes()), (vec![1, 1, 1], vec![(2, Outcome::Reverted)]));
    assert_eq!(world.pool().generations[0].state, GenerationState::Active);
}

/// The new generation has slot 0, and what boots next fails.
fn failed_half_way(on_failure: OnFailure) -> World {
    let mut world = deploying(3, DeployPolicy { on_failure, ..rolling(1) });
    world.past_canary();
    assert_eq!(world.booting_slots(), [1]);
    let second = world.booting().remove(0);
    world.exit(&second, ExitStatus::Code(1));
    world
}

#[test]
fn a_failure_half_way_freezes_the_mix_and_empty_slots_get_the_old_one() {
    let mut world = failed_half_way(OnFailure::Freeze);
    assert_eq!(world.outcomes(), [(2, Outcome::Frozen)]);
    world.pass(seconds(120));
    assert_eq!(world.generations(), [2, 1, 1]);
    world.crash(2);
    world.crash(0);
    world.calm();
    assert_eq!(world.generations(), [1, 1, 1]);
}

#[test]
fn a_failure_half_way_rolls_back_slot_by_slot_with_the_same_care() {
    let mut world = failed_half_way(OnFailure::Rollback);
    assert_eq!((world.outcomes(), world.booting_slots()), (vec![], vec![0]));
    assert_eq!(world.generations(), [2, 1, 1]);
    world.boot_all();
    assert_eq!((world.ready(), world.in_state(WorkerState::Draining).len()), (3, 1), "its successor serves");
    world.let_go();
    assert_eq!((world.generations(), world.outcomes()), (vec![1, 1, 1], vec![(2, Outcome::Reverted)]));
}

#[test]
fn a_rollback_whose_workers_fail_too_is_tried_again_with_backoff() {
    let mut world = failed_half_way(OnFailure::Rollback);
    for _ in 0..3 {
        let back = world.booting().remove(0);
        world.exit(&back, ExitStatus::Code(1));
        assert_eq!((world.booting(), world.ready()), (vec![], 3));
        while world.booting().is_empty() {
            world.pass(Duration::from_millis(100));
        }
    }
    assert_eq!(world.outcomes(), []);
    world.calm();
    assert_eq!(world.outcomes(), [(2, Outcome::Reverted)]);
}

#[test]
fn with_max_unavailable_workers_leave_first_once_the_first_one_has_proven_itself() {
    let policy = DeployPolicy { max_unavailable: Portion::Count(2), ..rolling(1) };
    let mut world = deploying(4, policy);
    world.boot_all();
    world.pass(Duration::from_millis(1_999));
    assert!(world.in_state(WorkerState::Draining).is_empty());
    world.pass(Duration::from_millis(1));
    // Slot 0 is taken over; two more lose theirs while the one of slot 0 still leaves.
    assert_eq!((world.in_state(WorkerState::Draining).len(), world.ready(), world.processes.len()), (3, 2, 5));
    assert_eq!(world.booting(), []);
    world.let_go();
    assert_eq!((world.booting_slots(), world.processes.len()), (vec![1, 2], 4));
    world.calm();
    assert_eq!((world.generations(), world.outcomes()), (vec![2; 4], vec![(2, Outcome::Done)]));
}

#[test]
fn a_slot_that_was_vacated_goes_back_to_the_old_generation_when_the_new_one_fails() {
    let policy = DeployPolicy { max_unavailable: Portion::Count(1), ..rolling(1) };
    let mut world = deploying(3, policy);
    world.past_canary();
    let next = world.booting().remove(0);
    world.exit(&next, ExitStatus::Code(1));
    world.calm();
    assert_eq!((world.generations(), world.outcomes()), (vec![2, 1, 1], vec![(2, Outcome::Frozen)]));
}

#[test]
fn an_order_makes_a_new_generation_of_the_same_spec() {
    let mut world = World::serving(2);
    world.deploy(7);
    world.calm();
    assert_eq!(world.generations(), [2, 2]);
    assert_eq!((world.deploy_ends()[0].id, world.outcomes()), (Some(7), vec![(2, Outcome::Done)]));
    world.events.clear();
    world.command(Command::Deploy { pool: "other".to_owned(), id: 8 });
    assert_eq!(world.events, [], "a pool that does not exist");
}

#[test]
fn an_order_tries_a_spec_again_that_failed() {
    let mut world = deploying(1, rolling(1));
    let canary = world.booting().remove(0);
    world.exit(&canary, ExitStatus::Code(1));
    world.set(&[("app", careful(1, "v2", rolling(1)))]);
    assert_eq!(world.booting(), [], "unasked it is not");
    world.deploy(1);
    world.calm();
    assert_eq!((world.generations(), world.outcomes()), (vec![3], vec![(2, Outcome::Reverted), (3, Outcome::Done)]));
}

#[test]
fn the_newest_of_two_deploys_wins() {
    let mut world = deploying(3, rolling(1));
    world.past_canary();
    world.deploy(1);
    assert_eq!(world.outcomes(), [(2, Outcome::Superseded)]);
    world.deploy(2);
    assert_eq!(world.outcomes(), [(2, Outcome::Superseded), (3, Outcome::Superseded)]);
    world.calm();
    assert_eq!((world.generations(), world.outcomes()[2]), (vec![4; 3], (4, Outcome::Done)));
}

#[test]
fn a_deploy_over_one_that_was_superseded_half_way_leaves_its_mix_when_it_fails() {
    let mut world = deploying(3, rolling(1));
    world.past_canary();
    world.deploy(1);
    world.let_go();
    let canary = world.booting().remove(0);
    world.exit(&canary, ExitStatus::Code(1));
    world.calm();
    assert_eq!((world.generations(), world.outcomes()[1]), (vec![2, 1, 1], (3, Outcome::Reverted)));
}

#[test]
fn old_workers_that_crash_or_are_restarted_fail_no_deploy() {
    let mut world = deploying(3, rolling(1));
    world.crash(2);
    world.command(Command::RestartWorker { pool: "app".to_owned(), slot: 1 });
    world.boot_all();
    world.crash(1);
    world.calm();
    assert_eq!((world.generations(), world.outcomes()), (vec![2; 3], vec![(2, Outcome::Done)]));
}

#[test]
fn a_new_worker_that_served_and_ended_of_its_own_accord_fails_no_deploy() {
    for (status, outcome) in [(ExitStatus::Code(0), Outcome::Done), (ExitStatus::Code(1), Outcome::Reverted)] {
        let mut world = deploying(2, rolling(1));
        world.past_canary();
        let canary = world.only(0);
        world.exit(&canary, status);
        world.calm();
        assert_eq!(world.outcomes(), [(2, outcome)], "{status}");
    }
}

#[test]
fn one_by_one_a_first_worker_that_fails_leaves_nothing_of_its_release() {
    for on_failure in [OnFailure::Freeze, OnFailure::Rollback] {
        let mut world = one_by_one(2, on_failure);
        assert_eq!((world.generations(), world.booting_slots()), (vec![1], vec![0]), "one has left for it");
        let first = world.booting().remove(0);
        world.exit(&first, ExitStatus::Code(1));
        assert_eq!(world.outcomes(), [], "the old one comes back first");
        world.calm();
        assert_eq!((world.generations(), world.outcomes()), (vec![1, 1], vec![(2, Outcome::Reverted)]));
        // The next one is as free as this one was.
        world.deploy(1);
        world.calm();
        assert_eq!((world.generations(), world.outcomes()[1]), (vec![3, 3], (3, Outcome::Done)));
    }
}

#[test]
fn one_by_one_a_later_worker_that_fails_leaves_the_first_one() {
    for (on_failure, generations, outcome) in
        [(OnFailure::Freeze, [2, 1], Outcome::Frozen), (OnFailure::Rollback, [1, 1], Outcome::Reverted)]
    {
        let mut world = one_by_one(2, on_failure);
        world.past_canary();
        world.let_go();
        let second = world.booting().remove(0);
        world.exit(&second, ExitStatus::Code(1));
        world.calm();
        assert_eq!((world.generations(), world.outcomes()), (generations.to_vec(), vec![(2, outcome)]));
    }
}

/// A deploy of that many workers without memory for one more: the first old one has left, and the first new one boots.
fn one_by_one(count: u32, on_failure: OnFailure) -> World {
    let policy = DeployPolicy { strategy: DeployStrategy::Auto, on_failure, ..rolling(1) };
    let mut world = World::new();
    world.set(&[("app", careful(count, "v1", policy))]);
    world.boot_all();
    let pss = world.processes.keys().map(|spawn| (*spawn, 500)).collect();
    let memory = Memory { bounds: vec![Bound::of_group(1_000, 900)] };
    world.feed(Input::Capacity(Capacity { cpus: 2.0, memory, pss: Some(pss) }));
    world.events.clear();
    world.set(&[("app", careful(count, "v2", policy))]);
    world.let_go();
    world
}

#[test]
fn where_nobody_serves_the_first_one_is_not_waited_for() {
    let mut world = World::new();
    world.set(&[("app", careful(3, "v1", rolling(1)))]);
    world.boot_all();
    (0..3).for_each(|slot| world.crash(slot));
    world.set(&[("app", careful(3, "v2", rolling(1)))]);
    assert_eq!(world.booting_slots(), [0]);
    world.boot_all();
    assert_eq!((world.generations(), world.in_state(WorkerState::Backoff)), (vec![2; 3], vec![]));
}

#[test]
fn a_first_start_is_a_deploy_without_a_proof() {
    let mut world = World::new();
    world.set(&[("app", careful(2, "v1", rolling(1)))]);
    assert_eq!(world.booting_slots(), [0, 1]);
    world.boot_all();
    assert_eq!(world.outcomes(), [(1, Outcome::Done)]);
}

#[test]
fn a_deploy_with_nothing_to_go_back_to_says_so_and_tries_on() {
    let mut world = World::new();
    world.set(&[("app", careful(1, "broken", rolling(1)))]);
    let first = world.booting().remove(0);
    world.exit(&first, ExitStatus::Code(1));
    assert_eq!(world.outcomes(), [], "a first start may take several tries");
    world.deploy(1);
    let second = world.booting().remove(0);
    world.exit(&second, ExitStatus::Code(1));
    assert_eq!(world.outcomes(), [(1, Outcome::Superseded), (2, Outcome::Failed)]);
    world.calm();
    assert_eq!(world.generations(), [2]);
    assert!(world.events.contains(&Event::GenerationActive { pool: "app".into(), generation: 2 }));
}

#[test]
fn a_deploy_ends_with_its_pool_and_with_the_supervisor() {
    for end in [Command::SetPools(vec![]), Command::ShutdownNow] {
        let mut world = deploying(2, rolling(1));
        world.command(end);
        world.calm();
        assert_eq!(world.outcomes(), [(2, Outcome::Superseded)]);
        world.deploy(1);
        assert!(world.processes.is_empty());
    }
}

#[test]
fn a_count_that_changes_meanwhile_holds_for_the_new_generation_too() {
    let mut world = deploying(2, rolling(1));
    world.boot_all();
    for count in [4, 1] {
        world.command(Command::SetCount { pool: "app".to_owned(), count });
        world.pass(seconds(2));
        world.boot_all();
    }
    world.calm();
    assert_eq!((world.generations(), world.outcomes()), (vec![2], vec![(2, Outcome::Done)]));
    assert!(!world.ends().contains(&ExitReason::CrashCode));
}

#[test]
fn an_empty_pool_is_deployed_at_once() {
    let mut world = World::serving(1);
    world.command(Command::SetCount { pool: "app".to_owned(), count: 0 });
    world.calm();
    world.deploy(1);
    assert_eq!(world.outcomes(), [(2, Outcome::Done)]);
    world.command(Command::SetCount { pool: "app".to_owned(), count: 1 });
    world.calm();
    assert_eq!(world.generations(), [2]);
}

#[test]
fn the_last_five_deploys_are_listed() {
    let mut world = World::serving(1);
    for id in 0..7 {
        world.deploy(id);
        world.calm();
    }
    let ids: Vec<_> = world.pool().deploys.iter().filter_map(|deploy| deploy.id).collect();
    assert_eq!(ids, [2, 3, 4, 5, 6]);
}
