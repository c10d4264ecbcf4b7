//! Workers that do not answer: who is in doubt, what is made of their silence, and when one of them is killed.
//!
//! A doubt costs nothing but a question, so it may be wrong: requests wait and nothing comes, a connection was refused, or the
//! worker does not say that it lives ([`Watchdog`]). What
//! decides is the answer to a question of our own. The first one without an answer takes the worker out of rotation, the last
//! one makes it hung, and it is asked on until it is killed: whoever answers is back. A worker that is hung is killed once
//! its successor has been started, one at a time; none is killed while so many are silent that the cause lies elsewhere.

use std::time::Duration;

use tidegate_config::model::Hang;

use super::Pool;
use super::inquest::Inquest;
use super::watchdog::{Complaint, Watchdog};
use crate::cpu_use::CpuUse;
use crate::event::Event;
use crate::progress::Progress;
use crate::state::worker::Worker;
use crate::state::{Action, Evidence, Turn};
use crate::worker::{ExitReason, WorkerId, WorkerState};

/// A question that was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// What came instead.
    pub problem: String,
    /// What its process was doing.
    pub activity: Activity,
}

/// What a process does, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// It runs, or would if it had a CPU.
    Runs,
    /// It waits for something that may be long in coming.
    Waits,
    /// It waits for a disk, or for what looks like one.
    WaitsForDisk,
    /// A signal or a debugger has stopped it.
    Stopped,
    /// Not known.
    Unknown,
}

impl Activity {
    /// In words, of several workers.
    const fn shared_cause(self) -> &'static str {
        match self {
            Self::Runs => "they all keep a CPU busy: the same endless work, or fewer CPUs than workers need",
            Self::Waits => "they all wait: for something that they share, such as a database or another service",
            Self::WaitsForDisk => "they all wait for a disk or a network file system",
            Self::Stopped => "they are all stopped, by a signal or a debugger",
            Self::Unknown => "they have something in common that cannot be seen from here",
        }
    }
}

/// Why a worker is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Requests are under way, and nothing has come back since.
    Quiet(Duration),
    /// It did not take a connection.
    Unreachable,
    /// It took longer for a request than it may, on the thread that it serves with.
    Overdue,
    /// It said so, or said nothing.
    Watchdog(Complaint),
}

/// A doubt, and what came of it so far.
#[derive(Debug)]
struct Doubt {
    cause: Cause,
    /// When it began.
    since: Duration,
    /// Questions in a row without an answer.
    missed: u32,
    /// Those of them that speak against it: none of a time when so many were silent.
    against: u32,
    /// To the last of them.
    silence: Option<Silence>,
    /// When the present question was put, until its answer or the end of its time is heard of.
    asked: Option<Duration>,
    /// When it was decided that it is killed.
    condemned: Option<Duration>,
}

/// What speaks for and against a worker's life.
#[derive(Debug, Default)]
pub(in crate::state) struct Doubts {
    /// At the last look; all counts of a new worker begin at none.
    last: Progress,
    quiet_since: Option<Duration>,
    /// What it says of itself.
    pub(in crate::state) watchdog: Watchdog,
    is_unreachable: bool,
    /// It took longer for a request than it may.
    is_overdue: bool,
    /// Not doubted again before.
    trusted_until: Duration,
    doubt: Option<Doubt>,
    /// It has shown that it lives since the last look.
    has_answered: bool,
    /// What was found out about it.
    findings: Vec<String>,
    /// What it used while it was in doubt.
    cpu: Option<CpuUse>,
}

impl Doubts {
    /// Takes what the data plane sees of it.
    pub(super) fn note(&mut self, progress: Progress, spares_full: bool, now: Duration) {
        let last = std::mem::replace(&mut self.last, progress);
        let has_spoken = progress.heard != last.heard;
        let is_asked = progress.in_flight > progress.streams || progress.requests > last.requests;
        // One whose threads are taken may work on what its clients have given up.
        let may_be_busy = spares_full && (progress.is_full || !is_asked);
        if has_spoken || may_be_busy {
            self.quiet_since = None;
        } else if is_asked {
            // It lasts when nobody waits any more: tries end, and an endpoint that was overtaken gets no requests.
            self.quiet_since.get_or_insert(now);
        }
        self.is_overdue |= progress.overdue > last.overdue;
        self.has_answered |= has_spoken && self.doubt.is_some();
        self.is_unreachable |= progress.unreachable > last.unreachable && now >= self.trusted_until;
    }

    pub(in crate::state) fn answered(&mut self) {
        self.has_answered = self.doubt.is_some();
    }

    pub(in crate::state) fn missed(&mut self, silence: Silence) {
        if let Some(doubt) = self.doubt.as_mut().filter(|doubt| doubt.asked.is_some()) {
            doubt.asked = None;
            doubt.missed = doubt.missed.saturating_add(1);
            doubt.against = doubt.against.saturating_add(1);
            doubt.silence = Some(silence);
        }
    }

    /// Why it is to be doubted now, if it is.
    fn cause(&self, policy: &Hang, now: Duration) -> Option<Cause> {
        if self.doubt.is_some() || now < self.trusted_until {
            return None;
        }
        let quiet = self.quiet_since.filter(|since| now >= since.saturating_add(policy.suspect_after));
        let unreachable = || self.is_unreachable.then_some(Cause::Unreachable);
        let complaint = || self.watchdog.complaint(now).map(Cause::Watchdog);
        quiet.map(Cause::Quiet).or_else(unreachable).or_else(complaint)
    }

    fn begin(&mut self, cause: Cause, now: Duration) {
        self.is_unreachable = false;
        self.has_answered = false;
        self.doubt =
            Some(Doubt { cause, since: now, missed: 0, against: 0, silence: None, asked: None, condemned: None });
    }

    fn end(&mut self, trusted_until: Duration) {
        let watchdog = self.watchdog.calmed();
        *self = Self { last: self.last, watchdog, trusted_until, ..Self::default() };
    }

    pub(in crate::state) fn learn(&mut self, lines: impl IntoIterator<Item = String>) {
        self.findings.extend(lines);
    }

    /// What it used counts from the first question on, and who is condemned unasked was asked none.
    pub(in crate::state) fn learn_evidence(&mut self, evidence: Evidence) {
        let Evidence { lines, cpu } = evidence;
        self.cpu = cpu.filter(|_| self.doubt.as_ref().is_some_and(|doubt| doubt.cause != Cause::Overdue));
        let used = self.cpu.map(|cpu| format!("since it is in doubt its processes {cpu}"));
        self.learn(used.into_iter().chain(lines));
    }

    pub(super) fn cpu(&self) -> Option<CpuUse> {
        self.cpu
    }

    fn is_looked_at(&self) -> bool {
        !self.findings.is_empty()
    }

    pub(super) fn findings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.findings)
    }

    fn is_condemned(&self) -> bool {
        self.doubt.as_ref().is_some_and(|doubt| doubt.condemned.is_some())
    }

    /// What there is against it.
    pub(super) fn text(&self) -> String {
        let Some(doubt) = &self.doubt else { return "it did not answer".to_owned() };
        let why = match doubt.cause {
            Cause::Quiet(since) => {
                format!("requests were under way and nothing came back for {:?}", doubt.since.saturating_sub(since))
            }
            Cause::Unreachable => "it did not take a connection".to_owned(),
            Cause::Watchdog(complaint) => complaint.text(),
            Cause::Overdue => {
                return "a request took longer than request_timeout, on a thread that serves others".to_owned();
            }
        };
        let problem = doubt.silence.as_ref().map_or("not asked", |silence| silence.problem.as_str());
        let questions = if doubt.missed == 1 { "question" } else { "questions" };
        format!("{why}; then no answer to {} {questions}: {problem}", doubt.missed)
    }
}

/// What a pool remembers of its hung workers.
#[derive(Debug, Default)]
pub(super) struct Hangs {
    policy: Option<Hang>,
    /// When the last one was condemned.
    last_kill: Option<Duration>,
    /// None is killed: too many are silent.
    is_guarded: bool,
    /// Commands that run about some.
    pub(super) inquests: Vec<Inquest>,
}

impl Hangs {
    pub(super) fn spares_full(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.spares_full)
    }
}

impl Pool {
    /// Takes over when workers count as hung; it holds for those that serve too.
    pub(super) fn set_hang(&mut self, policy: Option<Hang>) {
        self.hangs.is_guarded &= policy.is_some();
        self.hangs.policy = policy;
    }

    /// Ends doubts about those that have answered.
    pub(super) fn hear(&mut self, turn: &mut Turn<'_>) {
        match self.hangs.policy.as_ref().map(Hang::trust) {
            Some(trust) => {
                let trusted_until = turn.now.saturating_add(trust);
                self.acquit(turn, |worker| worker.doubts.has_answered, trusted_until);
            }
            None => self.acquit(turn, |_| true, Duration::ZERO),
        }
    }

    /// Asks those in doubt, and draws the consequences: whether somebody is to leave.
    pub(super) fn watch(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(policy) = self.hangs.policy.clone() else { return false };
        for worker in self.workers.iter_mut().filter(|worker| is_watched(worker)) {
            if let Some(cause) = worker.doubts.cause(&policy, turn.now) {
                worker.doubts.begin(cause, turn.now);
            }
            interrogate(worker, &policy, turn);
        }
        let is_any_overdue = self.condemn_overdue(&policy, turn);
        self.guard(policy.guard, turn);
        self.shun();
        for worker in self.workers.iter_mut().filter(|worker| is_watched(worker)) {
            worker.rotate(turn);
        }
        let is_condemned = self.condemn(&policy, turn);
        self.execute(turn) || is_condemned || is_any_overdue
    }

    /// Ends doubts about workers that are not condemned.
    fn acquit(&mut self, turn: &mut Turn<'_>, which: impl Fn(&Worker) -> bool, trusted_until: Duration) {
        let doubted = |worker: &&mut Worker| worker.doubts.doubt.is_some() && !worker.doubts.is_condemned();
        for worker in self.workers.iter_mut().filter(doubted).filter(|worker| which(worker)) {
            worker.doubts.end(trusted_until);
            if worker.state == WorkerState::Suspect {
                worker.doubt(WorkerState::Ready, turn);
                worker.shunned = None;
                worker.rotate(turn);
            }
        }
    }

    /// Whether so many are silent that it is not for them to be killed.
    fn guard(&mut self, share: u8, turn: &mut Turn<'_>) {
        let watched: Vec<&Worker> = self.workers.iter().filter(|worker| is_watched(worker)).collect();
        let suspects: Vec<&Worker> = watched.iter().copied().filter(|worker| is_suspect(worker)).collect();
        let is_guarded = suspects.len() >= 2 && suspects.len() * 100 >= usize::from(share) * watched.len();
        if is_guarded == self.hangs.is_guarded {
            return;
        }
        let pool = self.name.clone();
        turn.tell(if is_guarded {
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let cause = shared_cause(&suspects);
            Event::HangGuard { pool, suspects: number(suspects.len()), of: number(watched.len()), cause }
        } else {
            Event::HangGuardOver { pool }
        });
        self.hangs.is_guarded = is_guarded;
        // When what they share is over, not all of them can answer at the same moment.
        for doubt in self.workers.iter_mut().filter_map(|worker| worker.doubts.doubt.as_mut()) {
            doubt.against = 0;
        }
    }

    /// Keeps requests from suspects, unless there are too many of them.
    fn shun(&mut self) {
        for worker in self.workers.iter_mut().filter(|worker| worker.state == WorkerState::Suspect) {
            let is_spared = self.hangs.is_guarded && !worker.doubts.is_condemned();
            worker.shunned = (!is_spared).then(|| worker.doubts.text());
        }
    }

    /// Where a request takes a thread, one that takes longer than it may is the end of its worker: that is a limit, which
    /// somebody has set, and no suspicion. So neither the guard nor the time between two kills matters.
    fn condemn_overdue(&mut self, policy: &Hang, turn: &mut Turn<'_>) -> bool {
        let mut overdue: Vec<WorkerId> = Vec::new();
        for worker in self.workers.iter_mut().filter(|worker| is_watched(worker)) {
            let is_due = std::mem::take(&mut worker.doubts.is_overdue) && policy.spares_full;
            if !is_due || worker.doubts.is_condemned() {
                continue;
            }
            worker.doubts.begin(Cause::Overdue, turn.now);
            if worker.state == WorkerState::Ready {
                worker.doubt(WorkerState::Suspect, turn);
            }
            sentence(worker, turn.now);
            overdue.push(worker.id.clone());
        }
        for worker in &overdue {
            self.inquire(worker, policy.on_hang.clone(), turn);
        }
        !overdue.is_empty()
    }

    /// Decides that the one that has been hung for longest is killed, and asks for its successor.
    fn condemn(&mut self, policy: &Hang, turn: &mut Turn<'_>) -> bool {
        if self.hangs.is_guarded || self.next_kill_at().is_some_and(|at| at > turn.now) {
            return false;
        }
        let hung = self.workers.iter_mut().filter(|worker| is_hung(worker, policy));
        let Some(worker) = hung.min_by_key(|worker| (worker.since, worker.id.spawn)) else { return false };
        sentence(worker, turn.now);
        self.hangs.last_kill = Some(turn.now);
        let id = worker.id.clone();
        self.inquire(&id, policy.on_hang.clone(), turn);
        true
    }

    /// Ends those whose successor has been started, or could not be in time.
    fn execute(&mut self, turn: &mut Turn<'_>) -> bool {
        let mut is_any = false;
        for at in 0..self.workers.len() {
            let worker = &self.workers[at];
            let Some(due) = execution(worker) else { continue };
            let is_followed = self.successor(worker).is_some_and(|next| next.pid.is_some());
            let is_inquired = self.is_inquired(&worker.id);
            let is_ripe = is_followed && worker.doubts.is_looked_at();
            if (is_ripe || due <= turn.now) && !is_inquired {
                self.tell_findings(at, turn);
                self.workers[at].abort(turn);
                is_any = true;
            }
        }
        is_any
    }

    fn next_kill_at(&self) -> Option<Duration> {
        let interval = self.hangs.policy.as_ref()?.kill_interval;
        Some(self.hangs.last_kill?.saturating_add(interval))
    }

    /// When time alone has [`Pool::watch`] do something.
    pub(super) fn hang_deadline(&self, now: Duration) -> Option<Duration> {
        let policy = self.hangs.policy.as_ref()?;
        let waits = self.workers.iter().any(|worker| is_hung(worker, policy)) && !self.hangs.is_guarded;
        let kill = self.next_kill_at().filter(|_| waits);
        let executions = self.workers.iter().filter_map(execution);
        let doubts = self.workers.iter().filter(|worker| is_watched(worker)).filter_map(|worker| {
            let doubts = &worker.doubts;
            let quiet = doubts.quiet_since.map(|since| since.saturating_add(policy.suspect_after));
            let due = quiet.into_iter().chain(doubts.watchdog.due()).min().filter(|_| doubts.doubt.is_none())?;
            Some(due.max(doubts.trusted_until))
        });
        let asked = self.workers.iter().filter(|worker| is_watched(worker)).filter_map(|worker| {
            let doubt = worker.doubts.doubt.as_ref().filter(|doubt| doubt.condemned.is_none())?;
            Some(doubt.asked?.saturating_add(lost_after(policy)))
        });
        executions.chain(doubts).chain(asked).chain(kill).filter(|at| *at > now).min()
    }
}

/// Puts the next question to a worker in doubt; the first one that it has not answered makes it a suspect.
fn interrogate(worker: &mut Worker, policy: &Hang, turn: &mut Turn<'_>) {
    let Some(doubt) = worker.doubts.doubt.as_mut().filter(|doubt| doubt.condemned.is_none()) else { return };
    // What is never heard of must not keep it in doubt for ever.
    if doubt.asked.is_some_and(|at| turn.now < at.saturating_add(lost_after(policy))) {
        return;
    }
    let is_first = doubt.missed == 0 && doubt.asked.is_none();
    doubt.asked = Some(turn.now);
    if doubt.missed > 0 && worker.state == WorkerState::Ready {
        worker.doubt(WorkerState::Suspect, turn);
    }
    let (path, timeout) = (policy.path.clone(), policy.try_timeout);
    turn.act(Action::Ask { worker: worker.id.clone(), path, timeout, is_first });
}

/// It is to be killed, and followed by another one.
fn sentence(worker: &mut Worker, now: Duration) {
    worker.successor_wanted = Some(ExitReason::Hang);
    if let Some(doubt) = &mut worker.doubts.doubt {
        doubt.condemned = Some(now);
    }
}

/// When nothing at all is heard of a question.
fn lost_after(policy: &Hang) -> Duration {
    policy.try_timeout.saturating_mul(2).saturating_add(PATIENCE)
}

pub(super) fn is_watched(worker: &Worker) -> bool {
    matches!(worker.state, WorkerState::Ready | WorkerState::Suspect)
}

/// Whether it is silent, as far as anybody has asked.
fn is_suspect(worker: &Worker) -> bool {
    let is_overdue = worker.doubts.doubt.as_ref().is_some_and(|doubt| doubt.cause == Cause::Overdue);
    worker.state == WorkerState::Suspect && !is_overdue
}

/// Whether it has been asked often enough, and nothing was decided about it.
fn is_hung(worker: &Worker, policy: &Hang) -> bool {
    let is_open = |doubt: &&Doubt| doubt.against >= policy.tries && doubt.condemned.is_none();
    worker.state == WorkerState::Suspect && worker.doubts.doubt.as_ref().filter(is_open).is_some()
}

/// When one that is condemned is killed, whether it has a successor or not.
fn execution(worker: &Worker) -> Option<Duration> {
    let condemned = worker.doubts.doubt.as_ref()?.condemned?;
    is_watched(worker).then(|| condemned.saturating_add(PATIENCE))
}

/// What all of them were doing when they did not answer.
fn shared_cause(suspects: &[&Worker]) -> String {
    let doubts = suspects.iter().filter_map(|worker| worker.doubts.doubt.as_ref()?.silence.as_ref());
    let mut activities = doubts.map(|silence| silence.activity);
    let first = activities.next().unwrap_or(Activity::Unknown);
    let activity = if activities.all(|other| other == first) { first } else { Activity::Unknown };
    activity.shared_cause().to_owned()
}

/// How long a hung worker waits for its successor to be started: others may be booting, or being replaced.
const PATIENCE: Duration = Duration::from_secs(5);
