//! What workers say of themselves, and what is found out about ready ones.

use std::time::Duration;

use super::world::{World, release, seconds, spec};
use crate::event::Event;
use crate::state::Notice;
use crate::status::PoolState;
use crate::worker::{ExitReason, WorkerState};

fn out() -> Notice {
    Notice::Rotation(Some("status 503".to_owned()))
}

fn rotations(world: &World) -> Vec<Option<&str>> {
    let mut rotations = Vec::new();
    for event in &world.events {
        if let Event::Rotation { out, .. } = event {
            rotations.push(out.as_deref());
        }
    }
    rotations
}

#[test]
fn a_worker_out_of_rotation_is_told_once_and_keeps_its_process() {
    let mut world = World::serving(2);
    let id = world.only(0);
    for notice in [out(), out(), Notice::Rotation(None), Notice::Rotation(None), out()] {
        world.notice(&id, notice);
    }
    assert_eq!(rotations(&world), [Some("status 503"), None, Some("status 503")]);
    let pool = world.pool();
    assert_eq!((pool.ready, pool.state, pool.workers[0].state), (1, PoolState::Degraded, WorkerState::Ready));
    world.pass(seconds(3_600));
    assert_eq!(world.only(0), id, "it is never ended for that");
}

#[test]
fn only_ready_workers_can_be_out() {
    let mut world = World::new();
    world.set(&[("app", spec(1))]);
    let id = world.booting().remove(0);
    world.notice(&id, out());
    world.ready_up(&id);
    assert_eq!((rotations(&world), world.ready()), (vec![], 1));
}

#[test]
fn a_new_generation_that_is_out_takes_nothing_over() {
    let mut world = World::serving(1);
    let old = world.only(0);
    let mut wanted = release(1, "v2");
    wanted.deploy.min_ready = seconds(2);
    world.set(&[("app", wanted)]);
    let new = world.booting().remove(0);
    world.ready_up(&new);
    world.notice(&new, out());
    world.pass(seconds(60));
    assert_eq!(
        world.pool().workers.iter().find(|worker| worker.id == old).map(|worker| worker.state),
        Some(WorkerState::Ready)
    );
    world.notice(&new, Notice::Rotation(None));
    assert_eq!(
        world.pool().workers.iter().find(|worker| worker.id == old).map(|worker| worker.state),
        Some(WorkerState::Draining)
    );
}

#[test]
fn a_boot_may_ask_for_more_time() {
    for (more, ends_at) in [(None, 60), (Some(seconds(5)), 60), (Some(seconds(30)), 80), (Some(seconds(100)), 150)] {
        let mut world = World::new();
        world.set(&[("app", spec(1))]);
        let id = world.booting().remove(0);
        world.pass(seconds(50));
        if let Some(time) = more {
            world.notice(&id, Notice::ExtendBoot(time));
        }
        // Also when something else is said meanwhile.
        world.notice(&id, Notice::Status("loading".to_owned()));
        let left = seconds(ends_at - 50);
        world.pass(left.saturating_sub(Duration::from_millis(1)));
        assert_eq!(world.in_state(WorkerState::Starting), std::slice::from_ref(&id), "{more:?}");
        world.pass(Duration::from_millis(1));
        assert!(world.processes[&id.spawn].killed, "{more:?}");
        world.end_leaving();
        assert_eq!(world.failures()[0].reason, ExitReason::BootTimeout);
    }
}

#[test]
fn what_a_worker_says_is_shown_until_it_ends() {
    let mut world = World::serving(1);
    let id = world.only(0);
    world.notice(&id, Notice::Status("3 jobs".to_owned()));
    world.pass(seconds(1));
    world.notice(&id, Notice::Alive);
    let worker = world.pool().workers.remove(0);
    let alive = std::time::SystemTime::UNIX_EPOCH + world.now;
    assert_eq!((worker.says.as_deref(), worker.alive), (Some("3 jobs"), Some(alive)));
    world.crash(0);
    assert_eq!(world.pool().workers[0].says, None);
}

#[test]
fn a_worker_gets_requests_only_once_it_is_warm() {
    let mut world = World::new();
    world.set(&[("app", spec(1))]);
    let id = world.only(0);
    world.pass(seconds(50));
    world.notice(&id, Notice::Warming);
    assert_eq!((world.in_state(WorkerState::Warming), world.ready()), (vec![id.clone()], 0));
    world.pass(seconds(4));
    assert!(!world.processes[&id.spawn].killed, "its boot is over");
    world.ready_up(&id);
    assert_eq!(world.ready(), 1);
    world.notice(&id, Notice::NotWarm("late".to_owned()));
    assert_eq!(world.ready(), 1, "it serves by now");
}

#[test]
fn a_worker_that_does_not_warm_up_has_failed_to_start() {
    let mut world = World::serving(1);
    world.set(&[("app", release(1, "cold"))]);
    let id = world.booting()[0].clone();
    world.notice(&id, Notice::NotWarm("too early".to_owned()));
    assert!(!world.processes[&id.spawn].killed);
    world.notice(&id, Notice::Warming);
    world.notice(&id, Notice::NotWarm("warm-up of /: status 500".to_owned()));
    assert!(world.processes[&id.spawn].killed);
    world.end_leaving();
    let failure = world.failures()[0].clone();
    assert_eq!((failure.reason, failure.message.as_deref()), (ExitReason::BootExit, Some("warm-up of /: status 500")));
    world.calm();
    assert_eq!(world.generations(), [1], "the old one serves on");
}
