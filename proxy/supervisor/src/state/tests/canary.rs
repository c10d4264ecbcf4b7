//! The first worker of a new generation is held and compared with those of before.

use tidegate_config::model::{CanaryHold, DeployPolicy, DeployStrategy, MaxDelta, OnFailure, Portion, WorkerSpec};

use super::world::{World, release, seconds};
use crate::canary::{CanaryFigures, CanaryVerdict, Comparison};
use crate::command::Command;
use crate::deploy::{Cause, DeployPhase, Outcome};
use crate::event::Event;
use crate::plan::{DeployPlan, Way};
use crate::state::Input;
use crate::worker::{ExitStatus, WorkerState};

/// Two seconds to prove itself, and ten to be compared.
fn held(count: u32, command: &str, policy: DeployPolicy) -> WorkerSpec {
    let canary = Some(CanaryHold { time: seconds(10), max_delta: MaxDelta::default() });
    let deploy = DeployPolicy { min_ready: seconds(2), canary, ..policy };
    WorkerSpec { deploy, ..release(count, command) }
}

fn rolling() -> DeployPolicy {
    DeployPolicy { strategy: DeployStrategy::Rolling, surge: Portion::Count(1), ..DeployPolicy::default() }
}

/// That many of "v1" serve, and the first one of "v2" has proven itself.
fn holding(count: u32, policy: DeployPolicy) -> World {
    let mut world = World::new();
    world.set(&[("app", held(count, "v1", policy))]);
    world.boot_all();
    world.events.clear();
    world.set(&[("app", held(count, "v2", policy))]);
    world.boot_all();
    world.pass(seconds(2));
    world
}

fn good() -> CanaryFigures {
    CanaryFigures { requests: 1_000, failed: 0, p95: Some(seconds(1)) }
}

fn failing() -> CanaryFigures {
    CanaryFigures { failed: 300, ..good() }
}

impl World {
    fn figures(&mut self, old: CanaryFigures, new: CanaryFigures) {
        let generation = self.pool().deploys.last().expect("a deploy").generation;
        self.command(Command::CanaryFigures { pool: "app".to_owned(), generation, old, new });
    }

    fn verdicts(&self) -> Vec<CanaryVerdict> {
        let verdict = |event: &Event| match event {
            Event::CanaryJudged { comparison, .. } => Some(comparison.verdict),
            _ => None,
        };
        self.events.iter().filter_map(verdict).collect()
    }

    fn has_told(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(wanted)
    }

    fn phase(&self) -> DeployPhase {
        self.pool().deploys.last().expect("a deploy").phase
    }

    fn end_of_last(&self) -> Option<Outcome> {
        self.pool().deploys.last().expect("a deploy").outcome
    }
}

#[test]
fn nobody_leaves_and_nobody_comes_while_the_first_one_is_held() {
    for policy in [rolling(), DeployPolicy { strategy: DeployStrategy::Green, ..rolling() }] {
        for count in [1, 3] {
            let mut world = holding(count, policy);
            assert!(world.has_told(|event| matches!(event, Event::CanaryHeld { time, .. } if *time == seconds(10))));
            assert_eq!(world.phase(), DeployPhase::Holding);
            world.pass(seconds(10) - std::time::Duration::from_millis(1));
            assert!(!world.has_told(|event| matches!(event, Event::CanaryOver { .. } | Event::Drain { .. })));
            assert_eq!((world.ready(), world.processes.len()), (count + 1, count as usize + 1));
            world.pass(std::time::Duration::from_millis(1));
            assert!(world.has_told(|event| matches!(event, Event::CanaryOver { generation: 2, .. })));
            assert!(!world.has_told(|event| matches!(event, Event::Drain { .. })));
            world.figures(good(), good());
            assert_eq!(world.verdicts(), [CanaryVerdict::Fine]);
            world.calm();
            assert_eq!((world.generations(), world.end_of_last()), (vec![2; count as usize], Some(Outcome::Done)));
            let deploy = world.pool().deploys.pop().expect("a deploy");
            assert_eq!(deploy.comparison.map(|known| (known.old, known.new)), Some((good(), good())));
        }
    }
}

#[test]
fn one_that_is_worse_is_gone_and_nobody_else_was_touched() {
    for on_failure in [OnFailure::Freeze, OnFailure::Rollback] {
        let mut world = holding(3, DeployPolicy { on_failure, ..rolling() });
        world.pass(seconds(10));
        world.figures(good(), failing());
        let comparison = Comparison { old: good(), new: failing(), verdict: CanaryVerdict::MoreErrors };
        let cause = Cause::Canary(comparison);
        let told = Event::GenerationFailed { pool: "app".into(), generation: 2, cause: cause.clone() };
        assert!(world.has_told(|event| *event == told));
        let leaving = world.in_state(WorkerState::Draining);
        assert!(leaving.len() == 1 && leaving[0].generation == 2, "{leaving:?}");
        assert_eq!(world.phase(), DeployPhase::Reverting, "its requests may finish");
        world.calm();
        assert_eq!((world.generations(), world.end_of_last()), (vec![1; 3], Some(Outcome::Reverted)));
        let deploy = world.pool().deploys.pop().expect("a deploy");
        assert_eq!((deploy.failure, deploy.comparison), (Some(cause), Some(comparison)));
    }
}

#[test]
fn the_old_ones_may_be_as_bad_as_they_like() {
    let mut world = holding(2, rolling());
    world.pass(seconds(10));
    world.figures(failing(), good());
    world.calm();
    assert_eq!((world.verdicts(), world.end_of_last()), (vec![CanaryVerdict::Fine], Some(Outcome::Done)));
}

#[test]
fn too_few_requests_hold_nobody_up() {
    let mut world = holding(2, rolling());
    world.pass(seconds(10));
    world.figures(CanaryFigures::default(), CanaryFigures::default());
    assert_eq!((world.verdicts(), world.phase()), (vec![CanaryVerdict::TooFewRequests], DeployPhase::Rolling));
    world.calm();
    assert_eq!(world.end_of_last(), Some(Outcome::Done));
}

#[test]
fn a_data_plane_that_does_not_answer_holds_nobody_up() {
    let mut world = holding(2, rolling());
    world.pass(seconds(15));
    assert_eq!((world.verdicts(), world.phase()), (vec![CanaryVerdict::Unknown], DeployPhase::Rolling));
    // It comes too late.
    world.figures(good(), failing());
    world.calm();
    assert_eq!(world.end_of_last(), Some(Outcome::Done));
}

#[test]
fn figures_that_nobody_asked_for_are_void() {
    let mut world = holding(2, rolling());
    world.figures(good(), failing());
    world.pass(seconds(10));
    let (pool, old, new) = ("app".to_owned(), good(), failing());
    world.command(Command::CanaryFigures { pool, generation: 1, old, new });
    assert_eq!(world.verdicts(), []);
    world.figures(good(), good());
    world.figures(good(), failing());
    world.calm();
    assert_eq!((world.verdicts(), world.end_of_last()), (vec![CanaryVerdict::Fine], Some(Outcome::Done)));
}

#[test]
fn one_that_crashes_meanwhile_fails_the_deploy_as_ever() {
    let mut world = holding(2, rolling());
    world.pass(seconds(5));
    let canary = world.in_state(WorkerState::Ready).into_iter().find(|id| id.generation == 2).expect("a canary");
    world.exit(&canary, ExitStatus::Signal(11));
    assert_eq!(world.end_of_last(), Some(Outcome::Reverted));
    world.pass(seconds(60));
    assert_eq!((world.generations(), world.verdicts()), (vec![1, 1], vec![]));
}

#[test]
fn another_deploy_supersedes_one_that_is_held() {
    let mut world = holding(2, rolling());
    world.command(Command::Deploy { pool: "app".to_owned(), id: 9 });
    let superseded = world.has_told(
        |event| matches!(event, Event::DeployEnded(end) if end.generation == 2 && end.outcome == Outcome::Superseded),
    );
    assert!(superseded && world.has_told(|event| matches!(event, Event::DeployBegan { generation: 3, .. })));
    world.calm();
    assert_eq!((world.generations(), world.end_of_last()), (vec![3, 3], Some(Outcome::Done)));
}

#[test]
fn where_nobody_else_serves_nobody_waits() {
    let mut world = holding(2, rolling());
    (0..2).for_each(|slot| {
        let old = world.in_state(WorkerState::Ready).into_iter().find(|id| id.slot == slot && id.generation == 1);
        world.exit(&old.expect("an old one"), ExitStatus::Signal(9));
    });
    assert_eq!(world.verdicts(), [CanaryVerdict::Alone]);
    world.calm();
    assert_eq!(world.end_of_last(), Some(Outcome::Done));
    // And a first start is compared with nobody.
    let mut world = World::new();
    world.set(&[("app", held(2, "v1", rolling()))]);
    world.boot_all();
    assert_eq!(world.end_of_last(), Some(Outcome::Done));
}

#[test]
fn a_time_that_changes_meanwhile_holds_at_once() {
    let mut world = holding(2, rolling());
    let mut spec = held(2, "v2", rolling());
    spec.deploy.canary = None;
    world.set(&[("app", spec)]);
    assert!(world.has_told(|event| matches!(event, Event::CanaryOver { .. })));
    world.figures(good(), failing());
    world.calm();
    assert_eq!(world.end_of_last(), Some(Outcome::Done), "nothing is compared any more");
}

#[test]
fn one_by_one_the_worse_one_gives_its_slot_back() {
    use crate::capacity::Capacity;
    use crate::memory::{Bound, Memory};
    let policy = DeployPolicy { strategy: DeployStrategy::Auto, on_failure: OnFailure::Freeze, ..rolling() };
    let mut world = World::new();
    world.set(&[("app", held(2, "v1", policy))]);
    world.boot_all();
    let pss = world.processes.keys().map(|spawn| (*spawn, 500)).collect();
    let memory = Memory { bounds: vec![Bound::of_group(1_000, 900)] };
    world.feed(Input::Capacity(Capacity { cpus: 2.0, memory, pss: Some(pss) }));
    world.set(&[("app", held(2, "v2", policy))]);
    let plan = |world: &World| world.pool().deploys.last().and_then(|deploy| deploy.plan);
    assert!(matches!(plan(&world), Some(DeployPlan { way: Way::OneByOne, .. })), "{:?}", plan(&world));
    for id in world.in_state(WorkerState::Draining) {
        world.command(Command::Drained { worker: id });
    }
    world.end_leaving();
    world.boot_all();
    world.pass(seconds(12));
    world.figures(good(), failing());
    world.calm();
    assert_eq!((world.generations(), world.end_of_last()), (vec![1, 1], Some(Outcome::Reverted)));
}
