//! Workers that serve well and are replaced all the same.

use std::collections::BTreeMap;

use tidegate_config::model::{Recycle, WorkerSpec};

use super::world::{World, seconds, spec};
use crate::event::Event;
use crate::progress::Progress;
use crate::state::Input;
use crate::worker::{ExitReason, ExitStatus, WorkerId, WorkerState};

const MIB: u64 = 1024 * 1024;

fn limited(count: u32, recycle: Recycle) -> WorkerSpec {
    WorkerSpec { recycle, ..spec(count) }
}

fn exactly() -> Recycle {
    Recycle { jitter: 0, ..Recycle::default() }
}

fn requests(max: u64) -> Recycle {
    Recycle { max_requests: Some(max), ..exactly() }
}

fn serving(count: u32, recycle: Recycle) -> World {
    let mut world = World::new();
    world.set(&[("app", limited(count, recycle))]);
    world.boot_all();
    world.events.clear();
    world
}

fn served(world: &mut World, slot: u32, requests: u64) {
    let spawn = ready(world, slot).spawn;
    world.feed(Input::Progress([(spawn, Progress { requests, ..Progress::default() })].into()));
}

/// One sample: every worker holds that much, but the one in `slot`.
fn weigh(world: &mut World, others: u64, slot: u32, rss: u64) {
    weigh_with_room(world, None, others, slot, rss);
}

fn weigh_with_room(world: &mut World, room: Option<u64>, others: u64, slot: u32, rss: u64) {
    let ready = world.in_state(WorkerState::Ready);
    let rss = ready.iter().map(|id| (id.spawn, MIB * if id.slot == slot { rss } else { others }));
    let rss: BTreeMap<u64, u64> = rss.collect();
    world.feed(Input::Memory { room: room.map(|room| MIB * room), rss });
}

fn ready(world: &World, slot: u32) -> WorkerId {
    world.in_state(WorkerState::Ready).into_iter().find(|id| id.slot == slot).expect("a ready worker")
}

fn drain_all(world: &mut World) {
    for worker in world.in_state(WorkerState::Draining) {
        world.command(crate::command::Command::Drained { worker });
    }
    world.end_leaving();
}

/// The recycle under way ends well.
fn complete(world: &mut World) {
    world.boot_all();
    drain_all(world);
    world.boot_all();
}

#[test]
fn a_worker_that_served_its_requests_goes_once_its_replacement_serves() {
    let mut world = serving(2, requests(100));
    let old = ready(&world, 0);
    served(&mut world, 0, 99);
    assert!(world.booting().is_empty());
    served(&mut world, 0, 100);
    assert_eq!((world.ready(), world.booting().len()), (2, 1));
    let new = world.booting().remove(0);
    assert_eq!(new.slot, 0);
    world.ready_up(&new);
    assert_eq!(world.in_state(WorkerState::Draining), [old]);
    drain_all(&mut world);
    assert_eq!(world.ends(), [ExitReason::RecycleRequests]);
    assert!(world.failures().is_empty());
    world.pass(seconds(600));
    assert!(world.booting().is_empty(), "the new one begins to count anew");
}

#[test]
fn limits_differ_by_jitter_and_never_lie_below_what_was_asked_for() {
    let recycle = Recycle { max_requests: Some(1_000), max_lifetime: Some(seconds(1_000)), ..Recycle::default() };
    let mut world = serving(50, recycle);
    for slot in 0..50 {
        served(&mut world, slot, 999);
    }
    assert!(world.booting().is_empty(), "nobody leaves before 1000");
    let (mut gone, mut at) = (0, world.now);
    while gone < 50 {
        world.pass(seconds(1));
        assert!(world.now < at + seconds(1_200 + 50 * 6), "only {gone} of 50 were recycled by their age");
        if !world.booting().is_empty() {
            gone += 1;
            if gone == 1 {
                // Ready at 100 s; the shortest life is 10 % below what was asked for.
                assert!(world.now >= seconds(100 + 900), "{:?}", world.now);
                at = world.now;
            }
            complete(&mut world);
        }
    }
    // Looked at once a second.
    assert!(world.now + seconds(1) >= at + seconds(5 * 49), "fifty at once are spread");
    let ends = world.ends();
    assert!(ends.iter().all(|end| *end == ExitReason::RecycleLifetime), "{ends:?}");
}

#[test]
fn one_is_recycled_at_a_time_and_five_seconds_lie_between_two() {
    let mut world = serving(3, requests(10));
    for slot in 0..3 {
        served(&mut world, slot, 10);
    }
    for slot in 0..3 {
        assert_eq!(world.booting().iter().map(|id| id.slot).collect::<Vec<_>>(), [slot]);
        world.pass(seconds(30));
        assert_eq!(world.booting().len(), 1, "the one before has not ended");
        world.boot_all();
        drain_all(&mut world);
        world.pass(seconds(1));
    }
    let mut world = serving(2, requests(10));
    served(&mut world, 0, 10);
    served(&mut world, 1, 10);
    complete(&mut world);
    world.pass(seconds(4));
    assert!(world.booting().is_empty());
    world.pass(seconds(1));
    assert_eq!(world.booting().len(), 1);
}

#[test]
fn soft_memory_needs_two_samples_in_a_row() {
    let mut world = serving(2, Recycle { max_rss: Some(100 * MIB), ..exactly() });
    for rss in [101, 99, 101, 100] {
        weigh(&mut world, 50, 0, rss);
        assert!(world.booting().is_empty(), "{rss} MiB");
    }
    weigh(&mut world, 50, 0, 101);
    weigh(&mut world, 50, 0, 102);
    assert_eq!(world.booting().len(), 1);
    complete(&mut world);
    assert_eq!(world.ends(), [ExitReason::RecycleRss]);
}

#[test]
fn over_the_hard_limit_it_is_killed_when_its_replacement_starts() {
    let mut world = serving(1, Recycle { hard_rss: Some(100 * MIB), ..exactly() });
    let old = ready(&world, 0);
    weigh(&mut world, 0, 0, 101);
    assert_eq!(world.booting().len(), 1);
    assert!(world.processes[&old.spawn].killed, "it does not wait for the new one to be ready");
    world.end_leaving();
    assert_eq!(world.ends(), [ExitReason::MemoryHard]);
    assert!(world.failures().is_empty());
    world.boot_all();
    assert_eq!(world.ready(), 1);
}

#[test]
fn a_peaceful_recycle_turns_hard_when_memory_grows_on() {
    let mut world = serving(2, Recycle { max_rss: Some(50 * MIB), hard_rss: Some(100 * MIB), ..exactly() });
    let old = ready(&world, 0);
    weigh(&mut world, 0, 0, 60);
    weigh(&mut world, 0, 0, 60);
    assert!(!world.processes[&old.spawn].killed);
    weigh(&mut world, 0, 0, 101);
    assert!(world.processes[&old.spawn].killed);
}

#[test]
fn over_the_hard_limit_the_last_one_that_serves_is_spared_while_another_starts() {
    let mut world = serving(2, Recycle { hard_rss: Some(100 * MIB), ..exactly() });
    let (first, second) = (ready(&world, 0), ready(&world, 1));
    world.exit(&first, ExitStatus::Signal(11));
    weigh(&mut world, 0, 1, 101);
    assert!(!world.processes[&second.spawn].killed);
    world.pass(seconds(1));
    world.boot_all();
    assert!(world.processes[&second.spawn].killed || world.booting().iter().any(|id| id.slot == 1));
}

#[test]
fn without_memory_for_both_the_old_one_leaves_first_if_another_serves() {
    let mut world = serving(2, requests(10));
    weigh_with_room(&mut world, Some(40), 50, 0, 50);
    served(&mut world, 0, 10);
    assert!(world.booting().is_empty());
    assert_eq!(world.in_state(WorkerState::Draining).len(), 1);
    drain_all(&mut world);
    assert_eq!(world.booting().len(), 1);
    world.boot_all();
    assert_eq!(world.ready(), 2);
}

#[test]
fn without_memory_for_both_the_only_one_stays_and_that_is_told_once() {
    let mut world = serving(1, requests(10));
    let old = ready(&world, 0);
    weigh_with_room(&mut world, Some(40), 0, 0, 50);
    served(&mut world, 0, 10);
    served(&mut world, 0, 11);
    world.pass(seconds(60));
    assert_eq!(world.in_state(WorkerState::Ready), [old]);
    let told = |event: &&Event| matches!(event, Event::RecyclePostponed { reason: ExitReason::RecycleRequests, .. });
    assert_eq!(world.events.iter().filter(told).count(), 1);
    weigh_with_room(&mut world, Some(51), 0, 0, 90);
    assert_eq!(world.booting().len(), 1, "what a new one needs counts, not what this one holds");
}

#[test]
fn a_limit_reached_again_within_a_minute_is_told_once_and_waits_for_that_minute() {
    let mut world = serving(1, requests(10));
    served(&mut world, 0, 10);
    complete(&mut world);
    world.pass(seconds(6));
    served(&mut world, 0, 10);
    served(&mut world, 0, 11);
    assert!(world.booting().is_empty());
    let told = |event: &&Event| matches!(event, Event::RecycleTooOften { .. });
    assert_eq!(world.events.iter().filter(told).count(), 1);
    world.pass(seconds(53));
    assert!(world.booting().is_empty());
    world.pass(seconds(1));
    assert_eq!(world.booting().len(), 1);
    complete(&mut world);
    world.pass(seconds(6));
    served(&mut world, 0, 10);
    assert_eq!(world.events.iter().filter(told).count(), 1);
}

#[test]
fn nobody_is_recycled_while_a_worker_is_missing_or_a_new_generation_comes() {
    let mut world = serving(2, requests(10));
    world.crash(1);
    served(&mut world, 0, 10);
    assert!(world.booting().iter().all(|id| id.slot == 1));
    world.calm();
    assert_eq!(world.ends(), [ExitReason::CrashSignal, ExitReason::RecycleRequests]);
    let mut world = serving(2, requests(10));
    let release = WorkerSpec { command: vec!["v2".to_owned()], ..limited(2, requests(10)) };
    world.set(&[("app", release)]);
    served(&mut world, 1, 10);
    world.calm();
    assert_eq!(world.ends(), [ExitReason::Reload, ExitReason::Reload]);
}

#[test]
fn changed_limits_hold_at_once_for_workers_that_serve() {
    let mut world = serving(1, exactly());
    served(&mut world, 0, 500);
    assert!(world.booting().is_empty());
    world.set(&[("app", limited(1, requests(500)))]);
    assert_eq!(world.booting().len(), 1);
    assert_eq!(world.pool().generations.len(), 1, "the same generation");
}
