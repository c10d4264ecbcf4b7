//! Workers that do not answer.

use tidegate_config::model::{Hang, WorkerSpec};

use super::world::{World, release, seconds, spec};
use crate::command::Command;
use crate::event::Event;
use crate::progress::{Progress, ProgressBySpawn};
use crate::state::{Activity, Input, Notice, Silence};
use crate::status::PoolState;
use crate::worker::{ExitReason, WorkerId, WorkerState};

fn ready(world: &World, slot: u32) -> WorkerId {
    let alive = [WorkerState::Ready, WorkerState::Suspect];
    let mut found = alive.into_iter().flat_map(|state| world.in_state(state));
    found.find(|id| id.slot == slot).expect("a worker in service")
}

/// Every second of that time these slots have a request that nothing comes back for, and all others answer.
fn wait(world: &mut World, slots: &[u32], time: u64) {
    for _ in 0..time {
        world.pass(seconds(1));
        let heard = world.now.as_secs();
        let all = world.processes.values().map(|process| {
            let is_quiet = slots.contains(&process.id.slot);
            let progress = Progress { in_flight: 1, heard: if is_quiet { 0 } else { heard }, ..Progress::default() };
            (process.id.spawn, progress)
        });
        let figures: ProgressBySpawn = all.collect();
        world.feed(Input::Progress(figures));
    }
}

fn miss(world: &mut World, id: &WorkerId) {
    miss_while(world, id, Activity::Waits);
}

fn miss_while(world: &mut World, id: &WorkerId, activity: Activity) {
    assert!(world.asked.contains(&id.spawn), "{id} is asked");
    world.pass(seconds(5));
    world.notice(id, Notice::Silent(Silence { problem: "no answer in time".to_owned(), activity }));
}

fn doubted(count: u32, slots: &[u32]) -> World {
    let mut world = World::serving(count);
    wait(&mut world, slots, 11);
    for slot in slots {
        assert!(world.asked.contains(&ready(&world, *slot).spawn));
    }
    world.events.clear();
    world
}

fn guards(world: &World) -> Vec<String> {
    let guard = |event: &Event| match event {
        Event::HangGuard { suspects, of, cause, .. } => Some(format!("{suspects} of {of}: {cause}")),
        Event::HangGuardOver { .. } => Some("over".to_owned()),
        _ => None,
    };
    world.events.iter().filter_map(guard).collect()
}

fn aborted(world: &World) -> Vec<u32> {
    let purpose = world.pool().workers.into_iter().filter(|one| one.state == WorkerState::Stopping);
    purpose.map(|worker| worker.id.slot).collect()
}

#[test]
fn who_answers_while_requests_wait_is_left_alone() {
    let mut world = doubted(2, &[0]);
    let id = ready(&world, 0);
    world.notice(&id, Notice::Answered);
    assert!(world.events.is_empty(), "{:?}", world.events);
    // A long poll goes on, and is asked about again when the trust is over.
    wait(&mut world, &[0], 29);
    assert!(world.asked.is_empty());
    wait(&mut world, &[0], 2);
    assert!(world.asked.contains(&id.spawn));
    assert_eq!(world.ready(), 2);
}

#[test]
fn nobody_is_doubted_who_answers_others_or_has_nothing_to_do() {
    let mut world = World::serving(2);
    wait(&mut world, &[], 60);
    assert!(world.asked.is_empty());
    for _ in 0..60 {
        world.pass(seconds(1));
        let figures = world.processes.keys().map(|spawn| (*spawn, Progress { requests: 7, ..Progress::default() }));
        let figures = figures.collect();
        world.feed(Input::Progress(figures));
    }
    assert!(world.asked.is_empty());
}

#[test]
fn requests_that_clients_give_up_do_not_hide_a_silence() {
    let mut world = World::serving(2);
    let id = ready(&world, 0);
    for requests in 1..=12 {
        world.pass(seconds(1));
        world.feed(Input::Progress([(id.spawn, Progress { requests, ..Progress::default() })].into()));
    }
    assert!(world.asked.contains(&id.spawn));
}

#[test]
fn who_was_given_up_by_all_is_doubted_too() {
    for (spares_full, is_doubted) in [(false, true), (true, false)] {
        let hang = Hang { spares_full, ..Hang::default() };
        let mut world = World::new();
        world.set(&[("app", WorkerSpec { hang: Some(hang), ..spec(2) })]);
        world.boot_all();
        let id = ready(&world, 0);
        // Its tries came to their end after two seconds, and nobody gave it another request.
        for second in 0..12 {
            world.pass(seconds(1));
            let progress = Progress { requests: 3, in_flight: u32::from(second < 2), ..Progress::default() };
            world.feed(Input::Progress([(id.spawn, progress)].into()));
        }
        assert_eq!(world.asked.contains(&id.spawn), is_doubted, "spares_full: {spares_full}");
    }
}

#[test]
fn a_refused_connection_is_a_doubt() {
    let mut world = World::serving(2);
    let id = ready(&world, 1);
    let unreachable =
        |unreachable| Input::Progress([(id.spawn, Progress { unreachable, ..Progress::default() })].into());
    world.feed(unreachable(0));
    assert!(world.asked.is_empty());
    world.feed(unreachable(1));
    assert!(world.asked.contains(&id.spawn));
    world.notice(&id, Notice::Answered);
    world.pass(seconds(1));
    world.feed(unreachable(2));
    assert!(world.asked.is_empty(), "it is trusted for a while");
}

#[test]
fn the_first_miss_takes_it_out_and_an_answer_brings_it_back() {
    let mut world = doubted(3, &[0]);
    let id = ready(&world, 0);
    assert_eq!(world.ready(), 3, "a doubt alone costs nothing");
    miss(&mut world, &id);
    assert_eq!(world.in_state(WorkerState::Suspect), *std::slice::from_ref(&id));
    assert!(world.out.contains(&id.spawn));
    assert_eq!((world.ready(), world.pool().state), (2, PoolState::Degraded));
    let why = world.pool().workers[0].out.clone().expect("a reason");
    assert!(why.contains("nothing came back for 10s") && why.contains("no answer in time"), "{why}");
    miss(&mut world, &id);
    world.notice(&id, Notice::Answered);
    assert!(world.out.is_empty());
    assert_eq!((world.ready(), world.pool().state), (3, PoolState::Healthy));
    wait(&mut world, &[0], 20);
    assert!(world.asked.is_empty());
}

#[test]
fn bytes_of_an_answer_clear_it_as_well() {
    let mut world = doubted(3, &[0]);
    let id = ready(&world, 0);
    miss(&mut world, &id);
    wait(&mut world, &[], 1);
    assert_eq!(world.ready(), 3);
}

#[test]
fn the_last_miss_starts_another_one_and_then_it_is_killed() {
    let mut world = doubted(3, &[0]);
    let id = ready(&world, 0);
    let began = world.now;
    for _ in 0..3 {
        assert!(!world.processes[&id.spawn].killed);
        miss(&mut world, &id);
    }
    assert_eq!(world.now - began, seconds(15));
    let booting = world.booting();
    assert_eq!(booting.iter().map(|id| id.slot).collect::<Vec<_>>(), [0], "its successor comes first");
    assert_eq!(aborted(&world), [0]);
    let kills = |world: &World| world.events.iter().filter(|event| matches!(event, Event::Killed { .. })).count();
    world.pass(seconds(1));
    assert_eq!(kills(&world), 0, "it has a moment for its last words");
    world.pass(seconds(1));
    assert_eq!(kills(&world), 1);
    world.end_leaving();
    assert_eq!(world.ends(), [ExitReason::Hang]);
    let failure = world.failures().remove(0).clone();
    assert_eq!((failure.reason, failure.last_lines), (ExitReason::Hang, vec!["last words".to_owned()]));
    let why = failure.message.expect("a reason");
    assert!(why.ends_with("then no answer to 3 questions: no answer in time"), "{why}");
    world.boot_all();
    assert_eq!(world.ready(), 3);
}

#[test]
fn the_only_worker_is_replaced_too() {
    let mut world = doubted(1, &[0]);
    let id = ready(&world, 0);
    (0..3).for_each(|_| miss(&mut world, &id));
    assert_eq!((aborted(&world), world.booting().len()), (vec![0], 1));
}

#[test]
fn without_room_for_a_successor_it_is_killed_after_a_while() {
    let mut world = doubted(3, &[1]);
    let id = ready(&world, 1);
    world.set(&[("app", release(3, "v2"))]);
    world.pass(seconds(1));
    (0..3).for_each(|_| miss(&mut world, &id));
    assert!(aborted(&world).is_empty(), "a new version is under way");
    world.pass(seconds(4));
    assert!(aborted(&world).is_empty());
    world.pass(seconds(1));
    assert_eq!(aborted(&world), [1]);
}

#[test]
fn many_at_once_are_not_to_blame() {
    let mut world = doubted(4, &[0, 1]);
    let (first, second) = (ready(&world, 0), ready(&world, 1));
    miss_while(&mut world, &first, Activity::Stopped);
    assert!(guards(&world).is_empty());
    miss_while(&mut world, &second, Activity::Stopped);
    let told = "2 of 4: they are all stopped, by a signal or a debugger";
    assert_eq!(guards(&world), [told]);
    assert!(world.out.is_empty(), "all get requests");
    for _ in 0..20 {
        miss(&mut world, &first);
        miss(&mut world, &second);
    }
    assert!(aborted(&world).is_empty() && world.booting().is_empty());
    assert_eq!(guards(&world).len(), 1, "told once");
    world.notice(&first, Notice::Answered);
    assert_eq!(guards(&world)[1..], ["over"]);
    assert!(aborted(&world).is_empty(), "the other one may be about to answer as well");
    assert_eq!(world.out.len(), 1);
    (0..2).for_each(|_| miss(&mut world, &second));
    assert!(aborted(&world).is_empty());
    miss(&mut world, &second);
    assert_eq!(aborted(&world), [1], "it hangs by itself");
    world.calm();
    assert_eq!(world.ready(), 4);
}

#[test]
fn what_they_have_in_common_is_told() {
    for (activities, cause) in [
        ([Activity::Runs; 2], "they all keep a CPU busy"),
        ([Activity::Waits; 2], "they all wait: for something that they share, such as a database"),
        ([Activity::WaitsForDisk; 2], "they all wait for a disk"),
        ([Activity::Runs, Activity::Waits], "they have something in common that cannot be seen"),
    ] {
        let mut world = doubted(2, &[0, 1]);
        for (slot, activity) in (0..).zip(activities) {
            let id = ready(&world, slot);
            miss_while(&mut world, &id, activity);
        }
        assert!(guards(&world)[0].contains(cause), "{:?}", guards(&world));
    }
}

#[test]
fn one_is_killed_in_half_a_minute() {
    let mut world = doubted(8, &[0, 1]);
    let (first, second) = (ready(&world, 0), ready(&world, 1));
    (0..3).for_each(|_| miss(&mut world, &first));
    world.end_leaving();
    world.boot_all();
    (0..3).for_each(|_| miss(&mut world, &second));
    assert!(aborted(&world).is_empty());
    world.pass(seconds(14));
    assert!(aborted(&world).is_empty());
    world.pass(seconds(1));
    assert_eq!(aborted(&world), [1]);
}

#[test]
fn full_workers_of_threads_are_not_asked() {
    let hang = Hang { spares_full: true, ..Hang::default() };
    let mut world = World::new();
    world.set(&[("app", WorkerSpec { hang: Some(hang), ..spec(2) })]);
    world.boot_all();
    let id = ready(&world, 0);
    for is_full in [true, false] {
        for _ in 0..12 {
            world.pass(seconds(1));
            world.feed(Input::Progress([(id.spawn, Progress { in_flight: 1, is_full, ..Progress::default() })].into()));
        }
        assert_eq!(world.asked.contains(&id.spawn), !is_full);
    }
}

#[test]
fn switched_off_it_forgets_all_doubts() {
    let mut world = doubted(3, &[0]);
    let id = ready(&world, 0);
    miss(&mut world, &id);
    world.set(&[("app", WorkerSpec { hang: None, ..spec(3) })]);
    assert_eq!(world.ready(), 3);
    wait(&mut world, &[0], 60);
    assert_eq!(world.ready(), 3);
    assert_eq!(world.pool().generations.len(), 1, "and nobody is started for that");
}

#[test]
fn a_suspect_leaves_like_any_other() {
    let mut world = doubted(3, &[2]);
    let id = ready(&world, 2);
    miss(&mut world, &id);
    world.command(Command::SetCount { pool: "app".to_owned(), count: 2 });
    assert_eq!(world.in_state(WorkerState::Draining), *std::slice::from_ref(&id));
    world.notice(&id, Notice::Answered);
    world.command(Command::Drained { worker: id });
    world.end_leaving();
    assert_eq!(world.ends(), [ExitReason::ScaleDown]);
}

#[test]
fn a_question_that_is_never_heard_of_is_put_again() {
    let mut world = doubted(2, &[0]);
    let id = ready(&world, 0);
    world.asked.clear();
    world.pass(seconds(14));
    assert!(world.asked.is_empty());
    world.pass(seconds(1));
    assert!(world.asked.contains(&id.spawn));
    assert_eq!(world.ready(), 2, "it has missed nothing");
}

const USED: &str = "since it is in doubt its processes used 0.00 s of CPU in 15.0 s";

fn findings(world: &World) -> Vec<String> {
    let told = world.events.iter().filter_map(|event| match event {
        Event::Hung(hung) => Some(hung.evidence.clone()),
        _ => None,
    });
    told.flatten().collect()
}

fn hung_with_command() -> World {
    let mut world = World::new();
    let hang = Hang { on_hang: Some(vec!["dump".to_owned(), "{pid}".to_owned()]), ..Hang::default() };
    world.set(&[("app", WorkerSpec { hang: Some(hang), ..spec(3) })]);
    world.boot_all();
    wait(&mut world, &[0], 11);
    let id = ready(&world, 0);
    (0..3).for_each(|_| miss(&mut world, &id));
    world
}

#[test]
fn what_was_seen_is_told_before_the_kill() {
    let mut world = doubted(3, &[0]);
    let id = ready(&world, 0);
    (0..3).for_each(|_| miss(&mut world, &id));
    // Three questions of five seconds.
    assert_eq!(findings(&world), [USED, "it waits"]);
    let used = world.events.iter().find_map(|event| match event {
        Event::Hung(hung) => hung.cpu,
        _ => None,
    });
    assert_eq!(used.map(|used| used.within), Some(seconds(15)));
}

#[test]
fn a_command_is_waited_for_and_its_lines_are_told() {
    let mut world = hung_with_command();
    world.pass(seconds(9));
    assert!(aborted(&world).is_empty() && findings(&world).is_empty());
    assert_eq!(world.booting().len(), 1, "its successor does not wait");
    let hook = world.inquests.keys().next().expect("it runs").clone();
    world.end_inquest(&hook, crate::worker::ExitStatus::Code(1));
    assert_eq!(aborted(&world), [0]);
    assert_eq!(findings(&world), [USED, "it waits", "on_hang: exit code 1", "on_hang: dumped"]);
}

#[test]
fn a_command_that_hangs_is_killed_after_ten_seconds() {
    let mut world = hung_with_command();
    world.pass(seconds(10));
    assert_eq!(aborted(&world), [0]);
    assert_eq!(findings(&world), [USED, "it waits", "on_hang: not over within 10s"]);
    assert_eq!(world.inquests.values().copied().collect::<Vec<_>>(), [true]);
}

#[test]
fn a_command_ends_with_the_supervisor() {
    let mut world = hung_with_command();
    world.command(Command::Shutdown { deadline: seconds(60) });
    assert_eq!(world.inquests.values().copied().collect::<Vec<_>>(), [true]);
}

fn overdue(world: &mut World, slots: &[u32]) {
    // It may be the first that is heard of them.
    let all = slots.iter().map(|slot| (ready(world, *slot).spawn, Progress { overdue: 1, ..Progress::default() }));
    let figures = all.collect();
    world.feed(Input::Progress(figures));
}

#[test]
fn a_thread_that_takes_too_long_is_the_end_of_its_worker() {
    let hang = Hang { spares_full: true, ..Hang::default() };
    let mut world = World::new();
    world.set(&[("app", WorkerSpec { hang: Some(hang), ..spec(4) })]);
    world.boot_all();
    let before = ready(&world, 0);
    world.notice(&before, Notice::Unwell);
    world.notice(&before, Notice::Answered);
    // More than the guard would allow, and at once.
    overdue(&mut world, &[0, 1, 2]);
    assert!(world.asked.is_empty(), "nobody is asked");
    assert_eq!(world.out.len(), 3, "they get no more requests");
    world.pass(seconds(5));
    assert_eq!(aborted(&world).len(), 3);
    world.calm();
    assert_eq!(world.ready(), 4);
    let why = world.failures()[0].message.clone().expect("a reason");
    assert!(why.contains("longer than request_timeout"), "{why}");
    assert_eq!(findings(&world), ["it waits"; 3], "what they used since nobody knows when is not told");
}

#[test]
fn elsewhere_it_costs_the_request_alone() {
    let mut world = World::serving(2);
    overdue(&mut world, &[0]);
    world.pass(seconds(60));
    assert_eq!((world.ready(), world.asked.len()), (2, 0));
}

fn with_watchdog(count: u32) -> World {
    let mut world = World::new();
    let hang = Hang { watchdog: Some(seconds(10)), ..Hang::default() };
    world.set(&[("app", WorkerSpec { hang: Some(hang), ..spec(count) })]);
    world.boot_all();
    world.events.clear();
    world
}

fn is_asked(world: &World, id: &WorkerId) -> bool {
    world.asked.contains(&id.spawn)
}

/// These say every five seconds that they live, for that time.
fn pet(world: &mut World, ids: &[&WorkerId], time: u64) {
    for _ in 0..time / 5 {
        world.pass(seconds(5));
        ids.iter().for_each(|id| world.notice(id, Notice::Alive));
    }
}

#[test]
fn who_does_not_say_that_it_lives_is_asked_and_an_answer_clears_it() {
    let mut world = with_watchdog(2);
    let (silent, other) = (ready(&world, 0), ready(&world, 1));
    pet(&mut world, &[&silent, &other], 60);
    assert!(world.asked.is_empty());
    pet(&mut world, &[&other], 5);
    assert!(world.asked.is_empty(), "not before its time");
    pet(&mut world, &[&other], 5);
    assert_eq!((is_asked(&world, &silent), is_asked(&world, &other)), (true, false));
    world.notice(&silent, Notice::Answered);
    assert!(world.events.is_empty(), "{:?}", world.events);
    pet(&mut world, &[&other], 25);
    assert!(world.asked.is_empty(), "it is trusted for a while");
    pet(&mut world, &[&other], 5);
    assert!(is_asked(&world, &silent), "it still says nothing");
    world.notice(&silent, Notice::Answered);
    pet(&mut world, &[&silent, &other], 60);
    assert!(world.asked.is_empty());
}

#[test]
fn who_says_nothing_from_the_start_is_asked_too() {
    let mut world = with_watchdog(1);
    let id = ready(&world, 0);
    world.pass(seconds(9));
    assert!(!is_asked(&world, &id));
    world.pass(seconds(1));
    assert!(is_asked(&world, &id));
}

#[test]
fn who_is_silent_in_both_ways_is_killed_for_it() {
    let mut world = with_watchdog(3);
    let (silent, others) = (ready(&world, 0), [ready(&world, 1), ready(&world, 2)]);
    pet(&mut world, &[&others[0], &others[1]], 10);
    for _ in 0..3 {
        assert!(aborted(&world).is_empty());
        miss(&mut world, &silent);
        others.iter().for_each(|id| world.notice(id, Notice::Alive));
    }
    assert_eq!(aborted(&world), [0]);
    world.end_leaving();
    let why = world.failures()[0].message.clone().expect("a reason");
    assert!(why.starts_with("it has not said that it lives (WATCHDOG=1) for 10s; then no answer to 3"), "{why}");
}

#[test]
fn who_says_that_something_is_wrong_is_asked_at_once() {
    let mut world = World::serving(2);
    let id = ready(&world, 0);
    world.notice(&id, Notice::Unwell);
    assert!(is_asked(&world, &id), "whether a watchdog is set or not");
    world.notice(&id, Notice::Answered);
    world.pass(seconds(10));
    world.notice(&id, Notice::Unwell);
    assert!(!is_asked(&world, &id), "it is trusted for a while");
    world.pass(seconds(20));
    assert!(is_asked(&world, &id));
    world.notice(&id, Notice::Answered);
    world.notice(&id, Notice::Unwell);
    world.notice(&id, Notice::Alive);
    world.pass(seconds(60));
    assert!(!is_asked(&world, &id), "it has recovered");
}

#[test]
fn a_worker_may_choose_another_time_where_one_is_set() {
    let mut world = with_watchdog(1);
    let id = ready(&world, 0);
    world.pass(seconds(5));
    world.notice(&id, Notice::WatchdogTime(seconds(20)));
    world.pass(seconds(19));
    assert!(!is_asked(&world, &id));
    world.pass(seconds(1));
    assert!(is_asked(&world, &id));
    world.notice(&id, Notice::Answered);
    world.notice(&id, Notice::WatchdogTime(seconds(0)));
    world.pass(seconds(100));
    assert!(!is_asked(&world, &id), "zero is none");
    let mut world = World::serving(1);
    let id = ready(&world, 0);
    world.notice(&id, Notice::WatchdogTime(seconds(1)));
    world.pass(seconds(100));
    assert!(!is_asked(&world, &id), "nobody asked for it");
}

#[test]
fn another_time_of_the_file_is_another_generation() {
    let mut world = with_watchdog(1);
    let id = ready(&world, 0);
    let hang = |watchdog| Some(Hang { watchdog, tries: 2, ..Hang::default() });
    world.set(&[("app", WorkerSpec { hang: hang(Some(seconds(10))), ..spec(1) })]);
    assert_eq!(world.pool().generations.len(), 1, "the rest of it applies live");
    world.set(&[("app", WorkerSpec { hang: hang(None), ..spec(1) })]);
    assert_eq!(world.pool().generations.len(), 2);
    world.pass(seconds(10));
    assert!(is_asked(&world, &id), "the old one was told otherwise");
    world.calm();
    world.pass(seconds(100));
    assert!(world.asked.is_empty());
}
