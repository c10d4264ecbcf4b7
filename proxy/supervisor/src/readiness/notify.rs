//! The notification socket of one worker: what systemd's `sd_notify` sends to a service manager, sent to us.
//!
//! A datagram counts only from a process of the worker: the kernel says who sent it. A sender that has ended before we
//! look cannot be told from anybody else, and is not heard either; programs that send in passing wait for us
//! (`systemd-notify` passes a descriptor along and waits until it is closed, which happens here).

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind,
    recvmsg, socket_with, sockopt::set_socket_passcred,
};

use crate::output::printable;
use crate::peer::Expected;

/// One thing that a worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// `READY=1`
    Ready,
    /// `STOPPING=1`
    Stopping,
    /// `WATCHDOG=1`: it lives.
    Watchdog,
    /// `WATCHDOG=trigger`: something is wrong with it.
    Trigger,
    /// `WATCHDOG_USEC=...`: how long it may not say that it lives, from now on; 0 is as long as it likes.
    WatchdogTime(Duration),
    /// `STATUS=...`, for people.
    Status(String),
    /// `EXTEND_TIMEOUT_USEC=...`: what it is about takes so much longer, from now.
    Extend(Duration),
}

/// A bound socket, and its file for as long as this exists.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: OwnedFd,
    path: PathBuf,
}

impl NotifySocket {
    /// Binds a socket that only the worker's account (uid and gid; `None` is ours) may send to.
    pub(crate) fn bind(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("notification socket \"{}\": {error}", path.display());
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).map_err(|error| failed(error.into()))?;
        set_socket_passcred(&socket, true).map_err(|error| failed(error.into()))?;
        let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
        // What another start has left.
        let _ = fs::remove_file(path);
        bind(&socket, &address).map_err(|error| failed(error.into()))?;
        let bound = Self { socket, path: path.to_owned() };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        if let Some((uid, gid)) = owner {
            chown(path, Some(uid), Some(gid)).map_err(failed)?;
        }
        Ok(bound)
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that has come since the last look, and whether somebody else has sent something.
    pub(crate) fn receive(&self, expected: &Expected) -> (Vec<Message>, bool) {
        let (mut messages, mut has_stranger) = (Vec::new(), false);
        let mut buffer = vec![0; LONGEST];
        // Bounded, so that one worker's flood does not keep the others waiting.
        for _ in 0..MOST_AT_ONCE {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmCredentials(1), ScmRights(253))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, flags) {
                Ok(received) => {
                    // Descriptors are closed with the message they came in. All are looked at: the buffer loses its place
                    // when it is given up in the middle.
                    let mut sender = None;
                    for message in ancillary.drain() {
                        if let RecvAncillaryMessage::ScmCredentials(credentials) = message {
                            sender = Some(credentials.pid);
                        }
                    }
                    if sender.is_some_and(|pid| expected.owns(pid.as_raw_nonzero().get())) {
                        messages.extend(parse(&buffer[..received.bytes]));
                    } else {
                        has_stranger = true;
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        (messages, has_stranger)
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The lines of a datagram that mean something here.
fn parse(datagram: &[u8]) -> Vec<Message> {
    datagram.split(|byte| *byte == b'\n').filter_map(message).collect()
}

fn message(line: &[u8]) -> Option<Message> {
    Some(match line {
        b"READY=1" => Message::Ready,
        b"STOPPING=1" => Message::Stopping,
        b"WATCHDOG=1" => Message::Watchdog,
        b"WATCHDOG=trigger" => Message::Trigger,
        _ => {
            if let Some(text) = line.strip_prefix(b"STATUS=") {
                return Some(Message::Status(printable(text).chars().take(LONGEST_STATUS).collect()));
            }
            let time = |name: &[u8]| {
                let microseconds = std::str::from_utf8(line.strip_prefix(name)?).ok()?;
                Some(Duration::from_micros(microseconds.parse().ok()?))
            };
            let extension = time(b"EXTEND_TIMEOUT_USEC=").map(Message::Extend);
            return extension.or_else(|| time(b"WATCHDOG_USEC=").map(Message::WatchdogTime));
        }
    })
}

/// As systemd's.
const LONGEST: usize = 4_096;
const LONGEST_STATUS: usize = 200;
const MOST_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn datagrams_are_read_line_by_line() {
        let rows: [(&[u8], &[Message]); 10] = [
            (b"READY=1", &[Message::Ready]),
            (b"READY=1\nSTATUS=up, 3 jobs\nMAINPID=7\n", &[Message::Ready, Message::Status("up, 3 jobs".to_owned())]),
            (b"STOPPING=1\nWATCHDOG=1", &[Message::Stopping, Message::Watchdog]),
            (b"EXTEND_TIMEOUT_USEC=2500000", &[Message::Extend(Duration::from_millis(2_500))]),
            (b"EXTEND_TIMEOUT_USEC=-1\nREADY=0\nWATCHDOG=2\nWATCHDOG_USEC=\nREADY", &[]),
            (b"WATCHDOG=trigger", &[Message::Trigger]),
            (b"WATCHDOG_USEC=0\nWATCHDOG=1", &[Message::WatchdogTime(Duration::ZERO), Message::Watchdog]),
            (b"STATUS=a\x1b[31mb\xff", &[Message::Status("a\\x1b[31mb\\xff".to_owned())]),
            (b"", &[]),
            (b"BARRIER=1", &[]),
        ];
        for (datagram, expected) in rows {
            assert_eq!(parse(datagram), expected, "{}", datagram.escape_ascii());
        }
        let long = [b"STATUS=".as_slice(), &[b'x'; 4_000]].concat();
        assert_eq!(parse(&long), [Message::Status("x".repeat(LONGEST_STATUS))]);
    }

    #[test]
    fn only_the_workers_own_processes_are_heard() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("notify");
        let notify = NotifySocket::bind(&path, None).expect("bind");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let us = UnixDatagram::unbound().expect("socket");
        us.send_to(b"READY=1", &path).expect("send");
        us.send_to(b"STATUS=fine", &path).expect("send");
        let own = Expected { pid: std::process::id().cast_signed(), uid: 0 };
        assert_eq!(notify.receive(&own), (vec![Message::Ready, Message::Status("fine".to_owned())], false));
        us.send_to(b"READY=1", &path).expect("send");
        let other = Expected { pid: i32::MAX, uid: 0 };
        assert_eq!(notify.receive(&other), (vec![], true));
        assert_eq!(notify.receive(&own), (vec![], false), "it is gone");
        drop(notify);
        assert!(!path.exists());
    }
}
