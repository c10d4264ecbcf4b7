//! What happened to workers lately: a bounded memory of events, numbered, that several can read and wait on.
//!
//! Written on the supervisor's thread, which must not wait: a short lock, and a wake-up that costs nothing when nobody
//! listens.

use crate::admin::follow::ENDED;
use crate::admin::view;
use crate::observe::access_log::Timestamps;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tidegate_supervisor::{Cause, Event, Failure, HookFailure, WorkerId};
use tokio::sync::watch;

/// The memory.
#[derive(Default)]
pub(crate) struct Journal {
    /// Guards the events, for as long as it takes to add one or copy some.
    ring: Mutex<Ring>,
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<view::Event>,
    last: u64,
    times: Timestamps,
}

impl Journal {
    /// Remembers an event, unless the transition beside it tells the same. Never waits.
    pub(crate) fn note(&self, event: &Event, now: SystemTime) {
        let Some(mut entry) = entry(event) else { return };
        let number = {
            let mut ring = self.ring();
            let mut time = Vec::new();
            ring.times.push_precise(&mut time, now);
            entry.time = String::from_utf8_lossy(&time).into_owned();
            ring.push(entry)
        };
        self.news.send_replace(number);
    }

    /// Number of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.ring().last
    }

    /// The events after that number, oldest first. Some are missing when the first one has another number than the next.
    pub(crate) fn after(&self, number: u64) -> Vec<view::Event> {
        let ring = self.ring();
        let known = ring.events.iter().rev().take_while(|event| event.number > number).count();
        ring.events.range(ring.events.len() - known..).cloned().collect()
    }

    /// No event comes any more: who waits for one ends.
    pub(crate) fn end(&self) {
        self.news.send_replace(ENDED);
    }

    /// Changes with every event.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, mut entry: view::Event) -> u64 {
        self.last += 1;
        entry.number = self.last;
        if self.events.len() == REMEMBERED {
            self.events.pop_front();
        }
        self.events.push_back(entry);
        self.last
    }
}

/// An event in the words of the admin endpoint. `None` for what only the data plane needs: a transition says it too.
fn entry(event: &Event) -> Option<view::Event> {
    Some(match event {
        Event::Ready { .. } | Event::Drain { .. } | Event::Gone { .. } => return None,
        Event::Transition(change) => view::Event {
            pid: change.pid,
            from: Some(change.from.word().to_owned()),
            to: Some(change.to.word().to_owned()),
            reason: change.reason.map(|reason| reason.word().to_owned()),
            ms: Some(millis(change.in_state)),
            ..about(&change.worker, "transition")
        },
        Event::Rotation { worker, out } => {
            let name = if out.is_some() { "out_of_rotation" } else { "in_rotation" };
            view::Event { message: out.clone(), ..about(worker, name) }
        }
        Event::Failure(failure) => failed(failure, "failure"),
        Event::RestartFailed(failure) => failed(failure, "restart_failed"),
        Event::GenerationFailed { pool, generation, cause } => {
            let event = match cause {
                Cause::Worker(failure) => failed(failure, "generation_failed"),
                Cause::PreStart(failure) => hook_failed(failure, "generation_failed"),
                Cause::Canary(_) => {
                    view::Event { message: Some(cause.to_string()), ..of_pool(pool, "generation_failed") }
                }
            };
            view::Event { generation: Some(*generation), ..event }
        }
        Event::HookStarted { hook } => {
            view::Event { generation: Some(hook.generation), ..of_pool(&hook.pool, "pre_start_began") }
        }
        Event::HookEnded { hook, status, took } => view::Event {
            generation: Some(hook.generation),
            ms: Some(millis(*took)),
            status: Some(status.to_string()),
            ..of_pool(&hook.pool, "pre_start_ended")
        },
        Event::HookFailed(failure) => hook_failed(failure, "pre_start_failed"),
        Event::GenerationActive { pool, generation } => {
            view::Event { generation: Some(*generation), ..of_pool(pool, "generation_active") }
        }
        Event::DeployBegan { pool, generation } => {
            view::Event { generation: Some(*generation), ..of_pool(pool, "deploy_began") }
        }
        Event::DeployPlanned { pool, generation, plan } => view::Event {
            generation: Some(*generation),
            reason: Some(plan.way.word().to_owned()),
            ..of_pool(pool, "deploy_planned")
        },
        Event::CanaryHeld { pool, generation, time } => {
            view::Event { generation: Some(*generation), ms: Some(millis(*time)), ..of_pool(pool, "canary_held") }
        }
        Event::CanaryOver { .. } => return None,
        Event::CanaryJudged { pool, generation, comparison } => view::Event {
            generation: Some(*generation),
            reason: Some(comparison.verdict.word().to_owned()),
            message: Some(comparison.to_string()),
            ..of_pool(pool, "canary")
        },
        Event::DeployEnded(end) => view::Event {
            generation: Some(end.generation),
            reason: Some(end.outcome.word().to_owned()),
            ms: Some(millis(end.took)),
            message: end.failure.as_ref().map(ToString::to_string),
            ..of_pool(&end.pool, "deploy")
        },
        Event::Killed { worker } => about(worker, "killed"),
        Event::NotRestarted { worker } => about(worker, "not_restarted"),
        Event::RecyclePostponed { worker, reason } => {
            view::Event { reason: Some(reason.word().to_owned()), ..about(worker, "recycle_postponed") }
        }
        Event::RecycleTooOften { worker, reason } => {
            view::Event { reason: Some(reason.word().to_owned()), ..about(worker, "recycle_too_often") }
        }
        Event::Scaled { pool, from, to, by } => view::Event {
            from: Some(from.to_string()),
            to: Some(to.to_string()),
            reason: Some(by.word().to_owned()),
            ..of_pool(pool, "scaled")
        },
        Event::Hung(hung) => view::Event {
            pid: hung.pid,
            ms: hung.cpu.map(|cpu| millis(cpu.within)),
            cpu_ms: hung.cpu.map(|cpu| millis(cpu.used)),
            message: Some(hung.problem.clone()),
            lines: last_lines(&hung.evidence),
            ..about(&hung.worker, "hung")
        },
        Event::HangGuard { pool, suspects, of, cause } => {
            let message = format!("{suspects} of {of} workers do not answer: {cause}");
            view::Event { message: Some(message), ..of_pool(pool, "hang_guard") }
        }
        Event::HangGuardOver { pool } => of_pool(pool, "hang_guard_over"),
        Event::PoolState { pool, from, to } => {
            view::Event { from: Some(from.word().to_owned()), to: Some(to.word().to_owned()), ..of_pool(pool, "pool") }
        }
        Event::Fault { message } => {
            view::Event { event: "fault".to_owned(), message: Some(message.clone()), ..view::Event::default() }
        }
        Event::Stopped => view::Event { event: "stopped".to_owned(), ..view::Event::default() },
    })
}

fn of_pool(pool: &str, event: &str) -> view::Event {
    view::Event { event: event.to_owned(), upstream: Some(pool.to_owned()), ..view::Event::default() }
}

fn about(worker: &WorkerId, event: &str) -> view::Event {
    let WorkerId { pool, slot, generation, spawn } = worker;
    let (slot, generation, spawn) = (Some(*slot), Some(*generation), Some(*spawn));
    view::Event { slot, generation, spawn, ..of_pool(pool, event) }
}

fn failed(failure: &Failure, event: &str) -> view::Event {
    view::Event {
        pid: failure.pid,
        reason: Some(failure.reason.word().to_owned()),
        ms: Some(millis(failure.uptime)),
        status: Some(failure.status.to_string()),
        message: failure.message.clone(),
        lines: last_lines(&failure.last_lines),
        ..about(&failure.worker, event)
    }
}

fn hook_failed(failure: &HookFailure, event: &str) -> view::Event {
    view::Event {
        generation: Some(failure.generation),
        ms: Some(millis(failure.took)),
        status: Some(failure.status.to_string()),
        message: failure.message.clone(),
        lines: last_lines(&failure.last_lines),
        ..of_pool(&failure.pool, event)
    }
}

/// As many of the last lines as fit: a thousand events must not hold fifty long lines each.
fn last_lines(lines: &[String]) -> Vec<String> {
    let mut room = REMEMBERED_OUTPUT;
    let fits = |line: &&String| {
        let fits = line.len() <= room;
        room = room.saturating_sub(line.len());
        fits
    };
    let count = lines.iter().rev().take_while(fits).count();
    lines[lines.len() - count..].to_vec()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Events at a time.
const REMEMBERED: usize = 1_000;
/// Bytes of output with one event.
const REMEMBERED_OUTPUT: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidegate_supervisor::{ExitReason, ExitStatus, Transition, WorkerState};

    fn worker() -> WorkerId {
        WorkerId { pool: Arc::from("app"), slot: 1, generation: 2, spawn: 3 }
    }

    fn transition() -> Event {
        Event::Transition(Transition {
            worker: worker(),
            pid: Some(42),
            from: WorkerState::Ready,
            to: WorkerState::Draining,
            reason: Some(ExitReason::Operator),
            in_state: Duration::from_millis(1_500),
        })
    }

    #[test]
    fn an_event_is_told_in_plain_words() {
        let journal = Journal::default();
        journal.note(&transition(), SystemTime::UNIX_EPOCH + Duration::from_millis(7));
        journal.note(&Event::Drain { worker: worker() }, SystemTime::UNIX_EPOCH);
        let told = serde_json::to_value(journal.after(0)).unwrap();
        let expected = serde_json::json!([{
            "number": 1, "time": "1970-01-01T00:00:00.007Z", "event": "transition", "upstream": "app", "slot": 1,
            "generation": 2, "spawn": 3, "pid": 42, "from": "ready", "to": "draining", "reason": "operator", "ms": 1500,
        }]);
        assert_eq!(told, expected);
    }

    #[test]
    fn the_last_thousand_are_kept_and_read_on_from_any_number() {
        let journal = Journal::default();
        let mut news = journal.news();
        for _ in 0..REMEMBERED + 5 {
            journal.note(&Event::Stopped, SystemTime::UNIX_EPOCH);
        }
        assert_eq!((journal.last(), *news.borrow_and_update()), (1_005, 1_005));
        let numbers = |after| journal.after(after).iter().map(|event| event.number).collect::<Vec<_>>();
        assert_eq!(numbers(0), (6..=1_005).collect::<Vec<_>>());
        assert_eq!(numbers(1_003), [1_004, 1_005]);
        assert_eq!(numbers(1_005), [0_u64; 0]);
        assert_eq!(numbers(u64::MAX), [0_u64; 0]);
    }

    #[test]
    fn a_failure_keeps_the_end_of_its_output() {
        let failure = Failure {
            worker: worker(),
            pid: Some(42),
            reason: ExitReason::BootExit,
            status: ExitStatus::Code(1),
            message: None,
            uptime: Duration::ZERO,
            last_lines: (0..50).map(|line| format!("{line:01000}")).collect(),
        };
        let lines = entry(&Event::Failure(failure)).unwrap().lines;
        assert_eq!((lines.len(), lines.last().map(String::len)), (8, Some(1_000)));
        assert!(lines[7].ends_with("49"), "the last ones");
    }
}
