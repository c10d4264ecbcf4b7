//! How far the end of the data plane is: whether shards still accept, and who of those connected can still ask for anything.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts that only grow old at the end of the program.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// Connections of clients that are tunnels: no request comes on them any more.
    tunnels: AtomicUsize,
    /// Shards that accept nobody any more.
    closed: AtomicUsize,
}

/// A connection that is a tunnel, until this is dropped; before its connection is.
#[derive(Debug)]
pub(crate) struct Tunnelled<'a>(&'a Ending);

impl Ending {
    /// A connection is a tunnel from now on.
    pub(crate) fn tunnel(&self) -> Tunnelled<'_> {
        self.tunnels.fetch_add(1, Ordering::SeqCst);
        Tunnelled(self)
    }

    /// A shard has taken the last of those who waited for it.
    pub(crate) fn shard_closed(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether no request can come any more, with so many shards in all. `open` counts connections, and is asked after the shards
    /// and before the tunnels: a connection is open before it is a tunnel, and for longer.
    pub(crate) fn is_silent(&self, shards: usize, open: impl Fn() -> usize) -> bool {
        self.closed.load(Ordering::SeqCst) >= shards && open() <= self.tunnels.load(Ordering::SeqCst)
    }
}

impl Drop for Tunnelled<'_> {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_more_comes_once_nobody_is_accepted_and_tunnels_alone_are_open() {
        let ending = Ending::default();
        let tunnel = ending.tunnel();
        ending.shard_closed();
        assert!(!ending.is_silent(2, || 1), "another shard still accepts");
        ending.shard_closed();
        assert!(ending.is_silent(2, || 1) && !ending.is_silent(2, || 2));
        drop(tunnel);
        assert!(!ending.is_silent(2, || 1) && ending.is_silent(2, || 0));
    }
}
