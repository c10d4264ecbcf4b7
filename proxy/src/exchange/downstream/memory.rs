//! Memory that the streams of one connection share for what their client has not taken.
//!
//! It bounds a client that opens many streams and reads none. Each stream has a little of its own besides, so that none
//! ever waits for memory of others.

use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    left: AtomicUsize,
}

impl SharedMemory {
    /// So many bytes for all streams together.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    /// A stream's part, empty at first.
    pub(super) fn share(&self) -> MemoryShare<'_> {
        MemoryShare { shared: self, bytes: 0 }
    }

    /// Takes what is left, up to `wanted` bytes.
    fn take(&self, wanted: usize) -> usize {
        let rest = |left: usize| Some(left - left.min(wanted));
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        before.unwrap_or_else(|left| left).min(wanted)
    }
}

/// What a stream has of it; dropping it gives that back.
#[derive(Debug)]
pub(super) struct MemoryShare<'c> {
    shared: &'c SharedMemory,
    bytes: usize,
}

impl MemoryShare<'_> {
    /// Bytes that the stream may use, `wanted` at the most. What it has once got it keeps.
    pub(super) fn at_most(&mut self, wanted: usize) -> usize {
        let more = wanted.saturating_sub(self.bytes);
        if more > 0 {
            self.bytes += self.shared.take(more);
        }
        self.bytes.min(wanted)
    }
}

impl Drop for MemoryShare<'_> {
    fn drop(&mut self) {
        self.shared.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::SharedMemory;

    #[test]
    fn streams_share_what_there_is_and_give_it_back() {
        let memory = SharedMemory::new(100);
        let (mut one, mut other) = (memory.share(), memory.share());
        assert_eq!((one.at_most(30), one.at_most(30), one.at_most(20)), (30, 30, 20));
        assert_eq!((one.at_most(60), other.at_most(60)), (60, 40));
        assert_eq!(memory.share().at_most(1), 0);
        drop(one);
        assert_eq!((other.at_most(90), memory.share().at_most(90)), (90, 10));
        drop(other);
        assert_eq!(memory.share().at_most(usize::MAX), 100);
    }
}
