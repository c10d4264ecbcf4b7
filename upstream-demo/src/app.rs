//! What all requests of this worker share: who it is, how much it served, what it leaked.

use std::{
    env, fmt, process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::{number::OutOfRange, pattern};

/// The state of the worker.
pub(crate) struct App {
    pub(crate) identity: Identity,
    /// The bodies of `/10k` and `/1m`, built once: the bench measures a proxy, not this program.
    pub(crate) ten_kib: Bytes,
    pub(crate) one_mib: Bytes,
    served: AtomicU64,
    // Guards the blocks only; held while one is pushed.
    leaked: Mutex<Vec<Vec<u8>>>,
}

/// Which worker of the group this is, as its supervisor told it through the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    pub(crate) slot: Option<String>,
    pub(crate) generation: Option<String>,
}

impl App {
    /// A worker named by `WORKER_SLOT` and `WORKER_GENERATION`.
    pub(crate) fn from_environment() -> Self {
        Self::new(Identity {
            pid: process::id(),
            slot: env::var("WORKER_SLOT").ok(),
            generation: env::var("WORKER_GENERATION").ok(),
        })
    }

    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            ten_kib: pattern::block(0, 10 << 10),
            one_mib: pattern::block(0, 1 << 20),
            served: AtomicU64::new(0),
            leaked: Mutex::new(Vec::new()),
        }
    }

    /// Counts a request in; its number, from 1.
    pub(crate) fn count(&self) -> u64 {
        self.served.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Requests counted so far, the one that asks included.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Takes `mib` MiB of memory, touched so that they are resident, and never gives them back.
    /// Returns what is held altogether, or refuses above [`LEAK_LIMIT_MIB`].
    pub(crate) fn leak(&self, mib: u64) -> Result<u64, OutOfRange> {
        let mut leaked = self.leaked.lock().unwrap_or_else(PoisonError::into_inner);
        let held = (leaked.iter().map(Vec::len).sum::<usize>() >> 20) as u64;
        if held + mib > LEAK_LIMIT_MIB {
            return Err(OutOfRange { name: "mb", text: mib.to_string(), most: LEAK_LIMIT_MIB - held });
        }
        leaked.push(vec![1; (mib << 20) as usize]);
        Ok(held + mib)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid={}", self.pid)?;
        if let Some(slot) = &self.slot {
            write!(f, " slot={slot}")?;
        }
        if let Some(generation) = &self.generation {
            write!(f, " generation={generation}")?;
        }
        Ok(())
    }
}

/// The most `/leak` takes in the life of the worker.
const LEAK_LIMIT_MIB: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn app(slot: Option<&str>) -> App {
        App::new(Identity { pid: 7, slot: slot.map(str::to_owned), generation: None })
    }

    #[test]
    fn leaks_add_up_and_are_bounded() {
        let app = app(None);
        assert_eq!(app.leak(1).ok(), Some(1));
        assert_eq!(app.leak(2).ok(), Some(3));
        assert_eq!(app.leak(4094).map_err(|refused| refused.most), Err(4093));
    }

    #[test]
    fn the_identity_names_what_is_known() {
        assert_eq!(app(None).identity.to_string(), "pid=7");
        assert_eq!(app(Some("2")).identity.to_string(), "pid=7 slot=2");
    }
}
