//! Changed specs: the new generation proves itself slot by slot, the old one serves until then.

use super::world::{World, release, seconds, spec};
use crate::command::Command;
use crate::deploy::Cause;
use crate::event::Event;
use crate::status::GenerationState;
use crate::worker::{ExitReason, ExitStatus, WorkerState};

/// Lets the new worker under way get ready and the old one of its slot leave.
fn replace_one(world: &mut World) {
    world.boot_all();
    for id in world.in_state(WorkerState::Draining) {
        world.command(Command::Drained { worker: id });
    }
    world.end_leaving();
}

fn failed_generations(world: &World) -> Vec<u64> {
    let failed = |event: &Event| match event {
        Event::GenerationFailed { generation, .. } => Some(*generation),
        _ => None,
    };
    world.events.iter().filter_map(failed).collect()
}

#[test]
fn a_new_generation_takes_over_slot_by_slot_and_nobody_is_missing() {
    let mut world = World::serving(3);
    world.set(&[("app", release(3, "v2"))]);
    for taken in 0..3 {
        let canary = world.only_new();
        assert_eq!(canary.slot, taken);
        assert_eq!((world.ready(), world.processes.len()), (3, 4));
        world.ready_up(&canary);
        assert_eq!(world.ready(), 3, "the new one serves before the old one drains");
        assert_eq!(world.booting().len(), 0, "no more than one above the count");
        replace_one(&mut world);
    }
    assert_eq!(world.generations(), [2, 2, 2]);
    assert!(world.events.contains(&Event::GenerationActive { pool: "app".into(), generation: 2 }));
    assert_eq!(world.ends(), [ExitReason::Reload; 3]);
    let generations: Vec<_> = world.pool().generations.iter().map(|one| (one.number, one.state)).collect();
    assert_eq!(generations, [(2, GenerationState::Active)]);
}

impl World {
    /// The one worker that boots.
    fn only_new(&self) -> crate::worker::WorkerId {
        let booting = self.booting();
        assert_eq!(booting.len(), 1);
        booting[0].clone()
    }
}

#[test]
fn a_generation_whose_first_worker_fails_changes_nothing() {
    let mut world = World::serving(2);
    world.set(&[("app", release(2, "broken"))]);
    let canary = world.only_new();
    world.exit(&canary, ExitStatus::Code(1));
    assert_eq!(failed_generations(&world), [2]);
    assert!(!world.events.iter().any(|event| matches!(event, Event::Drain { .. })));
    let failure = world.failures()[0].clone();
    let cause = Cause::Worker(failure);
    assert!(world.events.contains(&Event::GenerationFailed { pool: "app".into(), generation: 2, cause }));
    world.pass(seconds(120));
    assert_eq!((world.generations(), world.processes.len()), (vec![1, 1], 2));
    world.events.clear();
    world.set(&[("app", release(2, "broken"))]);
    assert_eq!(world.events, [], "the same spec is not tried again");
    world.set(&[("app", release(2, "repaired"))]);
    world.calm();
    assert_eq!(world.generations(), [3, 3]);
}

#[test]
fn a_generation_that_does_not_get_ready_in_time_fails() {
    let mut world = World::serving(1);
    world.set(&[("app", release(1, "slow"))]);
    world.pass(seconds(60));
    world.end_leaving();
    assert_eq!(failed_generations(&world), [2]);
    assert_eq!(world.generations(), [1]);
}

#[test]
fn a_generation_that_fails_half_way_keeps_its_slots_until_they_fall_empty() {
    let mut world = World::serving(3);
    world.set(&[("app", release(3, "v2"))]);
    replace_one(&mut world);
    let second = world.only_new();
    world.exit(&second, ExitStatus::Code(1));
    assert_eq!(failed_generations(&world), [2]);
    world.pass(seconds(120));
    assert_eq!(world.generations(), [2, 1, 1]);
    world.crash(0);
    world.calm();
    assert_eq!(world.generations(), [1, 1, 1]);
}

#[test]
fn a_new_worker_that_crashes_after_it_was_ready_fails_its_generation() {
    let mut world = World::serving(2);
    world.set(&[("app", release(2, "v2"))]);
    let canary = world.only_new();
    world.ready_up(&canary);
    world.exit(&canary, ExitStatus::Signal(6));
    assert_eq!(failed_generations(&world), [2]);
    world.calm();
    assert_eq!(world.generations(), [1, 1]);
}

#[test]
fn an_old_worker_that_crashes_meanwhile_comes_back_from_the_old_generation() {
    let mut world = World::serving(3);
    world.set(&[("app", release(3, "v2"))]);
    world.crash(2);
    world.pass(seconds(1));
    let booting: Vec<_> = world.booting().iter().map(|id| (id.slot, id.generation)).collect();
    assert_eq!(booting, [(0, 2), (2, 1)]);
    assert_eq!(failed_generations(&world), [0; 0]);
}

#[test]
fn going_back_to_the_old_spec_half_way_needs_no_new_generation() {
    let mut world = World::serving(2);
    world.set(&[("app", release(2, "v2"))]);
    replace_one(&mut world);
    world.set(&[("app", spec(2))]);
    assert!(world.in_state(WorkerState::Starting).iter().all(|id| id.generation == 1));
    world.calm();
    assert_eq!(world.generations(), [1, 1]);
    let numbers: Vec<u64> = world.pool().generations.iter().map(|one| one.number).collect();
    assert_eq!(numbers, [1]);
}

#[test]
fn a_third_spec_supersedes_the_second() {
    let mut world = World::serving(3);
    world.set(&[("app", release(3, "v2"))]);
    replace_one(&mut world);
    let superseded = world.only_new();
    world.set(&[("app", release(3, "v3"))]);
    assert!(world.processes[&superseded.spawn].stopped, "a boot that no longer matters ends");
    assert_eq!(world.ready(), 3);
    world.calm();
    assert_eq!(world.generations(), [3, 3, 3]);
    assert_eq!(failed_generations(&world), [0; 0]);
}

#[test]
fn a_third_spec_that_fails_falls_back_to_the_first() {
    let mut world = World::serving(2);
    world.set(&[("app", release(2, "v2"))]);
    replace_one(&mut world);
    world.set(&[("app", release(2, "broken"))]);
    world.end_leaving();
    let canary = world.only_new();
    assert_eq!(canary.generation, 3);
    world.exit(&canary, ExitStatus::Code(1));
    world.calm();
    assert_eq!(world.generations(), [2, 1]);
    world.crash(0);
    world.calm();
    assert_eq!(world.generations(), [1, 1]);
}

#[test]
fn a_spec_that_never_worked_is_replaced_at_once_and_in_parallel() {
    let mut world = World::new();
    world.set(&[("app", release(2, "broken"))]);
    world.set(&[("app", release(2, "repaired"))]);
    world.end_leaving();
    let generations: Vec<u64> = world.booting().iter().map(|id| id.generation).collect();
    assert_eq!(generations, [2, 2]);
}

#[test]
fn an_operators_restart_does_not_fail_or_revert_a_generation() {
    let mut world = World::serving(2);
    world.set(&[("app", release(2, "v2"))]);
    replace_one(&mut world);
    world.command(Command::RestartWorker { pool: "app".to_owned(), slot: 0 });
    world.calm();
    assert_eq!(world.generations(), [2, 2]);
    assert_eq!(failed_generations(&world), [0; 0]);
}

#[test]
fn a_repaired_spec_gets_its_turn_in_a_crash_loop() {
    let mut world = World::serving(2);
    for _ in 0..5 {
        world.crash(0);
        while world.booting().is_empty() {
            world.pass(seconds(1));
        }
        world.boot_all();
    }
    assert_eq!(world.pool().state, crate::status::PoolState::Crashloop);
    world.crash(0);
    world.set(&[("app", release(2, "repaired"))]);
    assert_eq!(world.only_new().generation, 2);
    world.calm();
    assert_eq!(world.generations(), [2, 2]);
}

#[test]
fn a_new_spec_while_going_back_leaves_one_old_worker_in_a_slot() {
    let mut world = World::serving(2);
    world.set(&[("app", release(2, "v2"))]);
    replace_one(&mut world);
    world.set(&[("app", spec(2))]);
    world.end_leaving();
    let back = world.only_new();
    assert_eq!((back.slot, back.generation, world.generations()), (0, 1, vec![2, 1]));
    world.set(&[("app", release(2, "v3"))]);
    world.calm();
    assert_eq!(world.generations(), [3, 3]);
}
