//! Deploys as memory allows. The memory is that of a fixture, whose files say what the world's processes take.

use std::fs;
use std::path::PathBuf;

use tidegate_config::model::{DeployPolicy, DeployStrategy, Portion, WorkerSpec};

use super::world::{World, release, seconds};
use crate::capacity::Capacity;
use crate::cgroup::Roots;
use crate::command::Command;
use crate::deploy::Outcome;
use crate::event::Event;
use crate::memory::Memory;
use crate::plan::{DeployPlan, Way};
use crate::state::Input;
use crate::worker::WorkerState;

const MIB: u64 = 1024 * 1024;
/// What others than workers take.
const OTHERS: u64 = 50;

/// A control group of the second version, and workers in it that take so many MiB each.
struct Space {
    folder: tempfile::TempDir,
    world: World,
    limit: u64,
    each: u64,
}

impl Space {
    /// That many serve, and new ones come as memory allows.
    fn serving(count: u32, surge: u32, each: u64, limit: u64) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut space = Self { folder, world: World::new(), limit, each };
        space.write("proc/self/cgroup", "0::/box\n");
        space.write("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        space.write("cgroup/box/memory.max", &(limit * MIB).to_string());
        space.world.set(&[("app", spec(count, surge))]);
        space.world.boot_all();
        space.look();
        space.world.events.clear();
        space
    }

    fn write(&self, path: &str, text: &str) {
        let path: PathBuf = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, text).expect("file");
    }

    fn used(&self) -> u64 {
        OTHERS + self.each * self.world.processes.len() as u64
    }

    /// The machine is looked at.
    fn look(&mut self) {
        self.write("cgroup/box/memory.current", &(self.used() * MIB).to_string());
        let roots = Roots { proc: self.folder.path().join("proc"), cgroup: self.folder.path().join("cgroup") };
        let pss = self.world.processes.keys().map(|spawn| (*spawn, self.each * MIB)).collect();
        self.world.feed(Input::Capacity(Capacity { cpus: 2.0, memory: Memory::read(&roots), pss: Some(pss) }));
    }

    /// A deploy to its end, by the smallest steps there are.
    fn deploy(&mut self) {
        self.look();
        self.world.command(Command::Deploy { pool: "app".to_owned(), id: 1 });
        for _ in 0..1_000 {
            assert!(self.used() <= self.limit, "{} of {} MiB: {:#?}", self.used(), self.limit, self.world.pool());
            if self.world.pool().deploys.last().is_some_and(|deploy| deploy.took.is_some()) {
                return;
            }
            self.step();
        }
        panic!("it never ends: {:#?}", self.world.pool());
    }

    fn step(&mut self) {
        if let Some(id) = self.world.booting().first() {
            return self.world.ready_up(id);
        }
        if let Some(worker) = self.world.in_state(WorkerState::Draining).first().cloned() {
            // Whoever waits for the successor is told to: it comes.
            let pool = self.world.pool();
            assert!(pool.ready > 0 || pool.next_start.is_some(), "requests would be refused: {pool:#?}");
            return self.world.command(Command::Drained { worker });
        }
        if !self.world.in_state(WorkerState::Stopping).is_empty() {
            return self.world.end_leaving();
        }
        self.world.pass(seconds(1));
    }

    fn plan(&self) -> DeployPlan {
        let plan = |event: &Event| match event {
            Event::DeployPlanned { plan, .. } => Some(*plan),
            _ => None,
        };
        let plans: Vec<_> = self.world.events.iter().filter_map(plan).collect();
        assert_eq!(plans.len(), 1, "{plans:?}");
        plans[0]
    }
}

fn spec(count: u32, surge: u32) -> WorkerSpec {
    let policy = DeployPolicy {
        strategy: DeployStrategy::Auto,
        surge: Portion::Count(surge),
        min_ready: seconds(2),
        ..DeployPolicy::default()
    };
    WorkerSpec { deploy: policy, ..release(count, "v1") }
}

#[test]
fn no_deploy_takes_more_memory_than_there_is() {
    let mut ways = [0, 0, 0];
    for count in 1..6 {
        for surge in 1..4 {
            for each in [20, 60, 100, 150] {
                // From just enough for those that serve to more than enough.
                for limit in (OTHERS + each * u64::from(count)..1_800).step_by(90) {
                    let mut space = Space::serving(count, surge, each, limit);
                    space.deploy();
                    assert_eq!(
                        space.world.pool().deploys.last().and_then(|deploy| deploy.outcome),
                        Some(Outcome::Done)
                    );
                    assert_eq!(space.world.generations(), vec![2; count as usize]);
                    ways[match space.plan().way {
                        Way::Green => 0,
                        Way::Rolling { .. } => 1,
                        Way::OneByOne => 2,
                    }] += 1;
                }
            }
        }
    }
    assert!(ways.iter().all(|count| *count > 50), "{ways:?}");
}

#[test]
fn with_memory_for_one_more_there_is_one_more() {
    // 450 of 800 are used, 600 may be, a new one needs 100.
    let mut space = Space::serving(4, 3, 100, 800);
    space.deploy();
    let plan = space.plan();
    assert_eq!((plan.way, plan.is_by_memory, plan.count), (Way::Rolling { surge: 1 }, true, 4));
    assert_eq!((plan.old, plan.each, plan.spare), (400 * MIB, Some(100 * MIB), Some(150 * MIB)));
}

#[test]
fn a_release_that_fails_goes_back_within_memory_too() {
    for on_failure in [tidegate_config::model::OnFailure::Freeze, tidegate_config::model::OnFailure::Rollback] {
        let mut space = Space::serving(3, 1, 100, 450);
        let mut policy = spec(3, 1);
        policy.deploy.on_failure = on_failure;
        space.world.set(&[("app", policy)]);
        space.look();
        space.world.command(Command::Deploy { pool: "app".to_owned(), id: 1 });
        assert_eq!(space.plan().way, Way::OneByOne);
        while space.world.in_state(WorkerState::Ready).iter().all(|id| id.generation == 1) {
            space.step();
        }
        let new = space.world.in_state(WorkerState::Ready).into_iter().find(|id| id.generation == 2).expect("new");
        space.world.exit(&new, crate::worker::ExitStatus::Code(1));
        for _ in 0..200 {
            assert!(space.used() <= space.limit, "{} MiB: {:#?}", space.used(), space.world.pool());
            space.step();
        }
        assert_eq!(space.world.generations(), [1, 1, 1], "{on_failure:?}");
    }
}
