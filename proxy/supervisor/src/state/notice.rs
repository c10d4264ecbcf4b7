//! What is heard of a worker beside its start, its readiness and its end.

use std::time::Duration;

use super::Turn;
use super::pool::Pool;
use super::pool::Silence;
use crate::cpu_use::CpuUse;
use crate::worker::{ExitReason, WorkerId, WorkerState};

/// One thing that is heard of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// How it is, in its own words.
    Status(String),
    /// It says that it lives.
    Alive,
    /// It says that something is wrong with it.
    Unwell,
    /// It says how long it may not say that it lives, from now on, if that is asked of it at all; zero is as long as it likes.
    WatchdogTime(Duration),
    /// It shall get no requests for the time being, and why; or it may again. Its process goes on either way.
    Rotation(Option<String>),
    /// It has shown that it is ready, and is asked for what warms it up.
    Warming,
    /// It did not answer that, and why.
    NotWarm(String),
    /// Its boot takes so much longer, from now, than it would otherwise.
    ExtendBoot(Duration),
    /// What its processes do; answers [`super::Action::Inspect`].
    Evidence(Evidence),
    /// Asked in doubt, it has answered.
    Answered,
    /// Asked in doubt, it has not.
    Silent(Silence),
}

/// What is seen of a worker's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What they do, for people.
    pub lines: Vec<String>,
    /// What they have used since the first question of the last doubt.
    pub cpu: Option<CpuUse>,
}

impl Pool {
    pub(super) fn noticed(&mut self, id: &WorkerId, notice: Notice, turn: &mut Turn<'_>) {
        let Some(worker) = self.worker(id).filter(|worker| worker.state.has_process()) else { return };
        match notice {
            Notice::Status(text) => worker.says = Some(text),
            Notice::Alive => {
                worker.alive_at = Some(turn.now);
                worker.doubts.watchdog.hear(turn.now);
            }
            Notice::Unwell => worker.doubts.watchdog.trigger(),
            Notice::WatchdogTime(time) => worker.doubts.watchdog.change(time, turn.now),
            Notice::ExtendBoot(time) => {
                let until = turn.now.saturating_add(time);
                worker.boot_until = worker.boot_until.max(Some(until));
            }
            Notice::Rotation(out) if matches!(worker.state, WorkerState::Ready | WorkerState::Suspect) => {
                worker.failing = out;
                worker.rotate(turn);
            }
            Notice::Rotation(_) => {}
            Notice::Evidence(evidence) => worker.doubts.learn_evidence(evidence),
            Notice::Answered => worker.doubts.answered(),
            Notice::Silent(silence) => worker.doubts.missed(silence),
            Notice::Warming if worker.state == WorkerState::Starting => worker.go(WorkerState::Warming, turn),
            Notice::NotWarm(why) if worker.state == WorkerState::Warming => {
                worker.trouble = Some(why);
                worker.kill_for(ExitReason::BootExit, turn);
            }
            Notice::Warming | Notice::NotWarm(_) => {}
        }
    }
}
