//! Signs of life of an endpoint, for who watches its process.
//!
//! They cost a request next to nothing: each read of an answer looks at a flag that is set already but for the first one after
//! a watcher has looked; everything else is counted anyway, or where something fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::endpoint::Endpoint;
use super::lease::ConnPermit;

/// Whether anything comes of an endpoint's answers.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Bytes have come since the last look.
    heard: AtomicBool,
    /// Looks that found some.
    beats: AtomicU64,
}

impl Pulse {
    fn hear(&self) {
        // Read first: the line stays shared among the shards while there is nothing to say.
        if !self.heard.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
        }
    }

    /// Several may look: who compares two numbers learns whether something came in between.
    fn beats(&self) -> u64 {
        let is_new = self.heard.swap(false, Ordering::Relaxed);
        self.beats.fetch_add(u64::from(is_new), Ordering::Relaxed) + u64::from(is_new)
    }
}

/// Signs of life at one moment. Each number is to be compared with an earlier one of the same endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Leases ever given.
    pub requests: u64,
    /// Exchanges that hold a lease; tunnels are none.
    pub in_flight: u32,
    /// Those of them whose answers may go on for as long as they like.
    pub streams: u32,
    /// It has as many of them as it may have.
    pub is_full: bool,
    /// Grows between two looks when bytes of an answer have come.
    pub heard: u64,
    /// Connections that it refused or did not accept in time.
    pub unreachable: u64,
    /// Requests that took it longer than they may.
    pub overdue: u64,
    /// Exchanges that ended without their answer, because the client went away.
    pub abandoned: u64,
}

impl Endpoint {
    /// How it gets on.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let (in_flight, requests) = self.usage();
        Vitals {
            requests,
            in_flight,
            streams: self.streams(),
            is_full: !self.has_room(),
            heard: self.pulse().beats(),
            unreachable: self.faults().unreachable(),
            overdue: self.faults().overdue(),
            abandoned: self.abandoned(),
        }
    }
}

impl ConnPermit {
    /// Bytes have come on this socket.
    pub fn hear(&self) {
        self.endpoint().pulse().hear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_tells_whether_something_came_since_the_one_before() {
        let pulse = Pulse::default();
        assert_eq!(pulse.beats(), 0);
        pulse.hear();
        pulse.hear();
        assert_eq!([pulse.beats(), pulse.beats(), pulse.beats()], [1; 3]);
        pulse.hear();
        assert_eq!(pulse.beats(), 2);
    }
}
