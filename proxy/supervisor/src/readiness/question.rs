//! One question to a worker in doubt. Whatever it answers, it answers.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::PollFlags;

use super::Target;
use super::probe::{Patience, Probe, Wants};

/// Asks until there is an answer or the time is over. A connection that is refused is tried again meanwhile.
#[derive(Debug)]
pub(crate) struct Question {
    probe: Probe,
    until: Duration,
}

impl Question {
    pub(crate) fn new(target: &Target, path: &str, timeout: Duration, now: Duration) -> Self {
        let patience = Patience { time: timeout, wants: Wants::Status };
        Self { probe: Probe::patient(target, Some(path), patience, now), until: now.saturating_add(timeout) }
    }

    /// The socket to poll, and for what.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.probe.interest()
    }

    /// When [`Question::advance`] has something to do although the socket has nothing to say.
    pub(crate) fn deadline(&self) -> Duration {
        self.probe.deadline().min(self.until)
    }

    /// Goes on as far as it can. `Some` once it is over, with what came instead of an answer.
    pub(crate) fn advance(&mut self, now: Duration) -> Option<Result<(), String>> {
        if self.probe.advance(now) {
            return Some(Ok(()));
        }
        (now >= self.until).then(|| Err(self.probe.last_failure()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Expected;
    use crate::worker::WorkerAddress;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    struct Bench {
        listener: UnixListener,
        target: Target,
        _folder: tempfile::TempDir,
    }

    fn bench() -> Bench {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).expect("bind");
        let expected = Expected { pid: std::process::id().cast_signed(), uid: rustix::process::getuid().as_raw() };
        Bench { listener, target: Target { address: WorkerAddress::Unix(path), expected }, _folder: folder }
    }

    #[test]
    fn any_answer_is_one() {
        for answer in ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 503 no", "HTTP/1.0 404\r\n", "HTTP/1.1 100 Continue\r\n"] {
            let bench = bench();
            let mut question = Question::new(&bench.target, "/x", ms(5_000), ms(0));
            assert_eq!(question.advance(ms(0)), None);
            let (mut peer, _) = bench.listener.accept().expect("a connection");
            let mut head = [0; 13];
            peer.read_exact(&mut head).expect("a request");
            assert_eq!(&head, b"GET /x HTTP/1");
            peer.write_all(answer.as_bytes()).expect("write");
            assert_eq!(question.advance(ms(4_999)), Some(Ok(())), "{answer}");
        }
    }

    #[test]
    fn silence_lasts_as_long_as_an_answer_may_take() {
        let bench = bench();
        let mut question = Question::new(&bench.target, "/", ms(5_000), ms(100));
        // Past the time of a readiness probe.
        for now in [100, 2_200, 5_099] {
            assert_eq!(question.advance(ms(now)), None, "{now}");
        }
        assert_eq!(question.deadline(), ms(5_100));
        let problem = question.advance(ms(5_100)).expect("it is over").expect_err("no answer");
        assert!(problem.ends_with("no answer in time"), "{problem}");
    }

    #[test]
    fn a_refused_connection_is_tried_again() {
        let Bench { listener, target, _folder } = bench();
        drop(listener);
        let mut question = Question::new(&target, "/", ms(1_000), ms(0));
        assert_eq!((question.advance(ms(0)), question.deadline()), (None, ms(100)));
        assert_eq!((question.advance(ms(100)), question.deadline()), (None, ms(300)));
        let problem = question.advance(ms(1_000)).expect("it is over").expect_err("no answer");
        assert!(problem.contains("connect: "), "{problem}");
    }
}
