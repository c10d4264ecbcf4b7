//! Deploys as memory allows. The memory is that of a fixture, whose files say what the world's processes take.

use std::fs;
use std::path::PathBuf;

use tidegate_config::model::{DeployPolicy, DeployStrategy, Portion, WorkerCount, WorkerSpec};

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

/// A control group, and workers in it that take so many MiB each.
struct Space {
    folder: tempfile::TempDir,
    files: Files,
    cpus: f64,
    world: World,
    limit: u64,
    each: u64,
}

/// Names that a version of control groups has.
#[derive(Clone, Copy)]
struct Files {
    group: &'static str,
    mount: &'static str,
    limit: &'static str,
    used: &'static str,
}

const V1: Files = Files {
    group: "4:memory:/box\n0::/\n",
    mount: "33 25 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    limit: "cgroup/memory/box/memory.limit_in_bytes",
    used: "cgroup/memory/box/memory.usage_in_bytes",
};

const V2: Files = Files {
    group: "0::/box\n",
    mount: "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    limit: "cgroup/box/memory.max",
    used: "cgroup/box/memory.current",
};

impl Space {
    /// A group whose pool is as `spec` says; all its workers serve, and nobody has looked.
    fn with(spec: WorkerSpec, files: Files, each: u64, limit: u64) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut space = Self { folder, files, cpus: 2.0, world: World::new(), limit, each };
        space.write("proc/self/cgroup", files.group);
        space.write("proc/self/mountinfo", files.mount);
        space.world.set(&[("app", spec)]);
        space.world.boot_all();
        space.world.events.clear();
        space
    }

    /// That many serve, and new ones come as memory allows.
    fn serving(count: u32, surge: u32, each: u64, limit: u64) -> Self {
        let mut space = Self::with(spec(count, surge), V2, each, limit);
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
        self.write(self.files.limit, &(self.limit * MIB).to_string());
        self.write(self.files.used, &(self.used() * MIB).to_string());
        let roots = Roots { proc: self.folder.path().join("proc"), cgroup: self.folder.path().join("cgroup") };
        let pss = self.world.processes.keys().map(|spawn| (*spawn, self.each * MIB)).collect();
        self.world.feed(Input::Capacity(Capacity { cpus: self.cpus, memory: Memory::read(&roots), pss: Some(pss) }));
    }

    /// So many looks, and what follows from each.
    fn looks(&mut self, count: usize) -> u32 {
        for _ in 0..count {
            self.look();
            self.world.calm();
        }
        self.world.pool().target
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

fn automatic() -> WorkerSpec {
    let policy = DeployPolicy { surge: Portion::Count(1), ..DeployPolicy::default() };
    WorkerSpec { count: WorkerCount::Auto, deploy: policy, ..release(1, "v1") }
}

#[test]
fn an_automatic_count_is_what_cpus_and_memory_allow_with_a_deploy_beside() {
    for files in [V1, V2] {
        for (cpus, each, limit, expected) in [
            (4.0, 100, 10_000, 4),
            (3.4, 100, 10_000, 3),
            (0.5, 100, 10_000, 2),
            // 600 of 800 may be used, 50 by others: five fit, one of them is the deploy's.
            (8.0, 100, 800, 4),
            (8.0, 138, 800, 2),
            (8.0, 100, 300, 1),
            (8.0, 100, 120, 1),
        ] {
            let mut space = Space::with(automatic(), files, each, limit);
            space.cpus = cpus;
            // Each new worker brings another picture.
            assert_eq!(space.looks(8), expected, "{cpus} CPUs, {each} of {limit} MiB");
        }
        let green = DeployPolicy { strategy: DeployStrategy::Green, ..DeployPolicy::default() };
        let mut space = Space::with(WorkerSpec { deploy: green, ..automatic() }, files, 100, 1_400);
        space.cpus = 16.0;
        assert_eq!(space.looks(8), 5, "of ten that fit");
    }
}

#[test]
fn a_container_that_is_resized_gets_other_workers_after_some_looks() {
    for files in [V1, V2] {
        let mut space = Space::with(automatic(), files, 100, 10_000);
        space.cpus = 4.0;
        assert_eq!([space.looks(2), space.looks(1)], [2, 4]);
        space.limit = 400;
        assert_eq!([space.looks(1), space.looks(1)], [4, 1]);
        space.limit = 10_000;
        assert_eq!([space.looks(2), space.looks(1)], [1, 4]);
        space.cpus = 2.0;
        assert_eq!([space.looks(1), space.looks(1)], [4, 2]);
        let scaled = |event: &Event| match event {
            Event::Scaled { to, by, .. } => Some((*to, by.word())),
            _ => None,
        };
        let by: Vec<_> = space.world.events.iter().filter_map(scaled).collect();
        assert_eq!(by, [(4, "machine"), (1, "machine"), (4, "machine"), (2, "machine")]);
    }
}

#[test]
fn what_is_seen_once_takes_no_worker_away() {
    let mut space = Space::with(automatic(), V2, 100, 10_000);
    space.cpus = 4.0;
    assert_eq!(space.looks(3), 4);
    for _ in 0..5 {
        space.limit = 400;
        assert_eq!(space.looks(1), 4);
        space.limit = 10_000;
        assert_eq!(space.looks(1), 4);
    }
}

#[test]
fn a_number_that_an_operator_chose_holds_until_it_is_given_back() {
    let mut space = Space::with(automatic(), V2, 100, 800);
    space.world.command(Command::SetCount { pool: "app".to_owned(), count: 5 });
    space.cpus = 3.0;
    assert_eq!(space.looks(9), 5);
    space.world.command(Command::ReleaseCount { pool: "app".to_owned() });
    assert_eq!(space.world.pool().target, 3);
    let mut fixed = Space::with(spec(3, 1), V2, 100, 800);
    fixed.cpus = 1.0;
    assert_eq!(fixed.looks(9), 3, "the file's number is the file's");
}

#[test]
fn nobody_is_taken_away_while_a_deploy_goes_on() {
    let mut space = Space::with(automatic(), V2, 100, 10_000);
    space.world.set(&[("app", WorkerSpec { command: vec!["v2".to_owned()], ..automatic() })]);
    space.cpus = 6.0;
    for _ in 0..5 {
        space.look();
        assert_eq!(space.world.pool().target, 2);
    }
    space.world.calm();
    assert_eq!(space.looks(1), 6);
}
