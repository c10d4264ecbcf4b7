//! A ready worker asked again from time to time.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::PollFlags;
use tidegate_config::model::Readiness;

use super::probe::Probe;
use super::{Target, probes};

/// Asks every so often; who fails is asked in shorter steps until it passes.
#[derive(Debug)]
pub(crate) struct Recheck {
    readiness: Readiness,
    target: Target,
    every: Duration,
    next_at: Duration,
    /// Questions of the present round without an answer that passes.
    round: Vec<Probe>,
    is_failing: bool,
}

impl Recheck {
    /// For a worker that has just become ready.
    pub(crate) fn new(readiness: &Readiness, target: Target, every: Duration, now: Duration) -> Self {
        let readiness = readiness.clone();
        Self { readiness, target, every, next_at: now + every, round: Vec::new(), is_failing: false }
    }

    /// The sockets to poll, and for what.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.round.iter().filter_map(Probe::interest)
    }

    /// When [`Recheck::advance`] has something to do although no socket has anything to say.
    pub(crate) fn deadline(&self) -> Duration {
        self.round.iter().map(Probe::deadline).min().unwrap_or(self.next_at)
    }

    /// Goes on as far as it can. Tells when the worker begins to fail, with the reason, and when it passes again.
    pub(crate) fn advance(&mut self, now: Duration) -> Option<Result<(), String>> {
        if self.round.is_empty() {
            if now < self.next_at {
                return None;
            }
            self.round = probes(&self.readiness, &self.target, now);
        }
        self.round.retain_mut(|probe| !probe.advance(now));
        if self.round.is_empty() {
            self.next_at = now + self.every;
            return std::mem::take(&mut self.is_failing).then_some(Ok(()));
        }
        let failed = self.round.iter().find(|probe| probe.has_failed()).filter(|_| !self.is_failing)?;
        self.is_failing = true;
        Some(Err(failed.last_failure()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Expected;
    use crate::worker::WorkerAddress;
    use std::os::unix::net::UnixListener;

    #[test]
    fn who_fails_is_out_until_it_passes() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).expect("bind");
        let expected = Expected { pid: std::process::id().cast_signed(), uid: rustix::process::getuid().as_raw() };
        let target = Target { address: WorkerAddress::Unix(path.clone()), expected };
        let seconds = Duration::from_secs;
        let mut recheck = Recheck::new(&Readiness::Connect, target, seconds(5), Duration::ZERO);
        assert_eq!((recheck.advance(seconds(4)), recheck.deadline()), (None, seconds(5)));
        assert_eq!((recheck.advance(seconds(5)), recheck.deadline()), (None, seconds(10)));
        drop(listener);
        let told = recheck.advance(seconds(10)).expect("news").expect_err("it fails");
        assert!(told.contains("connect: "), "{told}");
        let again = recheck.deadline();
        assert_eq!(again, seconds(10) + Duration::from_millis(100));
        assert_eq!(recheck.advance(again), None, "told once");
        std::fs::remove_file(&path).expect("the socket's file");
        let _listener = UnixListener::bind(&path).expect("bind");
        let back = recheck.deadline();
        assert_eq!((recheck.advance(back), recheck.deadline()), (Some(Ok(())), back + seconds(5)));
    }
}
