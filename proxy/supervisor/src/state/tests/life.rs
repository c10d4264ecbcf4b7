//! Starts, drains, stops, counts and the end of everything.

use std::time::Duration;

use tidegate_config::model::{WorkerCount, WorkerSpec};

use super::world::{PARALLEL_STARTS, World, seconds, spec};
use crate::command::Command;
use crate::event::Event;
use crate::state::Input;
use crate::status::PoolState;
use crate::worker::{ExitReason, ExitStatus, WorkerState};

#[test]
fn no_more_workers_boot_at_once_than_allowed() {
    let mut world = World::new();
    world.set(&[("app", spec(5))]);
    assert_eq!(world.booting().len(), PARALLEL_STARTS);
    let first = world.booting()[0].clone();
    world.ready_up(&first);
    assert_eq!(world.booting().len(), PARALLEL_STARTS);
    assert_eq!(world.pool().state, PoolState::Starting);
    world.boot_all();
    assert_eq!((world.pool().state, world.ready()), (PoolState::Healthy, 5));
}

#[test]
fn a_pool_with_slow_boots_does_not_keep_others_waiting() {
    let mut world = World::new();
    world.set(&[("aaa", spec(9)), ("app", spec(2))]);
    let pools: Vec<String> = world.booting().iter().map(|id| id.pool.to_string()).collect();
    assert_eq!(pools, ["aaa", "app"]);
}

#[test]
fn auto_means_what_the_machine_allows() {
    let mut world = World::new();
    world.set(&[("app", WorkerSpec { count: WorkerCount::Auto, ..spec(1) })]);
    assert_eq!(world.pool().target, 2);
}

#[test]
fn a_boot_that_takes_too_long_is_killed() {
    let mut world = World::new();
    world.set(&[("app", spec(1))]);
    let id = world.only(0);
    world.pass(seconds(59));
    assert!(!world.processes[&id.spawn].killed);
    world.pass(seconds(1));
    assert!(world.processes[&id.spawn].killed);
    world.ready_up(&id);
    assert_eq!(world.ready(), 0, "too late");
    world.exit(&id, ExitStatus::Signal(9));
    assert_eq!(world.failures()[0].reason, ExitReason::BootTimeout);
    assert_eq!(world.failures()[0].uptime, seconds(60));
}

#[test]
fn a_drain_ends_with_the_last_request_or_its_timeout_then_stop_then_kill() {
    for says_so in [true, false] {
        let mut world = World::serving(1);
        let id = world.only(0);
        world.command(Command::SetCount { pool: "app".to_owned(), count: 0 });
        assert!(world.events.contains(&Event::Drain { worker: id.clone() }));
        assert!(!world.processes[&id.spawn].stopped);
        if says_so {
            world.command(Command::Drained { worker: id.clone() });
        } else {
            world.pass(seconds(29));
            assert!(!world.processes[&id.spawn].stopped);
            world.pass(seconds(1));
        }
        assert!(world.processes[&id.spawn].stopped);
        world.pass(seconds(9));
        assert!(!world.processes[&id.spawn].killed);
        world.pass(seconds(1));
        assert!(world.processes[&id.spawn].killed);
        assert_eq!(world.in_state(WorkerState::Stopping), [id]);
    }
}

/// With a drain timeout of 30 s: requests that end after so many seconds, and when the worker is told to stop, if that is before
/// its streams have ended.
#[test]
fn streams_hold_a_drain_for_their_grace_and_requests_for_their_timeout() {
    for (grace, over_after, stops_after) in [(5, 0, 5), (5, 3, 5), (5, 12, 12), (0, 0, 0), (0, 7, 7), (90, 1, 30)] {
        let mut world = World::serving(1);
        let id = world.only(0);
        world.set(&[("app", WorkerSpec { stream_grace: seconds(grace), ..spec(1) })]);
        world.command(Command::SetCount { pool: "app".to_owned(), count: 0 });
        world.pass(seconds(over_after));
        assert!(!world.processes[&id.spawn].stopped, "requests are under way");
        world.command(Command::RequestsOver { worker: id.clone() });
        assert_eq!(world.processes[&id.spawn].stopped, stops_after <= over_after, "grace {grace}");
        for second in over_after + 1..=stops_after {
            world.pass(seconds(1));
            assert_eq!(world.processes[&id.spawn].stopped, second == stops_after, "grace {grace}, at {second} s");
        }
        assert_eq!(world.in_state(WorkerState::Stopping), [id]);
    }
}

#[test]
fn a_drain_ends_at_once_when_its_last_stream_does() {
    let mut world = World::serving(2);
    world.command(Command::RequestsOver { worker: world.only(1) });
    world.command(Command::SetCount { pool: "app".to_owned(), count: 0 });
    world.pass(seconds(5));
    assert!(
        world.processes.values().all(|process| !process.stopped),
        "it was not told of this drain: {:?}",
        world.processes
    );
    let id = world.in_state(WorkerState::Draining)[0].clone();
    world.command(Command::RequestsOver { worker: id.clone() });
    assert!(world.processes[&id.spawn].stopped, "its grace is over");
    let other = world.in_state(WorkerState::Draining)[0].clone();
    world.command(Command::Drained { worker: other.clone() });
    assert!(world.processes[&other.spawn].stopped);
}

#[test]
fn an_operators_restart_ends_a_wait() {
    let mut world = World::serving(1);
    world.crash(0);
    assert_eq!(world.in_state(WorkerState::Backoff).len(), 1);
    world.command(Command::RestartWorker { pool: "app".to_owned(), slot: 0 });
    assert_eq!(world.in_state(WorkerState::Starting).len(), 1);
}

#[test]
fn the_same_spec_again_changes_nothing() {
    let mut world = World::serving(3);
    world.set(&[("app", spec(3))]);
    assert_eq!(world.events, []);
}

#[test]
fn a_smaller_count_drains_the_highest_slots_a_larger_one_fills_up() {
    let mut world = World::serving(3);
    world.set(&[("app", spec(1))]);
    let leaving: Vec<u32> = world.in_state(WorkerState::Draining).iter().map(|id| id.slot).collect();
    assert_eq!(leaving, [1, 2]);
    world.calm();
    assert_eq!(world.ends(), [ExitReason::ScaleDown; 2]);
    world.set(&[("app", spec(4))]);
    world.boot_all();
    assert_eq!(world.generations(), [1; 4], "a count is no new generation");
}

#[test]
fn a_manual_count_holds_until_the_spec_asks_for_another() {
    let mut world = World::serving(2);
    world.command(Command::SetCount { pool: "app".to_owned(), count: 4 });
    world.boot_all();
    world.set(&[("app", spec(2))]);
    assert_eq!(world.ready(), 4, "unchanged spec");
    world.set(&[("app", spec(3))]);
    assert_eq!(world.pool().target, 3);
    world.command(Command::SetCount { pool: "app".to_owned(), count: 0 });
    world.calm();
    assert_eq!(world.pool().state, PoolState::Empty);
}

#[test]
fn changed_timeouts_apply_to_what_runs() {
    let mut world = World::serving(1);
    let id = world.only(0);
    world.command(Command::SetCount { pool: "app".to_owned(), count: 0 });
    world.set(&[("app", WorkerSpec { drain_timeout: seconds(3), ..spec(1) })]);
    world.pass(seconds(3));
    assert!(world.processes[&id.spawn].stopped);
}

#[test]
fn a_removed_pool_drains_and_is_gone() {
    let mut world = World::serving(2);
    world.set(&[]);
    assert_eq!(world.in_state(WorkerState::Draining).len(), 2);
    world.calm();
    assert!(world.status().is_empty() && world.processes.is_empty());
    let last = world.events.last().expect("events");
    assert!(matches!(last, Event::PoolState { to: PoolState::Stopped, .. }), "{last:?}");
}

#[test]
fn a_pool_that_comes_back_while_it_drains_is_filled_again() {
    let mut world = World::serving(1);
    world.set(&[]);
    world.set(&[("app", spec(1))]);
    world.calm();
    assert_eq!(world.generations(), [1]);
}

#[test]
fn a_shutdown_stops_everything_in_parallel_within_its_bound() {
    let mut world = World::serving(3);
    world.command(Command::Shutdown { deadline: seconds(20) });
    assert_eq!(world.in_state(WorkerState::Draining).len(), 3);
    // Half of the bound would be left for stopping, and the stop timeout is as long.
    world.pass(seconds(10));
    assert_eq!(world.in_state(WorkerState::Stopping).len(), 3);
    world.pass(seconds(10));
    assert!(world.processes.values().all(|process| process.killed));
    world.end_leaving();
    assert!(world.must_sweep && !world.events.contains(&Event::Stopped));
    world.feed(Input::Swept);
    assert_eq!(world.events.last(), Some(&Event::Stopped));
    assert_eq!(world.ends(), [ExitReason::Shutdown; 3]);
}

#[test]
fn a_second_shutdown_shortens_the_first_and_never_lengthens_it() {
    let mut world = World::serving(1);
    world.command(Command::Shutdown { deadline: seconds(60) });
    world.command(Command::Shutdown { deadline: seconds(2) });
    world.command(Command::Shutdown { deadline: seconds(500) });
    world.pass(seconds(2));
    assert!(world.processes.values().all(|process| process.killed));
}

#[test]
fn shutdown_now_kills_at_once() {
    let mut world = World::serving(2);
    world.command(Command::ShutdownNow);
    assert!(world.processes.values().all(|process| process.killed));
}

#[test]
fn a_process_that_cannot_be_killed_does_not_hold_up_a_shutdown() {
    let mut world = World::serving(1);
    world.command(Command::Shutdown { deadline: seconds(5) });
    world.pass(seconds(5) + Duration::from_millis(999));
    assert!(!world.must_sweep);
    world.pass(Duration::from_millis(1));
    assert!(world.must_sweep);
}

#[test]
fn orders_after_a_shutdown_are_void() {
    let mut world = World::serving(1);
    world.command(Command::Shutdown { deadline: seconds(5) });
    world.set(&[("app", spec(4)), ("other", spec(1))]);
    world.calm();
    assert!(world.processes.is_empty() && world.status().is_empty());
}

#[test]
fn a_booting_worker_is_stopped_without_a_drain() {
    let mut world = World::new();
    world.set(&[("app", spec(1))]);
    world.command(Command::Shutdown { deadline: seconds(5) });
    assert!(world.processes.values().all(|process| process.stopped));
    assert!(!world.events.iter().any(|event| matches!(event, Event::Drain { .. } | Event::Gone { .. })));
}
