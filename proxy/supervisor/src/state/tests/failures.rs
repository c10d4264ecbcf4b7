//! Unplanned ends: what is reported, when it is tried again, and when a pool counts as crash looping.

use std::time::Duration;

use super::world::{World, seconds, spec};
use crate::event::Event;
use crate::status::PoolState;
use crate::worker::{ExitReason, ExitStatus, WorkerState};

#[test]
fn a_crash_is_told_to_the_data_plane_first_and_reported_with_its_last_lines() {
    let mut world = World::serving(1);
    let id = world.only(0);
    world.pass(seconds(3));
    world.exit(&id, ExitStatus::Signal(11));
    assert_eq!(world.events[0], Event::Gone { worker: id.clone() });
    let failure = world.failures()[0];
    assert_eq!((failure.reason, failure.status), (ExitReason::CrashSignal, ExitStatus::Signal(11)));
    assert_eq!(failure.last_lines, ["last words"]);
    assert_eq!((failure.pid, failure.uptime), (Some(1001), seconds(3)));
    assert_eq!(world.pool().state, PoolState::Degraded);
    let worker = &world.pool().workers[0];
    assert_eq!((worker.state, worker.restarts), (WorkerState::Backoff, 1));
    assert_eq!(worker.last_exit.as_ref().map(|exit| exit.reason), Some(ExitReason::CrashSignal));
}

#[test]
fn a_kill_for_want_of_memory_is_told_from_any_other_booting_or_serving() {
    for (status, oom, expected) in [
        (ExitStatus::Signal(9), true, ExitReason::Oom),
        (ExitStatus::Signal(9), false, ExitReason::CrashSignal),
        (ExitStatus::Signal(11), true, ExitReason::CrashSignal),
        (ExitStatus::Code(137), true, ExitReason::CrashCode),
    ] {
        let mut world = World::serving(1);
        world.oom = oom;
        world.crash_with(status);
        assert_eq!(world.failures()[0].reason, expected, "{status}");
    }
    let mut world = World::new();
    world.set(&[("app", spec(1))]);
    world.oom = true;
    world.crash_with(ExitStatus::Signal(9));
    assert_eq!(world.ends(), [ExitReason::Oom]);
}

#[test]
fn exits_are_classified() {
    for (status, before_ready, after_ready) in [
        (ExitStatus::Code(0), ExitReason::BootExit, ExitReason::CleanExit),
        (ExitStatus::Code(3), ExitReason::BootExit, ExitReason::CrashCode),
        (ExitStatus::Signal(9), ExitReason::BootExit, ExitReason::CrashSignal),
        (ExitStatus::Unknown, ExitReason::Lost, ExitReason::Lost),
    ] {
        let mut booting = World::new();
        booting.set(&[("app", spec(1))]);
        let mut serving = World::serving(1);
        for (world, expected) in [(&mut booting, before_ready), (&mut serving, after_ready)] {
            let id = world.only(0);
            world.exit(&id, status);
            assert_eq!(world.ends(), [expected], "{status}");
        }
    }
}

#[test]
fn a_worker_that_was_stable_is_started_again_at_once_another_after_a_wait() {
    let mut world = World::serving(2);
    world.crash(0);
    assert_eq!(world.booting().len(), 0);
    world.pass(Duration::from_millis(79));
    assert_eq!(world.booting().len(), 0);
    world.pass(Duration::from_millis(41));
    assert_eq!(world.booting().len(), 1);
    world.boot_all();
    world.pass(seconds(30));
    world.crash(0);
    assert_eq!(world.booting().len(), 1);
}

#[test]
fn it_is_told_when_the_next_worker_starts_and_how_long_that_takes() {
    let mut world = World::new();
    let next =
        |world: &World| world.pool().next_start.map(|at| at.duration_since(std::time::UNIX_EPOCH).expect("later"));
    world.set(&[("app", spec(2))]);
    assert_eq!((next(&world), world.pool().boot), (Some(world.now), None), "as it boots");
    let started = world.now;
    world.pass(seconds(3));
    assert_eq!(next(&world), Some(started));
    world.boot_all();
    assert_eq!((next(&world), world.pool().boot), (None, Some(seconds(3))));
    world.crash(0);
    let waits = next(&world).expect("a time") - world.now;
    assert!(waits >= Duration::from_millis(80) && waits <= Duration::from_millis(120), "{waits:?}");
    world.crash(1);
    assert!(next(&world).expect("the sooner one") <= world.now + waits);
}

#[test]
fn a_clean_exit_is_started_again_at_once_but_counts() {
    let mut world = World::serving(1);
    for round in 1..=5 {
        let id = world.only(0);
        world.exit(&id, ExitStatus::Code(0));
        assert_eq!(world.booting().len(), usize::from(round < 5), "round {round}");
        world.boot_all();
    }
    assert_eq!(world.pool().state, PoolState::Crashloop);
}

#[test]
fn a_start_that_fails_is_a_failed_boot_with_its_reason() {
    let mut world = World::new();
    world.failing_starts = 1;
    world.set(&[("app", spec(1))]);
    let failure = world.failures()[0];
    assert_eq!((failure.reason, failure.status, failure.pid), (ExitReason::BootExit, ExitStatus::NotStarted, None));
    assert_eq!(failure.message.as_deref(), Some("no"));
    world.calm();
    assert_eq!(world.ready(), 1);
}

/// Two of three slots fail to boot until the pool is in a crash loop.
fn crashlooping() -> World {
    let mut world = World::serving(3);
    world.crash(1);
    world.crash(2);
    for _ in 0..10_000 {
        if world.pool().state == PoolState::Crashloop {
            return world;
        }
        while let Some(id) = world.booting().into_iter().next() {
            world.exit(&id, ExitStatus::Code(1));
        }
        world.pass(Duration::from_millis(50));
    }
    panic!("no crash loop");
}

#[test]
fn a_crash_loop_starts_one_at_a_time_and_lets_the_others_serve() {
    let mut world = crashlooping();
    let failures = world.failures().len();
    assert_eq!(failures, 6, "twice the target");
    world.pass(seconds(60));
    assert_eq!(world.booting().len(), 1);
    assert_eq!(world.ready(), 1);
    assert_eq!(world.generations(), [1]);
}

#[test]
fn a_crash_loop_ends_when_a_new_worker_is_stable() {
    let mut world = crashlooping();
    world.pass(seconds(59));
    let canary = world.booting()[0].clone();
    world.ready_up(&canary);
    world.pass(seconds(29));
    assert_eq!(world.pool().state, PoolState::Crashloop);
    world.pass(seconds(1));
    assert_eq!(world.pool().state, PoolState::Degraded);
    world.boot_all();
    assert_eq!(world.pool().state, PoolState::Healthy);
}

#[test]
fn waits_in_a_crash_loop_grow_to_a_minute() {
    let mut world = crashlooping();
    for _ in 0..12 {
        while world.booting().is_empty() {
            world.pass(Duration::from_millis(100));
        }
        let id = world.booting()[0].clone();
        world.exit(&id, ExitStatus::Code(1));
    }
    let began = world.now;
    while world.booting().is_empty() {
        world.pass(Duration::from_millis(100));
    }
    assert!(world.now - began < seconds(73), "{:?}", world.now - began);
    assert_eq!(world.ready(), 1);
}

#[test]
fn a_crash_while_draining_keeps_its_purpose_and_is_no_failure() {
    let mut world = World::serving(2);
    world.set(&[("app", spec(1))]);
    let id = world.in_state(WorkerState::Draining)[0].clone();
    world.exit(&id, ExitStatus::Signal(11));
    assert_eq!(world.ends(), [ExitReason::ScaleDown]);
    assert!(world.events.contains(&Event::Gone { worker: id }));
    assert!(world.failures().is_empty());
}
