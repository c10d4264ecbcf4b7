//! The guardian: a small process of our own program that outlives the supervising process by a moment, to kill what that
//! one left behind however it ended.
//!
//! A parent-death signal reaches only the main process of a worker. The guardian reads a pipe whose other end exists
//! nowhere but in the supervising process, and keeps the list of process groups that were announced on it. When the pipe
//! ends it kills each group, then whatever is in one of their sessions or carries the instance's marker, and exits.
//!
//! **No group is unknown.** A group is announced after its shim was started and before the shim gets its launch. A shim
//! whose supervisor ends before that reads an incomplete launch and exits.
//!
//! **No stranger is killed.** A group's number cannot be used again while its leader is unreaped or a member lives. The
//! supervisor kills the members, takes the group off the list, then reaps the leader; and the pipe delivers in order, so
//! the guardian never acts on a list that still holds a group whose leader the supervisor has reaped. Leaders that are
//! alive when the supervisor ends are killed and reaped by others at that very time; for their numbers to be used again
//! before the guardian wakes, the kernel would have to hand out all other numbers in between.
//!
//! It has its own session, so a terminal's Ctrl-C does not reach it, blocks all signals that can be blocked, and holds
//! no descriptor but the pipe.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::io::write;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::process::{self, Process, Reexec};
use crate::stray;

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Guardian {
    process: Process,
    orders: OwnedFd,
}

impl Guardian {
    /// Starts one that knows these groups. The instance is 32 characters.
    pub(crate) fn start(reexec: &Reexec, instance: &str, groups: &BTreeSet<i32>) -> io::Result<Self> {
        let (theirs, orders) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&orders, true)?;
        let process = process::spawn_guardian(reexec, theirs)?;
        let guardian = Self { process, orders };
        guardian.send(instance.as_bytes())?;
        for group in groups {
            guardian.add(*group)?;
        }
        Ok(guardian)
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Announces a group. An error means that the guardian does not read any more, and must be replaced.
    pub(crate) fn add(&self, group: i32) -> io::Result<()> {
        self.send(&order(ADD, group))
    }

    /// Takes a group off the list; to be called before its leader is reaped.
    pub(crate) fn remove(&self, group: i32) -> io::Result<()> {
        self.send(&order(REMOVE, group))
    }

    /// Ends it for good, whatever it does, without letting it act.
    pub(crate) fn dismiss(self) {
        self.process.kill_group();
        self.process.reap();
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        // Shorter than a pipe's atomic size: written whole or not at all.
        write(&self.orders, message)?;
        Ok(())
    }
}

/// The life of the guardian; returns when everything is done.
///
/// To be called first thing in `main`, with no other thread running, when the first argument is
/// [`crate::Reexec::guardian_arg`].
pub fn guardian_main() -> ExitCode {
    let _ = SigSet::all().thread_block();
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    let _ = rustix::thread::set_name(c"tidegate-guard");
    let mut orders = io::stdin().lock();
    process::close_others(&orders);
    let mut instance = [0; INSTANCE_LENGTH];
    let mut groups = BTreeSet::new();
    if orders.read_exact(&mut instance).is_err() {
        return ExitCode::SUCCESS;
    }
    let mut message = [0; ORDER_LENGTH];
    while orders.read_exact(&mut message).is_ok() {
        let [kind, group @ ..] = message;
        let group = i32::from_le_bytes(group);
        if kind == ADD {
            groups.insert(group)
        } else {
            groups.remove(&group)
        };
    }
    kill_all(&String::from_utf8_lossy(&instance), &groups);
    ExitCode::SUCCESS
}

fn kill_all(instance: &str, groups: &BTreeSet<i32>) {
    for group in groups.iter().filter_map(|group| Pid::from_raw(*group)) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    for _ in 0..ROUNDS {
        if stray::kill(instance, groups, &BTreeSet::new(), &[]) == 0 {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn order(kind: u8, group: i32) -> [u8; ORDER_LENGTH] {
    let [a, b, c, d] = group.to_le_bytes();
    [kind, a, b, c, d]
}

/// Length of an instance's name in bytes.
pub(crate) const INSTANCE_LENGTH: usize = 32;
const ORDER_LENGTH: usize = 5;
const ADD: u8 = b'+';
const REMOVE: u8 = b'-';
const ROUNDS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);
