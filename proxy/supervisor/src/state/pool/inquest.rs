//! What is found out about a hung worker before it is killed: what the thread sees of its processes, and what a command of the
//! operator's says of it. The worker's end waits for both, the command's for so long only.

use std::time::Duration;

use super::Pool;
use crate::event::{Event, Hung};
use crate::hook::HookId;
use crate::state::{Action, Exit, Turn};
use crate::worker::WorkerId;

/// A command that runs about a worker.
#[derive(Debug)]
pub(super) struct Inquest {
    hook: HookId,
    worker: WorkerId,
    until: Duration,
}

impl Pool {
    /// Has a worker looked at that is about to be killed.
    pub(super) fn inquire(&mut self, worker: &WorkerId, command: Option<Vec<String>>, turn: &mut Turn<'_>) {
        turn.act(Action::Inspect(worker.clone()));
        let Some(command) = command else { return };
        *turn.last_spawn += 1;
        let hook = HookId { pool: self.name.clone(), generation: worker.generation, run: *turn.last_spawn };
        turn.act(Action::RunOnHang { hook: hook.clone(), worker: worker.clone(), command });
        let until = turn.now.saturating_add(TIMEOUT);
        self.hangs.inquests.push(Inquest { hook, worker: worker.clone(), until });
    }

    /// Ends commands that take too long, or whose worker is not there to be asked about any more.
    pub(super) fn end_inquests(&mut self, turn: &mut Turn<'_>) {
        let Self { hangs, workers, .. } = self;
        hangs.inquests.retain(|inquest| {
            let worker =
                workers.iter_mut().find(|worker| worker.id == inquest.worker && super::hang::is_watched(worker));
            let is_late = inquest.until <= turn.now;
            if let Some(worker) = worker {
                if !is_late {
                    return true;
                }
                worker.doubts.learn([format!("on_hang: not over within {TIMEOUT:?}")]);
            }
            turn.act(Action::KillHook(inquest.hook.clone()));
            false
        });
    }

    /// The end of a command. Whether it was one of these.
    pub(super) fn inquest_ended(&mut self, hook: &HookId, exit: &Exit) -> bool {
        let Some(at) = self.hangs.inquests.iter().position(|inquest| inquest.hook == *hook) else { return false };
        let inquest = self.hangs.inquests.remove(at);
        if let Some(worker) = self.worker(&inquest.worker) {
            let problem = exit.message.iter().map(|problem| format!("on_hang: {problem}"));
            let lines = exit.last_lines.iter().map(|line| format!("on_hang: {line}"));
            worker.doubts.learn(problem.chain([format!("on_hang: {}", exit.status)]).chain(lines));
        }
        true
    }

    pub(super) fn is_inquired(&self, worker: &WorkerId) -> bool {
        self.hangs.inquests.iter().any(|inquest| inquest.worker == *worker)
    }

    pub(super) fn inquest_deadline(&self) -> Option<Duration> {
        self.hangs.inquests.iter().map(|inquest| inquest.until).min()
    }

    /// Tells what was found out about a worker whose end has come.
    pub(super) fn tell_findings(&mut self, at: usize, turn: &mut Turn<'_>) {
        let worker = &mut self.workers[at];
        let (problem, evidence) = (worker.doubts.text(), worker.doubts.findings());
        let cpu = worker.doubts.cpu();
        turn.tell(Event::Hung(Hung { worker: worker.id.clone(), pid: worker.pid, problem, cpu, evidence }));
    }
}

/// A dump takes less; a command that hangs like the worker must not keep it alive.
const TIMEOUT: Duration = Duration::from_secs(10);
