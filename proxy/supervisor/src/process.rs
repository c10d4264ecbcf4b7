//! Processes as the kernel has them: start, look at, signal, reap. The only file that starts a process, and the only one
//! with `unsafe` code. Everything here returns at once.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Pid, PidfdFlags, kill_process_group, pidfd_open, pidfd_send_signal};
use tidegate_config::model::StopSignal;

use crate::process_table;
use crate::worker::ExitStatus;

/// How to start our own program again in another role. Its `main` must look at the first argument before it does
/// anything else: with the shim's it calls [`crate::shim_main`], with the guardian's [`crate::guardian_main`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reexec {
    /// The program; by default the file this process was started from, even if that was replaced since.
    pub program: PathBuf,
    /// First argument that makes it a shim.
    pub shim_arg: OsString,
    /// First argument that makes it the guardian.
    pub guardian_arg: OsString,
}

impl Default for Reexec {
    fn default() -> Self {
        Self { program: "/proc/self/exe".into(), shim_arg: "__worker-shim".into(), guardian_arg: "__guardian".into() }
    }
}

/// A process of ours that was not reaped. Its number cannot be given to another one as long as that holds.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    descriptor: OwnedFd,
}

/// A shim that waits for its launch.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) process: Process,
    /// Takes the launch, then gives the text of a failure; closed without one when the command runs.
    pub(crate) link: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts a shim. All descriptors returned are non-blocking.
pub(crate) fn spawn_shim(reexec: &Reexec, room: PipeRoom) -> io::Result<Shim> {
    let flags = SocketFlags::CLOEXEC;
    let (link, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::io::ioctl_fionbio(&link, true)?;
    let (stdout, stdout_end) = output_pipe(room)?;
    let (stderr, stderr_end) = output_pipe(room)?;
    let mut command = Command::new(&reexec.program);
    command.arg0("tidegate-worker-shim").arg(&reexec.shim_arg);
    command.stdin(Stdio::from(theirs)).stdout(Stdio::from(stdout_end)).stderr(Stdio::from(stderr_end));
    Ok(Shim { process: spawn(command)?, link, stdout, stderr })
}

/// Starts the guardian; `orders` becomes its standard input.
pub(crate) fn spawn_guardian(reexec: &Reexec, orders: OwnedFd) -> io::Result<Process> {
    let mut command = Command::new(&reexec.program);
    command.arg0("tidegate-guardian").arg(&reexec.guardian_arg);
    command.stdin(Stdio::from(orders)).stdout(Stdio::null()).stderr(Stdio::null());
    spawn(command)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that starts processes")]
fn spawn(mut command: Command) -> io::Result<Process> {
    // Without our environment: what a worker gets is in its launch, and the guardian needs none.
    let child = command.env_clear().spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => Ok(Process { pid, descriptor }),
        Err(error) => {
            let mut child = child;
            child.kill()?;
            child.wait()?;
            Err(error.into())
        }
    }
}

/// How much the pipes of a worker's output hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PipeRoom {
    /// What the kernel gives, 64 KiB.
    Usual,
    /// 1 MiB, where the kernel grants it: room for a worker that writes in bursts until we come round to read.
    Large,
}

impl PipeRoom {
    /// For one worker more beside so many. The kernel counts pipes by account (64 MiB, `pipe-user-pages-soft`): who has more
    /// gets new ones of 8 KiB only, and these may be anybody's.
    pub(crate) fn beside(workers: usize) -> Self {
        if workers < LARGE_PIPES { Self::Large } else { Self::Usual }
    }
}

/// Both ends of a pipe for output, the reading end first and non-blocking.
fn output_pipe(room: PipeRoom) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    if room == PipeRoom::Large {
        let _ = fcntl_setpipe_size(&reader, PIPE_SIZE);
    }
    Ok((reader, writer))
}

impl Process {
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Readable once the process has ended.
    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// How it ended, if it has; it stays unreaped.
    pub(crate) fn peek(&self) -> Option<ExitStatus> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        exit_status(waitid(Id::PIDFd(self.descriptor.as_fd()), flags))
    }

    /// Asks the process itself to end. One that has ended already is no error.
    pub(crate) fn stop(&self, signal: StopSignal) {
        let signal = match signal {
            StopSignal::Term => rustix::process::Signal::TERM,
            StopSignal::Int => rustix::process::Signal::INT,
            StopSignal::Quit => rustix::process::Signal::QUIT,
            StopSignal::Hup => rustix::process::Signal::HUP,
            StopSignal::Usr1 => rustix::process::Signal::USR1,
            StopSignal::Usr2 => rustix::process::Signal::USR2,
            StopSignal::Winch => rustix::process::Signal::WINCH,
        };
        let _ = pidfd_send_signal(&self.descriptor, signal);
    }

    /// Kills the process and the group it leads. Until it is reaped its number names this group and no other; the
    /// process is named by itself too, because a shim leads no group before it has made its session.
    pub(crate) fn kill_group(&self) {
        let _ = kill_process_group(self.pid, rustix::process::Signal::KILL);
        let _ = pidfd_send_signal(&self.descriptor, rustix::process::Signal::KILL);
    }

    /// Has the group end by what makes programs say where they are: a core, or stacks in their output. Stopped processes go
    /// on for that.
    pub(crate) fn abort_group(&self) {
        for signal in [rustix::process::Signal::ABORT, rustix::process::Signal::CONT] {
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Takes the status of a process that has ended; one that was only just killed is reaped later, as a stranger. From
    /// here on its number may be given to another one.
    pub(crate) fn reap(self) {
        let _ = waitid(Id::PIDFd(self.descriptor.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
    }
}

fn exit_status(waited: nix::Result<WaitStatus>) -> Option<ExitStatus> {
    match waited {
        Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::Code(code)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::Signal(signal as i32)),
        // Ended by a signal that nix has no name for (real-time signals).
        Err(Errno::EINVAL) => Some(ExitStatus::Unknown),
        // Somebody else in this process waited for it.
        Err(Errno::ECHILD) => Some(ExitStatus::Unknown),
        _ => None,
    }
}

/// Some child that has ended and was not reaped; ours or one that was handed to us when its parent ended.
pub(crate) fn any_ended() -> Option<i32> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::All, flags) {
        Ok(status) => status.pid().map(nix::unistd::Pid::as_raw),
        // Somebody who was ended by a real-time signal, for which nix has no name; it would hide all others.
        Err(Errno::EINVAL) => process_table::zombie_of(std::process::id().cast_signed()),
        Err(_) => None,
    }
}

/// Reaps a child that is none of our workers.
pub(crate) fn reap_stranger(pid: i32) {
    let _ = waitid(Id::Pid(nix::unistd::Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
}

/// Gives every signal its default effect and lets all of them through: what a new program expects to find.
pub(crate) fn reset_signals() {
    for signal in Signal::iterator() {
        default_effect(signal);
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Makes sure that the statuses of children are kept for us: a parent that ignored SIGCHLD leaves that to its children,
/// and the kernel would reap them by itself.
pub(crate) fn keep_child_statuses() {
    default_effect(Signal::SIGCHLD);
}

#[expect(unsafe_code, reason = "a signal's effect can be set in no other way")]
fn default_effect(signal: Signal) {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default effect runs no code of ours, so there is no handler whose demands could be violated. It is
    // refused for SIGKILL and SIGSTOP, which have no other effect anyway.
    let _ = unsafe { sigaction(signal, &action) };
}

/// Closes every descriptor from 3 on but `kept`. Only for a process that has just begun: no value of ours may own one of
/// the others.
pub(crate) fn close_others(kept: &impl AsRawFd) {
    let kept = kept.as_raw_fd();
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|number| *number > 2 && *number != kept) {
        let _ = nix::unistd::close(descriptor);
    }
}

const PIPE_SIZE: usize = 1024 * 1024;
/// Workers with two large pipes each; half of what an account may have.
const LARGE_PIPES: usize = 16;
