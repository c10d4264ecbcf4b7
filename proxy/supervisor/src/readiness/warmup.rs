//! Requests that a worker gets before those of clients, so that what is slow only once is slow for none of them.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::PollFlags;
use tidegate_config::model;

use super::Target;
use super::probe::Probe;

/// Asks for one path after the other, each once.
#[derive(Debug)]
pub(crate) struct Warmup {
    target: Target,
    /// When all of it has to be over.
    end: Duration,
    /// Those that are left, the next one last.
    paths: Vec<String>,
    visit: Option<(String, Probe)>,
}

impl Warmup {
    /// For a worker that has just shown that it is ready.
    pub(crate) fn new(warmup: &model::Warmup, target: Target, now: Duration) -> Self {
        let paths = warmup.paths.iter().rev().cloned().collect();
        Self { target, end: now.saturating_add(warmup.timeout), paths, visit: None }
    }

    /// The socket to poll, and for what.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.visit.iter().filter_map(|(_, probe)| probe.interest())
    }

    /// When [`Warmup::advance`] has something to do although its socket has nothing to say.
    pub(crate) fn deadline(&self) -> Duration {
        self.visit.as_ref().map_or(Duration::ZERO, |(_, probe)| probe.deadline())
    }

    /// Goes on as far as it can. Tells the end of it: every path was answered, or why one was not.
    pub(crate) fn advance(&mut self, now: Duration) -> Option<Result<(), String>> {
        loop {
            let Some((path, probe)) = &mut self.visit else {
                let Some(path) = self.paths.pop() else { return Some(Ok(())) };
                let probe = Probe::visit(&self.target, &path, self.end.saturating_sub(now), now);
                self.visit = Some((path, probe));
                continue;
            };
            if !probe.advance(now) {
                return probe.has_failed().then(|| Err(format!("warm-up of {path}: {}", probe.last_failure())));
            }
            self.visit = None;
        }
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
        warmup: Warmup,
        listener: UnixListener,
        _folder: tempfile::TempDir,
    }

    fn bench(paths: &[&str]) -> Bench {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).expect("bind");
        let expected = Expected { pid: std::process::id().cast_signed(), uid: rustix::process::getuid().as_raw() };
        let target = Target { address: WorkerAddress::Unix(path), expected };
        let warmup = model::Warmup { paths: paths.iter().map(|path| (*path).to_owned()).collect(), timeout: ms(1_000) };
        Bench { warmup: Warmup::new(&warmup, target, ms(0)), listener, _folder: folder }
    }

    impl Bench {
        /// Takes the next request and answers it with this.
        fn serve(&self, answer: &str) -> String {
            let (mut stream, _) = self.listener.accept().expect("a connection");
            let mut head = [0; 1_024];
            let count = stream.read(&mut head).expect("a request");
            stream.write_all(answer.as_bytes()).expect("room");
            String::from_utf8_lossy(&head[..count]).lines().next().unwrap_or_default().to_owned()
        }
    }

    #[test]
    fn paths_are_asked_for_in_their_order_and_answers_read_to_their_end() {
        let mut bench = bench(&["/", "/reports?year=2026"]);
        assert_eq!(bench.warmup.advance(ms(0)), None);
        assert_eq!(bench.serve("HTTP/1.1 200 OK\r\n\r\nmuch"), "GET / HTTP/1.1");
        assert_eq!(bench.warmup.advance(ms(10)), None, "the second path is next");
        assert_eq!(bench.serve("HTTP/1.1 404 Not Found\r\n\r\n"), "GET /reports?year=2026 HTTP/1.1");
        assert_eq!(bench.warmup.advance(ms(20)), Some(Ok(())));
    }

    #[test]
    fn an_answer_that_has_only_begun_is_none() {
        let mut bench = bench(&["/"]);
        assert_eq!(bench.warmup.advance(ms(0)), None);
        let (mut stream, _) = bench.listener.accept().expect("a connection");
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nmuch").expect("room");
        assert_eq!((bench.warmup.advance(ms(500)), bench.warmup.deadline()), (None, ms(1_000)));
        let told = bench.warmup.advance(ms(1_000)).expect("the end").expect_err("a failure");
        assert!(told.starts_with("warm-up of /: ") && told.ends_with("no answer in time"), "{told}");
    }

    #[test]
    fn time_is_for_all_paths_together_and_a_failure_ends_it() {
        let mut bench = bench(&["/a", "/b", "/c"]);
        assert_eq!(bench.warmup.advance(ms(0)), None);
        bench.serve("HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!((bench.warmup.advance(ms(900)), bench.warmup.deadline()), (None, ms(1_000)));
        bench.serve("HTTP/1.1 500 Internal Server Error\r\n\r\n");
        let told = bench.warmup.advance(ms(950)).expect("the end").expect_err("a failure");
        assert!(told.starts_with("warm-up of /b: ") && told.ends_with("status 500"), "{told}");
    }
}
