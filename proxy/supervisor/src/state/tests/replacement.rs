//! Workers that serve until another one has taken their place.

use super::world::{World, release, seconds};
use crate::command::Command;
use crate::state::Input;
use crate::worker::{ExitReason, ExitStatus, WorkerState};

fn restart(world: &mut World, slot: u32) {
    world.command(Command::RestartWorker { pool: "app".to_owned(), slot });
}

#[test]
fn who_is_replaced_serves_until_its_successor_does() {
    let mut world = World::serving(2);
    let old = world.only(1);
    restart(&mut world, 1);
    let new = world.booting().remove(0);
    assert_eq!((new.slot, new.generation), (1, old.generation));
    assert_eq!((world.ready(), world.in_state(WorkerState::Draining)), (2, vec![]));
    world.ready_up(&new);
    assert_eq!(world.in_state(WorkerState::Draining), [old]);
    world.calm();
    assert_eq!((world.only(1), world.ends()), (new, vec![ExitReason::Operator]));
    assert_eq!((world.pool().workers[1].restarts, world.failures().len()), (1, 0));
}

#[test]
fn a_successor_that_fails_is_tried_again_later_while_the_old_one_serves() {
    let mut world = World::serving(1);
    let old = world.only(0);
    let pool = world.state.pools.get_mut("app").expect("pool app");
    pool.workers[0].successor_wanted = Some(ExitReason::RecycleRequests);
    world.feed(Input::Tick);
    for _ in 0..3 {
        let new = world.booting().remove(0);
        world.exit(&new, ExitStatus::Code(1));
        assert_eq!((world.ready(), world.booting().len()), (1, 0));
        world.pass(seconds(1));
    }
    assert_eq!(world.in_state(WorkerState::Ready), std::slice::from_ref(&old));
    world.boot_all();
    assert_eq!(world.in_state(WorkerState::Draining), [old]);
}

#[test]
fn one_is_replaced_at_a_time_and_no_more_run_than_one_above_the_count() {
    let mut world = World::serving(3);
    (0..3).for_each(|slot| restart(&mut world, slot));
    for slot in 0..3 {
        let booting = world.booting();
        assert_eq!(booting.iter().map(|id| id.slot).collect::<Vec<_>>(), [slot]);
        world.ready_up(&booting[0]);
        assert!(world.booting().is_empty(), "the one before still has a process");
        let leaving = world.in_state(WorkerState::Draining).remove(0);
        world.command(Command::Drained { worker: leaving });
        world.end_leaving();
    }
    assert_eq!((world.ready(), world.processes.len()), (3, 3));
}

#[test]
fn one_that_crashes_while_it_waits_is_followed_by_its_successor_only() {
    let mut world = World::serving(1);
    let old = world.only(0);
    restart(&mut world, 0);
    let new = world.booting().remove(0);
    world.exit(&old, ExitStatus::Signal(9));
    assert_eq!(world.booting(), [new]);
    world.calm();
    assert_eq!(world.processes.len(), 1);
}

#[test]
fn a_new_generation_replaces_those_that_wait_too() {
    let mut world = World::serving(2);
    restart(&mut world, 0);
    world.set(&[("app", release(2, "v2"))]);
    world.calm();
    assert_eq!((world.generations(), world.processes.len()), (vec![2, 2], 2));
}

#[test]
fn a_successor_in_one_slot_does_not_make_up_for_an_empty_one() {
    let mut world = World::serving(2);
    restart(&mut world, 0);
    world.boot_all();
    world.crash(1);
    assert_eq!(world.ready(), 1);
    assert_eq!(world.pool().state, crate::status::PoolState::Degraded);
}
