//! One question to a worker: connect, perhaps ask, try again later. Never waits: whoever polls calls [`Probe::advance`]
//! when its socket or its deadline is due.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::{Errno, read};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
    sockopt::socket_error,
};

use super::Target;
use crate::peer::Expected;
use crate::worker::WorkerAddress;

/// Tries until one passes.
#[derive(Debug)]
pub(crate) struct Probe {
    address: WorkerAddress,
    request: Option<Vec<u8>>,
    expected: Expected,
    patience: Patience,
    delay: Duration,
    next_at: Duration,
    attempt: Option<Attempt>,
    last_failure: Option<String>,
}

/// What is asked of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long one try may take.
    pub(super) time: Duration,
    /// What has to come.
    pub(super) wants: Wants,
}

/// How much of which answer will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// Any status.
    Status,
    /// A status below 500.
    Success,
    /// That, and all of its answer.
    All,
}

#[derive(Debug)]
struct Attempt {
    socket: OwnedFd,
    stage: Stage,
    deadline: Duration,
}

#[derive(Debug)]
enum Stage {
    Connecting,
    Asking { sent: usize },
    Listening { received: Vec<u8> },
}

/// What one look at an attempt gave.
enum Progress {
    Waits,
    Passed,
}

impl Probe {
    /// Connects, and asks for a path if there is one.
    pub(crate) fn new(target: &Target, path: Option<&str>, now: Duration) -> Self {
        Self::patient(target, path, Patience { time: TRY_TIMEOUT, wants: Wants::Success }, now)
    }

    /// The same, with another idea of an answer.
    pub(super) fn patient(target: &Target, path: Option<&str>, patience: Patience, now: Duration) -> Self {
        let Target { address, expected } = target.clone();
        let (request, delay) = (path.map(|path| request(path, PROBE)), FIRST_DELAY);
        Self { address, request, expected, patience, delay, next_at: now, attempt: None, last_failure: None }
    }

    /// Asks for a path as a client does, which takes the whole answer, however long that takes within `time`.
    pub(super) fn visit(target: &Target, path: &str, time: Duration, now: Duration) -> Self {
        let patience = Patience { time, wants: Wants::All };
        Self { request: Some(request(path, WARMUP)), ..Self::patient(target, None, patience, now) }
    }

    /// The socket to poll, and for what.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let attempt = self.attempt.as_ref()?;
        let flags = match attempt.stage {
            Stage::Connecting | Stage::Asking { .. } => PollFlags::OUT,
            Stage::Listening { .. } => PollFlags::IN,
        };
        Some((attempt.socket.as_fd(), flags))
    }

    /// When [`Probe::advance`] has something to do although its socket has nothing to say.
    pub(crate) fn deadline(&self) -> Duration {
        self.attempt.as_ref().map_or(self.next_at, |attempt| attempt.deadline)
    }

    /// Why the last try failed.
    pub(crate) fn last_failure(&self) -> String {
        let untold = if self.attempt.is_some() { "no answer so far" } else { "not tried" };
        format!("{}: {}", self.address, self.last_failure.as_deref().unwrap_or(untold))
    }

    /// Whether a try has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.last_failure.is_some()
    }

    /// Goes on as far as it can. True once the worker is ready.
    pub(crate) fn advance(&mut self, now: Duration) -> bool {
        if self.attempt.is_none() && now >= self.next_at {
            match self.begin(now) {
                Ok(attempt) => self.attempt = Some(attempt),
                Err(problem) => self.fail(problem, now),
            }
        }
        let Some(mut attempt) = self.attempt.take() else { return false };
        match self.go_on(&mut attempt) {
            Ok(Progress::Passed) => return true,
            Ok(Progress::Waits) if now >= attempt.deadline => self.fail("no answer in time".to_owned(), now),
            Ok(Progress::Waits) => self.attempt = Some(attempt),
            Err(problem) => self.fail(problem, now),
        }
        false
    }

    fn fail(&mut self, problem: String, now: Duration) {
        self.last_failure = Some(problem);
        self.next_at = now + self.delay;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }

    fn begin(&self, now: Duration) -> Result<Attempt, String> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let family = match &self.address {
            WorkerAddress::Unix(_) => AddressFamily::UNIX,
            WorkerAddress::Tcp(address) if address.is_ipv4() => AddressFamily::INET,
            WorkerAddress::Tcp(_) => AddressFamily::INET6,
        };
        let socket =
            socket_with(family, SocketType::STREAM, flags, None).map_err(|error| format!("socket: {error}"))?;
        let connected = match &self.address {
            WorkerAddress::Unix(path) => SocketAddrUnix::new(path).and_then(|address| connect(&socket, &address)),
            WorkerAddress::Tcp(address) => connect(&socket, address),
        };
        match connected {
            Ok(()) | Err(Errno::INPROGRESS) => {
                Ok(Attempt { socket, stage: Stage::Connecting, deadline: now.saturating_add(self.patience.time) })
            }
            Err(error) => Err(format!("connect: {error}")),
        }
    }

    fn go_on(&self, attempt: &mut Attempt) -> Result<Progress, String> {
        loop {
            match &mut attempt.stage {
                Stage::Connecting => {
                    if !self.is_connected(&attempt.socket)? {
                        return Ok(Progress::Waits);
                    }
                    match self.address {
                        WorkerAddress::Unix(_) => self.expected.check_unix(&attempt.socket)?,
                        WorkerAddress::Tcp(address) => self.expected.check_port(address.port())?,
                    }
                    if self.request.is_none() {
                        return Ok(Progress::Passed);
                    }
                    attempt.stage = Stage::Asking { sent: 0 };
                }
                Stage::Asking { sent } => {
                    let rest = &self.request.as_deref().unwrap_or_default()[*sent..];
                    if rest.is_empty() {
                        attempt.stage = Stage::Listening { received: Vec::new() };
                        continue;
                    }
                    match send(&attempt.socket, rest, SendFlags::NOSIGNAL) {
                        Ok(count) => *sent += count,
                        Err(Errno::AGAIN) => return Ok(Progress::Waits),
                        Err(error) => return Err(format!("send: {error}")),
                    }
                }
                Stage::Listening { received } => return listen(&attempt.socket, received, self.patience.wants),
            }
        }
    }

    fn is_connected(&self, socket: &OwnedFd) -> Result<bool, String> {
        match socket_error(socket) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => return Err(format!("connect: {error}")),
        }
        // A unix connect has succeeded or failed at once; a TCP one is over when there is a peer.
        match self.address {
            WorkerAddress::Unix(_) => Ok(true),
            WorkerAddress::Tcp(_) => Ok(rustix::net::getpeername(socket).is_ok()),
        }
    }
}

fn listen(socket: &OwnedFd, received: &mut Vec<u8>, wants: Wants) -> Result<Progress, String> {
    let mut buffer = [0; 4_096];
    // Bounded, so that a long answer does not keep other workers waiting.
    for _ in 0..READS {
        match read(socket, &mut buffer) {
            Ok(0) if matches!(status(received), Some(Ok(_))) => return Ok(Progress::Passed),
            Ok(0) => return Err("connection closed before a status line".to_owned()),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN) => return Ok(Progress::Waits),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(format!("receive: {error}")),
        }
        match status(received) {
            Some(Ok(status)) if status >= 500 && wants != Wants::Status => return Err(format!("status {status}")),
            // What follows the status line is read and forgotten.
            Some(Ok(_)) if wants == Wants::All => received.truncate(STATUS_LINE),
            Some(Ok(_)) => return Ok(Progress::Passed),
            Some(Err(problem)) => return Err(problem),
            None => {}
        }
    }
    Ok(Progress::Waits)
}

/// The status of a status line as soon as its digits are there (RFC 9112 section 4).
fn status(received: &[u8]) -> Option<Result<u16, String>> {
    const START: &[u8] = b"HTTP/1.";
    let known = received.len().min(START.len());
    if received[..known] != START[..known] {
        return Some(Err("not an HTTP/1 answer".to_owned()));
    }
    let digits = received.get(9..13)?;
    let status = std::str::from_utf8(&digits[..3]).ok().and_then(|text| text.parse().ok());
    let is_well_formed = received[8] == b' ' && matches!(digits[3], b' ' | b'\r' | b'\n');
    Some(status.filter(|_| is_well_formed).ok_or_else(|| "malformed status line".to_owned()))
}

fn request(path: &str, agent: &str) -> Vec<u8> {
    let fields = format!("host: localhost\r\nuser-agent: {agent}\r\naccept: */*\r\nconnection: close\r\n");
    format!("GET {path} HTTP/1.1\r\n{fields}\r\n").into_bytes()
}

const PROBE: &str = "tidegate-probe";
const WARMUP: &str = "tidegate-warmup";
/// As much of an answer as its status takes.
const STATUS_LINE: usize = 13;
/// Of an answer, in one turn.
const READS: u32 = 16;

const TRY_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_as_soon_as_it_is_there() {
        for (received, expected) in [
            ("", None),
            ("HTT", None),
            ("HTTP/1.1 20", None),
            ("HTTP/1.1 200 OK", Some(Ok(200))),
            ("HTTP/1.0 404\r\n", Some(Ok(404))),
            ("HTTP/1.1 503 no", Some(Ok(503))),
            ("HTTP/2.0 200 OK", Some(Err("not an HTTP/1 answer".to_owned()))),
            ("SSH-2", Some(Err("not an HTTP/1 answer".to_owned()))),
            ("HTTP/1.1 abc x", Some(Err("malformed status line".to_owned()))),
            ("HTTP/1.1 2000 x", Some(Err("malformed status line".to_owned()))),
        ] {
            assert_eq!(status(received.as_bytes()), expected, "{received}");
        }
    }

    fn probe(address: WorkerAddress) -> Probe {
        let expected = Expected { pid: std::process::id().cast_signed(), uid: rustix::process::getuid().as_raw() };
        Probe::new(&Target { address, expected }, None, Duration::ZERO)
    }

    #[test]
    fn tries_come_after_100_ms_doubling_to_a_second() {
        let mut probe = probe(WorkerAddress::Unix("/nonexistent/socket".into()));
        let mut at = Vec::new();
        for _ in 0..6 {
            let now = probe.deadline();
            at.push(now.as_millis());
            assert!(!probe.advance(now));
        }
        assert_eq!(at, [0, 100, 300, 700, 1500, 2500]);
        assert!(probe.last_failure().contains("No such file"), "{}", probe.last_failure());
    }

    #[test]
    fn a_listener_of_another_process_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        let mut probe = probe(WorkerAddress::Unix(path));
        assert!(probe.advance(Duration::ZERO), "{}", probe.last_failure());
        probe.expected.pid = i32::MAX;
        assert!(!probe.advance(Duration::ZERO));
        assert!(probe.last_failure().contains("belongs to another process"), "{}", probe.last_failure());
    }

    #[test]
    fn a_port_held_by_another_process_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let own = Expected { pid: std::process::id().cast_signed(), uid: 0 };
        assert_eq!(own.check_port(port), Ok(()));
        let other = Expected { pid: i32::MAX, uid: 0 };
        assert_eq!(other.check_port(port), Err(format!("port {port} belongs to another process")));
    }
}
