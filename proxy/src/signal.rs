//! What the process is told by signals.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// TERM, INT, QUIT: stop in order; a second time: now.
    Stop,
    /// HUP: read the configuration again.
    Reload,
    /// USR1: open log files again.
    Reopen,
    /// TTIN, TTOU: so many workers more for each upstream that has any.
    Scale(i32),
    /// USR2: means something in other programs, and its default would end this one.
    Unknown(&'static str),
}

/// Signals of the process; while it exists none of them has its default effect.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    tty_in: Signal,
    tty_out: Signal,
}

impl Signals {
    /// Takes the signals over, on the current runtime.
    ///
    /// # Errors
    ///
    /// When the system refuses a handler.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            tty_in: signal(SignalKind::from_raw(rustix::process::Signal::TTIN.as_raw()))?,
            tty_out: signal(SignalKind::from_raw(rustix::process::Signal::TTOU.as_raw()))?,
        })
    }

    /// The next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.quit.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
            _ = self.user1.recv() => Told::Reopen,
            _ = self.user2.recv() => Told::Unknown("SIGUSR2"),
            _ = self.tty_in.recv() => Told::Scale(1),
            _ = self.tty_out.recv() => Told::Scale(-1),
        }
    }
}
