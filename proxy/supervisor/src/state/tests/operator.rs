//! Orders of an operator: slots that are emptied and filled again, numbers of workers, restarts that fail.

use tidegate_config::model::{WorkerCount, WorkerSpec};

use super::world::{World, release, seconds, spec};
use crate::command::Command;
use crate::event::{Event, ScaledBy};
use crate::progress::Progress;
use crate::state::Input;
use crate::status::{GenerationState, PoolState};
use crate::worker::{ExitReason, ExitStatus, WorkerState};

fn app() -> String {
    "app".to_owned()
}

fn drain(world: &mut World, slot: u32) {
    world.command(Command::DrainWorker { pool: app(), slot });
}

fn restart(world: &mut World, slot: u32) {
    world.command(Command::RestartWorker { pool: app(), slot });
}

fn scaled(world: &World) -> Vec<(u32, u32, ScaledBy)> {
    let scaled = |event: &Event| match event {
        Event::Scaled { from, to, by, .. } => Some((*from, *to, *by)),
        _ => None,
    };
    world.events.iter().filter_map(scaled).collect()
}

fn held(world: &World) -> Vec<u32> {
    world.pool().held.iter().map(|held| held.slot).collect()
}

#[test]
fn a_slot_that_is_emptied_drains_and_stays_empty_until_it_is_restarted() {
    let mut world = World::serving(3);
    let old = world.only(1);
    drain(&mut world, 1);
    assert!(world.events.contains(&Event::Drain { worker: old.clone() }));
    assert!(!world.processes[&old.spawn].stopped, "its requests may finish");
    world.command(Command::Drained { worker: old });
    world.end_leaving();
    world.pass(seconds(600));
    let pool = world.pool();
    assert_eq!((pool.ready, pool.target, held(&world), pool.state), (2, 3, vec![1], PoolState::Healthy));
    assert_eq!((world.ends(), world.processes.len()), (vec![ExitReason::Operator], 2));
    restart(&mut world, 1);
    world.boot_all();
    let pool = world.pool();
    assert_eq!((pool.ready, pool.held), (3, vec![]));
    assert_eq!(pool.workers[1].restarts, 0, "what was wanted is no restart");
}

#[test]
fn an_emptied_slot_outlives_crashes_deploys_and_a_file_that_says_the_same() {
    let mut world = World::serving(3);
    drain(&mut world, 0);
    world.calm();
    world.set(&[("app", spec(3))]);
    world.crash(1);
    world.calm();
    world.set(&[("app", release(3, "v2"))]);
    world.calm();
    assert_eq!((world.generations(), held(&world)), (vec![2, 2], vec![0]));
    assert_eq!(world.pool().generations.last().map(|one| one.state), Some(GenerationState::Active));
}

#[test]
fn a_worker_in_backoff_leaves_an_emptied_slot_at_once() {
    let mut world = World::serving(1);
    world.crash(0);
    drain(&mut world, 0);
    assert!(world.pool().workers.is_empty());
    assert_eq!(world.pool().state, PoolState::Empty, "nobody is missed");
    restart(&mut world, 0);
    assert_eq!(world.booting().len(), 1, "and it is not kept waiting for its backoff");
}

#[test]
fn a_slot_that_is_emptied_while_it_is_replaced_loses_both() {
    let mut world = World::serving(2);
    restart(&mut world, 0);
    drain(&mut world, 0);
    world.calm();
    assert_eq!((world.ready(), world.processes.len(), held(&world)), (1, 1, vec![0]));
}

#[test]
fn slots_beyond_the_count_are_nobodys_to_empty_and_forget_that_they_were() {
    let mut world = World::serving(2);
    drain(&mut world, 2);
    world.command(Command::SetCount { pool: app(), count: 3 });
    world.calm();
    assert_eq!(world.ready(), 3);
    drain(&mut world, 2);
    for count in [2, 3] {
        world.command(Command::SetCount { pool: app(), count });
        world.calm();
    }
    assert_eq!(world.ready(), 3);
}

#[test]
fn an_operators_number_holds_until_it_is_released_or_the_file_has_another_one() {
    let mut world = World::serving(2);
    world.command(Command::SetCount { pool: app(), count: 4 });
    assert!(world.pool().is_scaled);
    world.calm();
    world.crash(3);
    world.set(&[("app", release(2, "v2"))]);
    world.calm();
    assert_eq!((world.ready(), world.pool().is_scaled), (4, true), "a respawn and a deploy leave it");
    world.command(Command::ReleaseCount { pool: app() });
    world.calm();
    assert_eq!((world.ready(), world.pool().is_scaled), (2, false));
    world.command(Command::SetCount { pool: app(), count: 4 });
    world.set(&[("app", release(3, "v2"))]);
    world.calm();
    assert_eq!((world.ready(), world.pool().is_scaled), (3, false));
    let (operator, file) = (ScaledBy::Operator, ScaledBy::File);
    assert_eq!(scaled(&world), [(2, 4, operator), (4, 2, file), (2, 4, operator), (4, 3, file)]);
}

#[test]
fn steps_never_take_the_last_worker_away() {
    let mut world = World::serving(2);
    for (by, expected) in [(1, 3), (-2, 1), (-1, 1), (i32::MIN, 1), (i32::MAX, 4_096), (-4_095, 1)] {
        world.command(Command::ChangeCount { pool: app(), by });
        assert_eq!(world.pool().target, expected, "{by}");
    }
    world.command(Command::SetCount { pool: app(), count: 0 });
    world.command(Command::ChangeCount { pool: app(), by: -1 });
    assert_eq!(world.pool().target, 0, "a step down starts nothing");
}

/// Slots of "app" with a worker, after a change of the number; `load` is what each slot has under way, and its memory.
fn left_of(count: u32, load: &[(u32, u64)], to: u32) -> Vec<u32> {
    let mut world = World::serving(count);
    let ready = world.in_state(WorkerState::Ready);
    let figures = ready
        .iter()
        .zip(load)
        .map(|(id, (in_flight, _))| (id.spawn, Progress { in_flight: *in_flight, ..Progress::default() }));
    world.feed(Input::Progress(figures.collect()));
    let rss = ready.iter().zip(load).map(|(id, (_, rss))| (id.spawn, *rss)).collect();
    world.feed(Input::Memory { room: None, rss });
    world.command(Command::SetCount { pool: app(), count: to });
    world.in_state(WorkerState::Ready).into_iter().map(|id| id.slot).collect()
}

#[test]
fn who_is_missed_least_goes_first() {
    assert_eq!(
        left_of(4, &[(0, 0), (5, 0), (2, 0), (9, 0)], 2),
        [0, 3],
        "fewest requests under way, but not the first slot"
    );
    assert_eq!(left_of(4, &[(1, 0), (1, 10), (1, 30), (1, 20)], 2), [0, 1], "then the most memory");
    assert_eq!(left_of(4, &[(0, 5); 4], 2), [0, 3], "then the oldest");
    assert_eq!(left_of(3, &[(9, 1), (0, 0), (0, 0)], 0), [0_u32; 0]);
}

#[test]
fn who_does_not_serve_and_slots_that_are_empty_go_before_all_others() {
    let mut world = World::serving(4);
    world.crash(1);
    drain(&mut world, 3);
    world.command(Command::SetCount { pool: app(), count: 2 });
    let ready: Vec<u32> = world.in_state(WorkerState::Ready).into_iter().map(|id| id.slot).collect();
    assert_eq!((ready, world.pool().slots), (vec![0, 2], vec![0, 2]));
}

#[test]
fn a_number_is_given_again_once_nobody_leaves_under_it() {
    let mut world = World::serving(3);
    world.command(Command::SetCount { pool: app(), count: 2 });
    assert_eq!(world.pool().slots, [0, 2]);
    world.command(Command::ChangeCount { pool: app(), by: 1 });
    assert_eq!(world.pool().slots, [0, 2, 3], "1 still drains, and nobody waits for it");
    assert_eq!(world.booting().len(), 1);
    world.calm();
    world.command(Command::ChangeCount { pool: app(), by: 1 });
    world.calm();
    assert_eq!((world.pool().slots, world.ready()), (vec![0, 1, 2, 3], 4));
    world.set(&[("app", release(4, "v2"))]);
    world.calm();
    assert_eq!(world.generations(), [2, 2, 2, 2]);
}

#[test]
fn a_released_number_is_the_machines_where_the_file_says_auto() {
    let auto = WorkerSpec { count: WorkerCount::Auto, ..spec(1) };
    let mut world = World::new();
    world.set(&[("app", auto)]);
    world.command(Command::SetCount { pool: app(), count: 5 });
    world.command(Command::ReleaseCount { pool: app() });
    assert_eq!(world.pool().target, 2);
}

#[test]
fn a_restart_whose_new_worker_fails_is_given_up_for_all_slots() {
    let mut world = World::serving(3);
    let before = world.in_state(WorkerState::Ready);
    (0..3).for_each(|slot| restart(&mut world, slot));
    assert!(world.pool().workers.iter().filter(|worker| worker.replaced_for.is_some()).count() == 3);
    let new = world.booting().remove(0);
    world.exit(&new, ExitStatus::Code(1));
    world.pass(seconds(600));
    assert_eq!(world.in_state(WorkerState::Ready), before);
    assert!(world.pool().workers.iter().all(|worker| worker.replaced_for.is_none()));
    let told = |event: &&Event| matches!(event, Event::RestartFailed(failure) if failure.worker == new);
    assert_eq!(world.events.iter().filter(told).count(), 1);
    restart(&mut world, 0);
    assert_eq!(world.booting().len(), 1, "another order is another try, at once");
}

#[test]
fn a_worker_that_does_not_end_is_killed_and_that_is_told() {
    let mut world = World::serving(1);
    let id = world.only(0);
    drain(&mut world, 0);
    world.command(Command::Drained { worker: id.clone() });
    world.pass(seconds(10));
    assert!(world.events.contains(&Event::Killed { worker: id }));
}
