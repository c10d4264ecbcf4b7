//! What runs once before the workers of a generation.

use tidegate_config::model::{PreStart, WorkerSpec};

use super::world::{World, release, seconds};
use crate::command::Command;
use crate::deploy::{Cause, Outcome};
use crate::event::Event;
use crate::hook::HookId;
use crate::status::{GenerationState, PoolState};
use crate::worker::ExitStatus;

/// Workers before which something runs, for a minute at the most.
fn migrated(count: u32, command: &str) -> WorkerSpec {
    let pre_start = PreStart { command: vec!["migrate".to_owned()], timeout: seconds(60) };
    WorkerSpec { pre_start: Some(pre_start), ..release(count, command) }
}

/// Two old workers serve, and what runs before the new ones has been started.
fn migrating() -> (World, HookId) {
    let mut world = World::serving(2);
    world.set(&[("app", migrated(2, "v2"))]);
    let hook = world.only_hook();
    (world, hook)
}

impl World {
    fn only_hook(&self) -> HookId {
        assert_eq!(self.hooks.len(), 1);
        self.hooks.keys().next().expect("one").clone()
    }

    fn outcome(&self) -> Option<Outcome> {
        self.pool().deploys.last().and_then(|deploy| deploy.outcome)
    }
}

#[test]
fn no_worker_of_a_generation_is_started_before_its_hook_has_succeeded() {
    let (mut world, hook) = migrating();
    assert_eq!((hook.generation, world.booting(), world.ready()), (2, vec![], 2));
    assert_eq!(world.pool().generations[1].state, GenerationState::Preparing);
    world.pass(seconds(59));
    assert_eq!(world.booting(), []);
    world.end_hook(&hook, ExitStatus::Code(0));
    assert_eq!(world.booting().len(), 1);
    world.calm();
    assert_eq!((world.generations(), world.outcome()), (vec![2, 2], Some(Outcome::Done)));
    let runs = world.events.iter().filter(|event| matches!(event, Event::HookStarted { .. })).count();
    assert_eq!(runs, 1, "once for all workers");
}

#[test]
fn a_hook_that_fails_gives_its_generation_up_with_its_last_lines() {
    for status in [ExitStatus::Code(1), ExitStatus::Signal(9), ExitStatus::Unknown] {
        let (mut world, hook) = migrating();
        world.end_hook(&hook, status);
        assert_eq!((world.outcome(), world.processes.len()), (Some(Outcome::Reverted), 2), "{status}");
        let deploy = world.pool().deploys.pop().expect("a deploy");
        let Some(Cause::PreStart(failure)) = deploy.failure else { panic!("{deploy:?}") };
        assert_eq!((failure.status, failure.last_lines), (status, vec!["last words".to_owned()]));
        assert!(world.failures().is_empty(), "no worker failed");
    }
}

#[test]
fn a_hook_that_takes_too_long_is_stopped_then_killed_and_has_failed_however_it_ends() {
    let (mut world, hook) = migrating();
    world.pass(seconds(59));
    assert!(!world.hooks[&hook]);
    world.pass(seconds(1));
    assert!(world.hooks[&hook]);
    world.end_hook(&hook, ExitStatus::Code(0));
    assert_eq!(world.outcome(), Some(Outcome::Reverted));
    let failure = world.pool().deploys.pop().and_then(|deploy| deploy.failure);
    assert_eq!(failure.map(|cause| cause.to_string()).as_deref(), Some("pre_start: exit code 0, not over within 60s"));
}

#[test]
fn at_a_first_start_it_is_tried_again_with_backoff() {
    let mut world = World::new();
    world.set(&[("app", migrated(1, "v1"))]);
    for _ in 0..3 {
        let hook = world.only_hook();
        world.end_hook(&hook, ExitStatus::Code(1));
        assert!(world.hooks.is_empty());
        world.pass(seconds(1));
    }
    assert_eq!((world.pool().state, world.booting(), world.outcome()), (PoolState::Starting, vec![], None));
    world.calm();
    assert_eq!((world.generations(), world.outcome()), (vec![1], Some(Outcome::Done)));
}

#[test]
fn a_newer_generation_waits_for_the_hook_of_the_last_one_and_does_not_stop_it() {
    let (mut world, first) = migrating();
    world.set(&[("app", migrated(2, "v3"))]);
    assert_eq!(world.only_hook(), first);
    assert!(!world.hooks[&first]);
    world.end_hook(&first, ExitStatus::Code(1));
    let second = world.only_hook();
    assert_eq!((second.generation, world.outcome()), (3, None), "the failure of the first is nothing to the second");
    world.end_hook(&second, ExitStatus::Code(0));
    world.calm();
    assert_eq!(world.generations(), [3, 3]);
}

#[test]
fn going_back_to_what_serves_waits_for_no_hook() {
    let (mut world, hook) = migrating();
    world.set(&[("app", super::world::spec(2))]);
    assert_eq!(world.outcome(), Some(Outcome::Superseded));
    world.end_hook(&hook, ExitStatus::Code(0));
    world.calm();
    assert_eq!((world.generations(), world.booting()), (vec![1, 1], vec![]));
}

#[test]
fn the_end_of_a_pool_or_of_everything_stops_a_hook_and_waits_for_it() {
    for end in [Command::SetPools(vec![]), Command::Shutdown { deadline: seconds(60) }] {
        let (mut world, hook) = migrating();
        world.command(end.clone());
        assert!(world.hooks[&hook], "{end:?}");
        world.let_workers_go();
        assert!(!world.status().is_empty(), "the hook still runs");
        world.end_hook(&hook, ExitStatus::Signal(15));
        world.calm();
        assert!(world.status().is_empty());
    }
}

impl World {
    fn let_workers_go(&mut self) {
        for worker in self.in_state(crate::worker::WorkerState::Draining) {
            self.command(Command::Drained { worker });
        }
        self.end_leaving();
    }
}

#[test]
fn workers_that_come_back_meanwhile_are_of_the_old_generation() {
    let (mut world, hook) = migrating();
    world.crash(1);
    world.pass(seconds(1));
    world.boot_all();
    assert_eq!(world.generations(), [1, 1]);
    world.end_hook(&hook, ExitStatus::Code(0));
    world.calm();
    assert_eq!(world.generations(), [2, 2]);
}

#[test]
fn a_changed_hook_alone_replaces_nobody() {
    let mut world = World::serving(1);
    world.set(&[("app", WorkerSpec { pre_start: migrated(1, "v").pre_start, ..super::world::spec(1) })]);
    assert_eq!(world.events, []);
    world.command(Command::Deploy { pool: "app".to_owned(), id: 1 });
    assert_eq!(world.only_hook().generation, 2);
}
