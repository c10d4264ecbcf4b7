//! Whether one worker may get requests: first everything it has to show before its first one, later what can be asked
//! again. Never waits: whoever polls calls `advance` when a socket or a deadline is due.
//!
//! Whatever the condition is, the end of it is a connection to the worker's address whose other end is the worker: what
//! was only said or timed may be true of a program that listens elsewhere.

pub(crate) mod notify;
mod probe;
mod question;
mod recheck;
mod warmup;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::PollFlags;
use tidegate_config::model::{LinePattern, Readiness};

use crate::peer::Expected;
use crate::worker::WorkerAddress;
use probe::Probe;
pub(crate) use question::Question;
pub(crate) use recheck::Recheck;
pub(crate) use warmup::Warmup;

/// Where a worker is asked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: WorkerAddress,
    pub(crate) expected: Expected,
}

/// What stands between a worker and its first request.
#[derive(Debug)]
pub(crate) struct Gate {
    readiness: Readiness,
    /// Patterns that no line has matched so far.
    unmatched: Vec<LinePattern>,
    is_notice_due: bool,
    /// Set once its command runs.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    target: Target,
    /// When the last delay is over.
    patience: Duration,
    /// Those that have not passed yet.
    probes: Vec<Probe>,
    /// The connection at the end, where no probe makes one.
    is_connection_due: bool,
}

impl Gate {
    pub(crate) fn new(readiness: &Readiness) -> Self {
        let patterns = readiness.parts().filter_map(|part| match part {
            Readiness::Log(pattern) => Some(pattern.clone()),
            _ => None,
        });
        Self {
            readiness: readiness.clone(),
            unmatched: patterns.collect(),
            is_notice_due: readiness.is_notified(),
            begun: None,
        }
    }

    /// The command runs from now on. What it prints or says may have been heard before.
    pub(crate) fn begin(&mut self, target: Target, now: Duration) {
        let delays = self.readiness.parts().filter_map(|part| match part {
            Readiness::Delay(time) => Some(*time),
            _ => None,
        });
        let probes = probes(&self.readiness, &target, now);
        let is_connection_due = probes.is_empty();
        let patience = now.saturating_add(delays.max().unwrap_or_default());
        self.begun = Some(Begun { target, patience, probes, is_connection_due });
    }

    /// Takes a line of its output.
    pub(crate) fn line(&mut self, line: &str) {
        self.unmatched.retain(|pattern| !pattern.is_match(line));
    }

    /// It said that it is ready.
    pub(crate) fn notified(&mut self) {
        self.is_notice_due = false;
    }

    /// The sockets to poll, and for what.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.begun.iter().flat_map(|begun| &begun.probes).filter_map(Probe::interest)
    }

    /// When [`Gate::advance`] has something to do although no socket has anything to say.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let begun = self.begun.as_ref()?;
        let delay = Some(begun.patience).filter(|_| begun.is_connection_due && !self.waits_for_word());
        begun.probes.iter().map(Probe::deadline).chain(delay).min()
    }

    /// Goes on as far as it can. True once the worker is ready.
    pub(crate) fn advance(&mut self, now: Duration) -> bool {
        let waits = self.waits_for_word();
        let Some(begun) = &mut self.begun else { return false };
        begun.probes.retain_mut(|probe| !probe.advance(now));
        if waits || now < begun.patience {
            return false;
        }
        if begun.is_connection_due {
            begun.is_connection_due = false;
            let mut probe = Probe::new(&begun.target, None, now);
            if !probe.advance(now) {
                begun.probes.push(probe);
            }
        }
        begun.probes.is_empty()
    }

    /// What it has not shown so far, for who asks why it is not ready.
    pub(crate) fn missing(&self) -> String {
        let Some(begun) = &self.begun else { return "its command does not run yet".to_owned() };
        let lines = self.unmatched.iter().map(|pattern| format!("no line of its output has matched \"{pattern}\""));
        let notice = self.is_notice_due.then(|| "it has not sent READY=1 to its NOTIFY_SOCKET".to_owned());
        let probes = begun.probes.iter().map(Probe::last_failure);
        let mut missing: Vec<String> = lines.chain(notice).chain(probes).collect();
        if missing.is_empty() {
            missing.push("its delay is not over".to_owned());
        }
        missing.join("; ")
    }

    fn waits_for_word(&self) -> bool {
        self.is_notice_due || !self.unmatched.is_empty()
    }
}

/// The questions that can be put at any time.
fn probes(readiness: &Readiness, target: &Target, now: Duration) -> Vec<Probe> {
    let probe = |part: &Readiness| match part {
        Readiness::Connect => Some(Probe::new(target, None, now)),
        Readiness::Http(path) => Some(Probe::new(target, Some(path), now)),
        Readiness::Log(_) | Readiness::Notify | Readiness::Delay(_) | Readiness::AllOf(_) => None,
    };
    readiness.parts().filter_map(probe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    struct Bench {
        gate: Gate,
        target: Target,
        folder: tempfile::TempDir,
    }

    fn bench(parts: Vec<Readiness>) -> Bench {
        let folder = tempfile::tempdir().expect("folder");
        let address = WorkerAddress::Unix(folder.path().join("s"));
        let expected = Expected { pid: std::process::id().cast_signed(), uid: rustix::process::getuid().as_raw() };
        Bench { gate: Gate::new(&Readiness::AllOf(parts)), target: Target { address, expected }, folder }
    }

    impl Bench {
        fn listen(&self) -> UnixListener {
            UnixListener::bind(self.folder.path().join("s")).expect("bind")
        }
    }

    fn log(text: &str) -> Readiness {
        Readiness::Log(LinePattern::new(text).expect("a regex"))
    }

    #[test]
    fn every_condition_has_to_hold_and_what_lacks_is_told() {
        let mut bench = bench(vec![log("^up$"), Readiness::Notify, Readiness::Delay(ms(50)), log("port [0-9]+")]);
        let _listener = bench.listen();
        assert_eq!(bench.gate.missing(), "its command does not run yet");
        // Heard before the command is known to run.
        bench.gate.line("on port 80");
        assert!(!bench.gate.advance(ms(0)));
        bench.gate.begin(bench.target.clone(), ms(0));
        let lacks = "no line of its output has matched \"^up$\"; it has not sent READY=1 to its NOTIFY_SOCKET";
        assert_eq!(bench.gate.missing(), lacks);
        assert_eq!(bench.gate.deadline(), None, "nothing is to be done before it says something");
        bench.gate.line("going up");
        bench.gate.notified();
        assert!(!bench.gate.advance(ms(60)));
        assert_eq!(bench.gate.missing(), "no line of its output has matched \"^up$\"");
        bench.gate.line("up");
        assert!(!bench.gate.advance(ms(49)), "the delay");
        assert_eq!((bench.gate.missing().as_str(), bench.gate.deadline()), ("its delay is not over", Some(ms(50))));
        assert!(bench.gate.advance(ms(50)));
    }

    #[test]
    fn what_is_said_is_not_believed_before_somebody_listens() {
        let mut bench = bench(vec![Readiness::Delay(ms(0))]);
        bench.gate.begin(bench.target.clone(), ms(0));
        assert!(!bench.gate.advance(ms(0)));
        assert!(bench.gate.missing().contains("connect: "), "{}", bench.gate.missing());
        assert_eq!(bench.gate.deadline(), Some(ms(100)));
        let _listener = bench.listen();
        assert!(bench.gate.advance(ms(100)));
    }

    #[test]
    fn an_impostor_does_not_make_a_worker_ready() {
        let mut bench = bench(vec![log("up")]);
        let _listener = bench.listen();
        bench.target.expected.pid = i32::MAX;
        bench.gate.begin(bench.target.clone(), ms(0));
        bench.gate.line("up");
        assert!(!bench.gate.advance(ms(0)));
        assert!(bench.gate.missing().contains("belongs to another process"), "{}", bench.gate.missing());
    }
}
