//! Any sequence of orders, failures and delays, in runs of up to 500 steps: 400 of them, and in the long form as
//! many as `ANY_SEQUENCE_RUNS` says, else 4,000. What may never happen is checked by the world at every step; here is what must happen in the
//! end.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use tidegate_config::model::{
    CanaryHold, DeployPolicy, DeployStrategy, Hang, MaxDelta, OnFailure, Portion, PreStart, Recycle, WorkerSpec,
};

use super::world::{World, release, seconds, wanted_slots};
use crate::canary::CanaryFigures;
use crate::capacity::Capacity;
use crate::command::{Command, PoolSpec};
use crate::event::Event;
use crate::memory::{Bound, Memory};
use crate::progress::Progress;
use crate::state::{Activity, Input, Notice, Silence};
use crate::status::{GenerationState, WorkerStatus};
use crate::worker::{ExitStatus, WorkerState};

#[derive(Debug, Clone)]
enum Step {
    SetPools([Option<Wanted>; 2]),
    Deploy,
    Count(u32),
    ChangeCount(i32),
    ReleaseCount,
    Restart(u32),
    Drain(u32),
    Ready(usize),
    Exit(usize, ExitStatus),
    RequestsOver(usize),
    Drained(usize),
    HookEnd(usize, ExitStatus),
    /// A command about a worker that hangs ends.
    InquestEnd(usize),
    /// Such commands are run from now on.
    OnHang,
    /// Workers are to say within so many seconds that they live.
    Watchdog(u64),
    /// Workers of threads, of which one has taken too long.
    Overdue(usize),
    Notice(usize, Notice),
    FailStarts(u32),
    /// Workers are recycled from now on.
    Limit,
    /// Workers that end with this code are not started again.
    FinalCode(u8),
    /// What a new worker and the old ones have failed of a hundred requests.
    Figures(u8, u8),
    /// Requests that everybody has served by now.
    Progress(u64),
    /// Which workers, by their bits, have a request that nothing comes back for; all others have none.
    Wait(u8),
    /// A worker leaves so many questions unanswered.
    Silence(usize, u32),
    /// Memory that is left, what one worker holds and what all others do.
    Memory(Option<u64>, usize, u64, u64),
    Pass(u64),
}

/// A release, how many of it, whether something runs before it, and how it is deployed.
type Wanted = (u8, u32, bool, DeployPolicy);

fn policy() -> impl Strategy<Value = DeployPolicy> {
    let strategy = prop_oneof![
        3 => Just(DeployStrategy::Rolling),
        1 => Just(DeployStrategy::Green),
        2 => Just(DeployStrategy::Auto),
    ];
    let surge = prop_oneof![(1..4_u32).prop_map(Portion::Count), (1..=100_u8).prop_map(Portion::Share)];
    let missing = prop_oneof![3 => Just(Portion::Count(0)), 1 => (1..3_u32).prop_map(Portion::Count)];
    let patience = prop_oneof![Just(0), Just(2_000_u64)].prop_map(Duration::from_millis);
    let on_failure = prop_oneof![Just(OnFailure::Freeze), Just(OnFailure::Rollback)];
    let hold = |time| CanaryHold { time: seconds(time), max_delta: MaxDelta::default() };
    let canary = prop_oneof![2 => Just(None), 1 => (1..20_u64).prop_map(move |time| Some(hold(time)))];
    (strategy, surge, missing, patience, on_failure, canary).prop_map(
        |(strategy, surge, max_unavailable, min_ready, on_failure, canary)| DeployPolicy {
            canary,
            strategy,
            surge,
            max_unavailable,
            min_ready,
            on_failure,
            ..DeployPolicy::default()
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let pool = || proptest::option::weighted(0.9, (0..3_u8, 1..5_u32, proptest::bool::weighted(0.2), policy()));
    let status = || prop_oneof![Just(ExitStatus::Code(0)), Just(ExitStatus::Code(1)), Just(ExitStatus::Signal(9))];
    prop_oneof![
        1 => [pool(), pool()].prop_map(Step::SetPools),
        1 => Just(Step::Deploy),
        1 => (0..5_u32).prop_map(Step::Count),
        1 => (-2..3_i32).prop_map(Step::ChangeCount),
        1 => Just(Step::ReleaseCount),
        1 => (0..4_u32).prop_map(Step::Restart),
        1 => (0..4_u32).prop_map(Step::Drain),
        8 => any::<usize>().prop_map(Step::Ready),
        4 => (any::<usize>(), status()).prop_map(|(which, status)| Step::Exit(which, status)),
        2 => (any::<usize>(), status()).prop_map(|(which, status)| Step::HookEnd(which, status)),
        2 => any::<usize>().prop_map(Step::RequestsOver),
        2 => any::<usize>().prop_map(Step::InquestEnd),
        1 => Just(Step::OnHang),
        1 => (0..20_u64).prop_map(Step::Watchdog),
        1 => any::<usize>().prop_map(Step::Overdue),
        3 => any::<usize>().prop_map(Step::Drained),
        2 => (any::<usize>(), notice()).prop_map(|(which, notice)| Step::Notice(which, notice)),
        1 => (0..3_u32).prop_map(Step::FailStarts),
        2 => Just(Step::Limit),
        1 => (0..3_u8).prop_map(Step::FinalCode),
        3 => (0..101_u8, 0..101_u8).prop_map(|(old, new)| Step::Figures(old, new)),
        3 => (0..150_u64).prop_map(Step::Progress),
        3 => any::<u8>().prop_map(Step::Wait),
        3 => (any::<usize>(), 1..5_u32).prop_map(|(which, count)| Step::Silence(which, count)),
        3 => (proptest::option::of(0..100_u64), any::<usize>(), 0..120_u64, 0..60_u64)
            .prop_map(|(room, which, one, others)| Step::Memory(room, which, one, others)),
        6 => prop_oneof![0..300_u64, 0..5_000_u64, 0..90_000_u64].prop_map(Step::Pass),
    ]
}

fn notice() -> impl Strategy<Value = Notice> {
    prop_oneof![
        Just(Notice::Rotation(Some("status 503".to_owned()))),
        Just(Notice::Rotation(None)),
        (0..90_u64).prop_map(|time| Notice::ExtendBoot(seconds(time))),
        Just(Notice::Status("fine".to_owned())),
        Just(Notice::Alive),
        Just(Notice::Unwell),
        (0..20_u64).prop_map(|time| Notice::WatchdogTime(seconds(time))),
        Just(Notice::Answered),
        Just(Notice::Warming),
        Just(Notice::NotWarm("status 500".to_owned())),
    ]
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::SetPools(pools) => {
            let spec = |(version, count, has_hook, deploy): Wanted| -> WorkerSpec {
                let hook = PreStart { command: vec!["migrate".to_owned()], timeout: seconds(20) };
                let pre_start = has_hook.then_some(hook);
                WorkerSpec { pre_start, deploy, ..release(count, &format!("v{version}")) }
            };
            let named = ["app", "other"].into_iter().zip(pools);
            let wanted: Vec<_> = named.filter_map(|(name, pool)| Some((name, spec((*pool)?)))).collect();
            world.set(&wanted);
        }
        Step::Deploy => world.command(Command::Deploy { pool: "app".to_owned(), id: 1 }),
        Step::Count(count) => world.command(Command::SetCount { pool: "app".to_owned(), count: *count }),
        Step::ChangeCount(by) => world.command(Command::ChangeCount { pool: "app".to_owned(), by: *by }),
        Step::ReleaseCount => world.command(Command::ReleaseCount { pool: "app".to_owned() }),
        Step::Drain(slot) => world.command(Command::DrainWorker { pool: "app".to_owned(), slot: *slot }),
        Step::Restart(slot) => world.command(Command::RestartWorker { pool: "app".to_owned(), slot: *slot }),
        // A late report of readiness may come from a worker that is leaving.
        Step::Ready(which) => {
            if let Some(id) = pick(world, *which) {
                world.ready_up(&id);
            }
        }
        Step::Exit(which, status) => {
            if let Some(id) = pick(world, *which) {
                world.exit(&id, *status);
            }
        }
        Step::RequestsOver(which) => {
            if let Some(worker) = pick(world, *which) {
                world.command(Command::RequestsOver { worker });
            }
        }
        Step::Drained(which) => {
            if let Some(worker) = pick(world, *which) {
                world.command(Command::Drained { worker });
            }
        }
        Step::HookEnd(which, status) => {
            let hook = which.checked_rem(world.hooks.len()).and_then(|at| world.hooks.keys().nth(at).cloned());
            if let Some(hook) = hook {
                world.end_hook(&hook, *status);
            }
        }
        Step::InquestEnd(which) => {
            let hook = which.checked_rem(world.inquests.len()).and_then(|at| world.inquests.keys().nth(at).cloned());
            if let Some(hook) = hook {
                world.end_inquest(&hook, ExitStatus::Code(1));
            }
        }
        Step::OnHang => adjust(world, |spec| {
            let on_hang = Some(vec!["dump".to_owned()]);
            spec.hang = Some(Hang { on_hang, ..Hang::default() });
        }),
        Step::Watchdog(time) => adjust(world, |spec| {
            spec.hang = Some(Hang { watchdog: Some(seconds(*time)), ..Hang::default() });
        }),
        Step::Overdue(which) => {
            adjust(world, |spec| spec.hang = Some(Hang { spares_full: true, ..Hang::default() }));
            for overdue in 0..2 {
                let Some(id) = pick(world, *which) else { return };
                world.feed(Input::Progress([(id.spawn, Progress { overdue, ..Progress::default() })].into()));
            }
        }
        Step::Limit => adjust(world, |spec| spec.recycle = limits()),
        Step::FinalCode(code) => adjust(world, |spec| spec.restart.no_restart_codes = vec![*code]),
        Step::Figures(old, new) => {
            let side = |failed: &u8| CanaryFigures { requests: 100, failed: u64::from(*failed), p95: Some(seconds(1)) };
            world.figures = Some((side(old), side(new)));
        }
        Step::Progress(requests) => {
            let busy =
                |spawn: &u64| Progress { requests: *requests, in_flight: (*spawn % 3) as u32, ..Progress::default() };
            let figures = world.processes.keys().map(|spawn| (*spawn, busy(spawn)));
            let figures = figures.collect();
            world.feed(Input::Progress(figures));
        }
        Step::Wait(who) => {
            let waits = |at: usize| u32::from(who >> (at % 8) & 1);
            let progress = |at| Progress { in_flight: waits(at), ..Progress::default() };
            let figures = world.processes.keys().enumerate().map(|(at, spawn)| (*spawn, progress(at))).collect();
            world.feed(Input::Progress(figures));
        }
        Step::Silence(which, count) => {
            for _ in 0..*count {
                let Some(id) = pick(world, *which) else { return };
                world.notice(&id, Notice::Silent(silence()));
            }
        }
        Step::Memory(room, which, one, others) => {
            let heavy = pick(world, *which).map(|id| id.spawn);
            let weight = |spawn: &u64| (*spawn, if Some(*spawn) == heavy { *one } else { *others });
            let rss = world.processes.keys().map(weight).collect();
            let pss = world.processes.keys().map(|spawn| (*spawn, *others)).collect();
            let bound = |room: u64| Bound::of_group(room * 4, room * 2);
            let memory = Memory { bounds: room.map(bound).into_iter().collect() };
            world.feed(Input::Memory { room: *room, rss });
            world.feed(Input::Capacity(Capacity { cpus: 2.0, memory, pss: Some(pss) }));
        }
        Step::Notice(which, notice) => {
            if let Some(id) = pick(world, *which) {
                world.notice(&id, notice.clone());
            }
        }
        Step::FailStarts(count) => world.failing_starts = *count,
        Step::Pass(milliseconds) => world.pass(Duration::from_millis(*milliseconds)),
    }
}

fn silence() -> Silence {
    Silence { problem: "no answer in time".to_owned(), activity: Activity::Waits }
}

fn limits() -> Recycle {
    let (max_requests, max_lifetime) = (Some(100), Some(seconds(120)));
    Recycle { max_requests, max_lifetime, max_rss: Some(50), hard_rss: Some(100), ..Recycle::default() }
}

/// Changes what is said of workers that run.
fn adjust(world: &mut World, change: impl Fn(&mut WorkerSpec)) {
    let mut pools: Vec<_> = world.wanted.iter().map(|(name, spec)| (name.to_string(), spec.clone())).collect();
    pools.iter_mut().for_each(|(_, spec)| change(spec));
    let pools = pools.into_iter().map(|(name, spec)| PoolSpec { name, spec });
    world.command(Command::SetPools(pools.collect()));
}

fn pick(world: &World, which: usize) -> Option<crate::worker::WorkerId> {
    let count = world.processes.len();
    let process = world.processes.values().nth(which.checked_rem(count)?)?;
    Some(process.id.clone())
}

/// Every pool has one ready worker in each slot that was not emptied and no other, all of one generation unless one failed half way.
fn check_converged(world: &World) {
    for pool in world.status() {
        let slots: Vec<u32> = pool.workers.iter().map(|worker| worker.id.slot).collect();
        assert_eq!(slots, wanted_slots(&pool), "{pool:#?}");
        let serves = |worker: &WorkerStatus| worker.state == WorkerState::Ready && worker.out.is_none();
        assert!(pool.workers.iter().all(serves), "{pool:#?}");
        let mixed = pool.workers.iter().any(|worker| worker.id.generation != pool.workers[0].id.generation);
        let failed = pool.generations.iter().any(|generation| generation.state == GenerationState::Failed);
        assert!(failed || !mixed, "{pool:#?}");
        assert!(pool.deploys.iter().all(|deploy| deploy.took.is_some()), "{pool:#?}");
    }
}

fn check(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        take(&mut world, step);
    }
    // Age and memory have nobody recycled any more; what was served already may.
    let max_requests = limits().max_requests;
    adjust(&mut world, |spec| spec.recycle = Recycle { max_requests, ..Recycle::default() });
    world.calm();
    check_converged(&world);
    world.command(Command::Shutdown { deadline: seconds(60) });
    world.calm();
    assert!(
        world.processes.is_empty() && world.hooks.is_empty() && world.inquests.is_empty() && world.status().is_empty()
    );
    world.feed(Input::Swept);
    assert_eq!(world.events.last(), Some(&Event::Stopped));
}

fn run(runs: u32) {
    let config = Config { cases: runs, failure_persistence: None, ..Config::default() };
    proptest!(config, |(steps in vec(step(), 0..=500))| check(&steps));
}

#[test]
fn converges_when_failures_stop_and_leaves_nobody_behind() {
    run(400);
}

#[test]
#[ignore = "the long form"]
fn converges_in_long_runs() {
    let runs = std::env::var("ANY_SEQUENCE_RUNS").ok().and_then(|runs| runs.parse().ok());
    run(runs.unwrap_or(4_000));
}
