//! The way to a shim: its launch goes out, and the text of a failure may come in. Never waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::{Errno, read};
use rustix::net::{SendFlags, Shutdown, send, shutdown};

/// First the launch goes out, then a failure's text may come in. Closed by the start of the
/// command, or after the text.
pub(crate) struct Link {
    socket: Option<OwnedFd>,
    launch: Vec<u8>,
    told: usize,
    heard: Vec<u8>,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd, launch: Vec<u8>) -> Self {
        Self { socket: Some(socket), launch, told: 0, heard: Vec::new() }
    }

    /// What to poll for.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let flags = if self.told < self.launch.len() { PollFlags::OUT } else { PollFlags::IN };
        self.socket.as_ref().map(|socket| (socket.as_fd(), flags))
    }

    /// What the shim said, if it failed.
    pub(crate) fn failure(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.heard).into_owned();
        Some(text).filter(|text| !text.is_empty())
    }

    /// Goes on as far as possible without waiting. True when the link has just been closed.
    pub(crate) fn go_on(&mut self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let outcome = tell(socket, &self.launch, &mut self.told).and_then(|()| hear(socket, &mut self.heard));
        match outcome {
            Err(Errno::AGAIN) => false,
            // An error is the end as well: the process's exit says the rest.
            Ok(()) | Err(_) => {
                self.socket = None;
                true
            }
        }
    }
}

/// Sends what is left of the launch, then says that it is complete.
fn tell(socket: &OwnedFd, launch: &[u8], told: &mut usize) -> Result<(), Errno> {
    if *told == launch.len() {
        return Ok(());
    }
    while *told < launch.len() {
        match send(socket, &launch[*told..], SendFlags::NOSIGNAL) {
            Ok(count) => *told += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    shutdown(socket, Shutdown::Write)
}

/// Reads until the other end is closed.
fn hear(socket: &OwnedFd, heard: &mut Vec<u8>) -> Result<(), Errno> {
    let mut buffer = [0; 4096];
    loop {
        match read(socket, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => heard.extend_from_slice(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
