//! What a pool's own policy says of workers that end unasked.

use tidegate_config::model::{Restart, WorkerSpec};

use super::world::{World, seconds, spec};
use crate::command::Command;
use crate::event::Event;
use crate::status::PoolState;
use crate::worker::{ExitStatus, WorkerState};

fn serving(count: u32, restart: Restart) -> World {
    let mut world = World::new();
    world.set(&[("app", with(count, restart))]);
    world.boot_all();
    world.events.clear();
    world
}

fn with(count: u32, restart: Restart) -> WorkerSpec {
    WorkerSpec { restart, ..spec(count) }
}

fn finals(codes: &[u8]) -> Restart {
    Restart { no_restart_codes: codes.to_vec(), ..Restart::default() }
}

fn ended(world: &World) -> Vec<u32> {
    world.pool().held.iter().filter(|held| held.is_ended).map(|held| held.slot).collect()
}

#[test]
fn a_worker_that_was_stable_by_the_pools_own_measure_is_back_at_once() {
    for (restart, booting) in [(Restart { stable_after: seconds(5), ..Restart::default() }, 1), (Restart::default(), 0)]
    {
        let mut world = serving(1, restart);
        world.pass(seconds(6));
        world.crash(0);
        assert_eq!(world.booting().len(), booting);
    }
}

#[test]
fn waits_end_at_the_pools_own_longest() {
    let mut world = serving(1, Restart { max_delay: seconds(1), failures: 100, ..Restart::default() });
    world.crash(0);
    for _ in 0..20 {
        world.pass(seconds(2));
        let id = world.booting().remove(0);
        world.exit(&id, ExitStatus::Code(1));
    }
}

#[test]
fn a_crash_loop_is_what_the_pool_says() {
    let restart = Restart { failures: 2, window: seconds(10), ..Restart::default() };
    let mut world = serving(1, restart);
    world.crash(0);
    world.pass(seconds(11));
    world.boot_all();
    world.crash(0);
    assert_eq!(world.pool().state, PoolState::Degraded, "the first failure is out of the window");
    world.pass(seconds(1));
    let id = world.booting().remove(0);
    world.exit(&id, ExitStatus::Code(1));
    assert_eq!(world.pool().state, PoolState::Crashloop);
}

#[test]
fn a_final_code_leaves_the_slot_empty_for_all_to_see_and_the_others_serve() {
    let mut world = serving(2, finals(&[3]));
    let id = world.only(1);
    world.exit(&id, ExitStatus::Code(3));
    world.pass(seconds(600));
    assert_eq!((world.ready(), world.booting().len(), ended(&world)), (1, 0, vec![1]));
    assert_eq!(world.pool().state, PoolState::Degraded);
    let held = &world.pool().held[0];
    assert_eq!(held.last_exit.as_ref().map(|exit| exit.status), Some(ExitStatus::Code(3)));
    assert_eq!(world.failures().len(), 1);
    assert!(world.events.contains(&Event::NotRestarted { worker: id }));
}

#[test]
fn other_codes_and_signals_are_not_final() {
    for status in
        [ExitStatus::Code(4), ExitStatus::Code(0), ExitStatus::Signal(3), ExitStatus::Code(259), ExitStatus::Unknown]
    {
        let mut world = serving(1, finals(&[3]));
        world.crash_with(status);
        world.pass(seconds(10));
        assert_eq!(world.booting().len(), 1, "{status}");
    }
}

#[test]
fn a_restart_or_a_new_version_fills_the_slot_again() {
    let end = |world: &mut World| {
        let id = world.only(1);
        world.exit(&id, ExitStatus::Code(3));
        assert_eq!(ended(world), [1]);
    };
    let mut world = serving(2, finals(&[3]));
    end(&mut world);
    world.command(Command::RestartWorker { pool: "app".to_owned(), slot: 1 });
    world.boot_all();
    assert_eq!((world.ready(), ended(&world)), (2, vec![]));
    end(&mut world);
    world.set(&[("app", WorkerSpec { command: vec!["v2".to_owned()], ..with(2, finals(&[3])) })]);
    world.calm();
    assert_eq!((world.generations(), ended(&world)), (vec![2, 2], vec![]));
}

#[test]
fn slots_that_have_all_ended_expect_nobody() {
    let mut world = serving(2, finals(&[0]));
    for slot in [0, 1] {
        let id = world.only(slot);
        world.exit(&id, ExitStatus::Code(0));
    }
    assert_eq!(world.pool().state, PoolState::Empty);
    world.calm();
    assert_eq!(world.in_state(WorkerState::Ready), []);
}

#[test]
fn a_replaced_worker_that_ends_with_a_final_code_leaves_its_slot_to_its_successor() {
    let mut world = serving(1, finals(&[3]));
    let old = world.only(0);
    world.command(Command::RestartWorker { pool: "app".to_owned(), slot: 0 });
    world.exit(&old, ExitStatus::Code(3));
    world.boot_all();
    assert_eq!((world.ready(), ended(&world)), (1, vec![]));
}

#[test]
fn a_first_worker_of_a_version_that_ends_with_a_final_code_fails_it() {
    let mut world = serving(2, finals(&[3]));
    world.set(&[("app", WorkerSpec { command: vec!["v2".to_owned()], ..with(2, finals(&[3])) })]);
    let canary = world.booting().remove(0);
    world.exit(&canary, ExitStatus::Code(3));
    assert_eq!((world.generations(), ended(&world)), (vec![1, 1], vec![]));
}
