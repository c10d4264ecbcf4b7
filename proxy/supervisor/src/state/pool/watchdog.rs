//! Whether a worker says often enough that it lives: systemd's watchdog (sd_watchdog_enabled(3)), of which it learned at its
//! start. It counts from the moment on at which the worker is ready, as there: one that never says anything at all, although
//! somebody has asked for it, is what it is there for.

use std::time::Duration;

/// What one worker says of itself. Without a time nothing is expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::state) struct Watchdog {
    /// How long it may say nothing; `None` where nobody has asked for it.
    time: Option<Duration>,
    /// When it last said that it lives, or was ready.
    heard: Option<Duration>,
    /// It has said that something is wrong.
    is_triggered: bool,
}

/// What there is against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Complaint {
    /// It said nothing for so long.
    Silent(Duration),
    /// It has said so itself.
    Triggered,
}

impl Complaint {
    pub(super) fn text(self) -> String {
        match self {
            Self::Silent(time) => format!("it has not said that it lives (WATCHDOG=1) for {time:?}"),
            Self::Triggered => "it said itself that something is wrong (WATCHDOG=trigger)".to_owned(),
        }
    }
}

impl Watchdog {
    pub(super) fn new(time: Option<Duration>) -> Self {
        Self { time, ..Self::default() }
    }

    /// It lives, whatever it said before.
    pub(in crate::state) fn hear(&mut self, now: Duration) {
        self.heard = Some(now);
        self.is_triggered = false;
    }

    /// Something is wrong with it.
    pub(in crate::state) fn trigger(&mut self) {
        self.is_triggered = true;
    }

    /// Another time holds from now on; zero is any. Whether anything is expected at all is not for the worker to say.
    pub(in crate::state) fn change(&mut self, time: Duration, now: Duration) {
        if let Some(present) = &mut self.time {
            *present = time;
            self.heard = self.heard.map(|_| now);
        }
    }

    /// When there is something against it.
    pub(super) fn due(&self) -> Option<Duration> {
        if self.is_triggered {
            return Some(Duration::ZERO);
        }
        let time = self.time.filter(|time| !time.is_zero())?;
        Some(self.heard?.saturating_add(time))
    }

    pub(super) fn complaint(&self, now: Duration) -> Option<Complaint> {
        self.due().filter(|due| *due <= now)?;
        if self.is_triggered {
            return Some(Complaint::Triggered);
        }
        Some(Complaint::Silent(now.saturating_sub(self.heard?)))
    }

    /// It has shown otherwise that it lives. What it did not say is still not said.
    pub(super) fn calmed(self) -> Self {
        Self { is_triggered: false, ..self }
    }
}
